"""
The lease of an exclusive app under every fault of a real Redis, the network, the clock and the guard itself.

Times to live are short here, so what is said to be held must be true on a busy machine all the same: where a
test needs a lease that is not lost, it has one of several seconds.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import pytest

from devsup import identity
from devsup.clock import boottime, now_ms
from devsup.fleet import membership, note
from devsup.guard import job as jobs
from devsup.guard.spawn import ADOPT, LOOK
from devsup.models import State, StopClaim
from devsup.redis import leases
from devsup.redis.leases import Granted
from tests.guarding import PLAIN, SLOW, STUBBORN, Host, asleep, send
from tests.redis_support import Proxy
from tests.serving import alive
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from tests.guarding import Guarded
    from tests.redis_support import RedisServer
    from tests.support import Leftovers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="guards in a fleet are tested on Linux")


class Hosts:
    """Hosts of one fleet, with a Redis that is the test's own to hurt and a network that it can cut."""

    def __init__(self, folder: Path, server: RedisServer, proxy: Proxy, leftovers: Leftovers) -> None:
        self.folder = folder
        self.server = server
        self.proxy = proxy
        self.leftovers = leftovers

    def host(self, name: str = "elm", url: str | None = None) -> Host:
        """Return a host that reaches Redis by the network."""
        return Host(name, self.folder, url or self.proxy.url, self.leftovers)

    @property
    def client(self) -> redis.Redis:
        """A client that no fault of the network touches."""
        return self.server.client()


@pytest.fixture
def hosts(temporary: Path, redis_server: RedisServer, leftovers: Leftovers) -> Iterator[Hosts]:
    redis_server.start(appendonly=True)
    with Proxy(redis_server.socket) as proxy:
        yield Hosts(temporary, redis_server, proxy, leftovers)


