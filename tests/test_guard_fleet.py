"""A guard in a fleet: what it publishes, how it keeps its lease, what it is asked from elsewhere."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from devsup import identity
from devsup.clock import boottime, now_ms
from devsup.fleet import keys, membership, note, requests
from devsup.fleet.membership import Membership, Mine
from devsup.fleet.requests import Stop
from devsup.guard import job as jobs
from devsup.guard import launch
from devsup.guard.job import Job
from devsup.guard.spawn import ADOPT
from devsup.models import Identity, State, StopClaim
from devsup.paths import Home, ensure_home
from devsup.registry import public, recovery
from devsup.system.alarm import Alarm
from tests.guarding import FLEET, STUBBORN, UP, Host, ask, hear_of, post, send
from tests.redis_support import Proxy, swallowing
from tests.registry_child import make_row
from tests.serving import alive, process
from tests.support import free_port, server_argv, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from tests.guarding import Guarded
    from tests.redis_support import RedisServer
    from tests.support import Leftovers

MEMBERSHIP = Membership(
    "default", "host-a", "example.com/shop", 3.0, "stop", Mine("web", "0123456789abcdef", 17)
)


def a_job(home: Path, **fields: Any) -> Job:
    """Return the job of a row as tests have them."""
    row = make_row("a1b2c3d4e5f6", project=str(home), cwd=str(home))
    own = {
        "home": str(home), "executable": "/bin/true", "port": None, "default_port": None, "probe": {},
        "policy": {}, "fleet": None,
    } | fields  # fmt: skip
    return Job(**{name: own[name] if name in own else getattr(row, name) for name in Job._fields})


# -- what it is told ------------------------------------------------------------------------------------


def test_a_job_says_what_its_server_is_to_the_fleet(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    jobs.write(str(path), a_job(tmp_path, fleet=MEMBERSHIP.plain()))
    assert membership.read(jobs.read(str(path)).fleet) == MEMBERSHIP


def test_a_job_of_an_older_version_is_in_no_fleet(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    fields = a_job(tmp_path).asdict()
    del fields["fleet"]
    path.write_text(json.dumps(fields))
    assert jobs.read(str(path)).fleet is None


def test_a_server_does_not_hear_where_redis_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address may hold a password. The guard goes on having it: it runs more than one generation."""
    monkeypatch.setenv(membership.ADDRESS, "redis://:geheim@127.0.0.1:1")
    for _ in range(2):
        environ = launch.environment(a_job(tmp_path))
        assert membership.ADDRESS.encode() not in environ
        assert not any(b"geheim" in value for value in environ.values())


def test_what_is_published_is_the_public_record_without_secrets() -> None:
    guard, leader = Identity(7, 1, "boot"), Identity(8, 1, "boot")
    row = make_row("a1b2c3d4e5f6", command=["serve", "--token", "geheim-123"], guard=guard, leader=leader)
    fields = public.published(row, State.READY, pid=8, url="http://ann:geheim@localhost:3000")
    assert json.loads(json.dumps(fields)) == fields
    assert (fields["state"], fields["pid"], fields["guard_pid"]) == ("ready", 8, 7)
    assert fields["command"] == ["serve", "--token", "***"]
    assert "geheim" not in json.dumps(fields)


# -- the note of its lease ------------------------------------------------------------------------------


def test_a_note_says_how_long_a_lease_is_held(home: Path) -> None:
    place = Home(str(home))
    ensure_home(place)
    assert note.shown(place, "a1") is None
    kept = note.Note(place, "a1")
    kept.write(held=True, fencing=1 << 40, until=boottime() + 60, renewed_at=1_000, expires_at=61_000)
    assert note.shown(place, "a1") == {
        "state": "held",
        "token": "***",
        "fencing": 1 << 40,
        "expires_at": "1970-01-01T00:01:01.000Z",
        "renewed_at": "1970-01-01T00:00:01.000Z",
    }
    # Nobody has to write that the time is over: a frozen guard could not.
    kept.write(held=True, fencing=2, until=boottime() - 1, renewed_at=None, expires_at=None)
    assert (note.shown(place, "a1") or {})["state"] == "lost"
    kept.write(held=False, fencing=2, until=boottime() + 60, renewed_at=None, expires_at=None)
    assert (note.shown(place, "a1") or {})["state"] == "lost"
    kept.close()


