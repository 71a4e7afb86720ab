"""
Leases and the fleet's scripts on a real Redis.

A model says who has a lease. Hypothesis makes up what holders do, with leases that run out and a Redis that
comes back empty; no holder's number is ever given twice, and nobody keeps what somebody newer has.
"""

# ruff: noqa: D102
# The name of a rule says what is done, that of an invariant what must be true.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from devsup.fleet import keys, listing, requests
from devsup.fleet.requests import Stop
from devsup.redis import leases
from devsup.redis.leases import Granted, Held, Keys
from tests.guarding import send
from tests.support import wait_until

if TYPE_CHECKING:
    import redis

    from tests.redis_support import RedisServer

KEYS = keys.lease("shop", "example.org/shop", "web")
LONG = 600_000
WHO = st.integers(min_value=0, max_value=3)


@pytest.fixture
def client(shared_redis: RedisServer) -> redis.Redis:
    """Give a client of a Redis that is empty."""
    return shared_redis.client()


def acquire(client: redis.Redis, token: str, ttl: int = LONG, **more: str) -> Granted | Held:
    return leases.answered(send(client, leases.acquire(KEYS, token, ttl, {"host": token}, **more)))


def renew(client: redis.Redis, token: str, fencing: int, ttl: int = LONG) -> Granted | Held:
    return leases.answered(send(client, leases.renew(KEYS, token, ttl, fencing, {"host": token})))


class Machine(RuleBasedStateMachine):
    """What is done to one lease, and who must have it."""

    client: redis.Redis

    @initialize()
    def make(self) -> None:
        self.client.flushall()
        self.holder: str | None = None
        #: What each has been given: its token and its number.
        self.given: dict[int, tuple[str, int]] = {}
        self.numbers: list[int] = []
        #: The highest number that Redis knows of.
        self.known = 0

    @rule(who=WHO)
    def somebody_asks(self, who: int) -> None:
        token = f"{who}.{len(self.numbers)}"
        answer = acquire(self.client, token)
        if self.holder is not None:
            assert isinstance(answer, Held)
            assert answer.holder["host"] == self.holder
            assert 0 < answer.left <= LONG
            return
        assert isinstance(answer, Granted)
        assert answer.fencing > max(self.numbers, default=0)
        self.numbers.append(answer.fencing)
        self.given[who] = (token, answer.fencing)
        self.holder, self.known = token, answer.fencing

    @rule(who=WHO)
    def an_answer_was_lost(self, who: int) -> None:
        if who in self.given and self.given[who][0] == self.holder:
            again = acquire(self.client, self.holder)
            assert isinstance(again, Granted)
            assert again.fencing == self.given[who][1]

    @rule(who=WHO)
    def somebody_renews(self, who: int) -> None:
        if who not in self.given:
            return
        token, fencing = self.given[who]
        answer = renew(self.client, token, fencing)
        held_by = next((number for other, number in self.given.values() if other == self.holder), None)
        newer = held_by is not None and self.holder != token and held_by > fencing
        if newer or (self.holder is None and self.known > fencing):
            assert isinstance(answer, Held)
            assert answer.fencing == self.known
            return
        assert isinstance(answer, Granted)
        assert answer.fencing == fencing
        self.holder, self.known = token, max(self.known, fencing)

    @rule(who=WHO)
    def somebody_releases(self, who: int) -> None:
        if who in self.given:
            token, _ = self.given[who]
            assert send(self.client, leases.release(KEYS, token)) == (self.holder == token)
            self.holder = None if self.holder == token else self.holder

    @rule(who=WHO, other=WHO)
    def a_dead_ones_is_taken(self, who: int, other: int) -> None:
        if other in self.given and who != other and self.given[other][0] == self.holder:
            token = f"{who}.{len(self.numbers)}"
            answer = acquire(self.client, token, instead=self.holder)
            assert isinstance(answer, Granted)
            assert answer.fencing > max(self.numbers)
            self.numbers.append(answer.fencing)
            self.given[who] = (token, answer.fencing)
            self.holder, self.known = token, answer.fencing

    @rule()
    def its_time_is_over(self) -> None:
        self.client.pexpire(KEYS.lease, 0)
        self.holder = None

    @rule()
    def redis_comes_back_empty(self) -> None:
        self.client.flushall()
        self.holder, self.known = None, 0

    @invariant()
    def redis_says_who_has_it(self) -> None:
        held = leases.holder(send(self.client, leases.look(KEYS)))
        assert held.get("token") == self.holder
        assert int(str(self.client.get(KEYS.counter) or 0)) == self.known


