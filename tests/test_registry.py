"""What each transaction of the registry does, alone."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from devsup import identity
from devsup.errors import LimitReached, RegistryUnusable
from devsup.models import Row, State
from devsup.paths import Home
from devsup.registry import (
    FolderBusy,
    PortLeased,
    Registry,
    SessionBusy,
    Snapshot,
    frozen,
    inspecting,
    locking,
    opening,
    transactions,
)
from devsup.registry.pools import Pool
from tests.registry_child import log_of, make_claim, make_row, reserve, stranger
from tests.registry_support import open_registry
from tests.support import hear, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Spawn

GUARD, LEADER, OTHER = stranger(101), stranger(102), stranger(103)


@pytest.fixture
def registry(home: Path) -> Registry:
    return open_registry(home)


def raw(registry: Registry) -> closing[sqlite3.Connection]:
    """Open the file without any of our rules; only while nothing else of this process has it open."""
    return closing(sqlite3.connect(registry.home.registry, isolation_level=None))


def started(registry: Registry, server: str = "a1", *, session: str = "dev_server_web") -> Row:
    """Return the row of a server that runs."""
    row = reserve(registry, make_row(server, session))
    assert registry.claim(server, row.generation, GUARD)
    assert registry.record_child(server, row.generation, LEADER, guard=GUARD)
    found = registry.row(server)
    assert found is not None
    return found


# -- nothing there ----------------------------------------------------------------------------------


def test_reading_before_anything_was_started_finds_nothing_and_makes_nothing(temporary: Path) -> None:
    registry = open_registry(temporary / "none")
    assert registry.rows() == []
    assert registry.row("a1") is None
    assert registry.find("s", "/p", "x") is None
    assert registry.snapshot(project="/p", ended=True) == Snapshot([], [], 0)
    assert registry.ended(project="/p") == []
    assert registry.events() == []
    assert registry.leases("net") == {}
    assert registry.assigned("ports", "web /p") is None
    assert registry.owners("ports") == []
    assert not (temporary / "none").exists()
    assert registry.warnings == []


# -- reserve ----------------------------------------------------------------------------------------


def test_a_reserved_row_comes_back_as_it_went_in(registry: Registry) -> None:
    row = make_row(
        "a1",
        "x",
        "/p/ä b",
        app=None,
        owner="agent",
        folder="/p/x",
        asked_port=3000,
        command=["a b", 'quo"te', "ü", ""],
        last_used_at=7,
    )
    reserved = reserve(registry, row, port=3000)
    assert reserved == row.replace(generation=1, log="/logs/1.log")
    assert registry.row("a1") == reserved
    assert registry.rows() == [reserved]
    assert registry.find(row.scope, row.project, "x") == reserved
    assert registry.leases("net") == {3000: "a1"}


def test_paths_need_not_be_utf8(registry: Registry) -> None:
    """A folder from another decade has a name in Latin-1; its server must still be found."""
    project = os.fsdecode(b"/p/caf\xe9")
    row = reserve(registry, make_row("a1", "x", project, folder=project, cwd=project))
    assert registry.find(row.scope, project, "x") == row
    assert registry.rows(project=project) == [row]
    with pytest.raises(SessionBusy):
        reserve(registry, make_row("b2", "x", project))
    with pytest.raises(FolderBusy):
        reserve(registry, make_row("b2", "y", project, folder=project))
    registry.claim("a1", 1, GUARD)
    registry.record_child("a1", 1, LEADER, guard=GUARD)
    pool = Pool("ports", "net", 4000, 10)
    port = registry.acquire(pool, f"web {project}", "a1", until=None)
    assert registry.assigned("ports", f"web {project}") == port
    assert registry.finish("a1", 1, state=State.STOPPED)
    assert [one.project for one in registry.ended(project=project)] == [project]
    assert {one.project for one in registry.events(project=project)} == {project}
    assert registry.snapshot(project=project).elsewhere == 0


def test_generations_grow_and_are_never_given_twice(registry: Registry) -> None:
    assert [reserve(registry, make_row(f"a{n}", f"s{n}")).generation for n in (1, 2, 3)] == [1, 2, 3]
    assert registry.withdraw("a3", 3)
    assert reserve(registry, make_row("a4", "s3")).generation == 4


def test_a_session_has_one_live_server(registry: Registry) -> None:
    first = reserve(registry, make_row("a1"))
    with pytest.raises(SessionBusy) as caught:
        reserve(registry, make_row("b2"), port=3000)
    assert caught.value.row == first
    assert registry.rows() == [first]
    assert registry.leases("net") == {}


def test_a_folder_has_one_live_server_of_an_exclusive_kind(registry: Registry) -> None:
    first = reserve(registry, make_row("a1", "x", folder="/p"))
    with pytest.raises(FolderBusy) as caught:
        reserve(registry, make_row("b2", "y", folder="/p"))
    assert caught.value.row == first
    reserve(registry, make_row("c3", "y"))  # a kind that does not mind


def test_a_port_has_one_lease_per_network(registry: Registry) -> None:
    first = reserve(registry, make_row("a1", "x"), port=3000)
    with pytest.raises(PortLeased) as caught:
        reserve(registry, make_row("b2", "y"), port=3000)
    assert caught.value.row == first
    assert registry.row("b2") is None
    reserve(registry, make_row("c3", "z", netns="other"), port=3000)
    assert registry.leases("other") == {3000: "c3"}


def test_the_limit_counts_live_servers_of_this_scope(registry: Registry) -> None:
    elsewhere = "machine/boot/other"
    reserve(registry, make_row("e1", "e", scope=elsewhere))
    for number in range(2):
        registry.reserve(make_row(f"a{number}", f"s{number}"), dead=[], limit=2, port=None, log_of=log_of)
    with pytest.raises(LimitReached) as caught:
        registry.reserve(make_row("a9", "s9"), dead=[], limit=2, port=None, log_of=log_of)
    assert caught.value.details == {"limit": 2, "running": 2}
    assert caught.value.hint is not None
    assert "DEVSUP_MAX_SERVERS" in caught.value.message


def test_without_a_lease_the_port_stays_free(registry: Registry) -> None:
    row = make_row(asked_port=3000)
    registry.reserve(row, dead=[], limit=9, port=3000, log_of=log_of, lease=False)
    assert registry.leases("net") == {}


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        ("runs", "live server of a session"),
        ("runs", "live server of a folder"),
        ("leases", "lease of a port"),
    ],
)
def test_the_database_itself_refuses_a_second(registry: Registry, table: str, rule: str) -> None:
    """The rules hold against a program that does not ask first: ours, next year, with a mistake in it."""
    reserve(registry, make_row("a1", "x", folder="/p"), port=3000)
    with raw(registry) as connection:
        columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
        [stored] = connection.execute(f"SELECT * FROM {table}").fetchall()
        changes: dict[str, dict[str, object]] = {
            "live server of a session": {"id": "b2", "folder": None},
            "live server of a folder": {"id": "b2", "session": "y"},
            "lease of a port": {"id": "b2"},
        }
        values = dict(zip(columns, stored, strict=True)) | changes[rule]
        insert = f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})"
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            connection.execute(insert, tuple(values.values()))


def test_an_ended_row_leaves_room_for_a_live_one(registry: Registry) -> None:
    row = started(registry)
    assert registry.finish("a1", row.generation, state=State.CRASHED, exit_code=3, keep=True, at=99)
    crashed = registry.row("a1")
    again = reserve(registry, make_row("b2"))
    assert registry.rows() == [again]
    assert registry.ended() == [crashed]


def test_dead_rows_in_the_way_are_ended(registry: Registry) -> None:
    dead = started(registry, "a1")
    again = reserve(registry, make_row("b2"), dead=[dead], port=3000)
    [past] = registry.ended(id="a1")
    assert (past.state, past.leader) == (State.CRASHED, LEADER)
    assert past.ended_at is not None
    assert registry.rows() == [again]
    assert [one.type for one in registry.events()] == ["started", "crashed"]


def test_a_dead_reservation_leaves_no_trace(registry: Registry) -> None:
    dead = reserve(registry, make_row("a1"), port=3000)
    reserve(registry, make_row("b2"), dead=[dead], port=3000)
    assert registry.ended(limit=9) == []
    assert registry.events() == []


def test_a_dead_server_that_was_being_stopped_counts_as_stopped(registry: Registry) -> None:
    row = started(registry)
    registry.claim_stop("a1", row.generation, make_claim(OTHER))
    dead = registry.row("a1")
    assert dead is not None
    reserve(registry, make_row("b2"), dead=[dead])
    assert registry.ended(id="a1")[0].state is State.STOPPED


@pytest.mark.parametrize("changed", ["generation", "guard", "leader"])
def test_a_row_that_only_was_dead_is_left_alone(registry: Registry, changed: str) -> None:
    """Between the proof and the transaction somebody may have started it again."""
    row = started(registry)
    stale = row.replace(**{changed: 0 if changed == "generation" else OTHER})
    with pytest.raises(SessionBusy) as caught:
        reserve(registry, make_row("b2"), dead=[stale])
    assert caught.value.row == row


def test_rows_of_an_earlier_boot_are_lost(registry: Registry) -> None:
    """Nothing of them can be alive; their ports and sessions are free again."""
    machine, _, pidns = identity.here().key.split("/")
    old = reserve(registry, make_row("a1", "x", scope=f"{machine}/earlier/{pidns}"), port=3000)
    container = reserve(registry, make_row("a2", "x", scope=f"{identity.here().key}9"))
    elsewhere = reserve(registry, make_row("a3", "x", scope=f"{machine}x/earlier/{pidns}"))
    new = reserve(registry, make_row("b2", "x"), port=3000)
    assert {row.id for row in registry.rows()} == {new.id, container.id, elsewhere.id}
    [lost] = registry.ended(id=old.id)
    assert lost.state is State.LOST
    assert registry.leases("net") == {3000: "b2"}


# -- withdraw, claim, record ------------------------------------------------------------------------


def test_withdrawing_gives_back_session_and_port(registry: Registry) -> None:
    row = reserve(registry, make_row("a1"), port=3000)
    assert not registry.withdraw("a1", row.generation + 1)
    assert not registry.withdraw("a1", row.generation, starter=OTHER)
    assert registry.withdraw("a1", row.generation, starter=row.starter)
    assert not registry.withdraw("a1", row.generation)
    assert registry.rows() == []
    assert registry.leases("net") == {}


def test_a_claimed_reservation_cannot_be_withdrawn(registry: Registry) -> None:
    row = reserve(registry, make_row("a1"))
    assert registry.claim("a1", row.generation, GUARD)
    assert not registry.withdraw("a1", row.generation)


def test_a_withdrawn_reservation_cannot_be_claimed(registry: Registry) -> None:
    row = reserve(registry, make_row("a1"))
    assert registry.withdraw("a1", row.generation)
    assert not registry.claim("a1", row.generation, GUARD)


def test_a_row_has_one_guard(registry: Registry) -> None:
    row = reserve(registry, make_row("a1"))
    assert registry.claim("a1", row.generation, GUARD)
    assert registry.claim("a1", row.generation, GUARD)  # after a rebuild that found it
    assert not registry.claim("a1", row.generation, OTHER)
    assert not registry.claim("a1", row.generation, OTHER, instead_of=LEADER)
    assert registry.claim("a1", row.generation, OTHER, instead_of=GUARD)
    assert [one.type for one in registry.events()] == ["adopted"]


def test_a_reservation_that_is_being_stopped_gets_no_guard(registry: Registry) -> None:
    row = reserve(registry, make_row("a1"))
    registry.claim_stop("a1", row.generation, make_claim(OTHER))
    assert not registry.claim("a1", row.generation, GUARD)


def test_only_its_guard_records_the_child(registry: Registry) -> None:
    row = reserve(registry, make_row("a1"))
    assert not registry.record_child("a1", row.generation, LEADER, guard=GUARD)
    registry.claim("a1", row.generation, GUARD)
    assert not registry.record_child("a1", row.generation, LEADER, guard=OTHER)
    assert registry.record_child("a1", row.generation, LEADER, guard=GUARD)
    assert registry.row("a1") == row.replace(guard=GUARD, leader=LEADER)
    [event] = registry.events()
    assert (event.type, event.pid, event.server, event.generation) == ("started", 102, "a1", row.generation)


def test_no_child_is_recorded_once_the_stop_is_claimed(registry: Registry) -> None:
    """The stop has looked at a row without a leader: a child that came now would be nobody's to end."""
    row = reserve(registry, make_row("a1"))
    registry.claim("a1", row.generation, GUARD)
    registry.claim_stop("a1", row.generation, make_claim(OTHER))
    assert not registry.record_child("a1", row.generation, LEADER, guard=GUARD)


