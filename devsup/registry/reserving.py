"""
The one transaction that makes a start possible, statement by statement.

Called inside a write transaction. What the caller has proven dead is ended only if it is still about the same
processes; what lives is never ended here.
"""

# ruff: noqa: S608
# The statement is put together from names in this package.

from __future__ import annotations

from devsup.clock import now_ms
from devsup.errors import LimitReached
from devsup.models import State
from devsup.registry import frozen, pools
from devsup.registry.codec import RUN_COLUMNS, description, identity_text, run_values, text
from devsup.registry.errors import FolderBusy, PortLeased, SessionBusy
from devsup.registry.queries import rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from devsup.models import Row
    from devsup.registry._sqlite import sqlite3
    from devsup.registry.opening import Database
    from devsup.registry.pools import Wanted

__all__ = ["end_lost", "insert", "lease", "reserve"]

_INSERT_RUN = f"INSERT INTO runs ({RUN_COLUMNS}) VALUES ({', '.join('?' * (RUN_COLUMNS.count(',') + 1))})"


_BOOTED_AGAIN = "the machine was started again"
_CONTAINER_ENDED = "its container has ended"


def reserve(
    db: Database,
    row: Row,
    *,
    dead: list[Row],
    limit: int,
    port: int | None,
    log_of: Callable[[int], str],
    idle: Iterable[Row] = (),
    wanted: Wanted | None = None,
    event: str | None = None,
) -> Row:
    """End what is dead, refuse what is in the way, insert the row with its generation and lease."""
    now = now_ms()
    end_lost(db, dead, row.scope, now)
    for one in idle:
        _release(db, one, row)
    _end_earlier_boots(db, row.scope, now)
    _end_crashed(db, row)
    _refuse(db, row, limit)
    if wanted is not None:
        row = wanted.put(row, pools.acquire(db, wanted.pool, wanted.owner, row.id, taken=wanted.taken))
    elif port is not None:
        lease(db, row.netns, port, row.id)
    generation = frozen.next_generation(db)
    reserved = row.replace(generation=generation, log=log_of(generation))
    insert(db.connection, reserved)
    if event is not None:
        pid = row.leader.pid if row.leader is not None else None
        frozen.add_event(db, event, frozen.About.row(reserved), pid=pid, by=row.owner)
    return reserved


def insert(connection: sqlite3.Connection, row: Row) -> None:
    """Insert a live row and its description."""
    connection.execute(_INSERT_RUN, run_values(row))
    connection.execute(
        "INSERT OR REPLACE INTO servers (id, description) VALUES (?, ?)", (row.id, description(row))
    )


def end_lost(db: Database, dead: Iterable[Row], scope: str, now: int) -> None:
    """End rows that the caller, in ``scope``, has proven dead."""
    for one in dead:
        _end_dead(db, one, scope, now)


def _release(db: Database, idle: Row, row: Row) -> None:
    """Free the ports that a server of another scope has in the network namespace of ``row``."""
    db.execute(
        "DELETE FROM leases WHERE netns = ? AND id IN"
        " (SELECT id FROM runs WHERE id = ? AND generation = ? AND scope <> ?)",
        (row.netns, idle.id, idle.generation, row.scope),
    )


def _end_dead(db: Database, row: Row, scope: str, now: int) -> None:
    taken = frozen.take(
        db,
        "id = ? AND generation = ? AND live = 1 AND guard IS ? AND leader IS ?",
        (row.id, row.generation, identity_text(row.guard), identity_text(row.leader)),
    )
    if taken is None and row.ended_at is not None:
        frozen.dismiss(db, row.id, row.generation)  # it was kept for the next start of its session
    if taken is None or (taken.guard is None and taken.leader is None):
        return  # a reservation that came to nothing leaves no trace
    state, reason = State.CRASHED if taken.stop is None else State.STOPPED, "its processes are gone"
    if taken.scope != scope:
        boot, other = scope.split("/", 2)[1], taken.scope.split("/", 2)[1]
        state, reason = State.LOST, _CONTAINER_ENDED if boot == other else _BOOTED_AGAIN
    _into_history(db, taken, state, reason, now)


def _end_earlier_boots(db: Database, scope: str, now: int) -> None:
    """End the rows of this machine's earlier boots."""
    machine, boot, _ = scope.split("/", 2)
    # Everything of this machine but what is of this very scope; "0" is the character after "/". Two ranges of
    # an index, so that the live rows, of which there may be many, are not even looked at.
    found = db.execute(
        "SELECT id, scope FROM runs WHERE live = 1 AND scope > ? AND scope < ?"
        " UNION ALL SELECT id, scope FROM runs WHERE live = 1 AND scope > ? AND scope < ?",
        (f"{machine}/", scope, scope, f"{machine}0"),
    ).fetchall()
    for server, other in found:
        if other.split("/", 2)[1] != boot:
            taken = frozen.take(db, "id = ?", (server,))
            if taken is not None:
                _into_history(db, taken, State.LOST, _BOOTED_AGAIN, now)


def _into_history(db: Database, row: Row, state: State, reason: str, now: int) -> None:
    ended = row.replace(state=state, reason=reason, ended_at=now)
    frozen.remember(db, ended)
    frozen.ended_event(db, ended, None)


def _end_crashed(db: Database, row: Row) -> None:
    """Move the crashed rows of this session, which were shown until now, to the history."""
    found = db.execute(
        "SELECT id FROM runs WHERE project = ? AND session = ? AND scope = ? AND live = 0",
        (text(row.project), row.session, row.scope),
    ).fetchall()
    for (server,) in found:
        taken = frozen.take(db, "id = ?", (server,))
        if taken is not None:
            frozen.remember(db, taken)


def _refuse(db: Database, row: Row, limit: int) -> None:
    """Raise what is in the way; the unique indexes would refuse it too, without saying who it is."""
    ours = "live = 1 AND scope = ? AND "
    session = rows(db, ours + "project = ? AND session = ?", (row.scope, text(row.project), row.session))
    if session:
        raise SessionBusy(session[0])
    if row.leader is not None:  # it runs already: it cannot be two servers
        leader = rows(db, ours + "leader = ?", (row.scope, identity_text(row.leader)))
        if leader:
            raise SessionBusy(leader[0])
    if row.folder is not None:
        folder = rows(db, ours + "folder = ?", (row.scope, text(row.folder)))
        if folder:
            raise FolderBusy(folder[0])
    [(running,)] = db.execute(
        "SELECT count(*) FROM (SELECT 1 FROM runs WHERE live = 1 AND scope = ? LIMIT ?)", (row.scope, limit)
    ).fetchall()
    if running >= limit:
        raise LimitReached(
            f"{running} servers run, and no more than {limit} may (`DEVSUP_MAX_SERVERS`)",
            hint="devsup list --everywhere",
            details={"limit": limit, "running": running},
        )


def lease(db: Database, netns: str, port: int, server: str) -> None:
    """
    Give a port to a server, instead of the one it had.

    :raises PortLeased: another server has it
    """
    found = db.execute("SELECT id FROM leases WHERE netns = ? AND port = ?", (netns, port)).fetchall()
    holder = frozen.read(db, found[0][0]) if found else None
    if holder is not None and holder.id != server:
        raise PortLeased(holder)
    db.execute("DELETE FROM leases WHERE id = ? OR (netns = ? AND port = ?)", (server, netns, port))
    db.execute("INSERT INTO leases (netns, port, id) VALUES (?, ?, ?)", (netns, port, server))
