"""What runs on all hosts: seen from each of them, and stopped from another one."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from devsup import Supervisor
from devsup.aio import Supervisor as Async
from devsup.cli import lane, screen
from devsup.errors import Ambiguous, NotFound, UsageError
from devsup.fleet import listing
from devsup.fleet.listing import Entry
from devsup.models import FleetList
from devsup.redis import address, failures
from devsup.redis.resp import ErrorReply
from devsup.supervisor import elsewhere, fleetwide
from tests.cli_support import make_server
from tests.fleet_support import lease_of
from tests.redis_support import Proxy
from tests.support import free_port, server_argv, wait_until
from tests.test_contract import checked
from tests.test_layers import loaded

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fleet_support import Host, Hosts
    from tests.redis_support import RedisServer

# -- which one is meant ------------------------------------------------------------------------------------


def entry(host: str, app: str, *, project: str = "shop", lost: bool = False, **changes: Any) -> Entry:
    """Return what a host has published."""
    server = make_server(app=app, session=f"dev_server_{app}", id=f"{host}{app}{project}", **changes).asdict()
    server["state"] = "lost" if lost else "ready"
    return Entry(server, host, project, 1_000, lost)


def seen(*entries: Entry, own: frozenset[str] = frozenset()) -> fleetwide.Seen:
    return fleetwide.Seen(list(entries), own, "shop", 0)


A, B = entry("a", "web", pid=11, port=3000), entry("b", "web", pid=12, port=3001)
LOST = entry("c", "web", lost=True)
OTHER = entry("a", "web", project="blog", pid=13, port=4000)
API = entry("b", "api", pid=14, port=5000)


@pytest.mark.parametrize(
    ("entries", "text", "found"),
    [
        ((A, API), "web", A),
        ((A, API), "dev_server_web", A),
        ((A, API), "awebshop", A),
        ((A, B, API), "b/web", B),
        ((A, B, API), "b/:5000", API),
        ((A, B, API), ":3001", B),
        ((A, B, API), "12", B),
        ((A, B, API), "b/12", B),
        ((A, LOST), "web", A),
        ((LOST,), "web", LOST),
        ((OTHER, A), "web", A),
        ((OTHER, LOST), "web", LOST),
        ((OTHER, API), "web", OTHER),
        ((API,), "web", None),
        ((API,), "here/web", None),
    ],
)
def test_this_project_s_comes_first_and_what_is_there_before_what_is_lost(
    entries: tuple[Entry, ...], text: str, found: Entry | None
) -> None:
    assert elsewhere.find(seen(*entries), text, "here") == found


def test_what_several_hosts_have_is_named_by_host() -> None:
    with pytest.raises(Ambiguous, match="2 servers of the fleet: `a/web`, `b/web`") as caught:
        elsewhere.find(seen(A, B, API, OTHER), "web", "here")
    assert caught.value.hint == "devsup stop a/web --fleet"
    assert [one["target"] for one in caught.value.details["candidates"]] == ["a/web", "b/web"]
    twice = (entry("a", "web", project="x"), entry("a", "web", project="y"))
    with pytest.raises(Ambiguous, match="`a/awebx`, `a/aweby`"):
        elsewhere.find(seen(*twice), "web", "here")


def test_a_hint_is_one_word_a_name_whatever_a_host_calls_itself() -> None:
    with pytest.raises(Ambiguous) as caught:
        elsewhere.find(seen(A, entry("a;b", "web")), "web", "here")
    assert caught.value.hint == "devsup stop a/web --fleet"
    with pytest.raises(Ambiguous) as caught:
        elsewhere.find(seen(entry("$(x)", "web"), A), "web", "here")
    assert caught.value.hint == "devsup stop '$(x)/web' --fleet"


def test_what_no_host_has_is_said_with_the_hosts_that_there_are() -> None:
    with pytest.raises(NotFound, match="no server `web` on `z` in the fleet; its hosts: `a`, `b`"):
        elsewhere.find(seen(A, B), "z/web", "here")
    for text in ("a/", "a/:", "/web"):
        with pytest.raises(UsageError):
            elsewhere.find(seen(A), text, "here")


def test_what_is_no_record_is_left_out_and_nobody_else_is() -> None:
    """A stranger may write into the same Redis."""
    good = fleetwide.shown(A, seen(A))
    assert good is not None
    assert (good.host, good.scope, good.seen_at) == ("a", "foreign", "1970-01-01T00:00:01.000Z")
    assert fleetwide.shown(A, seen(A, own=frozenset({A.id}))).scope == "here"  # type: ignore[union-attr] # as above
    for change in ({"command": "x"}, {"pid": "1"}, {"state": "fine"}, {"log": None}, {"pid": True}):
        assert fleetwide.shown(A.replace(server={**A.server, **change}), seen(A)) is None, change


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[1]",
        '{"server": [1], "host": "h", "project": null, "ttl_ms": 1}',
        '{"server": {"id": "b", "state": "ready"}, "host": "h", "project": null, "ttl_ms": Infinity}',
    ],
)
def test_a_stranger_s_record_hides_nobody_else_s(text: str) -> None:
    good = json.dumps({"server": A.server, "host": "a", "project": "p", "ttl_ms": 1000})
    answer = [5000, ["x", text, A.id, good], ["x", "5000", A.id, "4500"]]
    assert [(one.id, one.lost) for one in listing.entries(answer)] == [(A.id, False)]


@pytest.mark.parametrize(
    ("score", "seen_at"), [("inf", 5000), ("1e300", 5000), ("-inf", 0), ("4500.5", 4500), (None, None)]
)
def test_a_sign_of_life_is_between_the_beginning_of_time_and_now(
    score: str | None, seen_at: int | None
) -> None:
    """Whoever gave none is not there."""
    good = json.dumps({"server": A.server, "host": "a", "project": "p", "ttl_ms": 1000})
    answer = [5000, [A.id, good], [] if score is None else [A.id, score]]
    found = listing.entries(answer)
    assert [one.seen_at for one in found] == ([] if seen_at is None else [seen_at])


# -- seen from everywhere ----------------------------------------------------------------------------------


def test_each_host_sees_the_servers_of_all(hosts: Hosts, shared_redis: RedisServer) -> None:
    a, b = hosts("box-a", "box-b")
    started = a("start", "web", "--json").data["server"]
    assert b("start", "api", "--json").code == 0
    wait_until(lambda: [one["state"] for one in b.fleet().values()] == ["ready", "ready"], 20)
    web = b.fleet()["box-a/web"]
    assert {key: web[key] for key in ("id", "pid", "port", "url", "state", "owner")} == {
        key: started[key] for key in ("id", "pid", "port", "url", "state", "owner")
    }
    assert (web["scope"], a.fleet()["box-a/web"]["scope"]) == ("foreign", "here")
    text = b("list", "--fleet").out.splitlines()
    assert text[0].split() == ["HOST", "PROJECT", "APP", "STATE", "URL", "SEEN"]
    assert text[1].split()[:4] == ["box-a", "box-a", "web", "ready"]
    assert max(map(len, text)) <= 80
    checked(b("list", "--fleet", "--json"), "list")
    checked(a("status", "web", "--json"), "status")
    found = checked(b("hosts", "--json"), "hosts")["data"]["hosts"]
    assert [(one["host"], one["up"], one["lost"], one["here"]) for one in found] == [
        ("box-a", 1, 0, False),
        ("box-b", 1, 0, True),
    ]
    assert "box-b (this one)" in b("hosts").out
    # As other programs see it.
    with b.here() as there:
        assert [one.host for one in there.hosts().hosts] == ["box-a", "box-b"]
        own = asyncio.run(Async(str(b.project), str(b.home)).list_servers(fleet=True))
    assert [one.app for one in own.servers] == ["web", "api"]
    for host in (a, b):
        assert host("stop", "--all").code == 0
    assert b.fleet() == {}
    assert b("list", "--fleet").out.split() == ["HOST", "PROJECT", "APP", "STATE", "URL", "SEEN"]
    del shared_redis


def test_what_is_not_heard_of_any_more_is_lost_and_a_stop_says_so_at_once(
    hosts: Hosts, shared_redis: RedisServer
) -> None:
    a, b = hosts("box-a", "box-b")
    a.configure(ttl="1s", exclusive=False)
    server = a("start", "web", "--json").data["server"]
    wait_until(lambda: b.fleet().get("box-a/web"), 20)
    os.kill(server["guard_pid"], signal.SIGKILL)
    lost = wait_until(lambda: (one := b.fleet()["box-a/web"])["state"] == "lost" and one, 20)
    assert (lost["pid"], lost["id"]) == (None, server["id"])
    (host,) = b("hosts", "--json").data["hosts"]
    assert (host["up"], host["lost"]) == (0, 1)
    refused = b("stop", "box-a/web", "--fleet", "--json")
    assert refused.code == 13
    assert "is lost, last seen at" in refused.error["message"]
    # Its own host knows better, and stops it.
    (result,) = a("stop", "web", "--fleet", "--json").data["results"]
    assert result["outcome"] == "stopped"
    del shared_redis


def test_without_a_fleet_it_is_said_what_to_set(hosts: Hosts) -> None:
    (a,) = hosts("box-a")
    a.environ["DEVSUP_FLEET"] = None
    for call in (("list", "--fleet"), ("hosts",), ("stop", "web", "--fleet")):
        error = a(*call, "--json").error
        assert error["code"] == "usage", call
        assert "DEVSUP_FLEET=redis://" in error["hint"]
    (a.project / "devsup.toml").write_text('[fleet]\nurl = "$NOWHERE"\n')
    assert "`NOWHERE` is not set" in a("hosts", "--json").error["message"]
    a.environ["DEVSUP_FLEET"] = "redis://:hunter2@127.0.0.1:1"
    error = a("list", "--fleet", "--json").error
    assert error["code"] == "fleet_unreachable"
    assert "hunter2" not in str(error)
    assert a("list", "--fleet", "--all", "--json").error["code"] == "usage"
    assert a("stop", "--all", "--fleet", "--json").error["code"] == "usage"
    assert a("stop", "web", "--timeout", "3", "--json").error["code"] == "usage"


def test_a_thousand_servers_are_one_round_trip_and_no_key_is_searched_for(
    hosts: Hosts, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shared_redis.client() as redis, redis.pipeline() as pipe:
        for number in range(1000):
            server = make_server(id=f"{number:012x}", app=f"app{number}").asdict()
            record = {**server, "state": "ready"}
            pipe.execute_command(
                *listing.publish("team", record, host=f"box-{number % 50}", project="shop", ttl=30)
            )
        pipe.execute()
        redis.config_resetstat()
    with Proxy(shared_redis.port) as proxy:
        (a,) = hosts("box-a", url=proxy.url)
        assert len(a("list", "--fleet", "--json").data["servers"]) == 1000
        assert (proxy.connections, proxy.round_trips) == (1, 1)
        assert len(a("hosts", "--json").data["hosts"]) == 50
        assert (proxy.connections, proxy.round_trips) == (2, 2)
        monkeypatch.chdir(a.project)
        for name, value in a.environ.items():
            monkeypatch.setenv(name, str(value))
        calls = (["list", "--fleet"], ["hosts"], ["stop", "x/y", "--fleet"], ["start", "web"])
        for words in calls:
            own, others = loaded([*words, "--json"], a.project)
            assert others <= lane.ALLOWED, words
            assert not {"devsup.cli.app", "devsup.guard.loop"} & own, words
            assert ("devsup.supervisor.start" in own) == (words[0] == "start"), words
        assert a("stop", "web").code == 0
    with shared_redis.client() as redis:
        used = set(redis.info("commandstats"))
    assert not {"cmdstat_keys", "cmdstat_scan", "cmdstat_hscan"} & used


def test_what_is_no_redis_for_a_fleet_is_said_in_words() -> None:
    there = address.parse("redis://127.0.0.1:1")
    for reply, says in (
        ("ERR unknown command `EVAL`, with args beginning with: `x`, ", "it does not know `EVAL`"),
        ("ERR unknown command 'EVAL', with args beginning with: 'x' ", "it does not know `EVAL`"),
        ("ERR Error running script: user_script:12: attempt to compare on a nil value", "another program"),
    ):
        error = failures.failed(there, ErrorReply(reply))
        assert says in error.message
        assert "x" not in error.message.split(says)[1]
        assert error.hint


def test_names_of_all_hosts_are_completed_where_redis_answers(
    hosts: Hosts, shared_redis: RedisServer
) -> None:
    (a,) = hosts("box-a")
    server = {**make_server(id="1", app="web").asdict(), "state": "ready"}
    with shared_redis.client() as redis:
        redis.execute_command(*listing.publish("team", server, host="box-b", project="shop", ttl=30))

    def completed(*words: str, **changes: str) -> str:
        typed = ["devsup", "stop", *words]
        question = {"_DEVSUP_COMPLETE": "complete_bash", "COMP_CWORD": str(len(typed))}
        answer = a(env={**question, "COMP_WORDS": "\n".join([*typed, ""]), **changes})
        assert (answer.code, answer.err) == (0, "")
        return answer.out.strip()

    # A Redis on a busy machine may take longer than a completion waits.
    wait_until(lambda: completed("--fleet") == "box-b/web", 30)
    assert completed("--fleet", "box-b/web") == ""
    assert completed("--fleet", DEVSUP_FLEET="redis://127.0.0.1:1") == ""
    assert completed() == ""


@pytest.mark.parametrize("width", [80, 70])
def test_the_table_of_a_fleet_fits_a_terminal(width: int) -> None:
    """Names are cut; where a server is, and when it was seen, are not."""
    long = "a-name-that-somebody-has-given-without-thinking-of-terminals"
    servers: list[Any] = [
        fleetwide.shown(entry(host, app, project=app, url="http://localhost:3000", cwd="/", log="/l"), seen())
        for host, app in ((long, "web"), ("box", long), (long, long))
    ]
    listed = FleetList(servers, [], [])
    page = Console(width=width, file=io.StringIO(), force_terminal=False)
    page.print(screen._listed(listed, projects=False))
    lines = page.file.getvalue().splitlines()  # type: ignore[attr-defined] # it is the StringIO above
    assert len(lines) == 4
    assert max(map(len, lines)) <= width
    assert all("http://localhost:3000" in line and line.rstrip().endswith(" ago") for line in lines[1:])


# -- stopped from elsewhere --------------------------------------------------------------------------------


def _up(host: Host, app: str, at: Host, *words: object) -> dict[str, Any]:
    """Start ``app`` on ``host``, and return it once ``at`` sees it ready."""
    server: dict[str, Any] = host("start", app, *words, "--json").data["server"]
    wait_until(lambda: at.fleet().get(f"{host.name}/{app}", {}).get("state") == "ready", 20)
    return server


def test_a_stop_reaches_the_guard_on_another_host(hosts: Hosts, shared_redis: RedisServer) -> None:
    a, b = hosts("box-a", "box-b")
    server = _up(a, "web", b)
    _up(b, "api", b)
    stopped = checked(b("stop", "web", "api", "--fleet", "--json"), "stop")["data"]["results"]
    assert [one["outcome"] for one in stopped] == ["stopped", "stopped"]
    assert (stopped[0]["server"]["host"], stopped[0]["server"]["state"]) == ("box-a", "stopped")
    assert (stopped[0]["server"]["id"], stopped[0]["signals"], stopped[0]["port_free"]) == (
        server["id"],
        ["SIGTERM"],
        True,
    )
    assert "host" not in stopped[1]["server"], "it was this host's own"
    assert a("list", "--json").data["servers"] == []
    assert lease_of(shared_redis) == {}
    assert b.fleet() == {}
    for nobody in ("box-a/web", "nope"):
        again = b("stop", nobody, "--fleet", "--json")
        assert (again.code, checked(again, "stop")["error"]["code"]) == (3, "not_found")
        assert again.error["hint"] == "devsup list --fleet"


def test_a_stop_of_what_belongs_to_somebody_else_is_refused_there(hosts: Hosts) -> None:
    a, b = hosts("box-a", "box-b")
    server = _up(a, "web", b, "--owner", "ann")
    # By its id as well: its name may be that of another project's.
    for target in ("box-a/web", f"box-a/{server['id']}"):
        refused = b("stop", target, "--fleet", "--json")
        assert (refused.code, refused.error["code"]) == (12, "other_owner")
        assert refused.error["hint"] == f"devsup stop {target} --fleet --take-over"
    assert a.server()["state"] == "ready"
    assert b("stop", "web", "--fleet", "--take-over").out.startswith("dev_server_web on box-a stopped in")


def test_only_the_generation_that_was_seen_is_ended(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is restarted between the look at the list and the request."""
    a, b = hosts("box-a", "box-b")
    _up(a, "web", b)
    for name, value in b.environ.items():
        monkeypatch.setenv(name, str(value))
    find = elsewhere.find

    def restarting(*args: Any) -> Entry | None:
        found = find(*args)
        assert a("restart", "web").code == 0
        return found

    monkeypatch.setattr(elsewhere, "find", restarting)
    result = Supervisor(str(b.project), str(b.home)).stop_server("box-a/web", fleet=True)
    assert (result.outcome.value, result.error) == ("refused", "not_found")
    assert "another generation" in str(result.message)
    assert a.server()["state"] == "ready"
    assert a("stop", "web").code == 0