# -- update -----------------------------------------------------------------------------------------


def test_a_guard_writes_what_it_sees(registry: Registry) -> None:
    row = started(registry)
    assert registry.update(
        "a1",
        row.generation,
        state=State.READY,
        port=3000,
        url="http://localhost:3000",
        listener_pid=7,
        listener_inode=8,
        ready_at=9,
        event="ready",
    )
    assert registry.row("a1") == row.replace(
        state=State.READY,
        port=3000,
        url="http://localhost:3000",
        listener_pid=7,
        listener_inode=8,
        ready_at=9,
    )
    assert registry.update("a1", row.generation, url=None)
    found = registry.row("a1")
    assert found is not None
    assert (found.port, found.url) == (3000, None)
    assert [one.type for one in registry.events()] == ["started", "ready"]


def test_what_is_being_stopped_is_not_declared_ready(registry: Registry) -> None:
    row = started(registry)
    registry.claim_stop("a1", row.generation, make_claim(OTHER))
    assert not registry.update("a1", row.generation, state=State.READY, port=3000, event="ready")
    assert registry.update("a1", row.generation, port=3000)
    found = registry.row("a1")
    assert found is not None
    assert (found.state, found.port) == (State.STOPPING, 3000)


def test_a_write_of_an_older_generation_changes_nothing(registry: Registry) -> None:
    row = started(registry)
    again = registry.regenerate("a1", row.generation, log_of)
    assert not registry.update("a1", row.generation, state=State.READY, event="ready")
    assert not registry.claim("a1", row.generation, OTHER, instead_of=GUARD)
    assert not registry.record_child("a1", row.generation, OTHER, guard=GUARD)
    assert registry.claim_stop("a1", row.generation, make_claim(OTHER)) is None
    assert not registry.finish("a1", row.generation, state=State.STOPPED)
    assert registry.row("a1") == again


