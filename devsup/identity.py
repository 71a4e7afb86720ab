"""
Is pid n still the process we started?

A pid is lent, an `Identity` is not. Every answer here is about one moment; only a pidfd stays true longer.
Fail closed: a process is GONE only on proof, and a signal goes out only on proof of the opposite. What is
kept per process (`me`, `here`) is made anew after a fork. Safe from any thread.
"""

from __future__ import annotations

import errno
import os
from enum import Enum

from devsup import system
from devsup.models import Identity, Scope

__all__ = ["Liveness", "here", "is_gone", "liveness", "me", "of", "scope_relation", "signal", "wait_handle"]


class Liveness(Enum):
    """The three answers; unknown counts as alive."""

    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"


# -- naming ----------------------------------------------------------------------------------------


def of(pid: int) -> Identity | None:
    """
    Return who has ``pid`` now; None where nobody has, or only a zombie's exit status is left.

    :raises OSError: it cannot be told
    """
    for _ in range(3):
        inode = system.pidfd_inode(pid)
        info = system.process(pid)
        if info is None or info.dead:
            return None
        # The same inode before and after: the start time in between is of the same process.
        if inode == system.pidfd_inode(pid):
            if inode == 0 and system.CAPABILITIES.pidfs:
                return None  # the number of a thread
            return Identity(pid, info.ticks, system.boot_id(), inode)
    raise OSError(errno.EAGAIN, "the pid changes hands too fast", str(pid))


_me: Identity | None = None


def me() -> Identity:
    """Return this process's identity."""
    global _me
    if _me is None or _me.pid != os.getpid():
        _me = of(os.getpid())
        if _me is None:
            raise OSError(errno.ESRCH, "this process does not see itself")
    return _me


def _forget_me() -> None:
    # The pid alone does not tell: a grandchild may be given the pid of its dead grandparent.
    global _me
    _me = None


os.register_at_fork(after_in_child=_forget_me)


# -- alive or not ----------------------------------------------------------------------------------


def liveness(who: Identity) -> Liveness:
    """
    Tell whether ``who`` still runs.

    GONE only on proof: no such process, nothing but a zombie, another start time, another boot, another pidfd
    inode. What we may not read is UNKNOWN, and callers treat that as alive: waiting for a dead server costs
    seconds, taking a living one's port costs the user's work.
    """
    try:
        return _look(who)
    except OSError:
        return Liveness.UNKNOWN


def _look(who: Identity) -> Liveness:
    boot = system.boot_id()
    if _other_boot(who.boot, boot):
        return Liveness.GONE
    info = system.process(who.pid)
    if info is None or info.dead or info.ticks != who.ticks:
        return Liveness.GONE
    if who.inode and system.CAPABILITIES.pidfs:
        # After the look at the start time, not before: an inode that is still his now was his then.
        inode = system.pidfd_inode(who.pid)
        if inode != who.inode and system.CAPABILITIES.pidfs:
            return Liveness.GONE
    return Liveness.ALIVE if who.boot == boot else Liveness.UNKNOWN


def _other_boot(one: str, other: str) -> bool:
    # The stand-in for a missing boot id (`init-...`) proves nothing: it may be of the same boot.
    return one != other and not one.startswith("init-") and not other.startswith("init-")


def is_gone(who: Identity | None) -> bool:
    """Tell whether ``who`` is proven gone; nobody is gone."""
    return who is None or liveness(who) is Liveness.GONE


# -- reaching it -----------------------------------------------------------------------------------


def signal(who: Identity, signum: int) -> bool:
    """
    Send ``signum`` to ``who`` and to nobody else, ever.

    True: it was sent. False: it was not, as ``who`` is gone, is not ours to signal or cannot be told from
    another process; `liveness` says which. Where the kernel has no pidfd, see `system.send_signal`.
    """
    try:
        handle = _open(who)
    except OSError:
        return False
    try:
        system.send_signal(handle, who, signum)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def wait_handle(who: Identity) -> int | None:
    """
    Return a pidfd of ``who`` that becomes readable when it ends, None where it is gone. The caller closes it.

    :raises OSError: ENOSYS where there are no pidfds, or whatever kept us from looking: poll `liveness` then
    """
    try:
        handle = _open(who)
    except ProcessLookupError:
        return None
    if handle is None:
        raise OSError(errno.ENOSYS, "this system has no pidfd")
    return handle


def _open(who: Identity) -> int | None:
    """
    Return a pidfd that is proven to be ``who``; None where the system has none but ``who`` was seen alive.

    :raises ProcessLookupError: gone, or not proven to be the same process
    """
    handle = system.open_pidfd(who.pid)
    try:
        # With the handle open: a process that is still `who` now is the one the handle stands for, as a pid
        # that was given away never comes back to its old owner.
        alive = liveness(who)
        if alive is Liveness.UNKNOWN:
            raise PermissionError(errno.EACCES, "it cannot be told whether this is the process", str(who.pid))
        if alive is Liveness.GONE:
            raise ProcessLookupError(errno.ESRCH, "no such process")
    except BaseException:
        if handle is not None:
            os.close(handle)
        raise
    return handle


# -- where pids mean something ---------------------------------------------------------------------

_here: Scope | None = None


def here() -> Scope:
    """Return the scope of this process."""
    global _here
    if _here is None:
        _here = Scope(system.machine_id(), system.boot_id(), system.pid_namespace())
    return _here


def scope_relation(key: str) -> str:
    """
    Tell how the scope ``key`` relates to this process: `here`, `foreign` or `lost`.

    Lost is what ran on this machine before it was booted again: nothing of it can be alive. A foreign scope
    is another machine or namespace: its pids mean nothing here.
    """
    scope = here()
    if key == scope.key:
        return "here"
    machine, boot, _ = (*key.split("/", 2), "", "")[:3]
    return "lost" if machine == scope.machine and boot and _other_boot(boot, scope.boot) else "foreign"
