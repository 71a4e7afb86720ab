"""
Histories of pools under faults: no item is held by two at once, and a checker that would see it if it were.

Several processes use one pool with few items, while some are killed and frozen, Redis is killed, emptied and
frozen, and connections are cut. Each writes down what it believed; `tests.history` looks whether all of it
can be true.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.history import Fault, Held, faults
from tests.pool_worker import read
from tests.redis_support import Proxy
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.redis_support import RedisServer

#: Seconds of a lease: long enough for a busy machine, short enough to run out often.
TTL = 0.4


# -- the checker -----------------------------------------------------------------------------------------


def held(who: str, fencing: int, start: float, end: float, what: str = "a") -> Held:
    """Return one belief."""
    return Held(what, who, fencing, start, end)


def test_one_after_another_is_no_fault() -> None:
    history = [held("x", 1, 0, 5), held("y", 2, 5, 9), held("z", 1, 3, 4, "b"), held("late", 3, 12, 11)]
    assert faults(reversed(history)) == []


def test_two_at_once_and_a_number_that_does_not_grow_are_faults() -> None:
    first, second, third = held("x", 5, 0, 5), held("y", 6, 4, 9), held("z", 6, 9, 10)
    assert faults([second, third, first]) == [
        Fault("overlap", first, second),
        Fault("number", second, third),
    ]
    inside = held("in", 7, 1, 2)  # within the first, and not the next of it
    assert Fault("overlap", first, inside) in faults([first, inside, second])


def test_a_loss_of_data_excuses_an_overlap_and_no_number() -> None:
    before, after = held("x", 5, 0, 5), held("y", 6, 4, 9)
    assert faults([before, after], [(1, 2)]) == []
    assert faults([before, after], [(6, 7)]) != []
    assert faults([before, after], [(-3, -2)]) != []
    assert faults([before, after._replace(fencing=5)], [(1, 2)]) == [
        Fault("number", before, after._replace(fencing=5))
    ]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), max_size=12))
def test_it_finds_the_overlaps_that_a_look_at_all_pairs_finds(spans: list[tuple[int, int]]) -> None:
    history = [held(str(n), n, start, start + long) for n, (start, long) in enumerate(sorted(spans))]
    pairs = {
        (one.fencing, other.fencing)
        for one in history
        for other in history
        if one.fencing < other.fencing and one.start < other.end and other.start < one.end
    }
    found = {(one.first.fencing, one.second.fencing) for one in faults(history) if one.kind == "overlap"}
    assert found == pairs


# -- the pools -------------------------------------------------------------------------------------------


class Crowd:
    """Workers on one pool, and what became of them."""

    def __init__(self, folder: Path, told: dict[str, Any]) -> None:
        self.folder = folder
        self.told = {"items": ["a", "b", "c"], "ttl": TTL, "without_compare": False, **told}
        self.logs: list[Path] = []
        self.children: list[subprocess.Popen[bytes]] = []

    def add(self, **told: Any) -> None:
        """Start one more."""
        number = len(self.logs)
        log = self.folder / f"worker{number}.log"
        log.touch()
        argument = json.dumps({**self.told, **told, "log": str(log), "seed": number})
        # Its errors are the test's: a worker ends by a signal alone.
        self.children.append(
            subprocess.Popen([sys.executable, "-m", "tests.pool_worker", argument], cwd=ROOT)
        )
        self.logs.append(log)

    def calls(self) -> int:
        """Return how many lines have been written: a lower bound of the calls."""
        return sum(log.read_bytes().count(b"\n") for log in self.logs)

    def kill_one(self, chance: random.Random, **told: Any) -> None:
        """End a worker in the middle of whatever it does, and start another."""
        victim = chance.choice(self.children)
        self.end(victim)
        self.add(**told)

    def freeze_one(self, chance: random.Random) -> None:
        """Have a worker sleep for longer than its lease."""
        victim = chance.choice(self.children)
        victim.send_signal(signal.SIGSTOP)
        time.sleep(TTL * 1.3)
        victim.send_signal(signal.SIGCONT)

    def end(self, child: subprocess.Popen[bytes]) -> None:
        """Kill one; it must have been alive."""
        assert child.poll() is None, "a worker has ended by itself"
        child.kill()
        child.wait()
        self.children.remove(child)

    def close(self) -> None:
        """Kill all."""
        for child in self.children:
            child.kill()
            child.wait()

    def history(self) -> list[Held]:
        """Return what all of them believed."""
        return [one for number, log in enumerate(self.logs) for one in read(log, str(number))[0]]


@pytest.fixture
def crowd(temporary: Path) -> Iterator[Callable[..., Crowd]]:
    """Make crowds, which are ended with the test."""
    with ExitStack() as stack:

        def make(size: int, **told: Any) -> Crowd:
            made = Crowd(temporary, told)
            stack.callback(made.close)
            for _ in range(size):
                made.add()
            return made

        yield make


def run(crowd: Crowd, calls: int, hurt: list[Callable[[], object]], *, pause: float, limit: float) -> None:
    """Go on until so many calls were made, hurting something after each pause; every way at least once."""
    deadline, turn = time.monotonic() + limit, 0
    while crowd.calls() < calls or turn < len(hurt):
        assert time.monotonic() < deadline, f"only {crowd.calls()} calls"
        time.sleep(pause)
        if hurt:
            hurt[turn % len(hurt)]()
            turn += 1


def report(crowd: Crowd, losses: list[tuple[float, float]]) -> list[Fault]:
    """Look over the history, and say what was looked at."""
    history = crowd.history()
    found = faults(history, losses)
    over = sum(one.fencing > 0 and one.end - one.start > TTL * 0.9 for one in history)
    print(
        f"{crowd.calls()} calls, {len(history)} leases ({over} to their end), {len(crowd.logs)} processes,"
        f" {len(losses)} losses of data: {sum(one.kind == 'overlap' for one in found)} overlaps,"
        f" {sum(one.kind == 'number' for one in found)} wrong numbers"
    )
    return found


def redis_history(
    server: RedisServer, crowd: Callable[..., Crowd], calls: int, *, compare: bool
) -> list[Fault]:
    """Let workers use a pool in Redis while everything goes wrong."""
    chance, losses = random.Random(1), []
    server.start(appendonly=True)
    with Proxy(server.port) as proxy:
        workers = crowd(3, url=server.url, without_compare=not compare)
        for _ in range(3):
            workers.add(url=proxy.url)

        def lose() -> None:
            begin = time.monotonic()
            server.restart(data=False)
            losses.append((begin, time.monotonic()))

        def freeze() -> None:
            server.pause()
            time.sleep(TTL * 1.3)
            server.resume()

        hurt: list[Callable[[], object]] = [
            lambda: workers.kill_one(chance, url=server.url),
            proxy.cut,
            freeze,
            proxy.cut_before_answer,
            lambda: server.restart(data=True),
            lambda: workers.freeze_one(chance),
            lose,
        ]
        run(workers, calls, hurt if compare else [], pause=0.3, limit=150)
    return report(workers, losses)


SMALL, FULL = 1_000, 10_000


@pytest.mark.parametrize(
    "calls", [pytest.param(SMALL), pytest.param(FULL, marks=pytest.mark.stress)], ids=["small", "full"]
)
def test_no_item_is_held_by_two_in_redis(
    calls: int, redis_server: RedisServer, crowd: Callable[..., Crowd]
) -> None:
    """Clients and Redis are killed, frozen, cut off; Redis comes back with and without its data."""
    assert redis_history(redis_server, crowd, calls, compare=True) == []


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_without_the_compare_the_checker_finds_overlaps(
    kind: str, request: pytest.FixtureRequest, home: Path, crowd: Callable[..., Crowd]
) -> None:
    """What makes these tests worth something: one line less in the store, and items are held by two."""
    if kind == "redis":
        found = redis_history(request.getfixturevalue("redis_server"), crowd, SMALL, compare=False)
    else:
        workers = crowd(5, home=str(home), without_compare=True)
        run(workers, SMALL, [], pause=0.3, limit=150)
        found = report(workers, [])
    assert any(one.kind == "overlap" for one in found)


@pytest.mark.parametrize(
    "calls", [pytest.param(SMALL), pytest.param(FULL, marks=pytest.mark.stress)], ids=["small", "full"]
)
def test_no_item_is_held_by_two_on_one_machine(calls: int, home: Path, crowd: Callable[..., Crowd]) -> None:
    """Clients are killed and frozen, also inside a transaction."""
    chance = random.Random(2)
    workers = crowd(5, home=str(home))
    hurt: list[Callable[[], object]] = [lambda: workers.kill_one(chance), lambda: workers.freeze_one(chance)]
    run(workers, calls, hurt, pause=0.3, limit=150)
    assert report(workers, []) == []
