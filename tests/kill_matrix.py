"""
Kill a devsup command, a guard or both at every one of their steps, and look at what the next command finds.

``python -m tests.kill_matrix`` runs all of it and prints a table; `tests/test_kills.py` runs a part of it
with every change and more as a stress test. A cell of the matrix is one kill in a home and project of its
own:

1. The scene is set (nothing runs, a server runs, one whose guard is dead runs, ...) and the act begins.
2. The process is killed by SIGKILL right before a step; see `tests/steps.py` for what a step is.
3. `list` must answer, and what it says lives must live.
4. Then either a `start` with the same arguments must come to exactly one ready server, or nobody starts
   anything and `list` must show exactly what lives.
5. `stop` must leave nothing: no process, no listener, no row, no lease. A file that says what a guard was to
   run may stay until the next start.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from devsup import system
from devsup.errors import DevsupError
from devsup.models import ENDED_STATES, Outcome, State
from tests.racing import PATIENCE, Caller, World, settle
from tests.support import is_listening, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["SCENES", "Cell", "Scene", "Step", "pairs", "run", "sample", "steps_of", "table"]

#: Seconds in which the next start must be through: it never has to wait for a deadline that somebody left.
PROMPT = 10.0


class Step(NamedTuple):
    """The ``nth`` time that a process in ``role`` comes to the step ``name``."""

    role: str
    name: str
    nth: int

    def __str__(self) -> str:
        return f"{self.role}: {self.name}" + (f" ({self.nth})" if self.nth > 1 else "")


class _World(World):
    """A world whose processes are killed."""

    _ports: list[int] = []  # noqa: RUF012 - shared: a port that was proven free again is given to the next

    def __init__(self) -> None:
        try:
            port: int | None = self._ports.pop()
        except IndexError:
            port = None
        super().__init__(Path(os.path.realpath(tempfile.mkdtemp(prefix="dk-"))), port)
        self.arm = self.folder / "arm"

    def kills(self, steps: Sequence[Step]) -> list[dict[str, Any]]:
        """Return the plan that kills at ``steps``."""
        return [
            {"role": one.role, "step": one.name, "nth": one.nth, "do": "SIGKILL"}
            | {"path": str(self.folder / f"killed-{one.role}")}
            for one in steps
        ]

    def killed(self) -> int:
        """Return how many were killed until now."""
        return len(list(self.folder.glob("killed-*")))


# -- scenes ----------------------------------------------------------------------------------------


class Scene(NamedTuple):
    """An act that is disturbed. ``prepare`` gets the plan of a guard that already runs, ``act`` all of it."""

    name: str
    #: Who can be killed in it.
    roles: tuple[str, ...]
    prepare: Callable[[_World, list[dict[str, Any]]], None]
    act: Callable[[_World, list[dict[str, Any]]], Caller]


def _nothing(world: _World, plan: list[dict[str, Any]]) -> None:
    del world, plan


def _served(world: _World, plan: list[dict[str, Any]]) -> None:
    """Have the server run; its guard obeys ``plan`` from the moment that the act begins."""
    guards = [{**one, "arm": str(world.arm)} for one in plan if one["role"] != "command"]
    assert world.drive("start", guards).code == 0


def _kept_up(world: _World, plan: list[dict[str, Any]]) -> None:
    """The same with a server that is run again when it fails."""
    guards = [{**one, "arm": str(world.arm)} for one in plan if one["role"] != "command"]
    assert world.begin("start", "--restart", "on-failure", plan=guards).end().code == 0


def _orphaned(world: _World, plan: list[dict[str, Any]]) -> None:
    """Have the server run with its guard dead."""
    del plan
    guard = world.start().server.guard_pid
    assert guard is not None
    os.kill(guard, signal.SIGKILL)
    wait_until(lambda: not world.guards(), PATIENCE)


def _driven(verb: str) -> Callable[[_World, list[dict[str, Any]]], Caller]:
    def act(world: _World, plan: list[dict[str, Any]]) -> Caller:
        world.arm.touch()
        return world.drive(verb, plan)

    return act


def _crash(world: _World, plan: list[dict[str, Any]]) -> Caller:
    """Kill the server itself: its guard has to sweep up and say so."""
    del plan
    (pid,) = world.servers()
    world.arm.touch()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not world.guards(), PATIENCE)
    return Caller(0, "", "")


def _failure(world: _World, plan: list[dict[str, Any]]) -> Caller:
    """Kill the server itself: its guard has to sweep up, to wait a moment and to run it again."""
    del plan
    (row,) = world.registry.rows()
    (pid,) = world.servers()
    world.arm.touch()
    os.kill(pid, signal.SIGKILL)

    def is_over() -> bool:
        now = world.registry.row(row.id)
        again = now is not None and now.generation > row.generation and now.state is State.READY
        return again or not world.guards()

    wait_until(is_over, PATIENCE)
    return Caller(0, "", "")


def _stop_behind_dead_stop(world: _World, plan: list[dict[str, Any]]) -> None:
    """Have a server whose stop was claimed by a command that was killed before it asked the guard."""
    del plan
    world.start()
    step = Step("command", "_Stop._ask_guard > send_signal: pidfd_send_signal", 1)
    assert world.drive("stop", world.kills([step])).code == -signal.SIGKILL


def _reserved(world: _World, plan: list[dict[str, Any]]) -> None:
    """Have the reservation of a command that was killed before it started a guard."""
    del plan
    step = Step("command", "spawn: posix_spawn", 1)
    assert world.drive("start", world.kills([step])).code == -signal.SIGKILL


SCENES = {
    scene.name: scene
    for scene in (
        Scene("start", ("command", "guard", "child"), _nothing, _driven("start")),
        Scene("stop", ("command", "guard"), _served, _driven("stop")),
        Scene("restart", ("command", "guard", "child"), _served, _driven("restart")),
        Scene("crash", ("guard",), _served, _crash),
        Scene("failure", ("guard", "child"), _kept_up, _failure),
        Scene("start without a guard", ("command", "guard"), _orphaned, _driven("start")),
        Scene("stop without a guard", ("command",), _orphaned, _driven("stop")),
        Scene("restart without a guard", ("command",), _orphaned, _driven("restart")),
        Scene("start after a dead start", ("command",), _reserved, _driven("start")),
        Scene("stop after a dead start", ("command",), _reserved, _driven("stop")),
        Scene("stop after a dead stop", ("command",), _stop_behind_dead_stop, _driven("stop")),
        Scene("start after a dead stop", ("command",), _stop_behind_dead_stop, _driven("start")),
    )
}


def steps_of(scene: Scene) -> list[Step]:
    """Return all steps of an undisturbed run, in their order."""
    with _World() as world:
        trace = world.folder / "trace"
        plan = [{"role": role, "do": "trace", "path": str(trace)} for role in scene.roles]
        scene.prepare(world, [one for one in plan if one["role"] != "command"])
        trace.unlink(missing_ok=True)
        scene.act(world, plan)
        found = [line.split("\t") for line in trace.read_text().splitlines()]
        world.devsup.stop(["web"])
    return [Step(role, name, int(nth)) for role, name, nth in found]


#: Steps of looks and of waiting: what is true outside is the same before and after each of them, so a sample
#: takes none of them, and their number changes from run to run.
_LOOKS = (
    "FileLock._open: open", "FileLock._take: flock", "FileLock.close: close", "_connect: connect",
    "_connect: execute", "_verify: execute", "Database.close: close", "rows: execute", "read: execute",
    "ended: execute", "Hearing.wait: poll", "Hearing.wait: read", "Charge.see_leader: waitid", "say: write",
    "_turn: poll", "_wait_for_exit: poll", ": select", "_run: poll", "leases: execute", "_fill: close",
    "_close_handle: close", "_forget_handle: close", "pthread_sigmask", "Changes", "_rows: execute",
)  # fmt: skip


def sample(steps: Sequence[Step]) -> list[Step]:
    """Return each step that changes something, where it comes for the first time."""
    return [one for one in steps if one.nth == 1 and not one.name.endswith(_LOOKS)]


def pairs(steps: Sequence[Step]) -> list[tuple[Step, ...]]:
    """Return every step of a command from its guard's first one on, with every step of the guard."""
    first = next(index for index, one in enumerate(steps) if one.role != "command")
    # The guard is under way a little before it says so.
    commands = [one for one in steps[max(0, first - 3) :] if one.role == "command"]
    guards = [one for one in sample(steps) if one.role != "command"]
    return [(one, other) for one in commands for other in guards]