# -- claim_stop and finish --------------------------------------------------------------------------


def test_one_claim_is_in_force(registry: Registry) -> None:
    row = started(registry)
    mine, theirs = make_claim(GUARD), make_claim(OTHER)
    assert registry.claim_stop("a1", row.generation, mine) == mine
    assert registry.claim_stop("a1", row.generation, theirs) == mine
    found = registry.row("a1")
    assert found is not None
    assert (found.stop, found.state) == (mine, State.STOPPING)
    assert [one.type for one in registry.events()] == ["started", "stopping"]


def test_a_claim_passes_on_only_from_the_dead(registry: Registry) -> None:
    row = started(registry)
    mine, theirs = make_claim(GUARD), make_claim(OTHER)
    registry.claim_stop("a1", row.generation, mine)
    assert registry.claim_stop("a1", row.generation, theirs, dead_holder=LEADER) == mine
    assert registry.claim_stop("a1", row.generation, theirs, dead_holder=GUARD) == theirs
    assert registry.claim_stop("a1", row.generation, mine, dead_holder=GUARD) == theirs


def test_a_stop_outranks_a_restart(registry: Registry) -> None:
    """Who wants it gone must not find it running again because somebody wanted it fresh a moment before."""
    row = started(registry)
    restart, stop = make_claim(GUARD, "restart"), make_claim(OTHER)
    assert registry.claim_stop("a1", row.generation, restart) == restart
    found = registry.row("a1")
    assert found is not None
    assert found.state is State.RESTARTING
    assert registry.claim_stop("a1", row.generation, stop) == stop
    assert registry.claim_stop("a1", row.generation, restart) == stop
    assert registry.regenerate("a1", row.generation, log_of) is None
    assert registry.finish("a1", row.generation, state=State.STOPPED)


