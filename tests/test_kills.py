"""
Kill -9 of a command, of a guard and of both, at their steps: the next command finds the truth.

A part of `tests/kill_matrix.py`, which can run all of it. Every step that changes something is taken once;
what follows the kill, another start or only looks, takes turns. `pytest -s` prints the matrix.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from functools import cache
from typing import TYPE_CHECKING

import pytest

from devsup.models import Outcome
from tests.kill_matrix import SCENES, pairs, run, run_all, sample, steps_of, table
from tests.racing import World

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.kill_matrix import Cell, Scene, Step

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="finds the steps of a guard in /proc"),
    # Some thirty kills, each with a handful of commands after it, on two busy cores.
    pytest.mark.timeout(240),
]

#: Scene -> into how many tests its steps are divided, so that none takes long.
PARTS = {**dict.fromkeys(SCENES, 1), "start": 4, "restart": 3, "start without a guard": 2}
#: Scene -> scenes whose steps are not taken in it again.
LIKE = {
    "failure": ("crash", "start"),
    "start without a guard": ("start",),
    "restart without a guard": ("restart", "start", "stop without a guard"),
    "start after a dead start": ("start",),
    "stop after a dead start": ("stop",),
    "start after a dead stop": ("start",),
}
#: Kills of both, per scene that has a command and a guard.
BOTH = 8
#: Seconds for random cells of the whole matrix in the stress test.
BUDGET = 60.0

_steps = cache(steps_of)


@pytest.fixture
def world(temporary: Path, home: Path) -> Iterator[World]:
    """Give the test's own home and project; what it leaves alive fails the test."""
    assert home == temporary / "home"
    world = World(temporary)
    yield world
    world.close()


def check(cells: Iterable[Cell]) -> None:
    """Print the matrix of ``cells`` and fail with those after which something was not as it must be."""
    done = list(cells)
    print(table(done))
    assert not [str(cell) for cell in done if cell.problems]


def test_the_steps_are_those_that_count() -> None:
    """A matrix that has lost sight of the hand-overs would be green for ever."""
    expected = [
        ("command", "insert: execute"),
        ("command", "write: rename"),
        ("command", "spawn: posix_spawn"),
        ("guard", "detach: setsid"),
        ("guard", "claim: execute"),
        ("guard", "fork: fork"),
        ("guard", "record_child: execute"),
        ("guard", "Gated.release: write"),
        ("child", "_become_the_server: execve"),
        ("guard", "update: execute"),
    ]
    steps = [(one.role, one.name.rpartition("> ")[2]) for one in _steps(SCENES["start"])]
    firsts = [steps.index(step) for step in expected]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize(
    ("scene", "part"),
    [(scene, part) for scene, parts in PARTS.items() for part in range(parts)],
)
def test_the_next_command_finds_the_truth_after_a_kill(scene: str, part: int) -> None:
    """No server is lost, none runs twice, nothing is left after a stop: whoever is killed, wherever."""
    chosen = sample(_steps(SCENES[scene]))
    known = {(one.role, one.name) for like in LIKE.get(scene, ()) for one in _steps(SCENES[like])}
    chosen = [step for step in chosen if (step.role, step.name) not in known]
    cells = [
        run(SCENES[scene], [step], start_again=(index // PARTS[scene] + part) % 2 == 0)
        for index, step in enumerate(chosen)
        if index % PARTS[scene] == part
    ]
    check(cells)
    missed = sum(not cell.reached for cell in cells)
    assert missed <= len(cells) // 4, "the steps of one run are not those of another"


@pytest.mark.parametrize("scene", ["start", "stop", "restart", "start without a guard"])
def test_the_next_command_finds_the_truth_after_both_were_killed(scene: str) -> None:
    """A command and its guard die together, at steps of their own: a sandbox that is closed, say."""
    both = pairs(_steps(SCENES[scene]))
    chosen = both[:: max(1, len(both) // BOTH)][:BOTH]
    check(run(SCENES[scene], steps, start_again=index % 2 == 0) for index, steps in enumerate(chosen))


@pytest.mark.parametrize("step", ["record_child: execute", "Gated.release: write"])
def test_a_start_gives_up_on_guards_that_all_die(world: World, step: str) -> None:
    """Something kills every guard at its first steps: the call ends, says so, and leaves nothing behind."""
    every_time = {"role": "guard", "step": step, "nth": 1, "do": "SIGKILL"}
    began = time.monotonic()
    assert world.begin("start", plan=[every_time]).end().error == "internal"
    assert time.monotonic() - began < 25  # its own deadline is 30
    assert world.servers() == set()
    assert not world.start().reused
    assert world.devsup.stop(["web"]).results[0].outcome is Outcome.STOPPED


def test_a_start_gives_up_on_guards_that_cannot_take_over(world: World) -> None:
    """The same for a server that has lost its guard: it lives on, and the next call may have more luck."""
    server = world.start().server
    assert server.guard_pid is not None
    os.kill(server.guard_pid, signal.SIGKILL)
    every_time = {"role": "guard", "step": "claim: execute", "nth": 1, "do": "SIGKILL"}
    began = time.monotonic()
    assert world.begin("start", plan=[every_time]).end().error == "internal"
    assert time.monotonic() - began < 25  # its own deadline is 30
    assert world.servers() == {server.pid}
    again = world.start()
    assert (again.reused, again.server.pid) == (True, server.pid)
    assert world.devsup.stop(["web"]).results[0].outcome is Outcome.STOPPED


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_random_kills_of_the_whole_matrix() -> None:
    """Also those steps at which nothing can be wrong: what they are called is an opinion of this test kit."""
    cells: list[tuple[Scene, tuple[Step, ...], bool]] = []
    for scene in SCENES.values():
        steps = _steps(scene)
        singles: list[tuple[Step, ...]] = [(step,) for step in steps]
        doubles = pairs(steps) if "guard" in scene.roles and "command" in scene.roles else []
        cells += [(scene, kill, again) for kill in [*singles, *doubles] for again in (True, False)]
    random.shuffle(cells)
    done: list[Cell] = []
    deadline = time.monotonic() + BUDGET
    while cells and time.monotonic() < deadline:
        some, cells = cells[:16], cells[16:]
        done += run_all(some, side_by_side=4)
    check(sorted(done, key=lambda cell: cell.scene))
