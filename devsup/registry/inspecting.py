"""
Is the file of the registry whole, how big has it become, and how small can it be?

Each statement is a transaction of its own, since one that meets damage could not be ended well. Nothing here
is on the way of a start, a stop or a list.
"""

from __future__ import annotations

import os
import time

from devsup.records import Record
from devsup.registry._sqlite import sqlite3
from devsup.registry.failures import Damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.registry.opening import Database

__all__ = ["Inspection", "compact", "inspect", "refuse_damage"]

#: Problems that are told; the first says all there is to say.
_MOST = 3
#: Whoever has waited for a turn to write is likely to copy the log back just then, which may take a second.
_TRIES, _PAUSE = 20, 0.2
#: What SQLite says of the log where another process is copying it back.
_NOT_BEGUN = -1


class Inspection(Record):
    """
    A registry at one moment.

    ``size`` and ``wal`` are bytes on disk, ``needed`` those that something is in. ``damage`` is what is
    wrong with the file; of a damaged one nothing is counted. ``ended`` and ``events`` are those kept.
    """

    version: int
    size: int
    wal: int
    needed: int
    damage: list[str]
    live: int
    ended: int
    events: int


def inspect(db: Database, *, whole: bool) -> Inspection:
    """Return what the registry is like; ``whole`` reads every page of it."""
    [(version,)] = db.execute("PRAGMA user_version").fetchall()
    [(_, _, path)] = [one for one in db.execute("PRAGMA database_list").fetchall() if one[1] == "main"]
    damage = _damage(db) if whole else []
    return Inspection(
        version=version,
        size=_size(path),
        wal=_size(f"{path}-wal"),
        # Of all pages, as some may be in the write-ahead log only.
        needed=(_number(db, "PRAGMA page_count") - _number(db, "PRAGMA freelist_count"))
        * _number(db, "PRAGMA page_size"),
        damage=damage,
        live=0 if damage else _number(db, "SELECT count(*) FROM runs WHERE live = 1"),
        ended=0 if damage else _number(db, "SELECT count(*) FROM history"),
        events=0 if damage else _number(db, "SELECT count(*) FROM events"),
    )


def compact(db: Database) -> int:
    """Give back the bytes that are not used, and return what is left on disk; who writes has to wait."""
    [(_, _, path)] = [one for one in db.execute("PRAGMA database_list").fetchall() if one[1] == "main"]
    db.execute("VACUUM")
    for _ in range(_TRIES):
        [(_, pages, _)] = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if pages != _NOT_BEGUN:
            break
        time.sleep(_PAUSE)  # SQLite does not wait for this one
    return _size(path) + _size(f"{path}-wal")


def refuse_damage(db: Database) -> None:
    """Raise `Damaged` for a file that is not whole, so that it is moved aside and rebuilt."""
    damage = _damage(db)
    if damage:
        raise Damaged(damage[0], db.inode)


def _damage(db: Database) -> list[str]:
    try:
        found = [text for (text,) in db.execute(f"PRAGMA integrity_check({_MOST})").fetchall()]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if found == ["ok"] else [" ".join(str(text).split()) for text in found]


def _number(db: Database, statement: str) -> int:
    found = db.execute(statement).fetchall()
    return int(found[0][0]) if found else 0


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