def test_a_second_claim_of_one_process_is_not_the_first(registry: Registry) -> None:
    """Two threads of one program stop the same server: one of them has to wait for the other."""
    row = started(registry)
    first = make_claim(OTHER)
    registry.claim_stop("a1", row.generation, first)
    second = first.replace(since=first.since + 1)
    assert registry.claim_stop("a1", row.generation, second) == first


def test_a_stop_that_failed_gives_its_claim_back(registry: Registry) -> None:
    row = started(registry)
    claim = make_claim(OTHER)
    registry.claim_stop("a1", row.generation, claim)
    assert not registry.unclaim("a1", row.generation, make_claim(GUARD))
    assert registry.unclaim("a1", row.generation, claim)
    found = registry.row("a1")
    assert found is not None
    assert (found.stop, found.state) == (None, State.UNHEALTHY)
    assert registry.claim_stop("a1", row.generation, make_claim(GUARD)) == make_claim(GUARD)


def test_an_ended_server_moves_to_the_history(registry: Registry) -> None:
    row = reserve(registry, make_row("a1"), port=3000)
    registry.claim("a1", row.generation, GUARD)
    registry.record_child("a1", row.generation, LEADER, guard=GUARD)
    assert registry.finish(
        "a1",
        row.generation,
        state=State.EXITED,
        exit_code=0,
        reason="exit code 0",
        by="itself",
        outcome={"signals": ["SIGTERM"]},
        at=9_000,
    )
    assert registry.rows() == []
    assert registry.leases("net") == {}
    [past] = registry.ended(pid=102)
    assert past == row.replace(
        guard=GUARD,
        leader=LEADER,
        state=State.EXITED,
        exit_code=0,
        reason="exit code 0",
        outcome={"signals": ["SIGTERM"]},
        ended_at=9_000,
    )
    event = registry.events()[-1]
    assert (event.type, event.by, event.reason, event.exit_code, event.time) == (
        "exited",
        "itself",
        "exit code 0",
        0,
        9_000,
    )
    assert not registry.finish("a1", row.generation, state=State.STOPPED)


