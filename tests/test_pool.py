"""
An item is lent to one at a time, and comes back.

One body of tests for a pool on SQLite and on Redis, for threads and for tasks.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import os
import re
import sqlite3
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devsup import aio, clock, system
from devsup.errors import (
    FleetUnreachable,
    LockTimeout,
    MissingDependencies,
    NotOwner,
    PoolExhausted,
    RegistryUnusable,
    UsageError,
)
from devsup.paths import Home
from devsup.pool import Item, Lease, Pool, _scripts
from devsup.pool import _core as core
from devsup.pool._pool import names
from devsup.redis import client
from devsup.registry import keeping, lending, locking, transactions
from devsup.registry.locking import FileLock
from tests.redis_support import Proxy
from tests.support import ROOT, free_port, hear, say, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import FrameType

    from tests.redis_support import RedisServer
    from tests.support import Spawn

    Make = Callable[..., Pool]

LONG, SHORT = 600.0, 0.3


class FromThreads:
    """`devsup.aio.Pool`, asked from plain code: one loop for all calls."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *args: Any, **options: Any) -> None:
        self._loop = loop
        self._pool = aio.Pool(*args, **options)

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            return self._loop.run_until_complete(getattr(self._pool, name)(*args))

        return call

    def held(self, owner: str, ttl: float) -> Any:
        """Stand in for the block of the synchronous pool."""
        return _Block(self._loop, self._pool.held(owner, ttl))

    def close(self) -> None:
        """Close its connections."""
        self._loop.run_until_complete(self._pool.aclose())


class _Block:
    def __init__(self, loop: asyncio.AbstractEventLoop, block: Any) -> None:
        self._loop, self._block = loop, block

    def __enter__(self) -> Any:
        return self._loop.run_until_complete(self._block.__aenter__())

    def __exit__(self, *what: Any) -> Any:
        return self._loop.run_until_complete(self._block.__aexit__(*what))


@pytest.fixture(params=["sqlite", "redis", "aio-sqlite", "aio-redis"])
def make(request: pytest.FixtureRequest, home: Path) -> Iterator[Make]:
    """Make pools: of one place for the whole test, closed at its end."""
    where: dict[str, Any] = {"home": str(home)}
    if request.param.endswith("redis"):
        where = {"url": request.getfixturevalue("shared_redis").url}
    made: list[Any] = []
    with asyncio.Runner() as runner:

        def pool(name: str = "slots", items: Iterable[str | int] = (1, 2, 3)) -> Any:
            arguments: tuple[Any, ...] = (name, items)
            one = (
                FromThreads(runner.get_loop(), *arguments, **where)
                if request.param.startswith("aio")
                else Pool(*arguments, **where)
            )
            made.append(one)
            return one

        yield pool
        for one in made:
            one.close()


#: For what event loops do not do: they are one thread, and are not forked.
of_threads = pytest.mark.parametrize("make", ["sqlite", "redis"], indirect=True)


def wait_over(lease: Lease) -> None:
    """Wait until a short lease is over."""
    end = core._ms(lease.expires_at) / 1e3
    wait_until(lambda: time.time() > end + 0.01, 10)


# -- what a pool promises --------------------------------------------------------------------------------


def test_an_item_is_lent_once_and_comes_back(make: Make) -> None:
    """Items come as they were given, those never lent first and in order; then the one free for longest."""
    pool = make(items=["b", 7, "7", "ä ☂"])
    leases = [pool.acquire(f"owner {number}", LONG) for number in range(4)]
    assert [lease.item for lease in leases] == ["b", 7, "7", "ä ☂"]
    assert [type(lease.item) for lease in leases] == [str, int, str, str]
    assert [lease.owner for lease in leases] == [f"owner {number}" for number in range(4)]
    numbers = [lease.fencing for lease in leases]
    assert numbers == sorted(set(numbers))
    with pytest.raises(PoolExhausted) as caught:
        pool.acquire("late", LONG)
    error = caught.value
    assert (error.code, error.exit_code, error.retryable) == ("limit_reached", 10, True)
    assert error.details["free_at"] == min(lease.expires_at for lease in leases)
    assert error.details["free_at"] in error.message
    pool.release(leases[2])
    pool.release(leases[0])
    again = [pool.acquire("late", LONG) for _ in range(2)]
    assert [lease.item for lease in again] == ["7", "b"]
    assert again[0].fencing > numbers[-1]


