"""
What Redis, the network and a sleeping holder can do to a lock between hosts, done to real ones.

What this kind of lock shares with the others stands in test_locks.py.
"""

from __future__ import annotations

import _socket
import asyncio
import errno
import gc
import os
import pickle
import random
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from devsup import aio
from devsup.clock import boottime
from devsup.errors import FleetUnreachable, LockLost, LockTimeout, MissingDependencies, UsageError
from devsup.locks import RedisLock, _owner, _redis, _taking
from devsup.redis import links
from devsup.redis.address import parse
from tests.history import Held, faults
from tests.redis_support import Proxy, RedisServer, server_binaries
from tests.support import Spawn, free_port, hear, say, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Use = Callable[[RedisLock, float, Callable[[_redis.RedisHold], object]], None]

KEY = "{devsup:lock:shop}"

HOLDER = """
import pickle, sys
from devsup.errors import LockLost
hold = pickle.loads(bytes.fromhex(sys.argv[1])).write(purpose="a test")
try:
    with hold:
        print(hold.fencing, flush=True)
        sys.stdin.readline()
        print(hold.held, hold.lost, flush=True)
except LockLost as error:
    print(error, flush=True)
"""


@pytest.fixture(params=["sync", "async"])
def use(request: pytest.FixtureRequest) -> Use:
    """Take a lock and do something with the hold, by either driver."""

    def plain(lock: RedisLock, timeout: float, work: Callable[[_redis.RedisHold], object]) -> None:
        with lock.write(timeout=timeout) as hold:
            work(hold)

    async def task(lock: RedisLock, timeout: float, work: Callable[[_redis.RedisHold], object]) -> None:  # noqa: ASYNC109 - its word
        async with lock.write(timeout=timeout) as hold:
            work(hold)

    if request.param == "sync":
        return plain
    return lambda lock, timeout, work: asyncio.run(task(lock, timeout, work))


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert not _owner.HELD
    assert not _redis._open_holds
    for renewer in _taking._renewers.values():  # nothing is told for a minute to a server that is gone
        for taking, (times, _) in [*renewer._ending.items()]:
            renewer._ending[taking] = (times, 0.0)


def exists(server: RedisServer) -> bool:
    with server.client() as client:
        return bool(client.exists(KEY))


def see_a_renewal(server: RedisServer, *keys: str) -> None:
    """Wait until leases of 3 s are renewed: they have more time left than they are given here."""
    with server.client() as client:
        for key in keys:
            assert client.pexpire(key, 2500)
        wait_until(lambda: all(client.pttl(key) > 2500 for key in keys), 20)


def fencing(server: RedisServer) -> int:
    """Return the number of whoever has the lock, by Redis; 0 where nobody has."""
    with server.client() as client:
        return int(client.hget(KEY, "fencing") or 0)


# -- as it should be -------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", server_binaries(), ids=lambda path: path.name)
def test_it_is_held_renewed_and_given_back_on_every_server(binary: Path, temporary: Path) -> None:
    """The number is on the hold and on the lock; the keys have the lock's name; nobody but a hold renews."""
    with RedisServer(temporary, binary).start() as server:
        lock = RedisLock(server.unix_url, "shop", ttl=3, purpose="sale")
        with lock.write() as hold:
            first = hold.fencing
            assert first == lock.fencing == fencing(server)
            see_a_renewal(server, KEY)
            assert hold.held
            assert not hold.lost
            held = lock.holder()
            assert held is not None
            assert (held.host, held.pid, held.purpose) == (os.uname().nodename, os.getpid(), "sale")
            assert 0.5 <= held.age < 20
            with server.client() as client:
                assert set(client.keys()) == {KEY, f"{KEY}:fence"}
        assert [lock.fencing, lock.holder()] == [None, None]
        with lock.write() as hold:
            assert hold.fencing is not None
            assert first is not None
            assert hold.fencing > first


def test_a_host_may_be_called_something_else(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVSUP_HOST", "box-7")
    lock = RedisLock(shared_redis.url, "shop")
    other: list[LockTimeout] = []

    def ask() -> None:
        try:
            with lock.write(timeout=0):
                pass
        except LockTimeout as error:
            other.append(error)

    with lock.write(purpose="sale"):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(20)
    assert "the host `box-7`" in str(other[0])
    assert other[0].details["holder"] == {"pid": os.getpid(), "purpose": "sale", "host": "box-7"}


def test_a_host_whose_name_can_be_none_is_told_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, use: Use
) -> None:
    monkeypatch.setenv("DEVSUP_HOST", "box 7")
    lock = RedisLock(f"redis://127.0.0.1:{free_port()}", "shop")
    with pytest.raises(UsageError, match="DEVSUP_HOST cannot be a name"):
        use(lock, 0, lambda _: None)


