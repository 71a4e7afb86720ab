"""What a guard costs while its server is idle: memory, wake-ups and processor time. Linux only."""

from __future__ import annotations

import json
import os
import select
import sys
from pathlib import Path

from benchmarks.commands import FIRST_PORT, WEB
from benchmarks.measure import Figure, Installed, figure

#: Seconds of watching an idle guard.
WATCHED = 20.0


def run(copy: Installed, rounds: int) -> list[Figure]:
    """Measure one guard whose server is ready and idle."""
    del rounds
    words = ("start", "web", "--port", str(FIRST_PORT), "--json", "--", sys.executable, WEB)
    guard = json.loads(copy.devsup(*words).out)["data"]["server"]["guard_pid"]
    before, cpu_before = wakeups_of(guard), cpu_of(guard)
    select.select([], [], [], WATCHED)
    wakeups = (wakeups_of(guard) - before) * 60 / WATCHED
    cpu = (cpu_of(guard) - cpu_before) * 60 / WATCHED
    resident, private = memory_of(guard)
    copy.devsup("stop", "web", "--json")
    return [
        figure("guard, resident", resident, "MiB", budget=16),
        figure("guard, private", private, "MiB", budget=7),
        figure("guard, wake-ups a minute", wakeups, "", budget=1),
        figure("guard, CPU a minute", cpu * 1e3, "ms", budget=10),
    ]


def memory_of(pid: int) -> tuple[float, float]:
    """Return the MiB that a process has in memory, and those of them that are its own."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    rollup = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return rollup["Rss"] / 1024, (rollup["Private_Clean"] + rollup["Private_Dirty"]) / 1024


def wakeups_of(pid: int) -> int:
    """Return how often a process has gone to sleep by itself: to make way for another one wakes nobody."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def cpu_of(pid: int) -> float:
    """Return the processor time of a process in seconds, to the nanosecond where the kernel says it."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
