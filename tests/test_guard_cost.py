"""What a guard costs: memory once, and time only when something happens."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.guarding import Host
from tests.serving import LINUX_ONLY, Servers, alive, pid_at, process, script
from tests.support import (
    ROOT,
    free_port,
    server_argv,
    wait_until,
)

if TYPE_CHECKING:
    from tests.redis_support import RedisServer
    from tests.support import Devsup, Leftovers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")


@pytest.fixture
def servers(devsup: Devsup, home: Path, project: Path) -> Servers:
    return Servers(devsup, home, project)


#: Each of them would cost a guard more than it may use for all of its own.
HEAVY = {
    "asyncio", "dataclasses", "inspect", "logging", "pathlib", "psutil", "pydantic", "rich", "shutil",
    "socket", "ssl", "subprocess", "tempfile", "threading", "typer", "typing",
}  # fmt: skip


LOADED = """
import json, sys
sys.path.append(sys.argv[1])
import devsup.guard.beginning, devsup.guard.loop
print(json.dumps([*sys.modules]))
"""


def modules_of_a_guard() -> set[str]:
    """Load what a guard loads, into an interpreter as bare as its own; return what that then has."""
    argv = [sys.executable, "-I", "-S", "-c", LOADED, str(ROOT)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=120)
    return set(json.loads(done.stdout))


@LINUX_ONLY
def test_a_guard_loads_nothing_heavy() -> None:
    """Nor anything for a fleet that it is not in."""
    loaded = modules_of_a_guard()
    assert HEAVY.isdisjoint(loaded)
    assert not [name for name in loaded if name.startswith("devsup.redis")]
    assert {"devsup.guard.fleet", "devsup.guard.lease", "devsup.fleet.listing"}.isdisjoint(loaded)


#: MiB; design.md, "Budgets".
RSS, PRIVATE = 16.0, 7.0


@LINUX_ONLY
def test_a_guard_is_small(servers: Servers) -> None:
    modules_of_a_guard()  # the first one also compiles them
    port = free_port()
    server = servers.stand_in("web", "web", port=port)
    servers.devsup("restart", "web")
    rss, private = memory(server["guard_pid"])
    assert rss <= RSS
    assert private <= PRIVATE
    servers.stop("web")


def memory(pid: int) -> tuple[float, float]:
    """Return the MiB that a process has in memory, and those of them that are its own."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
    mib = {name: int(value) / 1024 for name, value in fields.items()}
    return mib["Rss"], mib["Private_Clean"] + mib["Private_Dirty"]


#: The same in a fleet; a beat is a third of its time, and costs so many ms of CPU.
FLEET_RSS, FLEET_PRIVATE, BEAT_MS = 32.0, 20.0, 1.0


@LINUX_ONLY
def test_a_guard_in_a_fleet_is_small_and_wakes_once_a_beat(
    leftovers: Leftovers, temporary: Path, shared_redis: RedisServer
) -> None:
    """An exclusive server's: it says that it is there, renews its lease and hears the answer."""
    host = Host("elm", temporary, shared_redis.url, leftovers)
    client = shared_redis.client()
    server = host.start(client=client, ttl=1.5)
    server.published(client, "running")
    guard = server.guard

    def cost() -> tuple[float, int]:
        """Return the ms of CPU so far, which the kernel counts in ns, and how often it went to sleep."""
        ran = int(Path(f"/proc/{guard}/schedstat").read_text().split()[0]) / 1e6
        return ran, process(guard).num_ctx_switches().voluntary

    def of_a_beat() -> tuple[float, float]:
        before, began = cost(), time.monotonic()
        time.sleep(2.0)  # the very thing that is measured
        after, beats = cost(), (time.monotonic() - began) / 0.5
        return (after[0] - before[0]) / beats, (after[1] - before[1]) / beats

    best = [min(each) for each in zip(*(of_a_beat() for _ in range(3)), strict=True)]
    assert best[0] <= BEAT_MS
    # One to speak, one to hear the answer; the windows may have one beat more than they are long.
    assert best[1] <= 2 * 5 / 4
    rss, private = memory(guard)
    assert rss <= FLEET_RSS
    assert private <= FLEET_PRIVATE
    server.stop()


