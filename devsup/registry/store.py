"""
The registry, one method per transaction.

The methods raise `DevsupError`s where the state folder cannot be used, and `Occupied` ones where a
reservation meets somebody else's. Any number of processes and threads may use it at once; see `transactions`.
"""

# ruff: noqa: A002
# `id` and `type` are the words of the records.

from __future__ import annotations

from devsup import identity
from devsup.clock import now_ms
from devsup.models import Events, State
from devsup.registry import frozen, queries
from devsup.registry.codec import identity_text, text
from devsup.registry.frozen import KEEP, Keep
from devsup.registry.queries import Snapshot
from devsup.registry.transactions import Transactions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from typing import Any

    from devsup.models import Event, Identity, Operation, Row, StopClaim
    from devsup.registry.findings import Open, Recorded
    from devsup.registry.inspecting import Inspection
    from devsup.registry.opening import Database
    from devsup.registry.pools import Pool, Wanted

__all__ = ["Registry"]


class Registry(Transactions):
    """The servers of one state folder."""

    # -- reading ------------------------------------------------------------------------------------

    def rows(self, *, scope: str | None = None, project: str | None = None) -> list[Row]:
        """Return the live and the crashed rows (of a scope, of a project), by project and session."""
        look = self._run(
            lambda db: queries.rows_of(db, scope=scope, project=project), write=False, single=True
        )
        return look or []

    def row(self, id: str) -> Row | None:
        """Return the row of a server; guards ask this too, so it answers whatever the schema."""
        return self._run(lambda db: frozen.read(db, id), write=False, any_schema=True, single=True)

    def find(self, scope: str, project: str, session: str) -> Row | None:
        """Return the row of a session: the live one, else one that crashed."""
        where = "project = ? AND session = ? AND scope = ? ORDER BY live DESC LIMIT 1"
        values = (text(project), session, scope)
        found = self._run(lambda db: queries.rows(db, where, values), write=False, single=True)
        return found[0] if found else None

    def in_folder(self, scope: str, folder: str) -> Row | None:
        """Return the live row that has ``folder`` for itself, of whatever project and session."""
        where, values = "scope = ? AND folder = ? AND live = 1", (scope, text(folder))
        found = self._run(lambda db: queries.rows(db, where, values), write=False, single=True)
        return found[0] if found else None

    def snapshot(self, *, project: str | None = None, ended: bool = False) -> Snapshot:
        """Return everything that `list` needs, of one moment."""
        look = self._run(lambda db: queries.snapshot(db, project=project, past=ended), write=False)
        return look or Snapshot([], [], 0)

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
        look = self._run(
            lambda db: queries.ended(db, limit=limit, project=project, session=session, id=id, pid=pid),
            write=False,
            single=True,
        )
        return look or []

    def inspect(self, *, whole: bool = True) -> Inspection | None:
        """
        Look over the file; ``whole`` reads all of it for damage. None where nothing was ever started.

        Damage is in the answer, and left as it is, where the rest can be read.
        """
        from devsup.registry import inspecting

        return self._run(lambda db: inspecting.inspect(db, whole=whole), write=False, single=True)

    def counters(self) -> dict[str, int]:
        """Return what is counted for good: ``generation``, and ``event:TYPE`` for each type of event."""
        statement = "SELECT name, value FROM counters"
        found = self._run(lambda db: db.execute(statement).fetchall(), write=False, single=True)
        return dict(found or [])

    def record_findings(
        self, seen: Sequence[Open], covered: Callable[[Open], bool], *, since: int, by: str
    ) -> Recorded:
        """Record which findings have appeared and gone since the event number ``since``; see `findings`."""
        from devsup.registry import findings

        recorded = self._run(lambda db: findings.record(db, seen, covered, since=since, by=by), write=True)
        assert recorded is not None
        return recorded

    def rebuild_damaged(self) -> None:
        """Move the registry aside and rebuild it from the living where `inspect` finds damage."""
        from devsup.registry import inspecting

        self._run(inspecting.refuse_damage, write=False, single=True)

    def compact(self) -> int:
        """Give back what the file takes and does not need; return the bytes that it takes then."""
        from devsup.registry import inspecting

        return self._run(inspecting.compact, write=True, single=True) or 0

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
        idle: Sequence[Row] = (),
        wanted: Wanted | None = None,
        event: str | None = None,
    ) -> Row:
        """
        Reserve session, folder, port and a place under `limit` for `row`; return it with generation and log.

        The `dead` rows, which the caller has proven dead, are ended first, each only if it is still the same.
        The `idle` ones, of other scopes, stay but for the ports they have in the network namespace of `row`.
        Where a number of a pool is `wanted`, the row gets that instead of `port`. `event` is added about it.

        :raises SessionBusy, FolderBusy, PortLeased: who is in the way
        :raises PoolEmpty: the pool has no number for it
        :raises LimitReached: as many servers run as are allowed
        """
        from devsup.registry import reserving  # `list` does without it

        reserved = self._run(
            lambda db: reserving.reserve(
                db,
                row,
                dead=dead,
                limit=limit,
                port=port if lease else None,
                log_of=log_of,
                idle=idle,
                wanted=wanted,
                event=event,
            ),
            write=True,
        )
        assert reserved is not None
        return reserved

    def projects(self) -> list[str]:
        """Return every project of which anything is remembered."""
        return self._run(queries.projects, write=False, single=True) or []

    def end_lost(self, dead: Sequence[Row], scope: str) -> None:
        """Move rows that the caller, in ``scope``, has proven dead to the history."""
        from devsup.registry import reserving

        self._run(lambda db: reserving.end_lost(db, dead, scope, now_ms()), write=True)

    def withdraw(self, id: str, generation: int, *, starter: Identity | None = None) -> bool:
        """Delete a reservation that no guard has claimed (of `starter`, where given), with its lease."""
        return bool(
            self._run(lambda db: frozen.withdraw(db, id, generation, identity_text(starter)), write=True)
        )

    # -- what guards write --------------------------------------------------------------------------

    def claim(self, id: str, generation: int, guard: Identity, *, instead_of: Identity | None = None) -> bool:
        """
        Make `guard` the guard of a reservation, or of a server whose guard `instead_of` is proven dead.

        False if another guard has it, if it is being stopped, or if it is no more.
        """
        return bool(
            self._run(
                lambda db: frozen.claim(db, id, generation, guard, instead_of),
                write=True,
                any_schema=True,
                single=instead_of is None,
            )
        )

    def record_child(self, id: str, generation: int, leader: Identity, *, guard: Identity) -> bool:
        """Record the child before it runs; False if the row is not the guard's any more, or is claimed."""
        return bool(
            self._run(
                lambda db: frozen.record_child(db, id, generation, leader, guard),
                write=True,
                any_schema=True,
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
        last_used_at: int | Keep | None = KEEP,
        event: str | None = None,
        reason: str | None = None,
        details: dict[str, Any] | None = None,
        unused_since: int | None = None,
    ) -> bool:
        """
        Set what is given, with its event.

        False, with nothing changed, if the generation has ended, or if there is a `state` and a stop claim:
        who is being stopped is not declared ready. Nor is anything changed if somebody has asked for the
        server after ``unused_since`` (ms since the epoch), or has an operation on it.
        """
        values: dict[str, object] = {} if state is None else {"state": state.value}
        if port is not KEEP:
            values["port"] = port
        if url is not KEEP:
            values["url"] = url
        if listener_pid is not KEEP:
            values["listener_pid"] = listener_pid
        if listener_inode is not KEEP:
            values["listener_inode"] = listener_inode
        if ready_at is not KEEP:
            values["ready_at"] = ready_at
        if last_used_at is not KEEP:
            values["last_used_at"] = last_used_at
        return bool(
            self._run(
                lambda db: frozen.update(
                    db,
                    id,
                    generation,
                    values,
                    event=event,
                    reason=reason,
                    details=details,
                    unused_since=unused_since,
                ),
                write=True,
                any_schema=True,
                single=event is None,
            )
        )

    def claim_stop(
        self, id: str, generation: int, claim: StopClaim, *, dead_holder: Identity | None = None
    ) -> StopClaim | None:
        """
        Return the claim in force: ours, if there was none or one of `dead_holder`, who is proven dead.

        None if this generation has ended.
        """
        answer = self._run(
            lambda db: frozen.claim_stop(db, id, generation, claim, dead_holder),
            write=True,
            any_schema=True,
        )
        assert not isinstance(answer, list)
        return answer

    def claim_patiently(
        self,
        id: str,
        generation: int,
        claim: StopClaim,
        *,
        dead_holder: Identity | None = None,
        but: Collection[int] = (),
    ) -> StopClaim | list[Operation] | None:
        """
        Claim as `claim_stop` does, but outrank nobody and wait for nothing: return what is in flight instead.

        ``but`` are numbers of operations that do not count (the caller's own).
        """
        return self._run(
            lambda db: frozen.claim_stop(db, id, generation, claim, dead_holder, but),
            write=True,
            any_schema=True,
        )

    def unclaim(self, id: str, generation: int, claim: StopClaim, *, state: State = State.UNHEALTHY) -> bool:
        """Give back a claim of which nothing comes; after a stop that has failed the server is not well."""
        return bool(
            self._run(
                lambda db: frozen.unclaim(db, id, generation, claim, state),
                write=True,
                any_schema=True,
                single=True,
            )
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
        """
        Record the end of a live generation; False if it was not there to end any more.

        With ``keep`` it stays as a crashed row, without its lease, until the next start or stop of its
        session; else it moves to the history.
        """
        end = frozen.End(
            state, exit_code, signal, reason, by, outcome, at=now_ms() if at is None else at, keep=keep
        )
        return bool(self._run(lambda db: frozen.finish(db, id, generation, end), write=True, any_schema=True))

    def regenerate(
        self,
        id: str,
        generation: int,
        log_of: Callable[[int], str],
        *,
        by: str | None = None,
        failed: frozen.End | None = None,
        details: dict[str, Any] | None = None,
    ) -> Row | None:
        """
        Begin the next generation of a live server, for a restart; None if this one has ended.

        ``failed`` is how it ended by itself, ``details`` are those of the event.
        """
        return self._run(
            lambda db: frozen.regenerate(db, id, generation, log_of, by, failed, details),
            write=True,
            any_schema=True,
        )

    # -- operations ---------------------------------------------------------------------------------

    def begin_operation(
        self, id: str, generation: int, by: Identity, purpose: str, *, exclusive: bool = False
    ) -> int | list[Operation] | StopClaim | None:
        """Record an operation and return its number, or what is in its way; see `frozen.begin_operation`."""
        return self._run(
            lambda db: frozen.begin_operation(db, id, generation, by, purpose, exclusive=exclusive),
            write=True,
        )

    def end_operations(self, numbers: Collection[int], *, used: bool = True) -> None:
        """Take operations back: those that are over, or (not ``used``) whose processes are proven dead."""
        self._run(lambda db: frozen.end_operations(db, numbers, used=used), write=True)

    def operations(self, id: str) -> list[Operation]:
        """Return the operations that are recorded for a server, oldest first."""
        return self._run(lambda db: frozen.operations(db, id), write=False, single=True) or []

    def in_flight(self, id: str) -> list[Operation]:
        """Return the operations on a server whose processes may live, oldest first."""
        return self.living(self.operations(id))

    def living(self, recorded: Iterable[Operation]) -> list[Operation]:
        """Return those of ``recorded`` whose process may live; the others are taken out of the registry."""
        alive: list[Operation] = []
        dead: list[Operation] = []
        for one in recorded:
            (dead if identity.is_gone(one.by) else alive).append(one)
        if dead:
            self.end_operations([one.number for one in dead], used=False)
        return alive

    # -- the rest -----------------------------------------------------------------------------------

    def dismiss(self, id: str, generation: int) -> bool:
        """Move a crashed row that was kept to the history."""
        return bool(self._run(lambda db: frozen.dismiss(db, id, generation), write=True))

    def touch(self, id: str) -> bool:
        """
        Note that a server is being used now; False where it is no more, or about to be.

        Whoever was told True has kept a server that nobody used from being stopped for that.
        """
        values = (now_ms(), id, State.STOPPING.value)
        statement = "UPDATE runs SET last_used_at = ? WHERE id = ? AND state <> ?"
        return bool(
            self._run(
                lambda db: db.execute(statement, values).rowcount,
                write=True,
                single=True,
            )
        )

    def lease(self, netns: str, port: int, id: str) -> None:
        """
        Give `port` to the server `id`, instead of the one it had.

        :raises PortLeased: another server has it
        """
        from devsup.registry import reserving

        self._run(lambda db: reserving.lease(db, netns, port, id), write=True)

    def leases(self, netns: str) -> dict[int, str]:
        """Return the ids of the servers that have the ports of a network namespace."""
        found = self._run(
            lambda db: db.execute("SELECT port, id FROM leases WHERE netns = ?", (netns,)).fetchall(),
            write=False,
            single=True,
        )
        return dict(found or [])

    # -- pools --------------------------------------------------------------------------------------

    def acquire(
        self, pool: Pool, owner: str, holder: str, *, taken: frozenset[int] = frozenset(), until: int | None
    ) -> int:
        """
        Lend `owner` its number of `pool`, held by `holder` up to `until` (ms since the epoch).

        None: for as long as the server `holder` has a row. See `pools.acquire`.

        :raises PoolEmpty: every number is lent or taken
        """
        from devsup.registry import pools

        number = self._run(
            lambda db: pools.acquire(db, pool, owner, holder, taken=taken, until=until), write=True
        )
        assert number is not None
        return number

    def renew(self, pool: Pool, number: int, holder: str, *, until: int | None) -> bool:
        """Let `holder` keep `number` up to then; False if it is not, or no more, its own."""
        from devsup.registry import pools

        return bool(self._run(lambda db: pools.renew(db, pool, number, holder, until=until), write=True))

    def release(self, pool: Pool, number: int, holder: str) -> bool:
        """Take `number` back from `holder`; False if that does not have it."""
        from devsup.registry import pools

        return bool(self._run(lambda db: pools.release(db, pool, number, holder), write=True, single=True))

    def assigned(self, pool: str, owner: str) -> int | None:
        """Return the number of a pool that `owner` has for good."""
        from devsup.registry import pools

        return self._run(lambda db: pools.assigned(db, pool, owner), write=False, single=True)

    def owners(self, pool: str) -> list[tuple[str | bytes, int]]:
        """Return who has which number of a pool for good."""
        from devsup.registry import pools

        return self._run(lambda db: pools.owners(db, pool), write=False, single=True) or []

    def forget(self, pool: str, owner: str | bytes) -> bool:
        """Let others have the number of `owner`, as `owners` names it."""
        from devsup.registry import pools

        return bool(self._run(lambda db: pools.forget(db, pool, owner), write=True, single=True))

    # -- events -------------------------------------------------------------------------------------

    def events(self, *, after: int = 0, limit: int = 1000, project: str | None = None) -> list[Event]:
        """Return the events after the number `after`, oldest first."""
        look = self._run(
            lambda db: queries.events(db, after=after, limit=limit, project=project), write=False, single=True
        )
        return look or []

    def event_page(self, *, after: int | None, limit: int, project: str | None) -> Events:
        """Return events after the number `after`, or the last ones, and how many the reader has missed."""
        page = self._run(
            lambda db: queries.event_page(db, after=after, limit=limit, project=project), write=False
        )
        return page or Events([], after or 0, 0)

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
        details: dict[str, Any] | None = None,
    ) -> int:
        """Add an event (about `row`, where given) and return its number."""
        about = frozen.About.row(row) if row is not None else frozen.About(project, session, None, None)
        if pid is None and row is not None and row.leader is not None:
            pid = row.leader.pid

        def add(db: Database) -> int:
            return frozen.add_event(
                db, type, about, pid=pid, by=by, reason=reason, exit_code=exit_code, details=details
            )

        seq = self._run(add, write=True, any_schema=True)
        assert seq is not None
        return seq