def test_a_note_is_no_job_and_goes_with_one(home: Path, project: Path) -> None:
    place = Home(str(home))
    ensure_home(place)
    job = a_job(project)
    jobs.write(place.job(job.id), job)
    kept = note.Note(place, job.id)
    kept.write(held=True, fencing=1, until=boottime(), renewed_at=None, expires_at=None)
    kept.close()
    assert [row.id for row in recovery.living(place)] == [job.id]
    jobs.remove(place.job(job.id))
    assert os.listdir(place.servers) == []


def test_an_alarm_is_ready_at_its_time_and_not_again_once_it_is_moved() -> None:
    alarm = Alarm()
    if alarm.fd is None:
        pytest.skip("no timerfd here")
    poll = select.poll()
    poll.register(alarm.fd, select.POLLIN)
    alarm.set(boottime() + 0.05)
    assert not poll.poll(0)
    assert poll.poll(10_000)
    alarm.set(boottime() - 5)
    assert poll.poll(0)
    alarm.set(None)
    assert not poll.poll(0)
    alarm.set(boottime() + 3600)
    assert not poll.poll(0)
    alarm.close()


# -- its place on the list ------------------------------------------------------------------------------


@pytest.fixture
def host(leftovers: Leftovers, temporary: Path, shared_redis: RedisServer) -> Host:
    """Give a host whose guards know of a Redis that nobody hurts."""
    return Host("elm", temporary, shared_redis.url, leftovers)


@pytest.fixture
def client(shared_redis: RedisServer) -> redis.Redis:
    return shared_redis.client()


def test_a_server_is_on_the_list_with_its_url_and_then_is_not(host: Host, client: redis.Redis) -> None:
    port = free_port()
    server = host.start(*server_argv("web", "--port", port), client=client, port=port, ttl=3, owner="ann")
    entry = server.published(client, "ready")
    assert (entry.host, entry.project, entry.lost) == ("elm", "example.org/shop", False)
    row = server.row
    assert entry.server == public.published(row, State.READY, pid=server.pid, url=row.url)
    assert entry.server["url"] == f"http://localhost:{port}"
    wait_until(lambda: server.lease(client)["url"])
    lease = server.lease(client)
    assert (lease["url"], lease["owner"], lease["server"]) == (row.url, "ann", server.id)
    assert lease["fencing"] == str(server.fencing())
    # A sign of life comes by itself, and the lease is kept by it.
    server.renewed_on_the_list(client)
    assert client.pttl(server.keys.lease) > 1_900
    server.stop()
    wait_until(lambda: server.entry(client) is None)
    assert server.lease(client) == {}
    assert os.listdir(host.home.servers) == []
    assert "cannot" not in host.log()


def test_an_exclusive_server_is_ready_after_two_round_trips(
    leftovers: Leftovers, temporary: Path, shared_redis: RedisServer, client: redis.Redis
) -> None:
    """Its guard says everything with its greeting, and then what has changed."""
    port = free_port()
    with Proxy(shared_redis.port) as proxy:
        host = Host("elm", temporary, proxy.url, leftovers)
        server = host.start(*server_argv("web", "--port", port), client=client, port=port, ttl=300)
        server.published(client, "ready")
        wait_until(lambda: server.lease(client)["url"])
        server.entry(client)
        assert (proxy.round_trips <= 2, proxy.connections) == (True, 1)
        answer = ask(client, server)  # it hears of it though it was never asked to look
        assert answer is not None
        assert answer["outcome"] == "stopped"
        server.ended()


#: A Redis that knows no HELLO, and so has no pushes.
NO_HELLO = {"rename-command": 'HELLO ""'}
#: A guard that does not go to its Redis before the file `go` is there, and tells by `said` what it did.
LATE = """
import time
from devsup.guard.fleet import Fleet
connect, introduce = Fleet._connect, Fleet._introduce
def late(self, now):
    while not os.path.exists(FOLDER + "/go"):
        time.sleep(0.01)
    connect(self, time.monotonic())
def told(self):
    open(FOLDER + "/said", "w").close()
    return introduce(self)
Fleet._connect, Fleet._introduce = late, told
"""

#: Such a one that waits for long at the end.
PATIENT = """
from devsup.guard import fleet
fleet._GOODBYE = 20.0, 20.0
"""


