"""
Numbers that are lent one at a time, and come back to whom they were lent before: the automatic ports.

A pool has two kinds of memory. ``assigned`` says which number an owner (an app of a project) has for good: it
outlives the server, a reboot and every lease, and no two owners share one. ``leases`` says who has a number
at this moment. Each function is called inside one write transaction, so of any number of processes that
acquire at once no two get the same number, and nobody who is not the holder renews or releases it.

What is lent to whoever asks, and is nobody's afterwards, stands in `lending`: the pools of `devsup.pool`.
"""

from __future__ import annotations

import os
from binascii import crc32

from devsup.clock import now_ms
from devsup.records import Record
from devsup.registry.codec import text
from devsup.registry.errors import PoolEmpty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devsup.models import Row
    from devsup.registry.opening import Database

__all__ = ["Pool", "Wanted", "acquire", "assigned", "forget", "owners", "release", "renew"]


class Pool(Record):
    """
    The numbers ``first`` .. ``first + size - 1``, without those in ``never``.

    What is assigned is so under ``name``; a lease is of one ``space``, for a port its network namespace.
    """

    name: str
    space: str
    first: int
    size: int
    never: frozenset[int] = frozenset()


class Wanted(Record):
    """A number that a reservation is to get: for whom, what is taken by others, how the row is told it."""

    pool: Pool
    owner: str
    taken: frozenset[int]
    put: Callable[[Row, int], Row]


def acquire(
    db: Database,
    pool: Pool,
    owner: str,
    holder: str,
    *,
    taken: frozenset[int] = frozenset(),
    until: int | None = None,
) -> int:
    """
    Lend ``owner`` its number, to be held by ``holder``; another one only where its own is not to be had.

    ``taken`` are numbers that somebody outside of the registry has. The lease is in force for as long as the
    server ``holder`` has a row or, with ``until`` (ms since the epoch), up to then.

    :raises PoolEmpty: every number is lent or taken
    """
    now = now_ms()
    lent = _lent(db, pool.space, now)
    busy = {number for number, by in lent.items() if by != holder} | taken
    number = assigned(db, pool.name, owner)
    if number is None or number in busy or not _has(pool, number):
        number = _choose(db, pool, owner, busy)
    # A number of an owner that was gone for the longest time may be taken from it: then this replaces two.
    db.execute(
        "INSERT OR REPLACE INTO assigned (pool, owner, number, used_at) VALUES (?, ?, ?, ?)",
        (pool.name, text(owner), number, now),
    )
    db.execute("DELETE FROM leases WHERE netns = ? AND port = ?", (pool.space, number))
    db.execute(
        "INSERT INTO leases (netns, port, id, until) VALUES (?, ?, ?, ?)",
        (pool.space, number, holder, until),
    )
    return number


def renew(db: Database, pool: Pool, number: int, holder: str, *, until: int | None) -> bool:
    """Let ``holder`` keep ``number`` until then; False if it is not, or no more, its own."""
    now = now_ms()
    renewed = db.execute(
        "UPDATE leases SET until = ? WHERE netns = ? AND port = ? AND id = ?"
        " AND (until IS NULL OR until > ?)",
        (until, pool.space, number, holder, now),
    ).rowcount
    if renewed:
        db.execute("UPDATE assigned SET used_at = ? WHERE pool = ? AND number = ?", (now, pool.name, number))
    return renewed > 0


def release(db: Database, pool: Pool, number: int, holder: str) -> bool:
    """Take ``number`` back from ``holder``; its owner keeps it for the next time. False if it is not held."""
    values = (pool.space, number, holder)
    return db.execute("DELETE FROM leases WHERE netns = ? AND port = ? AND id = ?", values).rowcount > 0


def assigned(db: Database, pool: str, owner: str) -> int | None:
    """Return the number that ``owner`` has for good."""
    found = db.execute(
        "SELECT number FROM assigned WHERE pool = ? AND owner = ?", (pool, text(owner))
    ).fetchall()
    return found[0][0] if found else None


def owners(db: Database, pool: str) -> list[tuple[str | bytes, int]]:
    """Return who has which number for good, by owner."""
    return db.execute("SELECT owner, number FROM assigned WHERE pool = ? ORDER BY owner", (pool,)).fetchall()


def forget(db: Database, pool: str, owner: str | bytes) -> bool:
    """Let others have the number of ``owner``, as `owners` names it."""
    return db.execute("DELETE FROM assigned WHERE pool = ? AND owner = ?", (pool, owner)).rowcount > 0


def candidates(pool: Pool, owner: str) -> Iterator[int]:
    """Give the numbers in the order in which ``owner`` tries them: the same in every process and release."""
    start = crc32(os.fsencode(owner)) % pool.size
    for step in range(pool.size):
        number = pool.first + (start + step) % pool.size
        if number not in pool.never:
            yield number


def _choose(db: Database, pool: Pool, owner: str, busy: set[int]) -> int:
    found = db.execute(
        "SELECT number, owner = ? FROM assigned WHERE pool = ? ORDER BY used_at", (text(owner), pool.name)
    ).fetchall()
    others = {number for number, own in found if not own}
    for number in candidates(pool, owner):
        if number not in busy and number not in others:
            return number
    for number, _ in found:
        if number not in busy and _has(pool, number):
            return int(number)
    raise PoolEmpty(pool)


def _has(pool: Pool, number: int) -> bool:
    return 0 <= number - pool.first < pool.size and number not in pool.never


def _lent(db: Database, space: str, now: int) -> dict[int, str]:
    # A lease whose server has no row any more keeps nobody out.
    return dict(
        db.execute(
            "SELECT port, id FROM leases WHERE netns = ? AND (until > ? OR until IS NULL"
            " AND EXISTS (SELECT 1 FROM runs WHERE runs.id = leases.id))",
            (space, now),
        ).fetchall()
    )