# -- one cell --------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """One kill (or two) and all that was seen after it."""

    scene: str
    steps: tuple[Step, ...]
    reached: bool
    caller: str
    left: str
    listed: str
    then: str
    ms: int
    problems: tuple[str, ...]

    def __str__(self) -> str:
        where = " + ".join(map(str, self.steps))
        said = f"caller {self.caller}, left {self.left}, listed {self.listed}, then {self.then}, {self.ms} ms"
        return f"[{self.scene}] {where}: {said}" + "".join(f"\n    {problem}" for problem in self.problems)


def run(scene: Scene, steps: Sequence[Step], *, start_again: bool) -> Cell:
    """Kill at ``steps`` of ``scene``, then start again or only look; and stop in any case."""
    with _World() as world:
        plan = world.kills(steps)
        scene.prepare(world, [one for one in plan if one["role"] != "command"])
        caller = scene.act(world, plan)
        if world.killed() < len(steps):
            _wait_a_moment(lambda: world.killed() == len(steps), 0.3)
        look = _Look(world)
        look.list_at_once()
        (look.start_again if start_again else look.settle)()
        look.stop()
        reached = world.killed() == len(steps)
        return Cell(
            scene.name, tuple(steps), reached, str(caller), look.left, look.listed, look.then, look.ms,
            tuple(look.problems),
        )  # fmt: skip


