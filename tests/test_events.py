"""The history: an absolute order, nothing missed, nothing twice, and a reader that lags is told."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from devsup import Supervisor, UsageError, aio
from devsup.paths import Home
from devsup.registry import Registry, frozen
from tests.racing import World
from tests.support import hear, say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from subprocess import Popen

    from devsup.models import HistoryEntry
    from tests.support import Devsup, DevsupPopen, Spawn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")

#: Threads of one process, each with events of its own; the last argument is how many each writes.
WRITERS = """
import sys, threading
from devsup.paths import Home
from devsup.registry import Registry
home, name, threads, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def write(thread):
    registry = Registry(Home(home))
    for number in range(count):
        registry.add_event("finding", project="/p", reason=f"{name}.{thread}.{number}")
print("ready", flush=True)
sys.stdin.readline()
writers = [threading.Thread(target=write, args=(thread,)) for thread in range(threads)]
for one in writers:
    one.start()
for one in writers:
    one.join()
print("over", flush=True)
"""


@pytest.fixture
def registry(home: Path) -> Registry:
    return Registry(Home(str(home)))


@pytest.fixture
def supervisor(project: Path, home: Path) -> Supervisor:
    return Supervisor(str(project), str(home))


def written(reasons: list[str | None], processes: int, threads: int, count: int) -> bool:
    """Tell whether ``reasons`` are what the writers wrote, each one's in its order."""
    of: dict[str, list[int]] = {}
    for reason in reasons:
        name, thread, number = (reason or "").split(".")
        of.setdefault(f"{name}.{thread}", []).append(int(number))
    return len(of) == processes * threads and all(one == list(range(count)) for one in of.values())


def lines_of(child: Popen[str]) -> Iterator[dict[str, Any]]:
    """Give the lines of JSON of a command that follows."""
    while True:
        yield json.loads(hear(child))


def test_a_hundred_writers_and_three_readers(
    supervisor: Supervisor, registry: Registry, home: Path, spawn: Spawn, devsup_popen: DevsupPopen
) -> None:
    """Natural: a follower, a reader with cursors and one that comes afterwards all see the same, once."""
    processes, threads, count = 4, 25, 10
    total = processes * threads * count
    registry.add_event("finding", project="/p", reason="first")
    follower = devsup_popen("events", "-f", "--json", "--after", 1, "--everywhere", "--limit", 50)
    crowd = [spawn(WRITERS, home, f"w{number}", threads, count) for number in range(processes)]
    assert [hear(one) for one in crowd] == ["ready\n"] * processes
    for one in crowd:
        say(one)
    paged: list[HistoryEntry] = []
    after = 1
    deadline = time.monotonic() + 50
    while len(paged) < total and time.monotonic() < deadline:
        page = supervisor.events(after=after, limit=70, everywhere=True, wait=1.0)
        paged += page.events
        assert page.next_after == page.events[-1].seq if page.events else after
        after = page.next_after
    assert [hear(one) for one in crowd] == ["over\n"] * processes
    assert [one.seq for one in paged] == list(range(2, total + 2)), "the absolute order, without a hole"
    assert written([one.reason for one in paged], processes, threads, count)
    feed = lines_of(follower)
    followed = [next(feed) for _ in range(total)]
    assert [one["seq"] for one in followed] == [one.seq for one in paged]
    assert [one["reason"] for one in followed] == [one.reason for one in paged]
    assert supervisor.events(after=1, limit=total, everywhere=True).events == paged


def test_a_reader_that_lags_behind_the_bound_is_told(
    supervisor: Supervisor, registry: Registry, devsup: Devsup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "EVENTS", 10)
    with registry.connection():
        for number in range(25):
            registry.add_event("finding", project=supervisor.project, reason=str(number))
    page = supervisor.events(after=3, limit=4)
    gap, *rest = page.events
    assert (gap.type, gap.seq, gap.details) == ("truncated", 15, {"missed": 12})
    assert [one.seq for one in rest] == [16, 17, 18, 19]
    # Whoever goes on after the gap is told no more of it; who asks for all there is has missed nothing.
    for after in (15, 0):
        assert [one.seq for one in supervisor.events(after=after).events] == list(range(16, 26))
    first, *_ = devsup("events", "--json", "--after", 3).out.splitlines()
    assert json.loads(first) == {**dict.fromkeys(gap._fields), **gap.asdict()}
    assert "events 4 to 15 are no longer kept" in devsup("events", "--after", 3).out


def test_no_event_comes_before_the_first(supervisor: Supervisor) -> None:
    with pytest.raises(UsageError, match="from 0"):
        supervisor.events(after=-1)


def test_a_history_that_has_lost_all_is_no_empty_one(supervisor: Supervisor, registry: Registry) -> None:
    """Thirty days without a start: the numbers go on, and who read the first ones is told of the others."""
    for _ in range(3):
        registry.add_event("finding", project=supervisor.project)
    with sqlite3.connect(registry.home.registry) as raw:
        raw.execute("DELETE FROM events")
    raw.close()
    (gap,) = supervisor.events(after=1).events
    assert (gap.type, gap.seq, gap.details) == ("truncated", 3, {"missed": 2})
    assert supervisor.events(after=3).events == supervisor.events().events == []
    registry.add_event("finding", project=supervisor.project)
    assert [one.seq for one in supervisor.events(after=3).events] == [4]


def test_a_project_sees_its_own_and_waits_past_others(
    supervisor: Supervisor, registry: Registry, spawn: Spawn, home: Path
) -> None:
    mine = registry.add_event("finding", project=supervisor.project, reason="mine", details={"n": 1})
    registry.add_event("finding", project="/other")
    page = supervisor.events()
    assert [(one.seq, one.details) for one in page.events] == [(mine, {"n": 1})]
    assert page.next_after == 2
    # While it waits, others' come; it hears of its own.
    other = spawn(WRITERS, home, "w", 1, 3)
    hear(other)
    say(other)

    async def hears() -> list[int]:
        twin = aio.Supervisor(supervisor.cwd, supervisor.home.root)
        waiting = asyncio.ensure_future(twin.events(after=2, wait=20))
        assert await asyncio.to_thread(hear, other) == "over\n"
        assert not waiting.done()
        seq = await asyncio.to_thread(registry.add_event, "finding", project=supervisor.project)
        return [seq, *(one.seq for one in (await waiting).events)]

    assert asyncio.run(hears()) == [6, 6]


def test_the_command_tells_a_server_s_life(temporary: Path, home: Path, devsup: Devsup) -> None:
    assert devsup("events", "--json").out == "", "nothing happened yet"
    assert home.is_dir()
    world = World(temporary)
    server = world.devsup.start("web", command=["sleep", "1000"], environ=world.environment).server
    world.devsup.stop(["web"])
    answer = devsup("events", "--json")
    told = [json.loads(line) for line in answer.out.splitlines()]
    assert [one["type"] for one in told] == ["started", "stopping", "stopped"]
    assert {(one["server"], one["generation"], one["pid"]) for one in told} == {
        (server.id, server.generation, server.pid)
    }
    assert [one["seq"] for one in told] == sorted(one["seq"] for one in told)
    assert [one["by"] for one in told[1:]] == [f"pid {os.getpid()}"] * 2
    assert all(list(one) == list(told[0]) for one in told)
    plain = devsup("events", "-n", 1)
    assert plain.out.split()[2:6] == ["stopped", "dev_server_web", "pid", str(server.pid)]
    wrong = devsup("events", "--limit", 0, "--json")
    assert (wrong.code, wrong.error["code"]) == (2, "usage"), "errors keep their envelope"
    world.close()