def test_a_crashed_row_stays_without_its_lease_until_it_is_dismissed(registry: Registry) -> None:
    row = reserve(registry, make_row("a1"), port=3000)
    assert registry.finish("a1", row.generation, state=State.CRASHED, signal=9, keep=True, at=5)
    crashed = registry.row("a1")
    assert crashed == row.replace(state=State.CRASHED, signal=9, ended_at=5)
    assert registry.find(row.scope, row.project, row.session) == crashed
    assert registry.leases("net") == {}
    assert registry.snapshot(project="/other").elsewhere == 0
    assert not registry.finish("a1", row.generation, state=State.STOPPED)
    assert registry.claim_stop("a1", row.generation, make_claim(OTHER)) is None
    assert not registry.dismiss("a1", row.generation + 1)
    assert registry.dismiss("a1", row.generation)
    assert registry.rows() == []
    assert registry.ended() == [crashed]


def test_an_old_generation_never_deletes_a_newer_row(registry: Registry) -> None:
    """A slow guard reports the end of what somebody has started again since."""
    row = started(registry)
    again = registry.regenerate("a1", row.generation, log_of)
    assert again is not None
    for keep in (False, True):
        assert not registry.finish("a1", row.generation, state=State.CRASHED, keep=keep)
    assert not registry.withdraw("a1", row.generation)
    assert not registry.dismiss("a1", row.generation)
    assert registry.row("a1") == again


# -- regenerate -------------------------------------------------------------------------------------


def test_a_restart_is_a_new_generation_of_the_same_server(registry: Registry) -> None:
    row = reserve(registry, make_row("a1"), port=3000)
    registry.claim("a1", row.generation, GUARD)
    registry.record_child("a1", row.generation, LEADER, guard=GUARD)
    registry.update("a1", 1, state=State.READY, port=3000, url="u", listener_pid=1, ready_at=3)
    registry.claim_stop("a1", row.generation, make_claim(OTHER, "restart"))
    again = registry.regenerate("a1", row.generation, log_of, by="cli")
    assert again is not None
    assert again == row.replace(
        generation=2,
        log="/logs/2.log",
        state=State.STARTING,
        guard=GUARD,
        started_at=again.started_at,
    )
    assert registry.leases("net") == {3000: "a1"}
    [past] = registry.ended(id="a1")
    assert (past.generation, past.state, past.reason, past.url) == (1, State.STOPPED, "restart", "u")
    assert registry.record_child("a1", 2, OTHER, guard=GUARD)
    assert registry.regenerate("a1", 1, log_of) is None
    assert registry.regenerate("b2", 1, log_of) is None


def test_a_crashed_row_is_not_restarted_in_place(registry: Registry) -> None:
    row = started(registry)
    registry.finish("a1", row.generation, state=State.CRASHED, keep=True)
    assert registry.regenerate("a1", row.generation, log_of) is None


# -- the small ones ---------------------------------------------------------------------------------


def test_using_a_server_is_noted(registry: Registry) -> None:
    reserve(registry, make_row("a1"))
    assert registry.touch("a1")
    assert not registry.touch("b2")
    found = registry.row("a1")
    assert found is not None
    assert found.last_used_at is not None


