"""
How many items a second a pool lends and takes back, with eight processes at it at once.

Each figure stands beside what the same number of processes do bare in the same run: two transactions of
`sqlite3` on a connection that is kept, two commands of redis-py. Time on the wall, the best of some rounds.
Where the machine is so busy that bare pairs miss a budget, four fifths of their speed are enough.
In one run: ``python -m benchmarks pool``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.measure import ROOT, Figure, Installed
from tests.redis_support import RedisServer, missing_reason

#: At once, for so many seconds, so many times.
_PROCESSES, _SECONDS, _ROUNDS = 8, 1.5, 3
#: Pairs of an acquire and a release a second.
_SQLITE, _REDIS = 3_000, 5_000
#: The part of the bare speed that is enough where the machine is so busy that this misses the budget itself.
_NEARLY = 0.8

_WORKER = """
import sqlite3, sys, time
what, where = sys.argv[1:3]
if what in ("sqlite", "redis"):
    from devsup.pool import Pool
    pool = Pool("bench", range(20), **({"home": where} if what == "sqlite" else {"url": where}))
    pool.items()
    def pair():
        pool.release(pool.acquire("bench", 30))
elif what == "bare sqlite":
    raw = sqlite3.connect(where + "/raw.db", isolation_level=None, timeout=30)
    raw.execute("PRAGMA synchronous = OFF")
    def pair():
        raw.execute("UPDATE bare SET used = used + 1 WHERE id = 1")
        raw.execute("UPDATE bare SET used = used + 1 WHERE id = 2")
else:
    import redis
    client = redis.Redis.from_url(where)
    def pair():
        client.set("bare", "x" * 60)
        client.delete("bare")
pair()
print("ready", flush=True)
begin, seconds = map(float, sys.stdin.readline().split())
while time.time() < begin:
    pass
done = 0
while time.time() < begin + seconds:
    pair()
    done += 1
print(done)
"""


def run(_copy: Installed, _rounds: int) -> list[Figure]:
    """Measure both stores."""
    folder = Path(tempfile.mkdtemp(prefix="bench-pool-")).resolve()
    folder.chmod(0o700)
    try:
        figures = [_figure("SQLite", str(folder), "sqlite", _SQLITE, _make_raw(folder))]
        if reason := missing_reason():
            print(reason, file=sys.stderr)
            return figures
        with RedisServer(folder) as server:
            url = server.start().url
            return [*figures, _figure("Redis over loopback", url, "redis", _REDIS, url)]
    finally:
        shutil.rmtree(folder)


def _make_raw(folder: Path) -> str:
    import sqlite3

    raw = sqlite3.connect(folder / "raw.db")
    raw.execute("PRAGMA journal_mode = wal")
    raw.execute("CREATE TABLE bare (id INTEGER PRIMARY KEY, used INTEGER)")
    raw.execute("INSERT INTO bare VALUES (1, 0), (2, 0)")
    raw.commit()
    raw.close()
    return str(folder)


def _figure(name: str, where: str, what: str, budget: int, bare: str) -> Figure:
    rates, references = [], []
    for _ in range(_ROUNDS):
        rates.append(_crowd(what, where))
        references.append(_crowd(f"bare {what}", bare))
    value, reference = max(rates), max(references)
    return Figure(
        name=f"acquire and release, {_PROCESSES} processes on {name} (bare pairs)",
        value=value,
        unit="/s",
        reference=reference,
        ratio=value / reference,
        budget=f">= {budget} /s",
        ok=value >= min(budget, _NEARLY * reference),
    )


def _crowd(what: str, where: str) -> float:
    """Return how many pairs a second all of them make."""
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", _WORKER, what, where],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                )
            )
            for _ in range(_PROCESSES)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        begin = time.time() + 0.2
        for child in children:
            assert child.stdin is not None
            child.stdin.write(f"{begin} {_SECONDS}\n")
            child.stdin.flush()
        return sum(int(child.communicate()[0]) for child in children) / _SECONDS
