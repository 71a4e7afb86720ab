"""Many readers or one writer: the core against a model, then threads and tasks with one body of tests."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from devsup.errors import LockOrderError, LockTimeout, UsageError
from devsup.locks import AsyncRWLock, RWLock, _owner
from devsup.locks._core import Core, Ticket
from devsup.locks._rw import Resource
from devsup.locks._stats import FRESH
from tests.support import Spawn, hear, say, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Fail a test after which somebody is still noted as an owner."""
    yield
    assert _owner.HELD == {}


class Asker(Ticket):
    """A ticket of the tests."""

    __slots__ = ("number", "write")

    def __init__(self, number: int, *, write: bool) -> None:
        self.number, self.write, self.who, self.granted = number, write, number, False

    def __repr__(self) -> str:
        return f"{'W' if self.write else 'R'}{self.number}"


# -- the core against a model --------------------------------------------------------------------------


class Model:
    """
    What the lock promises, in the plainest words.

    `inside` may go on; `line` is everybody who waits, in the order of asking. Whenever something changes, the
    rule is applied: nobody inside, or only readers and no writer in line, lets readers in.
    """

    def __init__(self) -> None:
        self.inside: list[Asker] = []
        self.line: list[Asker] = []

    def ask(self, one: Asker) -> None:
        """Come in, or stand in line."""
        alone = any(other.write for other in self.inside + self.line)
        if alone or (one.write and self.inside):
            self.line.append(one)
        else:
            self.inside.append(one)

    def leave(self, one: Asker) -> None:
        """Go out."""
        self.inside.remove(one)
        self.go_on(readers_first=one.write)

    def give_up(self, one: Asker) -> None:
        """Step out of the line."""
        self.line.remove(one)
        self.go_on(readers_first=False)

    def go_on(self, *, readers_first: bool) -> None:
        """Let in who may come in now."""
        readers = [one for one in self.line if not one.write]
        writers = [one for one in self.line if one.write]
        if self.inside and (writers or self.inside[0].write):
            return
        for one in readers if readers and (readers_first or not writers) else writers[:1]:
            self.line.remove(one)
            self.inside.append(one)


class CoreMachine(RuleBasedStateMachine):
    """Any order of asking, leaving, giving up and dying; the core does what the model does."""

    inside = Bundle("inside")

    def __init__(self) -> None:
        super().__init__()
        self.core, self.model = Core(), Model()
        self.number, self.now = 0, 0.0

    everybody = Bundle("everybody")

    @rule(target=everybody, write=st.booleans())
    def ask(self, write: bool) -> Any:
        """One more comes."""
        self.number += 1
        self.now += 1
        one = Asker(self.number, write=write)
        self.model.ask(one)
        if write or not self.core.try_read(one, self.now):
            self.core.enter(one, self.now)
        return one

    @rule(target=everybody)
    def turn_back(self) -> Any:
        """A reader that found it closed changes nothing: what a thread does between two looks of others."""
        one = Asker(-1, write=False)
        if self.core.try_read(one, self.now):
            self.core.leave(one, self.now)
            self.core.advance(self.now)
        return multiple()

    @rule(one=consumes(everybody))
    def end(self, one: Asker) -> None:
        """Leave, give up or die: whatever it is, the ticket goes out."""
        self.now += 1
        if one in self.model.inside:
            self.model.leave(one)
            assert not self.core.give_up(one)
            self.core.leave(one, self.now)
        else:
            self.model.give_up(one)
            assert self.core.give_up(one)
            assert not self.core.leave(one, self.now) or self.core.closed
        self.core.advance(self.now)

    @invariant()
    def they_agree(self) -> None:
        """Who is in and who waits is what the model says."""
        holders = {one for one, _ in self.core.holders()}
        waiting = [one for one, _ in self.core.waiting()]
        assert holders == set(self.model.inside)
        assert set(waiting) == set(self.model.line)
        assert [one for one in waiting if one.write] == [one for one in self.model.line if one.write]
        assert self.core.advance(self.now) == []  # nobody who could be in waits

    @invariant()
    def the_promises_hold(self) -> None:
        """The invariants of the module hold."""
        writers = [one for one, _ in self.core.holders() if one.write]
        assert not writers or len(self.core.holders()) == 1
        assert not self.core.waiting() or self.core.holders()
        assert self.core.closed == any(one.write for one, _ in self.core.holders() + self.core.waiting())


