"""An exclusive app runs once on all hosts, and each host sees and stops the servers of the others."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from devsup.errors import LeaseHeldElsewhere
from devsup.fleet import keys
from devsup.fleet.membership import Membership
from devsup.fleet.settings import Settings
from devsup.paths import Home
from devsup.registry import Registry
from devsup.supervisor.leasing import Leasing
from tests.fleet_support import lease_of
from tests.redis_support import Proxy
from tests.support import ROOT, hear, say, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fleet_support import Host, Hosts
    from tests.redis_support import RedisServer
    from tests.support import Spawn


@pytest.fixture
def proxy(shared_redis: RedisServer) -> Iterator[Proxy]:
    with Proxy(shared_redis.port) as one:
        yield one


# -- one at most -----------------------------------------------------------------------------------------


def test_the_second_host_is_told_who_runs_it_and_where(hosts: Hosts, shared_redis: RedisServer) -> None:
    a, b = hosts("box-a", "box-b")
    first = a("start", "web", "--owner", "ann", "--json").data["server"]
    lease = lease_of(shared_redis)
    assert (lease["host"], lease["owner"], lease["server"]) == ("box-a", "ann", first["id"])
    refused = b("start", "web", "--json")
    assert refused.code == 13
    error = refused.error
    assert (error["code"], error["retryable"]) == ("lease_held_elsewhere", True)
    assert error["hint"] == "devsup list --fleet"
    assert error["details"].keys() == {"host", "owner", "url", "fencing"}
    assert (error["details"]["host"], error["details"]["owner"]) == ("box-a", "ann")
    assert error["details"]["fencing"] == int(lease["fencing"])
    assert "`box-a`, for `ann`" in error["message"]
    # Nothing of it is left, neither a reservation nor a job; and another app of the host is not touched.
    assert b("list", "--json").data["servers"] == []
    assert os.listdir(b.home / "servers") == []
    assert b("start", "api", "--json").data["reused"] is False
    fleet = a.job()["fleet"]
    assert fleet["lease"].pop("since") > 0
    assert fleet == {
        "name": "team",
        "host": "box-a",
        "project": "shop",
        "ttl": 30.0,
        "on_lost": "keep",
        "lease": {"app": "web", "token": lease["token"], "fencing": int(lease["fencing"])},
    }
    assert b.job()["fleet"]["lease"] is None
    for host in (a, b):
        assert host("stop", "--all", "--take-over").code == 0


def test_neither_a_password_nor_the_address_is_written_down(hosts: Hosts, redis_server: RedisServer) -> None:
    """Only the guard has it; the server that it runs does not."""
    redis_server.start(password="hunter2")
    (a,) = hosts("box-a", url=redis_server.url)
    answer = a("start", "web", "--json")
    pid = answer.data["server"]["pid"]
    environ = (ROOT / f"/proc/{pid}/environ").read_bytes()
    assert b"DEVSUP_GUARD_FLEET" not in environ
    for folder, _, names in os.walk(a.home):
        for name in names:
            # A job is written beside its place and put there.
            with suppress(FileNotFoundError), open(os.path.join(folder, name), "rb") as file:
                assert b"hunter2" not in file.read(), name
    assert a("stop", "web").code == 0


def test_without_redis_an_exclusive_app_does_not_start_and_others_do(hosts: Hosts) -> None:
    (a,) = hosts("box-a")
    for url in ("redis://127.0.0.1:1", "unix:///nowhere/redis.sock"):
        a.environ["DEVSUP_FLEET"] = url
        refused = a("start", "web", "--json")
        assert refused.code == 13
        assert (refused.error["code"], refused.error["retryable"]) == ("fleet_unreachable", True)
        assert url in refused.error["message"]
    assert a("list", "--json").data["servers"] == []
    assert a("start", "api", "--json").data["reused"] is False
    assert a("stop", "api", "--json").data["results"][0]["outcome"] == "stopped"


def test_an_answer_that_was_lost_on_the_way_is_asked_for_again(
    hosts: Hosts, proxy: Proxy, shared_redis: RedisServer
) -> None:
    """The connection is cut after Redis has given the lease: it is the same caller's, by its token."""
    (a,) = hosts("box-a", url=proxy.url)
    proxy.cut_before_answer()
    started = a("start", "web", "--json")
    assert proxy.has_cut.is_set()
    assert lease_of(shared_redis)["server"] == started.data["server"]["id"]
    assert a("stop", "web").code == 0


