"""
Start the server so that it runs only once it is recorded.

The child waits on a pipe (the gate) for one byte before it executes anything. End of file instead means that
its guard died or changed its mind, and it ends. Killed anywhere, no server can run that no row names.

What is made here of a launch that comes to nothing is told, not done: a guard's first launch has no more of
the guard loaded than this (see `beginning`).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what is behind `signal`, without its enums
import ctypes
import os
import select
import sys
import time
from enum import Enum

from devsup import identity, system
from devsup.errors import DevsupError
from devsup.fleet.membership import ADDRESS
from devsup.records import Record
from devsup.registry._sqlite import sqlite3
from devsup.tree import MARKER, Marker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from devsup.guard.job import Job
    from devsup.models import Identity
    from devsup.registry import Registry

__all__ = [
    "FAILURES",
    "ExecFailed",
    "Gated",
    "Launched",
    "Refused",
    "environment",
    "fork",
    "launch",
    "listening",
]

#: What a registry that cannot be used raises.
FAILURES = (DevsupError, sqlite3.Error, OSError)

#: Exit status of a child that could not execute its command; shells use it for "not found".
_EXEC_FAILED = 127
#: What `rt_sigaction` is called by, where its number is known.
_RT_SIGACTION = {"x86_64": 13, "aarch64": 134, "riscv64": 134, "s390x": 174, "ppc64le": 173}
#: Seconds for `execve` itself: only a hanging network filesystem takes this long.
_EXEC_TIMEOUT = 20.0


class ExecFailed(Exception):
    """The command could not be executed."""

    def __init__(self, code: int, doing: str) -> None:
        super().__init__(f"{doing}: {os.strerror(code)}")


class Refused(Enum):
    """Why a server does not run."""

    UNWRITABLE = "unwritable"  # its log cannot be written
    KILLED = "killed"  # its process ended at the gate
    UNRECORDED = "unrecorded"  # the row is not this guard's any more, or a stop is claimed
    FORBIDDEN = "forbidden"  # the guard has a reason of its own
    NOT_EXECUTED = "not executed"  # the command cannot be run


class Launched(Record):
    """
    What has come of a launch: the ``leader`` runs, or why it does not.

    ``at`` is when it was forked, on the monotonic clock; ``left`` the exit code and the signal of one that
    ended at the gate.
    """

    at: float
    leader: Identity | None = None
    refused: Refused | None = None
    reason: str = ""
    left: tuple[int | None, int | None] = (None, None)


class Gated(Record):
    """A forked child that waits to be let go."""

    pid: int
    gate: int
    report: int

    def release(self) -> None:
        """
        Let the child execute its command; return when it does.

        :raises ExecFailed: it could not; the child has ended
        """
        try:
            os.write(self.gate, b"g")
        except BrokenPipeError:
            pass  # it was killed at the gate: its end is seen as any other
        os.close(self.gate)
        poll = select.poll()
        poll.register(self.report, select.POLLIN)
        poll.poll(_EXEC_TIMEOUT * 1e3)
        os.set_blocking(self.report, False)
        try:
            report = os.read(self.report, 64)
        except BlockingIOError:
            report = b""
        os.close(self.report)
        if report:
            code, _, doing = report.decode().partition(" ")
            raise ExecFailed(int(code), doing)

    def abandon(self) -> tuple[int | None, int | None]:
        """Make the child end without having run anything; return its exit code or signal."""
        os.close(self.gate)
        os.close(self.report)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return (code, None) if code >= 0 else (None, -code)


def launch(
    job: Job, me: Identity, registry: Registry, *, forbidden: Callable[[], bool] = lambda: False
) -> Launched:
    """
    Run the server's first process, recorded as a child of the guard ``me``.

    ``forbidden`` is asked last of all before it runs.

    :raises OSError, DevsupError, sqlite3.Error: no process is to be had, or it cannot be recorded; it has
        not run
    """
    try:
        os.makedirs(os.path.dirname(job.log), mode=0o700, exist_ok=True)
        log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return Launched(time.monotonic(), refused=Refused.UNWRITABLE, reason=error.strerror or str(error))
    try:
        child = fork(job, environment(job), log)
    finally:
        os.close(log)
    at = time.monotonic()
    try:
        leader = identity.of(child.pid)
        recorded = leader is not None and registry.record_child(job.id, job.generation, leader, guard=me)
    except FAILURES:
        child.abandon()
        raise
    if leader is None:
        return Launched(at, refused=Refused.KILLED, left=child.abandon())
    if not recorded or forbidden():
        child.abandon()
        return Launched(at, refused=Refused.FORBIDDEN if recorded else Refused.UNRECORDED)
    try:
        child.release()
    except ExecFailed as error:
        return Launched(at, leader, Refused.NOT_EXECUTED, str(error))
    return Launched(at, leader)


def listening() -> frozenset[int]:
    """Return the inodes of all listening sockets: what is asked before a launch is none of the server's."""
    return frozenset(one.inode for one in system.listeners())


def environment(job: Job) -> dict[bytes, bytes]:
    """
    Return the environment of the server: this guard's, with the marker of the generation.

    Where the Redis of its fleet is, and with what password, is for its guard alone.
    """
    environ = dict(os.environb)
    environ.pop(ADDRESS.encode(), None)
    if not system.was_given(b"LC_CTYPE"):
        environ.pop(b"LC_CTYPE", None)
    marker = Marker(job.home, job.project, job.session, job.id, job.generation)
    environ[MARKER.encode()] = os.fsencode(str(marker))
    return environ


def fork(job: Job, environ: dict[bytes, bytes], log: int) -> Gated:
    """Fork the server's first process: at the gate, in a session of its own, with its log in place."""
    gate_read, gate_write = os.pipe()
    report_read, report_write = os.pipe()
    # Until the child has reset its handlers a signal would run the guard's, and wake the guard by their pipe.
    old = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            os.close(gate_write)
            _become_the_server(job, environ, log, gate_read, report_write)
    except OSError:  # no process is to be had
        os.close(gate_write)
        os.close(report_read)
        raise
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, old)
        os.close(gate_read)
        os.close(report_write)
    return Gated(pid, gate_write, report_read)


def _become_the_server(job: Job, environ: dict[bytes, bytes], log: int, gate: int, report: int) -> None:
    doing = "cannot start"
    try:
        os.setsid()
        _reset_signals()
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if os.read(gate, 1) != b"g":
            os._exit(0)
        doing = f"cannot enter `{job.cwd}`"
        os.chdir(job.cwd)
        doing = f"cannot execute `{job.executable}`"
        os.execve(job.executable, job.command, environ)
    except OSError as error:
        os.write(report, f"{error.errno} {doing}".encode())
    finally:
        os._exit(_EXEC_FAILED)


def _reset_signals() -> None:
    # Python ignores SIGPIPE and SIGXFSZ, a shell's background job ignores SIGINT, and both would be
    # inherited.
    _signal.set_wakeup_fd(-1)
    for number in _signal.valid_signals():
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    _reset_hidden_signals()
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _reset_hidden_signals() -> None:
    # glibc keeps two signals to itself. Its `posix_spawn`, by which a guard is started, has the new process
    # ignore them, and its `sigaction` does not touch them: only the kernel's own call does.
    number = _RT_SIGACTION.get(os.uname().machine)
    if sys.platform != "linux" or sys.maxsize < 1 << 32 or number is None:
        return
    call = ctypes.CDLL(None).syscall
    default = bytes(32)
    for hidden in set(range(1, _signal.NSIG)).difference(_signal.valid_signals()):
        call(number, hidden, default, None, 8)
