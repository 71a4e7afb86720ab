"""Servers that end by themselves: after their time, unused, or with the process they were started for."""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from devsup import identity
from devsup.clock import now_ms
from devsup.errors import Busy, NotFound, StoppedMeanwhile, UsageError
from devsup.guard.timers import Timers
from devsup.guard.use import Use
from devsup.models import State
from devsup.system import Connection
from tests.racing import PATIENCE, Gate, World
from tests.support import fetch, hear, say, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devsup.models import Row, Server
    from tests.support import Spawn

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes"),
    pytest.mark.timeout(300),
]


# -- timers --------------------------------------------------------------------------------------------


def test_a_timer_fires_once_and_arming_it_again_moves_it() -> None:
    timers = Timers()
    timers.arm("a", 5.0)
    timers.arm("b", 3.0)
    timers.arm("a", 1.0)
    assert timers.due == 1.0
    assert list(timers.fired(0.9)) == []
    assert list(timers.fired(3.0)) == ["a", "b"]
    assert list(timers.fired(9.0)) == []


def test_what_one_timer_disarms_does_not_fire_after_it() -> None:
    """Two that are due at once: the first one's work may make the second one's senseless, or arm it anew."""
    timers = Timers()
    for name, at in (("first", 1.0), ("second", 2.0), ("third", 3.0)):
        timers.arm(name, at)
    fired = []
    for name in timers.fired(9.0):
        fired.append(name)
        if name == "first":
            timers.disarm("second")
            timers.arm("third", 10.0)
    assert fired == ["first"]
    assert timers.is_armed("third")
    assert not timers.is_armed("second")