def test_a_start_that_fails_leaves_no_lease(hosts: Hosts, shared_redis: RedisServer) -> None:
    a, b = hosts("box-a", "box-b")
    assert a("start", "web", "--json", "--", "sh", "-c", "exit 3").code == 5
    assert lease_of(shared_redis) == {}
    assert b("start", "web", "--json").data["reused"] is False
    assert b("stop", "web").code == 0


#: A start that waits after its lease is granted, before there is a guard.
KILLED = """
import os, sys
from devsup.supervisor import Supervisor, making
real = making.launch_guard
def launch(*args, **named):
    print("has it", flush=True)
    sys.stdin.readline()
    return real(*args, **named)
making.launch_guard = launch
Supervisor().start("web")
"""


def _amid(host: Host, spawn: Spawn) -> subprocess.Popen[str]:
    environ = {name: value for name, value in host.environ.items() if value is not None}
    child = spawn(KILLED, env=environ, cwd=host.project)
    assert hear(child) == "has it\n"
    return child


def test_what_a_killed_caller_has_taken_is_taken_over_at_once_here_and_nowhere_else(
    hosts: Hosts, shared_redis: RedisServer, spawn: Spawn
) -> None:
    a, b = hosts("box-a", "box-b")
    child = _amid(a, spawn)
    first = lease_of(shared_redis)
    assert (first["host"], first["url"]) == ("box-a", "")
    child.kill()
    child.wait()
    elsewhere = b("start", "web", "--json").error
    assert (elsewhere["code"], elsewhere["details"]["url"]) == ("lease_held_elsewhere", None)
    assert "is starting on `box-a`" in elsewhere["message"]
    assert a("start", "web", "--json").data["reused"] is False
    second = lease_of(shared_redis)
    assert second["token"] != first["token"]
    assert int(second["fencing"]) > int(first["fencing"])
    assert a("stop", "web").code == 0


def test_a_guard_that_was_late_keeps_what_its_killed_caller_has_taken(
    hosts: Hosts, shared_redis: RedisServer
) -> None:
    """A start was about to clear its reservation away, and counts that among what it has cleared."""
    (a,) = hosts("box-a")
    started = a("start", "web", "--json").data["server"]
    home = Home(str(a.home))
    registry = Registry(home)
    row = registry.row(started["id"])
    assert row is not None
    fleet = Settings(shared_redis.url, "a test", "team", 30.0, "keep", "box-a")
    membership = Membership("team", "box-a", "shop", 30.0, "keep")
    before = lease_of(shared_redis)
    leasing = Leasing(home, registry, fleet, membership, {row.id})
    with pytest.raises(LeaseHeldElsewhere):
        leasing.take(row.replace(id="f" * 12), time.monotonic() + 10)
    assert lease_of(shared_redis)["token"] == before["token"]
    assert a("stop", "web").code == 0


def test_a_stop_of_what_a_killed_caller_has_left_gives_the_lease_back(
    hosts: Hosts, shared_redis: RedisServer, spawn: Spawn
) -> None:
    (a,) = hosts("box-a")
    child = _amid(a, spawn)
    child.kill()
    child.wait()
    assert lease_of(shared_redis)["host"] == "box-a"
    assert a("stop", "web").code == 0
    assert lease_of(shared_redis) == {}
    assert a("start", "web", "--json").data["reused"] is False
    assert a("stop", "web").code == 0


def test_a_start_asks_redis_once_and_one_that_finds_its_server_not_at_all(
    hosts: Hosts, proxy: Proxy, shared_redis: RedisServer, spawn: Spawn
) -> None:
    """What the start itself adds: HELLO and the lease in one, also where a killed caller has left that."""
    (a,) = hosts("box-a", url=proxy.url)
    for connections, round_trips in ((1, 1), (2, 2)):
        child = _amid(a, spawn)
        assert (proxy.connections, proxy.round_trips) == (connections, round_trips)
        child.kill()
        child.wait()
    assert a("start", "web", "--json").data["reused"] is False
    with Proxy(shared_redis.port) as another:  # the guard speaks through the first one when it likes
        a.environ["DEVSUP_FLEET"] = another.url
        assert a("start", "web", "--json").data["reused"] is True
        assert another.connections == 0
    assert a("stop", "web").code == 0