class _Look:
    """The commands that come after a kill, and everything about them that is not as it must be."""

    def __init__(self, world: _World) -> None:
        self.world = world
        self.problems: list[str] = []
        self.listed = self.then = ""
        self.ms = 0
        servers, guards = len(world.servers()), len(world.guards())
        self.left = {(0, 0): "nothing", (1, 1): "server and guard", (1, 0): "server alone"}.get(
            (servers, guards), "guard alone" if not servers else f"{servers} servers, {guards} guards"
        )

    def must(self, true: object, what: str) -> None:
        if not true:
            self.problems.append(what)

    def list_at_once(self) -> None:
        world = self.world
        shown = world.list()
        self.listed = ", ".join(server.state.value for server in shown) or "nothing"
        self.must(len(shown) <= 1, f"list shows {len(shown)} servers: {shown}")
        for server in shown:
            lives = server.pid in world.servers()
            if server.state in (State.READY, State.RUNNING, State.UNHEALTHY) and not lives:
                again = [one for one in world.list() if one == server]
                self.must(not again, f"list shows {server.state.value}, but pid {server.pid} does not live")

    def start_again(self, *, joined: bool = False) -> None:
        world, began, killed = self.world, time.monotonic(), self.world.killed()
        try:
            result = world.start()
        except DevsupError as error:
            # The kill of the child came only now, or its guard has not said so yet: whoever joins that start
            # is told truly how it came out, and the one after him has another.
            late = world.killed() > killed or (self.listed == State.STARTING.value and not joined)
            if error.code == "exited_early" and error.details["signal"] and late:
                self.start_again(joined=True)
                return
            self.then = f"start: {error.code}"
            self.problems.append(f"the next start failed: {error.code}: {error}, {error.details}")
            return
        self.ms = round((time.monotonic() - began) * 1e3)
        self.then = "found" if result.reused else "new"
        server = result.server
        self.must(server.state is State.READY, f"the next start answers with {server.state.value}")
        self.must(self.ms < PROMPT * 1e3, f"the next start took {self.ms} ms")
        alive = world.servers()
        self.must(alive == {server.pid}, f"pids {alive} serve, the next start says {server.pid}")
        self.must(is_listening(world.port), f"nobody listens on {world.port}")
        shown = world.list()
        self.must([one.pid for one in shown] == [server.pid], f"after the next start list shows {shown}")
        one_guard = _wait_a_moment(lambda: len(world.guards()) == 1, PROMPT)
        self.must(one_guard, f"{len(world.guards())} guards live beside one server")
        if one_guard and shown:
            (guard,) = world.guards()
            self.must(guard == shown[0].guard_pid, f"the guard is {guard}, list says {shown[0].guard_pid}")

    def settle(self) -> None:
        world = self.world
        settle(world, 5.0)  # what a killed caller has claimed may stay as it is for ever
        shown = world.list()
        living = {one.pid for one in shown if one.state not in ENDED_STATES and one.pid is not None}
        alive = world.servers()
        self.then = ", ".join(server.state.value for server in shown) or "nothing"
        self.must(living == alive, f"list shows {living} ({self.then}), alive are {alive}")

    def stop(self) -> None:
        world, registry = self.world, self.world.registry
        (result,) = world.devsup.stop(["web"]).results
        self.must(result.outcome is not Outcome.FAILED, f"stop: {result.outcome.value} {result.message}")
        gone = _wait_a_moment(lambda: not world.processes(), PROMPT)
        self.must(gone, f"alive after stop: {world.processes()}")
        self.must(not is_listening(world.port), f"somebody listens on {world.port} after stop")
        self.must(not registry.rows(), f"rows after stop: {registry.rows()}")
        leases = registry.leases(system.net_namespace())
        self.must(not leases, f"leases after stop: {leases}")
        if self._jobs():
            # Nobody looks for a job without a row but the next start.
            world.start()
            world.devsup.stop(["web"])
            gone = _wait_a_moment(lambda: not world.processes(), PROMPT)
        self.must(not self._jobs(), f"jobs after stop: {self._jobs()}")
        shown = world.list()
        self.must(not shown, f"list after stop: {shown}")
        if gone and not is_listening(world.port):
            _World._ports.append(world.port)

    def _jobs(self) -> list[str]:
        folder = self.world.home / "servers"
        return os.listdir(folder) if folder.is_dir() else []