def test_two_objects_are_one_pool_and_add_what_they_name(make: Make) -> None:
    one, other = make(items=["a"]), make(items=["b", "a"])
    assert one.acquire("x", LONG).item == "a"
    assert other.acquire("y", LONG).item == "b"
    assert [item.item for item in one.items()] == ["a", "b"]
    assert [item.owner for item in make("elsewhere", ["a"]).items()] == [None]


def test_only_the_owner_renews_and_gives_back(make: Make) -> None:
    """By its owner and its number; a stranger changes nothing, and is told who has it."""
    pool = make()
    lease = pool.acquire("me", LONG)
    changes: list[dict[str, Any]] = [{"owner": "you"}, {"fencing": lease.fencing - 1}, {"item": 2}]
    for wrong in (lease.replace(**change) for change in changes):
        for call in (pool.renew, pool.release):
            with pytest.raises(NotOwner) as caught:
                call(wrong)
            assert (caught.value.code, caught.value.exit_code) == ("not_ours", 12)
            assert caught.value.details["owner"] == (None if wrong.item == 2 else "me")
    renewed = pool.renew(lease, LONG * 2)
    assert (renewed.item, renewed.fencing) == (lease.item, lease.fencing)
    assert renewed.expires_at > lease.expires_at
    assert pool.renew(renewed).ttl == LONG * 2
    pool.release(lease)  # it is the same lease, however often it was renewed
    for call in (pool.renew, pool.release):
        with pytest.raises(NotOwner):
            call(renewed)


def test_what_is_over_comes_back_once_and_is_nobodys(make: Make) -> None:
    """Neither renewed nor given back, before and after the next holder came."""
    pool = make(items=["only"])
    lease = pool.acquire("slow", SHORT)
    wait_over(lease)
    assert pool.items() == [Item("only", None, None, None)]
    for call in (pool.renew, pool.release):
        with pytest.raises(NotOwner) as caught:
            call(lease)
        assert caught.value.details["owner"] is None
    successor = pool.acquire("next", LONG)
    with pytest.raises(PoolExhausted):
        pool.acquire("third", LONG)
    for call in (pool.renew, pool.release):
        with pytest.raises(NotOwner) as caught:
            call(lease)
        assert caught.value.details["owner"] == "next"
    assert successor.fencing > lease.fencing
    assert pool.items() == [Item("only", "next", successor.fencing, successor.expires_at)]


def test_a_lease_may_be_written_down(make: Make) -> None:
    """It has nothing hidden: another process gives it back by its fields."""
    lease = make().acquire("me", LONG)
    pool = make()
    pool.release(Lease(lease.item, lease.owner, lease.fencing, lease.expires_at))
    assert [item.owner for item in pool.items()] == [None] * 3


def test_a_block_has_an_item_while_it_runs(make: Make) -> None:
    pool = make()
    with pool.held("me", LONG) as lease:
        assert pool.items()[0] == Item(1, "me", lease.fencing, lease.expires_at)
    assert [item.owner for item in pool.items()] == [None] * 3
    with pytest.raises(NotOwner), pool.held("me", SHORT) as lease:
        wait_over(lease)
    with pytest.raises(KeyError), pool.held("me", SHORT) as lease:  # noqa: PT012 - a block is what it is about
        wait_over(lease)
        raise KeyError  # what went wrong inside is the one to tell


