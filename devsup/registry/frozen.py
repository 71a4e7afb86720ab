"""
Everything a guard writes, and what ends a server.

The statements here name only the frozen tables of `schema`, so that a guard of any age can execute them on a
registry that a newer devsup has migrated. Each function is called inside one write transaction (or is a single
statement, which is one) and decides by what the statement found, never by an earlier read: a row that somebody
else has ended, claimed or started again since is left alone, and the answer is False or None.
"""

# ruff: noqa: A002, S608
# `type` is the word of the record; the statements are put together from names in this module.
from __future__ import annotations

import json
import time

from devsup.models import State
from devsup.registry.codec import RUN_COLUMNS, claim_from, claim_text, identity_text, record, row_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from devsup.models import Identity, Row, StopClaim
    from devsup.registry.opening import Database

__all__ = ["KEEP", "Keep", "now_ms"]

#: Ended servers kept per project.
HISTORY = 200
#: Events kept, and for how long.
EVENTS, EVENTS_MS = 10_000, 30 * 86_400_000


class Keep:
    """The type of `KEEP`."""


#: "Leave this column as it is": None is a value of its own.
KEEP = Keep()


def now_ms() -> int:
    """Return the time that rows and events carry: milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


# -- reading one row --------------------------------------------------------------------------------


def read(db: Database, server: str) -> Row | None:
    """Return the row of `server`."""
    found = db.execute(
        f"SELECT {RUN_COLUMNS}, description FROM runs JOIN servers USING (id) WHERE id = ?", (server,)
    ).fetchall()
    return row_from(found[0], found[0][-1]) if found else None


# -- the life of a server ---------------------------------------------------------------------------


def claim(db: Database, server: str, generation: int, guard: Identity, instead_of: Identity | None) -> bool:
    """Make `guard` the guard of an unguarded row, or of one whose guard is still `instead_of`; one statement."""
    text = identity_text(guard)
    return bool(
        db.execute(
            "UPDATE runs SET guard = ?1 WHERE id = ?2 AND generation = ?3 AND live = 1 AND stop IS NULL"
            " AND (guard IS ?4 OR guard = ?1)",
            (text, server, generation, identity_text(instead_of)),
        ).rowcount
    )


def record_child(db: Database, server: str, generation: int, leader: Identity, guard: Identity) -> bool:
    """Record the child of `guard`, if the row is still its own and nobody has claimed the stop."""
    found = db.execute(
        "UPDATE runs SET leader = ? WHERE id = ? AND generation = ? AND live = 1 AND stop IS NULL AND guard = ?"
        " RETURNING project, session",
        (identity_text(leader), server, generation, identity_text(guard)),
    ).fetchall()
    for project, session in found:
        add_event(
            db,
            "started",
            project=project,
            session=session,
            server=server,
            generation=generation,
            pid=leader.pid,
        )
    return bool(found)


def update(
    db: Database,
    server: str,
    generation: int,
    values: dict[str, object],
    *,
    event: str | None,
    reason: str | None,
) -> bool:
    """Set columns of a live row; its state only while nobody has claimed the stop."""
    columns = ", ".join(f"{name} = ?" for name in values) or "live = live"
    unclaimed = " AND stop IS NULL" if "state" in values else ""
    found = db.execute(
        f"UPDATE runs SET {columns} WHERE id = ? AND generation = ? AND live = 1{unclaimed}"
        " RETURNING project, session, leader",
        (*values.values(), server, generation),
    ).fetchall()
    if event is not None:
        for project, session, leader in found:
            add_event(
                db,
                event,
                project=project,
                session=session,
                server=server,
                generation=generation,
                pid=_pid(leader),
                reason=reason,
            )
    return bool(found)


def claim_stop(
    db: Database, server: str, generation: int, claim: StopClaim, dead_holder: Identity | None
) -> StopClaim | None:
    """
    Return the claim in force on a live generation: `claim`, or that of a holder who is not proven dead.

    Invariant: at most one claim per generation; it passes on only from `dead_holder`, or from a restart to a
    stop, which is the stronger wish. One process may stop from several threads, so its own claim counts too.
    """
    found = db.execute(
        "SELECT stop, project, session, leader FROM runs WHERE id = ? AND generation = ? AND live = 1",
        (server, generation),
    ).fetchall()
    if not found:
        return None
    [(text, project, session, leader)] = found
    held = claim_from(text)
    outranked = held is not None and held.purpose == "restart" and claim.purpose == "stop"
    if held is not None and held.by != dead_holder and not outranked:
        return held
    state = State.RESTARTING if claim.purpose == "restart" else State.STOPPING
    db.execute("UPDATE runs SET stop = ?, state = ? WHERE id = ?", (claim_text(claim), state.value, server))
    if held is None:
        add_event(
            db,
            "stopping",
            project=project,
            session=session,
            server=server,
            generation=generation,
            pid=_pid(leader),
            by=str(claim.by.pid),
            reason=claim.purpose,
            at=claim.since,
        )
    return claim


def unclaim(db: Database, server: str, generation: int, claim: StopClaim) -> bool:
    """Give a claim back whose stop has failed: the server is not well, and the next may try."""
    found = db.execute(
        "UPDATE runs SET stop = NULL, state = ? WHERE id = ? AND generation = ? AND live = 1 AND stop = ? RETURNING id",
        (State.UNHEALTHY.value, server, generation, claim_text(claim)),
    ).fetchall()
    return bool(found)


# -- its end ----------------------------------------------------------------------------------------


def finish(
    db: Database,
    server: str,
    generation: int,
    *,
    state: State,
    exit_code: int | None,
    signal: int | None,
    reason: str | None,
    by: str | None,
    outcome: dict[str, Any] | None,
    keep: bool,
    at: int,
) -> bool:
    """End a live generation: move it to the history, or keep it as an ended row without a lease."""
    if keep:
        text = None if outcome is None else json.dumps(outcome)
        found = db.execute(
            "UPDATE runs SET live = 0, state = ?, exit_code = ?, signal = ?, reason = ?, outcome = ?, ended_at = ?"
            " WHERE id = ? AND generation = ? AND live = 1 RETURNING id",
            (state.value, exit_code, signal, reason, text, at, server, generation),
        ).fetchall()
        row = read(db, server) if found else None
        db.execute("DELETE FROM leases WHERE id = ?", (server,)) if row else None
    else:
        row = take(db, "id = ? AND generation = ? AND live = 1", (server, generation))
        if row is not None:
            row = row.replace(
                state=state,
                exit_code=exit_code,
                signal=signal,
                reason=reason,
                outcome=outcome,
                ended_at=at,
            )
            remember(db, row)
    if row is None:
        return False
    ended_event(db, row, by)
    return True


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


def remember(db: Database, row: Row) -> None:
    """Add an ended row to the history, and drop the oldest of its project beyond the bound."""
    db.execute(
        "INSERT INTO history (id, generation, project, session, pid, ended_at, record) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            row.id,
            row.generation,
            row.project,
            row.session,
            row.leader.pid if row.leader else None,
            row.ended_at,
            record(row),
        ),
    )
    db.execute(
        "DELETE FROM history WHERE project = ?1 AND seq <="
        " (SELECT seq FROM history WHERE project = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
        (row.project, HISTORY),
    )


def ended_event(db: Database, row: Row, by: str | None) -> None:
    """Add the event of a row's end; its type is the name of the state."""
    add_event(
        db,
        row.state.value,
        project=row.project,
        session=row.session,
        server=row.id,
        generation=row.generation,
        pid=row.leader.pid if row.leader else None,
        by=by,
        reason=row.reason,
        exit_code=row.exit_code,
        at=row.ended_at,
    )