TestCore = CoreMachine.TestCase
TestCore.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_neither_readers_nor_writers_are_starved() -> None:
    """A new reader and a new writer at each step: everyone is in within a bounded number of turns."""
    core, line, number = Core(), [], 0
    waited: dict[Asker, int] = {}
    for turn in range(300):
        for write in (True, False):
            number += 1
            one = Asker(number, write=write)
            waited[one] = turn
            line.append(one)
            core.enter(one, float(turn))
        for ticket, _ in core.holders():
            assert isinstance(ticket, Asker)
            # Writers in their order, with at most one group of readers before each.
            assert turn - waited[ticket] <= (ticket.number + 2 if ticket.write else 2)
            core.leave(ticket, float(turn))
        core.advance(float(turn))


def test_a_reader_and_a_writer_at_the_same_instant_do_not_miss_each_other() -> None:
    """Forced: each step of the reader's way in and out, with the writer's whole way between any two."""
    for cut in range(3):
        core, reader, writer = Core(), Asker(1, write=False), Asker(2, write=True)
        if cut == 0:
            core.enter(writer, 0.0)
        core.inside[reader] = 0.0  # what `try_read` does first
        if cut == 1:
            core.enter(writer, 0.0)
        if core.closed:  # what it does next
            del core.inside[reader]
            core.enter(reader, 1.0)
        if cut == 2:
            core.enter(writer, 1.0)
        holders = {one for one, _ in core.holders()}
        assert holders == ({reader} if cut == 2 else {writer})
        first = reader if cut == 2 else writer
        assert core.leave(first, 2.0)
        core.advance(2.0)
        assert {one for one, _ in core.holders()} == {reader, writer} - {first}


# -- threads and tasks ---------------------------------------------------------------------------------


class Side:
    """How a test takes a lock: by threads or by tasks."""

    def __init__(self, *, tasks: bool) -> None:
        self.tasks = tasks

    def lock(self, resource: Resource) -> Any:
        """Return the lock as this side sees it."""
        return AsyncRWLock(resource=resource) if self.tasks else RWLock(resource=resource)

    def run(self, *jobs: Callable[[Any], Any], resource: Resource) -> list[Any]:
        """Run each job, steps of `(hold, work)`, in a thread or task of its own, begun in this order."""
        if self.tasks:
            return asyncio.run(self._run_tasks(jobs, resource))
        results: list[Any] = [None] * len(jobs)

        def body(index: int) -> None:
            try:
                steps = jobs[index](self.lock(resource))
                for hold, work in steps:
                    with hold:
                        while (pause := work()) is not None:
                            time.sleep(pause)
            except Exception as error:
                results[index] = error

        threads = [threading.Thread(target=body, args=(index,)) for index in range(len(jobs))]
        for count, thread in enumerate(threads, 1):
            thread.start()
            wait_until(lambda: known(resource) >= count or not thread.is_alive(), 20, pause=0.001)  # noqa: B023
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        return results

    async def _run_tasks(self, jobs: Any, resource: Resource) -> list[Any]:
        async def body(job: Any) -> None:
            for hold, work in job(self.lock(resource)):
                async with hold:
                    while (pause := work()) is not None:  # noqa: ASYNC110 - what it polls knows no event
                        await asyncio.sleep(pause)

        tasks = []
        for count, job in enumerate(jobs, 1):
            tasks.append(asyncio.create_task(body(job)))
            for _ in range(20_000):
                await asyncio.sleep(0)
                if known(resource) >= count or tasks[-1].done():
                    break
        return await asyncio.gather(*tasks, return_exceptions=True)


