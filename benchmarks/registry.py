"""
Does the registry keep its budgets? Each figure stands beside bare `sqlite3` doing the same in the same run.

Figures are the best of several rounds, in which ours and the reference take turns: noise only adds time.
Those of one process count its CPU time, since nothing there waits; those of many count time on the wall.
Where the machine is so slow or so busy that bare SQLite misses a budget, four fifths of its speed are enough.

``python -m benchmarks.registry [--json]``
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from devsup import identity
from devsup.models import Row
from devsup.paths import Home
from devsup.registry import Registry

ROUNDS = 5
PROCESSES = 8
#: Seconds that each process of the crowd works.
CROWD = 1.0
#: The part of bare SQLite's speed that is enough where that misses the budget itself.
_NEARLY = 0.8

_RAW_TABLE = "CREATE TABLE runs (id TEXT PRIMARY KEY, pad TEXT, last_used_at INTEGER) WITHOUT ROWID"
_RAW_UPDATE = "UPDATE runs SET last_used_at = ? WHERE id = ?"

#: One of the crowd: as many transactions as fit between two instants, ours or bare ones.
_WORKER = """
import sqlite3, sys, time
from devsup.paths import Home
from devsup.registry import Registry
root, how, id, seconds = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
print("ready", flush=True)
start = float(sys.stdin.readline())
registry = Registry(Home(root), rebuild=list)
count = 0

def opened():
    connection = sqlite3.connect(f"file:{root}/raw.db?mode=rw", uri=True, isolation_level=None, timeout=5)
    connection.execute("PRAGMA synchronous = OFF")
    return connection

def bare(connection):
    connection.execute("UPDATE runs SET last_used_at = last_used_at + 1 WHERE id = ?", (id,))

def ours():
    global count
    count += 1
    assert registry.update(id, int(id, 16) + 1, port=count)

def fresh():
    connection = opened()
    bare(connection)
    connection.close()

def loop(work):
    done = worst = 0
    while time.time() < start:
        pass
    while (before := time.time()) < start + seconds:
        work()
        done += 1
        worst = max(worst, time.time() - before)
    print(done, worst)

if how == "held":
    with registry.connection():
        registry.rows()
        loop(ours)
elif how == "raw held":
    connection = opened()
    loop(lambda: bare(connection))
else:
    loop(ours if how == "fresh" else fresh)