def test_a_server_changes_its_lease(registry: Registry) -> None:
    reserve(registry, make_row("a1", "x"), port=3000)
    reserve(registry, make_row("b2", "y"), port=3001)
    registry.lease("net", 3002, "a1")
    registry.lease("net", 3002, "a1")
    assert registry.leases("net") == {3001: "b2", 3002: "a1"}
    with pytest.raises(PortLeased):
        registry.lease("net", 3001, "a1")
    assert registry.leases("net") == {3001: "b2", 3002: "a1"}


def test_a_lease_without_its_server_keeps_nobody_out(registry: Registry) -> None:
    reserve(registry, make_row("a1", "x"), port=3000)
    with raw(registry) as connection:
        connection.execute("UPDATE leases SET id = 'gone'")
    reserve(registry, make_row("b2", "y"), port=3000)
    assert registry.leases("net") == {3000: "b2"}


def test_one_process_is_one_server(registry: Registry) -> None:
    """Two callers adopt it at once, each under a name of its own: the session's locks differ."""
    first = reserve(registry, make_row("a1", "x", guard=GUARD, leader=LEADER))
    with pytest.raises(SessionBusy) as busy:
        reserve(registry, make_row("b2", "y", guard=GUARD, leader=LEADER))
    assert busy.value.row == first
    reserve(registry, make_row("b2", "y", guard=GUARD, leader=OTHER))


def test_rows_are_of_a_scope_and_a_project(registry: Registry) -> None:
    one = reserve(registry, make_row("a1", "x", "/p"))
    two = reserve(registry, make_row("a2", "y", "/p", scope="m/b/n"))
    three = reserve(registry, make_row("a3", "x", "/q"))
    assert registry.rows() == [one, two, three]
    assert registry.rows(project="/p") == [one, two]
    assert registry.rows(scope=one.scope) == [one, three]
    assert registry.rows(scope="m/b/n", project="/p") == [two]
    snapshot = registry.snapshot(project="/p")
    assert (snapshot.rows, snapshot.elsewhere) == ([one, two], 1)
    assert registry.snapshot().elsewhere == 0


def test_events_have_an_absolute_order(registry: Registry) -> None:
    row = started(registry)
    first = registry.add_event("finding", row=row, reason="x")
    second = registry.add_event(
        "finding", project="/q", session="s", pid=4, by="me", exit_code=1, details={"delay_ms": 200}
    )
    assert second == first + 1
    assert [one.seq for one in registry.events(after=first - 1)] == [first, second]
    assert [one.seq for one in registry.events(after=first - 1, limit=1)] == [first]
    [event] = registry.events(project="/q")
    assert (event.session, event.pid, event.by, event.exit_code, event.server) == ("s", 4, "me", 1, None)
    assert event.details == {"delay_ms": 200}


def test_an_event_that_is_deleted_takes_its_number_along(registry: Registry) -> None:
    """Numbers are cursors that callers keep: one must never come to mean another event."""
    seq = registry.add_event("finding")
    with raw(registry) as connection:
        connection.execute("DELETE FROM events")
    assert registry.add_event("finding") == seq + 1


# -- bounds -----------------------------------------------------------------------------------------


def test_the_history_is_bounded_per_project(registry: Registry) -> None:
    with registry.connection():
        other = reserve(registry, make_row("o1", "x", "/other"))
        registry.finish("o1", other.generation, state=State.STOPPED)
        for number in range(frozen.HISTORY + 5):
            row = reserve(registry, make_row(f"a{number}", "x"))
            registry.finish(row.id, row.generation, state=State.STOPPED)
    past = registry.ended(project="/p", limit=1_000)
    assert [row.id for row in past] == [f"a{n}" for n in range(frozen.HISTORY + 4, 4, -1)]
    assert len(registry.ended(project="/other", limit=1_000)) == 1
    assert len(registry.snapshot(project="/p", ended=True).ended) == frozen.HISTORY


def test_the_events_are_bounded_by_number(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "EVENTS", 50)
    with registry.connection():
        for _ in range(130):
            registry.add_event("finding")
    assert [one.seq for one in registry.events()] == list(range(81, 131))