def known(resource: Resource) -> int:
    """Return how many hold the lock, wait for it, or have."""
    return len(resource.holders()) + len(resource.waiting()) + resource.tally.uses + len(resource.tally.fresh)


@pytest.fixture(params=["threads", "tasks"])
def side(request: pytest.FixtureRequest) -> Side:
    """One body of a test, both drivers: what only one of them does is a bug."""
    return Side(tasks=request.param == "tasks")


@pytest.fixture
def resource() -> Resource:
    """Give the state of a lock with a name."""
    return Resource("shop")


def until(condition: Callable[[], object], then: Callable[[], object]) -> Callable[[], float | None]:
    """Return work that goes on until a condition holds."""

    def work() -> float | None:
        if not condition():
            return 0.002
        then()
        return None

    return work


def test_readers_share_and_writers_do_not(side: Side, resource: Resource) -> None:
    seen: list[str] = []
    met: set[int] = set()

    def reader(lock: Any) -> Any:
        def work() -> float | None:
            met.add(id(lock))
            return None if len(met) == 2 else 0.002

        return [(lock.read(), work), (lock.read(), lambda: seen.append("read"))]

    def writer(lock: Any) -> Any:
        def work() -> None:
            assert not resource.inside
            assert resource.writing is not None
            seen.append("written")

        return [(lock.write(), work)]

    assert side.run(reader, reader, writer, writer, resource=resource) == [None] * 4
    assert sorted(seen) == ["read", "read", "written", "written"]
    shown = resource.stats()
    assert (shown["acquisitions"], shown["failures"]) == (6, 0)
    assert shown["hold_ms"]["max"] >= shown["hold_ms"]["p95"] > 0


def test_writers_come_in_their_order_and_readers_between_them(side: Side, resource: Resource) -> None:
    """First reader in; then W1, R, W2, R ask while it holds."""
    seen: list[str] = []

    def first(lock: Any) -> Any:
        return [(lock.read(), until(lambda: len(resource.waiting()) == 4, lambda: seen.append("first")))]

    def asks(name: str) -> Callable[[Any], Any]:
        def job(lock: Any) -> Any:
            hold = lock.write() if name[0] == "W" else lock.read()
            return [(hold, lambda: seen.append(name))]

        return job

    assert side.run(first, *map(asks, ("W1", "R1", "W2", "R2")), resource=resource) == [None] * 5
    assert seen[:2] == ["first", "W1"]
    assert set(seen[2:4]) == {"R1", "R2"}
    assert seen[4:] == ["W2"]


@pytest.mark.parametrize("mode", ["read", "write"])
def test_who_waits_in_vain_is_told_who_has_it(side: Side, resource: Resource, mode: str) -> None:
    def holder(lock: Any) -> Any:
        return [(lock.write(purpose="to count"), until(lambda: resource.tally.failures, lambda: None))]

    def waiter(lock: Any) -> Any:
        return [(getattr(lock, mode)(timeout=0.05), lambda: None)]

    _, error = side.run(holder, waiter, resource=resource)
    assert isinstance(error, LockTimeout)
    assert "which writes (to count), for " in str(error)
    assert error.details["holder"]["pid"] == os.getpid()
    assert error.details["holder"]["who"].startswith("task Task-" if side.tasks else "thread Thread-")
    assert error.details["age_ms"] >= 50
    assert (known(resource), resource.closed) == (1, False)


