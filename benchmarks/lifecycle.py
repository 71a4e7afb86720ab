"""What devsup adds to a server's own start and end, and to a hundred callers who want the same one."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time

from benchmarks.commands import FIRST_PORT, WEB
from benchmarks.measure import Figure, Installed, figure, median, paired

CALLERS = 100
TWENTY = 20


def run(copy: Installed, rounds: int) -> list[Figure]:
    """Measure start, stop, stop of twenty, and a hundred starts at once."""
    return [
        *start(copy, rounds),
        *stop(copy, rounds),
        *stop_twenty(copy, max(3, rounds // 3)),
        *hundred(copy),
    ]


def bare_server(copy: Installed, port: int) -> subprocess.Popen[bytes]:
    """Start a server without devsup, in a group of its own."""
    return subprocess.Popen(
        [sys.executable, WEB, "--port", str(port)],
        cwd=copy.project,
        env=copy.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for_answer(port: int) -> None:
    """Return when the server answers; ask every millisecond, as the reference of all that follows."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except OSError:
            select.select([], [], [], 0.001)
        else:
            return
        finally:
            connection.close()
    raise TimeoutError(f"nothing answers on {port}")


def end_group(*servers: subprocess.Popen[bytes]) -> float:
    """Send TERM to each group, wait for the leaders, and return the seconds that took."""
    before = time.perf_counter()
    for server in servers:
        os.killpg(server.pid, signal.SIGTERM)
    for server in servers:
        server.wait(10)
    return time.perf_counter() - before


def start(copy: Installed, rounds: int) -> list[Figure]:
    """Measure `start` beyond the time in which the same server answers by itself."""
    words = ("start", "web", "--port", str(FIRST_PORT), "--json", "--", sys.executable, WEB)

    def ours() -> float:
        wall = copy.devsup(*words).wall
        copy.devsup("stop", "web", "--json")
        return wall

    def bare() -> float:
        before = time.perf_counter()
        server = bare_server(copy, FIRST_PORT)
        wait_for_answer(FIRST_PORT)
        wall = time.perf_counter() - before
        end_group(server)
        return wall

    value, reference = paired(ours, bare, rounds=rounds)
    return [figure("start, beyond the server's own", (value - reference) * 1e3, "ms", budget=150)]


def stop(copy: Installed, rounds: int) -> list[Figure]:
    """Measure `stop` beyond a bare TERM and the CLI's own start (a `version`)."""
    words = ("start", "web", "--port", str(FIRST_PORT), "--json", "--", sys.executable, WEB)

    def ours() -> float:
        copy.devsup(*words)
        return copy.devsup("stop", "web", "--json").wall

    def bare() -> float:
        server = bare_server(copy, FIRST_PORT)
        wait_for_answer(FIRST_PORT)
        return end_group(server)

    value, reference = paired(ours, bare, rounds=rounds)
    own = median(lambda: copy.devsup("list", "--json").wall, rounds=rounds)
    return [
        figure("stop, beyond the tree's own and the CLI's", (value - reference - own) * 1e3, "ms", budget=50)
    ]


def stop_twenty(copy: Installed, rounds: int) -> list[Figure]:
    """Measure `stop --all` of twenty servers beside twenty bare TERMs."""

    def ours() -> float:
        for number in range(TWENTY):
            copy.devsup(
                "start",
                f"web{number}",
                "--port",
                str(FIRST_PORT + number),
                "--json",
                "--",
                sys.executable,
                WEB,
            )
        return copy.devsup("stop", "--all", "--json").wall

    def bare() -> float:
        servers = [bare_server(copy, FIRST_PORT + number) for number in range(TWENTY)]
        for number in range(TWENTY):
            wait_for_answer(FIRST_PORT + number)
        return end_group(*servers)

    value, reference = paired(ours, bare, rounds=rounds)
    own = median(lambda: copy.devsup("list", "--json").wall, rounds=rounds)
    return [
        figure(
            "stop --all of 20, without the CLI's own",
            (value - own) * 1e3,
            "ms",
            budget=1.5,
            reference=reference * 1e3,
        )
    ]


def hundred(copy: Installed) -> list[Figure]:
    """Let a hundred callers start one app at once: one spawn, one pid, in bounded time."""
    argv = [copy.script, "start", "web", "--port", str(FIRST_PORT), "--json", "--", sys.executable, WEB]

    def all_at_once(command: list[str]) -> tuple[float, list[str]]:
        before = time.perf_counter()
        callers = [
            subprocess.Popen(
                command, cwd=copy.project, env=copy.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
            )
            for _ in range(CALLERS)
        ]
        answers = [caller.communicate(timeout=60)[0].decode() for caller in callers]
        return time.perf_counter() - before, answers

    all_at_once([copy.python, "-I", "-c", "pass"])
    bare, _ = all_at_once([copy.python, "-I", "-c", "pass"])
    before = time.perf_counter()
    copy.run(argv)
    one = time.perf_counter() - before
    copy.devsup("stop", "web", "--json")
    value, answers = all_at_once(argv)
    data = [json.loads(answer)["data"] for answer in answers]
    spawns = sum(not one["reused"] for one in data)
    servers = {(one["server"]["pid"], one["server"]["url"]) for one in data}
    copy.devsup("stop", "web", "--json")
    return [
        figure("100 starts of one app", value * 1e3, "ms", budget=1, reference=(3 * bare + one) * 1e3),
        figure("100 starts: spawns", spawns, "", budget=1),
        figure("100 starts: distinct servers in the answers", len(servers), "", budget=1),
    ]
