"""Do list and start stay as fast when the registry is full? Ten rows against a thousand, in one run."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.commands import FIRST_PORT, WEB
from benchmarks.measure import Figure, Installed, figure, median

#: Fills the registry with servers of other projects, whose processes are this one: alive, and never asked.
FILL = """
import os, sys
from devsup import identity, system
from devsup.models import Row
from devsup.paths import find_home, ensure_home
from devsup.registry import Registry
home = find_home()
ensure_home(home)
registry, scope = Registry(home), identity.here().key
for number in range(int(sys.argv[1]), int(sys.argv[2])):
    row = Row(
        id=f"{number:012x}", generation=0, scope=scope, netns=system.net_namespace(), project=f"/p{number}",
        session="dev_server_web", app="web", kind="command", cwd=f"/p{number}", command=["x"], log="",
        owner=None, started_at=0, starter=identity.of(os.getppid()),
    )
    registry.reserve(row, dead=[], limit=5000, port=None, log_of=lambda generation: f"{generation}.log")
"""
#: Takes them out again.
EMPTY = """
from devsup.paths import find_home
from devsup.registry import Registry
registry = Registry(find_home())
for row in registry.rows():
    registry.withdraw(row.id, row.generation)
"""


def run(copy: Installed, rounds: int) -> list[Figure]:
    """Measure list and a start that finds its server at both sizes."""
    web = ("start", "web", "--port", str(FIRST_PORT), "--json", "--", sys.executable, WEB)
    times: dict[str, list[float]] = {"list": [], "start": []}
    filled = 0
    for rows in (10, 1000):
        _python(copy, FILL, str(filled), str(rows))
        filled = rows
        copy.devsup(*web)
        times["list"].append(median(lambda: copy.devsup("list", "--json").wall, rounds=rounds))
        times["start"].append(median(lambda: copy.devsup(*web).wall, rounds=rounds))
    assert len(json.loads(copy.devsup("list", "--json").out)["data"]["servers"]) == 1
    copy.devsup("stop", "web", "--json")
    _python(copy, EMPTY)
    return [
        figure(f"{name}, 1,000 rows beside 10", big * 1e3, "ms", budget=1.5, reference=small * 1e3)
        for name, (small, big) in times.items()
    ]


def _python(copy: Installed, code: str, *words: str) -> None:
    subprocess.run([copy.python, "-c", code, *words], env=copy.environ, check=True, timeout=60)
