"""
The lock of a session: only who holds it makes servers there, or gives one a guard.

Held from the last look at the registry to the moment the server is recorded, never while that becomes ready.
The kernel frees it when its holder dies.
"""

from __future__ import annotations

from devsup.errors import RegistryUnusable
from devsup.locks import ProcessLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.locks import Hold
    from devsup.paths import Home

__all__ = ["hold", "try_hold", "unwritable"]


def hold(home: Home, scope: str, project: str, session: str, *, purpose: str) -> Hold:
    """Return a hold, not yet taken, of the lock under which servers of this session are made."""
    path = home.session_lock(scope, project, session)
    # The last: a program that embeds us may hold locks of its own.
    return ProcessLock(path, name=f"{session} in {project}", last=True).write(purpose=purpose)


def try_hold(home: Home, lock: Hold) -> bool:
    """
    Take ``lock`` if it is free.

    :raises RegistryUnusable: its file cannot be written
    """
    try:
        return lock.try_acquire()
    except OSError as error:
        raise unwritable(home, error) from error


def unwritable(home: Home, error: OSError) -> RegistryUnusable:
    """Return the error that says that the state folder cannot be written."""
    what = f"`{error.filename}`" if error.filename else f"the state folder `{home.root}`"
    return RegistryUnusable(
        f"{what} cannot be used: {error.strerror}", hint="set DEVSUP_HOME to a folder that can be written"
    )
