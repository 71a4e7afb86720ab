"""
devsup on the real Next.js and Expo, each beside the same server without devsup; and what npm in front costs.

Copies of `examples/web` and `examples/mobile` are used. Without Node or their packages nothing is measured.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.commands import FIRST_PORT
from benchmarks.measure import ROOT, Figure, Installed, figure, median
from tests.support import copy_app, node_is_missing

PORT = FIRST_PORT + 50
#: A round takes seconds here, and what is looked for is far above the noise.
MOST_ROUNDS = 7
#: A server that does not answer or end within this time measures nothing.
PATIENCE = 60.0
#: Quiet tools, no network, no helpers that come and go.
QUIET = {
    "EXPO_NO_TELEMETRY": "1",
    "EXPO_OFFLINE": "1",
    "EXPO_UNSTABLE_HEADLESS": "1",
    "NEXT_TELEMETRY_DISABLED": "1",
    "NO_UPDATE_NOTIFIER": "1",
}


class App(NamedTuple):
    """One real app, and how it is run without devsup."""

    name: str
    server: str
    folder: Path
    command: list[str]
    environ: dict[str, str]
    probe: str
    #: The scripts that a package manager must run, since they are not plainly the server's command.
    wrapped: dict[str, str]


class Times(NamedTuple):
    """Seconds until a server answers, and until all of it is gone."""

    start: float
    stop: float


class Cost(NamedTuple):
    """What a server takes once it answers: seconds until then, processes, MiB that only they use."""

    start: float
    processes: int
    memory: float


def run(copy: Installed, rounds: int) -> list[Figure]:
    """Measure start, stop and the saved wrapper of both apps."""
    reason = node_is_missing()
    if reason:
        print(f"real: left out, {reason}", file=sys.stderr)
        return []
    before = dict(copy.environ)
    base = ROOT / ".test-apps"  # on this file system packages can be linked
    base.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=base))
    copy.environ |= {**QUIET, "TMPDIR": str(copy.folder)}
    try:
        rounds = min(rounds, MOST_ROUNDS)
        return [row for app in apps(folder) for row in [*beside_bare(copy, app, rounds), *wrapper(copy, app)]]
    finally:
        copy.environ = before
        shutil.rmtree(folder, ignore_errors=True)  # after a failure a server may still write there


def apps(folder: Path) -> list[App]:
    """Copy both apps."""
    web, mobile = copy_app("web", folder), copy_app("mobile", folder)
    return [
        App(
            "web", "Next.js", web,
            [str(web / "node_modules/.bin/next"), "dev", "-H", "127.0.0.1"], {"PORT": str(PORT)},
            "/__nextjs_server_status", {"dev": "NODE_OPTIONS= next dev -H 127.0.0.1"},
        ),
        App(
            "mobile", "Expo", mobile,
            [str(mobile / "node_modules/.bin/expo"), "start", "--localhost", "--port", str(PORT)], {},
            "/status", {"start": "NODE_OPTIONS= expo start --localhost"},
        ),
    ]  # fmt: skip


def beside_bare(copy: Installed, app: App, rounds: int) -> list[Figure]:
    """Measure start and stop in turn with those of the bare server, and compare turn by turn."""
    pairs = [(with_devsup(copy, app), without_devsup(copy, app)) for _ in range(rounds + 1)]
    pairs = pairs[1:]  # the first one fills the caches
    own = median(lambda: copy.devsup("list", "--json").wall, rounds=rounds)

    def middle(of: Callable[[tuple[Times, Times]], float]) -> float:
        return statistics.median(map(of, pairs)) * 1e3

    return [
        told(
            f"{app.server}: start until it answers",
            middle(lambda pair: pair[0].start),
            "ms",
            middle(lambda pair: pair[1].start),
        ),
        figure(
            f"{app.server}: start, beyond the bare one",
            middle(lambda pair: pair[0].start - pair[1].start),
            "ms",
            budget=150,
        ),
        told(
            f"{app.server}: stop until all is gone",
            middle(lambda pair: pair[0].stop),
            "ms",
            middle(lambda pair: pair[1].stop),
        ),
        figure(
            f"{app.server}: stop, beyond the bare one and the CLI's own",
            middle(lambda pair: pair[0].stop - pair[1].stop - own),
            "ms",
            budget=50,
        ),
    ]


def with_devsup(copy: Installed, app: App) -> Times:
    """Return the seconds of `start` and of `stop`."""
    start = copy.devsup("start", app.name, "--port", str(PORT), "--json", cwd=app.folder).wall
    assert answers(app.probe), "ready, and does not answer"
    return Times(start, copy.devsup("stop", app.name, "--json", cwd=app.folder).wall)


def without_devsup(copy: Installed, app: App) -> Times:
    """Return the seconds until the bare server answers, and until a TERM to its group has ended all of it."""
    before = time.perf_counter()
    server = subprocess.Popen(
        app.command, cwd=app.folder, env={**copy.environ, **app.environ}, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until(lambda: answers(app.probe))
        start = time.perf_counter() - before
        before = time.perf_counter()
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(PATIENCE)
        until(lambda: not group_lives(server.pid) and not listens())
        return Times(start, time.perf_counter() - before)
    finally:
        if server.poll() is None:  # something went wrong
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wrapper(copy: Installed, app: App) -> list[Figure]:
    """Measure the same server run by npm, beside the direct one: what devsup saves where it may."""
    direct: list[Cost] = []
    by_npm: list[Cost] = []
    package = app.folder / "package.json"
    plain = package.read_text()
    wrapped = json.dumps({**json.loads(plain), "scripts": app.wrapped})
    for _ in range(3):
        for text, costs in ((plain, direct), (wrapped, by_npm)):
            package.write_text(text)
            costs.append(cost(copy, app))
    package.write_text(plain)

    def row(what: str, unit: str, of: Callable[[Cost], float]) -> Figure:
        value, reference = (statistics.median(map(of, costs)) for costs in (by_npm, direct))
        return told(f"{app.server} by npm: {what}", value, unit, reference)

    return [
        row("start until it answers", "ms", lambda one: one.start * 1e3),
        row("processes", "", lambda one: one.processes),
        row("memory (PSS)", "MiB", lambda one: one.memory),
    ]


def cost(copy: Installed, app: App) -> Cost:
    """Return what one run takes."""
    words = ("start", app.name, "--port", str(PORT), "--json")
    start = copy.devsup(*words, cwd=app.folder).wall
    status = json.loads(copy.devsup("status", app.name, "--json", cwd=app.folder).out)["data"]
    pids = [one["pid"] for one in status["processes"]]
    memory = sum(map(pss, pids))
    copy.devsup("stop", app.name, "--json", cwd=app.folder)
    return Cost(start, len(pids), memory)


def told(name: str, value: float, unit: str, reference: float) -> Figure:
    """Return a row that is shown for what it is: no budget bounds it."""
    return Figure(
        name=name, value=value, unit=unit, reference=reference, ratio=value / reference, budget="", ok=True
    )


def answers(path: str) -> bool:
    """Tell whether the server answers an HTTP request now."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def listens() -> bool:
    """Tell whether somebody accepts connections on the port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = (line.split() for line in lines)
    return any(one[3] == "0A" and int(one[1].rpartition(":")[2], 16) == PORT for one in fields)


def group_lives(group: int) -> bool:
    """Tell whether a process group has a member that is no zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            return True
    return False


def pss(pid: int) -> float:
    """Return the memory of a process in MiB, with its share of what others use too."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def until(condition: Callable[[], bool]) -> None:
    """Return when ``condition`` holds; look every few milliseconds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{condition} did not come true")
        select.select([], [], [], 0.005)
