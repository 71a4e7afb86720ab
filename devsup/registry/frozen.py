"""
Everything a guard writes, and what ends a server.

The statements here name only the frozen tables of `schema`, so that a guard of any age can execute them on a
registry that a newer devsup has migrated. Each function is called inside one write transaction (or is a
single statement, which is one) and decides by what its statement found, never by an earlier read: a row that
somebody else has ended, claimed or started again since is left alone, and the answer is False or None.
"""

# ruff: noqa: A002, S608
# `type` is the word of the record. The statements are put together from names in this package.

from __future__ import annotations

from devsup.clock import now_ms
from devsup.models import State
from devsup.records import Record
from devsup.registry.codec import (
    RUN_COLUMNS,
    claim_from,
    claim_text,
    identity_text,
    json_text,
    operation,
    pid_of,
    record,
    row_from,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from devsup.models import Identity, Operation, Row, StopClaim
    from devsup.registry._sqlite import sqlite3
    from devsup.registry.opening import Database

__all__ = [
    "EVENTS",
    "EVENTS_MS",
    "HISTORY",
    "KEEP",
    "RUNS",
    "About",
    "End",
    "Keep",
    "add_event",
    "begin_operation",
    "claim",
    "claim_stop",
    "dismiss",
    "end_operations",
    "ended_event",
    "finish",
    "next_generation",
    "operations",
    "read",
    "record_child",
    "regenerate",
    "remember",
    "take",
    "update",
    "withdraw",
]

#: Ended servers kept per project, and earlier generations of one that was restarted.
HISTORY, RUNS = 200, 20
#: Events kept, and for how long; the age is looked at once in so many events.
EVENTS, EVENTS_MS = 10_000, 30 * 86_400_000
_AGE_EVERY = 64


class Keep:
    """The type of `KEEP`."""


#: "Leave this column as it is": None is a value of its own.
KEEP = Keep()


class About(Record):
    """What an event is about."""

    project: str | None
    session: str | None
    server: str | None
    generation: int | None

    @classmethod
    def row(cls, row: Row) -> About:
        """Return what an event about `row` is about."""
        return cls(row.project, row.session, row.id, row.generation)


class End(Record):
    """How a generation ended."""

    state: State
    exit_code: int | None
    signal: int | None
    reason: str | None
    by: str | None
    outcome: dict[str, Any] | None
    at: int
    keep: bool


def read(db: Database, server: str) -> Row | None:
    """Return the row of `server`."""
    found = db.execute(
        f"SELECT {RUN_COLUMNS}, description FROM runs JOIN servers USING (id) WHERE id = ?", (server,)
    ).fetchall()
    return row_from(found[0], found[0][-1]) if found else None


# -- the life of a server ---------------------------------------------------------------------------


def withdraw(db: Database, server: str, generation: int, starter: str | None) -> bool:
    """Delete a reservation without a guard; with `starter` (as text) only that one's."""
    return (
        take(
            db,
            "id = ? AND generation = ? AND live = 1 AND guard IS NULL AND leader IS NULL"
            " AND (? IS NULL OR starter = ?)",
            (server, generation, starter, starter),
        )
        is not None
    )


def claim(db: Database, server: str, generation: int, guard: Identity, instead_of: Identity | None) -> bool:
    """Make `guard` the guard of a row that has none, or still has `instead_of`; alone a single statement."""
    me = identity_text(guard)
    found = db.execute(
        "UPDATE runs SET guard = ? WHERE id = ? AND generation = ? AND live = 1 AND stop IS NULL"
        " AND (guard IS ? OR guard = ?) RETURNING project, session, leader",
        (me, server, generation, identity_text(instead_of), me),
    ).fetchall()
    if found and instead_of is not None:
        [(project, session, leader)] = found
        add_event(db, "adopted", About(project, session, server, generation), pid=pid_of(leader))
    return bool(found)


def record_child(db: Database, server: str, generation: int, leader: Identity, guard: Identity) -> bool:
    """Record the child of `guard`, if the row is still its own and nobody has claimed the stop."""
    found = db.execute(
        "UPDATE runs SET leader = ? WHERE id = ? AND generation = ? AND live = 1 AND stop IS NULL"
        " AND guard = ? RETURNING project, session",
        (identity_text(leader), server, generation, identity_text(guard)),
    ).fetchall()
    for project, session in found:
        add_event(db, "started", About(project, session, server, generation), pid=leader.pid)
    return bool(found)


_UNUSED = (
    " AND (last_used_at IS NULL OR last_used_at <= ?)"
    " AND NOT EXISTS (SELECT 1 FROM operations WHERE server = runs.id)"
)
#: The statements of `update` by the columns they set: putting one together costs a tenth of its execution.
_updates: dict[tuple[bool, tuple[str, ...]], str] = {}


def update(
    db: Database,
    server: str,
    generation: int,
    values: dict[str, object],
    *,
    event: str | None,
    reason: str | None,
    details: dict[str, Any] | None = None,
    unused_since: int | None = None,
) -> bool:
    """
    Set columns of a live row; its state only while nobody has claimed the stop.

    With ``unused_since`` only if nobody has asked for it since then (ms since the epoch), or has an operation
    on it: whoever is told that it runs has noted that before. Without an event it is a single statement.
    """
    columns = tuple(values)
    statement = _updates.get((unused_since is None, columns))
    if statement is None:
        set_to = ", ".join(f"{name} = ?" for name in columns) or "live = live"
        unclaimed = " AND stop IS NULL" if "state" in values else ""
        unused = "" if unused_since is None else _UNUSED
        statement = (
            f"UPDATE runs SET {set_to} WHERE id = ? AND generation = ? AND live = 1{unclaimed}{unused}"
        )
        _updates[unused_since is None, columns] = statement
    bound = (*values.values(), server, generation, *(() if unused_since is None else (unused_since,)))
    if event is None:
        return db.execute(statement, bound).rowcount > 0
    found = db.execute(f"{statement} RETURNING project, session, leader", bound).fetchall()
    for project, session, leader in found:
        about = About(project, session, server, generation)
        add_event(db, event, about, pid=pid_of(leader), reason=reason, details=details)
    return bool(found)


def claim_stop(
    db: Database,
    server: str,
    generation: int,
    claim: StopClaim,
    dead_holder: Identity | None,
    but: Collection[int] | None = None,
) -> StopClaim | list[Operation] | None:
    """
    Return the claim in force on a live generation: `claim`, or that of a holder who is not proven dead.

    Invariant: at most one claim per generation. It passes on only from `dead_holder`, or from a restart to a
    stop, which is the stronger wish. A claim of the same process (another thread of it) counts like any
    other.

    With ``but`` the stop is a patient one: it outranks no restart, and where operations are in flight (but
    for those numbers) nothing is claimed and they are the answer.
    """
    found = db.execute(
        "SELECT stop, project, session, leader FROM runs WHERE id = ? AND generation = ? AND live = 1",
        (server, generation),
    ).fetchall()
    if not found:
        return None
    [(stop, project, session, leader)] = found
    held = claim_from(stop)
    outranked = held is not None and held.purpose == "restart" and claim.purpose == "stop" and but is None
    if held is not None and held.by != dead_holder and not outranked:
        return held
    in_flight = [] if but is None else [one for one in operations(db, server) if one.number not in but]
    if in_flight:
        return in_flight
    state = State.RESTARTING if claim.purpose == "restart" else State.STOPPING
    db.execute("UPDATE runs SET stop = ?, state = ? WHERE id = ?", (claim_text(claim), state.value, server))
    if held is None:
        add_event(
            db,
            "stopping",
            About(project, session, server, generation),
            pid=pid_of(leader),
            by=f"pid {claim.by.pid}",
            reason=claim.purpose,
            at=claim.since,
        )
    return claim


def unclaim(db: Database, server: str, generation: int, claim: StopClaim, state: State) -> bool:
    """Give back a claim of which nothing comes, and say what is known of the server then."""
    found = db.execute(
        "UPDATE runs SET stop = NULL, state = ?"
        " WHERE id = ? AND generation = ? AND live = 1 AND stop = ? RETURNING id",
        (state.value, server, generation, claim_text(claim)),
    ).fetchall()
    return bool(found)


# -- operations -------------------------------------------------------------------------------------


def operations(db: Database, server: str) -> list[Operation]:
    """Return the operations on a server, oldest first, also those of dead processes."""
    found = db.execute(
        "SELECT number, server, generation, by, since, purpose, exclusive FROM operations"
        " WHERE server = ? ORDER BY number",
        (server,),
    ).fetchall()
    return [operation(one) for one in found]


def begin_operation(
    db: Database, server: str, generation: int, by: Identity, purpose: str, *, exclusive: bool
) -> int | list[Operation] | StopClaim | None:
    """
    Record an operation on a live generation that nobody ends; return its number.

    Else what is in the way: the claim, the operations that exclude it, or None where the generation is over
    or its guard is about to end it.
    """
    # What was recorded for servers that are no more, by processes that did not live to take it back.
    db.execute("DELETE FROM operations WHERE server NOT IN (SELECT id FROM runs)")
    found = db.execute(
        "SELECT stop, state FROM runs WHERE id = ? AND generation = ? AND live = 1", (server, generation)
    ).fetchall()
    if not found:
        return None
    [(stop, state)] = found
    held = claim_from(stop)
    if held is not None:
        return held
    if state == State.STOPPING.value:
        return None
    in_the_way = [one for one in operations(db, server) if exclusive or one.exclusive]
    if in_the_way:
        return in_the_way
    now = now_ms()
    number = db.execute(
        "INSERT INTO operations (server, generation, by, since, purpose, exclusive)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (server, generation, identity_text(by), now, purpose, exclusive),
    ).lastrowid
    db.execute("UPDATE runs SET last_used_at = ? WHERE id = ?", (now, server))
    return number


def end_operations(db: Database, numbers: Collection[int], *, used: bool) -> None:
    """Take operations back; ``used`` notes the use of their servers until now."""
    for number in numbers:
        found = db.execute("DELETE FROM operations WHERE number = ? RETURNING server", (number,)).fetchall()
        if used:
            db.execute(
                "UPDATE runs SET last_used_at = ? WHERE id = ?", (now_ms(), found[0][0] if found else None)
            )


# -- its end ----------------------------------------------------------------------------------------


def finish(db: Database, server: str, generation: int, end: End) -> bool:
    """End a live generation: move it to the history, or keep it as an ended row without a lease."""
    row = (_keep_ended if end.keep else _remember_ended)(db, server, generation, end)
    if row is None:
        return False
    ended_event(db, row, end.by)
    return True


def _remember_ended(db: Database, server: str, generation: int, end: End) -> Row | None:
    row = take(db, "id = ? AND generation = ? AND live = 1", (server, generation))
    if row is None:
        return None
    row = row.replace(
        state=end.state,
        exit_code=end.exit_code,
        signal=end.signal,
        reason=end.reason,
        outcome=end.outcome,
        ended_at=end.at,
    )
    remember(db, row)
    return row


def _keep_ended(db: Database, server: str, generation: int, end: End) -> Row | None:
    how = (end.state.value, end.exit_code, end.signal, end.reason, json_text(end.outcome), end.at)
    found = db.execute(
        "UPDATE runs SET live = 0, state = ?, exit_code = ?, signal = ?, reason = ?, outcome = ?,"
        " ended_at = ? WHERE id = ? AND generation = ? AND live = 1 RETURNING id",
        (*how, server, generation),
    ).fetchall()
    if not found:
        return None
    db.execute("DELETE FROM leases WHERE id = ?", (server,))
    return read(db, server)


def dismiss(db: Database, server: str, generation: int) -> bool:
    """Move a row that was kept after its end to the history."""
    row = take(db, "id = ? AND generation = ? AND live = 0", (server, generation))
    if row is not None:
        remember(db, row)
    return row is not None


def take(db: Database, where: str, values: tuple[object, ...]) -> Row | None:
    """Delete the one row that `where` names, with its lease and description, and return it."""
    found = db.execute(f"DELETE FROM runs WHERE {where} RETURNING {RUN_COLUMNS}", values).fetchall()
    if not found:
        return None
    server = found[0][0]
    db.execute("DELETE FROM leases WHERE id = ?", (server,))
    [(described,)] = db.execute(
        "DELETE FROM servers WHERE id = ? RETURNING description", (server,)
    ).fetchall()
    return row_from(found[0], described)


def remember(db: Database | sqlite3.Connection, row: Row) -> None:
    """Add an ended row to the history, and drop the oldest of its project beyond the bound."""
    project = text(row.project)
    db.execute(
        "INSERT INTO history (id, generation, project, session, pid, ended_at, record)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            row.id,
            row.generation,
            project,
            row.session,
            row.leader.pid if row.leader else None,
            row.ended_at,
            record(row),
        ),
    )
    db.execute(
        "DELETE FROM history WHERE project = ? AND seq <="
        " (SELECT seq FROM history WHERE project = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
        (project, project, HISTORY),
    )