@pytest.mark.parametrize(
    ("channels", "config"), [("allchannels", {}), ("allchannels", NO_HELLO), ("resetchannels", NO_HELLO)]
)
def test_mail_that_lies_there_before_the_guard_is_heard_is_read(
    leftovers: Leftovers, temporary: Path, redis_server: RedisServer, channels: str, config: dict[str, str]
) -> None:
    """Whatever is refused of its first words: without HELLO, SUBSCRIBE is the last that is done."""
    redis_server.start(acl=(f"ann on >geheim ~* +@all {channels}",), config=config)
    host = Host("elm", temporary, f"redis://ann:geheim@127.0.0.1:{redis_server.port}", leftovers)
    client = redis_server.client(protocol=2)
    server = host.start(client=client, ttl=300, code=LATE)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, redis_server.client(protocol=2), server)
        wait_until(lambda: client.exists(keys.mail(FLEET, server.id)))
        (host.folder / "go").touch()
        assert without_ms(asked.result(30)) == SEEN
    server.ended()
    assert (host.folder / "said").exists()
    assert "cannot be reached" not in host.log()
    wait_until(lambda: server.entry(client) is None)
    assert server.lease(client) == {}


@pytest.mark.parametrize("config", [{}, NO_HELLO])
def test_what_ends_before_redis_has_answered_is_not_on_the_list_afterwards(
    leftovers: Leftovers, temporary: Path, redis_server: RedisServer, config: dict[str, str]
) -> None:
    """What the guard says of the end comes after what it said of the beginning, and is not refused for it."""
    client = redis_server.start(config=config).client(protocol=2)
    with Proxy(redis_server.port) as proxy:
        host = Host("elm", temporary, proxy.url, leftovers)
        server = host.start(client=client, ttl=300, code=LATE)
        redis_server.pause()
        (host.folder / "go").touch()
        wait_until((host.folder / "said").exists)
        server.stop()
        redis_server.resume()
        wait_until(lambda: server.lease(client) == {})
        time.sleep(0.2)  # nothing comes after it
        assert (server.lease(client), server.entry(client)) == ({}, None)
        assert proxy.connections == 1  # of two, one may be faster than the other


@pytest.mark.parametrize("config", [{}, NO_HELLO])
def test_what_ends_before_redis_answers_the_guard_is_taken_off_the_list(
    leftovers: Leftovers, temporary: Path, redis_server: RedisServer, config: dict[str, str]
) -> None:
    """The guard is there still, and hears the answers to its first and to its last words in one."""
    client = redis_server.start(config=config).client(protocol=2)
    host = Host("elm", temporary, redis_server.url, leftovers)
    server = host.start(client=client, ttl=300, code=LATE + PATIENT)
    guard = process(server.guard)
    redis_server.pause()
    (host.folder / "go").touch()
    wait_until((host.folder / "said").exists)
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: (row := host.registry.row(server.id)) is None or row.state is State.CRASHED)
    redis_server.resume()
    wait_until(lambda: not alive(guard), 15)  # it has heard that all was done
    assert (server.lease(client), server.entry(client)) == ({}, None)


def test_each_change_is_published_also_over_a_restart(host: Host, client: redis.Redis) -> None:
    """What the guard knows of Redis it knows from its environment, which its server never sees."""
    show = f"import os, signal\nprint(sorted(os.environ))\n{UP}\nsignal.pause()"
    server = host.start(show, client=client)
    server.published(client, "running")
    server.restart()
    entry = wait_until(lambda: (one := server.published(client, "running")).server["generation"] > 1 and one)
    assert entry
    assert entry.server["pid"] == server.pid
    wait_until(lambda: server.lease(client)["generation"] == str(server.generation))
    logs = [path.read_text() for path in host.folder.glob("home/logs/*/dev_server_web.*.log")]
    printed = [text for text in logs if "DEVSUP_MARKER" in text]
    assert len(printed) == 2
    assert not any("DEVSUP_GUARD_FLEET" in text for text in printed)
    os.kill(server.pid, signal.SIGKILL)  # it ends by itself: that is told, too
    wait_until(lambda: server.row.state is State.CRASHED)
    wait_until(lambda: server.entry(client) is None and server.lease(client) == {})


