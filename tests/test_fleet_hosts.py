"""
Three hosts that share a Redis and want one server: races, hosts that vanish, sleep and are cut off.

Each has its own state folder, pid namespace (where this user may make one), copy of the project and way to
Redis. The server beats while it runs: so what is asserted is not what anybody says, but when it really ran.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.hosts import Host
from tests.redis_support import Proxy
from tests.serving import LINUX_ONLY
from tests.support import SERVERS, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.redis_support import RedisServer
    from tests.support import Answer

pytestmark = LINUX_ONLY

NAMES = ("oak", "elm", "ash")
#: Seconds of the lease: long enough for a busy machine, short enough to wait for.
TTL = 3


class Run(NamedTuple):
    """When one server ran, in ms since the machine's boot."""

    first: int
    last: int
    name: str


class Fleet:
    """Three hosts, each with a proxy to Redis of its own."""

    def __init__(self, folder: Path, redis: RedisServer, stack: ExitStack) -> None:
        self.folder = folder
        self.redis = redis
        self.beats = folder / "beats"
        self.proxies = {name: stack.enter_context(Proxy(redis.port)) for name in NAMES}
        self.hosts = {name: stack.enter_context(self.host(name)) for name in NAMES}

    def host(self, name: str) -> Host:
        """Switch a host on."""
        project = self.folder / f"{name}-project"
        project.mkdir(exist_ok=True)
        return Host(name, self.folder, project, fleet=self.proxies[name].url)

    def configure(self, *, on_lost: str = "keep", ttl: int = TTL) -> None:
        """Write every host's configuration."""
        for name, host in self.hosts.items():
            port = free_port()
            command = [
                sys.executable, "-SE", str(SERVERS / "beater.py"),
                "--beats", str(self.beats), "--name", name, "--port", str(port),
            ]  # fmt: skip
            (host.project / "devsup.toml").write_text(
                f'project = "shop"\n[fleet]\nttl = "{ttl}s"\non_lost = "{on_lost}"\n'
                f'[apps.web]\ncommand = {json.dumps(command)}\nport = {port}\nexclusive = "fleet"\n'
            )

    def runs(self) -> list[Run]:
        """Return when each server ran, by their beginning."""
        found: dict[str, Run] = {}
        for line in self.beats.read_text().splitlines() if self.beats.exists() else ():
            name, _, text = line.partition(" ")
            at = int(text)
            found[name] = (
                Run(min(at, found[name].first), max(at, found[name].last), name)
                if name in found
                else Run(at, at, name)
            )
        return sorted(found.values())

    def overlaps(self) -> list[tuple[Run, Run]]:
        """Return the pairs that ran at one time."""
        runs = self.runs()
        return [(one, other) for one, other in pairwise(runs) if other.first <= one.last]

    def state(self, name: str) -> str:
        """Return what one host says of its server."""
        return str(self.hosts[name].run("status", "web", "--json").data["server"]["state"])

    def lease(self, name: str) -> str:
        """Return what one host says of its server's lease."""
        return str(self.hosts[name].run("status", "web", "--json").data["lease"]["state"])

    def start(self, name: str) -> Answer:
        """Ask for the server on one host."""
        return self.hosts[name].run("start", "web", "--json")


@pytest.fixture
def fleet(temporary: Path, redis_server: RedisServer) -> Iterator[Fleet]:
    """Give three hosts."""
    redis_server.start(appendonly=True)
    with ExitStack() as stack:
        made = Fleet(temporary, redis_server, stack)
        made.configure()
        yield made


@pytest.mark.parametrize("starts", [12, pytest.param(100, marks=pytest.mark.stress)])
def test_of_many_starts_on_three_hosts_one_server_comes(fleet: Fleet, starts: int) -> None:
    """Every other caller gets that server, or is told where it runs."""
    chosen = [NAMES[number % len(NAMES)] for number in range(starts)]
    start = ("start", "web", "--json", "--timeout", 150)  # they come one after another, on two busy cores
    calls = [(name, fleet.hosts[name].begin(*start)) for name in chosen]
    answers = [(name, fleet.hosts[name].answer(number)) for name, number in calls]
    (winner,) = {name for name, answer in answers if answer.code == 0}
    assert len({answer.data["server"]["pid"] for name, answer in answers if name == winner}) == 1
    refused = [answer for name, answer in answers if name != winner]
    assert Counter(answer.code for answer in refused) == {13: len(refused)}
    assert {answer.error["code"] for answer in refused} == {"lease_held_elsewhere"}
    assert {answer.error["details"]["host"] for answer in refused} == {winner}
    assert len(fleet.runs()) == 1
    stopped = fleet.hosts[winner].run("stop", "web", "--json")
    assert stopped.code == 0
    other = next(name for name in NAMES if name != winner)
    assert fleet.start(other).code == 0  # given back at once
    assert fleet.overlaps() == []


