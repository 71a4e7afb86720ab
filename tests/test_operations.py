"""Work that is announced on a server, and the stops that meet it."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from devsup import Busy, LockTimeout, NotFound, identity
from devsup.clock import now_ms
from devsup.models import Outcome, StopClaim
from devsup.registry import Registry
from devsup.supervisor import leasing
from devsup.supervisor import stop as stopping
from devsup.supervisor.operations import InFlight
from tests.racing import World
from tests.registry_child import make_row, reserve, stranger
from tests.support import hear, say

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from devsup.models import Identity, Row, Server, StopResults
    from tests.support import Leftovers, Spawn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")

#: Opens an operation in a process of its own and says so; closes it at a word, or is killed.
HOLDER = """
import sys
from devsup import Supervisor
supervisor = Supervisor(sys.argv[1], sys.argv[2])
with supervisor.operation("web", purpose="screenshots", exclusive=len(sys.argv) > 3) as server:
    print("inside", server.pid, flush=True)
    sys.stdin.readline()
print("over", flush=True)
"""
#: Less than what a stop waits here, more than what a busy machine takes.
SOON, PATIENCE = 20.0, 40.0


@pytest.fixture
def world(temporary: Path, home: Path) -> Iterator[World]:
    assert home.is_dir()
    world = World(temporary)
    world.command = ["sleep", "1000"]
    yield world
    world.close()


@pytest.fixture
def server(world: World) -> Server:
    return world.devsup.start("web", command=world.command, environ=world.environment).server


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have stops wait for so long that one which did so is seen as late however busy the machine is."""
    assert stopping.PATIENCE == 5.0
    monkeypatch.setattr(stopping, "PATIENCE", PATIENCE)