def test_a_guard_that_takes_over_goes_on_with_the_lease(host: Host, client: redis.Redis) -> None:
    server = host.start(client=client, ttl=5)
    server.published(client, "running")
    guard, fencing = process(server.guard), server.fencing()
    guard.kill()
    wait_until(lambda: not alive(guard))
    with server.spawn(ADOPT) as hearing:
        assert hearing.wait("l", time.monotonic() + 30)
    wait_until(lambda: server.published(client, "running").server["guard_pid"] == server.guard)
    server.renewed()
    assert (server.holds, server.fencing()) == (True, fencing)
    server.stop()
    wait_until(lambda: server.entry(client) is None and server.lease(client) == {})


@pytest.mark.parametrize(("channels", "config"), [("resetchannels", {}), ("allchannels", NO_HELLO)])
def test_without_pub_sub_mail_is_looked_for_at_each_beat(
    leftovers: Leftovers, temporary: Path, redis_server: RedisServer, channels: str, config: dict[str, str]
) -> None:
    """An access rule leaves the channels out, also for who asks, or it speaks nothing newer than RESP2."""
    rules = f"~* +@all {channels}"
    redis_server.start(acl=(f"ann on >geheim {rules}", f"default on nopass {rules}"), config=config)
    host = Host("elm", temporary, f"redis://ann:geheim@127.0.0.1:{redis_server.port}", leftovers)
    client = redis_server.client(protocol=2)
    server = host.start(client=client, ttl=3)
    server.published(client, "running")
    server.renewed()
    other = Stop("r", server.id, server.generation, "oak, pid 7", "script", True, None, False)
    assert send(client, requests.withdraw(FLEET, other, f"{now_ms() + 60_000} of another")) == 0
    answer = ask(client, server)
    assert answer is not None
    assert answer["outcome"] == "stopped"
    assert ("mail is looked for at each beat" in host.log()) == (not config)
    assert "cannot be reached" not in host.log()
    assert "geheim" not in host.log()
    server.ended()


# -- stopped from elsewhere -----------------------------------------------------------------------------

SEEN = {
    "outcome": "stopped", "signals": ["SIGTERM"], "escalated": False, "survivors": [], "left_running": [],
    "port_free": None, "error": None, "message": None,
}  # fmt: skip


def without_ms(answer: dict[str, Any] | None) -> dict[str, Any]:
    assert answer is not None
    assert isinstance(answer.pop("ms"), int)
    return answer


def test_another_host_stops_it_and_hears_what_was_seen(host: Host, client: redis.Redis) -> None:
    server = host.start(client=client, owner="ann")
    server.published(client, "running")
    assert without_ms(ask(client, server, owner="ann")) == SEEN
    end = server.ended()
    assert (end.state, end.reason) == (State.STOPPED, "fleet")
    events = [one for one in host.registry.events() if one.server == server.id]
    assert [(one.type, one.by) for one in events][-1] == ("stopped", "oak, pid 7")
    assert (server.entry(client), server.lease(client)) == (None, {})
    wait_until(host.nobody_is_left)


def test_a_stubborn_server_is_killed_with_the_grace_of_who_asks(host: Host, client: redis.Redis) -> None:
    server = host.start(STUBBORN)
    server.published(client, "running")
    answer = without_ms(ask(client, server, grace=0.3))
    assert answer == {**SEEN, "signals": ["SIGTERM", "SIGKILL"], "escalated": True}
    server.ended()


def test_what_is_not_to_be_stopped_is_left_alone(host: Host, client: redis.Redis) -> None:
    server = host.start(owner="ann")
    server.published(client, "running")
    for changes, code in (
        ({"owner": "bob"}, "other_owner"),
        ({"owner": "script"}, "other_owner"),
        ({"owner": "ann", "generation": server.generation + 1}, "not_found"),
    ):
        answer = ask(client, server, **changes)
        assert answer is not None
        assert (answer["outcome"], answer["error"], answer["signals"]) == ("refused", code, [])
    assert server.lives
    assert without_ms(ask(client, server, owner="bob", may_take=True)) == SEEN
    server.ended()