def test_what_another_host_says_of_itself_is_no_command_to_a_terminal(
    shared_redis: RedisServer, use: Use
) -> None:
    with shared_redis.client() as client:
        said = {"token": "t", "fencing": "1", "pid": "7", "who": ""}
        client.hset(KEY, mapping=said | {"host": "box\x1b[2J", "purpose": "a\x07\nb"})
        with pytest.raises(LockTimeout) as caught:
            use(RedisLock(shared_redis.url, "shop"), 0, lambda _: None)
        client.delete(KEY)
    assert "pid 7 (ab), for " in str(caught.value)
    assert str(caught.value).endswith("on the host `box[2J`")
    assert caught.value.details["holder"] == {"pid": 7, "purpose": "ab", "host": "box[2J"}


def test_a_name_that_is_slow_to_look_up_keeps_nobody_longer_than_told(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def look_up(*_: object) -> list[object]:
        assert go.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", shared_redis.port))]

    monkeypatch.setattr(_socket, "getaddrinfo", look_up)
    link = links.Link(parse("redis://slow.test"))
    began = time.monotonic()
    with pytest.raises(FleetUnreachable, match=r"no answer within 0\.2 s"):
        link.call(("ECHO", "a"), within=0.2)
    assert time.monotonic() - began < 5
    go.set()
    assert link.call(("ECHO", "a"), within=20) == ["a"]
    link.close()


def test_one_thread_renews_all_that_a_process_holds(shared_redis: RedisServer) -> None:
    locks = [RedisLock(shared_redis.url, f"shop{number:02}", ttl=3) for number in range(20)]
    holds = [lock.write() for lock in locks]
    for hold in holds:
        assert hold.try_acquire()
    see_a_renewal(shared_redis, *(lock.keys.lease for lock in locks))
    assert [hold.held for hold in holds] == [True] * 20
    assert sum(one.name == "devsup-timers" for one in threading.enumerate()) <= 1 + _of_others()
    assert [hold.release() for hold in holds] == [True] * 20


def _of_others() -> int:
    """Return how many threads of other tests' servers have not ended yet."""
    return len(_taking._renewers) - 1


def test_what_goes_wrong_with_one_lock_ends_no_other(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds = [RedisLock(shared_redis.url, name, ttl=3).write() for name in ("cursed", "shop")]
    for hold in holds:
        assert hold.try_acquire()
    renew, tries = _taking.Taking.renew, []

    def fail_for_one(taking: _taking.Taking) -> Any:
        if taking.keys.lease == "{devsup:lock:cursed}":
            tries.append(1)
            raise ZeroDivisionError
        return renew(taking)

    monkeypatch.setattr(_taking.Taking, "renew", fail_for_one)
    see_a_renewal(shared_redis, KEY)
    wait_until(lambda: len(tries) > 2, 20)
    monkeypatch.undo()
    see_a_renewal(shared_redis, "{devsup:lock:cursed}")
    assert [hold.release() for hold in holds] == [True, True]


def test_a_ctrl_c_while_a_wake_up_is_set_ends_no_renewal(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = RedisLock(shared_redis.url, "shop", ttl=3).write()
    renewer = _taking.renewer(hold.lock.address)
    real, interrupts = renewer._timers.set, [KeyboardInterrupt()]

    def interrupted(key: Any, seconds: float) -> None:
        if interrupts:
            raise interrupts.pop()
        real(key, seconds)

    monkeypatch.setattr(renewer._timers, "set", interrupted)
    with pytest.raises(KeyboardInterrupt):
        renewer.give_back(_taking.Taking(hold.lock.keys, 3, {}))
    assert hold.try_acquire()
    see_a_renewal(shared_redis, KEY)
    assert hold.release()


def test_what_is_no_utf_8_is_sent_and_read(shared_redis: RedisServer, use: Use) -> None:
    """A name or a purpose may be a path; what another program wrote beside a token is anything."""
    for purpose, told in (("\udce9", "\udce9"), ("\ud800", "?")):
        lock = RedisLock(shared_redis.url, "pa\udce9th", purpose=purpose)
        with lock.write():
            holder = lock.holder()
            assert holder is not None
            assert holder.purpose == told
    with shared_redis.client() as client:
        client.hset(KEY, mapping={"token": b"\xff", "fencing": b"\xff", "host": b"\xff"})
        with pytest.raises(LockTimeout, match="another process"):
            use(RedisLock(shared_redis.url, "shop"), 0, lambda _: None)
        client.delete(KEY)


def test_who_waits_does_not_poll(shared_redis: RedisServer, spawn: Spawn) -> None:
    """Questions are asked about once a second, and at once when the lock becomes free."""
    lock = RedisLock(shared_redis.url, "shop")
    hold = lock.write()
    assert hold.try_acquire()
    with shared_redis.client() as client:
        waiter = spawn(HOLDER, pickle.dumps(lock).hex())
        wait_until(lambda: client.info("clients")["blocked_clients"])
        client.config_resetstat()
        began = time.monotonic()
        time.sleep(1.5)
        calls = {name: one["calls"] for name, one in client.info("commandstats").items()}
        most = time.monotonic() - began + 2
        assert calls.get("cmdstat_eval", 0) <= most
        assert calls.get("cmdstat_blpop", 0) <= most
    assert hold.release()
    assert int(hear(waiter)) > 0
    say(waiter)
    assert hear(waiter) == "True False\n"


def test_who_waits_is_woken(shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the release itself: without a look of its own it gets the lock all the same."""
    monkeypatch.setattr(_redis, "_LOOK", 60.0)
    lock = RedisLock(shared_redis.url, "shop", ttl=60)
    hold = lock.write()
    assert hold.try_acquire()
    thread = threading.Thread(target=lambda: lock.write(timeout=60).__enter__().release())
    thread.start()
    with shared_redis.client() as client:
        wait_until(lambda: client.info("clients")["blocked_clients"])
    assert hold.release()
    thread.join(20)
    assert not thread.is_alive()


def test_a_release_waits_for_a_renewal_that_is_under_way(
    shared_redis: RedisServer, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that came to Redis after the release would take the lock again, for nobody."""
    lock = RedisLock(shared_redis.url, "ship", ttl=2)
    renews, order = threading.Event(), []
    release, renew = _taking.Taking.release, _taking.Taking.renewed

    def note(taking: _taking.Taking, what: str) -> None:
        if taking.keys == lock.keys:  # an earlier test's may still be told to a Redis that is gone
            order.append(what)

    def slow(taking: _taking.Taking) -> Any:
        if taking.keys == lock.keys:
            renews.set()
        time.sleep(0.1)
        return command(taking)

    def renewed(taking: _taking.Taking, answer: Any) -> None:
        note(taking, "renewed")
        renew(taking, answer)

    def releases(taking: _taking.Taking) -> Any:
        note(taking, "releases")
        return release(taking)

    command = _taking.Taking.renew
    monkeypatch.setattr(_taking.Taking, "renew", slow)
    monkeypatch.setattr(_taking.Taking, "renewed", renewed)
    monkeypatch.setattr(_taking.Taking, "release", releases)
    use(lock, 10, lambda _: renews.wait(20))
    assert order[-2:] == ["renewed", "releases"]
    assert order.count("releases") == 1
    assert lock.holder() is None


def test_a_lease_counts_from_the_moment_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer may have been on its way for long, and Redis has counted meanwhile."""
    now = 100.0
    monkeypatch.setattr(_taking, "boottime", lambda: now)
    taking = _taking.Taking(RedisLock("redis://host", "shop").keys, 30.0, {})
    told = [taking.is_to_be_released]
    taking.acquire()
    assert [*told, taking.is_to_be_released] == [False, True]
    now = 110.0
    taking.acquired([1, 7, 0])
    assert (taking.left(), taking.fencing) == (20.0, 7)
    assert taking.may_renew()
    assert not taking.end()
    taking.renew()
    now = 115.0
    taking.renewed([1, 7, 0])
    assert taking.left() == 25.0
    assert taking.end()
    assert not taking.may_renew()
    # Nor is Redis, whose clock may be the faster one, done before us.
    odd = _taking.Taking(RedisLock("redis://host", "shop").keys, 0.1004, {})
    assert odd.acquire()[6] == 101
    odd.acquired([1, 7, 0])
    assert odd.renew()[6] == 101
    late = _taking.Taking(RedisLock("redis://host", "shop").keys, 30.0, {})
    assert 30_020 <= int(late.acquire()[6]) <= 30_100
    now = 145.0
    late.acquired([1, 8, 0])
    assert not late.counts
    # Nobody has looked while it was over; who could have looked was told so.
    late = _taking.Taking(RedisLock("redis://host", "shop").keys, 30.0, {})
    late.acquire()
    late.acquired([1, 9, 0])
    now = 174.0
    late.renew()
    now = 176.0
    late.renewed([1, 9, 0])
    assert not late.counts


def test_a_fork_s_child_has_a_connection_of_its_own(shared_redis: RedisServer, spawn: Spawn) -> None:
    code = """
import asyncio, os, sys
from devsup.redis import address, links
where = address.parse(sys.argv[1])
async def main():
    link = await links.async_link(where)
    ids = [*links.link(where).call(("CLIENT", "ID"), within=9), *await link.call(("CLIENT", "ID"), within=9)]
    if os.fork() == 0:
        ids += links.link(where).call(("CLIENT", "ID"), within=9)
        print(*ids, flush=True)
        os._exit(0)
    os.wait()
    ids = [*links.link(where).call(("CLIENT", "ID"), within=9), *await link.call(("CLIENT", "ID"), within=9)]
    print(*ids, flush=True)
asyncio.run(main())
"""
    child = spawn(code, shared_redis.url)
    mine, tasks, forked = hear(child).split()
    assert forked not in (mine, tasks)
    assert hear(child).split() == [mine, tasks]


def test_a_process_that_ends_frees_what_it_holds(shared_redis: RedisServer, spawn: Spawn) -> None:
    """Also what was taken by hand and forgotten, and what a task was just asking for."""
    lock = RedisLock(shared_redis.url, "shop")
    code = """
import asyncio, pickle, sys
lock = pickle.loads(bytes.fromhex(sys.argv[1]))
async def main():
    await lock.write().atry_acquire()
    print("held", flush=True)
lock.write().try_acquire() if sys.argv[2] == "sync" else asyncio.run(main())
"""
    for driver in ("sync", "async"):
        before = fencing_counter(shared_redis)
        child = spawn(code, pickle.dumps(lock).hex(), driver)
        assert child.wait(20) == 0
        assert child.stderr is not None
        assert child.stderr.read() == ""
        assert not exists(shared_redis)
        assert fencing_counter(shared_redis) > before


def fencing_counter(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.get(f"{KEY}:fence") or 0)


def test_what_cannot_be_is_refused(spawn: Spawn) -> None:
    for url, name, ttl in (
        ("redis://:hush@host:port", "shop", 30.0),
        ("redis://localhost", "", 30.0),
        ("redis://localhost", "shop", 0.01),
        ("redis://localhost", "shop", float("nan")),
        ("redis://localhost", "shop", 1e18),
        ("redis://localhost", "\ud800", 30.0),
    ):
        with pytest.raises(UsageError) as caught:
            RedisLock(url, name, ttl=ttl)
        assert "hush" not in f"{caught.value} {caught.value.hint}"
    assert "hush" not in repr(RedisLock("redis://:hush@host", "shop"))
    code = """
import sys
sys.modules["redis"] = None
from devsup.locks import RedisLock
try:
    RedisLock("redis://localhost", "shop").write().try_acquire()
except Exception as error:
    print(type(error).__name__, error.hint, flush=True)
"""
    assert hear(spawn(code)) == f"{MissingDependencies.__name__} pip install 'devsup[redis]'\n"


# -- Redis falls ill -------------------------------------------------------------------------------------


def test_redis_that_was_killed_and_is_back_with_its_data_changes_nothing(
    redis_server: RedisServer, use: Use
) -> None:
    redis_server.start(appendonly=True)

    def work(hold: _redis.RedisHold) -> None:
        with redis_server.client() as client:
            client.pexpire(KEY, 5000)
        redis_server.restart(data=True)
        assert fencing(redis_server) == hold.fencing
        wait_until(lambda: left(redis_server) > 5000, 20)  # renewed, over a new connection
        assert hold.held

    lock = RedisLock(redis_server.url, "shop", ttl=6)
    use(lock, 10, work)
    assert not exists(redis_server)


def left(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.pttl(KEY))


def test_redis_that_comes_back_empty_gets_the_lease_again_with_its_number(
    redis_server: RedisServer, use: Use
) -> None:
    lock = RedisLock(redis_server.start().url, "shop", ttl=3)
    numbers: list[Any] = []

    def work(hold: _redis.RedisHold) -> None:
        redis_server.restart(data=False)
        wait_until(lambda: fencing(redis_server) == hold.fencing, 20)
        assert hold.held
        numbers.append(hold.fencing)

    use(lock, 10, work)
    use(lock, 10, lambda hold: numbers.append(hold.fencing))
    assert numbers[0] is not None
    assert numbers[1] is not None
    assert numbers[0] < numbers[1]


def test_whoever_took_the_lock_from_an_empty_redis_has_it(redis_server: RedisServer, use: Use) -> None:
    """Of two who have a number the higher one counts; the other finds out at its next renewal."""
    lock = RedisLock(redis_server.start().url, "shop", ttl=3)
    with pytest.raises(LockLost, match="`shop` was lost while it was held"):
        use(lock, 10, lambda hold: _take_meanwhile(redis_server, hold))


def _take_meanwhile(server: RedisServer, first: _redis.RedisHold) -> None:
    server.restart(data=False)
    taken, leave = threading.Event(), threading.Event()
    seen: list[Any] = []

    def other() -> None:
        with RedisLock(server.url, "shop", ttl=3).write(timeout=10) as second:
            seen.append(second.fencing)
            taken.set()
            leave.wait(20)
            seen.append(second.held)

    thread = threading.Thread(target=other)
    thread.start()
    assert taken.wait(20)
    wait_until(lambda: first.lost, 20)
    assert not first.held
    leave.set()
    thread.join(20)
    assert first.fencing is not None
    assert seen[0] > first.fencing
    assert seen[1]


def test_redis_that_stops_for_longer_than_the_ttl_costs_the_lock(redis_server: RedisServer, use: Use) -> None:
    """The holder knows before anybody else can have it, without Redis telling it; and it stays so."""
    lock = RedisLock(redis_server.start().url, "shop", ttl=1)
    numbers: list[Any] = []

    def work(hold: _redis.RedisHold) -> None:
        numbers.append(hold.fencing)
        assert hold.held
        redis_server.pause()
        began = time.monotonic()
        try:
            wait_until(lambda: hold.lost, 20)
            assert time.monotonic() - began < 10
            assert not hold.held
        finally:
            redis_server.resume()

    with pytest.raises(LockLost):
        use(lock, 10, work)
    use(RedisLock(redis_server.url, "shop"), 10, lambda hold: numbers.append(hold.fencing))
    assert numbers[0] < numbers[1]


def test_a_holder_that_stopped_for_longer_than_the_ttl_has_lost_the_lock(
    shared_redis: RedisServer, spawn: Spawn, use: Use
) -> None:
    """It finds out before it does anything else, though Redis would have renewed; the next has more."""
    lock = RedisLock(shared_redis.url, "shop", ttl=0.7)
    holder = spawn(HOLDER, pickle.dumps(lock).hex())
    number = int(hear(holder))
    os.kill(holder.pid, signal.SIGSTOP)
    numbers: list[Any] = []
    use(RedisLock(shared_redis.url, "shop"), 20, lambda hold: numbers.append(hold.fencing))
    assert numbers[0] > number
    say(holder)
    os.kill(holder.pid, signal.SIGCONT)
    assert hear(holder) == "False True\n"
    assert "the lock `shop` was lost while it was held" in hear(holder)


def test_a_sleep_of_the_machine_counts(shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the clock says that stands for it; and an answer that comes later gives nothing back."""
    lock = RedisLock(shared_redis.url, "shop", ttl=60)
    real = boottime
    hold = lock.write()
    assert hold.try_acquire()
    monkeypatch.setattr(_taking, "boottime", lambda: real() + 59)
    assert hold.held
    assert hold._taking is not None
    hold._taking.renew()
    monkeypatch.setattr(_taking, "boottime", lambda: real() + 61)
    assert hold.lost
    hold._taking.renewed([1, hold.fencing, 0])
    assert hold.lost
    monkeypatch.setattr(_taking, "boottime", real)
    assert hold.lost
    assert not hold.release()
    assert hold.lost
    assert not exists(shared_redis)


def test_a_hold_that_was_lost_says_so_after_a_release_in_a_loop(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it is another thread that tells Redis."""
    hold = RedisLock(shared_redis.url, "shop", ttl=60).write()
    assert hold.try_acquire()
    real = boottime
    monkeypatch.setattr(_taking, "boottime", lambda: real() + 61)

    async def leave() -> bool:
        return hold.release()

    assert [asyncio.run(leave()), hold.lost, hold.release()] == [False, True, False]


def test_a_lost_answer_to_the_question_for_the_lock(shared_redis: RedisServer, use: Use) -> None:
    """The same token asks again, so it waits neither for itself nor for the ttl."""
    with Proxy(shared_redis.port) as proxy:
        proxy.cut_before_answer()
        numbers: list[Any] = []
        use(
            RedisLock(proxy.url, "shop"),
            10,
            lambda hold: numbers.append((hold.fencing, fencing(shared_redis))),
        )
        assert proxy.has_cut.is_set()
        assert numbers[0][0] == numbers[0][1] == fencing_counter(shared_redis)
    assert not exists(shared_redis)


def test_a_lost_answer_to_the_release_is_no_loss(shared_redis: RedisServer, use: Use) -> None:
    with Proxy(shared_redis.port) as proxy:
        use(RedisLock(proxy.url, "shop"), 10, lambda _: proxy.cut_before_answer())
        assert proxy.has_cut.is_set()
    assert not exists(shared_redis)


def test_who_gives_up_without_an_answer_leaves_no_lock(shared_redis: RedisServer, use: Use) -> None:
    """Redis has given it the lock, and it cannot know: a thread says that it is not wanted."""
    with Proxy(shared_redis.port) as proxy:

        class Cut(threading.Event):
            def set(self) -> None:
                proxy._accepting = False  # before the client can see the cut and come again
                super().set()

        proxy.has_cut = Cut()
        proxy.cut_before_answer()
        with pytest.raises(FleetUnreachable, match="it broke the connection off"):
            use(RedisLock(proxy.url, "shop"), 1.2, lambda _: pytest.fail("it has the lock"))
        assert exists(shared_redis)
        proxy.refuse(False)
        wait_until(lambda: not exists(shared_redis), 20)  # the ttl is 30 s


def test_a_command_that_redis_reads_late_keeps_no_lock(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question of one who gave up may still be on its way when the lock is given back."""
    monkeypatch.setattr(_taking, "_AGAIN", (2.0,))
    lock = RedisLock(shared_redis.url, "shop")
    taking = _taking.Taking(lock.keys, 60, {})
    late = taking.acquire()
    assert taking.is_to_be_released
    renewer = _taking.renewer(lock.address)
    renewer.give_back(taking)
    renewer.finish(20)
    with shared_redis.client() as client:
        client.execute_command(*late)
    assert exists(shared_redis)
    wait_until(lambda: not exists(shared_redis), 20)


def test_who_is_cancelled_while_redis_hangs_leaves_no_lock(redis_server: RedisServer) -> None:
    """What was sent is done when Redis goes on, before or after it hears that nobody wants it."""
    lock = RedisLock(redis_server.start().url, "shop")

    async def main() -> None:
        async with lock.write():
            pass
        redis_server.pause()
        try:
            task = asyncio.create_task(lock.write().__aenter__())
            await asyncio.sleep(0.1)
            task.cancel()
            before = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - before < 5
        finally:
            redis_server.resume()

    asyncio.run(main())
    wait_until(lambda: not _taking.renewer(lock.address)._ending, 20)
    assert not exists(redis_server)


def test_a_second_release_says_what_the_first_said(shared_redis: RedisServer) -> None:
    hold = RedisLock(shared_redis.url, "shop").write()
    assert [hold.release(), asyncio.run(hold.arelease())] == [True, True]
    assert hold.try_acquire()
    with shared_redis.client() as client:
        client.delete(KEY)
    assert [hold.release(), hold.release(), asyncio.run(hold.arelease())] == [False, False, False]


def test_a_loop_that_has_ended_is_forgotten(shared_redis: RedisServer) -> None:
    """With its connections; also where the caller of a pool did not close it."""
    pool = aio.Pool("slots", [1], url=shared_redis.url)

    async def work() -> None:
        async with RedisLock(shared_redis.url, "shop").write():
            await pool.release(await pool.acquire("me", 60))

    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        asyncio.run(work())
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert not any(loop.is_closed() for loop in [*links._loops])
    assert pool._redis is not None
    assert not pool._redis._clients


def test_a_host_that_cannot_be_is_told(use: Use) -> None:
    with pytest.raises(FleetUnreachable, match="leads nowhere"):
        use(RedisLock("redis://a..b", "shop"), 5, lambda _: None)


def test_redis_that_is_away_is_told_in_time(redis_server: RedisServer, use: Use) -> None:
    """Refused or silent, at the beginning or after a while: never a hang, and never the password."""
    away = RedisLock(f"redis://:hush@127.0.0.1:{free_port()}", "shop")
    silent = RedisLock(redis_server.start().url, "shop")
    redis_server.pause()
    try:
        for lock in (away, silent):
            before = time.monotonic()
            with pytest.raises(FleetUnreachable) as caught:
                use(lock, 1.2, lambda _: None)
            assert 1.1 < time.monotonic() - before < 8
            assert "hush" not in f"{caught.value} {caught.value.hint} {caught.value.details}"
            assert caught.value.exit_code == 13
        before = time.monotonic()
        with pytest.raises(FleetUnreachable):
            use(silent, 0, lambda _: None)
        assert time.monotonic() - before < 8
    finally:
        redis_server.resume()


def test_what_the_caller_is_handling_is_not_taken_for_the_cause(use: Use) -> None:
    """Nor is one of several addresses of a name, told in a way of asyncio's own."""
    for host in ("127.0.0.1", "localhost"):
        try:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        except BlockingIOError:
            with pytest.raises(FleetUnreachable, match="connection refused"):
                use(RedisLock(f"redis://{host}:{free_port()}", "shop"), 0, lambda _: None)


def test_leaving_without_redis_keeps_the_body_s_own_error(redis_server: RedisServer, use: Use) -> None:
    """What was done was done under the lock; Redis is told as soon as it is back."""
    lock = RedisLock(redis_server.start(appendonly=True).url, "shop")

    def work(_: object) -> None:
        redis_server.kill()
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        use(lock, 10, work)
    redis_server.restart(data=True)
    wait_until(lambda: not exists(redis_server), 20)  # the ttl is 30 s
    use(lock, 10, lambda _: redis_server.kill())  # and without one: what was asked for was done


def test_a_waiter_outlives_a_restart_of_redis(redis_server: RedisServer, spawn: Spawn) -> None:
    lock = RedisLock(redis_server.start(appendonly=True).url, "shop")
    with lock.write() as hold:
        waiter = spawn(HOLDER, pickle.dumps(lock).hex())
        with redis_server.client() as client:
            wait_until(lambda: client.info("clients")["blocked_clients"])
        redis_server.restart(data=True)
        assert hold.held
    assert int(hear(waiter)) > 0
    say(waiter)
    assert hear(waiter) == "True False\n"


def test_a_full_redis_renews_what_is_held_and_gives_nothing_new(redis_server: RedisServer, use: Use) -> None:
    lock = RedisLock(redis_server.start(maxmemory="64mb").url, "shop", ttl=3)

    def work(hold: _redis.RedisHold) -> None:
        with redis_server.client() as client:
            client.config_set("maxmemory", "1")
            with pytest.raises(FleetUnreachable, match="out of memory"):
                _in_a_thread(lambda: RedisLock(redis_server.url, "other").write().try_acquire())
            see_a_renewal(redis_server, KEY)
            assert hold.held

    use(lock, 10, work)
    assert not exists(redis_server)


def _in_a_thread(work: Callable[[], object]) -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    if raised:
        raise raised[0]


def test_a_refusal_is_told_at_once_and_in_words(redis_server: RedisServer, temporary: Path, use: Use) -> None:
    """Waiting would not help: a wrong password, none, a user who may not, a replica that only reads."""
    redis_server.start(password="hush", acl=("ann on >hers ~other:* +@all",))
    port = redis_server.port
    folder = temporary / "replica"
    folder.mkdir()
    with RedisServer(folder, redis_server.binary) as replica:
        replica.start(config={"replicaof": f"127.0.0.1 {port}", "masterauth": "hush"})
        for url, words in {
            f"redis://:guess@127.0.0.1:{port}": "it refuses this user or password",
            f"redis://127.0.0.1:{port}": "it wants a password",
            f"redis://ann:hers@127.0.0.1:{port}": "its access rules forbid this to the user",
            f"redis://:hush@127.0.0.1:{port}/99": "it has no database 99",
            replica.url: "it is a read-only replica",
        }.items():
            before = time.monotonic()
            with pytest.raises(FleetUnreachable, match=words) as caught:
                use(RedisLock(url, "shop"), 60, lambda _: None)
            assert time.monotonic() - before < 20
            assert not {"guess", "hush", "hers"} & {*str(caught.value).replace("@", ":").split(":")}
    use(RedisLock(redis_server.url, "shop"), 10, lambda _: None)


# -- the history of many takings --------------------------------------------------------------------------

WORKER = """
import asyncio, os, pickle, random, signal, sys, time
from collections import Counter
from devsup.errors import FleetUnreachable, LockLost, LockTimeout
from devsup.clock import boottime
from devsup.redis import leases

file, locks, driver, count, body, stops, compare = sys.argv[1:]
if compare == "no":  # whose token it is does not matter any more
    leases._RELEASE = leases._RELEASE.replace("~= ARGV[1]", "== ''")
locks = pickle.loads(bytes.fromhex(locks))
count, body, stops = int(count), float(body), int(stops)
chance = random.Random(os.getpid())
out = open(file, "w")
came = Counter()

def swear(hold, number):
    # What it can swear to: it had the lock at `since`, and it had it still at `until`.
    since = until = boottime()
    if not hold.held:
        return
    if stops and number % stops == stops - 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    end = since + body * chance.uniform(0.5, 1.5)
    while True:
        now = boottime()
        if not hold.held:
            break
        until = now
        if now >= end:
            break
        time.sleep(body / 3)
    print(hold.lock.name, f"{os.getpid()}/{number}", hold.fencing, repr(since), repr(until), file=out)

async def task(lock, number):
    async with lock.write(timeout=60) as hold:
        swear(hold, number)

async def tasks():
    for number in range(count):
        try:
            await task(chance.choice(locks), number)
            came["held"] += 1
        except (FleetUnreachable, LockLost, LockTimeout) as error:
            came[type(error).__name__] += 1

def plain():
    for number in range(count):
        try:
            with chance.choice(locks).write(timeout=60) as hold:
                swear(hold, number)
            came["held"] += 1
        except (FleetUnreachable, LockLost, LockTimeout) as error:
            came[type(error).__name__] += 1

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(tasks()) if driver == "async" else plain()
out.close()
print(dict(came), flush=True)
"""


def _told(line: str) -> Held:
    what, who, fencing, start, end = line.split()
    return Held(what, who, int(fencing), float(start), float(end))


def history(
    spawn: Spawn,
    server: RedisServer,
    folder: Path,
    *,
    processes: int,
    count: int,
    body: float,
    stops: int,
    names: int = 1,
    ttl: float = 0.4,
    compare: bool = True,
    hurt: Callable[[Proxy], None] | None = None,
) -> tuple[list[Held], list[str]]:
    """
    Have processes take locks while they are stopped and worse; return who held what, and how it went.

    Each stops itself amid a hold after each ``stops`` takings and is let go on when its ttl is long over.
    ``hurt`` is called again and again. Half of the processes come through a proxy.
    """
    with Proxy(server.port) as proxy:
        workers, files = [], []
        for number in range(processes):
            url = proxy.url if number % 2 else server.url
            locks = [RedisLock(url, f"lock{name}", ttl=ttl) for name in range(names)]
            files.append(folder / f"history{number}")
            driver = "async" if number % 4 < 2 else "sync"
            workers.append(
                spawn(
                    *(WORKER, files[-1], pickle.dumps(locks).hex(), driver),
                    *(count, body, stops, "yes" if compare else "no"),
                )
            )
        assert [hear(one) for one in workers] == ["ready\n"] * processes
        for one in workers:
            say(one)
        stopped: dict[int, float] = {}
        while any(one.poll() is None for one in workers):
            for pid in [one.pid for one in workers if one.poll() is None]:
                if psutil.Process(pid).status() != psutil.STATUS_STOPPED:
                    stopped.pop(pid, None)
                elif time.monotonic() - stopped.setdefault(pid, time.monotonic()) > ttl * 1.5:
                    os.kill(pid, signal.SIGCONT)
            if hurt is not None:
                hurt(proxy)
            time.sleep(0.02)
        assert [one.wait(10) for one in workers] == [0] * processes
        spans = [_told(line) for file in files for line in file.read_text().splitlines()]
        return spans, [hear(one).strip() for one in workers]


def _cuts(proxy: Proxy) -> None:
    chance = random.random()
    if chance < 0.05:
        proxy.cut()
    elif chance < 0.25:
        proxy.cut_before_answer()


def test_no_two_hold_a_lock_at_once_though_they_stop_and_are_cut_off(
    spawn: Spawn, shared_redis: RedisServer, temporary: Path
) -> None:
    spans, told = history(
        spawn, shared_redis, temporary, processes=4, count=80, body=0.002, stops=40, hurt=_cuts
    )
    assert faults(spans) == []
    assert len(spans) > 250, told
    assert sum("LockLost" in one for one in told) > 2, told


def test_without_the_compare_two_hold_a_lock_at_once_and_it_is_seen(
    spawn: Spawn, shared_redis: RedisServer, temporary: Path
) -> None:
    """A release that does not ask whose the lock is frees somebody else's: the checker is worth its name."""
    spans, told = history(
        *(spawn, shared_redis, temporary),
        processes=4,
        count=30,
        body=0.01,
        stops=10,
        compare=False,
        hurt=_cuts,
    )
    found = faults(spans)
    assert any(one.kind == "overlap" for one in found), told
    print(f"{len(spans)} holds, {len(found)} faults, the first: {found[0]}")


class Trouble:
    """Redis under trouble: cut off, frozen for less and for more than the ttl, killed and started again."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.counts = {"pauses": 0, "long pauses": 0, "kills": 0}
        self._next = dict.fromkeys(self.counts, time.monotonic() + 1.0)

    def __call__(self, proxy: Proxy) -> None:
        """Do one thing, when it is time for it."""
        _cuts(proxy)
        for name, every in (("pauses", 1.5), ("long pauses", 5.0), ("kills", 6.0)):
            if time.monotonic() > self._next[name]:
                self._next[name] = time.monotonic() + every * random.uniform(0.5, 1.5)
                self.counts[name] += 1
                if name == "kills":
                    self.server.restart(data=True)
                    continue
                self.server.pause()
                time.sleep(0.1 if name == "pauses" else 0.7)
                self.server.resume()


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_ten_thousand_takings_under_trouble_overlap_nowhere(
    spawn: Spawn, redis_server: RedisServer, temporary: Path
) -> None:
    redis_server.start(appendonly=True)
    trouble = Trouble(redis_server)
    began = time.monotonic()
    spans, told = history(
        *(spawn, redis_server, temporary),
        processes=8,
        count=1250,
        body=0.001,
        stops=250,
        names=4,
        hurt=trouble,
    )
    print(f"{len(spans)} holds in {time.monotonic() - began:.1f} s, {trouble.counts}", *told, sep="\n")
    assert faults(spans) == []
    assert len(spans) > 9000