def test_a_host_that_vanished_is_lost_and_its_lease_goes_to_another(fleet: Fleet) -> None:
    fleet.configure(ttl=8)  # a busy machine takes seconds for the next start
    assert fleet.start("oak").code == 0
    fleet.hosts["oak"].switch_off()
    assert fleet.start("elm").error["code"] == "lease_held_elsewhere"
    answer = wait_until(lambda: (got := fleet.start("elm")).code == 0 and got, 30)
    assert answer
    listed = fleet.hosts["ash"].run("list", "--fleet", "--json").data["servers"]
    assert {(one["host"], one["state"]) for one in listed} == {("oak", "lost"), ("elm", "ready")}
    assert fleet.overlaps() == []


def test_two_never_run_when_one_host_is_cut_off(fleet: Fleet) -> None:
    """With `stop` its guard ends its server before another host gets the lease."""
    fleet.configure(on_lost="stop")
    assert fleet.start("oak").code == 0
    fleet.proxies["oak"].refuse()
    assert wait_until(lambda: fleet.start("elm").code == 0, 30)
    wait_until(lambda: len(fleet.runs()) == 2)
    assert fleet.overlaps() == []
    assert fleet.state("oak") == "stopped"
    fleet.proxies["oak"].refuse(False)
    assert fleet.start("oak").error["details"]["host"] == "elm"


@pytest.mark.parametrize("on_lost", ["keep", "stop"])
def test_a_redis_that_hangs_for_longer_than_the_lease(fleet: Fleet, on_lost: str) -> None:
    """Nobody can start one meanwhile; afterwards the one that was kept has its lease again."""
    fleet.configure(on_lost=on_lost)
    assert fleet.start("oak").code == 0
    fleet.redis.pause()
    assert fleet.start("elm").error["code"] == "fleet_unreachable"
    ended = on_lost == "stop"
    wait_until(lambda: fleet.state("oak") == "stopped" if ended else fleet.lease("oak") == "lost", 30)
    fleet.redis.resume()
    if ended:
        wait_until(lambda: fleet.start("elm").code == 0, 30)
    else:
        wait_until(lambda: fleet.lease("oak") == "held", 30)
        assert fleet.start("elm").error["code"] == "lease_held_elsewhere"
    assert len(fleet.runs()) == (2 if ended else 1)
    assert fleet.overlaps() == []


def test_a_host_that_slept_ends_its_server_before_anything_else(fleet: Fleet) -> None:
    """Nobody can prevent that it runs for a moment when the host wakes up; it is written down."""
    fleet.configure(on_lost="stop")
    oak = fleet.hosts["oak"]
    assert oak.run("start", "web", "--json").code == 0
    oak.freeze()
    assert wait_until(lambda: fleet.start("elm").code == 0, 30)
    oak.thaw()
    wait_until(lambda: fleet.state("oak") == "stopped", 20)
    events = [json.loads(line) for line in oak.run("events", "--json").out.splitlines()]
    assert any(event["type"] == "finding" and "elm" in json.dumps(event) for event in events)
    assert (fleet.state("elm"), fleet.lease("elm")) == ("ready", "held")


@pytest.mark.parametrize("data", [True, False], ids=["with data", "without data"])
def test_one_goes_on_running_over_a_restart_of_redis(fleet: Fleet, data: bool) -> None:
    assert fleet.start("oak").code == 0
    before = fleet.hosts["oak"].run("status", "web", "--json").data["lease"]["fencing"]
    fleet.redis.restart(data=data)
    # One that has lost its data knows of the lease once the guard has been there.
    with fleet.redis.client() as client:
        wait_until(lambda: any(client.scan_iter("*lease*")), 20)
    wait_until(lambda: fleet.start("elm").error["code"] == "lease_held_elsewhere", 20)
    assert fleet.hosts["oak"].run("status", "web", "--json").data["lease"]["fencing"] == before
    assert len(fleet.runs()) == 1


def test_a_stop_reaches_the_other_host(fleet: Fleet) -> None:
    assert fleet.start("oak").code == 0
    [result] = fleet.hosts["elm"].run("stop", "web", "--fleet", "--json").data["results"]
    assert (result["outcome"], result["port_free"]) == ("stopped", True)
    assert fleet.start("elm").code == 0
    assert fleet.overlaps() == []