def test_the_events_are_bounded_by_age(registry: Registry) -> None:
    registry.add_event("finding", reason="old")
    registry.add_event("finding", reason="young")
    with raw(registry) as connection:
        connection.execute("UPDATE events SET time = time - 31 * 86400000 WHERE reason = 'old'")
    with registry.connection():
        for _ in range(64):
            registry.add_event("finding", reason="young")
    assert {one.reason for one in registry.events()} == {"young"}


# -- transactions -----------------------------------------------------------------------------------


def test_a_nested_transaction_is_refused(registry: Registry) -> None:
    """An inner one would commit or lose the outer one's work."""
    reserve(registry, make_row("a1", "x"))

    def nested(generation: int) -> str:
        registry.touch("a1")
        return log_of(generation)

    with pytest.raises(RuntimeError, match="already open"):
        registry.reserve(make_row("b2", "y"), dead=[], limit=9, port=None, log_of=nested)
    assert registry.row("b2") is None
    assert registry.touch("a1")


def test_a_transaction_that_fails_changes_nothing(registry: Registry) -> None:
    row = started(registry)

    def fail(_: int) -> str:
        raise ZeroDivisionError

    with registry.connection():
        assert registry.rows() == [row]
        with pytest.raises(ZeroDivisionError):
            registry.regenerate("a1", row.generation, fail)
        assert registry.rows() == [row]
        assert registry.ended(id="a1") == []
        assert registry.update("a1", row.generation, event="ready")
    with pytest.raises(ZeroDivisionError):
        registry.regenerate("a1", row.generation, fail)
    assert registry.row("a1") == row


