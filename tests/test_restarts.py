"""A server that ends by itself is run again where that is wanted: after pauses, and not for ever."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from devsup import identity
from devsup.errors import ExitedEarly, NotOurs
from devsup.guard.backoff import LONGEST, MOST, STEADY, WINDOW, Backoff
from devsup.models import Outcome, State
from tests.racing import PATIENCE, World, counted, settle, web
from tests.support import fetch, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devsup.models import Event, Server

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes"),
    pytest.mark.timeout(300),
]


# -- when, and how often -------------------------------------------------------------------------------


def test_pauses_double_up_to_a_bound() -> None:
    backoff, now = Backoff(), 0.0
    pauses = []
    for _ in range(12):
        pause = backoff.failed(now, up_since=None)
        assert pause is not None
        pauses.append(pause.seconds)
        backoff.restarted(now)
        now += WINDOW / MOST + 1  # seldom enough
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, *[LONGEST] * 4]


def test_after_five_within_a_minute_it_is_given_up() -> None:
    backoff = Backoff()
    for attempt in range(1, MOST + 1):
        pause = backoff.failed(float(attempt), up_since=None)
        assert pause is not None
        assert pause.attempt == attempt
        backoff.restarted(float(attempt))
    assert backoff.failed(WINDOW + 0.9, up_since=None) is None
    assert backoff.failed(WINDOW + 1.0, up_since=None) is not None


@pytest.mark.parametrize(("up_for", "attempt"), [(STEADY - 0.1, 2), (STEADY, 1)])
def test_a_minute_of_being_well_resets_the_count(up_for: float, attempt: int) -> None:
    backoff = Backoff()
    backoff.failed(0.0, up_since=None)
    backoff.restarted(0.2)
    pause = backoff.failed(1.0 + up_for, up_since=1.0)
    assert pause is not None
    assert pause.attempt == attempt


# -- real servers --------------------------------------------------------------------------------------

#: Serves, unless the file `broken` is there: then it ends with 3.
FRAGILE = 'test ! -e broken || { echo broken; exit 3; }; exec "$@"'


class Failing:
    """A server in a world of its own that fails when it is told to."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.command = counted(world.folder / "runs", ["/bin/sh", "-c", FRAGILE, "sh", *web()])

    def start(self, restart: str = "on-failure", **options: Any) -> Server:
        """Start it, or find it."""
        world = self.world
        return world.devsup.start(
            "web", command=world.command, port=world.port, environ=world.environment, restart=restart,
            timeout=PATIENCE, **options,
        ).server  # fmt: skip

    def now(self) -> Server:
        """Return it as `status` shows it."""
        return self.world.devsup.status("web").server

    def kill(self) -> int:
        """Kill what serves, and return its pid."""
        pid = self.now().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return pid

    def breaks(self) -> None:
        """Have it fail, now and whenever it is run."""
        (self.world.project / "broken").touch()
        self.kill()

    def pauses(self, attempt: int = MOST) -> None:
        """Wait until it waits for that try; the last one is 3.2 s away."""
        wait_until(lambda: len(self.events("restarted")) == attempt - 1, PATIENCE)
        wait_until(lambda: self.row_state() is State.RESTARTING, PATIENCE)

    def row_state(self) -> State | None:
        """Return what stands in the registry."""
        rows = self.world.registry.rows()
        return rows[0].state if rows else None

    def events(self, *types: str) -> list[Event]:
        """Return the events of these types, or all."""
        return [one for one in self.world.registry.events() if not types or one.type in types]

    def runs(self) -> int:
        """Return how often its command was run."""
        return len((self.world.folder / "runs").read_text().split())

    def nothing_is_left(self) -> None:
        """Fail unless neither process nor row is there."""
        wait_until(lambda: not self.world.processes(), PATIENCE)
        assert self.world.registry.rows() == []


@pytest.fixture
def failing(temporary: Path, home: Path) -> Iterator[Failing]:
    assert home == temporary / "home"
    world = World(temporary)
    yield Failing(world)
    world.close()


def test_a_server_that_fails_is_run_again_and_its_old_pid_leads_to_it(failing: Failing) -> None:
    world, first = failing.world, failing.start()
    old = failing.kill()
    wait_until(lambda: len(failing.events("ready")) == 2, PATIENCE)
    again = world.devsup.wait("web").server
    assert (again.id, again.guard_pid, again.state) == (first.id, first.guard_pid, State.READY)
    assert again.generation > first.generation
    assert again.pid != old
    assert again.log != first.log
    assert fetch(f"{again.url}/")[0] == 200
    (event,) = failing.events("restarted")
    assert (event.reason, event.details, event.pid) == ("signal 9", {"attempt": 1, "delay_ms": 200}, old)
    assert failing.events("crashed") == []
    became = f"pid {old} was that of `web`, which was restarted and is pid {again.pid} now"
    status = world.devsup.status(str(old))
    assert (status.server, status.notes) == (again, [became])
    assert world.devsup.logs(str(old)).generation == again.generation
    (stopped,) = world.devsup.stop([str(old)]).results
    assert (stopped.outcome, stopped.message) == (Outcome.STOPPED, became)
    failing.nothing_is_left()


