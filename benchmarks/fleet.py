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
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.commands import FIRST_PORT, WEB
from benchmarks.guards import cpu_of, memory_of, wakeups_of
from benchmarks.measure import Figure, Installed, figure, paired
from devsup.fleet import listing
from tests.redis_support import Proxy, RedisServer, missing_reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

HOSTS, SERVERS = 50, 1000
#: Seconds of a lease, of which a guard is heard every third; and of one that nobody renews meanwhile.
TTL, LONG_TTL = 3, 60
#: Seconds from the moment that a server is ready until all answers to its guard have come.
ANSWERED = 1.0
#: Seconds of watching a guard whose server is idle.
WATCHED = 30.0
_CONFIG = f"""
project = "shop"
[fleet]
ttl = "{{ttl}}s"
[apps.web]
command = ["{sys.executable}", "{WEB}"]
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
                figures = _list(copy, rounds, client, server.url)
                figures += [_start(copy, client, proxy), *_guard(copy)]
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


@contextmanager
def _started(copy: Installed, ttl: float) -> Iterator[int]:
    """Start an exclusive server and give the pid of its guard."""
    file = copy.project / "devsup.toml"
    before = file.read_text()
    file.write_text(_CONFIG.format(ttl=ttl))
    try:
        yield int(json.loads(copy.devsup("start", "web", "--json").out)["data"]["server"]["guard_pid"])
        copy.devsup("stop", "web", "--json")
    finally:
        file.write_text(before)


def _start(copy: Installed, client: redis.Redis, proxy: Proxy) -> Figure:
    """Count what is asked until the list of the fleet says that it is ready, which is after `start`."""
    before = proxy.round_trips
    with _started(copy, LONG_TTL):
        for _ in range(100):
            listed = listing.entries(client.execute_command(*listing.read_all("default")))  # type: ignore[no-untyped-call]
            if [one.server["state"] for one in listed] == ["ready"]:
                break
            select.select([], [], [], 0.05)
        else:
            raise AssertionError(listed)
        select.select([], [], [], ANSWERED)
        trips = proxy.round_trips - before
    return figure("start in a fleet, round trips of caller and guard until ready", trips, "", budget=3)


def _guard(copy: Installed) -> list[Figure]:
    with _started(copy, TTL) as guard:
        select.select([], [], [], TTL)  # until it does nothing but keep its lease
        woken, cpu = wakeups_of(guard), cpu_of(guard)
        select.select([], [], [], WATCHED)
        beats = WATCHED / (TTL / 3)
        woken, cpu = wakeups_of(guard) - woken, cpu_of(guard) - cpu
        resident, private = memory_of(guard)
    return [
        figure("guard in a fleet, resident", resident, "MiB", budget=32),
        figure("guard in a fleet, private", private, "MiB", budget=20),
        # Once by its timer, and once by the answer to what it then says.
        figure("guard in a fleet, wake-ups a third of the ttl", woken / beats, "", budget=2.3),
        figure("guard in a fleet, CPU a renewal", cpu / beats * 1e3, "ms", budget=1),
    ]