def test_an_operation_in_flight_gets_its_time(host: Host, client: redis.Redis) -> None:
    """And if the caller is not that patient, nothing is done."""
    server = host.start()
    server.published(client, "running")
    me = identity.me()
    number = host.registry.begin_operation(server.id, server.generation, me, "wait")
    assert isinstance(number, int)
    assert ask(client, server, timeout=0.3) is None
    server.host.registry.end_operations([number])
    time.sleep(0.7)  # a look later than the caller waited
    assert server.lives
    number = host.registry.begin_operation(server.id, server.generation, me, "wait")
    assert isinstance(number, int)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, client, server)
        time.sleep(0.2)
        assert not asked.done()
        host.registry.end_operations([number])
        assert without_ms(asked.result(30)) == SEEN
    server.ended()


def test_a_request_that_is_taken_back_while_an_operation_is_waited_for_is_not_obeyed(
    host: Host, client: redis.Redis
) -> None:
    """Its caller goes when the guard has it already; another one's still counts."""
    server = host.start(ttl=3)
    server.published(client, "running")
    me = identity.me()
    number = host.registry.begin_operation(server.id, server.generation, me, "wait")
    assert isinstance(number, int)
    stop = Stop("r", server.id, server.generation, "oak, pid 7", "script", True, None, False)
    mail = keys.mail(FLEET, server.id)
    element = str(send(client, requests.post(FLEET, stop, 60.0)))
    wait_until(lambda: not client.exists(mail), 20)
    assert send(client, requests.withdraw(FLEET, stop, element)) == 0
    wait_until(lambda: not client.exists(mail), 20)
    server.renewed_on_the_list(client)  # it has read that by now
    host.registry.end_operations([number])
    time.sleep(1.2)  # two looks
    assert server.lives
    assert server.row.state is State.RUNNING
    number = host.registry.begin_operation(server.id, server.generation, me, "wait")
    assert isinstance(number, int)
    other = post_heard(client, server)
    element = str(send(client, requests.post(FLEET, stop, 60.0)))
    assert send(client, requests.withdraw(FLEET, stop, element)) in (0, 1)
    host.registry.end_operations([number])
    assert without_ms(hear_of(client, other)) == SEEN
    server.ended()


#: A guard for whose clock an hour was slept through from when the file `slept` is there, and which tells by
#: `waits` that it waits for an operation.
SLEPT = """
from devsup.guard import lifetimes, mail
now, has_to_wait = mail.boottime, lifetimes.Lifetimes.has_to_wait
mail.boottime = lambda: now() + (3600 if os.path.exists(FOLDER + "/slept") else 0)
def telling(self, reason):
    waits = has_to_wait(self, reason)
    if waits:
        open(FOLDER + "/waits", "w").close()
    return waits
lifetimes.Lifetimes.has_to_wait = telling
"""


def test_a_request_is_not_obeyed_after_a_sleep(host: Host, client: redis.Redis) -> None:
    """The guard has it and waits for an operation; when the machine wakes up nobody waits for an answer."""
    server = host.start(code=SLEPT)
    server.published(client, "running")
    number = host.registry.begin_operation(server.id, server.generation, identity.me(), "wait")
    assert isinstance(number, int)
    stop = Stop("r", server.id, server.generation, "oak, pid 7", "script", True, None, False)
    send(client, requests.post(FLEET, stop, 60.0))
    wait_until((host.folder / "waits").exists)
    (host.folder / "slept").touch()
    host.registry.end_operations([number])
    time.sleep(1.2)  # two looks
    assert server.lives
    assert server.row.state is State.RUNNING
    server.stop()


#: A server that ends, once it is told to, when the file in its argument is there.
TOLD = f"""
import os, signal, sys, time
def end(*_):
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    raise SystemExit
signal.signal(signal.SIGTERM, end)
{UP}
signal.pause()
"""


def start_told(host: Host) -> tuple[Guarded, Path]:
    """Start a server that takes its time to end, and return it with the file that lets it."""
    go = host.folder / "go"
    return host.start(sys.executable, "-IS", "-c", TOLD, str(go)), go


def post_heard(client: redis.Redis, server: Guarded, **changes: Any) -> Stop:
    """Ask for the end of ``server``, and return when its guard has that."""
    stop = post(client, server, **changes)
    wait_until(lambda: not client.exists(keys.mail(FLEET, server.id)), 20)
    return stop