def test_leases_do_what_their_model_does(client: redis.Redis) -> None:
    class Bound(Machine):
        pass

    Bound.client = client
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_lease_is_over_after_its_time(client: redis.Redis) -> None:
    assert isinstance(acquire(client, "a", ttl=20), Granted)
    wait_until(lambda: not client.exists(KEYS.lease))
    second = acquire(client, "b")
    assert isinstance(second, Granted)
    assert isinstance(renew(client, "a", second.fencing - 1), Held)


def test_it_is_taken_from_a_server_of_a_place_and_from_no_other(client: redis.Redis) -> None:
    """One that says nothing of either is nobody's to take like that."""
    info = {"place": "boot/1/home", "server": "a b"}
    send(client, leases.acquire(KEYS, "old", 60_000, info))
    for other in ("boot/1/home", "a b", "boot/1/home a", "boot/2/home a b", " ", ""):
        assert isinstance(acquire(client, "new", instead=other), Held)
    assert isinstance(acquire(client, "new", instead="boot/1/home a b"), Granted)
    for other in ("boot/1/home a b", " ", "", "false"):
        assert isinstance(acquire(client, "newer", instead=other), Held)


def test_of_two_who_had_it_the_newer_has_it_after_a_loss(client: redis.Redis) -> None:
    """The older of them comes back first, when nobody else knows better."""
    old = acquire(client, "old")
    new = acquire(client, "new", instead="old")
    assert isinstance(old, Granted)
    assert isinstance(new, Granted)
    client.flushall()
    assert isinstance(renew(client, "old", old.fencing), Granted)
    assert isinstance(renew(client, "new", new.fencing), Granted)
    lost = renew(client, "old", old.fencing)
    assert isinstance(lost, Held)
    assert (lost.holder["host"], lost.fencing) == ("new", new.fencing)


def test_a_full_redis_gives_nothing_and_takes_nothing_away(redis_server: RedisServer) -> None:
    """A renewal needs no memory; an acquisition that has none is refused whole."""
    redis_server.start(maxmemory="3mb")
    client = redis_server.client()
    first = acquire(client, "a", ttl=5_000)
    assert isinstance(first, Granted)
    client.config_set("maxmemory", "1")
    assert isinstance(renew(client, "a", first.fencing), Granted)
    assert client.pttl(KEYS.lease) > 5_000
    other = Keys("{x}:lease", "{x}:counter")
    with pytest.raises(Exception, match="maxmemory"):
        send(client, leases.acquire(other, "b", LONG, {}))
    assert not client.exists(other.lease, other.counter)
    assert send(client, leases.release(KEYS, "a")) == 1


def test_who_waits_is_woken_by_a_release_once(client: redis.Redis) -> None:
    where = Keys("{x}:lease", "{x}:counter", "{x}:wake")
    for token in ("a", "b"):
        assert isinstance(leases.answered(send(client, leases.acquire(where, token, LONG, {}))), Granted)
        assert send(client, leases.release(where, token)) == 1
    assert client.blpop([where.wake or ""], timeout=5) is not None
    assert not client.exists(where.wake or "")


# -- the list of servers -------------------------------------------------------------------------------


def published(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "state": "ready", "pid": 7, "guard_pid": 8, "started_at": f"at {name}", **more}


def test_a_server_is_listed_until_it_is_forgotten(client: redis.Redis) -> None:
    for name, host in (("1", "oak"), ("2", "elm"), ("3", "oak")):
        send(client, listing.publish("shop", published(name), host=host, project="p", ttl=60))
    client.hset(keys.servers("shop"), "4", "{}")  # of a version that is not ours
    found = listing.entries(send(client, listing.read_all("shop")))
    assert [(one.host, one.id, one.project, one.lost) for one in found] == [
        ("elm", "2", "p", False), ("oak", "1", "p", False), ("oak", "3", "p", False),
    ]  # fmt: skip
    assert abs(found[0].seen_at - int(client.time()[0]) * 1000) < 60_000
    assert listing.entries(send(client, listing.read_all("another"))) == []
    send(client, listing.forget("shop", "1"))
    assert [one.id for one in listing.entries(send(client, listing.read_all("shop")))] == ["2", "3"]


