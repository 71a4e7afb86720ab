"""
The guard's children and what it waits on: exits are read without reaping, orphans are reaped by pid.

The leader stays a zombie until its tree is gone, so that its number, which is that of its group and session,
is given to nobody else. Never `waitid(P_ALL, WNOWAIT)`: it returns the same zombie for ever.
"""

from __future__ import annotations

import os

from devsup import identity, system
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from devsup.models import Identity

__all__ = ["Exit", "Handles", "exit_of", "reap"]


class Exit(Record):
    """How a process ended; both None where nobody can tell. ``reaped``: its number is free again."""

    code: int | None = None
    signal: int | None = None
    reaped: bool = False


def exit_of(pid: int) -> Exit | None:
    """Return how the child ``pid`` ended, None while it runs; it is left unreaped where the system can."""
    try:
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            ended, status = os.waitpid(pid, os.WNOHANG)
            return _from_status(status) if ended else None
        how = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return Exit(reaped=True)
    if how is None:
        return None
    if how.si_code == os.CLD_EXITED:
        return Exit(code=how.si_status)
    return Exit(signal=how.si_status)


def _from_status(status: int) -> Exit:
    code = os.waitstatus_to_exitcode(status)
    return Exit(code=code, reaped=True) if code >= 0 else Exit(signal=-code, reaped=True)


def reap(parent: int, *, but: Collection[int]) -> None:
    """Collect the dead children of ``parent``, which is this process, but for those in ``but``."""
    for pid in system.children(parent):
        if pid not in but:
            collect(pid)


def collect(pid: int) -> None:
    """Collect one child if it is dead."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


class Handles:
    """Descriptors that become readable when a process ends, by the name of its part; none without pidfd."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def watch(self, name: str, who: Identity) -> None:
        """Wait for the end of ``who`` under ``name``, instead of whoever had it."""
        self.forget(name)
        if system.CAPABILITIES.pidfd:
            handle = identity.wait_handle(who)
            if handle is not None:
                self._open[name] = handle

    def forget(self, name: str) -> None:
        """Wait for it no more; of a dead process a handle would be ready for ever."""
        handle = self._open.pop(name, None)
        if handle is not None:
            os.close(handle)

    def get(self, name: str) -> int | None:
        """Return the descriptor, None where there is none."""
        return self._open.get(name)

    def all(self) -> list[int]:
        """Return all descriptors."""
        return list(self._open.values())