def test_a_lease_of_nobody_whom_this_folder_knows_is_left_alone(
    hosts: Hosts, shared_redis: RedisServer, spawn: Spawn
) -> None:
    """A copy of a machine, registry and all, has its place: what was started on one is not on the other."""
    (a,) = hosts("box-a")
    child = _amid(a, spawn)
    child.kill()
    child.wait()
    with shared_redis.client() as redis:
        redis.hset(keys.lease("team", "shop", "web").lease, "server", "0123456789ab")
    assert a("start", "web", "--json").error["code"] == "lease_held_elsewhere"


@pytest.mark.parametrize("fencing", ["-" + "9" * 40, "9" * 40, "none"])
def test_a_lease_that_a_stranger_has_written_is_somebody_else_s(
    hosts: Hosts, shared_redis: RedisServer, fencing: str
) -> None:
    (a,) = hosts("box-a")
    told = {
        "token": "t",
        "fencing": fencing,
        "host": "b",
        "place": "p",
        "owner": "",
        "url": "u",
        "server": "s",
    }
    with shared_redis.client() as redis:
        redis.hset(keys.lease("team", "shop", "web").lease, mapping={**told, "generation": "1"})
    assert a("start", "web", "--json").error["code"] == "lease_held_elsewhere"


def test_a_stop_while_the_lease_is_taken_leaves_none(
    hosts: Hosts, shared_redis: RedisServer, spawn: Spawn
) -> None:
    (a,) = hosts("box-a")
    child = _amid(a, spawn)
    assert a("stop", "web", "--json").data["results"][0]["outcome"] == "stopped"
    say(child, "go\n")
    child.wait(30)
    assert lease_of(shared_redis) == {}
    assert a("list", "--json").data["servers"] == []


def test_a_redis_that_hangs_holds_nobody_up_for_long(hosts: Hosts, redis_server: RedisServer) -> None:
    redis_server.start()
    (a,) = hosts("box-a", url=redis_server.url)
    redis_server.pause()
    began = time.monotonic()
    assert a("start", "web", "--json").error["code"] == "fleet_unreachable"
    assert time.monotonic() - began < 10
    assert a("start", "api", "--json").data["server"]["state"] == "ready"
    assert a("stop", "api", "--json").data["results"][0]["outcome"] == "stopped"
    redis_server.resume()


def test_ctrl_c_amid_a_start_gives_the_lease_back(
    hosts: Hosts, shared_redis: RedisServer, spawn: Spawn
) -> None:
    (a,) = hosts("box-a")
    child = _amid(a, spawn)
    assert lease_of(shared_redis)["host"] == "box-a"
    child.send_signal(signal.SIGINT)
    child.wait(30)
    assert lease_of(shared_redis) == {}
    assert a("list", "--json").data["servers"] == []


def test_a_second_folder_of_the_same_host_is_another_one(hosts: Hosts, shared_redis: RedisServer) -> None:
    """Two worktrees with one state folder are one project to the fleet: what lives is not taken over."""
    a, b = hosts("box-a", "box-b")
    b.environ["DEVSUP_HOME"] = str(a.home)
    assert a("start", "web", "--json").data["reused"] is False
    error = b("start", "web", "--json").error
    assert error["code"] == "lease_held_elsewhere"
    assert f"on this host, in `{a.project}`" in error["message"]
    assert a("stop", "web").code == 0
    del shared_redis


# -- what keeps the lease ---------------------------------------------------------------------------------


def test_a_restart_and_a_new_guard_keep_the_lease(hosts: Hosts, shared_redis: RedisServer) -> None:
    (a,) = hosts("box-a")
    started = a("start", "web", "--json").data["server"]
    lease = lease_of(shared_redis)
    again = a("restart", "web", "--json").data["server"]
    assert again["generation"] == started["generation"] + 1
    assert a.job()["fleet"]["lease"]["token"] == lease["token"] == lease_of(shared_redis)["token"]
    os.kill(again["guard_pid"], signal.SIGKILL)
    wait_until(lambda: a.server()["guard_pid"] is None)
    assert a("start", "web", "--json").data["server"]["pid"] == again["pid"]
    assert a.job()["fleet"]["lease"]["token"] == lease["token"]
    assert lease_of(shared_redis)["token"] == lease["token"]
    # Without a guard a restart is a new start; what it finds is its own.
    guard = a.server()["guard_pid"]
    os.kill(guard, signal.SIGKILL)
    wait_until(lambda: a.server()["guard_pid"] is None)
    assert a("restart", "web", "--json").data["server"]["pid"] != again["pid"]
    assert lease_of(shared_redis)["token"] != lease["token"]
    assert a("stop", "web").code == 0


