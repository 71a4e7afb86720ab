"""
Items that are lent one at a time, each for a while: the pools of `devsup.pool` on one machine.

The same interface as the numbers of `pools`, which an app has for good; here an item belongs to nobody, and
whoever has it has a fencing number, by which alone it is renewed and given back. Each function is called
inside one write transaction and answers in tuples of plain values, as the scripts that do the same in Redis;
the first value says what came of it.

Times are ms since the epoch by a clock that nobody sets: the uptime, plus what the clock of the machine was
ahead of it when this boot first lent something. So no lease ends early or late because somebody has set the
clock, and the leases of an earlier boot end when they were to end.
"""

from __future__ import annotations

import os
import time

from devsup import system
from devsup.clock import UPTIME, now_ms
from devsup.registry.keeping import KeptTransactions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from devsup.registry.opening import Database

    Answer = tuple[Any, ...]

__all__ = ["Lending", "acquire", "add", "define", "free", "items", "names", "release", "remove", "renew"]

_UNDEFINED: Answer = ("undefined",)


class Lending(KeptTransactions):
    """The pools of one state folder; each call is one transaction on a connection that is kept."""

    def define(self, name: str, offered: Sequence[str]) -> Answer:
        """Have the pool lend these items too, but for those that were taken out; see `define`."""
        return self._answer(lambda db: define(db, name, offered))

    def acquire(self, name: str, life: str, owner: str, ttl: int) -> Answer:
        """Lend an item to ``owner`` for ``ttl`` ms; see `acquire`."""
        return self._answer(lambda db: acquire(db, name, life, owner, ttl))

    def renew(
        self, name: str, life: str, item: str, owner: str, fencing: int, until: int, ttl: int
    ) -> Answer:
        """Lend it for ``ttl`` ms from now; see `renew`."""
        return self._answer(lambda db: renew(db, name, life, item, owner, fencing, until, ttl))

    def release(self, name: str, life: str, item: str, owner: str, fencing: int, until: int) -> Answer:
        """Take it back; see `release`."""
        return self._answer(lambda db: release(db, name, life, item, owner, fencing, until))

    def items(self, name: str, life: str) -> Answer:
        """Say who has what; see `items`."""
        return self._answer(lambda db: items(db, name, life))

    def names(self) -> Answer:
        """Return the names of all pools."""
        found = self._run(names, write=False, single=True)
        return found or ("names",)

    def add(self, name: str, life: str, item: str) -> Answer:
        """Have the pool lend an item, also one that was taken out."""
        return self._answer(lambda db: add(db, name, life, item))

    def remove(self, name: str, life: str, item: str) -> Answer:
        """Lend an item to nobody any more; who has it keeps it to the end."""
        return self._answer(lambda db: remove(db, name, life, item))

    def free(self, name: str, life: str, item: str) -> Answer:
        """Take an item from whoever has it."""
        return self._answer(lambda db: free(db, name, life, item))

    def _answer(self, body: Any) -> Answer:
        answer: Answer | None = self._run(body, write=True)
        assert answer is not None
        return answer


def define(db: Database, name: str, offered: Sequence[str]) -> Answer:
    """Return ``("defined", life)``: the word that tells this pool from one of its name that was lost."""
    found = db.execute("SELECT life FROM pools WHERE name = ?", (name,)).fetchall()
    if not found:
        found = [(f"{_now(db)}-{os.urandom(8).hex()}",)]
        db.execute("INSERT INTO pools (name, life, fencing) VALUES (?, ?, 0)", (name, found[0][0]))
    [(life,)] = found
    if offered:
        # What was never lent comes first, in the order in which it was named.
        first = _next_number(db, name)
        db.connection.executemany(
            "INSERT OR IGNORE INTO items (pool, item, number, until) VALUES (?, ?, ?, ?)",
            [(name, item, number, number) for number, item in enumerate(offered, first)],
        )
    return "defined", life


def acquire(db: Database, name: str, life: str, owner: str, ttl: int) -> Answer:
    """
    Lend the item that has been free for the longest time.

    Returns ``("lent", item, fencing, until)`` or, where none is free, ``("full", item, owner, until)`` of
    the one whose lease ends first; ``("full",)`` where there are no items at all.
    """
    found = db.execute(
        "SELECT life, ahead, item, owner, until FROM pools LEFT JOIN clocks ON boot = ?"
        " LEFT JOIN items ON pool = name AND offered = 1 WHERE name = ? ORDER BY until LIMIT 1",
        (system.boot_id(), name),
    ).fetchall()
    if not found or found[0][0] != life:
        return _UNDEFINED
    ahead, *first = found[0][1:]
    now = _now(db, ahead)
    if first[0] is None or first[2] > now // 1000:
        return ("full", *(() if first[0] is None else first))
    item, until = first[0], now // 1000 + ttl
    [(fencing,)] = db.execute(
        "UPDATE pools SET fencing = max(fencing + 1, ?) WHERE name = ? RETURNING fencing", (now, name)
    ).fetchall()
    db.execute(
        "UPDATE items SET until = ?, owner = ?, fencing = ? WHERE pool = ? AND item = ?",
        (until, owner, fencing, name, item),
    )
    return "lent", item, fencing, until


def renew(
    db: Database, name: str, life: str, item: str, owner: str, fencing: int, until: int, ttl: int
) -> Answer:
    """
    Return ``("lent", item, fencing, until)``, or ``("no", owner)`` with who has it now, if anybody.

    A registry that was lost is no end of a lease: whose lease runs up to ``until`` takes the item again with
    its number, unless somebody has had it since.
    """
    us = _now_in(db, name, life)
    if us is None:
        return _UNDEFINED
    now = us // 1000
    kept = db.execute(
        "UPDATE items SET until = ? WHERE pool = ? AND item = ? AND owner = ? AND fencing = ? AND until > ?",
        (now + ttl, name, item, owner, fencing, now),
    ).rowcount
    refused = None if kept else _retake(db, name, item, owner, fencing, until, now, now + ttl)
    return refused or ("lent", item, fencing, now + ttl)


