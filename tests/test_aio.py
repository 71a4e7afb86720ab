"""The asyncio twin of the API, and the synchronous one where it must not be called."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import devsup
from devsup import Interrupted, NotFound, State, Supervisor, UsageError, aio
from devsup.models import Outcome
from tests.racing import World
from tests.serving import next_app
from tests.support import ROOT, hear, say, server_argv, wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.support import Spawn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")

IDLE = ["sleep", "1000"]
#: Less than the deadline of a start, more than what a busy machine takes.
SOON = 20.0


@pytest.fixture
def world(temporary: Path, home: Path, project: Path) -> Iterator[World]:
    assert home.is_dir()
    assert project.is_dir()
    world = World(temporary)
    yield world
    world.close()


@pytest.fixture
def twin(world: World) -> aio.Supervisor:
    return aio.Supervisor(str(world.project), str(world.home))


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "devsup"]


def public(kind: type) -> list[str]:
    """Return the methods that work with servers and therefore may block."""
    # The first two look at paths only, the third works when it is entered.
    idle = ("confine", "may_see", "operation")
    return [
        name for name in vars(kind) if name not in idle and callable(getattr(kind, name)) and name[0] != "_"
    ]


# -- the same ----------------------------------------------------------------------------------------


def test_it_answers_as_the_synchronous_one(world: World, twin: aio.Supervisor) -> None:
    async def calls() -> dict[str, Any]:
        started = await twin.start_server("web", command=IDLE)
        again = await twin.start_server("web", command=IDLE)
        listed = await twin.list_servers()
        page = await twin.get_server_logs("web", lines=5)
        stopped = await twin.stop_server("web")
        with pytest.raises(NotFound):
            await twin.get_server_logs("nope")
        return {
            "reused": [started.reused, again.reused],
            "listed": [one.id for one in listed.servers] == [started.server.id],
            "page": (page.text, page.ended, type(page)),
            "stopped": (stopped.outcome, stopped.target),
            "cleaned": (await twin.cleanup()).results,
            "parts": [part.part for part in (await twin.doctor()).parts],
            "next": (await twin.why("web")).next,
            "metrics": (await twin.metrics()).text.splitlines()[0],
        }

    def twins_calls() -> dict[str, Any]:
        plain = world.devsup
        started, again = (plain.start_server("web", command=IDLE) for _ in range(2))
        listed, page = plain.list_servers(), plain.get_server_logs("web", lines=5)
        stopped = plain.stop_server("web")
        return {
            "reused": [started.reused, again.reused],
            "listed": [one.id for one in listed.servers] == [started.server.id],
            "page": (page.text, page.ended, type(page)),
            "stopped": (stopped.outcome, stopped.target),
            "cleaned": plain.cleanup().results,
            "parts": [part.part for part in plain.doctor().parts],
            "next": plain.why("web").next,
            "metrics": plain.metrics().text.splitlines()[0],
        }

    assert asyncio.run(calls()) == twins_calls()


def test_it_takes_what_the_synchronous_one_takes() -> None:
    """A parameter that only one of the two has would be found out by its users."""
    shared = [*public(aio.Supervisor), "operation"]
    assert {"start_server", "stop_server", "list_servers", "get_server_logs", "cleanup"} < {*shared}
    # The twin's calls are ended by cancelling them, and have the environment of their process.
    own = {"rest", "on_progress", "environ", "sweep"}
    for name in shared:
        one, other = (
            inspect.signature(getattr(kind, name)).parameters for kind in (Supervisor, aio.Supervisor)
        )
        given = {key: (value.kind, value.default) for key, value in one.items() if key not in own}
        assert given.items() <= {key: (value.kind, value.default) for key, value in other.items()}.items(), (
            name
        )


def test_what_its_methods_return_has_a_public_name() -> None:
    known = {*devsup.__all__, "Iterator"}
    for kind in (Supervisor, aio.Supervisor):
        for name in public(kind):
            returned = re.findall(r"[A-Z]\w+", str(inspect.signature(getattr(kind, name)).return_annotation))
            assert set(returned) <= known, name


def test_a_hundred_tasks_get_one_server(world: World, twin: aio.Supervisor) -> None:
    async def calls() -> list[Any]:
        return await asyncio.gather(*(twin.start_server("web", command=IDLE) for _ in range(100)))

    results = asyncio.run(calls())
    assert len({one.server.pid for one in results}) == 1
    assert sorted(one.reused for one in results) == [False] + [True] * 99
    assert len(threads()) <= aio.MOST
    assert asyncio.run(twin.cleanup()).results[0].outcome is Outcome.STOPPED
    assert world.list() == []


CROWD = """
import asyncio, sys
from devsup import DevsupError
from devsup.aio import Supervisor
async def one(devsup, number):
    name = f"app{number % 3}"
    try:
        if number % 4 == 3:
            return (await devsup.stop_server(name)).outcome.value
        return (await devsup.start_server(name, command=["sleep", "1000"])).server.state.value
    except DevsupError as error:
        return error.code