# -- again ------------------------------------------------------------------------------------------


def next_generation(db: Database) -> int:
    """Give out the next generation; nobody ever gets it again."""
    [(generation,)] = db.execute(
        "UPDATE counters SET value = value + 1 WHERE name = 'generation' RETURNING value"
    ).fetchall()
    db.lock.write_generation(generation)
    return int(generation)


def regenerate(
    db: Database, server: str, generation: int, log_of: Callable[[int], str], by: str | None
) -> Row | None:
    """Close a live generation into the history and begin the next one: same id, guard, port and lease."""
    row = read(db, server)
    if row is None or row.generation != generation or row.ended_at is not None:
        return None
    if row.stop is None or row.stop.purpose != "restart":
        return None  # a stop has come meanwhile
    now = now_ms()
    remember(db, row.replace(state=State.STOPPED, reason="restart", ended_at=now))
    following = next_generation(db)
    db.execute(
        "UPDATE runs SET generation = ?, log = ?, started_at = ?, state = ?, leader = NULL, port = NULL, url = NULL,"
        " listener_pid = NULL, listener_inode = NULL, ready_at = NULL, exit_code = NULL, signal = NULL,"
        " reason = NULL, stop = NULL, outcome = NULL WHERE id = ?",
        (following, log_of(following), now, State.RESTARTING.value, server),
    )
    again = read(db, server)
    add_event(
        db,
        "restarted",
        project=row.project,
        session=row.session,
        server=server,
        generation=following,
        pid=row.leader.pid if row.leader else None,
        by=by,
        at=now,
    )
    return again


# -- events -----------------------------------------------------------------------------------------


def add_event(
    db: Database,
    type: str,
    *,
    project: str | None = None,
    session: str | None = None,
    server: str | None = None,
    generation: int | None = None,
    pid: int | None = None,
    by: str | None = None,
    reason: str | None = None,
    exit_code: int | None = None,
    at: int | None = None,
) -> int:
    """Add an event and return its number; the oldest go."""
    now = now_ms() if at is None else at
    seq = db.execute(
        "INSERT INTO events (time, type, session, project, server, generation, pid, by, reason, exit_code)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (now, type, session, project, server, generation, pid, by, reason, exit_code),
    ).lastrowid
    assert seq is not None
    db.execute("DELETE FROM events WHERE seq <= ?", (seq - EVENTS,))
    if seq % 64 == 0:
        # The first young one is found at once; the scan never goes past it.
        db.execute(
            "DELETE FROM events WHERE seq < (SELECT seq FROM events WHERE time >= ? ORDER BY seq LIMIT 1)",
            (now - EVENTS_MS,),
        )
    return seq


def _pid(text: str | None) -> int | None:
    return None if text is None else int(text.partition(" ")[0])
