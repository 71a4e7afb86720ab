"""
Callers that know nothing of each other, at the same instant: each gets an answer that is true.

Each natural race (as many processes as two cores bear, let go by one gun) has a forced one beside it, in
which one process waits at a chosen step until the other has passed. Who won is a matter of luck in the first
kind; what must be true afterwards is the same in both.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from devsup import clock, identity, shutdown, system
from devsup.clock import now_ms
from devsup.errors import DevsupError, NameTaken, NotOurs
from devsup.models import Identity, Outcome, Row, Server, State, StopClaim
from devsup.registry import Registry
from devsup.registry.queries import Snapshot
from tests.kill_matrix import SCENES, sample, steps_of
from tests.racing import PATIENCE, Caller, Racer, World, counted, settle, web
from tests.serving import next_app
from tests.support import ROOT, free_port, hear, is_listening, server_argv, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devsup.models import StartResult
    from tests.support import Spawn

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="its gates are FIFOs that are opened at both ends"),
    pytest.mark.timeout(300),
]

#: Racers of a natural race: more than two cores can run at once.
MANY = 8

#: Seconds that are not too long for busy cores, and shorter than any deadline somebody might wait for.
SOON = 18.0
#: The same for what waits for nobody; a registry that is locked is waited for longer, 5 s.
AT_ONCE = 4.0

#: The steps on a start's way, each before what it names. The caller's first, then its guard's.
BEFORE_RESERVING = ("command", "Making._reserve > Transactions._transact: execute")
BEFORE_WRITING_THE_JOB = ("command", "launch_guard > write: rename")
BEFORE_SPAWNING = ("command", "spawn: posix_spawn")
BEFORE_CLAIMING = ("guard", "claim: execute")
BEFORE_RECORDING = ("guard", "launch > FileLock._open: open")
BEFORE_RUNNING = ("guard", "Gated.release: write")
BEFORE_READY = ("guard", "Book.write > FileLock._open: open")
#: The second time: it has read the row and seen that the old guard is dead.
BEFORE_TAKING_OVER = ("guard", "Guard._take_over > FileLock._open: open")
#: Between two generations; who stands here holds no lock, as none of these does.
BEFORE_GOING_ON = ("guard", "Book.begin_generation > FileLock._open: open")


@pytest.fixture
def world(temporary: Path, home: Path) -> Iterator[World]:
    """Give the test's own home and project; what it leaves alive fails the test."""
    assert home == temporary / "home"
    world = World(temporary)
    yield world
    world.close()


def starts(racers: list[Racer], world: World, **changes: Any) -> list[dict[str, Any]]:
    """Have all ``racers`` start the app at once; return what each was told."""
    call = {"command": world.command, "port": world.port, "timeout": 30} | changes
    for racer in racers:
        racer.call("start", "web", **call)
    return [racer.answer() for racer in racers]


