"""
Locks for programs in which many callers do things at once: threads, tasks, processes.

* ``ProcessLock``   one holder among all processes of this machine; freed by the kernel when it dies
* ``RedisLock``     one holder among all hosts that use one Redis
* ``RWLock``        many readers or one writer, among threads
* ``AsyncRWLock``   the same among tasks
* ``LockManager``   all of these by the name of what they guard, and objects that are made once
* ``read_lock``, ``write_lock``   decorators that take the lock which the arguments of a call name
* ``append``, ``aappend``         add a whole line to a file that others append to

Nothing waits without a timeout. Whoever waits in vain is told who has the lock and for how long. A thread
or task that asks for what it holds, or in an order from which a deadlock could come, is refused at once. A
lock that blocks is refused in a running event loop. `devsup locks` shows who holds and who waits, in all
processes.

The names below are loaded when they are first asked for: a start needs nothing but `ProcessLock`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.errors import LockLost, LockOrderError, LockTimeout
    from devsup.locks._manager import LockManager, read_lock, write_lock
    from devsup.locks._process import Hold, ProcessLock
    from devsup.locks._record import Holder
    from devsup.locks._redis import RedisHold, RedisHolder, RedisLock
    from devsup.locks._rw import AsyncRWLock, RWLock
    from devsup.locks.appending import aappend, append

__all__ = [
    "AsyncRWLock",
    "Hold",
    "Holder",
    "LockLost",
    "LockManager",
    "LockOrderError",
    "LockTimeout",
    "ProcessLock",
    "RWLock",
    "RedisHold",
    "RedisHolder",
    "RedisLock",
    "aappend",
    "append",
    "read_lock",
    "write_lock",
]

_HOMES = {
    "devsup.errors": ("LockLost", "LockOrderError", "LockTimeout"),
    "devsup.locks._manager": ("LockManager", "read_lock", "write_lock"),
    "devsup.locks._process": ("Hold", "ProcessLock"),
    "devsup.locks._record": ("Holder",),
    "devsup.locks._redis": ("RedisHold", "RedisHolder", "RedisLock"),
    "devsup.locks._rw": ("AsyncRWLock", "RWLock"),
    "devsup.locks.appending": ("aappend", "append"),
}


def __getattr__(name: str) -> Any:
    import sys

    for home, names in _HOMES.items():
        if name in names:
            __import__(home)  # importlib's own function costs the hot lane its package
            return getattr(sys.modules[home], name)
    raise AttributeError(f"module `devsup.locks` has no `{name}`")


def __dir__() -> list[str]:
    return __all__