def test_a_guard_that_does_not_answer_is_said_to_have_heard_or_not(
    hosts: Hosts, shared_redis: RedisServer
) -> None:
    a, b = hosts("box-a", "box-b")
    a.configure(exclusive=False)
    command = server_argv("stubborn", "--port", free_port())
    started = a("start", "api", "--json", "--", *command).data["server"]
    wait_until(lambda: b.fleet().get("box-a/api", {}).get("state") == "ready", 20)
    slow = b("stop", "api", "--fleet", "--timeout", "3", "--grace", "60", "--json")
    assert (slow.code, slow.error["code"]) == (7, "busy"), slow
    assert "heard, has not answered yet" in slow.error["message"]
    os.kill(started["pid"], signal.SIGKILL)  # its guard would wait for the whole grace
    wait_until(lambda: a("list", "--json").data["servers"] == [], 30)
    server = _up(a, "web", b)
    os.kill(server["guard_pid"], signal.SIGSTOP)
    deaf = b("stop", "web", "--fleet", "--timeout", "1", "--json")
    assert (deaf.code, deaf.error["code"]) == (13, "fleet_unreachable")
    assert "never heard of it in time: nothing was done" in deaf.error["message"]
    os.kill(server["guard_pid"], signal.SIGCONT)
    with shared_redis.client() as redis:
        assert redis.exists(f"{{devsup:team}}:mail:{server['id']}") == 0
    assert a("status", "web", "--json").data["server"]["state"] == "ready"
    assert a("stop", "web").code == 0


