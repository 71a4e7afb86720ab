"""
A hundred callers, a thousand operations: no exception, no lost or invented server, nothing left.

What is compared: the answers with each other, the registry with the processes that live, and both with the
servers' own word: each writes its pid down before it serves.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from devsup import identity, system
from devsup.models import Outcome
from tests.racing import World, counted, settle, web
from tests.support import devsup_argv, free_port, is_listening, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from devsup.models import Event

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(sys.platform != "linux", reason="a hundred processes at once"),
    # On two idle cores none takes a minute; the rest is for busy ones.
    pytest.mark.timeout(600),
]

HUNDRED = 100
#: Seconds for anything here to be over.
LONG = 300.0


@pytest.fixture
def world(temporary: Path, home: Path) -> Iterator[World]:
    """Give the test's own home and project, and a server that writes its pid down before it serves."""
    assert home == temporary / "home"
    world = World(temporary)
    world.command = counted(temporary / "spawned", web())
    world.environment["DEVSUP_MAX_SERVERS"] = "200"
    yield world
    world.close()


def spawned(world: World) -> list[int]:
    """Return the pids of all servers that ever ran."""
    path = world.folder / "spawned"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def at_once(world: World, calls: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Run devsup commands at the same time, all begun before any is waited for; return their answers."""
    children = [
        world.keep(
            subprocess.Popen(
                devsup_argv(*call),
                cwd=world.project,
                env=world.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        for call in calls
    ]
    answers = []
    for child in children:
        out, err = child.communicate(timeout=LONG)
        assert err == "", err
        answers.append(json.loads(out))
    return answers


def nothing_is_left(world: World, ports: Sequence[int]) -> None:
    """Fail unless nothing lives, listens, is leased, recorded or waiting to be run."""
    wait_until(lambda: not world.processes(), 10)
    assert [port for port in ports if is_listening(port)] == []
    assert world.registry.rows() == []
    assert world.registry.leases(system.net_namespace()) == {}
    assert os.listdir(world.home / "servers") == []
    assert world.list() == []


def is_real(world: World) -> None:
    """Fail unless the registry's living leaders are exactly the servers that live."""
    assert settle(world, 30)
    led = {row.leader.pid for row in world.registry.rows() if not identity.is_gone(row.leader) and row.leader}
    assert led == world.servers()
    assert {server.pid for server in world.list() if server.state.value == "ready"} == led


def tell(what: str, began: float, **figures: object) -> None:
    """Print a line of figures (`pytest -s`)."""
    more = ", ".join(f"{name} {figure}" for name, figure in figures.items())
    print(f"\n{what}: {time.monotonic() - began:.2f} s, {more}")


@contextmanager
def looking(world: World) -> Iterator[list[object]]:
    """List all the time in another thread; give everything that was shown as crashed."""
    wrong: list[object] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            wrong.extend(server for server in world.list() if server.state.value in ("crashed", "lost"))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield wrong
    finally:
        over.set()
        looker.join(LONG)


def bare(count: int) -> tuple[float, float]:
    """Return the seconds, and those of a processor, that so many bare interpreters take at once."""
    began, spent = time.monotonic(), processor()
    children = [subprocess.Popen([sys.executable, "-I", "-c", "pass"]) for _ in range(count)]
    for child in children:
        child.wait(LONG)
    return time.monotonic() - began, processor() - spent


def processor() -> float:
    """Return the seconds that this process's children have had of a processor."""
    times = os.times()
    return times.children_user + times.children_system


# -- a hundred -------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_a_hundred_starts_of_one_app(world: World, warm: bool) -> None:
    """Cold: there is no registry yet, and everybody wants to make it. Warm: the server runs."""
    reference, reference_spent = bare(HUNDRED)
    if warm:
        world.start()
    began, spent = time.monotonic(), processor()
    answers = at_once(world, [world.arguments("start", "--timeout", 200)] * HUNDRED)
    took, spent = time.monotonic() - began, processor() - spent
    assert [answer["error"] for answer in answers if not answer["ok"]] == []
    data = [answer["data"] for answer in answers]
    pids = {one["server"]["pid"] for one in data}
    tell(
        f"{HUNDRED} x start web, {'warm' if warm else 'cold'}", began, spawns=len(spawned(world)),
        distinct_pids=len(pids), new=sum(not one["reused"] for one in data),
        bare_interpreters=f"{reference:.2f} s", ratio=f"{took / reference:.1f}",
        processor_ratio=f"{spent / reference_spent:.1f}",
    )  # fmt: skip
    assert spawned(world) == [*pids]
    assert {one["server"]["url"] for one in data} == {f"http://localhost:{world.port}"}
    assert sum(not one["reused"] for one in data) == (not warm)
    assert world.servers() == pids
    wait_until(lambda: len(world.guards()) == 1)
    assert world.devsup.stop(["web"]).results[0].outcome is Outcome.STOPPED
    nothing_is_left(world, [world.port])


def test_a_hundred_apps_start_and_stop(world: World) -> None:
    """A hundred distinct apps at once, then a hundred stops of them at once."""
    ports = [free_port() for _ in range(HUNDRED)]
    began = time.monotonic()
    answers = at_once(
        world,
        [
            ["start", f"app-{index}", "--json", "--timeout", "200", "--port", str(port), "--", *world.command]
            for index, port in enumerate(ports)
        ],
    )
    assert [answer["error"] for answer in answers if not answer["ok"]] == []
    pids = {answer["data"]["server"]["pid"] for answer in answers}
    tell(f"{HUNDRED} x start of distinct apps", began, spawns=len(spawned(world)), distinct_pids=len(pids))
    assert {answer["data"]["server"]["port"] for answer in answers} == {*ports}
    assert len(pids) == HUNDRED
    assert {*spawned(world)} == pids == world.servers()
    is_real(world)
    began = time.monotonic()
    with looking(world) as wrong:
        answers = at_once(world, [["stop", f"app-{index}", "--json"] for index in range(HUNDRED)])
    assert wrong == []
    results = [result for answer in answers for result in answer["data"]["results"]]
    outcomes = Counter(result["outcome"] for result in results)
    tell(f"{HUNDRED} x stop of distinct apps", began, **outcomes)
    assert outcomes == {"stopped": HUNDRED}
    nothing_is_left(world, ports)


def test_a_hundred_stops_of_one_app(world: World) -> None:
    """Exactly one does it; the others tell the same end."""
    server = world.start().server
    began = time.monotonic()
    answers = at_once(world, [["stop", "web", "--json"]] * HUNDRED)
    assert [answer["error"] for answer in answers if not answer["ok"]] == []
    results = [answer["data"]["results"][0] for answer in answers]
    outcomes = Counter(result["outcome"] for result in results)
    tell(f"{HUNDRED} x stop web", began, **outcomes)
    assert outcomes["stopped"] == 1
    assert outcomes.keys() <= {"stopped", "stopped_by_other", "already_stopped"}
    assert {result["server"]["pid"] for result in results} == {server.pid}
    assert len(spawned(world)) == 1
    nothing_is_left(world, [world.port])


# -- a thousand ------------------------------------------------------------------------------------

WORKERS = 16
OPERATIONS = 1000
APPS = 10

WORKER = """
import json, random, subprocess, sys, time, traceback
from devsup import Supervisor
from devsup.errors import DevsupError

project, home, count, seed, ports, command = json.loads(sys.argv[1])
chance = random.Random(seed)
supervisor = Supervisor(project, home)

def on_the_command_line(app, index):
    verb = chance.choice(["start", "stop", "list", "status"])
    words = [sys.executable, "-m", "devsup", verb, *([app] if verb != "list" else []), "--json"]
    if verb == "start":
        words += ["--port", str(ports[index]), "--", *command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200)
    answer = json.loads(done.stdout)
    assert done.stderr == "", done.stderr
    return f"command {verb}", "ok" if answer["ok"] else answer["error"]["code"]

def listed():
    for server in supervisor.list().servers:
        # Between two looks at one server there may be a restart, but never half a record.
        assert server.state.value not in ("crashed", "lost"), server
        assert server.state.value != "ready" or None not in (server.pid, server.port, server.url), server

print("ready", flush=True)
sys.stdin.readline()
for _ in range(count):
    time.sleep(chance.uniform(0, 0.03))
    index = chance.randrange(len(ports))
    app = f"app-{index}"
    verb = chance.choices(
        ["start", "stop", "list", "status", "logs", "restart", "command", "operation", "cleanup"],
        [32, 22, 12, 9, 6, 8, 4, 6, 1],
    )[0]
    began, said = time.monotonic(), "ok"
    try:
        if verb == "start":
            supervisor.start(app, command=command, port=ports[index], timeout=120)
        elif verb == "stop":
            (result,) = supervisor.stop([app]).results
            said = result.outcome.value
            assert result.error in (None, "not_found"), result
        elif verb == "list":
            listed()
        elif verb == "operation":
            with supervisor.operation(app, timeout=60) as server:
                time.sleep(chance.uniform(0, 0.05))
                assert server.id
        elif verb == "cleanup":
            results = supervisor.cleanup().results
            assert not [one for one in results if one.error is not None], results
        elif verb == "restart":
            supervisor.restart(app, timeout=120)
        elif verb == "command":
            verb, said = on_the_command_line(app, index)
        else:
            getattr(supervisor, verb)(app)
    except DevsupError as error:
        said = error.code
        if said in ("internal", "registry_unusable", "lock_timeout"):
            said += ": " + repr((error.message, error.details))
    except BaseException:
        said = traceback.format_exc()
    print(json.dumps([verb, said, time.monotonic() - began]), flush=True)
"""

#: What each operation may say beside "ok" while others come and go.
EXPECTED = {
    "start": {"stopped_meanwhile"},
    "stop": {"stopped", "already_stopped", "stopped_by_other", "not_found"},
    "list": set[str](),
    "status": {"not_found"},
    "logs": {"not_found"},
    "restart": {"not_found", "stopped_meanwhile", "busy"},
    "operation": {"not_found", "busy"},
    "cleanup": set[str](),
    "command start": {"stopped_meanwhile"},
    "command stop": {"not_found"},
    "command list": set[str](),
    "command status": {"not_found"},
}


def workers(world: World, ports: list[int], seed: int, each: int) -> list[subprocess.Popen[str]]:
    """Return processes that are ready to do ``each`` operations."""
    children = []
    for number in range(WORKERS):
        call = [str(world.project), str(world.home), each, f"{seed}-{number}", ports, world.command]
        children.append(
            world.keep(
                subprocess.Popen(
                    [sys.executable, "-c", WORKER, json.dumps(call)],
                    cwd=world.project,
                    env=world.environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        )
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    return children


def ends(world: World) -> None:
    """Fail unless each server that was started has ended exactly once, by an end or by a restart."""
    events = world.registry.events(limit=100_000)
    ended = Counter(
        (event.server, event.generation)
        for event in events
        if event.type in ("stopped", "crashed", "exited", "lost")
    )
    assert [one for one, times in ended.items() if times > 1] == []
    started = [event for event in events if event.type == "started"]
    assert len({(event.server, event.generation) for event in started}) == len(started)
    replaced = _replaced(events)
    unended = [event for event in started if (event.server, event.generation) not in {*ended, *replaced}]
    assert unended == []
    told = Counter(event.pid for event in started if event.pid is not None)
    assert not Counter(spawned(world)) - told, "a server ran that no event tells of"


def _replaced(events: list[Event]) -> set[tuple[str | None, int | None]]:
    """Return the generations that a restart has ended."""
    latest: dict[str | None, int | None] = {}
    replaced = set()
    for event in events:
        if event.type == "started":
            latest[event.server] = event.generation
        elif event.type == "restarted" and event.server in latest:
            replaced.add((event.server, latest[event.server]))
    return replaced


def test_a_thousand_operations(world: World) -> None:
    """Sixteen processes, ten apps, everything at random: the registry equals reality at the end."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"\nseed {seed}")
    ports = [free_port() for _ in range(APPS)]
    children = workers(world, ports, seed, OPERATIONS // WORKERS + 1)
    began = time.monotonic()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said: Counter[tuple[str, str]] = Counter()
    slowest: dict[str, float] = {}
    for child in children:
        out, _ = child.communicate(timeout=LONG)
        assert child.returncode == 0, out
        for line in out.splitlines():
            verb, answer, took = json.loads(line)
            said[verb, answer] += 1
            slowest[verb] = max(slowest.get(verb, 0.0), took)
    tell(f"{said.total()} operations", began, spawns=len(spawned(world)))
    for (verb, answer), times in sorted(said.items()):
        print(f"  {verb:<15} {answer:<20} {times}")
    print("  slowest:", {verb: round(seconds, 2) for verb, seconds in sorted(slowest.items())})
    wrong = [(verb, answer) for verb, answer in said if answer != "ok" and answer not in EXPECTED[verb]]
    assert wrong == []
    assert said.total() >= OPERATIONS
    is_real(world)
    # An operation leaves nothing behind, however it met stops and restarts.
    assert not [one for row in world.registry.rows() for one in world.registry.operations(row.id)]
    results = world.devsup.stop(everything=True).results
    assert [result for result in results if result.error is not None] == []
    nothing_is_left(world, ports)
    ends(world)


def test_operations_amid_kills(world: World) -> None:
    """The same while callers and guards are killed at random: one round of starts and stops puts it right."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"\nseed {seed}")
    chance = random.Random(seed)
    ports = [free_port() for _ in range(APPS)]
    children = workers(world, ports, seed, 1000)
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    deadline, kills = time.monotonic() + 15, Counter[str]()
    while time.monotonic() < deadline and any(child.poll() is None for child in children):
        time.sleep(chance.uniform(0, 0.3))
        guards = sorted(world.guards())
        if guards and chance.random() < 0.7:
            _kill(chance.choice(guards))
            kills["guards"] += 1
        else:
            chance.choice(children).kill()
            kills["callers"] += 1
    for child in children:
        child.kill()
        child.communicate(timeout=LONG)
    tell("kills amid operations", deadline - 15, **kills, spawns=len(spawned(world)))
    settle(world, 10)
    servers = world.list()
    shown = {server.pid for server in servers if server.state.value not in ("crashed", "lost")}
    assert world.servers() <= shown, servers
    for index, port in enumerate(ports):
        began = time.monotonic()
        server = world.start(f"app-{index}", port=port, timeout=60).server
        assert server.pid in world.servers(), server
        assert time.monotonic() - began < 30
    is_real(world)
    assert len(world.servers()) == APPS
    wait_until(lambda: len(world.guards()) == APPS)
    results = world.devsup.stop(everything=True).results
    assert [result for result in results if result.error is not None] == []
    # A file of a killed start goes with the next one.
    world.start("last", port=world.port)
    world.devsup.stop(["last"])
    nothing_is_left(world, ports)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended since it was looked for
