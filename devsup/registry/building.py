"""
Making a registry that is complete from its first moment, and moving one away that cannot be used.

Every function here is called with the registry's file lock held exclusively and no connection open, so it has
the folder to itself. A crash at any point leaves either the old file, or no file and a lock file that says
there was one: the next command then rebuilds from the living.
"""

from __future__ import annotations

import os
import time

from devsup.clock import now_ms
from devsup.registry import frozen, schema
from devsup.registry._sqlite import sqlite3
from devsup.registry.codec import text
from devsup.registry.failures import Starved, translate, unusable
from devsup.registry.floor import highest_generation
from devsup.registry.reserving import insert

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from devsup.models import Row
    from devsup.paths import Home
    from devsup.registry.locking import FileLock

__all__ = ["adopt", "build", "highest_generation", "set_aside"]

#: The database first: a database without its WAL would be read as an older, sound one.
_PARTS = ("", "-wal", "-shm", "-journal")
#: Tried in this order; the second is for filesystems without shared memory maps.
_JOURNALS = ("wal", "delete")


def set_aside(home: Home) -> str | None:
    """Move what stands in the registry's place to a folder of its own; return it, if there was anything."""
    present = [part for part in _PARTS if os.path.lexists(home.registry + part)]
    if not present:
        return None
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    place, number = f"{home.set_aside}/{stamp}", 1
    try:
        os.makedirs(home.set_aside, mode=0o700, exist_ok=True)
        while True:
            try:
                os.mkdir(place, mode=0o700)
                break
            except FileExistsError:
                number += 1
                place = f"{home.set_aside}/{stamp}-{number}"
        for part in present:
            os.rename(home.registry + part, f"{place}/registry.db{part}")
    except OSError as error:
        raise unusable(home, os.strerror(error.errno or 0).lower()) from error
    return place


def build(
    home: Home, lock: FileLock, rows: list[Row], uri: Callable[[str, str], str], *, announce: bool
) -> None:
    """
    Put a new registry in place, with the living among `rows` as its rows and the ended ones in its history.

    ``announce`` says that there was one before it.
    """
    fresh = home.registry + ".new"
    generation = highest_generation(home, rows)
    try:
        for journal in _JOURNALS:
            for part in _PARTS:
                if os.path.lexists(fresh + part):
                    os.unlink(fresh + part)
            os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            try:
                _fill(uri(fresh, "mode=rw"), journal, rows, generation, announce=announce)
                break
            except sqlite3.OperationalError:
                if journal == _JOURNALS[-1]:
                    raise
        inode = os.stat(fresh).st_ino
        os.rename(fresh, home.registry)
        lock.write_stamp(inode, generation)
    except sqlite3.Error as error:
        answer = translate(error, home, 0)
        raise answer.answer if isinstance(answer, Starved) else answer from error
    except OSError as error:
        raise unusable(home, os.strerror(error.errno or 0).lower()) from error


def _fill(address: str, journal: str, rows: list[Row], generation: int, *, announce: bool) -> None:
    connection = sqlite3.connect(address, isolation_level=None, uri=True)
    try:
        [(given,)] = connection.execute(f"PRAGMA journal_mode = {journal}").fetchall()
        if given != journal:
            raise sqlite3.OperationalError(f"journal mode is {given}, not {journal}")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE")
        schema.create(connection)
        connection.execute("UPDATE counters SET value = ? WHERE name = 'generation'", (generation,))
        if announce:
            _raise_numbers(connection)
        for row in rows:
            if row.ended_at is not None:
                frozen.remember(connection, row)
                continue
            _insert_found(connection, row)
        connection.execute("COMMIT")
    finally:
        connection.close()


def _raise_numbers(connection: sqlite3.Connection) -> None:
    """
    Begin the numbers of events above all that were lost.

    They are cursors, valid for ever. Events come at far less than one a millisecond, so the milliseconds
    since 1970 are above every number that was given out.
    """
    raised = connection.execute(
        "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'events'", (now_ms(),)
    )
    if raised.rowcount == 0:
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)", (now_ms(),))


def _insert_found(connection: sqlite3.Connection, row: Row) -> None:
    """Insert a row that was found by its processes, with a lease of its port and an event."""
    insert(connection, row)
    port = row.port or row.asked_port
    if port is not None:
        connection.execute(
            "INSERT OR IGNORE INTO leases (netns, port, id) VALUES (?, ?, ?)", (row.netns, port, row.id)
        )
    leader = row.leader.pid if row.leader else None
    connection.execute(
        "INSERT INTO events (time, type, session, project, server, generation, pid, reason)"
        " VALUES (?, 'recovered', ?, ?, ?, ?, ?, 'the registry was rebuilt')",
        (now_ms(), row.session, text(row.project), row.id, row.generation, leader),
    )


def adopt(connection: sqlite3.Connection, rows: list[Row], floor: int) -> tuple[int, int]:
    """
    Add the living `rows` that this registry does not know, in one transaction.

    Returns how many those were and the highest generation, which is then at least `floor`.
    """
    added = 0
    connection.execute("BEGIN IMMEDIATE")
    _raise_numbers(connection)
    for row in rows:
        if row.ended_at is not None:
            continue  # this registry has a history of its own
        known = connection.execute(
            "SELECT generation FROM runs WHERE id = ? AND live = 1", (row.id,)
        ).fetchall()
        if known and known[0][0] >= row.generation:
            continue
        # What lives was started under these rules, so an entry in its way is about something that has gone.
        project, folder = text(row.project), None if row.folder is None else text(row.folder)
        connection.execute(
            "DELETE FROM runs WHERE id = ? OR (live = 1 AND scope = ? AND ((project = ? AND session = ?)"
            " OR folder = ?))",
            (row.id, row.scope, project, row.session, folder),
        )
        _insert_found(connection, row)
        added += 1
    connection.execute("DELETE FROM leases WHERE id NOT IN (SELECT id FROM runs)")
    connection.execute("DELETE FROM servers WHERE id NOT IN (SELECT id FROM runs)")
    [(generation,)] = connection.execute(
        "UPDATE counters SET value = max(value, ?) WHERE name = 'generation' RETURNING value", (floor,)
    ).fetchall()
    connection.execute("COMMIT")
    return added, generation