# -- use -----------------------------------------------------------------------------------------------


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Give the list of what the system shows."""
    shown: list[Connection] = []
    monkeypatch.setattr("devsup.system.connections", lambda port: [one for one in shown if one.port == port])
    return shown


def test_an_open_connection_is_a_use_for_as_long_as_it_lasts(connected: list[Connection]) -> None:
    use = Use(60.0)
    use.begin(0.0, {80})
    connected.append(Connection(80, 5000, open=True))
    assert use.look(50.0, {80}, set())
    assert use.look(500.0, {80}, set())
    assert not use.is_over(559.0)
    connected.clear()
    assert not use.look(559.0, {80}, set())
    assert use.is_over(560.0)


def test_a_connection_between_two_looks_is_a_use_once(connected: list[Connection]) -> None:
    """The kernel shows it for a minute more; one that came before the count began is none."""
    use = Use(60.0)
    connected.append(Connection(80, 4000, open=False))
    use.begin(0.0, {80})
    assert not use.look(15.0, {80}, set())
    connected.append(Connection(80, 5000, open=False))
    assert use.look(30.0, {80}, set())
    assert not use.look(45.0, {80}, set())
    assert use.last == 30.0


def test_the_guards_own_questions_are_no_use(connected: list[Connection]) -> None:
    use = Use(60.0)
    use.begin(0.0, {80})
    connected += [Connection(80, 5000, open=True), Connection(80, 5001, open=False)]
    assert not use.look(10.0, {80}, {5000, 5001})


@pytest.mark.parametrize("timeout", [0.2, 5.0, 900.0, 86400.0])
def test_looks_are_close_enough_and_never_idle_spinning(timeout: float) -> None:
    use = Use(timeout)
    assert 0.05 <= use.next_look(0.0) <= min(15.0, timeout)
    assert use.next_look(timeout - 0.01) == timeout
    assert use.next_look(timeout + 100) >= timeout + 100.05


# -- real servers --------------------------------------------------------------------------------------


@pytest.fixture
def world(temporary: Path, home: Path) -> Iterator[World]:
    assert home == temporary / "home"
    world = World(temporary)
    yield world
    world.close()


def start(world: World, **options: Any) -> Server:
    return world.devsup.start(
        "web", command=world.command, port=world.port, environ=world.environment, timeout=PATIENCE, **options
    ).server


def end_of(world: World, server: Server) -> Row:
    """Wait for the end of ``server``, with nothing left, and return it."""
    wait_until(lambda: not world.processes(), PATIENCE)
    (row,) = world.registry.ended(id=server.id)
    assert world.registry.rows() == []
    assert row.state is State.STOPPED
    events = [(one.type, one.reason, one.by) for one in world.registry.events() if one.server == server.id]
    assert events[-2:] == [("stopping", row.reason, None), ("stopped", row.reason, "guard")]
    return row


def test_a_server_ends_after_its_time(world: World) -> None:
    server = start(world, ttl="1s", wait=False)  # it may be over before it is ready
    assert end_of(world, server).reason == "ttl"


def test_the_time_of_a_server_counts_from_its_first_start_and_outlives_its_guard(world: World) -> None:
    """A restart gives it no more time, and a guard that takes over knows how much is left."""
    server = start(world, ttl=8)
    world.devsup.restart("web", timeout=PATIENCE)
    started = next(one.time for one in world.registry.events() if one.type == "started")
    time.sleep(max(0.0, 4.0 - (now_ms() - started) / 1e3))
    world.kill_guard()
    adopted = start(world)
    assert (adopted.id, adopted.guard_pid != server.guard_pid) == (server.id, True)
    row = end_of(world, server)
    assert (row.reason, row.started_at > started) == ("ttl", True)
    (stopping,) = (
        one.time for one in world.registry.events() if one.type == "stopping" and one.reason == "ttl"
    )
    # A guard that counts anew would end it four seconds later at least.
    assert 6.0 <= (stopping - started) / 1e3 < 11.5


def test_a_server_ends_with_the_process_it_was_started_for(world: World, spawn: Spawn) -> None:
    parent = spawn("input()")
    server = start(world, with_parent=parent.pid)
    parent.kill()  # a zombie is dead, whoever has not yet collected it
    assert end_of(world, server).reason == "parent_gone"
    with pytest.raises(UsageError, match=f"no process {parent.pid}"):
        start(world, with_parent=parent.pid)


def test_a_process_with_the_number_of_the_parent_is_not_the_parent(
    world: World, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended between the command and its guard, and its number was given away: the server goes, too."""
    parent = identity.of(spawn("input()").pid)
    assert parent is not None
    gone = parent.replace(ticks=parent.ticks - 1, inode=parent.inode and parent.inode - 1)
    monkeypatch.setattr("devsup.apps.policy._parent", lambda pid: gone.asdict())  # noqa: ARG005 - as it is called
    try:
        start(world, with_parent=parent.pid)
    except StoppedMeanwhile:
        pass
    wait_until(world.registry.ended, PATIENCE)
    assert world.registry.ended()[0].reason == "parent_gone"
    wait_until(lambda: not world.guards(), PATIENCE)
    assert world.servers() == set()


def test_a_server_that_nobody_uses_ends(world: World) -> None:
    server = start(world, idle_timeout="1s")
    assert end_of(world, server).reason == "idle"


def test_an_open_connection_keeps_a_server(world: World) -> None:
    """A page that is open in a browser holds its hot-reload socket, without a word."""
    server = start(world, idle_timeout="2s")
    with socket.create_connection(("127.0.0.1", world.port)):
        lives_for(world, 4.0)
    assert end_of(world, server).reason == "idle"


@pytest.mark.parametrize("by", ["requests", "url", "start"])
def test_use_now_and_then_keeps_a_server(world: World, by: str) -> None:
    """Requests that come and go between two looks, and callers who ask devsup for it."""
    server = start(world, idle_timeout="3s")
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if by == "requests":
            assert fetch(f"http://127.0.0.1:{world.port}/")[0] == 200
        elif by == "url":
            assert world.devsup.url("web")["port"] == world.port
        else:
            assert start(world).id == server.id
        time.sleep(0.5)
    assert end_of(world, server).reason == "idle"


