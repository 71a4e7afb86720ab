"""What doctor, status and why say of a fleet: each situation is really made, seen, and gone when mended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devsup.fleet import keys
from tests.fleet_support import lease_of
from tests.redis_support import Proxy
from tests.support import wait_until

if TYPE_CHECKING:
    from devsup.models import HealthFinding
    from tests.fleet_support import Host, Hosts
    from tests.redis_support import RedisServer


def kinds(host: Host) -> list[str]:
    return [one.id.partition(":")[0] for one in host.redis().findings]


def test_a_redis_that_is_well_is_said_to_be(hosts: Hosts, shared_redis: RedisServer) -> None:
    (a,) = hosts("box-a")
    assert a("start", "web", "--json").code == 0
    wait_until(lambda: a.redis().status == "ok", 30)
    answer = wait_until(
        lambda: (one := a("doctor", "--json").json)["data"]["parts"][-1]["status"] == "ok" and one
    )
    (found,) = (one for one in answer["data"]["parts"] if one["part"] == "redis")
    assert found["findings"] == []
    text = " ".join(note for note in answer["notes"] if note.startswith("redis: "))
    assert f"`{shared_redis.url}` answers in" in text
    assert "version " in text
    assert "this host's" in text
    assert "leases: 1 held, 0 lost" in text
    with shared_redis.client() as redis:
        redis.rename(servers := keys.servers("team"), "aside")
        redis.set(servers, "of another program")
        assert kinds(a) == ["redis_unwritable"]
        redis.rename("aside", servers)
    assert a("stop", "web").code == 0
    a.environ["DEVSUP_FLEET"] = None
    assert a.redis().status == "skipped"
    a.environ["DEVSUP_FLEET"] = "http://x"
    assert kinds(a) == ["redis_address"]
    a.environ["DEVSUP_HOST"] = "box a"
    (one,) = a.redis().findings
    assert (one.id, one.fix) == ("fleet_host", "unset DEVSUP_HOST")


EVICTING = {"config": {"maxmemory-policy": "allkeys-lru", "maxmemory": "100mb"}}
CHANNELLESS = {"acl": ("default on nopass ~* resetchannels +@all",)}


@pytest.mark.parametrize(
    ("settings", "kind", "says", "fix"),
    [
        (EVICTING, "redis_evicts", "allkeys-lru", "noeviction"),
        ({"config": {"replicaof": "127.0.0.1 1"}}, "redis_unwritable", "read-only replica", "primary"),
        ({"maxmemory": "100kb"}, "redis_unwritable", "out of memory", "maxmemory"),
        (CHANNELLESS, "redis_pubsub", "after up to 10 s", "ACL SETUSER default"),
        ({"acl": ("default on nopass ~* &* +@all -eval",)}, "redis_unwritable", "forbid", "ACL"),
        ({"password": "hunter2"}, "fleet_unreachable", "wants a password", "`:PASSWORD@`"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_redis_is_named_with_what_mends_it(
    hosts: Hosts, redis_server: RedisServer, settings: dict[str, Any], kind: str, says: str, fix: str
) -> None:
    redis_server.start(**settings)
    (a,) = hosts("box-a", url=f"redis://127.0.0.1:{redis_server.port}")
    # On a machine that is busy enough Redis does not answer in doctor's time.
    (one,) = wait_until(lambda: [one for one in a.redis().findings if one.id == kind], 30)
    assert one.safe is False
    assert says in one.message
    assert fix in one.fix
    redis_server.kill()
    redis_server.start()
    a.environ["DEVSUP_FLEET"] = redis_server.url
    wait_until(lambda: kinds(a) == [], 30)


def test_a_lost_lease_is_seen_by_status_doctor_and_why(hosts: Hosts, redis_server: RedisServer) -> None:
    """Redis hangs for longer than the lease; the server goes on, as `on_lost` is "keep"."""
    redis_server.start()
    (a,) = hosts("box-a", url=redis_server.url)
    a.configure(ttl="3s")
    a("start", "web", "--json")
    held = wait_until(lambda: (one := a.lease())["renewed_at"] and one, 20)
    assert held["state"] == "held"
    assert held["token"] == "***"
    assert held["fencing"] == int(lease_of(redis_server)["fencing"])
    assert held["expires_at"] > held["renewed_at"]
    assert "lease     held until" in a("status", "web").out
    assert "its lease in the fleet is held" in a("why", "web").out
    redis_server.pause()
    wait_until(lambda: a.lease()["state"] == "lost", 20)
    assert a("status", "web", "--json").data["lease"]["state"] == "lost"
    assert "lease_lost" in kinds(a)
    found = a("start", "web", "--json")
    assert found.data["reused"] is True
    assert any("it runs without its lease in the fleet" in note for note in found.notes)
    assert a("status", "web", "--json").data["server"]["state"] == "ready"
    story = a("why", "web").out
    assert "runs on without its lease in the fleet" in story
    assert "its lease in the fleet is lost" in story
    redis_server.resume()
    wait_until(lambda: a.lease()["state"] == "held", 20)
    assert "no longer so: `web` runs on without its lease" in a("why", "web").out
    a("start", "api", "--json")
    assert a("status", "api", "--json").data["lease"] is None
    assert a("stop", "--all").code == 0


def test_a_server_that_other_hosts_do_not_see_is_named(
    hosts: Hosts, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guard was told of another way to this Redis, which is cut."""
    from devsup.doctor import redis

    with Proxy(shared_redis.port) as proxy:
        (a,) = hosts("box-a", url=proxy.url)
        proxy.refuse()
        assert a("start", "api", "--json").code == 0
        a.environ["DEVSUP_FLEET"] = shared_redis.url
        wait_until(lambda: kinds(a) == [], 30)  # it is still young
        monkeypatch.setattr(redis, "_YOUNG", 0.0)

        def unseen() -> list[HealthFinding]:
            return [one for one in a.redis().findings if one.id != "fleet_unreachable"]

        (one,) = wait_until(unseen, 30)
        assert one.id.startswith("server_unpublished:")
        assert one.fix.startswith("read `")
        assert a("stop", "api").code == 0
