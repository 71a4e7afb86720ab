"""
The registry against a simple model, crashes included.

Hypothesis makes up what callers, guards and stops do, in any order and with any pretence of who they are; a
dictionary says what must have come of it. A crash is a forked process that ends before one of its statements:
then nothing of what it did may be there.
"""

# ruff: noqa: D102
# The name of a rule says what is done, that of an invariant what must be true.

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from devsup.models import Row, State, StopClaim
from devsup.registry import PortLeased, SessionBusy
from devsup.registry.opening import Database
from tests.registry_child import log_of, make_claim, make_row, stranger
from tests.registry_support import open_registry

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")

SESSIONS = st.sampled_from(["dev_server_web", "dev_server_api", "dev_server_db"])
PORTS = st.sampled_from([None, 3000, 3001])
PIDS = st.integers(min_value=1, max_value=3)
PURPOSES = st.sampled_from(["stop", "restart"])
ENDS = st.sampled_from([State.STOPPED, State.CRASHED, State.EXITED])
#: Which server a caller means: now and then one that is no more, or an earlier generation.
WHICH = st.integers(min_value=0, max_value=4)
CRASHED = 73


class Machine(RuleBasedStateMachine):
    """What is done to one registry, and what must be in it."""

    @initialize()
    def make(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dv-model-"))
        self.registry = open_registry(self.folder / "home")
        self.live: dict[str, Row] = {}
        self.crashed: dict[str, Row] = {}
        self.leases: dict[int, str] = {}
        self.ended: list[tuple[str, int, State]] = []
        self.events: list[tuple[str, str | None, int | None]] = []
        self.operations: dict[int, tuple[str, int, bool]] = {}
        self.generation = self.made = self.number = 0

    def teardown(self) -> None:
        """Delete the registry."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    # -- what is meant --------------------------------------------------------------------------------

    def meant(self, which: int) -> tuple[str, int]:
        """Return the id and generation of some server, which may be over."""
        known = [(row.id, row.generation) for row in (*self.live.values(), *self.crashed.values())]
        known += [(id_, generation) for id_, generation, _ in self.ended[-2:]]
        return known[which % len(known)] if known else ("none", 1)

    def alive(self, server: str, generation: int) -> Row | None:
        """Return the live row of that very generation."""
        row = self.live.get(server)
        return row if row is not None and row.generation == generation else None

    def happened(self, type_: str, row: Row) -> None:
        """Remember an event."""
        self.events.append((type_, row.id, row.generation))

    # -- starting -------------------------------------------------------------------------------------

    @rule(session=SESSIONS, port=PORTS)
    def reserve(self, session: str, port: int | None) -> None:
        self.made += 1
        row = make_row(f"s{self.made}", session)
        if any(one.session == session for one in self.live.values()):
            with pytest.raises(SessionBusy):
                self.registry.reserve(row, dead=[], limit=99, port=port, log_of=log_of)
            return
        if port in self.leases:
            with pytest.raises(PortLeased):
                self.registry.reserve(row, dead=[], limit=99, port=port, log_of=log_of)
            return
        made = self.registry.reserve(row, dead=[], limit=99, port=port, log_of=log_of)
        self.generation += 1
        assert made == row.replace(generation=self.generation, log=log_of(self.generation))
        self.live[row.id] = made
        if port is not None:
            self.leases[port] = row.id
        for one in [one for one in self.crashed.values() if one.session == session]:
            del self.crashed[one.id]
            self.ended.append((one.id, one.generation, one.state))

    @rule(which=WHICH)
    def withdraw(self, which: int) -> None:
        server, generation = self.meant(which)
        row = self.alive(server, generation)
        may = row is not None and row.guard is None and row.leader is None
        assert self.registry.withdraw(server, generation) is may
        if may:
            del self.live[server]
            self.free(server)

    def free(self, server: str) -> None:
        """Take the leases of a server away."""
        self.leases = {port: one for port, one in self.leases.items() if one != server}

    # -- guards ---------------------------------------------------------------------------------------

    @rule(which=WHICH, pid=PIDS)
    def claim(self, which: int, pid: int) -> None:
        server, generation = self.meant(which)
        row, guard = self.alive(server, generation), stranger(pid)
        may = row is not None and row.stop is None and row.guard in (None, guard)
        assert self.registry.claim(server, generation, guard) is may
        if may and row is not None:
            self.live[server] = row.replace(guard=guard)

    @rule(which=WHICH, pid=PIDS)
    def record_child(self, which: int, pid: int) -> None:
        server, generation = self.meant(which)
        row, guard, leader = self.alive(server, generation), stranger(pid), stranger(100 + pid)
        may = row is not None and row.stop is None and row.guard == guard
        assert self.registry.record_child(server, generation, leader, guard=guard) is may
        if may and row is not None:
            self.live[server] = row.replace(leader=leader)
            self.happened("started", row)

    @rule(which=WHICH, port=st.integers(min_value=5000, max_value=5002))
    def become_ready(self, which: int, port: int) -> None:
        server, generation = self.meant(which)
        row = self.alive(server, generation)
        may = row is not None and row.stop is None
        done = self.registry.update(server, generation, state=State.READY, port=port, event="ready")
        assert done is may
        if may and row is not None:
            self.live[server] = row.replace(state=State.READY, port=port)
            self.happened("ready", row)

    @rule(which=WHICH, state=ENDS, keep=st.booleans())
    def finish(self, which: int, state: State, *, keep: bool) -> None:
        server, generation = self.meant(which)
        row = self.alive(server, generation)
        assert self.registry.finish(server, generation, state=state, keep=keep) is (row is not None)
        if row is None:
            return
        del self.live[server]
        self.free(server)
        self.happened(state.value, row)
        if keep:
            self.crashed[server] = row.replace(state=state)
        else:
            self.ended.append((server, generation, state))

    @rule(which=WHICH)
    def regenerate(self, which: int) -> None:
        server, generation = self.meant(which)
        row = self.alive(server, generation)
        may = row is not None and (row.stop is None or row.stop.purpose != "stop")
        again = self.registry.regenerate(server, generation, log_of)
        assert (again is not None) is may
        if again is None or row is None:
            return
        self.generation += 1
        self.live[server] = row.replace(
            generation=self.generation, log=log_of(self.generation), state=State.STARTING, leader=None,
            port=None, stop=None,
        )  # fmt: skip
        self.ended.append((server, generation, State.STOPPED))
        self.happened("restarted", again)

    # -- stops and operations -------------------------------------------------------------------------

    @rule(which=WHICH, pid=PIDS, purpose=PURPOSES, dead=st.none() | PIDS)
    def claim_stop(self, which: int, pid: int, purpose: str, dead: int | None) -> None:
        server, generation = self.meant(which)
        row, mine = self.alive(server, generation), make_claim(stranger(pid), purpose)
        holder = None if dead is None else stranger(dead)
        held = self.registry.claim_stop(server, generation, mine, dead_holder=holder)
        outranks = row is not None and row.stop is not None and row.stop.purpose == "restart" != purpose
        self.claimed(row, mine, held, passes=outranks or (row and row.stop and row.stop.by) == holder)

    @rule(which=WHICH, pid=PIDS, dead=st.none() | PIDS, own=st.booleans())
    def claim_patiently(self, which: int, pid: int, dead: int | None, *, own: bool) -> None:
        server, generation = self.meant(which)
        row, mine = self.alive(server, generation), make_claim(stranger(pid))
        holder = None if dead is None else stranger(dead)
        of = {number for number, (id_, _, _) in self.operations.items() if id_ == server}
        but = set(sorted(of)[:1]) if own else set()
        held = self.registry.claim_patiently(server, generation, mine, dead_holder=holder, but=but)
        passes = (row and row.stop and row.stop.by) == holder
        if row is not None and (row.stop is None or passes) and of - but:
            assert isinstance(held, list)
            assert {one.number for one in held} == of - but, "it waits, and has claimed nothing"
            return
        assert not isinstance(held, list)
        self.claimed(row, mine, held, passes=passes)

    def claimed(self, row: Row | None, mine: StopClaim, held: StopClaim | None, *, passes: object) -> None:
        """Say what has come of a claim: the first one holds, unless it passes on."""
        if row is None:
            assert held is None
        elif row.stop is None or passes:
            assert held == mine
            if row.stop is None:
                self.happened("stopping", row)
            state = State.RESTARTING if mine.purpose == "restart" else State.STOPPING
            self.live[row.id] = row.replace(stop=mine, state=state)
        else:
            assert held == row.stop

    @rule(which=WHICH, pid=PIDS)
    def unclaim(self, which: int, pid: int) -> None:
        server, generation = self.meant(which)
        row, claim = self.alive(server, generation), make_claim(stranger(pid))
        may = row is not None and row.stop == claim
        assert self.registry.unclaim(server, generation, claim) is may
        if may and row is not None:
            self.live[server] = row.replace(stop=None, state=State.UNHEALTHY)

    @rule(which=WHICH, pid=PIDS, exclusive=st.booleans())
    def begin_operation(self, which: int, pid: int, *, exclusive: bool) -> None:
        server, generation = self.meant(which)
        row = self.alive(server, generation)
        answer = self.registry.begin_operation(server, generation, stranger(pid), "work", exclusive=exclusive)
        there = self.live.keys() | self.crashed.keys()
        self.operations = {number: one for number, one in self.operations.items() if one[0] in there}
        others = {
            number
            for number, (id_, _, alone) in self.operations.items()
            if id_ == server and (exclusive or alone)
        }
        if row is None:
            assert answer is None
        elif row.stop is not None:
            assert answer == row.stop
        elif others:
            assert isinstance(answer, list)
            assert {one.number for one in answer} == others
        else:
            assert isinstance(answer, int)
            assert answer > self.number, "a number is given out once"
            self.number = answer
            self.operations[answer] = (server, generation, exclusive)

    @precondition(lambda self: self.operations)
    @rule(which=WHICH)
    def end_operation(self, which: int) -> None:
        numbers = sorted(self.operations)
        number = numbers[which % len(numbers)]
        self.registry.end_operations([number, 10_000])
        del self.operations[number]

    # -- crashes --------------------------------------------------------------------------------------

    @rule(
        which=WHICH, what=st.integers(min_value=0, max_value=6), before=st.integers(min_value=1, max_value=4)
    )
    def crash(self, which: int, what: int, before: int) -> None:
        """Somebody is killed before a statement of what it does; it leaves no trace."""
        server, generation = self.meant(which)
        registry, me = self.registry, stranger(9)
        works: list[Callable[[], Any]] = [
            lambda: registry.reserve(
                make_row("sx", "dev_server_x"), dead=[], limit=99, port=3999, log_of=log_of
            ),
            lambda: registry.finish(server, generation, state=State.CRASHED),
            lambda: registry.regenerate(server, generation, log_of),
            lambda: registry.claim_stop(server, generation, make_claim(me)),
            lambda: registry.begin_operation(server, generation, me, "work"),
            lambda: registry.record_child(server, generation, me, guard=stranger(1)),
            lambda: registry.add_event("finding"),
        ]
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _end_before(before)
                works[what]()
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        # Of these each has at least as many statements, BEGIN and COMMIT included, or changes nothing.
        assert code in (0, CRASHED)
        if code == 0:
            # It had fewer: only what finds nothing to do.
            assert what not in (0, 6)
            alive = self.alive(server, generation)
            # A restart whose claim a stop has taken finds nothing to do, too.
            assert alive is None or what in (3, 4, 5) or (what == 2 and alive.stop is not None)

    # -- what must be true ----------------------------------------------------------------------------

    @invariant()
    def the_rows_are_these(self) -> None:
        if not hasattr(self, "folder"):
            return
        shown = {row.id: _plain(row) for row in self.registry.rows()}
        assert shown == {row.id: _plain(row) for row in (*self.live.values(), *self.crashed.values())}
        assert self.registry.leases("net") == self.leases
        history = [(row.id, row.generation, row.state) for row in self.registry.ended(limit=1_000)]
        assert history == self.ended[::-1]

    @invariant()
    def the_events_are_these(self) -> None:
        if not hasattr(self, "folder"):
            return
        told = self.registry.events()
        assert [(one.type, one.server, one.generation) for one in told] == self.events
        assert [one.seq for one in told] == list(range(1, len(told) + 1))
        for server in {id_ for id_, _, _ in self.operations.values()}:
            numbers = [one.number for one in self.registry.operations(server)]
            assert numbers == [number for number, one in self.operations.items() if one[0] == server]


def _plain(row: Row) -> tuple[object, ...]:
    return (row.generation, row.session, row.state, row.guard, row.leader, row.port, row.stop, row.log)


def _end_before(statement: int) -> None:
    """End this process before its so many-eth statement; only in a forked child."""
    made, left = Database.__init__, [statement]

    def counted(self: Database, *args: Any, **how: Any) -> None:
        made(self, *args, **how)
        execute = self.execute

        def stepped(*statement: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                os._exit(CRASHED)
            return execute(*statement)

        self.execute = stepped

    Database.__init__ = counted  # type: ignore[method-assign]


TestRegistry = Machine.TestCase
TestRegistry.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