def _wait_a_moment(condition: Callable[[], bool], timeout: float) -> bool:
    try:
        return wait_until(condition, timeout, pause=0.005)
    except AssertionError:
        return False


# -- all of it -------------------------------------------------------------------------------------


def run_all(
    cells: Sequence[tuple[Scene, tuple[Step, ...], bool]], *, side_by_side: int = 1
) -> Iterator[Cell]:
    """Run ``cells``, some of them at the same time, and give each as it is ready."""
    with ThreadPoolExecutor(side_by_side) as pool:
        yield from pool.map(lambda one: run(one[0], one[1], start_again=one[2]), cells)


def table(cells: Sequence[Cell]) -> str:
    """Return the matrix as text: a line for each step, and how often each outcome was seen."""
    lines = []
    for scene in dict.fromkeys(cell.scene for cell in cells):
        lines += [
            "",
            f"== {scene}",
            f"{'killed right before':<72} {'caller':<24} {'left':<17} {'list':<11} then",
        ]
        own = [cell for cell in cells if cell.scene == scene]
        for cell in own:
            where = " + ".join(map(str, cell.steps))
            then = f"{cell.then} ({cell.ms} ms)" if cell.ms else cell.then
            mark = "" if not cell.problems else "  PROBLEM"
            reached = "" if cell.reached else "  (not reached)"
            lines.append(
                f"{where:<72} {cell.caller:<24} {cell.left:<17} {cell.listed:<11} {then}{reached}{mark}"
            )
            lines += [f"    ! {problem}" for problem in cell.problems]
        counted = Counter((cell.left, cell.then) for cell in own)
        lines += [f"   {count:4} x left {left}, then {then}" for (left, then), count in counted.most_common()]
    bad = sum(bool(cell.problems) for cell in cells)
    lines += ["", f"{len(cells)} kills, {len(cells) - bad} as they must be, {bad} not"]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the matrix and print it."""
    parser = argparse.ArgumentParser(description="kill devsup at every step")
    parser.add_argument("scenes", nargs="*", default=[], help=f"of {', '.join(SCENES)}; default: all")
    parser.add_argument("--sample", action="store_true", help="each changing step once")
    parser.add_argument("--both", action="store_true", help="command and guard together")
    parser.add_argument("--only", default="", help="only steps whose name contains this")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1))
    options = parser.parse_args(argv)
    cells: list[tuple[Scene, tuple[Step, ...], bool]] = []
    for scene in (SCENES[name] for name in options.scenes or SCENES):
        steps = steps_of(scene)
        chosen: list[tuple[Step, ...]] = (
            list(pairs(steps))
            if options.both
            else [(one,) for one in (sample(steps) if options.sample else steps)]
        )
        chosen = [kill for kill in chosen if options.only in " + ".join(map(str, kill))]
        cells += [(scene, kill, again) for kill in chosen for again in (True, False)]
    seen = []
    for cell in run_all(cells, side_by_side=options.jobs):
        seen.append(cell)
        if sys.stderr.isatty() or cell.problems:
            print(f"{len(seen)}/{len(cells)} {cell}", file=sys.stderr, flush=True)
    print(table(seen))
    return int(any(cell.problems for cell in seen))


if __name__ == "__main__":
    sys.exit(main())
