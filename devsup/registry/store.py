"""
The transactions over the registry: each method of `Registry` is one.

Invariants, kept by ``_run`` and by nothing else:

1. A method sees one moment and changes all or nothing.
2. A connection lives for one method, or for one ``with registry.connection()`` block.
3. Inside a transaction nothing is spawned, signalled, waited for or asked of the network, and no other
   transaction begins: a nested one is refused.

A `Registry` may be shared between threads: what is open belongs to the thread that opened it. It does not survive
a fork.
"""

# ruff: noqa: A002, S608
# `id` and `type` are the words of the records; the statements are put together from names in this module.
from __future__ import annotations

import os
import sqlite3
import time
from _thread import get_ident

from devsup.errors import LimitReached, RegistryUnusable
from devsup.models import State
from devsup.records import Record
from devsup.registry import frozen
from devsup.registry.building import insert
from devsup.registry.codec import RUN_COLUMNS, Undecodable, event, identity_text, row_from, row_from_record
from devsup.registry.errors import FolderBusy, PortLeased, SessionBusy
from devsup.registry.failures import Damaged, Starved, translate, unusable
from devsup.registry.frozen import KEEP, Keep, now_ms
from devsup.registry.opening import Database, open_database, repair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from devsup.models import Event, Identity, Row, StopClaim
    from devsup.paths import Home

    T = TypeVar("T")

__all__ = ["Registry", "Snapshot"]

_SELECT = f"SELECT {RUN_COLUMNS}, description FROM runs JOIN servers USING (id)"
_ORDER = " ORDER BY project, session, live DESC"


class Snapshot(Record):
    """What `list` shows, of one moment: rows, ended ones newest first, and how many live in other projects."""

    rows: list[Row]
    ended: list[Row]
    elsewhere: int


class _Held:
    """A `with` block during which all methods of this thread use one connection."""

    __slots__ = ("_outermost", "_registry")

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._outermost = False

    def __enter__(self) -> None:
        open_ones = self._registry._open  # noqa: SLF001 - the two classes are one
        if get_ident() not in open_ones:
            open_ones[get_ident()] = None
            self._outermost = True

    def __exit__(self, *_: object) -> None:
        if self._outermost:
            database = self._registry._open.pop(get_ident())  # noqa: SLF001
            if database is not None:
                database.close()