def test_a_local_stop_at_the_same_time_tells_the_same(host: Host, client: redis.Redis) -> None:
    """Whoever is first, both hear of one end."""
    server, go = start_told(host)
    server.published(client, "running")
    claim = StopClaim(identity.me(), now_ms(), "stop", 60.0, sweep=False)
    assert host.registry.claim_stop(server.id, server.generation, claim) == claim
    with ThreadPoolExecutor() as pool:
        ending = pool.submit(server.stop)
        server.published(client, "stopping")
        asked = post_heard(client, server)
        go.touch()
        answer = without_ms(hear_of(client, asked))
        ending.result(30)
    assert answer == {**SEEN, "outcome": "stopped_by_other"}
    end = server.ended()
    assert end.reason == "stop"
    assert end.outcome is not None
    assert end.outcome["signals"] == answer["signals"]


def test_a_generation_that_was_restarted_meanwhile_is_not_meant(host: Host, client: redis.Redis) -> None:
    """It is asked for while the old one goes down: the new one is none of the caller's business."""
    server, go = start_told(host)
    server.published(client, "running")
    old = server.generation
    with ThreadPoolExecutor() as pool:
        restarted = pool.submit(server.restart, grace=60.0)
        server.published(client, "restarting")
        asked = post_heard(client, server, generation=old)
        go.touch()
        answer = hear_of(client, asked)
        restarted.result(60)
    assert answer is not None
    assert (answer["outcome"], answer["error"]) == ("refused", "not_found")
    server.published(client, "running")
    assert server.row.generation > old
    server.stop()


def test_nonsense_in_the_mail_is_no_end_of_a_guard(host: Host, client: redis.Redis) -> None:
    server = host.start(ttl=3)
    server.published(client, "running")
    mail = keys.mail(FLEET, server.id)
    fine = {
        "verb": "stop",
        "id": "r",
        "server": server.id,
        "generation": 1,
        "by": "",
        "owner": "",
        "sweep": 0,
    }
    fine |= {"may_take": 0, "grace": 1}
    wrong = [
        {},
        [],
        {**fine, "grace": "a"},
        {**fine, "generation": []},
        {**fine, "generation": math.inf},
        {**fine, "verb": "dance"},
    ]
    texts = [*map(json.dumps, wrong), "{", "[" * 100_000]
    client.rpush(mail, *(f"9999999999999 {text}" for text in texts), "no number")
    client.publish(mail, "")
    wait_until(lambda: not client.exists(mail), 20)
    server.renewed_on_the_list(client)
    assert "cannot" not in host.log()
    server.stop()


def test_mail_that_cannot_be_read_is_no_reason_to_knock_all_the_time(host: Host, client: redis.Redis) -> None:
    """Somebody's key stands in its place: all else goes on, and it is tried again at each beat."""
    server = host.start(client=client, ttl=3)
    server.published(client, "running")
    mail = keys.mail(FLEET, server.id)
    client.set(mail, "somebody's")
    before = host.log()
    client.publish(mail, "")
    for _ in range(3):
        server.renewed()
    said = host.log().removeprefix(before).splitlines()
    assert [line for line in said if "cannot be reached" not in line] == []
    assert len(said) == 1
    assert server.holds
    client.delete(mail)
    assert without_ms(ask(client, server)) == SEEN
    server.ended()


def test_a_guard_whose_python_has_no_tls_guards_all_the_same(
    leftovers: Leftovers, temporary: Path, shared_redis: RedisServer
) -> None:
    url = shared_redis.url.replace("redis://", "rediss://")
    host = Host("elm", temporary, url, leftovers)
    server = host.start(code='sys.modules["ssl"] = None')
    wait_until(lambda: "this Python cannot speak TLS" in host.log(), 20)
    assert "Traceback" not in host.log()
    server.stop()


def test_a_guard_leaves_an_address_that_says_nothing(
    leftovers: Leftovers, temporary: Path, shared_redis: RedisServer, client: redis.Redis
) -> None:
    two = """
from devsup.redis import lookup
lookup.known = lambda *_: [(2, ("127.0.0.1", {})), (2, ("127.0.0.1", {}))]
"""
    with swallowing() as port:
        host = Host("elm", temporary, "redis://two.test", leftovers)
        server = host.start(ttl=3, code=two.format(port, shared_redis.port))
        server.published(client, "running")
        assert "cannot be reached" not in host.log()
        server.stop()
