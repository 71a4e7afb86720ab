"""
Is pid n still the process we started?

A pid is lent, an `Identity` is not. Every answer here is about one moment; only a pidfd stays true longer.
Fail closed: a process is GONE only on proof, and a signal goes out only on proof of the opposite. What is
kept per process (`me`, `here`) is made anew after a fork; a look at all namespaces serves for a moment, so
that a hundred rows cost one. Safe from any thread.
"""

from __future__ import annotations

import errno
import os
import time
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
    try:
        handle = system.open_pidfd(pid)
    except ProcessLookupError:
        return None
    try:
        info = system.process(pid)
        if info is None or info.dead:
            return None
        if handle is None:
            return Identity(pid, info.ticks, system.boot_id())
        # Looked at last: who has not exited by now had this pid all the time, so the start time is its own.
        if system.has_exited(handle):
            return None
        inode = os.fstat(handle).st_ino if system.CAPABILITIES.pidfs else 0
        return Identity(pid, info.ticks, system.boot_id(), inode)
    finally:
        if handle is not None:
            os.close(handle)


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

    GONE only on proof: no such process, nothing but a zombie, another boot, another pidfd inode or, where
    there are none, another start time. What we may not read is UNKNOWN, and callers treat that as alive:
    waiting for a dead server costs seconds, taking a living one's port costs the user's work.
    """
    handle = None
    try:
        if who.inode and system.CAPABILITIES.pidfs:
            handle = system.open_pidfd(who.pid)
        return _judge(who, handle)
    except ProcessLookupError:
        return Liveness.GONE
    except OSError:
        return Liveness.UNKNOWN
    finally:
        if handle is not None:
            os.close(handle)


def _judge(who: Identity, handle: int | None) -> Liveness:
    """Tell whether ``who`` runs and is what ``handle``, a pidfd just opened by its pid, stands for."""
    boot = system.boot_id()
    if _other_boot(who.boot, boot):
        return Liveness.GONE
    if handle is not None and who.inode and system.CAPABILITIES.pidfs:
        # A fifth of the price of reading its start time, and it tells what that cannot: a pid that was given
        # away within the same tick.
        if os.fstat(handle).st_ino != who.inode:
            return Liveness.GONE
    else:
        info = system.process(who.pid)
        if info is None or info.dead or info.ticks != who.ticks:
            return Liveness.GONE
    # Looked at last: who has not exited by now had this pid all the time, so the start time was its own.
    if handle is not None and system.has_exited(handle):
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

    :raises ProcessLookupError: it is gone
    :raises PermissionError: it cannot be told
    """
    handle = system.open_pidfd(who.pid)
    try:
        verdict = _judge(who, handle)
        if verdict is Liveness.GONE:
            raise ProcessLookupError(errno.ESRCH, "no such process")
        if verdict is Liveness.UNKNOWN:
            raise PermissionError(errno.EACCES, "it cannot be told whether this is the process", str(who.pid))
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


#: Seconds for which one look at all namespaces serves: no sandbox is made and starts a server in so short a
#: time, should it be given the number of one that has just ended.
_MOMENT = 0.05
_namespaces: tuple[float, dict[str, int | None] | None] = (-_MOMENT, None)


def scope_relation(key: str) -> str:
    """
    Tell how the scope ``key`` relates to this process: `here`, `foreign` or `lost`.

    Lost is what ran on this machine before it was booted again, and what ran in a pid namespace that has
    ended: nothing of it can be alive. A foreign scope is another machine or namespace: its pids mean nothing
    here.
    """
    scope = here()
    if key == scope.key:
        return "here"
    machine, boot, namespace = (*key.split("/", 2), "", "")[:3]
    if machine == scope.machine and boot and _other_boot(boot, scope.boot):
        return "lost"
    # One boot is one kernel, whatever name a container gives its machine.
    same_kernel = boot == scope.boot and not boot.startswith("init-")
    return "lost" if same_kernel and _has_ended(namespace) else "foreign"


def _has_ended(namespace: str) -> bool:
    """Tell whether a pid namespace of this kernel is proven to have no process left."""
    global _namespaces
    now = time.monotonic()
    if not 0 <= now - _namespaces[0] < _MOMENT:
        _namespaces = (now, system.pid_namespaces())
    living = _namespaces[1]
    name, _, time_namespace = namespace.partition("+")
    number, _, began = name.partition(".")
    if living is None or not number.isdecimal():
        return False
    if number not in living:
        return True
    # The number may be another's by now, whose first process has not started in the same tick.
    other = living[number]
    return bool(began) and not time_namespace and other is not None and str(other) != began