def test_what_is_not_heard_of_is_lost_and_at_last_forgotten(client: redis.Redis) -> None:
    send(client, listing.publish("shop", published("1"), host="oak", project=None, ttl=0))
    wait_until(lambda: listing.entries(send(client, listing.read_all("shop")))[0].lost)
    (lost,) = listing.entries(send(client, listing.read_all("shop")))
    assert (lost.server["state"], lost.server["pid"], lost.server["guard_pid"]) == ("lost", None, None)
    client.zincrby(keys.seen("shop"), -listing.FORGOTTEN_AFTER, "1")
    send(client, listing.publish("shop", published("2"), host="oak", project=None, ttl=60))
    assert [one.id for one in listing.entries(send(client, listing.read_all("shop")))] == ["2"]
    assert client.hkeys(keys.servers("shop")) == ["2"]


def test_an_ended_server_gives_back_its_own_lease_alone(client: redis.Redis) -> None:
    assert isinstance(acquire(client, "a"), Granted)
    send(client, listing.forget("shop", "1", lease=KEYS.lease, token="b"))
    assert client.exists(KEYS.lease)
    send(client, listing.forget("shop", "1", lease=KEYS.lease, token="a"))
    assert not client.exists(KEYS.lease)


# -- requests ------------------------------------------------------------------------------------------

STOP = Stop("r1", "1", 2, "oak, pid 7", "ann", may_take=False, grace=None, sweep=False)


def test_a_request_is_taken_once_and_answered(client: redis.Redis) -> None:
    heard = client.pubsub()  # type: ignore[no-untyped-call]
    heard.subscribe(keys.mail("shop", "1"))
    assert heard.get_message(timeout=5)["type"] == "subscribe"
    send(client, requests.post("shop", STOP, timeout=60))
    assert heard.get_message(timeout=5)["type"] == "message"
    heard.close()
    client.rpush(keys.mail("shop", "1"), "9999999999999 {}", '9999999999999 {"verb":"dance"}')
    ((request, left),) = requests.taken(send(client, requests.take("shop", "1")))
    assert request == STOP
    assert 0 < left <= 60
    assert requests.taken(send(client, requests.take("shop", "1"))) == []
    send(client, requests.answer("shop", STOP, {"outcome": "stopped"}))
    got = requests.read_answer(send(client, requests.wait_for_answer("shop", STOP, 5)))
    assert got == {"outcome": "stopped"}
    assert requests.read_answer(send(client, requests.wait_for_answer("shop", STOP, 0.01))) is None


def test_a_request_is_not_obeyed_when_nobody_waits_any_more(client: redis.Redis) -> None:
    element = send(client, requests.post("shop", STOP, timeout=60))
    assert send(client, requests.withdraw("shop", STOP, element)) == 1
    assert requests.taken(send(client, requests.take("shop", "1"))) == []
    # One that the guard has by now is taken back by a word, for as long as it could be obeyed.
    element = send(client, requests.post("shop", STOP, timeout=60))
    assert requests.withdrawn(send(client, requests.take("shop", "1"))) == set()
    assert send(client, requests.withdraw("shop", STOP, element)) == 0
    assert 0 < client.pttl(keys.mail("shop", "1")) <= 60_000
    reply = send(client, requests.take("shop", "1"))
    assert (requests.taken(reply), requests.withdrawn(reply)) == ([], {STOP.id})
    element = send(client, requests.post("shop", STOP, timeout=0.001))
    wait_until(lambda: requests.taken(_peek(client)) == [])
    client.delete(keys.mail("shop", "1"))
    assert send(client, requests.withdraw("shop", STOP, element)) == 0
    assert not client.exists(keys.mail("shop", "1"))
    for text in ("{", "[]", '{"verb":"withdraw"}', '{"verb":[]}'):
        assert requests.withdrawn([[1, text]]) == set()
    send(client, requests.post("shop", STOP, timeout=0.02))
    send(client, requests.post("shop", STOP.replace(id="r2"), timeout=60))
    wait_until(lambda: len(requests.taken(_peek(client))) == 1)
    assert [one.id for one, _ in requests.taken(send(client, requests.take("shop", "1")))] == ["r2"]


def _peek(client: redis.Redis) -> object:
    """Return what would be taken, and leave it there."""
    before = [str(one) for one in client.lrange(keys.mail("shop", "1"), 0, -1)]
    valid = send(client, requests.take("shop", "1"))
    client.rpush(keys.mail("shop", "1"), *before)
    return valid