def test_a_block_uses_one_connection(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    def count(*args: Any, **kwargs: Any) -> object:
        opened.append(args)
        return opening.open_database(*args, **kwargs)

    monkeypatch.setattr(transactions, "open_database", count)
    with registry.connection(), registry.connection():
        reserve(registry, make_row("a1"))
        registry.touch("a1")
        assert registry.row("a1") is not None
    assert len(opened) == 1
    registry.touch("a1")
    registry.touch("a1")
    assert len(opened) == 3


def test_nothing_stays_open(registry: Registry) -> None:
    reserve(registry, make_row("a1"))
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    for _ in range(20):
        registry.touch("a1")
        registry.rows()
        with registry.connection():
            registry.touch("a1")
    after = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    assert len(after) == len(before)
    assert sorted(name for name in os.listdir(registry.home.root) if "registry" in name) == [
        "registry.db",
        "registry.lock",
    ]


def test_a_connection_is_closed_before_its_lock(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two somebody could put another file in its place, under SQLite's hands."""
    reserve(registry, make_row("a1"))
    wals: list[bool] = []
    real = locking.FileLock.close

    def close(self: locking.FileLock) -> None:
        wals.append(os.path.exists(registry.home.registry + "-wal"))
        real(self)

    monkeypatch.setattr(locking.FileLock, "close", close)
    registry.touch("a1")
    with registry.connection():
        registry.touch("a1")
        assert os.path.exists(registry.home.registry + "-wal")
    assert wals == [False, False]  # the last connection takes the WAL along


def test_what_was_opened_for_any_schema_is_not_opened_twice(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve(registry, make_row("a1"))
    opened: list[bool] = []
    real = opening.open_database

    def open_database(*args: Any, **kwargs: Any) -> Any:
        opened.append(kwargs["any_schema"])
        return real(*args, **kwargs)

    monkeypatch.setattr("devsup.registry.transactions.open_database", open_database)
    with registry.connection():
        assert registry.row("a1") is not None
        assert registry.ended(id="a1") == []
        assert registry.row("a1") is not None
    assert opened == [True]
    with raw(registry) as connection:
        connection.execute("PRAGMA user_version = 9999")
    with registry.connection():
        assert registry.row("a1") is not None
        with pytest.raises(RegistryUnusable, match="has schema 9999"):
            registry.ended(id="a1")


@pytest.mark.parametrize(
    ("written", "numbers"),
    [("null", None), ('""', []), ('"7 8"', [7, 8]), ("[]", []), ("[7, 8]", [7, 8])],
)
def test_sockets_of_before_are_read_in_each_form_that_was_written(
    registry: Registry, written: str, numbers: list[int] | None
) -> None:
    """A server that a devsup of before has started can be listed, ended and remembered."""
    row = reserve(registry, make_row("a1", strangers=[1]))
    with raw(registry) as connection:
        connection.execute(
            "UPDATE servers SET description = json_set(description, '$.strangers', json(?))", (written,)
        )
    found = registry.row("a1")
    assert found is not None
    assert found.strangers == numbers
    assert registry.finish("a1", row.generation, state=State.STOPPED)
    assert [one.strangers for one in registry.ended(id="a1")] == [numbers]


def test_threads_may_share_a_registry(registry: Registry) -> None:
    """Callers in asyncio run each call in some thread of a pool."""
    reserve(registry, make_row("a1"))
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(50):
                with registry.connection():
                    assert registry.touch("a1")
                    registry.add_event("finding", reason=str(number))
                assert registry.row("a1") is not None
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert problems == []
    assert len(registry.events()) == 200


def test_files_are_for_this_user_only(registry: Registry) -> None:
    old = os.umask(0)
    try:
        with registry.connection():
            reserve(registry, make_row("a1"))
            files = [name for name in os.listdir(registry.home.root) if name.startswith("registry.")]
            assert len(files) >= 3  # with the WAL and its index
            for name in files:
                assert os.stat(f"{registry.home.root}/{name}").st_mode & 0o777 == 0o600, name
    finally:
        os.umask(old)


@pytest.fixture
def plans(registry: Registry) -> Iterator[list[str]]:
    """Collect how SQLite executes what the registry asks."""
    plans: list[str] = []
    reserve(registry, make_row("a1"))
    real = Registry._transact

    def explain(self: Registry, db: object, me: int, body: object, *, begin: str) -> object:
        statements: list[str] = []
        db.connection.set_trace_callback(statements.append)  # type: ignore[attr-defined]
        try:
            return real(self, db, me, body, begin=begin)  # type: ignore[arg-type]
        finally:
            texts = [one for one in statements if one.startswith("SELECT")]
            with closing(sqlite3.connect(self.home.registry)) as connection:
                plans.extend(
                    row[3] for one in texts for row in connection.execute(f"EXPLAIN QUERY PLAN {one}")
                )

    Registry._transact = explain  # type: ignore[method-assign, assignment]
    try:
        yield plans
    finally:
        Registry._transact = real  # type: ignore[method-assign]


def test_reading_one_project_never_walks_a_table(registry: Registry, plans: list[str]) -> None:
    """What a project costs must not depend on how many other servers there are."""
    registry.rows(project="/p")
    registry.rows(project="/p", scope="s")
    registry.find("s", "/p", "x")
    registry.row("a1")
    registry.ended(project="/p", session="x")
    registry.ended(id="a1")
    registry.ended(pid=3)
    registry.snapshot(project="/p", ended=True)
    registry.leases("net")
    registry.assigned("ports", "web /p")
    registry.events(after=3)
    # The one count over all live rows reads an index of theirs and nothing else.
    walks = [plan for plan in plans if re.match(r"SCAN (runs|servers|history|leases|events)\b", plan)]
    assert [walk for walk in walks if "COVERING INDEX" not in walk] == []
    assert len(walks) <= 1
    assert len(plans) > 10


def test_the_home_may_have_any_name(temporary: Path) -> None:
    """The path becomes an URI, in which `?`, `#` and `%` mean something."""
    root = temporary / os.fsdecode(b"a?b#c%41 d\xe9")
    registry = Registry(Home(str(root)), rebuild=list)
    row = reserve(registry, make_row("a1"))
    assert registry.rows() == [row]
    assert (root / "registry.db").is_file()
    assert Path(os.fsdecode(os.fsencode(root))).is_dir()


# -- its size -----------------------------------------------------------------------------------------

#: A process that copies the write-ahead log back until it is told to go: SQLite's lock for that.
CHECKPOINTER = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(lock, fcntl.LOCK_EX, 1, 121)
print("has it", flush=True)
sys.stdin.readline()
"""


def test_a_compacted_registry_has_no_long_log_though_another_process_copies_it_back(
    registry: Registry, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(registry)
    path, pauses = registry.home.registry, list[float]()
    with raw(registry) as other:  # the log is there for as long as somebody has the file open
        other.execute("SELECT 1 FROM events").fetchall()
        child = spawn(CHECKPOINTER, f"{path}-shm")
        assert hear(child) == "has it\n"

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            say(child)
            child.wait(30)

        monkeypatch.setattr(inspecting, "time", SimpleNamespace(sleep=pause))
        assert registry.compact() == os.stat(path).st_size
        assert os.stat(f"{path}-wal").st_size == 0
    assert len(pauses) == 1