def stopped(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the one result of a stop through the API."""
    assert answer["ok"], answer
    (result,) = answer["data"]["results"]
    assert isinstance(result, dict)
    return result


def is_one_server(world: World, answers: list[dict[str, Any]]) -> None:
    """Fail unless all ``answers`` to start are the one server that runs, made by exactly one of them."""
    assert all(answer["ok"] for answer in answers), answers
    servers = [answer["data"]["server"] for answer in answers]
    assert {(server["id"], server["pid"], server["url"]) for server in servers} == {
        (servers[0]["id"], servers[0]["pid"], f"http://localhost:{world.port}")
    }
    assert sorted(answer["data"]["reused"] for answer in answers) == [False] + [True] * (len(answers) - 1)
    assert {server["state"] for server in servers} == {"ready"}
    assert world.servers() == {servers[0]["pid"]}
    wait_until(lambda: len(world.guards()) == 1, PATIENCE)


def nothing_runs(world: World) -> None:
    """Fail unless nothing of the world lives and nothing is kept of what lived."""
    wait_until(lambda: not world.processes(), PATIENCE)
    assert not is_listening(world.port)
    assert world.registry.rows() == []
    assert world.registry.leases(system.net_namespace()) == {}
    assert world.list() == []


def stop_all(world: World) -> None:
    """Stop what runs, which must go well, and find nothing left."""
    results = world.devsup.stop(everything=True).results
    assert all(result.error is None for result in results), results
    nothing_runs(world)


# -- many starts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["port", "no port"])
def test_many_starts_at_once_make_one_server(world: World, temporary: Path, known: bool) -> None:
    """
    Eight processes that have nothing to wait for: one spawn, one pid, and all are told the same.

    Without a port that devsup knows of there is no lease that would keep two apart.
    """
    world.command = counted(temporary / "spawned", web())
    racers = world.racers(MANY)
    for _ in range(3):
        place = {"port": world.port} if known else {"port": None, "env": {"PORT": str(world.port)}}
        answers = starts(racers, world, **place)
        is_one_server(world, answers)
        pid = answers[0]["data"]["server"]["pid"]
        assert (temporary / "spawned").read_text() == f"{pid}\n"
        (temporary / "spawned").unlink()
        stop_all(world)


def test_many_commands_at_once_make_one_server(world: World) -> None:
    """The same through the command line, where loading takes longer than starting."""
    callers = [world.begin("start") for _ in range(MANY)]
    answers = [{"ok": True, "data": caller.end().data} for caller in callers]
    is_one_server(world, answers)
    stop_all(world)


def test_many_threads_at_once_make_one_server(world: World) -> None:
    """An agent that embeds devsup: one process, one identity, many threads."""
    together = threading.Barrier(MANY)
    results: list[Any] = []

    def start() -> None:
        together.wait(PATIENCE)
        results.append(world.start())

    threads = [threading.Thread(target=start) for _ in range(MANY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(results) == MANY
    assert {result.server.pid for result in results} == world.servers()
    assert [result.reused for result in results].count(False) == 1
    stop_all(world)


@pytest.mark.parametrize(
    "step",
    [
        ("command", "write_owner: pwrite"),
        BEFORE_RESERVING,
        BEFORE_SPAWNING,
        BEFORE_CLAIMING,
        BEFORE_RECORDING,
        BEFORE_RUNNING,
        BEFORE_READY,
    ],
    ids=lambda step: step[1],
)
def test_a_start_that_is_under_way_is_waited_for(world: World, step: tuple[str, str]) -> None:
    """Forced: the first one stands still on its way, the second looks, waits, and gets that server."""
    gate = world.gate(*step)
    waits = world.gate("command", "pause: select")
    first = world.begin("start", plan=[gate.plan])
    gate.reached()
    second = world.begin("start", plan=[waits.plan])
    waits.reached()
    assert len(world.servers()) == (step is BEFORE_READY)
    waits.go()
    gate.go()
    answers = [{"ok": True, "data": caller.end().data} for caller in (first, second)]
    assert not answers[0]["data"]["reused"]
    is_one_server(world, answers)
    stop_all(world)


@pytest.mark.parametrize("step", [BEFORE_RESERVING, BEFORE_SPAWNING], ids=lambda step: step[1])
def test_who_waits_takes_over_from_a_start_that_is_killed(world: World, step: tuple[str, str]) -> None:
    """Forced: neither a dead holder's lock nor its reservation holds up the next one."""
    gate, waits = world.gate(*step), world.gate("command", "pause: select")
    first = world.begin("start", plan=[gate.plan])
    gate.reached()
    second = world.begin("start", plan=[waits.plan])
    waits.reached()
    first.kill()
    waits.go()
    answer = second.end().data
    assert not answer["reused"]
    assert world.servers() == {answer["server"]["pid"]}
    stop_all(world)


def test_a_lock_that_somebody_has_removed_makes_no_two_servers(world: World) -> None:
    """Forced: two callers hold the lock of one session, since its file was deleted; the index decides."""
    gate = world.gate(*BEFORE_RESERVING)
    world.port, port = 0, world.port  # no lease that would keep them apart
    place = ["start", "web", "--json", "--env", f"PORT={port}", "--", *world.command]
    first = world.begin_with(place, plan=[gate.plan])
    gate.reached()
    for lock in (world.home / "locks").iterdir():
        lock.unlink()
    second = world.begin_with(place).end().data
    gate.go()
    answer = first.end().data
    assert (second["reused"], answer["reused"]) == (False, True)
    assert {answer["server"]["pid"], second["server"]["pid"]} == world.servers()
    assert len(world.servers()) == 1
    world.port = port
    stop_all(world)


def orphan(world: World) -> Server:
    """Return the server, whose guard has just been killed."""
    server = world.start().server
    world.kill_guard()
    return server


@pytest.mark.parametrize("nth", [1, 2], ids=["before it looks", "after it has looked"])
def test_one_of_two_guards_takes_over(world: World, nth: int) -> None:
    """Forced: the guard of a killed caller wants the server of a dead guard; a second one is faster."""
    server = orphan(world)
    gate = world.gate(*BEFORE_TAKING_OVER, nth=nth)
    first = world.begin("start", plan=[gate.plan])
    gate.reached()
    first.kill()
    second = world.begin("start").end().data["server"]
    assert second["pid"] == server.pid
    assert len(world.guards()) == 2
    gate.go()
    wait_until(lambda: world.guards() == {second["guard_pid"]}, PATIENCE)
    assert [one.guard_pid for one in world.list()] == [second["guard_pid"]]
    stop_all(world)


def test_a_guard_does_not_take_over_what_is_being_stopped(world: World) -> None:
    """Forced: the stop of a server without a guard begins when a new guard is about to take it over."""
    server = orphan(world)
    claims, ends = (
        world.gate(*BEFORE_TAKING_OVER, nth=2),
        world.gate("command", "send_signal: pidfd_send_signal"),
    )
    start = world.begin("start", plan=[claims.plan])
    claims.reached()
    stop = world.begin("stop", plan=[ends.plan])
    ends.reached()
    claims.go()
    wait_until(lambda: not world.guards(), PATIENCE)
    ends.go()
    (result,) = stop.end().data["results"]
    assert (result["outcome"], result["server"]["pid"]) == ("stopped", server.pid)
    answer = start.end().data
    assert not answer["reused"]
    assert world.servers() == {answer["server"]["pid"]}
    (ended,) = world.registry.ended(id=server.id, limit=5)
    assert ended.state is State.STOPPED
    stop_all(world)


def test_starts_of_which_some_are_killed_make_one_server(world: World) -> None:
    """Natural: three of six are killed at any moment; those that live get one server."""
    for round_ in range(4):
        racers = world.racers(6)
        for racer in racers:
            racer.call("start", "web", command=world.command, port=world.port, timeout=30)
        select_moment = random.uniform(0, 0.12)
        threading.Event().wait(select_moment)
        for racer in racers[:3]:
            racer.kill()
        answers = [racer.answer() for racer in racers[3:]]
        assert all(answer["ok"] for answer in answers), (round_, select_moment, answers)
        assert {answer["data"]["server"]["pid"] for answer in answers} == world.servers()
        assert len(world.servers()) == 1
        wait_until(lambda: len(world.guards()) == 1, PATIENCE)
        stop_all(world)


# -- start against stop ----------------------------------------------------------------------------


def test_starts_and_stops_of_one_server(world: World) -> None:
    """Natural: starters and stoppers of one app, round after round: every answer is one that makes sense."""
    starters, stoppers = world.racers(3), world.racers(3)
    for _ in range(8):
        for racer in starters:
            racer.call("start", "web", command=world.command, port=world.port, timeout=30)
        for racer in stoppers:
            racer.call("stop", ["web"])
        for answer in [racer.answer() for racer in starters]:
            assert answer["ok"] or answer["code"] == "stopped_meanwhile", answer
        outcomes = [stopped(racer.answer())["outcome"] for racer in stoppers]
        assert set(outcomes) <= {"stopped", "already_stopped", "stopped_by_other", "not_found"}, outcomes
        assert settle(world)
        shown = [server for server in world.list() if server.pid is not None]
        assert {server.pid for server in shown} == world.servers()
        assert len(shown) <= 1
    stop_all(world)


@pytest.mark.parametrize(
    "step",
    [
        BEFORE_WRITING_THE_JOB,
        BEFORE_SPAWNING,
        BEFORE_CLAIMING,
        BEFORE_RECORDING,
        BEFORE_RUNNING,
        BEFORE_READY,
    ],
    ids=lambda step: step[1],
)
def test_a_stop_meets_a_start_that_is_under_way(world: World, temporary: Path, step: tuple[str, str]) -> None:
    """Forced: wherever the start is, the stop ends it, and both are told so; nothing runs afterwards."""
    world.command = counted(temporary / "spawned", web())
    gate = world.gate(*step)
    start = world.begin("start", plan=[gate.plan])
    gate.reached()
    stop = world.begin("stop")
    # The guard stands still, so the stop can only wait, unless there is nothing but a reservation.
    unclaimed = step in (BEFORE_WRITING_THE_JOB, BEFORE_SPAWNING, BEFORE_CLAIMING)
    if unclaimed:
        (result,) = stop.end().data["results"]
    else:
        wait_until(lambda: [row.state for row in world.registry.rows()] == [State.STOPPING], PATIENCE)
    gate.go()
    if not unclaimed:
        (result,) = stop.end().data["results"]
    assert result["outcome"] == "stopped"
    assert start.end().error == "stopped_meanwhile"
    if step is not BEFORE_RUNNING:
        # What was stopped before it was recorded never runs, not for a moment.
        assert (temporary / "spawned").exists() is (step is BEFORE_READY)
    nothing_runs(world)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_who_joins_a_start_that_is_given_up_goes_on_without_it(
    world: World, temporary: Path, end: signal.Signals
) -> None:
    """Forced: it is killed, or interrupted, when it has only reserved. One of the others makes the server."""
    world.command = counted(temporary / "spawned", web())
    gate = world.gate(*BEFORE_SPAWNING)
    first = world.begin("start", plan=[gate.plan])
    gate.reached()
    joined = [threading.Event() for _ in range(5)]

    def join(event: threading.Event) -> StartResult:
        return world.devsup.start(
            "web", command=world.command, port=world.port, environ=world.environment, timeout=PATIENCE,
            on_progress=lambda _: event.set(),
        )  # fmt: skip

    with ThreadPoolExecutor(5) as pool:
        others = [pool.submit(join, event) for event in joined]
        assert all(event.wait(PATIENCE) for event in joined)
        first.child.send_signal(end)
        gate.go()
        assert first.end().error in ("killed", "interrupted")
        results = [one.result() for one in others]
    assert len({one.server.pid for one in results}) == 1
    assert sorted(one.reused for one in results) == [False, True, True, True, True]
    assert (temporary / "spawned").read_text().count("\n") == 1
    assert world.devsup.stop(["web"]).results[0].error is None


def test_a_stop_between_its_two_writes_of_a_reservation(world: World) -> None:
    """Forced: the stop has claimed the reservation but not yet withdrawn it when its guard wants it."""
    before_spawn, claimed = (
        world.gate(*BEFORE_SPAWNING),
        world.gate("command", "_Stop._proceed > Transactions._transact: execute"),
    )
    start = world.begin("start", plan=[before_spawn.plan])
    before_spawn.reached()
    stop = world.begin("stop", plan=[claimed.plan])
    claimed.reached()
    before_spawn.go()
    assert start.end().error == "stopped_meanwhile"
    claimed.go()
    (result,) = stop.end().data["results"]
    assert result["outcome"] in ("stopped", "stopped_by_other")
    nothing_runs(world)


def test_a_start_waits_for_a_stop_and_makes_a_new_server(world: World) -> None:
    """Forced: the guard is about to write the end of the old server."""
    gate, waits = world.gate("guard", "take: execute"), world.gate("command", "pause: select")
    old = world.begin("start", plan=[gate.plan]).end().data["server"]
    stop = world.begin("stop")
    gate.reached()
    start = world.begin("start", plan=[waits.plan])
    waits.reached()
    waits.go()
    gate.go()
    answer = start.end().data
    assert not answer["reused"]
    assert answer["server"]["id"] != old["id"]
    assert answer["server"]["generation"] > old["generation"]
    (result,) = stop.end().data["results"]
    assert (result["outcome"], result["server"]["pid"]) == ("stopped", old["pid"])
    assert world.servers() == {answer["server"]["pid"]}
    stop_all(world)


def test_a_stop_tells_the_starter_and_those_who_joined_it(world: World) -> None:
    """All of them wait for a server that takes its time; somebody stops it."""
    world.command = web("--delay", 60)
    racers = world.racers(3)
    for racer in racers:
        racer.call("start", "web", command=world.command, port=world.port, timeout=30)
    wait_until(lambda: world.servers() and settle_starting(world), PATIENCE)
    assert world.devsup.stop(["web"]).results[0].outcome is Outcome.STOPPED
    assert [racer.answer()["code"] for racer in racers] == ["stopped_meanwhile"] * 3
    nothing_runs(world)


def settle_starting(world: World) -> bool:
    """Tell whether the server is recorded and starting."""
    rows = world.registry.rows()
    return [row.state for row in rows] == [State.STARTING] and rows[0].leader is not None


# -- many stops ------------------------------------------------------------------------------------

LOSERS = {"stopped_by_other", "already_stopped"}


def one_has_stopped_it(outcomes: list[str]) -> None:
    """Fail unless exactly one of ``outcomes`` is that it did it."""
    assert outcomes.count("stopped") == 1, outcomes
    assert set(outcomes) <= {"stopped"} | LOSERS, outcomes


def test_many_stops_at_once_stop_it_once(world: World) -> None:
    """Natural: one did it, the others say that it is done; the ends that they tell are the same one."""
    racers = world.racers(MANY)
    for _ in range(3):
        pid = world.start().server.pid
        for racer in racers:
            racer.call("stop", ["web"])
        results = [stopped(racer.answer()) for racer in racers]
        one_has_stopped_it([result["outcome"] for result in results])
        assert {result["server"]["pid"] for result in results} == {pid}
        assert {(result["server"]["state"], result["server"]["exit_code"]) for result in results} == {
            ("stopped", 0)
        }
        # Who came when all was over has looked at nothing.
        assert {result["port_free"] for result in results} <= {True, None}
        nothing_runs(world)


def test_many_stops_of_a_server_without_a_guard(world: World) -> None:
    """Natural: nobody but the winner ends the tree, and the losers do not wait for the winner's own end."""
    racers = world.racers(MANY)
    for _ in range(2):
        orphan(world)
        began = time.monotonic()
        for racer in racers:
            racer.call("stop", ["web"])
        one_has_stopped_it([stopped(racer.answer())["outcome"] for racer in racers])
        # The winner lives on: a loser that waited for its end would wait to its own deadline, 22 s.
        assert time.monotonic() - began < SOON
        nothing_runs(world)


def test_many_threads_stop_it_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one process a claim tells one thread from another, also within one millisecond."""
    moment = clock.now_ms()
    monkeypatch.setattr(clock, "now_ms", lambda: moment)
    for _ in range(5):
        world.start()
        together = threading.Barrier(16)
        outcomes: list[str] = []

        def stop(together: threading.Barrier = together, outcomes: list[str] = outcomes) -> None:
            devsup = world.devsup
            together.wait(PATIENCE)
            outcomes.append(devsup.stop(["web"]).results[0].outcome.value)

        threads = [threading.Thread(target=stop) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(outcomes) == 16
        one_has_stopped_it(outcomes)
        nothing_runs(world)


def test_a_stop_waits_for_the_one_that_has_the_claim(world: World) -> None:
    """Forced: the winner has not even asked the guard yet."""
    claimed, waits = (
        world.gate("command", "send_signal: pidfd_send_signal"),
        world.gate("command", "_run: poll"),
    )
    world.start()
    winner = world.begin("stop", plan=[claimed.plan])
    claimed.reached()
    loser = world.begin("stop", plan=[waits.plan])
    waits.reached()
    waits.go()
    assert len(world.servers()) == 1
    claimed.go()
    outcomes = [caller.end().data["results"][0]["outcome"] for caller in (winner, loser)]
    assert outcomes == ["stopped", "stopped_by_other"]
    nothing_runs(world)


def test_a_stop_whose_holder_is_killed_passes_to_the_next(world: World) -> None:
    """Forced: the one that waits sees the end of nobody, and yet must not wait for its deadline."""
    claimed, waits = (
        world.gate("command", "send_signal: pidfd_send_signal"),
        world.gate("command", "_run: poll"),
    )
    world.start()
    winner = world.begin("stop", plan=[claimed.plan])
    claimed.reached()
    loser = world.begin("stop", plan=[waits.plan])
    waits.reached()
    winner.kill()
    waits.go()
    began = time.monotonic()
    assert loser.end().data["results"][0]["outcome"] == "stopped"
    assert time.monotonic() - began < SOON
    nothing_runs(world)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_stop_that_fails_within_is_over_and_the_next_one_stops_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in the thread that ends a server without a guard is an answer, not a stop without end."""
    server = orphan(world)

    def fail(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(shutdown, "end", fail)
        (result,) = world.devsup.stop(["web"]).results
    assert (result.outcome, result.error) == (Outcome.FAILED, "internal")
    assert world.servers() == {server.pid}
    # This process lives on, and its claim with it, unless it was given back.
    stop_all(world)


# -- list ------------------------------------------------------------------------------------------


def is_whole(server: Any) -> None:
    """Fail if a record is of two moments, or says that something crashed."""
    assert server.state not in (State.CRASHED, State.LOST), server
    if server.state is State.READY:
        assert None not in (server.pid, server.port, server.url, server.ready_at), server
    if server.ready_at is not None:
        assert server.ready_at >= server.started_at, server


def test_a_list_amid_starts_and_stops(world: World) -> None:
    """Natural: three apps come and go; no list fails, waits, or shows an orderly stop as a crash."""
    racers = world.racers(3)
    ports = [world.port, free_port(), free_port()]
    names = ["web", "api", "docs"]
    deadline = time.monotonic() + 4
    asked = [("start", 0)] * 3
    slowest, looks = 0.0, 0

    def go_on(index: int) -> None:
        verb, times = asked[index]
        if verb == "start":
            call = {"command": world.command, "port": ports[index], "timeout": 30}
            racers[index].call("start", names[index], **call)
        else:
            racers[index].call("stop", [names[index]])
        asked[index] = ("stop" if verb == "start" else "start", times + 1)

    for index in range(3):
        go_on(index)
    while time.monotonic() < deadline or looks <= 20:
        began = time.monotonic()
        for server in world.list():
            is_whole(server)
        slowest, looks = max(slowest, time.monotonic() - began), looks + 1
        for index, racer in enumerate(racers):
            if racer.has_answered():
                assert racer.answer()["ok"]
                go_on(index)
    for racer in racers:
        assert racer.answer()["ok"]
    assert slowest < AT_ONCE
    stop_all(world)


def test_a_list_looks_again_where_a_stop_came_in_between(world: World) -> None:
    """Forced: the rows are read, then the server is stopped, then its processes are looked at."""
    gate = world.gate("command", "Looking._snapshot > Database.close: close")
    world.start()
    lister = world.begin("list", plan=[gate.plan])
    gate.reached()
    stop_all(world)
    gate.go()
    assert lister.end().data["servers"] == []


def test_a_list_amid_more_stops_than_it_looks_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forced: after each of its looks at the rows another server is stopped."""
    names = ["a", "b", "c", "d"]
    for name in names:
        world.start(name, port=free_port())
    look = Registry.snapshot

    def look_and_stop(self: Registry, **options: Any) -> Snapshot:
        found = look(self, **options)
        if names:
            assert world.devsup.stop([names.pop()]).results[0].outcome is Outcome.STOPPED
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "snapshot", look_and_stop)
        shown = world.list()
    assert {server.state for server in shown} == {State.READY}, shown
    assert {server.app for server in shown} == {*names}
    stop_all(world)


def test_a_reservation_of_a_dead_caller_is_no_crash(world: World) -> None:
    """Nothing of it ever ran, and the next start takes it away."""
    gate = world.gate(*BEFORE_SPAWNING)
    start = world.begin("start", plan=[gate.plan])
    gate.reached()
    assert [server.state for server in world.list()] == [State.STARTING]
    start.kill()
    assert world.list() == []
    assert not world.start().reused
    stop_all(world)


def test_a_list_while_the_end_is_being_written(world: World) -> None:
    """Forced: nothing of the server lives and its row is still there: it is `stopping`, not crashed."""
    gate = world.gate("guard", "take: execute")
    world.begin("start", plan=[gate.plan]).end()
    stop = world.begin("stop")
    gate.reached()
    began = time.monotonic()
    (server,) = world.list()
    assert server.state is State.STOPPING
    assert world.servers() == set()
    assert time.monotonic() - began < AT_ONCE  # a write transaction is open all the time
    gate.go()
    assert stop.end().data["results"][0]["outcome"] == "stopped"
    nothing_runs(world)


# -- stop --all ------------------------------------------------------------------------------------


def test_stop_all_leaves_what_was_started_after_it_began(world: World) -> None:
    """Forced: it has read what runs; then another server is started."""
    gate = world.gate("command", "Supervisor.stop > Database.close: close")
    world.start()
    stop = world.begin("stop", "--all", plan=[gate.plan])
    gate.reached()
    other = world.start("api", port=free_port()).server
    gate.go()
    (result,) = stop.end().data["results"]
    assert (result["outcome"], result["server"]["session"]) == ("stopped", "dev_server_web")
    assert world.servers() == {other.pid}
    stop_all(world)


def test_stop_all_while_others_start(world: World) -> None:
    """Natural: what existed is gone, and each start is told the truth about its own server."""
    names = ["a", "b", "c", "d"]
    racers = dict(zip(names, world.racers(4), strict=True))
    ports = {name: free_port() for name in names}
    for _ in range(4):
        before = world.start().server
        for name, racer in racers.items():
            racer.call("start", name, command=world.command, port=ports[name], timeout=30)
        results = world.devsup.stop(everything=True).results
        assert all(result.error is None for result in results), results
        assert before.pid in {result.server.pid for result in results if result.server is not None}
        assert before.pid not in world.servers()
        up = set()
        for name, racer in racers.items():
            answer = racer.answer()
            if answer["ok"] and name not in {result.target for result in results}:
                up.add(answer["data"]["server"]["pid"])
            else:
                assert answer["ok"] or answer["code"] == "stopped_meanwhile", answer
        assert up == world.servers()
        stop_all(world)


# -- one folder, one port, one limit ---------------------------------------------------------------


@pytest.mark.parametrize("flags", [[], ["-H", "127.0.0.1"]], ids=["same command", "another command"])
def test_two_names_for_one_folder(world: World, flags: list[str]) -> None:
    """
    Natural and forced: Next.js allows one server per folder.

    Under another name the same command finds that server, and another command is refused.
    """
    next_app(world.project, *server_argv("next_like"))
    gate = world.gate(*BEFORE_RESERVING)
    late = world.begin_with(
        ["start", "late", "--json", "--port", str(world.port), "--", "next", "dev", *flags], plan=[gate.plan]
    )
    gate.reached()
    racers = world.racers(4)
    for index, racer in enumerate(racers):
        racer.call("start", f"app-{index}", command=["next", "dev"], port=world.port, timeout=30)
    answers = [racer.answer() for racer in racers]
    gate.go()
    assert all(answer["ok"] for answer in answers), answers
    (pid,) = {answer["data"]["server"]["pid"] for answer in answers}
    assert [answer["data"]["reused"] for answer in answers].count(False) == 1
    if flags:
        assert late.end().error == "name_taken"
    else:
        answer = late.end().data
        assert (answer["server"]["pid"], answer["reused"]) == (pid, True)
    assert [server.pid for server in world.list()] == [pid]
    stop_all(world)


def test_a_port_that_is_taken_between_check_and_bind(world: World) -> None:
    """Forced: a stranger listens just before the server runs; it is told as what it is."""
    gate = world.gate(*BEFORE_RUNNING)
    start = world.begin("start", plan=[gate.plan])
    gate.reached()
    with socket.create_server(("", world.port)):
        gate.go()
        answer = start.end()
        assert answer.error == "exited_early"
        details = answer.answer["error"]["details"]
        assert details["cause"] == "the port is already in use"
        assert details["exit_code"] == 1
        wait_until(lambda: not world.processes(), PATIENCE)
        assert world.list() == []


def test_two_apps_that_want_one_port(world: World) -> None:
    """Natural: the lease decides; whoever has not got it is told who has."""
    names = ["a", "b", "c", "d"]
    racers = world.racers(4)
    for name, racer in zip(names, racers, strict=True):
        racer.call("start", name, command=world.command, port=world.port, timeout=30)
    answers = [racer.answer() for racer in racers]
    (up,) = [answer["data"]["server"] for answer in answers if answer["ok"]]
    refused = [answer for answer in answers if not answer["ok"]]
    assert [answer["code"] for answer in refused] == ["port_taken"] * 3
    assert all(answer["details"]["holder"]["ours"] for answer in refused), refused
    assert world.servers() == {up["pid"]}
    stop_all(world)


def test_automatic_ports_differ(world: World) -> None:
    """Natural: apps that ask for any port at the same instant never get the same one."""
    names = ["a", "b", "c", "d", "e"]
    racers = world.racers(5)
    for name, racer in zip(names, racers, strict=True):
        racer.call("start", name, command=world.command, port="auto", timeout=30)
    ports = {racer.answer()["data"]["server"]["port"] for racer in racers}
    assert len(ports) == 5
    stop_all(world)


def test_the_limit_holds_under_a_race(world: World) -> None:
    """Natural: twelve apps, room for three: exactly three run, the others are told."""
    world.environment["DEVSUP_MAX_SERVERS"] = "3"
    racers = world.racers(12)
    for index, racer in enumerate(racers):
        racer.call("start", f"app-{index}", command=world.command, port=free_port(), timeout=30)
    answers = [racer.answer() for racer in racers]
    assert sorted(answer.get("code", "up") for answer in answers) == ["limit_reached"] * 9 + ["up"] * 3
    assert len(world.servers()) == 3
    assert all(answer["details"]["limit"] == 3 for answer in answers if not answer["ok"])
    stop_all(world)


# -- restart ---------------------------------------------------------------------------------------


def test_many_restarts_at_once_are_one_or_follow_each_other(world: World) -> None:
    """Natural: nobody fails, one server runs, and it is younger than before."""
    racers = world.racers(4)
    old = world.start().server
    for racer in racers:
        racer.call("restart", "web", timeout=30)
    answers = [racer.answer() for racer in racers]
    assert all(answer["ok"] for answer in answers), answers
    assert settle(world)
    (server,) = world.list()
    assert world.servers() == {server.pid}
    assert {answer["data"]["server"]["id"] for answer in answers} == {old.id} == {server.id}
    assert all(answer["data"]["server"]["generation"] > old.generation for answer in answers)
    assert server.state is State.READY
    stop_all(world)


def test_a_restart_joins_the_one_that_is_under_way(world: World) -> None:
    """Forced: the guard is between two generations."""
    gate, waits = world.gate(*BEFORE_GOING_ON), world.gate("command", "pause: select")
    old = world.begin("start", plan=[gate.plan]).end().data["server"]
    first = world.begin("restart")
    gate.reached()
    second = world.begin("restart", plan=[waits.plan])
    waits.reached()
    waits.go()
    gate.go()
    one, other = (caller.end().data["server"] for caller in (first, second))
    assert one["pid"] == other["pid"] != old["pid"]
    assert world.servers() == {one["pid"]}
    stop_all(world)


@pytest.mark.parametrize(
    "step", [BEFORE_CLAIMING, BEFORE_RECORDING, BEFORE_RUNNING], ids=lambda step: step[1]
)
def test_a_restart_of_what_has_not_run_yet(world: World, step: tuple[str, str]) -> None:
    """Forced: the restart comes while the server is being started; both end with the server that runs."""
    gate, waits = world.gate(*step), world.gate("command", "pause: select")
    start = world.begin("start", plan=[gate.plan])
    gate.reached()
    restart = world.begin("restart", plan=[waits.plan])
    waits.reached()
    waits.go()
    gate.go()
    pid = restart.end().data["server"]["pid"]
    assert world.servers() == {pid}
    assert start.end().data["server"]["session"] == "dev_server_web"
    (shown,) = world.list()
    assert (shown.state, shown.pid) == (State.READY, pid)
    stop_all(world)


def test_a_restart_that_is_asked_for_twice_is_no_stop(world: World) -> None:
    """Forced: the first caller is killed, the second asks again while the guard is already at it."""
    gate, waits = world.gate(*BEFORE_GOING_ON), world.gate("command", "pause: select")
    world.begin("start", plan=[gate.plan]).end()
    first = world.begin("restart")
    gate.reached()
    first.kill()
    second = world.begin("restart", plan=[waits.plan])
    waits.reached()
    waits.go()
    gate.go()
    server = second.end().data["server"]
    assert settle(world)
    assert world.servers() == {server["pid"]}
    (shown,) = world.list()
    assert (shown.state, shown.pid) == (State.READY, server["pid"])
    stop_all(world)


def test_a_stop_lets_a_restart_finish(world: World) -> None:
    """Forced: the guard goes down for a restart when the stop comes; the stop ends what comes up again."""
    gate, waits = world.gate("guard", "_Shutdown._signal_all: killpg"), world.gate("command", "_run: poll")
    old = world.begin("start", plan=[gate.plan]).end().data["server"]
    restart = world.begin("restart")
    gate.reached()
    stop = world.begin("stop", plan=[waits.plan])
    waits.reached()
    waits.go()
    gate.go()
    result = stop.end().data["results"][0]
    assert (result["outcome"], result["server"]["generation"] > old["generation"]) == ("stopped", True)
    said = restart.end()
    assert said.code == 0 or said.error == "stopped_meanwhile"
    nothing_runs(world)


def test_a_stop_outranks_a_restart_that_takes_too_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forced: the guard goes down for a restart when the stop comes; it does not come up again."""
    monkeypatch.setattr("devsup.supervisor.stop.PATIENCE", 0.5)
    gate = world.gate("guard", "_Shutdown._signal_all: killpg")
    world.begin("start", plan=[gate.plan]).end()
    restart = world.begin("restart")
    gate.reached()
    with ThreadPoolExecutor() as pool:
        stop = pool.submit(world.devsup.stop, ["web"])
        wait_until(lambda: [row for row in world.registry.rows() if row.stop and row.stop.purpose == "stop"])
        gate.go()
        results = stop.result(PATIENCE)
    assert results.results[0].outcome is Outcome.STOPPED
    assert "amid the restart by pid" in results.notes[0]
    assert restart.end().error == "stopped_meanwhile"
    nothing_runs(world)


@pytest.mark.parametrize("role", ["target", "claim"])
def test_a_stop_follows_a_restart_that_is_faster(world: World, role: str) -> None:
    """Forced: between the stop's look and its claim the server has become a later generation."""
    begin = "_Stop._try_claim > Transactions._transact: execute"  # after it no other process could write
    step = {"target": "_by_name > Database.close: close", "claim": begin}
    gate = world.gate("command", step[role])
    old = world.start().server
    stop = world.begin("stop", plan=[gate.plan])
    gate.reached()
    new = world.devsup.restart("web", timeout=30).server
    assert new.generation > old.generation
    gate.go()
    (result,) = stop.end().data["results"]
    assert (result["outcome"], result["server"]["pid"]) == ("stopped", new.pid)
    nothing_runs(world)


def test_restarts_and_stops(world: World) -> None:
    """Natural: after each round either nothing runs or exactly the server that `list` shows."""
    restarters, stoppers = world.racers(2), world.racers(2)
    for _ in range(5):
        world.start()
        for racer in restarters:
            racer.call("restart", "web", timeout=30)
        for racer in stoppers:
            racer.call("stop", ["web"])
        for answer in [racer.answer() for racer in restarters]:
            assert answer["ok"] or answer["code"] in {"stopped_meanwhile", "busy", "not_found"}, answer
        outcomes = [stopped(racer.answer())["outcome"] for racer in stoppers]
        assert set(outcomes) <= {"stopped", *LOSERS}, outcomes
        assert settle(world)
        assert {server.pid for server in world.list()} == world.servers()
    stop_all(world)


def test_a_start_meets_a_restart(world: World) -> None:
    """Forced: whoever starts what is being restarted gets the new one, never the old pid."""
    gate, waits = world.gate(*BEFORE_GOING_ON), world.gate("command", "pause: select")
    old = world.begin("start", plan=[gate.plan]).end().data["server"]
    restart = world.begin("restart")
    gate.reached()
    start = world.begin("start", plan=[waits.plan])
    waits.reached()
    waits.go()
    gate.go()
    answer, new = start.end().data, restart.end().data["server"]
    assert answer["reused"]
    assert answer["server"]["pid"] == new["pid"] != old["pid"]
    stop_all(world)


def test_a_start_whose_server_is_restarted_before_it_looks(world: World) -> None:
    """Forced: it has heard that the server is ready; by then that is over, and it waits for the next one."""
    heard, gate = world.gate("command", "look > FileLock._open: open"), world.gate(*BEFORE_GOING_ON)
    start = world.begin("start", plan=[heard.plan, gate.plan])
    heard.reached()
    restart = world.begin("restart")
    gate.reached()
    heard.go()
    waits_on = world.registry.rows()[0].generation
    gate.go()
    one, other = start.end().data["server"], restart.end().data["server"]
    assert one["pid"] == other["pid"]
    assert one["generation"] == other["generation"] > waits_on
    stop_all(world)


# -- signals to the caller -------------------------------------------------------------------------


def ready(world: World) -> list[Server]:
    """Return the servers that are ready."""
    return [server for server in world.list() if server.state is State.READY]


def is_true(world: World, said: str) -> None:
    """Fail unless what an interrupted start has said is so; "" stands for a caller that could not say."""
    assert settle(world)
    alive = world.servers()
    if "nothing was started" in said:
        assert not alive, said
        assert [row for row in world.registry.rows() if row.guard is not None] == []
    elif "is tracked" in said or said == "ready":
        (server,) = wait_until(lambda: ready(world), PATIENCE)
        assert alive == {server.pid}
    else:
        assert said in ("", "interrupted; what has begun goes on")
        assert alive == {server.pid for server in ready(world)}


def what_was_said(caller: Caller) -> str:
    """Return the message of an interrupted start; "ready" where it was over already."""
    if not caller.out:
        return ""  # Python itself was interrupted while it was loading
    if caller.answer["ok"]:
        return "ready"
    error = caller.answer["error"]
    assert (caller.error, error["retryable"]) == (EXPECTED[caller.code], True)
    return str(error["message"])


EXPECTED = {130: "interrupted", 143: "terminated"}


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_an_interrupted_start_says_what_it_leaves(world: World, number: str) -> None:
    """At each step of the caller: either nothing was started, or the server is tracked."""
    steps = [step for step in sample(steps_of(SCENES["start"])) if step.role == "command"]
    # An answer that is being written is not taken back.
    steps = [step for step in steps if not step.name.startswith(("_write_all", "_leave"))]
    if number == "SIGTERM":
        steps = steps[::4]  # it takes the same way as soon as there is a handler
    said = []
    for step in steps:
        plan = [{"role": "command", "step": step.name, "nth": step.nth, "do": number}]
        caller = world.begin("start", plan=plan).end()
        assert caller.code in (0, 130, 143, -signal.SIGTERM), (step, caller)
        said.append(
            what_was_said(caller) if caller.code > -1 else "nothing was started: there is no handler yet"
        )
        assert "nothing" in said[-1] or "is tracked" in said[-1], step
        is_true(world, said[-1])
        world.devsup.stop(["web"])
        nothing_runs(world)
    assert any("nothing" in text for text in said)
    assert any("is tracked" in text for text in said)


@pytest.mark.parametrize("step", [BEFORE_CLAIMING, BEFORE_RECORDING, BEFORE_READY], ids=lambda step: step[1])
def test_ctrl_c_while_the_guard_is_at_work(world: World, step: tuple[str, str]) -> None:
    """Forced: before the claim nothing remains, after it the server is tracked; it says which."""
    gate = world.gate(*step)
    start = world.begin("start", plan=[gate.plan])
    gate.reached()
    start.child.send_signal(signal.SIGINT)
    caller = start.end()
    assert caller.error == "interrupted"
    gate.go()
    said = what_was_said(caller)
    is_true(world, said)
    assert ("nothing" in said) is (step is BEFORE_CLAIMING)
    world.devsup.stop(["web"])
    nothing_runs(world)


def test_ctrl_c_at_a_terminal_reaches_the_whole_group(world: World) -> None:
    """Natural: the guard is in the caller's group until it has a session of its own."""
    for _ in range(12):
        start = world.begin_with(world.arguments("start"), group=True)
        threading.Event().wait(random.uniform(0.05, 0.35))
        try:
            os.killpg(start.child.pid, signal.SIGINT)
        except ProcessLookupError:
            pass  # it was faster
        is_true(world, what_was_said(start.end()))
        world.devsup.stop(["web"])
        nothing_runs(world)


# -- strangers -------------------------------------------------------------------------------------


def test_another_home_is_named_and_not_doubled(world: World, temporary: Path) -> None:
    """A project has one server of a name, whatever state folder the caller has."""
    server = world.start().server
    elsewhere = World(temporary)
    elsewhere.home = temporary / "other-home"
    elsewhere.environment["DEVSUP_HOME"] = str(elsewhere.home)
    with pytest.raises(NameTaken) as refused:
        elsewhere.start(port=free_port())
    assert refused.value.details["home"] == str(world.home)
    assert world.servers() == {server.pid}
    assert elsewhere.list() == []
    stop_all(world)


def test_a_server_that_starts_itself_is_refused(world: World, temporary: Path) -> None:
    """A `dev` script that calls `devsup start` for its own app would wait for itself."""
    answer = temporary / "answer"
    inner = f"{sys.executable} -m devsup start web --json > {answer}; echo $? >> {answer}"
    code = (
        f"import os, sys\nos.system({inner!r})\n"
        f"os.execv(sys.executable, [sys.executable, '-SE', *{web()[2:]!r}])"
    )
    world.environment["PYTHONPATH"] = str(ROOT)
    world.command = [sys.executable, "-c", code]
    server = world.start().server
    document, status = answer.read_text().splitlines()
    assert (json.loads(document)["error"]["code"], status) == ("inside_itself", "12")
    assert {one.pid for one in world.list()} == {server.pid}
    stop_all(world)


def dead_process(spawn: Spawn) -> Identity:
    """Return the identity of a process that has ended."""
    child = spawn("input()")
    who = identity.of(child.pid)
    assert who is not None
    child.kill()
    child.wait(10)
    return who


@pytest.mark.parametrize("purpose", ["stop", "restart"])
@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_a_claim_of_a_dead_process_passes_on(world: World, spawn: Spawn, purpose: str, verb: str) -> None:
    """Whoever comes next does what was claimed, or what it was asked itself; nobody waits for the dead."""
    old = world.start().server
    claim = StopClaim(dead_process(spawn), now_ms(), purpose, 5.0, sweep=False)
    assert world.registry.claim_stop(old.id, old.generation, claim) == claim
    began = time.monotonic()
    if verb == "start":
        server = world.start().server
    elif verb == "restart":
        server = world.devsup.restart("web", timeout=30).server
    else:
        (result,) = world.devsup.stop(["web"]).results
        assert result.outcome is Outcome.STOPPED
    assert time.monotonic() - began < SOON
    if verb != "stop":
        assert server.state is State.READY
        assert world.servers() == {server.pid}
        assert server.pid != old.pid
        stop_all(world)
    nothing_runs(world)


INNOCENT = "print('lives', flush=True); input()"


def not_quite(who: Identity, how: str) -> Identity:
    """Return an identity that has the pid of ``who`` and is another process's."""
    if how == "start time":
        return Identity(who.pid, who.ticks - 1, who.boot)
    if how == "boot":
        return Identity(who.pid, who.ticks, "00000000-0000-0000-0000-000000000000", who.inode)
    return Identity(who.pid, who.ticks, who.boot, who.inode + 1)


HOWS = ("start time", "inode", "boot")
REUSED = [
    (verb, part, how) for verb in ("stop", "start") for part in ("leader", "guard", "both") for how in HOWS
]
REUSED += [(verb, "both", how) for verb in ("stop pid", "stop all", "restart") for how in HOWS]


@pytest.mark.parametrize(("verb", "part", "how"), REUSED)
def test_a_reused_pid_is_never_signalled(world: World, spawn: Spawn, verb: str, part: str, how: str) -> None:
    """A row names a pid that the kernel has given to somebody else since."""
    if how == "inode" and not system.CAPABILITIES.pidfs:
        pytest.skip("here a pidfd has no number of its own")
    innocent = world.keep(spawn(INNOCENT))
    assert hear(innocent) == "lives\n"
    who = identity.of(innocent.pid)
    assert who is not None
    plant(world, not_quite(who, how), dead_process(spawn), part)
    assert [server.state for server in world.list()] == [State.CRASHED]
    if verb == "stop":
        assert world.devsup.stop(["web"]).results[0].outcome is Outcome.ALREADY_STOPPED
    elif verb == "stop pid":
        (result,) = world.devsup.stop([str(innocent.pid)]).results
        assert result.outcome in (Outcome.REFUSED, Outcome.ALREADY_STOPPED), result
    elif verb == "stop all":
        world.devsup.stop(everything=True)
    elif verb == "start":
        assert not world.start().reused
    else:
        assert world.devsup.restart("web", timeout=30).server.state is State.READY
    stop_all(world)
    assert innocent.poll() is None
    assert innocent.stdin is not None
    innocent.stdin.close()
    innocent.wait(10)  # it ends by itself: it was never stopped either
    assert innocent.returncode == 1  # EOFError of `input()`


def plant(world: World, wrong: Identity, dead: Identity, part: str) -> Row:
    """Write the row of a server whose ``part`` has the identity ``wrong``, and whose others are dead."""
    here = identity.here().key
    row = Row(
        id=os.urandom(6).hex(), generation=0, scope=here, netns=system.net_namespace(),
        project=str(world.project), session="dev_server_web", app="web", kind="command",
        cwd=str(world.project), command=world.command, log=str(world.folder / "log"), owner=None,
        started_at=now_ms(), asked_port=world.port, starter=dead,
    )  # fmt: skip
    reserved = world.registry.reserve(
        row, dead=[], limit=32, port=world.port, log_of=lambda _: str(world.folder / "log")
    )
    guard = wrong if part in ("guard", "both") else dead
    leader = wrong if part in ("leader", "both") else dead
    assert world.registry.claim(reserved.id, reserved.generation, guard)
    assert world.registry.record_child(reserved.id, reserved.generation, leader, guard=guard)
    assert world.registry.update(
        reserved.id,
        reserved.generation,
        state=State.READY,
        port=world.port,
        url=f"http://localhost:{world.port}",
    )
    return reserved


def test_a_pid_that_is_not_ours_is_refused(world: World, spawn: Spawn) -> None:
    """Natural: a living stranger, asked for by its pid."""
    innocent = world.keep(spawn(INNOCENT))
    assert hear(innocent) == "lives\n"
    world.start()
    (result,) = world.devsup.stop([str(innocent.pid)]).results
    assert (result.outcome, result.error) == (Outcome.REFUSED, NotOurs.code)
    assert innocent.poll() is None
    stop_all(world)


def test_nothing_but_devsup_errors_comes_out(world: World) -> None:
    """Calls that cannot go well, beside a server that comes and goes."""
    racer = world.racers(1)[0]
    racer.call("start", "web", command=world.command, port=world.port, timeout=30)
    calls = (
        lambda: world.devsup.stop(["nope"]),
        lambda: world.devsup.status("nope"),
        lambda: world.devsup.url("web"),
        lambda: world.devsup.logs("web"),
        lambda: world.devsup.wait("web", timeout=0.01),
        lambda: world.devsup.restart("nope"),
    )
    for _ in range(20):
        for call in calls:
            try:
                call()
            except DevsupError:
                continue
    assert racer.answer()["ok"]
    stop_all(world)