def lives_for(world: World, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert len(world.servers()) == 1
        time.sleep(0.1)


# -- what is in flight ---------------------------------------------------------------------------------

HOLDER = """
import sys
from devsup import Supervisor
with Supervisor(sys.argv[1], sys.argv[2]).operation("web", purpose="screenshots"):
    print("inside", flush=True)
    sys.stdin.readline()
"""


def test_an_operation_is_a_use_for_as_long_as_it_lasts(world: World, spawn: Spawn) -> None:
    server = start(world, idle_timeout="2s")
    with world.devsup.operation("web"):
        lives_for(world, 4.0)
        # The registry decides, also where a guard has overlooked it.
        assert not world.registry.update(
            server.id, server.generation, state=State.STOPPING, unused_since=now_ms() + 60_000
        )
        holder = spawn(HOLDER, world.project, world.home)
        assert hear(holder) == "inside\n"
    holder.kill()  # takes nothing back
    assert end_of(world, server).reason == "idle"


def test_the_end_of_its_time_waits_for_an_operation(world: World, spawn: Spawn) -> None:
    parent = spawn("input()")
    server = start(world, with_parent=parent.pid)
    holder = spawn(HOLDER, world.project, world.home)
    assert hear(holder) == "inside\n"
    parent.kill()
    lives_for(world, 2.0)
    say(holder)
    row = end_of(world, server)
    assert row.reason == "parent_gone"
    (stopping,) = (one for one in world.registry.events() if one.type == "stopping")
    assert stopping.details is None
    assert holder.wait(20) == 0


def test_an_operation_holds_up_the_end_of_its_time_for_five_seconds(world: World, spawn: Spawn) -> None:
    """It is told what it went on amid, and who comes then is refused."""
    parent = spawn("input()")
    server = start(world, with_parent=parent.pid)
    with world.devsup.operation("web", purpose="screenshots"):
        began = time.monotonic()
        parent.kill()
        told = wait_until(
            lambda: [one for one in world.registry.events() if one.type == "stopping"], PATIENCE
        )
        assert time.monotonic() - began >= 4.5
        assert told[0].details == {"amid": f"`screenshots` of pid {os.getpid()}"}
        with pytest.raises((Busy, NotFound)), world.devsup.operation("web"):
            pass
    assert end_of(world, server).reason == "parent_gone"


# -- the idle end against whoever comes ----------------------------------------------------------------

STOPPING = ("guard", "Book.begin_end > FileLock._open: open")


def start_at(world: World, gate: Gate) -> dict[str, Any]:
    """Start a server that ends unused, under a guard that waits at ``gate``."""
    arguments = world.arguments("start", "--idle-timeout", "1s")
    server = world.begin_with(arguments, plan=[gate.plan]).end().data["server"]
    assert isinstance(server, dict)
    return server


def test_who_is_told_that_it_runs_keeps_it(world: World) -> None:
    """The guard has found nobody connected and is about to say so; a start comes first, and that counts."""
    gate = world.gate(*STOPPING)
    server = start_at(world, gate)
    gate.reached()
    found = world.drive("start").data
    assert (found["reused"], found["server"]["pid"]) == (True, server["pid"])
    gate.go()
    (listed,) = world.list()
    row = end_of(world, listed)
    assert row.reason == "idle"
    assert row.last_used_at is not None
    assert row.ended_at is not None
    assert row.ended_at - row.last_used_at >= 1000


def test_who_comes_too_late_gets_a_new_one(world: World) -> None:
    """The start has read that it runs; before it can note its use the guard has begun to end it."""
    idle = world.gate(*STOPPING)
    first = start_at(world, idle)
    idle.reached()
    gate = world.gate("command", "Starter._reuse > FileLock._open: open")
    late = world.begin("start", plan=[gate.plan])
    gate.reached()
    idle.go()
    wait_until(world.registry.ended, PATIENCE)
    gate.go()
    answer = late.end().data
    assert answer["reused"] is False
    assert answer["server"]["id"] != first["id"]
    assert answer["server"]["state"] == "ready"
    assert world.devsup.stop(["web"]).results[0].error is None


def test_the_registry_decides_between_use_and_its_end(world: World) -> None:
    """One statement each: exactly one of the two comes first."""
    server = start(world)
    registry, now = world.registry, now_ms()
    assert registry.touch(server.id)

    def stop_unused(since: int) -> bool:
        return registry.update(server.id, server.generation, state=State.STOPPING, unused_since=since)

    assert not stop_unused(now - 1)
    assert stop_unused(now_ms() + 1)
    assert not registry.touch(server.id)
    assert world.devsup.stop(["web"]).results[0].error is None