"""


def run() -> list[dict[str, Any]]:
    """Measure all figures."""
    figures: list[dict[str, Any]] = []
    with _folder() as root:
        figures += _one_connection(root)
        figures += _fresh_connection(root)
        figures += _crowd(root)
    with _folder() as root:
        figures += _growth(root)
    return figures


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    root = tempfile.mkdtemp(prefix="dv-bench-")
    registry = Registry(Home(root), rebuild=list)
    for number in range(PROCESSES):
        _reserve(registry, number)
    with contextlib.closing(sqlite3.connect(f"{root}/raw.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(_RAW_TABLE)
        for number in range(PROCESSES):
            connection.execute("INSERT INTO runs VALUES (?, ?, 0)", (_id(number), "x" * 400))
    try:
        yield root
    finally:
        shutil.rmtree(root)


def _id(number: int) -> str:
    return f"{number:012x}"


def _reserve(registry: Registry, number: int, project: str | None = None) -> Row:
    row = Row(
        id=_id(number),
        generation=0,
        scope=identity.here().key,
        netns="net",
        project=project or f"/p{number}",
        session=f"dev_server_{number}",
        app="web",
        kind="next",
        cwd=f"/p{number}",
        command=["next", "dev", "--port", "3000"],
        log="",
        owner=None,
        started_at=1,
        starter=identity.me(),
    )
    return registry.reserve(row, dead=[], limit=10_000, port=number, log_of=lambda one: f"/logs/{one}.log")


def _best(count: int, *works: Callable[[], object]) -> list[float]:
    """Return the least CPU seconds per call of each of `works`, which take turns."""
    best = [float("inf") for _ in works]
    for _ in range(ROUNDS):
        for number, work in enumerate(works):
            before = time.process_time()
            for _ in range(count):
                work()
            best[number] = min(best[number], (time.process_time() - before) / count)
    return best


def _figure(
    name: str,
    value: float,
    unit: str,
    reference: float | None,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> dict[str, Any]:
    ratio = None if not reference else value / reference
    if at_least is not None:
        kept = value >= at_least or ((reference or 0) < at_least and (ratio or 0) >= _NEARLY)
        return _made(name, value, unit, reference, ratio, f">= {at_least:,.0f} {unit}", ok=kept)
    assert at_most is not None
    kept = value <= at_most or ((reference or 0) > at_most and (ratio or 2) <= 1 / _NEARLY)
    return _made(name, value, unit, reference, ratio, f"<= {at_most:g} {unit}", ok=kept)


def _made(
    name: str, value: float, unit: str, reference: float | None, ratio: float | None, budget: str, *, ok: bool
) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "reference": reference,
        "ratio": ratio,
        "budget": budget,
        "ok": ok,
    }


# -- one process ------------------------------------------------------------------------------------


def _one_connection(root: str) -> list[dict[str, Any]]:
    registry, first, numbers = Registry(Home(root), rebuild=list), _id(0), itertools.count()
    with contextlib.closing(_raw(root)) as raw, registry.connection():
        registry.rows()
        # Another value each time: SQLite does not write a page that stays the same.
        ours, bare, event = _best(
            4_000,
            lambda: registry.update(first, 1, port=next(numbers)),
            lambda: raw.execute(_RAW_UPDATE, (next(numbers), first)),
            lambda: registry.add_event("finding"),
        )
        reading, bare_reading = _best(
            4_000,
            lambda: registry.row(first),
            lambda: raw.execute("SELECT * FROM runs WHERE id = ?", (first,)).fetchall(),
        )
    return [
        _figure("transactions on one connection", 1 / ours, "/s", 1 / bare, at_least=50_000),
        _figure("an event on one connection", 1 / event, "/s", 1 / bare, at_least=10_000),
        _figure("a row read on one connection", 1 / reading, "/s", 1 / bare_reading, at_least=10_000),
    ]


def _raw(root: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{root}/raw.db?mode=rw", uri=True, isolation_level=None, timeout=5)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def _fresh_connection(root: str) -> list[dict[str, Any]]:
    registry, first, numbers = Registry(Home(root), rebuild=list), _id(0), itertools.count()

    def bare() -> None:
        with contextlib.closing(_raw(root)) as connection:
            connection.execute(_RAW_UPDATE, (next(numbers), first))

    def bare_reading() -> None:
        with contextlib.closing(_raw(root)) as connection:
            connection.execute("SELECT * FROM runs WHERE id = ?", (first,)).fetchall()

    ours, reference = _best(200, lambda: registry.update(first, 1, port=next(numbers)), bare)
    reading, read_reference = _best(200, lambda: registry.row(first), bare_reading)
    return [
        _figure("a write with a fresh connection", ours * 1e3, "ms", reference * 1e3, at_most=1),
        _figure("a read with a fresh connection", reading * 1e3, "ms", read_reference * 1e3, at_most=1),
    ]


# -- many processes ---------------------------------------------------------------------------------


def _crowd(root: str) -> list[dict[str, Any]]:
    totals = dict.fromkeys(("held", "raw held", "fresh", "raw fresh"), (0.0, 0.0))
    for _ in range(2):
        for how, (best, longest) in totals.items():
            total, worst = _together(root, how)
            totals[how] = (total, worst) if total > best else (best, longest)
    (held, _), (raw_held, _) = totals["held"], totals["raw held"]
    (fresh, worst), (raw_fresh, raw_worst) = totals["fresh"], totals["raw fresh"]
    name = f"{PROCESSES} processes"
    return [
        _figure(f"{name}, a connection each", held, "/s", raw_held, at_least=40_000),
        _figure(f"{name}, a fresh connection each time", fresh, "/s", raw_fresh, at_least=raw_fresh / 2),
        _figure(f"{name}, the longest wait of these", worst * 1e3, "ms", raw_worst * 1e3, at_most=1_000),
    ]


def _together(root: str, how: str) -> tuple[float, float]:
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, root, how, _id(number), str(CROWD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        )
        for number in range(PROCESSES)
    ]
    try:
        for one in crowd:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        gun = f"{time.time() + 0.2}\n"
        for one in crowd:  # all of them, before any is waited for
            assert one.stdin is not None
            one.stdin.write(gun)
            one.stdin.flush()
        answers = [one.communicate(timeout=60)[0].split() for one in crowd]
    finally:
        for one in crowd:
            one.kill()
            one.wait()
    assert all(int(done) for done, _ in answers)
    return sum(int(done) for done, _ in answers) / CROWD, max(float(worst) for _, worst in answers)


# -- growth -----------------------------------------------------------------------------------------


def _growth(root: str) -> list[dict[str, Any]]:
    """One project's rows among ten and among a thousand."""
    registry = Registry(Home(root), rebuild=list)
    with registry.connection():
        for number in range(PROCESSES, 10):
            _reserve(registry, number, "/mine" if number == 9 else None)
    scope = identity.here().key

    def works() -> list[float]:
        # A connection each time, as a command does it.
        return _best(
            100,
            lambda: registry.snapshot(project="/mine"),
            lambda: registry.find(scope, "/mine", "dev_server_9"),
            _start_and_stop,
        )

    def _start_and_stop() -> None:
        with registry.connection():
            row = _reserve(registry, 99_999, "/mine")
            registry.withdraw(row.id, row.generation)

    few = works()
    with registry.connection():
        for number in range(10, 1000):
            _reserve(registry, number)
    many = works()
    names = ("list's snapshot", "a start's look", "reserving and withdrawing")
    return [
        _made(
            f"{name}, 1,000 rows beside 10",
            big * 1e6,
            "us",
            small * 1e6,
            big / small,
            "<= 1.5x",
            ok=big / small <= 1.5,
        )
        for name, small, big in zip(names, few, many, strict=True)
    ]


def main() -> int:
    """Print a table, or JSON; the status says whether every budget was kept."""
    figures = run()
    if "--json" in sys.argv[1:]:
        print(json.dumps(figures, indent=2))
    else:
        print(f"{'what':45} {'measured':>14} {'reference':>14} {'ratio':>6}  budget")
        for one in figures:
            reference = "" if one["reference"] is None else f"{one['reference']:,.2f}"
            ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
            kept = "" if one["ok"] else "  MISSED"
            value = f"{one['value']:,.2f} {one['unit']}"
            print(f"{one['name']:45} {value:>14} {reference:>14} {ratio:>6}  {one['budget']}{kept}")
    return 0 if all(one["ok"] for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