class Registry:
    """The servers of one state folder; its methods raise `DevsupError`s where the folder cannot be used."""

    def __init__(self, home: Home, *, rebuild: Callable[[], list[Row]] | None = None) -> None:
        self.home = home
        #: One line for each time something was wrong with the registry and was put right.
        self.warnings: list[str] = []
        self._rebuild = rebuild or self._from_the_living
        self._open: dict[int, Database | None] = {}
        self._inside: set[int] = set()

    def _from_the_living(self) -> list[Row]:
        # Imported where it is needed: listing must not pay for it. A guard imports it at its start.
        from devsup.registry.recovery import living

        return living(self.home)

    # -- transactions -------------------------------------------------------------------------------

    def connection(self) -> _Held:
        """Keep one connection open for a block of several calls; keep such blocks short."""
        return _Held(self)

    def _run(
        self, body: Callable[[Database], T], *, write: bool, frozen: bool = False, single: bool = False
    ) -> T | None:
        """
        Run `body` as one transaction; None where a reader finds that nothing was ever started.

        A ``single`` body is one statement, which SQLite makes a transaction by itself.
        """
        me = get_ident()
        if me in self._inside:
            raise RuntimeError("a transaction is already open on this registry")
        self._inside.add(me)
        try:
            for attempt in range(3):
                try:
                    return self._once(me, body, write=write, frozen=frozen, single=single)
                except Damaged as damage:
                    self._drop(me)
                    if attempt == 2:
                        raise RegistryUnusable(
                            f"the registry `{self.home.registry}` cannot be read: {damage.reason}"
                        ) from damage
                    repair(self.home, damage, self._rebuild, self.warnings)
                except Starved as error:
                    self._drop(me)
                    raise error.answer from error
            raise AssertionError("not reached")
        finally:
            self._inside.discard(me)

    def _once(
        self, me: int, body: Callable[[Database], T], *, write: bool, frozen: bool, single: bool
    ) -> T | None:
        db = self._open.get(me)
        if db is None:
            db = open_database(
                self.home, write=write, frozen=frozen, rebuild=self._rebuild, warnings=self.warnings
            )
            if db is None:
                return None
            if me in self._open:
                self._open[me] = db
        try:
            if single:
                return body(db)
            db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                answer = body(db)
                db.execute("COMMIT")
            except BaseException:
                db.connection.rollback()
                raise
            return answer
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise translate(error, self.home, db.lock.stamp or 0) from error
        except Undecodable as error:
            raise Damaged(str(error), db.lock.stamp or 0) from error
        except OSError as error:
            raise unusable(self.home, os.strerror(error.errno or 0).lower()) from error
        finally:
            if me not in self._open:
                db.close()

    def _drop(self, me: int) -> None:
        database = self._open.get(me)
        if database is not None:
            self._open[me] = None
            database.close()

    # -- reading ------------------------------------------------------------------------------------

    def rows(self, *, scope: str | None = None, project: str | None = None) -> list[Row]:
        """Return the live and the crashed rows (of a scope, of a project), by project and session."""
        where, values = _where(scope=scope, project=project)
        return self._run(lambda db: _rows(db, where + _ORDER, values), write=False, single=True) or []

    def row(self, server: str) -> Row | None:
        """Return the row of a server id."""
        return self._run(lambda db: frozen.read(db, server), write=False, single=True)

    def find(self, scope: str, project: str, session: str) -> Row | None:
        """Return the row of a session: the live one, else one that crashed."""
        where = " WHERE project = ? AND session = ? AND scope = ? ORDER BY live DESC LIMIT 1"
        found = self._run(lambda db: _rows(db, where, (project, session, scope)), write=False, single=True)
        return found[0] if found else None

    def snapshot(self, *, project: str | None = None, ended: bool = False) -> Snapshot:
        """Return everything that `list` needs of one moment."""

        def look(db: Database) -> Snapshot:
            where, values = _where(project=project)
            rows = _rows(db, where + _ORDER, values)
            elsewhere = 0
            if project is not None:
                [(elsewhere,)] = db.execute(
                    "SELECT (SELECT count(*) FROM runs WHERE live = 1)"
                    " - (SELECT count(*) FROM runs WHERE project = ? AND live = 1)",
                    (project,),
                ).fetchall()
            past = _ended(db, project=project, limit=frozen.HISTORY) if ended else []
            return Snapshot(rows, past, elsewhere)

        return self._run(look, write=False) or Snapshot([], [], 0)

    def ended(
        self,
        *,
        project: str | None = None,
        session: str | None = None,
        id: str | None = None,
        pid: int | None = None,
        limit: int = 1,
    ) -> list[Row]:
        """Return ended servers from the history, newest first."""
        return (
            self._run(
                lambda db: _ended(db, project=project, session=session, id=id, pid=pid, limit=limit),
                write=False,
                single=True,
            )
            or []
        )

    # -- starting -----------------------------------------------------------------------------------

    def reserve(
        self,
        row: Row,
        *,
        dead: list[Row],
        limit: int,
        port: int | None,
        log_of: Callable[[int], str],
        lease: bool = True,
    ) -> Row:
        """
        Reserve session, folder, port and a place under `limit` for `row`; return it with generation and log.

        The `dead` rows, which the caller has proven dead, are ended first, each only if it is still the same.

        :raises SessionBusy, FolderBusy, PortLeased: who is in the way
        :raises LimitReached: as many servers run as are allowed
        """

        def reserve(db: Database) -> Row:
            now = now_ms()
            for one in dead:
                _end_dead(db, one, now)
            _end_lost(db, row.scope, now)
            _end_finished(db, row)
            _refuse(db, row, limit)
            if port is not None and lease:
                _lease(db, row.netns, port, row.id)
            generation = frozen.next_generation(db)
            reserved = row.replace(generation=generation, log=log_of(generation))
            insert(db.connection, reserved)
            return reserved

        return _certain(self._run(reserve, write=True))

    def withdraw(self, id: str, generation: int, *, starter: Identity | None = None) -> bool:
        """Delete a reservation that no guard has claimed (of `starter`, where given), with its lease."""
        where, values = (
            "id = ? AND generation = ? AND guard IS NULL AND leader IS NULL AND live = 1",
            (id, generation),
        )
        if starter is not None:
            where, values = f"{where} AND starter = ?", (*values, identity_text(starter))  # type: ignore[assignment]
        return self._run(lambda db: frozen.take(db, where, values), write=True) is not None

    # -- what guards write --------------------------------------------------------------------------

    def claim(self, id: str, generation: int, guard: Identity, *, instead_of: Identity | None = None) -> bool:
        """Make `guard` the guard of a reservation, or of a server whose guard was `instead_of`, proven dead."""

        def take_over(db: Database) -> bool:
            done = frozen.claim(db, id, generation, guard, instead_of)
            if done and instead_of is not None:
                frozen.update(db, id, generation, {}, event="adopted", reason=None)
            return done

        return bool(self._run(take_over, write=True, frozen=True, single=instead_of is None))

    def record_child(self, id: str, generation: int, leader: Identity, *, guard: Identity) -> bool:
        """Record the child before it runs; False if the row is not the guard's any more, or is claimed."""
        return bool(
            self._run(
                lambda db: frozen.record_child(db, id, generation, leader, guard), write=True, frozen=True
            )
        )

    def update(
        self,
        id: str,
        generation: int,
        *,
        state: State | None = None,
        port: int | Keep | None = KEEP,
        url: str | Keep | None = KEEP,
        listener_pid: int | Keep | None = KEEP,
        listener_inode: int | Keep | None = KEEP,
        ready_at: int | Keep | None = KEEP,
        event: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """Set what is given, with its event; False if the generation has ended, or `state` meets a stop claim."""
        values: dict[str, object] = {
            "port": port,
            "url": url,
            "listener_pid": listener_pid,
            "listener_inode": listener_inode,
            "ready_at": ready_at,
        }
        values = {name: value for name, value in values.items() if value is not KEEP}
        if state is not None:
            values["state"] = state.value
        return bool(
            self._run(
                lambda db: frozen.update(db, id, generation, values, event=event, reason=reason),
                write=True,
                frozen=True,
                single=event is None,
            )
        )

    def claim_stop(
        self,
        id: str,
        generation: int,
        claim: StopClaim,
        *,
        dead_holder: Identity | None = None,
    ) -> StopClaim | None:
        """Return the claim in force: ours if we won or `dead_holder` had it; None if this generation has ended."""
        return self._run(
            lambda db: frozen.claim_stop(db, id, generation, claim, dead_holder), write=True, frozen=True
        )

    def unclaim(self, id: str, generation: int, claim: StopClaim) -> bool:
        """Give back a claim whose stop has failed; the server is `unhealthy` then."""
        return bool(
            self._run(lambda db: frozen.unclaim(db, id, generation, claim), write=True, frozen=True, single=True)
        )

    def finish(
        self,
        id: str,
        generation: int,
        *,
        state: State,
        exit_code: int | None = None,
        signal: int | None = None,
        reason: str | None = None,
        by: str | None = None,
        outcome: dict[str, Any] | None = None,
        keep: bool = False,
        at: int | None = None,
    ) -> bool:
        """Record the end of a live generation, once; False if it was not there to end any more."""
        return bool(
            self._run(
                lambda db: frozen.finish(
                    db,
                    id,
                    generation,
                    state=state,
                    exit_code=exit_code,
                    signal=signal,
                    reason=reason,
                    by=by,
                    outcome=outcome,
                    keep=keep,
                    at=now_ms() if at is None else at,
                ),
                write=True,
                frozen=True,
            )
        )

    def regenerate(
        self,
        id: str,
        generation: int,
        log_of: Callable[[int], str],
        *,
        by: str | None = None,
    ) -> Row | None:
        """Begin the next generation of a live server, for a restart; None if this one has ended."""
        return self._run(
            lambda db: frozen.regenerate(db, id, generation, log_of, by), write=True, frozen=True
        )

    # -- the rest -----------------------------------------------------------------------------------

    def dismiss(self, id: str, generation: int) -> bool:
        """Move a crashed row that was kept to the history."""

        def dismiss(db: Database) -> bool:
            row = frozen.take(db, "id = ? AND generation = ? AND live = 0", (id, generation))
            if row is not None:
                frozen.remember(db, row)
            return row is not None

        return bool(self._run(dismiss, write=True))

    def touch(self, id: str) -> bool:
        """Note that a server is being used now."""
        values = (time.time_ns() // 1_000_000, id)
        return bool(
            self._run(
                lambda db: db.execute("UPDATE runs SET last_used_at = ? WHERE id = ?", values).rowcount,
                write=True,
                single=True,
            )
        )

    def lease(self, netns: str, port: int, id: str) -> None:
        """
        Give `port` to the server `id`, instead of the one it had.

        :raises PortLeased: another server has it
        """
        self._run(lambda db: _lease(db, netns, port, id), write=True)

    def leases(self, netns: str) -> dict[int, str]:
        """Return the ids of the servers that have the ports of a network namespace."""
        found = self._run(
            lambda db: db.execute("SELECT port, id FROM leases WHERE netns = ?", (netns,)).fetchall(),
            write=False,
            single=True,
        )
        return dict(found or [])

    def auto_port(self, project: str, app: str) -> int | None:
        """Return the port that this app was given the last time."""
        found = self._run(
            lambda db: db.execute(
                "SELECT port FROM auto_ports WHERE project = ? AND app = ?", (project, app)
            ).fetchall(),
            write=False,
            single=True,
        )
        return found[0][0] if found else None

    def remember_auto_port(self, project: str, app: str, port: int) -> None:
        """Give this app the same port the next time."""
        self._run(
            lambda db: db.execute("INSERT OR REPLACE INTO auto_ports VALUES (?, ?, ?)", (project, app, port)),
            write=True,
            single=True,
        )

    def events(self, *, after: int = 0, limit: int = 1000, project: str | None = None) -> list[Event]:
        """Return events after the number `after`, oldest first."""
        where, values = ("", ()) if project is None else (" AND project = ?", (project,))
        found = self._run(
            lambda db: db.execute(
                f"SELECT * FROM events WHERE seq > ?{where} ORDER BY seq LIMIT ?", (after, *values, limit)
            ).fetchall(),
            write=False,
            single=True,
        )
        return [event(one) for one in found or []]

    def add_event(
        self,
        type: str,
        *,
        row: Row | None = None,
        project: str | None = None,
        session: str | None = None,
        pid: int | None = None,
        by: str | None = None,
        reason: str | None = None,
        exit_code: int | None = None,
    ) -> int:
        """Add an event (about `row`, where given) and return its number."""
        if row is not None:
            project, session = row.project, row.session
            pid = pid if pid is not None or row.leader is None else row.leader.pid
        return _certain(
            self._run(
                lambda db: frozen.add_event(
                    db,
                    type,
                    project=project,
                    session=session,
                    server=row.id if row else None,
                    generation=row.generation if row else None,
                    pid=pid,
                    by=by,
                    reason=reason,
                    exit_code=exit_code,
                ),
                write=True,
                frozen=True,
            )
        )


# -- statements of reading --------------------------------------------------------------------------


def _certain(answer: T | None) -> T:
    assert answer is not None
    return answer


def _where(**values: object) -> tuple[str, tuple[object, ...]]:
    given = {name: value for name, value in values.items() if value is not None}
    where = " AND ".join(f"{name} = ?" for name in given)
    return f" WHERE {where}" if where else "", tuple(given.values())


def _rows(db: Database, rest: str, values: tuple[object, ...]) -> list[Row]:
    return [row_from(one, one[-1]) for one in db.execute(_SELECT + rest, values).fetchall()]


def _ended(db: Database, *, limit: int, **values: object) -> list[Row]:
    where, given = _where(**values)
    found = db.execute(
        f"SELECT record FROM history{where} ORDER BY seq DESC LIMIT ?", (*given, limit)
    ).fetchall()
    return [row_from_record(text) for (text,) in found]


# -- statements of reserving ------------------------------------------------------------------------


def _end_dead(db: Database, row: Row, now: int) -> None:
    """End a row that was proven dead, if it is still about the same processes."""
    taken = frozen.take(
        db,
        "id = ? AND generation = ? AND live = 1 AND guard IS ? AND leader IS ?",
        (row.id, row.generation, identity_text(row.guard), identity_text(row.leader)),
    )
    if taken is None or (taken.guard is None and taken.leader is None):
        return  # a reservation that came to nothing leaves no trace
    state = State.CRASHED if taken.stop is None else State.STOPPED
    _into_history(db, taken, state, "its processes are gone", now)


def _end_lost(db: Database, scope: str, now: int) -> None:
    """End the rows of this machine's earlier boots."""
    machine, boot, _ = scope.split("/", 2)
    # "0" is the character after "/": the range of everything on this machine, found by the index.
    found = db.execute(
        "SELECT id, scope FROM runs WHERE live = 1 AND scope > ? AND scope < ?",
        (f"{machine}/", f"{machine}0"),
    ).fetchall()
    for server, other in found:
        if other.split("/", 2)[1] != boot:
            taken = frozen.take(db, "id = ?", (server,))
            if taken is not None:
                _into_history(db, taken, State.LOST, "the machine was started again", now)


def _into_history(db: Database, row: Row, state: State, reason: str, now: int) -> None:
    ended = row.replace(state=state, reason=reason, ended_at=now)
    frozen.remember(db, ended)
    frozen.ended_event(db, ended, None)


def _end_finished(db: Database, row: Row) -> None:
    """Move the crashed rows of this session, which were shown until now, to the history."""
    found = db.execute(
        "SELECT id FROM runs WHERE project = ? AND session = ? AND scope = ? AND live = 0",
        (row.project, row.session, row.scope),
    ).fetchall()
    for (server,) in found:
        taken = frozen.take(db, "id = ?", (server,))
        if taken is not None:
            frozen.remember(db, taken)


def _refuse(db: Database, row: Row, limit: int) -> None:
    """Raise what stands in the way; the unique indexes would refuse it too, without saying who it is."""
    for error, rest, values in (
        (SessionBusy, "project = ? AND session = ?", (row.project, row.session)),
        (FolderBusy, "folder = ?", (row.folder,)),
    ):
        found = _rows(db, f" WHERE live = 1 AND scope = ? AND {rest}", (row.scope, *values))
        if found:
            raise error(found[0])
    [(running,)] = db.execute(
        "SELECT count(*) FROM runs WHERE live = 1 AND scope = ?", (row.scope,)
    ).fetchall()
    if running >= limit:
        raise LimitReached(
            f"{running} servers run, and no more than {limit} may",
            hint="run `devsup list --everywhere`, or set `DEVSUP_MAX_SERVERS`",
            details={"limit": limit, "running": running},
        )


def _lease(db: Database, netns: str, port: int, server: str) -> None:
    found = db.execute("SELECT id FROM leases WHERE netns = ? AND port = ?", (netns, port)).fetchall()
    holder = frozen.read(db, found[0][0]) if found else None
    if holder is not None and holder.id != server:
        raise PortLeased(holder)
    db.execute("DELETE FROM leases WHERE id = ? OR (netns = ? AND port = ?)", (server, netns, port))
    db.execute("INSERT INTO leases VALUES (?, ?, ?)", (netns, port, server))