@pytest.fixture
def _impatient(_patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have stops wait for half a second."""
    monkeypatch.setattr(stopping, "PATIENCE", 0.5)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Tell that a stop has seen what others do, and waits for it."""
    seen = threading.Event()
    be_patient = stopping._Stop._be_patient

    def told(self: stopping._Stop, what: str, *processes: Identity) -> None:
        be_patient(self, what, *processes)
        seen.set()

    monkeypatch.setattr(stopping._Stop, "_be_patient", told)
    return seen


class Stopping:
    """A stop in a thread of its own."""

    def __init__(self, world: World, *targets: str) -> None:
        self._world, self._targets = world, targets
        self.results: StopResults | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.results = self._world.devsup.stop(self._targets, everything=not self._targets)

    def end(self) -> StopResults:
        """Wait for it; return what it says."""
        self._thread.join(30)
        assert self.results is not None, "it has not come to an end"
        return self.results


def test_an_operation_is_a_use_of_the_server_and_leaves_nothing(world: World, server: Server) -> None:
    with world.devsup.operation("web") as given:
        assert (given.id, given.pid) == (server.id, server.pid)
        (one,) = world.registry.operations(server.id)
        assert (one.by, one.generation, one.purpose) == (identity.me(), server.generation, "operation")
        began = world.registry.rows()[0].last_used_at
        assert began is not None
    assert world.registry.operations(server.id) == []
    used = world.registry.rows()[0].last_used_at
    assert used is not None
    assert used >= began
    with pytest.raises(ZeroDivisionError), world.devsup.operation("web"):
        _ = 1 / (1 - len(world.registry.operations(server.id)))
    assert world.registry.operations(server.id) == []
    world.devsup.stop(["web"])


@pytest.mark.parametrize("times", [1, 2])
def test_a_ctrl_c_amid_its_end_leaves_nothing(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Whoever catches it lives on, so nobody would ever prove the operation dead."""
    end, left = Registry.end_operations, [KeyboardInterrupt] * times

    def interrupted(registry: Registry, numbers: Collection[int]) -> None:
        if left:
            raise left.pop()
        end(registry, numbers)

    monkeypatch.setattr(Registry, "end_operations", interrupted)
    with pytest.raises(KeyboardInterrupt), world.devsup.operation("web"):
        pass
    assert not left
    assert world.registry.operations(server.id) == []
    world.devsup.stop(["web"])


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("amid", "problems"),
    [
        ("end", [KeyboardInterrupt(), Busy("locked", hint="devsup list")]),
        ("end", [KeyboardInterrupt() for _ in range(9)]),
        ("leave", [Busy("locked", hint="devsup list")]),
        ("enter", [Busy("locked", hint="devsup list")]),
    ],
)
def test_nothing_takes_the_place_of_a_ctrl_c(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch, amid: str, problems: list[BaseException]
) -> None:
    """Not even that the operation cannot be taken back any more."""
    assert server.pid is not None

    def fails(*_: object) -> None:
        raise problems.pop(0)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "end_operations", fails)
        if amid != "end":
            patched.setattr(InFlight, amid, interrupted)
        with pytest.raises(KeyboardInterrupt), world.devsup.operation("web"):
            pass
    world.devsup.stop(["web"])


def test_an_operation_needs_a_server_that_stays(world: World, server: Server) -> None:
    with pytest.raises(NotFound), world.devsup.operation("nope"):
        pass
    # Being stopped, by somebody who lives.
    claim = StopClaim(identity.me(), now_ms(), "stop", 5.0, sweep=False)
    assert world.registry.claim_stop(server.id, server.generation, claim) == claim
    with pytest.raises(Busy, match="being stopped"), world.devsup.operation("web"):
        pass
    assert world.registry.unclaim(server.id, server.generation, claim)
    world.devsup.stop(["web"])
    with pytest.raises(NotFound, match="does not run"), world.devsup.operation("web"):
        pass
    assert world.registry.operations(server.id) == []


def test_a_stop_waits_for_an_operation_of_another_process(
    world: World, server: Server, spawn: Spawn, patient: threading.Event
) -> None:
    """Forced: the stop has looked, and waits, before the work ends; it says nothing of it then."""
    holder = spawn(HOLDER, world.project, world.home)
    assert hear(holder) == f"inside {server.pid}\n"
    began = time.monotonic()
    stop = Stopping(world, "web")
    assert patient.wait(20)
    assert stop.results is None
    (row,) = world.registry.rows()
    assert row.stop is None, "nobody has claimed what is in use"
    say(holder)
    assert hear(holder) == "over\n"
    results = stop.end()
    assert (results.results[0].outcome, results.notes) == (Outcome.STOPPED, [])
    assert time.monotonic() - began < SOON


@pytest.mark.usefixtures("_impatient")
def test_a_stop_goes_on_when_the_time_is_over_and_says_so(world: World, server: Server, spawn: Spawn) -> None:
    holder = spawn(HOLDER, world.project, world.home)
    assert hear(holder) == f"inside {server.pid}\n"
    results = world.devsup.stop(["web"])
    assert results.results[0].outcome is Outcome.STOPPED
    (note,) = results.notes
    assert note.startswith(f"`{server.session}` was stopped amid `screenshots` of pid {holder.pid} for ")
    say(holder)  # its end is none the worse for it
    assert (hear(holder), holder.wait(10)) == ("over\n", 0)


@pytest.mark.usefixtures("_impatient")
def test_the_time_of_an_operation_counts_from_when_it_is_seen(
    world: World, server: Server, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop that a busy machine lets look late gives it no less, and says that it was stopped amid it."""
    holder = spawn(HOLDER, world.project, world.home)
    assert hear(holder) == f"inside {server.pid}\n"
    claim, looks = Registry.claim_patiently, list[float]()

    def late(registry: Registry, *args: Any, **how: Any) -> Any:
        if not looks:
            time.sleep(0.6)
        looks.append(time.monotonic())
        return claim(registry, *args, **how)

    monkeypatch.setattr(Registry, "claim_patiently", late)
    results = world.devsup.stop(["web"])
    assert results.results[0].outcome is Outcome.STOPPED
    assert time.monotonic() - looks[0] >= 0.5
    (note,) = results.notes
    assert "was stopped amid `screenshots`" in note
    say(holder)


def test_who_enters_and_who_leaves_may_be_two(world: World, server: Server) -> None:
    """An `ExitStack` that another thread closes, say: the operation is over all the same."""
    operation = world.devsup.operation("web")
    entering = threading.Thread(target=operation.__enter__)
    entering.start()
    entering.join(20)
    assert len(world.registry.operations(server.id)) == 1
    with pytest.raises(RuntimeError, match="open already"):
        operation.__enter__()
    operation.__exit__(None, None, None)
    assert world.registry.operations(server.id) == []
    with operation:
        assert len(world.registry.operations(server.id)) == 1
    world.devsup.stop(["web"])


def test_a_killed_holder_counts_no_more(
    world: World, server: Server, spawn: Spawn, patient: threading.Event
) -> None:
    """The stop hears of its death, and takes out what it has left."""
    holder = spawn(HOLDER, world.project, world.home)
    assert hear(holder) == f"inside {server.pid}\n"
    began = time.monotonic()
    stop = Stopping(world, "web")
    assert patient.wait(20)
    holder.kill()
    holder.wait(10)
    results = stop.end()
    assert (results.results[0].outcome, results.notes) == (Outcome.STOPPED, [])
    assert time.monotonic() - began < SOON
    assert world.registry.operations(server.id) == []


def test_a_stop_inside_an_operation_does_not_wait_for_it(world: World, server: Server) -> None:
    began = time.monotonic()
    with world.devsup.operation("web") as given:
        (result,) = world.devsup.stop(["web"]).results
        assert (result.outcome, given.id) == (Outcome.STOPPED, server.id)
    assert time.monotonic() - began < SOON


@pytest.mark.usefixtures("_impatient")
def test_an_operation_in_another_state_folder_is_not_one_s_own(
    world: World, server: Server, spawn: Spawn, temporary: Path, leftovers: Leftovers
) -> None:
    """Both have the number 1, each in its own registry: the stop waits for the one that is not its own."""
    (temporary / "other").mkdir()
    other = World(temporary / "other")
    leftovers.watch(other.home)
    other.devsup.start("web", command=world.command, environ=other.environment)
    holder = spawn(HOLDER, other.project, other.home)
    assert hear(holder).startswith("inside ")
    with world.devsup.operation("web"):
        (mine,), (its,) = (one.registry.operations(one.registry.rows()[0].id) for one in (world, other))
        assert mine.number == its.number
        results = other.devsup.stop(["web"])
    (note,) = results.notes
    assert f"was stopped amid `screenshots` of pid {holder.pid}" in note
    other.close()
    world.devsup.stop(["web"])
    assert server.pid is not None


def test_an_exclusive_operation_is_the_only_one(world: World, server: Server, spawn: Spawn) -> None:
    one, other = (spawn(HOLDER, world.project, world.home) for _ in range(2))
    assert [hear(one), hear(other)] == [f"inside {server.pid}\n"] * 2
    with pytest.raises(LockTimeout, match="screenshots"):
        world.devsup.operation("web", exclusive=True, timeout=0.1).__enter__()
    one.kill()
    say(other)
    alone = spawn(HOLDER, world.project, world.home, "exclusive")
    assert hear(alone) == f"inside {server.pid}\n"
    with pytest.raises(LockTimeout), world.devsup.operation("web", timeout=0.1):
        pass
    alone.kill()
    alone.wait(10)
    with world.devsup.operation("web", timeout=5):
        assert [one.by for one in world.registry.operations(server.id)] == [identity.me()]
    world.devsup.stop(["web"])


def test_readers_of_logs_hold_nobody_up(world: World, server: Server) -> None:
    pages = []
    reader = threading.Thread(target=lambda: pages.append(world.devsup.logs("web", wait=60)), daemon=True)
    reader.start()
    began = time.monotonic()
    assert world.devsup.stop(["web"]).notes == []
    assert time.monotonic() - began < SOON
    reader.join(20)
    assert [(page.ended, page.generation) for page in pages] == [(True, server.generation)]


def test_either_the_stop_waits_or_the_operation_is_refused(world: World, spawn: Spawn) -> None:
    """Natural: threads of two processes begin operations while stops come; no stop ends one unannounced."""
    code = """
import sys, time
from devsup import Supervisor, DevsupError
supervisor = Supervisor(sys.argv[1], sys.argv[2])
print("ready", flush=True)
for line in sys.stdin:
    try:
        with supervisor.operation("web", timeout=0) as server:
            time.sleep(0.02)
            rows = [row for row in supervisor.list().servers if row.id == server.id]
            print("whole" if [row.pid for row in rows] == [server.pid] else f"cut {rows}", flush=True)
    except DevsupError as error:
        print(error.code, flush=True)
"""
    workers = [spawn(code, world.project, world.home) for _ in range(2)]
    assert [hear(one) for one in workers] == ["ready\n"] * 2
    told = []
    for _ in range(6):
        world.devsup.start("web", command=world.command, environ=world.environment)
        for one in workers:
            say(one)
        stop = Stopping(world, "web")
        told += [hear(one).strip() for one in workers]
        results = stop.end()
        assert (results.results[0].outcome, results.notes) == (Outcome.STOPPED, [])
    assert set(told) <= {"whole", "busy", "not_found"}, told


# -- stop --all --------------------------------------------------------------------------------------


def many(world: World, count: int) -> list[Server]:
    return [
        world.devsup.start(f"app{number}", command=world.command, environ=world.environment).server
        for number in range(count)
    ]


def test_stop_all_leaves_what_is_restarted_and_started_after_it_began(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forced: between the look at what runs and the claims one is restarted, one stopped and started anew."""
    servers = many(world, 3)
    claim = Registry.claim_patiently
    news: list[Server] = []

    def late(registry: Registry, id: str, *args: object, **how: object) -> object:  # noqa: A002
        if not news:
            news.append(servers[0])  # only once
            world.devsup.stop(["app1"])
            news[:] = [
                world.devsup.restart("app0", timeout=30).server,
                world.devsup.start("app1", command=world.command, environ=world.environment).server,
                world.devsup.start("app9", command=world.command, environ=world.environment).server,
            ]
        return claim(registry, id, *args, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(Registry, "claim_patiently", late)
    results = world.devsup.cleanup().results
    monkeypatch.undo()
    assert [(one.target, one.outcome.value) for one in results] == [
        ("app0", "stopped_by_other"),
        ("app1", "stopped_by_other"),
        ("app2", "stopped"),
    ]
    assert sorted((one.id, one.generation) for one in world.list()) == sorted(
        (one.id, one.generation) for one in news
    )
    assert {one.outcome.value for one in world.devsup.cleanup().results} == {"stopped"}


def test_stop_all_tries_again_and_a_failure_is_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = many(world, 3)
    tries: dict[str, int] = {}
    step = stopping._Stop._step

    def faulty(self: stopping._Stop) -> None:
        if self.row.id in (servers[0].id, servers[1].id):
            tries[self.row.id] = tries.get(self.row.id, 0) + 1
            if self.row.id == servers[0].id or tries[self.row.id] == 1:
                raise RuntimeError("broken")
        step(self)

    monkeypatch.setattr(stopping._Stop, "_step", faulty)
    results = world.devsup.cleanup()
    assert [(one.outcome.value, one.error) for one in results.results] == [
        ("failed", "internal"),
        ("stopped", None),
        ("stopped", None),
    ]
    assert tries[servers[0].id] == 2, "once more, and no more"
    assert "`dev_server_app1` was tried twice" in results.notes
    monkeypatch.undo()
    world.devsup.stop(["app0"])


def test_a_lease_that_cannot_be_given_back_is_nobodys_failure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is the matter with Redis: it is over by itself, and the others are to be stopped."""
    row = make_row(project=str(world.project), starter=stranger(1))  # its caller was killed
    reserve(world.registry, row)
    many(world, 2)
    asked: list[str] = []

    def give_back(_: object, row: Row) -> None:
        asked.append(row.id)
        raise AssertionError("no reply of Redis")

    monkeypatch.setattr(leasing, "give_back", give_back)
    results = world.devsup.cleanup().results
    assert {one.target: one.error for one in results} == {"web": None, "app0": None, "app1": None}
    assert asked == [row.id]
    assert world.list() == []


def test_cleanup_while_others_start(world: World) -> None:
    """Natural: what a cleanup does not name was started after it began, and lives."""
    many(world, 2)
    racers = world.racers(4)
    for number, racer in enumerate(racers):
        racer.call("start", f"late{number}", command=world.command, timeout=30)
    results = world.devsup.cleanup().results
    ended = {(one.server.id, one.server.generation) for one in results if one.server is not None}
    assert all(one.error is None for one in results)
    answers = [racer.answer() for racer in racers]
    lived = {answer["data"]["server"]["id"] for answer in answers if answer["ok"]}
    assert all(answer["ok"] or answer["code"] == "stopped_meanwhile" for answer in answers), answers
    shown = {(one.id, one.generation) for one in world.list()}
    assert shown.isdisjoint(ended)
    # Who was told of a server has it, unless the cleanup says that it was its.
    assert lived <= {id_ for id_, _ in shown | ended}
    world.devsup.cleanup()
    assert world.list() == []