def _orphan(host: Host) -> dict[str, Any]:
    """Return the server of ``host``, whose guard is killed."""
    server = host.server()
    os.kill(server["guard_pid"], signal.SIGKILL)
    wait_until(lambda: host.server()["guard_pid"] is None)
    return server


def test_a_restart_that_would_not_get_the_lease_stops_nothing(
    hosts: Hosts, proxy: Proxy, shared_redis: RedisServer
) -> None:
    """Without a guard a restart is a stop and a start, and the start could be refused."""
    (a,) = hosts("box-a", url=proxy.url)
    a("start", "web", "--json")
    server = _orphan(a)
    proxy.refuse()
    assert a("restart", "web", "--json").error["code"] == "fleet_unreachable"
    proxy.refuse(False)
    with shared_redis.client() as redis:
        lease = keys.lease("team", "shop", "web").lease
        redis.config_set("maxmemory", "1")
        assert "out of memory" in a("restart", "web", "--json").error["message"]
        redis.config_set("maxmemory", "0")
        redis.hset(lease, mapping={"token": "another", "host": "box-b", "place": "b"})
        redis.hset(lease, "fencing", int(lease_of(shared_redis)["fencing"]) + 1)
    refused = a("restart", "web", "--json").error
    assert (refused["code"], refused["details"]["host"]) == ("lease_held_elsewhere", "box-b")
    # An ended one would be shown with its pid, too.
    assert (a.server()["pid"], a.server()["state"]) == (server["pid"], "ready")
    with shared_redis.client() as redis:
        redis.delete(lease)
    assert a("restart", "web", "--json").data["server"]["pid"] != server["pid"]
    assert lease_of(shared_redis)["host"] == "box-a"
    assert a("stop", "web").code == 0


def test_a_stop_without_a_guard_gives_the_lease_back_where_redis_answers(
    hosts: Hosts, redis_server: RedisServer
) -> None:
    redis_server.start()
    (a,) = hosts("box-a", url=redis_server.url)
    a("start", "web", "--json")
    wait_until(a.fleet, 20)
    _orphan(a)
    assert a("stop", "web").code == 0
    assert lease_of(redis_server) == {}
    assert a.fleet() == {}
    a("start", "web", "--json")
    _orphan(a)
    redis_server.pause()
    (result,) = a("stop", "web", "--json").data["results"]
    assert (result["outcome"], result["error"]) == ("stopped", None)
    assert result["ms"] < 3000
    redis_server.resume()


def test_up_starts_an_exclusive_app_once(hosts: Hosts) -> None:
    a, b = hosts("box-a", "box-b")
    assert a("up", "--json").code == 0
    results = {one["app"]: one for one in b("up", "--json").json["data"]["results"]}
    assert results["api"]["outcome"] == "started"
    assert results["web"]["error"]["code"] == "lease_held_elsewhere"
    for host in (a, b):
        assert host("down").code == 0


# -- what the documentation says ---------------------------------------------------------------------------


def test_the_user_of_the_documentation_may_do_all_that_a_fleet_does(
    hosts: Hosts, redis_server: RedisServer
) -> None:
    (acl,) = re.findall(r"^user (devsup .*)$", (ROOT / "docs/fleet.md").read_text(), re.MULTILINE)
    redis_server.start(acl=(acl.replace("PASSWORD", "secret"), "default off"))
    a, b = hosts("box-a", "box-b", url=f"redis://devsup:secret@127.0.0.1:{redis_server.port}")
    assert a("start", "web", "--json").code == 0

    def seen() -> list[str]:
        part = a.redis()
        return [one.id for one in part.findings] or [part.status]

    # Nothing but Redis on a machine that is too busy.
    assert wait_until(lambda: (one := seen()) != ["fleet_unreachable"] and one, 30) == ["ok"]
    assert b("start", "web", "--json").error["code"] == "lease_held_elsewhere"
    wait_until(b.fleet, 20)
    (result,) = b("stop", "web", "--fleet", "--json").data["results"]
    assert result["outcome"] == "stopped"
    assert b.fleet() == {}
