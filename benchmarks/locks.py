"""
What a lock costs beside the plainest one of its kind, and what part of a start or stop is locking.

The figures of one process are the best of many short bursts in turn, since a burst that nobody disturbs is
what the code costs; those of commands are medians. In one run: ``python -m benchmarks locks``.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import redis
from filelock import FileLock as LibraryLock

from benchmarks.measure import Figure, Installed, figure, median
from devsup.locks import AsyncRWLock, ProcessLock, RedisLock
from tests.redis_support import RedisServer, missing_reason

#: Uses in one burst, and bursts.
_USES, _BURSTS = 1_000, 300
_FILE_USES, _FILE_BURSTS = 50, 60
_REDIS_USES, _REDIS_BURSTS = 50, 60

#: Locking as a start does it, in a process that has loaded what it needs anyway: the library's own modules,
#: one session lock, and the registry's file lock as often as a start opens the registry (17 times at most).
_OF_A_START = """
import os, sys, time
import devsup.supervisor.core, devsup.registry, devsup.registry.locking as locking
import devsup.identity as identity
from devsup.paths import Home, ensure_home
home = Home(sys.argv[1])
ensure_home(home)
identity.me(), identity.here()
before = time.perf_counter()
if sys.argv[2] == "start":
    from devsup.locks import ProcessLock
    with ProcessLock(home.locks + "/bench.lock", name="bench").write(purpose="start"):
        pass
for _ in range(17):
    lock = locking.FileLock(home)
    lock.share()
    lock.close()
print(time.perf_counter() - before)
"""


def run(copy: Installed, rounds: int) -> list[Figure]:
    """Measure all figures."""
    return [*_in_process(), *_between_processes(), *_between_hosts(), *_of_commands(copy, rounds)]


def _in_process() -> list[Figure]:
    plain, lock = asyncio.Lock(), AsyncRWLock("bench")

    async def bare(count: int) -> None:
        for _ in range(count):
            async with plain:
                pass

    async def reading(count: int) -> None:
        for _ in range(count):
            async with lock.read():
                pass

    async def writing(count: int) -> None:
        for _ in range(count):
            async with lock.write():
                pass

    async def best() -> list[float]:
        return await _best_of_tasks(bare, reading, writing)

    reference, read, write = asyncio.run(best())
    return [
        figure("a read lock, uncontended (asyncio.Lock)", read, "ns", budget=2.5, reference=reference),
        figure("a write lock, uncontended (asyncio.Lock)", write, "ns", budget=20, reference=reference),
    ]


async def _best_of_tasks(*works: Callable[[int], Awaitable[None]]) -> list[float]:
    best = [float("inf") for _ in works]
    for _ in range(_BURSTS):
        for number, work in enumerate(works):
            before = time.perf_counter()
            await work(_USES)
            best[number] = min(best[number], (time.perf_counter() - before) / _USES * 1e9)
    return best


def _between_processes() -> list[Figure]:
    folder = tempfile.mkdtemp(prefix="bench-locks-")
    theirs = LibraryLock(os.path.join(folder, "theirs.lock"), fallback_to_soft=False)
    ours = ProcessLock(os.path.join(folder, "ours.lock"), purpose="bench")

    def take_ours() -> None:
        for _ in range(_FILE_USES):
            with ours.write():
                pass

    def take_theirs() -> None:
        for _ in range(_FILE_USES):
            with theirs:
                pass

    best = _best(take_ours, take_theirs, bursts=_FILE_BURSTS, uses=_FILE_USES)
    shutil.rmtree(folder)
    return [figure("a lock between processes (filelock)", best[0], "us", budget=1.5, reference=best[1])]


def _best(*works: Callable[[], None], bursts: int, uses: int) -> list[float]:
    """Return for each work the microseconds of one use in its best burst."""
    best = [float("inf") for _ in works]
    for _ in range(bursts):
        for number, work in enumerate(works):
            before = time.perf_counter()
            work()
            best[number] = min(best[number], (time.perf_counter() - before) / uses * 1e6)
    return best


def _between_hosts() -> list[Figure]:
    """Measure one uncontended use over loopback beside that of redis-py's own lock."""
    if missing_reason() is not None:
        return []
    folder = Path(tempfile.mkdtemp(prefix="bench-redis-"))
    with RedisServer(folder).start() as server, redis.Redis(port=server.port) as client:
        lock = RedisLock(server.url, "ours")

        def take_ours() -> None:
            for _ in range(_REDIS_USES):
                with lock.write():
                    pass

        def take_theirs() -> None:
            for _ in range(_REDIS_USES):
                with client.lock("theirs", timeout=30):
                    pass

        best = _best(take_ours, take_theirs, bursts=_REDIS_BURSTS, uses=_REDIS_USES)
    shutil.rmtree(folder)
    return [figure("a lock between hosts (redis-py's Lock)", best[0], "us", budget=1.5, reference=best[1])]


def _of_commands(copy: Installed, rounds: int) -> list[Figure]:
    server = [copy.python, "-c", "import time; time.sleep(1000)"]

    def start() -> float:
        took = copy.devsup("start", "bench", "--json", "--no-wait", "--", *server).wall
        copy.devsup("stop", "bench", "--json")
        return took

    def stop() -> float:
        copy.devsup("start", "bench", "--json", "--no-wait", "--", *server)
        return copy.devsup("stop", "bench", "--json").wall

    def locking(of: str) -> Callable[[], float]:
        argv = [copy.python, "-c", _OF_A_START, str(copy.folder / "locking"), of]
        return lambda: float(copy.run(argv).out)

    figures = []
    for name, act in (("start", start), ("stop", stop)):
        took = median(act, rounds=rounds) * 1e3
        part = median(locking(name), rounds=rounds) * 1e3
        figures.append(figure(f"locking, as a part of a {name}", part, "ms", budget=0.1, reference=took))
    return figures