def test_a_writer_out_of_time_lets_the_readers_behind_it_in(side: Side, resource: Resource) -> None:
    seen: list[str] = []

    def holder(lock: Any) -> Any:
        return [(lock.read(), until(lambda: "reader" in seen, lambda: None))]

    def writer(lock: Any) -> Any:
        return [(lock.write(timeout=0.2), lambda: None)]

    def reader(lock: Any) -> Any:
        return [(lock.read(timeout=20), lambda: seen.append("reader"))]

    _, error, none = side.run(holder, writer, reader, resource=resource)
    assert isinstance(error, LockTimeout)
    assert none is None


def test_an_error_inside_frees_the_lock(side: Side, resource: Resource) -> None:
    def fails(lock: Any) -> Any:
        return [(lock.write(), lambda: 1 // 0)]

    def goes_on(lock: Any) -> Any:
        return [(lock.write(timeout=10), lambda: None)]

    errors = side.run(fails, goes_on, resource=resource)
    assert isinstance(errors[0], ZeroDivisionError)
    assert errors[1] is None


def test_takings_that_could_block_for_ever_are_refused(side: Side) -> None:
    """The same lock again, in whatever mode; an earlier one while a later one is held."""
    early, late, unnamed = Resource("a"), Resource("b"), Resource()

    def job(lock: Any) -> Any:
        for first, second in ((late, late), (late, early), (unnamed, late), (unnamed, unnamed)):
            for mode in ("read", "write"):
                yield side.lock(first).read(), None, side.lock(second), mode, first, second
        del lock

    async def tasks() -> None:
        for hold, _, lock, mode, first, second in job(None):
            async with hold:
                with pytest.raises(LockOrderError) as caught:
                    async with getattr(lock, mode)():
                        pass
                assert caught.value.details == {"held": first.label, "asked": second.label}

    def threads() -> None:
        for hold, _, lock, mode, first, second in job(None):
            with hold:
                with pytest.raises(LockOrderError) as caught, getattr(lock, mode)():
                    pass
                assert caught.value.details == {"held": first.label, "asked": second.label}

    asyncio.run(tasks()) if side.tasks else threads()
    for one in (early, late, unnamed):
        assert (one.holders(), one.waiting()) == ([], [])


def test_locks_may_be_let_go_in_any_order() -> None:
    one, two, three = RWLock("a"), RWLock("b"), RWLock("c")
    holds = [one.read(), two.write(), three.read()]
    for hold in holds:
        hold.__enter__()
    assert held(one, two, three) == [1, 1, 1]
    holds[1].__exit__()
    assert held(one, two, three) == [1, 0, 1]
    holds[0].__exit__()
    assert held(one, two, three) == [0, 0, 1]
    with RWLock("d").read():
        holds[2].__exit__()
        assert held(one, two, three) == [0, 0, 0]

    async def tasks() -> None:
        one, two = AsyncRWLock("a"), AsyncRWLock("b")
        later = two.read()
        async with one.read():
            await later.__aenter__()
        assert held(one, two) == [0, 1]
        await later.__aexit__(None, None, None)
        assert held(one, two) == [0, 0]

    asyncio.run(tasks())


def held(*locks: RWLock | AsyncRWLock) -> list[int]:
    """Return by how many each is held."""
    return [len(lock.resource.holders()) for lock in locks]


def test_a_lock_of_threads_is_refused_in_an_event_loop() -> None:
    async def main() -> None:
        for hold in (RWLock().read(), RWLock().write()):
            with pytest.raises(UsageError, match="block") as caught, hold:
                pass
            assert "async with AsyncRWLock" in str(caught.value.hint)

    asyncio.run(main())


def test_threads_and_tasks_of_several_loops_share_one_lock(resource: Resource) -> None:
    """No update is lost between two loops and two threads that add to one number."""
    number = 0

    def add() -> None:
        nonlocal number
        seen = number
        time.sleep(0)
        number = seen + 1

    async def tasks() -> None:
        async def one() -> None:
            for _ in range(50):
                async with AsyncRWLock(resource=resource).write(timeout=60):
                    add()

        await asyncio.gather(one(), one())

    def thread() -> None:
        for _ in range(100):
            with RWLock(resource=resource).write(timeout=60):
                add()

    threads = [
        threading.Thread(target=work) for work in (thread, thread, *[lambda: asyncio.run(tasks())] * 2)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert number == 400
    assert (resource.holders(), resource.waiting(), resource.closed) == ([], [], False)


def test_readers_in_a_crowd_never_see_a_half_made_change(side: Side, resource: Resource) -> None:
    pair = [0, 0]

    def writer(lock: Any) -> Any:
        def work() -> None:
            pair[0] += 1
            time.sleep(0)
            pair[1] += 1

        return ((lock.write(timeout=60), work) for _ in range(60))

    def reader(lock: Any) -> Any:
        def work() -> None:
            assert pair[0] == pair[1]

        return ((lock.read(timeout=60), work) for _ in range(200))

    assert side.run(writer, reader, writer, reader, reader, resource=resource) == [None] * 5
    assert pair == [120, 120]
    assert resource.stats()["acquisitions"] == 720


# -- cancellation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [False, True], ids=["reader", "writer"])
@pytest.mark.parametrize("released", [False, True], ids=["held", "let in meanwhile"])
def test_a_waiter_cancelled_at_any_await_leaves_nothing(
    resource: Resource, *, write: bool, released: bool
) -> None:
    """It keeps no lock and no place, and who stands behind it gets its turn."""
    lock = AsyncRWLock(resource=resource)

    async def take(*, write: bool) -> None:
        async with lock.write() if write else lock.read():
            await asyncio.sleep(0)

    async def main(steps: int) -> None:
        async with lock.write() as holder:
            waiter = asyncio.create_task(take(write=write))
            behind = asyncio.create_task(take(write=not write))
            for _ in range(steps):
                await asyncio.sleep(0)
            if released:
                break_in(holder)
                for _ in range(steps % 3):
                    await asyncio.sleep(0)
            waiter.cancel()
            if steps % 2:
                await asyncio.sleep(0)
            if not released:
                break_in(holder)
            await asyncio.gather(waiter, return_exceptions=True)
            await asyncio.wait_for(behind, 10)
            # So that the block can end as usual:
            resource.writing = (holder, 0.0)

    def break_in(holder: Any) -> None:
        resource.leave(holder, time.monotonic())
        resource.settle()

    for steps in range(6):
        asyncio.run(main(steps))
        assert (resource.holders(), resource.waiting(), resource.closed) == ([], [], False)


def test_a_task_that_is_thrown_away_while_it_holds_or_waits_gives_back(resource: Resource) -> None:
    """Its loop is closed, and the garbage collector ends it: nobody is left in front of others for ever."""
    lock = AsyncRWLock(resource=resource)

    async def take(hold: Any) -> None:
        async with hold:
            await asyncio.Event().wait()

    for hold in (lock.read(), lock.write()):
        waiting = lock.write()
        for one in (hold, waiting):
            coroutine = take(one)
            loop = asyncio.new_event_loop()
            task = loop.create_task(coroutine)
            loop.call_later(0.01, loop.stop)
            loop.run_forever()
            loop.close()
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # that is what is tested
            if one is hold:
                kept = task, coroutine
        assert len(resource.waiting()) == 1
        del task, coroutine
        # The waiter's loop is closed: it cannot be told, and the lock goes on to others.
        kept[1].close()
        del kept
        gc.collect()
        _owner.HELD.clear()
        with RWLock(resource=resource).write(timeout=5):
            pass
        assert (resource.holders(), resource.waiting(), resource.closed) == ([], [], False)


def test_leaving_never_waits_for_the_mutex(resource: Resource) -> None:
    """The garbage collector may end a task while this very thread has the mutex."""
    reader, writer = RWLock(resource=resource).read(), RWLock(resource=resource).write(timeout=10)
    reader.__enter__()
    done = threading.Event()

    def write() -> None:
        with writer:
            done.set()

    thread = threading.Thread(target=write)
    thread.start()
    wait_until(resource.waiting)
    with resource.mutex:
        reader.__exit__()
        assert not done.is_set()
    resource.wake([])  # what everyone does who has had the mutex
    assert done.wait(10)
    thread.join(10)


def test_ctrl_c_while_waiting_leaves_nothing(spawn: Spawn) -> None:
    code = """
import os, signal, sys, threading
from devsup.locks import RWLock
signal.signal(signal.SIGINT, signal.default_int_handler)
lock = RWLock("a")
inside, leave = threading.Event(), threading.Event()
def hold():
    with lock.write():
        inside.set(); leave.wait()
threading.Thread(target=hold).start()
inside.wait()
try:
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with lock.read(timeout=30):
        print("in")
except KeyboardInterrupt:
    print("interrupted", lock.resource.waiting(), flush=True)
leave.set()
with lock.write(timeout=10):
    print("in", flush=True)
"""
    child = spawn(code)
    assert [hear(child), hear(child)] == ["interrupted []\n", "in\n"]


# -- processes -----------------------------------------------------------------------------------------


def test_a_lock_of_one_process_is_not_sent_to_another() -> None:
    for lock in (RWLock(), AsyncRWLock()):
        with pytest.raises(TypeError, match="use a ProcessLock"):
            pickle.dumps(lock)


def test_in_a_fork_s_child_the_locks_of_other_threads_are_free(spawn: Spawn) -> None:
    """The forking thread goes on in its block and holds; what was another thread's is nobody's."""
    code = """
import os, sys, threading
from devsup.locks import RWLock
from devsup.errors import LockTimeout
theirs, mine = RWLock("a"), RWLock("b")
inside = threading.Event()
def hold():
    with theirs.write():
        inside.set(); threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
inside.wait()
with mine.write():
    theirs.resource.mutex.acquire()  # whatever the others were just doing
    child = os.fork()
    if child:
        theirs.resource.mutex.release()
    else:
        def other():
            try:
                with mine.read(timeout=0.05): print("in")
            except LockTimeout: print("mine is held", flush=True)
        thread = threading.Thread(target=other); thread.start(); thread.join()
if child == 0:
    with theirs.write(timeout=5), mine.write(timeout=5): print("all free", flush=True)
    os._exit(0)
os.waitpid(child, 0)
try:
    with theirs.read(timeout=0.05): print("in")
except LockTimeout: print("theirs is held", flush=True)
"""
    child = spawn(code)
    assert [hear(child) for _ in range(3)] == ["mine is held\n", "all free\n", "theirs is held\n"]
    say(child)


# -- time ----------------------------------------------------------------------------------------------


def test_only_the_monotonic_clock_counts(resource: Resource, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock on the wall jumps by a year in each direction; waits, holds and deadlines do not."""
    real = time.time()
    jumps = iter([real - 3e7, real + 3e7] * 1000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    lock = RWLock(resource=resource)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with lock.write():
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(20)
    began = time.monotonic()
    with pytest.raises(LockTimeout), lock.read(timeout=0.1):
        pass
    assert 0.09 <= time.monotonic() - began < 15
    leave.set()
    thread.join(20)
    assert resource.stats()["hold_ms"]["max"] < 30_000


def test_no_time_at_all_is_a_try(side: Side, resource: Resource) -> None:
    def waits(lock: Any) -> Any:
        return [(lock.read(timeout=0), lambda: None), (lock.write(timeout=-1), lambda: None)]

    assert side.run(waits, resource=resource) == [None]


def test_sums_are_made_of_many_uses() -> None:
    resource = Resource("many")
    lock = RWLock(resource=resource)
    for _ in range(3 * FRESH):
        with lock.read():
            pass
    assert len(resource.tally.fresh) <= FRESH + 1
    assert resource.stats()["acquisitions"] == 3 * FRESH