def release(db: Database, name: str, life: str, item: str, owner: str, fencing: int, until: int) -> Answer:
    """Return ``("freed",)``, or ``("no", owner)`` as `renew` does."""
    us = _now_in(db, name, life)
    if us is None:
        return _UNDEFINED
    now = us // 1000
    freed = db.execute(
        "UPDATE items SET until = ?, owner = NULL WHERE pool = ? AND item = ? AND owner = ?"
        " AND fencing = ? AND until > ?",
        (now, name, item, owner, fencing, now),
    ).rowcount
    refused = None if freed else _retake(db, name, item, None, fencing, until, now, now)
    return refused or ("freed",)


def items(db: Database, name: str, life: str) -> Answer:
    """Return ``("items", (item, owner, fencing, until), ...)`` in their order; owner None: it is free."""
    us = _now_in(db, name, life)
    if us is None:
        return _UNDEFINED
    now = us // 1000
    found = db.execute(
        "SELECT item, CASE WHEN until > ? THEN owner END, fencing, until FROM items WHERE pool = ?"
        " AND (offered = 1 OR owner IS NOT NULL AND until > ?) ORDER BY number",
        (now, name, now),
    ).fetchall()
    return ("items", *found)


def names(db: Database) -> Answer:
    """Return ``("names", name, ...)``."""
    return ("names", *(name for (name,) in db.execute("SELECT name FROM pools ORDER BY name").fetchall()))


def add(db: Database, name: str, life: str, item: str) -> Answer:
    """Return ``("added", 1)``; 0 where the pool has it already."""
    if _now_in(db, name, life) is None:
        return _UNDEFINED
    back = db.execute(
        "UPDATE items SET offered = 1 WHERE pool = ? AND item = ? AND offered = 0", (name, item)
    ).rowcount
    number = _next_number(db, name)
    new = db.execute(
        "INSERT OR IGNORE INTO items (pool, item, number, until) VALUES (?, ?, ?, ?)",
        (name, item, number, number),
    ).rowcount
    return "added", back + new


def remove(db: Database, name: str, life: str, item: str) -> Answer:
    """Return ``("removed", 1)``; 0 where the pool does not have it."""
    if _now_in(db, name, life) is None:
        return _UNDEFINED
    gone = db.execute(
        "UPDATE items SET offered = 0 WHERE pool = ? AND item = ? AND offered = 1", (name, item)
    ).rowcount
    return "removed", gone


def free(db: Database, name: str, life: str, item: str) -> Answer:
    """Return ``("freed",)``, or ``("no", None)`` where nobody has it."""
    us = _now_in(db, name, life)
    if us is None:
        return _UNDEFINED
    now = us // 1000
    freed = db.execute(
        "UPDATE items SET until = ?, owner = NULL WHERE pool = ? AND item = ?"
        " AND owner IS NOT NULL AND until > ?",
        (now, name, item, now),
    ).rowcount
    return ("freed",) if freed else ("no", None)


def _retake(
    db: Database,
    name: str,
    item: str,
    owner: str | None,
    fencing: int,
    until: int,
    now: int,
    end: int,
) -> Answer | None:
    """
    Record what a lost registry knew: that ``item`` was lent with ``fencing``. Return why not, where not.

    Only a lease that is not over, of an item that nobody has had since: one that is older than the pool, or
    has a number higher than any that the pool knows.
    """
    found = db.execute(
        "SELECT items.owner, items.fencing, until, life, pools.fencing FROM items JOIN pools ON pool = name"
        " WHERE pool = ? AND item = ?",
        (name, item),
    ).fetchall()
    if not found:
        return "no", None
    by, number, held_until, life, highest = found[0]
    lost = highest < fencing or fencing < int(life.partition("-")[0])
    if not lost or number >= fencing or until <= now:
        return "no", by if held_until > now else None
    db.execute("UPDATE pools SET fencing = max(fencing, ?) WHERE name = ?", (fencing, name))
    db.execute(
        "UPDATE items SET until = ?, owner = ?, fencing = ? WHERE pool = ? AND item = ?",
        (end, owner, fencing, name, item),
    )
    return None


def _next_number(db: Database, name: str) -> int:
    found = db.execute("SELECT ifnull(max(number), 0) + 1 FROM items WHERE pool = ?", (name,)).fetchall()
    return int(found[0][0])


def _now_in(db: Database, name: str, life: str) -> int | None:
    """Return the time in microseconds; None where there is no such pool (any more)."""
    found = db.execute(
        "SELECT life, (SELECT ahead FROM clocks WHERE boot = ?) FROM pools WHERE name = ?",
        (system.boot_id(), name),
    ).fetchall()
    return _now(db, found[0][1]) if found and found[0][0] == life else None


def _now(db: Database, ahead: int | None = None) -> int:
    boot = system.boot_id()
    if boot.startswith("init-"):
        return now_ms() * 1000  # nothing tells this boot from another one
    uptime = time.clock_gettime_ns(UPTIME) // 1000
    if ahead is None:
        db.execute(
            "INSERT OR IGNORE INTO clocks (boot, ahead) VALUES (?, ?)", (boot, now_ms() * 1000 - uptime)
        )
        [(ahead,)] = db.execute("SELECT ahead FROM clocks WHERE boot = ?", (boot,)).fetchall()
    return int(ahead) + uptime