async def main():
    devsup = Supervisor(sys.argv[1], sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    print(*await asyncio.gather(*(one(devsup, number) for number in range(12))), flush=True)
asyncio.run(main())
"""


def test_many_tasks_of_many_processes(world: World, twin: aio.Supervisor, spawn: Spawn) -> None:
    crowd = [spawn(CROWD, world.project, world.home) for _ in range(3)]
    assert [hear(one) for one in crowd] == ["ready\n"] * 3
    for one in crowd:
        say(one)
    told = " ".join(hear(one) for one in crowd).split()
    assert set(told) <= {
        *("running", "stopped", "stopped_by_other", "already_stopped", "not_found", "stopped_meanwhile")
    }, told
    wait_until(world.is_settled)
    assert {one.pid for one in world.list()} == {
        one.pid for one in world.processes() if one.command.startswith("sleep")
    }
    asyncio.run(twin.cleanup())
    assert world.list() == []


# -- cancelled ---------------------------------------------------------------------------------------


async def cancelled_after(work: Awaitable[Any], until: Callable[[], object]) -> None:
    """Cancel ``work`` when ``until`` is true."""
    task = asyncio.ensure_future(work)
    deadline = time.monotonic() + SOON
    while not until():
        assert time.monotonic() < deadline
        assert not task.done(), task
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_start_leaves_a_tracked_server(world: World, twin: aio.Supervisor) -> None:
    """It was starting: whoever asks next finds it. Its thread does not go on waiting for it."""
    next_app(world.project, *server_argv("silent"))
    began = time.monotonic()
    start = twin.start_server("web", port=world.port)
    asyncio.run(cancelled_after(start, lambda: [row for row in world.registry.rows() if row.leader]))
    (server,) = world.list()
    assert server.state is State.STARTING
    wait_until(lambda: not threads(), SOON)
    assert time.monotonic() - began < SOON
    assert world.servers() == {server.pid}
    assert world.devsup.stop_server("web").outcome is Outcome.STOPPED


def test_a_cancelled_reader_ends_its_thread(world: World, twin: aio.Supervisor) -> None:
    world.devsup.start("web", command=IDLE)
    reading = twin.get_server_logs("web", wait=300)
    asyncio.run(cancelled_after(reading, threads))
    wait_until(lambda: not threads(), SOON)
    world.devsup.stop_server("web")


def test_a_cancelled_call_that_queues_does_nothing(
    world: World, twin: aio.Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aio, "MOST", 1)
    gate = threading.Event()

    async def calls() -> None:
        busy = asyncio.ensure_future(aio._run(lambda _: gate.wait(SOON)))
        await asyncio.sleep(0)
        await cancelled_after(twin.start_server("web", command=IDLE), lambda: True)
        gate.set()
        assert await busy
        assert (await twin.list_servers()).servers == []

    wait_until(lambda: not threads(), SOON)
    asyncio.run(calls())
    assert world.registry.rows() == []


def test_a_cancelled_operation_leaves_nothing_at_any_await(world: World, twin: aio.Supervisor) -> None:
    """The task is cancelled at its first resumption, its second, and so on, until it comes through."""
    server = world.devsup.start("web", command=IDLE).server
    inside = 0

    async def work() -> None:
        nonlocal inside
        async with twin.operation("web"):
            inside += 1
            await asyncio.sleep(0)

    async def cancelled_at(turn: int) -> bool:
        task = asyncio.ensure_future(work())
        for _ in range(turn):
            await asyncio.sleep(0.001)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
            return True
        return False

    turn = 0
    while not asyncio.run(cancelled_at(turn)):
        wait_until(lambda: not world.registry.operations(server.id), SOON)
        turn += 1
    assert inside
    wait_until(lambda: not world.registry.operations(server.id), SOON)
    world.devsup.stop_server("web")


def test_a_stop_inside_an_operation_of_the_same_task_does_not_wait(
    world: World, twin: aio.Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devsup.supervisor.stop.PATIENCE", 2 * SOON)
    world.devsup.start("web", command=IDLE)

    async def calls() -> float:
        async with twin.operation("web"):
            began = time.monotonic()
            await twin.stop_server("web")
            return time.monotonic() - began

    assert asyncio.run(calls()) < SOON


HELD_UP = """
import asyncio, sys
from devsup.aio import Supervisor
async def main():
    devsup = Supervisor(sys.argv[1], sys.argv[2])
    stop = asyncio.ensure_future(devsup.stop_server("web", grace=30))
    await asyncio.to_thread(sys.stdin.readline)
    stop.cancel()
    try:
        await stop
    except asyncio.CancelledError:
        print("cancelled", flush=True)
asyncio.run(main())
"""


def test_no_thread_holds_up_the_end_of_the_loop_or_the_program(world: World, spawn: Spawn) -> None:
    """Its thread waits for a server that does not obey; the stop goes on without it."""
    server = world.devsup.start("web", command=server_argv("stubborn"), port=world.port).server
    child = spawn(HELD_UP, world.project, world.home)
    wait_until(lambda: world.list()[0].state is State.STOPPING, SOON)
    say(child)
    assert hear(child) == "cancelled\n"
    assert child.wait(SOON) == 0
    assert world.list()[0].state is State.STOPPING
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not world.list(), SOON)


def test_it_works_after_a_fork(twin: aio.Supervisor) -> None:
    """A child has none of its parent's threads, and must not wait for them."""
    assert asyncio.run(twin.list_servers()).servers == []
    pid = os.fork()
    if pid == 0:
        code = 1
        with suppress(BaseException):
            code = 0 if asyncio.run(asyncio.wait_for(twin.list_servers(), 10)).servers == [] else 2
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


# -- the wrong one -----------------------------------------------------------------------------------


def test_the_synchronous_one_is_refused_in_a_running_loop(world: World) -> None:
    async def calls() -> list[str]:
        plain = world.devsup
        blocking = [getattr(plain, name) for name in public(Supervisor)]
        told = []
        for call in blocking:
            with pytest.raises(UsageError, match="blocks, and an event loop runs") as caught:
                call(
                    *[
                        "web"
                        for one in inspect.signature(call).parameters.values()
                        if one.default is one.empty
                    ]
                )
            told.append(caught.value.hint or "")
        with pytest.raises(UsageError, match="blocks, and an event loop runs"):
            plain.operation("web").__enter__()
        # A thread of its own has no loop that it could hold up.
        assert (await asyncio.to_thread(plain.list)).servers == []
        return told

    told = asyncio.run(calls())
    assert (
        told[public(Supervisor).index("start")] == "`await devsup.aio.Supervisor.start_server(...)` instead"
    )
    for hint in told:
        if "asyncio.to_thread(" in hint:
            continue  # what has no twin
        assert hasattr(aio.Supervisor, hint.partition("aio.Supervisor.")[2].partition("(")[0]), hint


def test_asking_whether_a_loop_runs_loads_no_asyncio(world: World) -> None:
    code = "import sys, devsup; devsup.Supervisor().list(); sys.exit('asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=world.project)


def test_the_package_gives_the_twin() -> None:
    code = "import devsup; print(devsup.aio.Supervisor.__module__)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "devsup.aio\n"
    assert "aio" in devsup.__all__
    assert issubclass(Interrupted, devsup.DevsupError)


# -- the examples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["api_sync", "api_async"])
def test_an_example_runs_and_leaves_nothing(world: World, name: str) -> None:
    # Not `-X dev`: an event loop would tell of each step that a busy machine has made slow.
    command = [sys.executable, "-W", "default", str(ROOT / "examples" / f"{name}.py")]
    done = subprocess.run(
        command, cwd=world.project, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    expected = {
        "api_sync": "started dev_server_demo ready\nanswered 200\nlogged True\nlisted ['demo']\nstopped\n",
        "api_async": "same True other True\nanswered 200\nlisted ['one', 'two']\n"
        "stopped ['stopped', 'stopped']\n",
    }
    assert done.stdout == expected[name]
    assert world.list() == []


def test_the_example_of_the_page_runs(world: World) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)
    command = ", ".join(map(repr, server_argv("web")))
    (world.project / "devsup.toml").write_text(f"[apps.web]\ncommand = [{command}]\nport = {world.port}\n")
    call = [sys.executable, "-W", "default", "-c", example]
    done = subprocess.run(call, cwd=world.project, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"http://localhost:{world.port}\n"
    assert world.list() == []
