"""
What a fleet costs: its list, a guard's part in it, and how often a start asks Redis. Needs a redis-server.

The Redis is one of the tests' own, on loopback: what is measured is devsup, not a network. Linux only.
"""

from __future__ import annotations

import json
import select
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.commands import FIRST_PORT, WEB
from benchmarks.guards import cpu_of, memory_of, switches_of
from benchmarks.measure import Figure, Installed, figure, paired
from devsup.fleet import listing
from tests.redis_support import Proxy, RedisServer, missing_reason

if TYPE_CHECKING:
    import redis

HOSTS, SERVERS = 50, 1000
#: Seconds of a lease: a guard is heard of every third of it.
TTL = 3
#: Seconds of watching a guard whose server is idle.
WATCHED = 30.0
_CONFIG = f"""
project = "shop"
[fleet]
ttl = "{TTL}s"
[apps.web]
command = [{{command}}]
port = {FIRST_PORT}
exclusive = "fleet"
"""


def run(copy: Installed, rounds: int) -> list[Figure]:
    """Measure a list of many servers, a start and a guard."""
    if reason := missing_reason():
        print(reason, file=sys.stderr)
        return []
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with RedisServer(folder) as server, Proxy(server.start().port) as proxy:
            copy.environ |= {"DEVSUP_FLEET": proxy.url, "DEVSUP_HOST": "here"}
            with server.client() as client:
                figures = [*_list(copy, rounds, client, server.url), *_start_and_guard(copy, proxy)]
    finally:
        for name in ("DEVSUP_FLEET", "DEVSUP_HOST"):
            copy.environ.pop(name, None)
        shutil.rmtree(folder)
    return figures


def _list(copy: Installed, rounds: int, client: redis.Redis, url: str) -> list[Figure]:
    """Measure `list --fleet` beside the import of redis-py, which a client on it would begin with."""
    shown = json.loads(copy.devsup("start", "one", "--json", "--no-wait", "--", "sleep", "1000").out)
    server = shown["data"]["server"]
    copy.devsup("stop", "one", "--json")
    for number in range(SERVERS):
        one = {**server, "id": f"{number:016x}", "app": f"app{number}", "state": "ready"}
        command = listing.publish("default", one, host=f"host{number % HOSTS}", project="shop", ttl=3600)
        client.execute_command(*command)  # type: ignore[no-untyped-call]
    library = [sys.executable, "-I", "-c", "import redis"]
    through, copy.environ["DEVSUP_FLEET"] = copy.environ["DEVSUP_FLEET"], url

    def listed() -> float:
        done = copy.devsup("list", "--fleet", "--json")
        assert len(json.loads(done.out)["data"]["servers"]) == SERVERS
        return done.wall

    value, reference = paired(listed, lambda: copy.run(library).wall, rounds=rounds)
    copy.environ["DEVSUP_FLEET"] = through
    client.flushall()
    name = f"list --fleet --json, {SERVERS} servers on {HOSTS} hosts / import redis"
    return [figure(name, value * 1e3, "ms", budget=2, reference=reference * 1e3)]


def _start_and_guard(copy: Installed, proxy: Proxy) -> list[Figure]:
    file = copy.project / "devsup.toml"
    before = file.read_text()
    file.write_text(_CONFIG.replace("{command}", f'"{sys.executable}", "{WEB}"'))
    try:
        trips = proxy.round_trips
        started = json.loads(copy.devsup("start", "web", "--json").out)["data"]["server"]
        trips = proxy.round_trips - trips
        guard = started["guard_pid"]
        select.select([], [], [], TTL)  # until it does nothing but keep its lease
        woken, cpu = switches_of(guard), cpu_of(guard)
        select.select([], [], [], WATCHED)
        beats = WATCHED / (TTL / 3)
        woken, cpu = switches_of(guard) - woken, cpu_of(guard) - cpu
        resident, private = memory_of(guard)
        copy.devsup("stop", "web", "--json")
    finally:
        file.write_text(before)
    return [
        figure("start in a fleet, round trips of caller and guard until ready", trips, "", budget=3),
        figure("guard in a fleet, resident", resident, "MiB", budget=32),
        figure("guard in a fleet, private", private, "MiB", budget=20),
        # Once by its timer, and once by the answer to what it then says.
        figure("guard in a fleet, times it runs a third of the ttl", woken / beats, "", budget=2.3),
        figure("guard in a fleet, CPU a renewal", cpu / beats * 1e3, "ms", budget=1),
    ]
