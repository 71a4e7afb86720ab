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
    folder = Path(f"/proc/{guard}")
    before, cpu_before = _switches(folder), _cpu(folder)
    select.select([], [], [], WATCHED)
    wakeups = (_switches(folder) - before) * 60 / WATCHED
    cpu = (_cpu(folder) - cpu_before) * 60 / WATCHED
    rollup = {
        line.split(":")[0]: line.split()[1] for line in (folder / "smaps_rollup").read_text().splitlines()[1:]
    }
    private = (int(rollup["Private_Clean"]) + int(rollup["Private_Dirty"])) / 1024
    copy.devsup("stop", "web", "--json")
    return [
        figure("guard, resident", int(rollup["Rss"]) / 1024, "MiB", budget=16),
        figure("guard, private", private, "MiB", budget=7),
        figure("guard, wake-ups a minute", wakeups, "", budget=1),
        figure("guard, CPU a minute", cpu * 1e3, "ms", budget=10),
    ]


def _switches(folder: Path) -> int:
    lines = (folder / "status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def _cpu(folder: Path) -> float:
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
