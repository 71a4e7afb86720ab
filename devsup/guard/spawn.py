"""
Start a guard process; used by `start` and `restart`, with the session lock held.

The guard comes by exec, so it inherits no lock; it closes every other descriptor first of all, so a caller
whose pipes are read to their end is not held up by it.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import time
from _signal import SIGUSR2  # type: ignore[import-not-found]  # `signal` costs a start a ms more

from devsup import system
from devsup.errors import InternalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from devsup.guard.job import Job

__all__ = ["ADOPT", "LOOK", "START", "Hearing", "spawn"]

START = "start"
#: Take over a living server whose guard has died.
ADOPT = "adopt"
#: Asks a guard to do what the claim in its row says. Unlike SIGTERM, which is an orderly stop, it may come
#: twice or too late: a claim is gone once it was obeyed.
LOOK: int = SIGUSR2

_PIPE = 3


class Hearing:
    """The caller's end of the guard's pipe. Steps: ``c`` claimed, ``l`` launched, ``r`` ready or running."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.steps = ""
        self.ended = False

    def __enter__(self) -> Hearing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hear no more."""
        os.close(self._fd)

    def wait(self, step: str, deadline: float) -> bool:
        """
        Wait until ``step`` was heard (True), or the guard has closed the pipe or the deadline is over
        (False).
        """
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while step not in self.steps and not self.ended:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1e3):
                return False
            heard = os.read(self._fd, 16)
            self.steps += heard.decode()
            self.ended = not heard
        return step in self.steps


def spawn(job: Job, environ: Mapping[str, str], *, mode: str, log: str) -> Hearing:
    """
    Start the guard of ``job`` with the environment that its server shall have.

    :raises InternalError: the interpreter cannot be started
    """
    main = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
    # `ps` shows the label; the guard itself reads only the first four.
    label = f"{job.session} of {job.project}"
    # Without `site` it starts in half the time; where the system is asked through psutil, that must be found.
    flags = ["-I"] if system.PORTABLE else ["-I", "-S"]
    argv = [sys.executable, *flags, main, job.home, job.id, str(job.generation), mode, label]
    read, write = os.pipe()
    if write <= _PIPE:
        # Duplicating a descriptor onto itself leaves it close-on-exec; and a caller without standard streams
        # is given their numbers, which are the guard's log in a moment.
        write, low = fcntl.fcntl(write, fcntl.F_DUPFD_CLOEXEC, _PIPE + 1), write
        os.close(low)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        (os.POSIX_SPAWN_DUP2, write, _PIPE),
    ]
    try:
        pid = os.posix_spawn(sys.executable, argv, environ, file_actions=actions, setsigmask=())
    except OSError as error:
        os.close(read)
        raise InternalError(
            f"cannot start the guard with `{sys.executable}`: {error.strerror}",
            hint="install devsup again, with a Python that is there",
        ) from error
    finally:
        os.close(write)
    try:
        os.waitpid(pid, 0)  # it forks and ends at once; the guard itself is nobody's child
    except ChildProcessError:
        pass  # the embedding program collects all children itself
    return Hearing(read)