def test_ctrl_c_takes_the_request_back(hosts: Hosts, shared_redis: RedisServer) -> None:
    a, b = hosts("box-a", "box-b")
    server = _up(a, "web", b)
    os.kill(server["guard_pid"], signal.SIGSTOP)
    call = b.begin("stop", "web", "--fleet", "--json")
    mail = f"{{devsup:team}}:mail:{server['id']}"
    with shared_redis.client() as redis:
        wait_until(lambda: redis.exists(mail), 20)
        call.send_signal(signal.SIGINT)
        call.communicate(timeout=30)
        assert call.returncode == 130
        assert redis.exists(mail) == 0
    os.kill(server["guard_pid"], signal.SIGCONT)
    assert a.server()["state"] == "ready"
    assert a("stop", "web").code == 0


def test_a_redis_that_goes_amid_a_stop_is_said(
    hosts: Hosts, redis_server: RedisServer, tmp_path: Path
) -> None:
    del tmp_path
    redis_server.start()
    a, b = hosts("box-a", "box-b", url=redis_server.url)
    a.configure(exclusive=False)
    server = _up(a, "web", b)
    os.kill(server["guard_pid"], signal.SIGSTOP)
    call = b.begin("stop", "web", "--fleet", "--timeout", "3", "--json")
    with redis_server.client() as redis:
        wait_until(lambda: redis.exists(f"{{devsup:team}}:mail:{server['id']}"), 20)
    redis_server.kill()
    out, _ = call.communicate(timeout=30)
    assert call.returncode == 13
    assert "was asked, then Redis was gone" in out
    os.kill(server["guard_pid"], signal.SIGCONT)
    assert a("stop", "web").code == 0