@pytest.mark.parametrize(
    ("name", "items", "said"),
    [
        ("", [1], "empty"),
        ("x", [], "no items"),
        ("x", "abc", "one text"),
        ("x", [1.5], "type float"),
        ("x", [True], "type bool"),
        ("x", [""], "empty"),
        ("x", ["a\nb"], "control"),
        ("x", [2**63], "64 bits"),
        ("x", ["\ud800"], "UTF-8"),
        ("x" * 501, [1], "500 bytes"),
    ],
)
def test_a_pool_that_is_none_is_refused(make: Make, name: str, items: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(name, items)


def test_wrong_arguments_are_refused(make: Make) -> None:
    pool = make()
    for ttl in (0, -1, math.nan, math.inf, 1e12, True, "5", None):
        with pytest.raises(UsageError, match="ttl"):
            pool.acquire("me", ttl)  # type: ignore[arg-type]
    for owner in ("", 5, "a\0b"):
        with pytest.raises(UsageError, match="owner"):
            pool.acquire(owner, 5)  # type: ignore[arg-type]
    lease = pool.acquire("me", LONG)
    with pytest.raises(UsageError, match="ttl"):
        pool.renew(lease.replace(ttl=None))
    with pytest.raises(UsageError, match="a lease is what"):
        pool.release("me")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expires_at"):
        pool.release(lease.replace(expires_at="tomorrow"))


def test_a_lease_that_came_too_late_is_not_handed_out(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that slept between request and answer asks again instead of trusting what is over."""
    pool = make()
    slept = [0, 10_000]  # before and after the first answer
    real = core._uptime
    monkeypatch.setattr(core, "_uptime", lambda: slept.pop(0) if slept else real())
    assert pool.acquire("me", 5).item == 2
    assert [item.owner for item in pool.items()] == [None, "me", None]
    only = make("only", [1])
    slept[:] = [0, 10_000]
    assert only.acquire("me", 5).item == 1  # its own lease of before is nobody's to wait for


# -- many callers ----------------------------------------------------------------------------------------

RACE = """
import json, sys
from devsup.pool import Pool, PoolExhausted
pool = Pool("race", range(20), **json.loads(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
got = []
try:
    while True:
        got.append(pool.acquire(sys.argv[2], 600).item)
except PoolExhausted:
    print(json.dumps(got), flush=True)
"""


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_processes_at_once_share_out_each_item_once(
    kind: str, request: pytest.FixtureRequest, home: Path, spawn: Spawn
) -> None:
    """The pool does not exist before: they make it at once, too."""
    import json

    place = {"home": str(home)} if kind == "sqlite" else {"url": request.getfixturevalue("shared_redis").url}
    children = [spawn(RACE, json.dumps(place), f"owner {number}") for number in range(6)]
    assert [hear(child) for child in children] == ["ready\n"] * 6
    for child in children:
        say(child)
    found = [item for child in children for item in json.loads(hear(child))]
    assert sorted(found) == list(range(20))


@of_threads
def test_threads_at_once_share_out_each_item_once(make: Make) -> None:
    pool = make(items=range(40))
    found: list[str | int] = []

    def take() -> None:
        found.extend(pool.acquire("me", LONG).item for _ in range(5))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, found)) == list(range(40))


@of_threads
def test_a_forked_child_opens_its_own_connections(make: Make) -> None:
    pool = make(items=["a", "b"])
    first = pool.acquire("parent", LONG)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            pool.release(pool.acquire("child", LONG))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    pool.release(first)


async def _cancelled(pool: aio.Pool) -> None:
    """Cancel an acquire at every point of its way."""
    for rounds in range(12):
        task = asyncio.ensure_future(pool.acquire("gone", LONG if pool._redis is None else 0.5))
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            await pool.release(task.result())


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_cancelled_acquire_keeps_no_item_for_good(
    kind: str, request: pytest.FixtureRequest, home: Path
) -> None:
    place = {"home": str(home)} if kind == "sqlite" else {"url": request.getfixturevalue("shared_redis").url}

    async def main() -> None:
        async with aio.Pool("slots", range(20), **place) as pool:
            await _cancelled(pool)
            deadline = time.monotonic() + 20
            while any(item.owner for item in await pool.items()):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

    asyncio.run(main())


# -- against a dictionary --------------------------------------------------------------------------------

ITEMS = ['"a"', '"b"', "3"]
WHO = st.sampled_from(["ann", "bob"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), WHO, st.sampled_from([5, 50])),
        st.tuples(st.sampled_from(["renew", "release"]), st.integers(0, 5), st.none()),
        st.tuples(st.sampled_from(["add", "remove", "free"]), st.sampled_from(ITEMS), st.none()),
        st.tuples(st.just("pass"), st.sampled_from([3, 20]), st.none()),
    ),
    max_size=25,
)


class Model:
    """What a pool must do, in a dictionary: item -> (owner, fencing, end)."""

    def __init__(self) -> None:
        self.lent: dict[str, tuple[str, int, int]] = {}
        self.offered = {*ITEMS[:2]}
        self.now = self.last = 0

    def holder(self, item: str) -> str | None:
        """Return who has it."""
        owner, _, end = self.lent.get(item, ("", 0, 0))
        return owner if end > self.now else None

    def is_mine(self, lease: tuple[str, str, int]) -> bool:
        """Tell whether a lease (item, owner, fencing) is in force."""
        item, owner, fencing = lease
        return self.holder(item) == owner and self.lent[item][1] == fencing


class OnSqlite:
    """What `Core` asks a registry."""

    def __init__(self, home: Path) -> None:
        self.store = lending.Lending(Home(str(home)))

    def __getattr__(self, operation: str) -> Any:
        return getattr(self.store, operation)

    def set_clock(self, microseconds: int) -> None:
        """Have it be so late."""
        lending._now = lambda *_: microseconds


class OnRedis:
    """What `Core` asks Redis, by scripts that read the time of a clock that the test sets."""

    def __init__(self, server: RedisServer) -> None:
        self.client = server.client()
        self.scripts = {
            name: text.replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, -1)")
            for name, text in _scripts.SCRIPTS.items()
        }

    def __getattr__(self, operation: str) -> Any:
        def call(name: str, *given: Any) -> Any:
            if operation in ("acquire", "release"):
                given = (*given, os.urandom(8).hex())
            arguments = _scripts.arguments((operation, given))
            keys = _scripts.keys(name)
            return _scripts.read(self.client.eval(self.scripts[operation], len(keys), *keys, *arguments))

        return call

    def set_clock(self, microseconds: int) -> None:
        """Have it be so late."""
        with self.client.pipeline() as pipeline:
            pipeline.delete("clock")
            pipeline.rpush("clock", microseconds // 1_000_000, microseconds % 1_000_000)
            pipeline.execute()

    def close(self) -> None:
        """Close the connection."""
        self.client.close()


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_a_pool_is_as_a_dictionary_would_be(
    kind: str,
    steps: list[tuple[str, Any, Any]],
    request: pytest.FixtureRequest,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any order of calls, on a clock of the test's own."""
    model, leases = Model(), []
    begin = 10**15
    monkeypatch.setattr(lending, "_now", lending._now)  # put back at the end of the test
    store: Any = OnSqlite(home) if kind == "sqlite" else OnRedis(request.getfixturevalue("shared_redis"))
    store.set_clock(begin)
    name = f"pool {time.perf_counter_ns()}"
    life = store.define(name, ITEMS[:2])[1]
    for word, what, ttl in steps:
        if word == "pass":
            model.now += what
            store.set_clock(begin + model.now * 1000)
        elif word == "acquire":
            answer = store.acquire(name, life, what, ttl)
            free = {item for item in model.offered if model.holder(item) is None}
            if not free:
                assert answer[0] == "full"
                continue
            item, fencing, end = answer[1:]
            assert item in free
            assert fencing > model.last
            assert end == begin // 1000 + model.now + ttl
            model.last = fencing
            model.lent[item] = (what, fencing, model.now + ttl)
            leases.append((item, what, fencing, end))
        elif word in ("renew", "release") and leases:
            item, owner, fencing, end = leases[what % len(leases)]
            mine = model.is_mine((item, owner, fencing))
            if word == "renew":
                answer = store.renew(name, life, item, owner, fencing, end, 10)
            else:
                answer = store.release(name, life, item, owner, fencing, end)
            assert answer[0] == (("lent" if word == "renew" else "freed") if mine else "no")
            assert mine or answer[1] == model.holder(item)
            if mine:
                model.lent[item] = (owner, fencing, model.now + (10 if word == "renew" else 0))
        elif word == "add":
            assert store.add(name, life, what) == ("added", what not in model.offered)
            model.offered.add(what)
        elif word == "remove":
            assert store.remove(name, life, what) == ("removed", what in model.offered)
            model.offered.discard(what)
        elif word == "free":
            held = model.holder(what) is not None
            assert store.free(name, life, what)[0] == ("freed" if held else "no")
            if held:
                model.lent[what] = (*model.lent[what][:2], model.now)
        seen = {item: owner for item, owner, _, _ in store.items(name, life)[1:]}
        shown = model.offered | {item for item in model.lent if model.holder(item)}
        assert seen == {item: model.holder(item) for item in shown}
    store.close()


# -- a store that was lost -------------------------------------------------------------------------------


def lose(request: pytest.FixtureRequest, home: Path) -> None:
    """Have the data be gone."""
    if "redis" in request.node.callspec.id:
        with request.getfixturevalue("shared_redis").client() as connected:
            connected.flushall()
    else:
        os.rename(home / "registry.db", home / "elsewhere")


def test_a_pool_that_was_lost_is_made_again_and_its_numbers_grow(
    make: Make, request: pytest.FixtureRequest, home: Path
) -> None:
    """Who has a lease that is not over keeps it, where nobody came before."""
    pool = make(items=["a", "b", "c"])
    kept, robbed, given = (pool.acquire(name, LONG) for name in ("kept", "robbed", "given"))
    lose(request, home)
    renewed = pool.renew(kept)
    assert (renewed.item, renewed.fencing) == ("a", kept.fencing)
    thief = pool.acquire("thief", LONG)
    assert thief.item == "b"
    assert thief.fencing > given.fencing
    for call in (pool.renew, pool.release):
        with pytest.raises(NotOwner):
            call(robbed)
    pool.release(given)
    assert [item.owner for item in pool.items()] == ["kept", "thief", None]


def moment(request: pytest.FixtureRequest, home: Path) -> Callable[..., None]:
    """Return what brings the store back to this moment, or sets the highest number that it knows."""
    if "redis" in request.node.callspec.id:
        with request.getfixturevalue("shared_redis").client() as redis:
            kept = {key: redis.dump(key) for key in redis.keys("{devsup:pool:*")}

        def restore(highest: int | None = None) -> None:
            with request.getfixturevalue("shared_redis").client() as redis:
                if highest is not None:
                    redis.hset("{devsup:pool:slots}", "fencing", highest)
                else:
                    for key, value in kept.items():
                        redis.restore(key, 0, value, replace=True)

        return restore
    with closing(sqlite3.connect(home / "registry.db")) as db:
        rows = {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in ("items", "pools")}

    def put(highest: int | None = None) -> None:
        with closing(sqlite3.connect(home / "registry.db")) as db, db:
            if highest is not None:
                db.execute("UPDATE pools SET fencing = ?", (highest,))
            for table in () if highest is not None else rows:
                marks = ", ".join("?" * len(rows[table][0]))
                db.execute(f"DELETE FROM {table}")
                db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows[table])

    return put


def test_a_pool_that_fell_back_in_time_has_its_leases_again(
    make: Make, request: pytest.FixtureRequest, home: Path
) -> None:
    """As from an older copy; here of a machine whose clock was ahead, so that numbers do not grow by time."""
    pool = make(items=["a", "b"])
    pool.items()
    moment(request, home)(highest=2**52)
    fall_back = moment(request, home)
    kept, over = pool.acquire("kept", LONG), pool.acquire("over", SHORT)
    wait_over(over)
    fall_back()
    assert [item.owner for item in pool.items()] == [None, None]
    for call in (pool.renew, pool.release):
        with pytest.raises(NotOwner):
            call(over)
    assert pool.renew(kept).fencing == kept.fencing
    successor = pool.acquire("next", LONG)
    assert successor.item == "b"
    assert successor.fencing > kept.fencing
    pool.release(kept)


# -- on SQLite -------------------------------------------------------------------------------------------


def test_setting_the_clock_ends_no_lease(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases run by the uptime; after a reboot the clock says how long they still run."""
    pool = Pool("slots", [1, 2], home=str(home))
    lease = pool.acquire("me", LONG)
    real, boot = clock.now_ms, system.boot_id()
    monkeypatch.setattr("devsup.registry.lending.now_ms", lambda: real() + 86_400_000)
    assert [item.owner for item in pool.items()] == ["me", None]
    pool.renew(lease)
    monkeypatch.setattr(system, "boot_id", lambda: boot[::-1])  # the next boot, a day later
    assert [item.owner for item in pool.items()] == [None, None]
    assert pool.acquire("you", LONG).fencing > lease.fencing
    pool.close()


def test_an_idle_pool_keeps_nobody_from_mending_the_registry(home: Path) -> None:
    """Its connection has no lock between two calls, and is closed where the file is another one by now."""
    pool = Pool("slots", [1], home=str(home))
    pool.acquire("me", LONG)
    other = lending.Lending(Home(str(home)))
    (home / "registry.db").write_bytes(b"broken" * 1000)
    (home / "registry.db-wal").unlink(missing_ok=True)
    assert other.names() == ("names",)
    assert len(other.warnings) == 1
    before = os.stat(home / "registry.db").st_ino
    assert pool.acquire("you", LONG).item == 1
    assert os.stat(home / "registry.db").st_ino == before
    assert other.names() == ("names", "slots")
    pool.close()
    other.close()


def test_a_writer_is_waited_for_but_not_for_ever(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Pool("slots", [1, 2], home=str(home)) as pool:
        pool.items()
        writer = sqlite3.connect(home / "registry.db", isolation_level=None, check_same_thread=False)
        writer.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(keeping, "PATIENCE", 0.05)
        with pytest.raises(LockTimeout):
            pool.acquire("me", LONG)
        monkeypatch.setattr(keeping, "PATIENCE", 30)
        leave = threading.Timer(0.1, writer.execute, ["ROLLBACK"])
        leave.start()
        assert pool.acquire("me", LONG).item == 1
        leave.join()
        writer.close()


@pytest.mark.parametrize("kept", [True, False])
def test_who_replaces_the_registry_is_waited_for_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, *, kept: bool
) -> None:
    with Pool("slots", [1], home=str(home)) as pool:
        pool.items()
        if not kept:
            pool.close()
        for module in (keeping, locking):
            monkeypatch.setattr(module, "PATIENCE", 0.2)
        waits, timed_out = [], FileLock._timed_out

        def count(lock: FileLock) -> LockTimeout:
            waits.append(lock)
            return timed_out(lock)

        monkeypatch.setattr(FileLock, "_timed_out", count)
        with (home / "registry.lock").open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(LockTimeout):
                pool.acquire("me", LONG)
        assert len(waits) == 1
        assert pool.acquire("me", LONG).item == 1


def test_a_ctrl_c_at_any_call_keeps_neither_the_registry_nor_a_connection(home: Path) -> None:
    """
    What comes after it works, and nobody waits for a lock that a dead call has left.

    Python looks for signals where a function begins and where a call has returned.
    """
    store = lending.Lending(Home(str(home)))
    life = store.define("slots", ["a"])[1]
    own = {keeping.__file__, transactions.__file__}
    descriptors = len(os.listdir("/proc/self/fd"))
    for at in range(1, 200):
        left = at

        def profile(frame: FrameType, event: str, _: object) -> None:
            nonlocal left
            if frame.f_code.co_filename in own and event != "c_call":
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt

        sys.setprofile(profile)
        try:
            store.items("slots", life)
        except KeyboardInterrupt:
            pass
        else:
            break
        finally:
            sys.setprofile(None)
        assert store.items("slots", life)[0] == "items"
        probe = FileLock(Home(str(home)))
        probe.exclude()
        probe.close()
        assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert left > 0
    assert at > 10
    store.close()


def test_a_place_that_cannot_be_used_is_said(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(RegistryUnusable):
        Pool("slots", [1], home=str(home / "file")).acquire("me", 5)
    with pytest.raises(RegistryUnusable, match="absolute"):
        Pool("slots", [1], home="relative")


# -- on Redis --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_an_answer_that_was_lost_is_given_again(kind: str, shared_redis: RedisServer) -> None:
    """Cut between Redis's step and its answer: the call still gets one item, and gives it back once."""
    with Proxy(shared_redis.port) as proxy, asyncio.Runner() as runner:
        pool: Any = (
            Pool("slots", [1, 2, 3], url=proxy.url)
            if kind == "threads"
            else FromThreads(runner.get_loop(), "slots", [1, 2, 3], url=proxy.url)
        )
        pool.release(pool.renew(pool.acquire("me", LONG)))  # so that Redis knows the scripts
        proxy.cut_before_answer()
        lease = pool.acquire("me", LONG)
        assert proxy.has_cut.is_set()
        assert lease.item == 2
        assert [item.owner for item in pool.items()] == [None, "me", None]
        proxy.cut_before_answer()
        lease = pool.renew(lease)
        proxy.cut_before_answer()
        pool.release(lease)
        assert proxy.has_cut.is_set()
        assert [item.owner for item in pool.items()] == [None, None, None]
        pool.close()


def test_an_answer_that_never_came_costs_no_more_than_the_ttl(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.retry, "__defaults__", (0,))
    with Proxy(shared_redis.port) as proxy, Pool("slots", [1], url=proxy.url) as pool:
        pool.release(pool.acquire("me", LONG))  # so that Redis knows the scripts
        proxy.cut_before_answer()
        with pytest.raises(FleetUnreachable):
            pool.acquire("me", 2)
        with pytest.raises(PoolExhausted):
            pool.acquire("me", 5)
        wait_until(lambda: pool.items()[0].owner is None, 10)
        assert pool.acquire("me", LONG).item == 1


def test_redis_that_is_away_is_said_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.retry, "__defaults__", (1,))
    url = f"redis://someone:tell-nobody@127.0.0.1:{free_port()}/0"
    with pytest.raises(FleetUnreachable) as caught, Pool("slots", [1], url=url) as pool:
        pool.acquire("me", 5)
    assert "connection refused" in caught.value.message
    assert "tell-nobody" not in f"{caught.value} {caught.value.hint} {caught.value.details}"
    assert (caught.value.exit_code, caught.value.retryable) == (13, True)


def test_what_redis_refuses_is_said_in_words(redis_server: RedisServer) -> None:
    redis_server.start(password="right", acl=("reader on >right ~* +@read",), maxmemory="1500kb")
    place = f"127.0.0.1:{redis_server.port}"

    def said(url: str) -> str:
        with pytest.raises(FleetUnreachable) as caught, Pool("slots", [1], url=url) as pool:
            pool.acquire("me", 5)
        assert "right" not in str(caught.value)
        return caught.value.message

    assert "wants a password" in said(f"redis://{place}")
    assert "refuses this user or password" in said(f"redis://:wrong@{place}")
    assert "access rules forbid this" in said(f"redis://reader:right@{place}")
    with redis_server.client() as connected, Pool("full", [1, 2], url=redis_server.url) as pool:
        lease = pool.acquire("me", LONG)
        connected.config_set("maxmemory", "1")
        assert "out of memory" in said(redis_server.url)
        with pytest.raises(FleetUnreachable, match="out of memory"):
            pool.acquire("you", 5)
        connected.config_set("maxmemory", "0")
        pool.release(lease)
        assert [item.owner for item in pool.items()] == [None, None]


def test_a_key_that_a_full_redis_dropped_is_made_again(shared_redis: RedisServer) -> None:
    with Pool("slots", [1, 2], url=shared_redis.url) as pool, shared_redis.client() as connected:
        lease = pool.acquire("me", LONG)
        connected.delete("{devsup:pool:slots}:ends")
        assert pool.acquire("you", LONG).item == 2
        with pytest.raises(PoolExhausted):
            pool.acquire("third", LONG)
        connected.delete("{devsup:pool:slots}")
        assert pool.renew(lease).fencing == lease.fencing


def test_what_is_over_leaves_nothing_in_redis(shared_redis: RedisServer) -> None:
    with Pool("slots", [1], url=shared_redis.url) as pool, shared_redis.client() as redis:
        pool.release(pool.acquire("me", LONG))
        before = redis.hlen("{devsup:pool:slots}")
        for _ in range(3):
            pool.release(pool.acquire("me", LONG))
            wait_over(pool.acquire("me", SHORT))
        pool.release(pool.acquire("me", LONG))
        assert redis.hlen("{devsup:pool:slots}") == before


@pytest.mark.parametrize("kind", [Pool, FromThreads])
def test_what_another_program_left_in_redis_is_told(shared_redis: RedisServer, kind: Any) -> None:
    stem = "{devsup:pool:slots}"
    with asyncio.Runner() as runner, shared_redis.client() as redis:
        where = (runner.get_loop(), "slots") if kind is FromThreads else ("slots",)
        pool = kind(*where, [1], url=shared_redis.url)
        for item in ("junk", b"\xff", "[1]", '{"a": 1}'):
            redis.delete(stem, f"{stem}:ends")
            pool.items()
            redis.zadd(f"{stem}:ends", {item: 0})
            with pytest.raises(FleetUnreachable, match="has not written"):
                pool.acquire("me", 5)
        redis.set(stem, "a text")
        with pytest.raises(FleetUnreachable, match="another program has written"):
            pool.items()
        redis.sadd("devsup:pools", b"\xff", "", "x" * 501)
        assert names(url=shared_redis.url) == ["slots"]
        pool.close()


@pytest.mark.parametrize("kind", [Pool, FromThreads])
def test_what_goes_wrong_in_a_block_is_told_though_redis_is_away(
    shared_redis: RedisServer, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.asynchronous, "__kwdefaults__", {"retries": 0})
    monkeypatch.setattr(client.retry, "__defaults__", (0,))
    with asyncio.Runner() as runner, Proxy(shared_redis.port) as proxy:
        where = (runner.get_loop(), "slots") if kind is FromThreads else ("slots",)
        pool = kind(*where, [1], url=proxy.url)
        pool.release(pool.acquire("me", LONG))  # so that Redis knows the scripts
        with pytest.raises(KeyError), pool.held("me", LONG):  # noqa: PT012 - a block is what it is about
            proxy.cut_before_answer()
            raise KeyError
        with pytest.raises(FleetUnreachable), pool.held("me", LONG):
            proxy.cut_before_answer()
        pool.close()


def test_an_address_that_is_none_is_refused() -> None:
    for url in ("", "localhost", "http://localhost", "redis://:pass@host:port", 5):
        for kind in (Pool, aio.Pool):
            with pytest.raises(UsageError) as caught:
                kind("slots", [1], url=url)  # type: ignore[arg-type]
            assert ":pass" not in str(caught.value)


def test_an_address_is_read_as_everywhere_in_devsup(redis_server: RedisServer) -> None:
    redis_server.start(password="so:so@/")
    for url in (
        f"valkey://:so%3Aso%40%2F@127.0.0.1:{redis_server.port}/2",
        f"unix://:so:so%40%2F@{redis_server.socket}?db=2",
    ):
        with Pool("slots", [1, 2], url=url) as pool:
            pool.acquire("me", LONG)
    with redis_server.client(db=2) as connected:
        assert connected.smembers("devsup:pools") == {"slots"}
    options = client._options("valkeys://host?ssl_ca_certs=/ca&ssl_check_hostname=false")
    assert (options["ssl_ca_certs"], options["ssl_check_hostname"]) == ("/ca", False)


def test_without_redis_py_there_is_a_hint(spawn: Spawn) -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from devsup.pool import Pool\n"
        "from devsup.errors import MissingDependencies\n"
        "try: Pool('x', [1], url='redis://localhost')\n"
        "except MissingDependencies as error: print(error.hint)"
    )
    assert hear(spawn(code)) == "pip install 'devsup[redis]'\n"
    assert MissingDependencies.exit_code == 9


def test_the_example_of_the_page_runs_as_it_stands(spawn: Spawn, home: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "pools.md").read_text(), re.DOTALL)
    del home
    lines = spawn(example).communicate(timeout=60)[0].splitlines()
    assert lines[0].startswith("box-1 ")
    assert "every item of the pool `boxes` is held" in lines[1]