@LINUX_ONLY
def test_guards_sleep_while_nothing_happens(servers: Servers) -> None:
    """Of a ready server, of one that was restarted, of one whose wrapper is gone, of an adopted one."""
    started = {
        "plain": servers.stand_in("plain", "web", port=free_port()),
        "restarted": servers.stand_in("restarted", "web", port=free_port()),
        "leaderless": servers.stand_in("leaderless", "leader_first", "--after", "0", port=free_port()),
        "adopted": servers.stand_in("adopted", "web", port=free_port()),
    }
    servers.devsup("restart", "restarted")
    process(started["adopted"]["guard_pid"]).kill()
    servers.start("adopted", *server_argv("web"), port=started["adopted"]["port"])
    wait_until(lambda: not alive(process(started["leaderless"]["pid"])))
    guards = {name: process(servers.find(name)["guard_pid"]) for name in started}

    def cost() -> dict[str, tuple[float, int]]:
        return {
            name: (sum(guard.cpu_times()[:2]), guard.num_ctx_switches().voluntary)
            for name, guard in guards.items()
        }

    def settled() -> bool:
        before = cost()
        time.sleep(0.3)
        return cost() == before

    wait_until(settled, 20)
    before = cost()
    time.sleep(2.0)  # the very thing that is measured
    after = cost()
    for name in guards:
        cpu, switches = (one - other for one, other in zip(after[name], before[name], strict=True))
        assert cpu < 0.015, name  # one tick of the clock, and what adding floats makes of it
        assert switches <= 2, name
    servers.devsup("stop", "--all")
    servers.nothing_is_left()


def sleeps(guard: psutil.Process) -> bool:
    """Tell whether ``guard`` sleeps most of the time; one that spins never does, however busy the machine."""
    seen = 0
    for _ in range(20):
        seen += guard.status() == psutil.STATUS_SLEEPING
        time.sleep(0.01)
    return seen > 10


SECOND_TIME_SILENT = """
import os
from stand_in import listen, obey, serve, sleep_forever, wanted_port
obey()
if os.path.exists("once"):
    sleep_forever()
open("once", "w").close()
serve(listen(wanted_port()))
"""


@LINUX_ONLY
def test_a_guard_sleeps_while_a_restarted_server_does_not_listen(servers: Servers) -> None:
    """The old listener's descriptor is ready for ever: who still waits on it never sleeps again."""
    port = free_port()
    server = servers.start("web", *script(servers.project, "silent", SECOND_TIME_SILENT), port=port)
    assert servers.devsup("restart", "web", "--timeout", "0.5", "--json").code == 6
    wait_until(lambda: sleeps(process(server["guard_pid"])))  # on a busy machine it may still begin
    servers.stop("web")
    servers.nothing_is_left(port)


BACKGROUND = """
import os
from stand_in import listen, obey, serve, sleep_forever, wanted_port
port = wanted_port()
up, is_up = os.pipe()
if os.fork() == 0:
    os.close(up)
    listener = listen(port)
    if os.fork() == 0:
        listener.close()
        os.close(is_up)
        sleep_forever()
    os.close(is_up)
    serve(listener)
os.close(is_up)
os.read(up, 1)
while not os.path.exists("leave"):
    os.stat(".")
"""


@LINUX_ONLY
def test_a_command_in_the_background_that_stops_serving_is_swept(servers: Servers) -> None:
    """Its leader ended with 0 long ago, its listener now: what is left is of no use to anybody."""
    code = BACKGROUND.replace("    os.stat", "    pause(0.01)\n    os.stat").replace(
        "obey, serve", "pause, serve"
    )
    port = free_port()
    server = servers.start("job", *script(servers.project, "background", code), "--port", port)
    leader, listener = process(server["pid"]), process(pid_at(port))
    (helper,) = wait_until(listener.children)
    servers.state_becomes("job", "ready")
    (servers.project / "leave").touch()
    wait_until(lambda: not alive(leader))
    listener.kill()
    servers.state_becomes("job", "exited")
    assert not alive(helper)
    servers.devsup("stop", "job")
    servers.nothing_stays(port)
