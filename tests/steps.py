"""
Stop, signal or kill a process at any one of its steps; only tests can install it.

A step is a call of a C function by which a process changes, or waits for, something outside itself (a write,
a statement, a fork, a signal, a poll), made by a function of devsup. Its name says who called what:
`Book.finish > Transactions._transact: execute`. Something is done to the process *before* the call; what
comes after the last one cannot be told from the end of the process.

The plan comes in the environment variable `STEPS`: JSON, a list of objects ``{"role", "step", "nth", "do",
"path"}``. Roles: ``command`` is a devsup command, ``guard`` its guard, ``child`` the server's first process
until it executes its command. ``step`` may leave out the part before the `>`. Loaded by an isolated
interpreter too, so this imports nothing of the package.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

__all__ = ["install"]

#: Calls that count wherever they are made.
_ALWAYS = frozenset({
    "_exit", "chdir", "chmod", "connect", "dup2", "execute", "execve", "flock", "fork", "ftruncate", "kill",
    "killpg", "mkdir", "pidfd_send_signal", "poll", "posix_spawn", "pthread_sigmask", "pwrite", "rename",
    "rollback", "select", "set_wakeup_fd", "setsid", "unlink", "waitid", "waitpid", "write",
})  # fmt: skip
#: Calls that count except where devsup only looks at the system.
_ELSEWHERE = frozenset({"close", "open", "pipe", "read"})
_MODULES = frozenset({"posix", "fcntl", "_signal", "select", "sqlite3", "_sqlite3", "_socket"})
_LOOKING = ("/devsup/system/", "/devsup/identity.py", "/devsup/tree.py", "/devsup/readiness.py")
#: What changes something even there.
_CHANGING = frozenset({"pidfd_send_signal", "write"})
#: Layers that many use cases share: a step there is named after the use case too.
_SHARED = (*_LOOKING, "/devsup/registry/", "/devsup/locks/", "/devsup/shutdown.py", "/devsup/guard/job.py")


class _Steps:
    """The steps of one process; a fork goes on counting in a role of its own."""

    def __init__(self, role: str, plan: list[dict[str, Any]]) -> None:
        self.forks = 0
        self.role = role
        self.plan = plan
        self.seen: dict[str, int] = {}
        self.done: set[int] = set()
        self.forget()

    def forget(self) -> None:
        self.mine = [one for one in self.plan if one["role"] == self.role]
        #: Steps count from the moment that this file exists.
        self.arm = next((one["arm"] for one in self.mine if one.get("arm")), None)

    def forked(self) -> None:
        self.forks += 1
        # A guard forks once to detach itself, then for each child.
        if self.role == "guard" and self.forks > 1:
            self.role, self.seen, self.done = "child", {}, set()
            self.forget()

    def profile(self, frame: FrameType, event: str, what: Any) -> None:
        if event != "c_call" or not self.mine:
            return
        name = what.__name__
        if name not in _ALWAYS and name not in _ELSEWHERE:
            return
        step = _name_of(frame, name, what)
        if step is None:
            return
        if self.arm is not None:
            if not os.path.exists(self.arm):
                return
            self.arm = None
        nth = self.seen[step] = self.seen.get(step, 0) + 1
        for index, one in enumerate(self.mine):
            if index in self.done:
                continue
            if one["do"] == "trace":
                _append(one["path"], f"{self.role}\t{step}\t{nth}\n")
            elif one["step"] in (step, step.rpartition("> ")[2]) and one["nth"] == nth:
                self.done.add(index)
                _do(one)


def _name_of(frame: FrameType, name: str, what: Any) -> str | None:
    """Return the name of a step, None where the call is none."""
    owner = type(what.__self__)
    if (getattr(what, "__module__", None) or owner.__module__) not in _MODULES:
        return None
    if name == "poll" and owner is type(sys):
        return None  # only makes the object
    inner: str | None = None
    at: FrameType | None = frame
    while at is not None:
        path = at.f_code.co_filename
        if "/devsup/" in path:
            here = at.f_code.co_qualname
            if inner is None:
                if name not in _CHANGING and any(part in path for part in _LOOKING):
                    return None
                inner = here
            if not any(part in path for part in _SHARED):
                return f"{inner}: {name}" if inner == here else f"{here} > {inner}: {name}"
        at = at.f_back
    return None if inner is None else f"{inner}: {name}"


def _append(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.write(fd, text.encode())
    os.close(fd)


def _do(one: dict[str, Any]) -> None:
    what = one["do"]
    if what == "pause":
        # The test holds both FIFOs open; once it has let go of them nobody waits here for ever.
        for fifo, flags in ((f"{one['path']}.reached", os.O_WRONLY), (f"{one['path']}.go", os.O_RDONLY)):
            fd = os.open(fifo, flags)
            if flags == os.O_WRONLY:
                os.write(fd, b".")
            else:
                os.read(fd, 1)
            os.close(fd)
        return
    if one.get("path"):
        try:
            # Of several processes in this role only the first one gets it.
            fd = os.open(one["path"], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        os.close(fd)
    os.kill(os.getpid(), getattr(signal, what))


def install(role: str) -> None:
    """Carry out the plan in this process, its threads and its forks."""
    steps = _Steps(role, json.loads(os.environ.get("STEPS", "[]")))
    os.register_at_fork(after_in_child=steps.forked)
    threading.setprofile(steps.profile)
    sys.setprofile(steps.profile)