def test_an_old_pid_that_somebody_else_has_now_is_left_alone(
    failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing.start()
    old = failing.kill()
    wait_until(lambda: len(failing.events("ready")) == 2, PATIENCE)
    with monkeypatch.context() as patch:
        patch.setattr("devsup.supervisor.targets.identity.of", lambda pid: identity.me().replace(pid=pid))
        with pytest.raises(NotOurs, match=f"pid {old} is now another process"):
            failing.world.devsup.status(str(old))
    assert failing.world.devsup.stop(["web"]).results[0].outcome is Outcome.STOPPED


def test_a_server_that_fails_again_and_again_is_given_up(failing: Failing) -> None:
    """Only then it has crashed, and the reason says so; until then it is being restarted."""
    first = failing.start()
    failing.breaks()
    failing.pauses()
    assert failing.now().pid is None
    assert failing.now().url is None
    assert [one.state for one in failing.world.list()] == [State.RESTARTING]
    assert failing.events("crashed") == []
    wait_until(lambda: failing.events("crashed"), PATIENCE)
    restarts = failing.events("restarted")
    assert [one.details for one in restarts] == [
        {"attempt": attempt, "delay_ms": 200 * 2 ** (attempt - 1)} for attempt in range(1, MOST + 1)
    ]
    assert [(one.reason, one.exit_code) for one in restarts] == [
        ("signal 9", None), *[("exit code 3", 3)] * (MOST - 1),
    ]  # fmt: skip
    (crash,) = failing.events("crashed")
    assert crash.reason == "gave up after 5 restarts within 60 s: exit code 3"
    assert failing.runs() == 1 + MOST
    (shown,) = failing.world.list()
    assert (shown.state, shown.exit_code, shown.id) == (State.CRASHED, 3, first.id)
    assert failing.world.devsup.logs("web").text == "broken\n"
    wait_until(lambda: not failing.world.processes(), PATIENCE)


def test_a_first_start_that_fails_is_told_at_once(failing: Failing) -> None:
    """Who has just typed the command waits for an answer, not for six tries."""
    (failing.world.project / "broken").touch()
    with pytest.raises(ExitedEarly, match="exit code 3"):
        failing.start()
    assert failing.runs() == 1
    failing.nothing_is_left()


def test_with_always_also_the_first_start_is_tried_again(failing: Failing) -> None:
    """What it needs (a database, say) may be there in a moment; the start waits for that."""
    world = failing.world
    world.command = counted(
        world.folder / "runs",
        ["/bin/sh", "-c", 'test $(wc -l < ../runs) -gt 2 || exit 3; exec "$@"', "sh", *web()],
    )
    server = failing.start("always")
    assert (server.state, failing.runs()) == (State.READY, 3)
    assert [one.details for one in failing.events("restarted")] == [
        {"attempt": 1, "delay_ms": 200},
        {"attempt": 2, "delay_ms": 400},
    ]
    assert world.devsup.stop(["web"]).results[0].outcome is Outcome.STOPPED
    failing.nothing_is_left()


def test_with_always_a_start_that_never_succeeds_says_how_often_it_was_tried(failing: Failing) -> None:
    (failing.world.project / "broken").touch()
    with pytest.raises(ExitedEarly, match="exit code 3; gave up after 5 restarts within 60 s"):
        failing.start("always")
    assert failing.runs() == 1 + MOST
    failing.nothing_is_left()


# -- while it waits for the next try -------------------------------------------------------------------


def test_a_stop_ends_the_pause_at_once(failing: Failing) -> None:
    failing.start()
    failing.breaks()
    failing.pauses()
    runs, began = failing.runs(), time.monotonic()
    (result,) = failing.world.devsup.stop(["web"]).results
    assert time.monotonic() - began < 3.0  # the pause is 3.2 s, and it was not waited for
    assert (result.outcome, result.survivors, result.port_free) == (Outcome.STOPPED, [], True)
    failing.nothing_is_left()
    assert failing.runs() == runs
    assert failing.events("crashed") == []


def test_a_start_and_a_wait_join_the_next_try(failing: Failing) -> None:
    first = failing.start()
    failing.breaks()
    failing.pauses()
    (failing.world.project / "broken").unlink()
    (racer,) = failing.world.racers(1)
    racer.call("wait", "web", timeout=PATIENCE)
    server = failing.start()
    assert (server.id, server.state) == (first.id, State.READY)
    assert racer.answer()["data"]["server"]["pid"] == server.pid
    assert failing.world.devsup.stop(["web"]).results[0].outcome is Outcome.STOPPED
    failing.nothing_is_left()


def test_a_restart_during_the_pause_is_one_at_once(failing: Failing) -> None:
    first = failing.start()
    failing.breaks()
    failing.pauses()
    (failing.world.project / "broken").unlink()
    server = failing.world.devsup.restart("web", timeout=PATIENCE).server
    assert (server.id, server.state) == (first.id, State.READY)
    assert failing.events("restarted")[-1].details is None
    # And it begins to count anew.
    failing.kill()
    wait_until(lambda: len(failing.events("restarted")) == MOST + 1, PATIENCE)
    assert failing.events("restarted")[-1].details == {"attempt": 1, "delay_ms": 200}
    failing.world.devsup.wait("web", timeout=PATIENCE)
    assert failing.world.devsup.stop(["web"]).results[0].outcome is Outcome.STOPPED
    failing.nothing_is_left()


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_a_guard_that_is_killed_during_the_pause_leaves_nothing_unknown(failing: Failing, verb: str) -> None:
    world = failing.world
    failing.start()
    failing.breaks()
    failing.pauses()
    world.kill_guard()
    assert [one.state for one in world.list()] == [State.CRASHED]
    (world.project / "broken").unlink()
    if verb == "start":
        assert failing.start().state is State.READY
    elif verb == "restart":
        assert world.devsup.restart("web", timeout=PATIENCE).server.state is State.READY
    assert len(world.servers()) == (verb != "stop")
    assert world.devsup.stop(["web"]).results[0].error is None
    failing.nothing_is_left()


# -- forced races --------------------------------------------------------------------------------------

GOING_ON = ("guard", "Book.begin_generation > FileLock._open: open")


def test_a_stop_between_the_pause_and_the_next_run_wins(failing: Failing) -> None:
    """The guard is about to run it again when the stop is claimed: the registry refuses, nothing runs."""
    world = failing.world
    gate = world.gate(*GOING_ON)
    arguments = world.arguments("start", "--restart", "on-failure")
    assert world.begin_with(arguments, plan=[gate.plan]).end().code == 0
    failing.kill()
    gate.reached()
    stop = world.begin("stop")
    wait_until(lambda: failing.events("stopping"), PATIENCE)
    gate.go()
    assert stop.end().data["results"][0]["outcome"] == "stopped"
    assert failing.runs() == 1
    failing.nothing_is_left()


@contextmanager
def unusable(world: World) -> Iterator[None]:
    """Have nobody lock the registry: for ever, as far as who meets that can see."""
    lock = world.home / "registry.lock"
    aside = lock.with_suffix(".aside")
    lock.rename(aside)
    lock.mkdir()
    yield
    lock.rmdir()
    aside.rename(lock)


def logged(world: World) -> str:
    """Return what the guard has said."""
    (log,) = (world.home / "logs").glob("*/*.guard.log")
    return log.read_text()


def test_a_restart_that_the_registry_does_not_take_is_tried_again(failing: Failing) -> None:
    world = failing.world
    gate = world.gate(*GOING_ON)
    assert world.begin_with(world.arguments("start"), plan=[gate.plan]).end().code == 0
    restart = world.begin("restart")
    gate.reached()
    restart.kill()  # nobody else is to ask for it
    with unusable(world):
        gate.go()
        wait_until(lambda: "cannot begin again" in logged(world), PATIENCE)
    wait_until(lambda: len(failing.events("ready")) == 2, PATIENCE)
    assert failing.runs() == 2
    assert world.devsup.stop(["web"]).results[0].outcome is Outcome.STOPPED
    failing.nothing_is_left()


RECORDING = ("guard", "launch > FileLock._open: open", 2)


def test_a_run_that_cannot_be_recorded_is_a_failure_like_any_other(failing: Failing) -> None:
    """Its process waits at the gate and runs nothing: nobody would ever see it end, or be ready."""
    world = failing.world
    gate = world.gate(*RECORDING)
    arguments = world.arguments("start", "--restart", "on-failure")
    assert world.begin_with(arguments, plan=[gate.plan]).end().code == 0
    failing.kill()
    gate.reached()
    with unusable(world):
        gate.go()
        wait_until(lambda: "it could not be run" in logged(world), PATIENCE)
    wait_until(lambda: len(failing.events("ready")) == 2, PATIENCE)
    assert failing.runs() == 2
    reasons = [(one.reason or "").partition(":")[0] for one in failing.events("restarted")]
    assert reasons == ["signal 9", "it could not be run"]
    assert world.devsup.stop(["web"]).results[0].outcome is Outcome.STOPPED
    failing.nothing_is_left()


def test_a_caller_killed_after_it_claimed_the_stop_of_a_pause_holds_nothing_up(failing: Failing) -> None:
    """Its claim stands in the row, the guard was not asked: it sees the claim itself when it goes on."""
    world = failing.world
    failing.start()
    failing.breaks()
    failing.pauses()
    step = {"role": "command", "step": "pidfd_send_signal", "nth": 1, "do": "SIGKILL"}
    step["step"] = "_Stop._ask_guard > send_signal: pidfd_send_signal"
    assert world.begin("stop", plan=[step]).end().error == "killed"
    failing.nothing_is_left()
    assert failing.events("crashed") == []
    assert settle(world)