def ended_event(db: Database, row: Row, by: str | None) -> None:
    """Add the event of a row's end; its type is the name of the state."""
    add_event(
        db,
        row.state.value,
        About.row(row),
        pid=row.leader.pid if row.leader else None,
        by=by,
        reason=row.reason,
        exit_code=row.exit_code,
        at=row.ended_at,
    )


# -- again ------------------------------------------------------------------------------------------


def next_generation(db: Database) -> int:
    """Give out the next generation; nobody ever gets it again."""
    # The lock file knows better where somebody has put an older copy of the database back.
    [(generation,)] = db.execute(
        "UPDATE counters SET value = max(value, ?) + 1 WHERE name = 'generation' RETURNING value",
        (db.lock.generation(),),
    ).fetchall()
    db.lock.write_generation(generation)
    return int(generation)


def regenerate(
    db: Database,
    server: str,
    generation: int,
    log_of: Callable[[int], str],
    by: str | None,
    failed: End | None = None,
    details: dict[str, Any] | None = None,
) -> Row | None:
    """
    Close a live generation into the history and begin the next one: same id, guard and lease.

    ``failed`` says how it ended where it did so by itself. None if it has ended for good, or a stop has taken
    the restart's claim meanwhile.
    """
    row = read(db, server)
    if row is None or row.generation != generation or row.ended_at is not None:
        return None
    if row.stop is not None and row.stop.purpose == "stop":
        return None
    now = now_ms()
    if failed is None:
        remember(db, row.replace(state=State.STOPPED, reason="restart", ended_at=now))
    else:
        remember(
            db,
            row.replace(
                state=failed.state,
                reason=failed.reason,
                exit_code=failed.exit_code,
                signal=failed.signal,
                ended_at=failed.at,
            ),
        )
    # One that is restarted for ever must not push the ends of all others out of the history.
    db.execute(
        "DELETE FROM history WHERE id = ? AND seq <="
        " (SELECT seq FROM history WHERE id = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
        (server, server, RUNS),
    )
    following = next_generation(db)
    db.execute(
        "UPDATE runs SET generation = ?, log = ?, started_at = ?, state = ?, leader = NULL, port = NULL,"
        " url = NULL, listener_pid = NULL, listener_inode = NULL, ready_at = NULL, exit_code = NULL,"
        " signal = NULL, reason = NULL, stop = NULL, outcome = NULL WHERE id = ?",
        (following, text(log_of(following)), now, State.STARTING.value, server),
    )
    again = read(db, server)
    assert again is not None
    add_event(
        db,
        "restarted",
        About.row(again),
        pid=row.leader.pid if row.leader else None,
        by=by,
        reason=None if failed is None else failed.reason,
        exit_code=None if failed is None else failed.exit_code,
        details=details,
        at=now,
    )
    return again


# -- events -----------------------------------------------------------------------------------------


def add_event(
    db: Database,
    type: str,
    about: About,
    *,
    pid: int | None = None,
    by: str | None = None,
    reason: str | None = None,
    exit_code: int | None = None,
    details: dict[str, Any] | None = None,
    at: int | None = None,
) -> int:
    """Add an event and return its number; the oldest go."""
    now = now_ms() if at is None else at
    project = None if about.project is None else text(about.project)
    seq = db.execute(
        "INSERT INTO events (time, type, session, project, server, generation, pid, by, reason, exit_code,"
        " details) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (now, type, about.session, project, about.server, about.generation, pid, by, reason, exit_code,
         json_text(details)),
    ).lastrowid  # fmt: skip
    assert seq is not None
    db.execute("DELETE FROM events WHERE seq <= ?", (seq - EVENTS,))
    if seq % _AGE_EVERY == 0:
        # The first young one ends the scan at once; everything before it is old.
        db.execute(
            "DELETE FROM events WHERE seq < (SELECT seq FROM events WHERE time >= ? ORDER BY seq LIMIT 1)",
            (now - EVENTS_MS,),
        )
    return seq