def runs(server: Guarded) -> bool:
    """Tell whether its process has not ended."""
    try:
        return psutil.Process(server.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def counter(client: redis.Redis, server: Guarded) -> int:
    """Return the highest number that Redis knows to have been given."""
    return int(str(client.get(server.keys.counter) or 0))


# -- nothing of this is for a start or a stop to wait for -----------------------------------------------


def timed(host: Host, *, member: bool) -> tuple[float, float]:
    """Return the seconds of a start, until the server runs, and of a stop."""
    began = time.monotonic()
    server = host.start(member=member, app=f"app{time.monotonic_ns()}")
    wait_until(lambda: server.row.state is State.RUNNING, pause=0.002)
    started = time.monotonic() - began
    return started, server.stop()


def least(which: int, pairs: list[tuple[float, float]]) -> float:
    """Return the least of all first numbers, or of all second ones."""
    return min(pair[which] for pair in pairs)


@pytest.mark.parametrize("fault", ["frozen", "gone", "mute"])
def test_a_start_and_a_stop_never_wait_for_redis(hosts: Hosts, fault: str) -> None:
    """It is stopped in its tracks, it has ended, or something accepts there and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}" if fault == "mute" else hosts.server.url
        host = hosts.host(url=url)
        before = host.start(ttl=3)
        if fault != "mute":
            before.published(hosts.client, "running")
        if fault == "frozen":
            hosts.server.pause()
        elif fault == "gone":
            hosts.server.kill()
        starts, stops = [], []
        for _ in range(3):  # in turns, as others may be busy at any time; what waits for Redis does each time
            plain, member = timed(host, member=False), timed(host, member=True)
            starts.append((plain[0], member[0]))
            stops.append((plain[1], member[1]))
            # What is frozen was there a moment ago: it gets a twentieth of a second to say that it has heard.
            longer = [least(1, one) - least(0, one) for one in (starts, stops)]
            if max(longer) < 0.3:
                break
        assert max(longer) < 0.3, (starts, stops)
        assert before.stop() < 5.0
        if fault == "frozen":
            hosts.server.resume()
            wait_until(lambda: before.entry(hosts.client) is None)  # and it has heard


# -- kept ------------------------------------------------------------------------------------------------


def test_an_answer_that_is_lost_costs_nothing(hosts: Hosts) -> None:
    """The connection is cut between a renewal and its answer."""
    server = hosts.host().start(client=hosts.client, ttl=6)
    server.published(hosts.client, "running")
    server.renewed()
    fencing = server.fencing()
    hosts.proxy.cut_before_answer()
    assert hosts.proxy.has_cut.wait(20)
    server.renewed()
    assert (server.holds, server.fencing(), server.host.findings()) == (True, fencing, [])
    assert hosts.proxy.connections == 2
    server.stop()
    wait_until(lambda: server.lease(hosts.client) == {})


@pytest.mark.parametrize("data", [True, False])
def test_redis_that_comes_back_is_told_again(hosts: Hosts, *, data: bool) -> None:
    """Without its data it gets the lease back with its old number, and the counter is not below that."""
    host = hosts.host()
    server = host.start(client=hosts.client, ttl=9)
    server.published(hosts.client, "running")
    fencing = server.fencing()
    hosts.server.restart(data=data)
    server.renewed()
    server.published(hosts.client, "running")
    assert (server.holds, server.fencing(), host.findings()) == (True, fencing, [])
    assert server.lease(hosts.client)["fencing"] == str(fencing)
    assert counter(hosts.client, server) == fencing
    server.stop()


def test_a_key_that_is_gone_is_set_again(hosts: Hosts) -> None:
    """With the old number where nobody has had it, with a new one where somebody has."""
    client = hosts.client
    host = hosts.host()
    server = host.start(client=client, ttl=6)
    server.published(client, "running")
    fencing = server.fencing()
    client.delete(server.keys.lease)
    server.renewed()
    assert server.lease(client)["fencing"] == str(fencing) == str(server.fencing())
    client.delete(server.keys.lease)
    client.set(server.keys.counter, fencing + 1_000_000_000)
    wait_until(lambda: server.fencing() > fencing, 20)
    assert server.holds
    assert server.fencing() > fencing + 1_000_000_000
    assert server.lease(client)["fencing"] == str(server.fencing())
    member = membership.read(jobs.read(host.home.job(server.id)).fleet)
    assert member is not None
    assert member.lease is not None
    assert member.lease.fencing == server.fencing()  # a guard that takes over goes by it
    assert host.findings() == [
        ("lease_overlap", True), ("lease_lost", True), ("lease_overlap", False), ("lease_lost", False),
    ]  # fmt: skip
    server.stop()


def test_a_full_redis_goes_on_hearing_of_it(hosts: Hosts) -> None:
    client = hosts.client
    server = hosts.host().start(client=client, ttl=6)
    entry = server.published(client, "running")
    client.config_set("maxmemory", "1")
    with pytest.raises(Exception, match="maxmemory"):
        client.set("more", "x")
    server.renewed()
    server.renewed()
    later = server.entry(client)
    assert later is not None
    assert later.seen_at > entry.seen_at
    assert (server.holds, server.host.findings()) == (True, [])
    client.delete(server.keys.lease, server.keys.counter)  # also what it has lost meanwhile
    wait_until(lambda: server.lease(client).get("fencing") == str(server.fencing()), 20)
    assert counter(client, server) == server.fencing()
    server.stop()
    wait_until(lambda: server.entry(client) is None)


def test_a_number_that_a_killed_guard_did_not_write_down_is_found_again(hosts: Hosts) -> None:
    """It had got a new one for its lease and died before the job said so: no number is ever gone back to."""
    client = hosts.client
    server = hosts.host().start(client=client, ttl=5)
    server.published(client, "running")
    guard, fencing, token = psutil.Process(server.guard), server.fencing(), server.lease(client)["token"]
    guard.kill()
    wait_until(lambda: not alive(guard))
    assert send(client, leases.release(server.keys, token)) == 1
    newer = server.take_over(client, token)
    assert newer > fencing
    with server.spawn(ADOPT) as hearing:
        assert hearing.wait("l", time.monotonic() + 30)
    wait_until(lambda: server.fencing() == newer, 20)
    client.flushall()
    wait_until(lambda: server.lease(client).get("fencing") == str(newer), 20)
    server.stop()


# -- lost, and the server goes on ------------------------------------------------------------------------


def test_a_lost_lease_is_marked_and_taken_again(hosts: Hosts) -> None:
    host = hosts.host()
    server = host.start(client=hosts.client, ttl=3)
    wait_until(lambda: server.holds)
    fencing = server.fencing()
    hosts.server.kill()
    wait_until(lambda: not server.holds)
    wait_until(lambda: host.findings() == [("lease_lost", True)])
    assert runs(server)
    hosts.server.restart(data=False)
    wait_until(lambda: server.holds, 20)
    assert server.fencing() == fencing
    wait_until(lambda: host.findings() == [("lease_lost", True), ("lease_lost", False)])
    server.stop()


def test_a_guard_that_takes_over_asks_before_it_ends_anything(hosts: Hosts) -> None:
    """The lease has run out while there was none; nobody else has had it."""
    client = hosts.client
    server = hosts.host().start(client=client, ttl=4, on_lost="stop")
    server.published(client, "running")
    fencing = server.fencing()
    guard = psutil.Process(server.guard)
    guard.kill()
    wait_until(lambda: not alive(guard) and server.lease(client) == {})
    with server.spawn(ADOPT) as hearing:
        assert hearing.wait("l", time.monotonic() + 30)
    wait_until(lambda: server.lease(client), 20)
    server.renewed()
    assert (server.holds, server.fencing(), runs(server)) == (True, fencing, True)
    server.stop()


def test_a_guard_that_takes_over_says_what_was_lost_before_it(hosts: Hosts) -> None:
    """There was none when the time was over, and Redis cannot be asked now."""
    host = hosts.host()
    server = host.start(client=hosts.client, ttl=3)
    server.published(hosts.client, "running")
    guard = psutil.Process(server.guard)
    guard.kill()
    wait_until(lambda: not alive(guard) and not server.holds)
    assert host.findings() == []
    hosts.proxy.refuse()
    with server.spawn(ADOPT) as hearing:
        assert hearing.wait("l", time.monotonic() + 30)
    assert host.findings() == [("lease_lost", True)]
    hosts.proxy.refuse(False)
    wait_until(lambda: host.findings() == [("lease_lost", True), ("lease_lost", False)], 20)
    server.stop()


def test_a_guard_that_takes_over_closes_what_the_one_before_has_found(hosts: Hosts) -> None:
    host = hosts.host()
    server = host.start(client=hosts.client, ttl=3)
    wait_until(lambda: server.holds)
    hosts.proxy.refuse()
    wait_until(lambda: host.findings() == [("lease_lost", True)])
    guard = psutil.Process(server.guard)
    guard.kill()
    wait_until(lambda: not alive(guard))
    hosts.proxy.refuse(False)
    with server.spawn(ADOPT) as hearing:
        assert hearing.wait("l", time.monotonic() + 30)
    wait_until(lambda: host.findings() == [("lease_lost", True), ("lease_lost", False)], 20)
    assert server.holds
    server.stop()


def test_a_lease_that_another_has_taken_is_had_again_once_it_is_free(hosts: Hosts) -> None:
    host, client = hosts.host(), hosts.client
    server = host.start(client=client, ttl=1)
    wait_until(lambda: server.lease(client).get("url") == "" and server.holds)
    fencing = server.fencing()
    hosts.proxy.refuse()
    wait_until(lambda: not server.holds)
    wait_until(lambda: server.lease(client) == {})
    elsewhere = server.take_over(client)
    assert elsewhere > fencing
    hosts.proxy.refuse(False)
    wait_until(lambda: ("lease_overlap", True) in host.findings(), 20)
    assert (runs(server), server.holds) == (True, False)
    assert server.lease(client)["token"] == "elsewhere"
    assert send(client, leases.release(server.keys, "elsewhere")) == 1
    wait_until(lambda: server.holds, 20)
    assert server.fencing() > elsewhere
    wait_until(lambda: sum(1 if is_open else -1 for _, is_open in host.findings()) == 0)
    server.stop()
    wait_until(lambda: server.lease(client) == {})


def test_a_read_only_replica_is_no_place_for_a_lease(hosts: Hosts) -> None:
    host, client = hosts.host(), hosts.client
    server = host.start(client=client, ttl=1)
    wait_until(lambda: server.lease(client).get("url") == "" and server.holds)
    fencing = server.fencing()
    client.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
    wait_until(lambda: not server.holds)
    assert "read-only replica" in host.log()
    assert runs(server)
    client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]
    wait_until(lambda: server.holds, 20)
    assert server.fencing() == fencing
    server.stop()


def test_a_password_that_is_changed_is_said_and_not_shown(
    temporary: Path, redis_server: RedisServer, leftovers: Leftovers
) -> None:
    redis_server.start(password="geheim1")
    host = Host("elm", temporary, redis_server.url, leftovers)
    server = host.start(client=redis_server.client(), ttl=1)
    server.published(redis_server.client(), "running")
    redis_server.kill()
    redis_server.start(password="geheim2")
    wait_until(lambda: "refuses this user or password" in host.log(), 20)
    wait_until(lambda: not server.holds)
    assert runs(server)
    redis_server.kill()
    redis_server.start(password="geheim1")
    wait_until(lambda: server.holds, 20)
    assert "geheim" not in host.log()
    server.stop()


#: A guard that neither hears nor says anything from when the file `deaf` is there, but at its very end.
DEAF = """
from devsup.guard.fleet import Fleet
advance = Fleet._advance
Fleet._advance = lambda self, ready: None if os.path.exists(FOLDER + "/deaf") else advance(self, ready)
"""


def test_a_lost_lease_is_not_taken_anew_at_the_end(hosts: Hosts) -> None:
    """Another host has had it and it is free: the end finds that out, and leaves it free."""
    host, client = hosts.host(), hosts.client
    server = host.start(client=client, ttl=3, code=DEAF)
    server.published(client, "running")
    (host.folder / "deaf").touch()
    wait_until(lambda: server.lease(client) == {})
    server.take_over(client)
    assert send(client, leases.release(server.keys, "elsewhere")) == 1
    server.stop()
    assert (server.lease(client), server.entry(client)) == ({}, None)
    assert os.listdir(host.home.servers) == []
    assert host.findings() == [
        ("lease_overlap", True), ("lease_lost", True), ("lease_overlap", False), ("lease_lost", False),
    ]  # fmt: skip


#: A guard whose machine sleeps for 25 seconds in the moment in which the file `slept` comes to be there.
NAP = """
from devsup.guard import fleet, lease
now = fleet.boottime
fleet.boottime = lease.boottime = lambda: now() + (25 if os.path.exists(FOLDER + "/slept") else 0)
"""


def test_a_lease_that_is_nearly_over_after_a_sleep_is_renewed_at_once(hosts: Hosts) -> None:
    host = hosts.host()
    server = host.start(client=hosts.client, ttl=30, code=NAP)
    server.published(hosts.client, "running")
    before = server.shown()["renewed_at"]
    (host.folder / "slept").touch()
    os.kill(server.guard, LOOK)
    wait_until(lambda: server.shown()["renewed_at"] != before, 6)  # by the beat it would be after ten
    assert (server.holds, host.findings()) == (True, [])
    server.stop()


# -- lost, and the server is ended -----------------------------------------------------------------------


class Watch:
    """Looks, in a thread of its own, when a server ends, and until when its guard held its lease."""

    def __init__(self, server: Guarded) -> None:
        self.server = server
        self.guard = server.guard
        self.process = psutil.Process(server.pid)
        self.until = 0.0
        self.gone = 0.0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE:
            left = note.left(self.server.host.home, self.server.id)
            if left:
                self.until = boottime() + left
            time.sleep(0.002)
        self.gone = boottime()

    def result(self) -> tuple[float, float]:
        """Return both, by `boottime`."""
        self.thread.join(30)
        assert self.gone
        return self.until, self.gone


def test_of_two_hosts_that_are_cut_off_none_serves_beyond_its_lease(hosts: Hosts) -> None:
    """Nor does anybody who then gets the lease ever meet the server of before: not even a stubborn one."""
    client = hosts.client
    servers = [
        hosts.host(name).start(STUBBORN, client=client, app=app, ttl=3, on_lost="stop")
        for name, app in (("elm", "web"), ("oak", "api"))
    ]
    for server in servers:
        server.published(client, "running")
    watches = [Watch(server) for server in servers]
    hosts.proxy.refuse()
    met = []
    waiting = list(zip(servers, watches, strict=True))
    deadline = time.monotonic() + 30
    while waiting and time.monotonic() < deadline:
        for one in list(waiting):
            command = leases.acquire(one[0].keys, "elsewhere", 60_000, {})
            if isinstance(leases.answered(send(client, command)), Granted):
                met.append(one[1].process.is_running() and one[1].process.status() != psutil.STATUS_ZOMBIE)
                waiting.remove(one)
        time.sleep(0.005)
    assert met == [False, False]
    for watch in watches:
        until, gone = watch.result()
        assert until - 3 < gone < until
        end = watch.server.ended()
        assert (end.state, end.reason) == (State.STOPPED, "lease_lost")
        assert (end.outcome or {})["signals"] == ["SIGTERM", "SIGKILL"]


def test_a_registry_that_is_locked_is_no_reason_to_be_late(hosts: Hosts) -> None:
    """Whoever has locked it may be frozen, too; what there is to say of the end is said afterwards."""
    host = hosts.host()
    server = host.start(STUBBORN, client=hosts.client, ttl=3, on_lost="stop")
    server.published(hosts.client, "running")
    watch = Watch(server)
    with closing(sqlite3.connect(host.home.registry, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        hosts.proxy.refuse()
        until, gone = watch.result()
        other.execute("ROLLBACK")
    assert gone < until
    assert server.ended().reason == "lease_lost"


def test_a_locked_registry_makes_no_end_late_that_is_asked_for_shortly_before(hosts: Hosts) -> None:
    """The guard cannot read who asks, nor write that it ends; it must not wait too long for either."""
    host = hosts.host()
    server = host.start(STUBBORN, client=hosts.client, ttl=4, on_lost="stop")
    server.published(hosts.client, "running")
    watch = Watch(server)
    with closing(sqlite3.connect(host.home.registry, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with open(host.home.registry_lock, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            hosts.proxy.refuse()
            wait_until(lambda: (note.left(host.home, server.id) or 0) < 2, pause=0.002)
            os.kill(watch.guard, signal.SIGTERM)  # a third of the lease before its end would begin
            until, gone = watch.result()
        other.execute("ROLLBACK")
    assert gone < until
    assert server.ended().reason == "signal"


def test_a_frozen_redis_ends_it_in_time_and_hears_of_that_when_it_goes_on(hosts: Hosts) -> None:
    """What the guard had said before is heard then, too: it is not to bring back what has ended."""
    client = hosts.client
    server = hosts.host(url=hosts.server.url).start(client=client, ttl=4, on_lost="stop")
    server.published(client, "running")
    watch = Watch(server)
    hosts.server.pause()
    until, gone = watch.result()
    assert until - 4 < gone < until
    assert server.ended().reason == "lease_lost"
    wait_until(server.host.nobody_is_left)
    hosts.server.resume()
    wait_until(lambda: server.lease(client) == {} and server.entry(client) is None)
    time.sleep(0.2)  # nothing comes after it
    assert (server.lease(client), server.entry(client)) == ({}, None)


def test_a_restart_amid_which_the_lease_is_lost_is_an_end(hosts: Hosts) -> None:
    """The old run has no longer than the lease, whatever grace was asked for, and there is no new one."""
    host = hosts.host()
    ran = host.folder / "ran"
    code = f"open({str(ran)!r}, 'a').write('x')\n{STUBBORN}"
    server = host.start(code, client=hosts.client, ttl=4, on_lost="stop")
    server.published(hosts.client, "running")
    claim = StopClaim(identity.me(), now_ms(), "restart", 60.0, sweep=False)
    assert host.registry.claim_stop(server.id, server.generation, claim) == claim
    os.kill(server.guard, LOOK)
    server.published(hosts.client, "restarting")
    hosts.proxy.refuse()
    end = server.ended()
    assert (end.state, end.reason) == (State.STOPPED, "lease_lost")
    assert (end.outcome or {})["signals"] == ["SIGTERM", "SIGKILL"]
    assert ran.read_text() == "x"


@pytest.mark.parametrize("locked", [False, True])
def test_a_guard_that_slept_too_long_ends_its_server_before_anything_else(
    hosts: Hosts, *, locked: bool
) -> None:
    client, host = hosts.client, hosts.host()
    server = host.start(STUBBORN, client=client, ttl=3, on_lost="stop")
    server.published(client, "running")
    with open(host.home.registry_lock, "rb") as lock:
        with asleep(server):
            wait_until(lambda: server.lease(client) == {})
            elsewhere = server.take_over(client)
            assert elsewhere > server.fencing()
            assert server.shown()["state"] == "lost"  # also while nobody could write that down
            watch = Watch(server)
            if locked:
                fcntl.flock(lock, fcntl.LOCK_EX)
            began = boottime()
        _, gone = watch.result()
    assert gone - began < 4.0  # without a grace, nor a wait for the registry: of five seconds each
    assert server.ended().reason == "lease_lost"
    wait_until(host.nobody_is_left)
    assert host.findings() == [("lease_overlap", True), ("lease_overlap", False)]
    assert server.lease(client)["token"] == "elsewhere"


#: A guard that sleeps, until the file `awake` is there, when its server is about to run.
DROWSY = """
import time
from devsup.guard import launch
fork = launch.fork
def drowsy(*args):
    child = fork(*args)
    while not os.path.exists(FOLDER + "/awake"):
        time.sleep(0.01)
    return child
launch.fork = drowsy
"""


def test_a_guard_that_slept_too_long_lets_nothing_run_first(hosts: Hosts) -> None:
    """Its lease is over between the start that took it and the first instruction of the server."""
    client, host = hosts.client, hosts.host()
    ran = host.folder / "ran"
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(
            host.start, f"open({str(ran)!r}, 'w')\n{PLAIN}",
            client=client, ttl=1, on_lost="stop", code=DROWSY, runs=False,
        )  # fmt: skip
        wait_until(lambda: any(client.scan_iter("*lease*")))
        wait_until(lambda: not any(client.scan_iter("*lease*")))
        time.sleep(0.1)  # it counts from earlier on, by another clock
        (host.folder / "awake").touch()
        end = starting.result(30).ended()
    assert (end.state, end.reason) == (State.STOPPED, "lease_lost")
    assert not ran.exists()
    wait_until(host.nobody_is_left)


def test_a_guard_that_slept_and_keeps_its_server_says_who_else_had_it(hosts: Hosts) -> None:
    client, host = hosts.client, hosts.host()
    server = host.start(client=client, ttl=1)
    server.published(client, "running")
    fencing = server.fencing()
    with asleep(server):
        wait_until(lambda: server.lease(client) == {})
    wait_until(lambda: server.holds and server.lease(client), 20)
    assert server.fencing() == fencing  # nobody has had it
    with asleep(server):
        wait_until(lambda: server.lease(client) == {})
        server.take_over(client)
    wait_until(lambda: ("lease_overlap", True) in host.findings(), 20)
    assert runs(server)
    server.stop()
    wait_until(host.nobody_is_left)
    assert server.lease(client)["token"] == "elsewhere"
    assert sum(1 if is_open else -1 for _, is_open in host.findings()) == 0


JUMP = """
from devsup.guard import fleet, lease
from devsup.clock import boottime
def jumped():
    return boottime() + 3600 * os.path.exists(FOLDER + "/jump")
fleet.boottime = lease.boottime = jumped
"""


@pytest.mark.parametrize("on_lost", ["keep", "stop"])
def test_the_time_that_a_machine_slept_counts(hosts: Hosts, on_lost: str) -> None:
    """The clock of the lease jumps though no other does: Redis has answered a moment ago."""
    client, host = hosts.client, hosts.host()
    server = host.start(client=client, ttl=6, on_lost=on_lost, code=JUMP)
    server.published(client, "running")
    fencing = server.fencing()
    (host.folder / "jump").touch()
    if on_lost == "stop":
        assert server.ended().reason == "lease_lost"
        wait_until(host.nobody_is_left)
    else:
        wait_until(lambda: host.findings() == [("lease_lost", True), ("lease_lost", False)], 20)
        assert (server.fencing(), runs(server)) == (fencing, True)
        server.stop()
    wait_until(lambda: server.lease(client) == {})


@pytest.mark.parametrize("on_lost", ["keep", "stop"])
def test_a_server_that_takes_its_time_to_end_has_its_lease_for_so_long(hosts: Hosts, on_lost: str) -> None:
    """Longer than the lease is held without a renewal; and while it is renewed nobody is in a hurry."""
    client = hosts.client
    code = SLOW.replace("0.5", "4.5")
    server = hosts.host().start(code, client=client, ttl=3, on_lost=on_lost, policy={"grace": 20.0})
    server.published(client, "running")
    watch = Watch(server)
    os.kill(server.guard, signal.SIGTERM)
    met = set()
    while not watch.gone:
        met.add(bool(client.exists(server.keys.lease)) or not watch.process.is_running())
        time.sleep(0.02)
    assert met == {True}
    assert (server.ended().outcome or {})["signals"] == ["SIGTERM"]
    wait_until(lambda: not client.exists(server.keys.lease))


#: Without the descriptor of the clock, and with nothing but that.
WAKES = {
    "no descriptor": """
from devsup.system.alarm import Alarm
Alarm.__init__ = lambda self: setattr(self, "fd", None)
""",
    "no timer": "from devsup.guard.fleet import Fleet\nFleet.wakes_at = None",
}


@pytest.mark.parametrize("without", WAKES)
def test_either_clock_wakes_a_guard_in_time(hosts: Hosts, without: str) -> None:
    client = hosts.client
    server = hosts.host().start(client=client, ttl=3, on_lost="stop", code=WAKES[without])
    watch = Watch(server)
    wait_until(lambda: server.shown()["renewed_at"] is not None)
    hosts.proxy.refuse()
    until, gone = watch.result()
    assert until - 3 < gone < until
    assert server.ended().reason == "lease_lost"


def test_a_restart_does_not_outlive_the_lease(hosts: Hosts) -> None:
    """It is lost while the old run ends, and nothing is started after that."""
    client, host = hosts.client, hosts.host()
    server = host.start(STUBBORN, client=client, ttl=3, on_lost="stop", policy={"grace": 20.0})
    server.published(client, "running")
    watch = Watch(server)
    hosts.proxy.refuse()
    with pytest.raises(AssertionError):
        server.restart()
    until, gone = watch.result()
    assert gone < until
    wait_until(host.nobody_is_left)
    assert os.listdir(host.home.servers) == []
