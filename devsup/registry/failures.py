"""
What a failure of SQLite means: a damaged file, a place that cannot be used, or somebody who holds it too
long.
"""

from __future__ import annotations

import os

from devsup.errors import LockTimeout, RegistryUnusable
from devsup.registry._sqlite import sqlite3
from devsup.registry.locking import PATIENCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.paths import Home

__all__ = ["Damaged", "Starved", "translate"]

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_WAITED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_PLACE = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}


class Damaged(Exception):
    """The file with inode ``seen`` is no registry that can be read."""

    def __init__(self, reason: str, seen: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.seen = seen


class Starved(Exception):
    """The place lets us do less than SQLite needs; ``answer`` is the error for the user."""

    def __init__(self, answer: RegistryUnusable) -> None:
        super().__init__(str(answer))
        self.answer = answer


def translate(error: sqlite3.Error, home: Home, seen: int, patience: float = PATIENCE) -> Exception:
    """
    Return what to raise for `error`; itself where it is a mistake in our statements.

    ``patience`` are the seconds that were waited where somebody else was in the way.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # Raised by the module itself: text in the file that is no text, or a mistake of ours.
        return (
            Damaged("text in it is not UTF-8", seen) if isinstance(error, sqlite3.OperationalError) else error
        )
    primary = code & 0xFF
    if primary in _DAMAGE or (primary == sqlite3.SQLITE_ERROR and str(error).startswith("no such ")):
        return Damaged(str(error), seen)
    if primary in _WAITED:
        return LockTimeout(
            f"the registry `{home.registry}` was locked for {patience:.1g} s",
            hint="try again",
            details={"holder": None, "age_ms": None},
        )
    if primary in _PLACE:
        return Starved(unusable(home, str(error), full=primary == sqlite3.SQLITE_FULL))
    return error


def unusable(home: Home, reason: str, *, full: bool = False) -> RegistryUnusable:
    """Return the error for a place that cannot hold a registry; a full disk is named as such."""
    if full or _is_full(home.root):
        return RegistryUnusable(
            f"no space is left for the registry in `{home.root}`", hint="free some space on that disk"
        )
    return RegistryUnusable(
        f"the registry in `{home.root}` cannot be used: {reason}",
        hint="set `DEVSUP_HOME` to a folder on a local disk that you can write",
    )


def _is_full(folder: str) -> bool:
    try:
        return os.statvfs(folder).f_bavail == 0
    except OSError:
        return False
