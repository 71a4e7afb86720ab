"""
Locks between processes and between hosts: one holder, told to others, safe across forks and execs.

What both kinds promise is one test, run for each; what only a kernel can do comes after. What Redis can do to
a lock stands in test_redis_locks.py.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pickle
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock as LibraryLock
from filelock import Timeout

from devsup import clock, identity
from devsup.errors import LockLost, LockOrderError, LockTimeout, UsageError
from devsup.locks import ProcessLock, RedisLock, _owner, _process, _record, _redis, _taking
from devsup.redis import links
from tests.support import Spawn, hear, say, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tests.redis_support import RedisServer

    Lock = ProcessLock | RedisLock
    Use = Callable[[Lock, float, Callable[[], object]], None]

HOLDER = """
import pickle, sys
with pickle.loads(bytes.fromhex(sys.argv[1])).write(purpose="a test"):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.read()
"""

WAITER = """
import pickle, sys
print("asks", flush=True)
with pickle.loads(bytes.fromhex(sys.argv[1])).write(purpose="to wait"):
    print("held", flush=True)
    sys.stdin.readline()
"""


class Kind:
    """One kind of lock, as the tests that hold for each kind need it. Times are generous: ttl is 30 s."""

    def __init__(self, folder: Path, server: RedisServer | None) -> None:
        self.folder = folder
        self.server = server

    def lock(self, name: str = "session", *, ttl: float = 30.0, purpose: str | None = None) -> Lock:
        """Return a lock of that name: the same one each time."""
        if self.server is not None:
            return RedisLock(self.server.url, name, ttl=ttl, purpose=purpose)
        return ProcessLock(self.folder / f"{name}.lock", name=name, purpose=purpose)

    def waiting(self) -> int:
        """Return how many processes are seen to wait for the lock."""
        if self.server is None:
            return len(ProcessLock(self.folder / "session.lock").waiters())
        with self.server.client() as client:
            return int(client.info("clients")["blocked_clients"])

    def is_free(self) -> bool:
        """Tell, by other means than ours, whether nobody has the lock `session`."""
        if self.server is not None:
            with self.server.client() as client:
                return not client.exists("{devsup:lock:session}")
        with open(self.folder / "session.lock", "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def stats(self, lock: Lock) -> dict[str, Any]:
        """Return the counts of the lock: of all processes, or of this one."""
        return lock.stats() if isinstance(lock, RedisLock) else _record.stats(lock.path)


@pytest.fixture(params=["process", "redis"])
def kind(request: pytest.FixtureRequest, temporary: Path) -> Kind:
    """Give one kind of lock after the other."""
    return Kind(temporary, request.getfixturevalue("shared_redis") if request.param == "redis" else None)


@pytest.fixture
def path(temporary: Path) -> Path:
    """Give the path of a lock."""
    return temporary / "session.lock"


@pytest.fixture(params=["sync", "async"])
def use(request: pytest.FixtureRequest) -> Use:
    """One body of a test, both drivers: what only one of them does is a bug."""

    def plain(lock: Lock, timeout: float, work: Callable[[], object]) -> None:
        with lock.write(timeout=timeout):
            work()

    async def task(lock: Lock, timeout: float, work: Callable[[], object]) -> None:  # noqa: ASYNC109 - its word
        async with lock.write(timeout=timeout):
            work()

    if request.param == "sync":
        return plain
    return lambda lock, timeout, work: asyncio.run(task(lock, timeout, work))


def sent(lock: Lock) -> str:
    """Return the lock as the scripts above read it."""
    return pickle.dumps(lock).hex()


def pid_of(lock: Lock) -> int | None:
    """Return the pid of the holder as the lock tells it."""
    with ThreadPoolExecutor(1) as threads:  # in a thread, as this may be called in an event loop
        holder = threads.submit(lock.holder).result(20)
    return holder if holder is None else holder.by.pid if isinstance(holder, _record.Holder) else holder.pid


def test_a_second_process_does_not_get_a_held_lock(spawn: Spawn, kind: Kind, use: Use) -> None:
    """Held means held; released means free; and the error says who had it."""
    lock = kind.lock()
    holder = spawn(HOLDER, sent(lock))
    assert hear(holder) == "held\n"
    with pytest.raises(LockTimeout, match=f"pid {holder.pid} \\(a test\\), for ") as caught:
        use(lock, 0.05, lambda: None)
    details = caught.value.details
    assert details["holder"].pop("host", os.uname().nodename) == os.uname().nodename
    assert details["holder"] == {"pid": holder.pid, "purpose": "a test"}
    assert details["age_ms"] >= 0
    say(holder)
    assert hear(holder) == "released\n"
    held: list[object] = []
    use(lock, 10, lambda: held.append(pid_of(kind.lock())))
    assert held == [os.getpid()]
    assert lock.holder() is None
    assert kind.is_free()
    assert kind.stats(lock)["failures"] == 1
    assert kind.stats(lock)["acquisitions"] == (1 if kind.server else 2)
    assert kind.stats(lock)["hold_ms"]["max"] > 0


def test_the_file_of_a_lock_stays_the_same(spawn: Spawn, path: Path) -> None:
    with ProcessLock(path).write():
        inode = path.stat().st_ino
    assert spawn(HOLDER, sent(ProcessLock(path))).communicate("go\n", timeout=20)[0] == "held\nreleased\n"
    assert path.stat().st_ino == inode


def test_the_lock_of_a_killed_holder_becomes_free(spawn: Spawn, kind: Kind, use: Use) -> None:
    """No clean-up is needed: at once where the kernel sees it, else when the ttl is over."""
    lock = kind.lock(ttl=2.5)
    holder = spawn(HOLDER, sent(lock))
    assert hear(holder) == "held\n"
    held = lock.holder()
    assert held is not None
    assert (pid_of(lock), held.purpose) == (holder.pid, "a test")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(10)
    assert kind.server or lock.holder() is None
    use(lock, 10, lambda: None)


def test_who_waits_gets_it_next(spawn: Spawn, kind: Kind) -> None:
    with kind.lock().write():
        waiter = spawn(WAITER, sent(kind.lock()))
        wait_until(kind.waiting)
        before = time.monotonic()
    assert [hear(waiter), hear(waiter)] == ["asks\n", "held\n"]
    assert time.monotonic() - before < 20  # not after the ttl: it was told
    assert kind.waiting() == 0
    say(waiter)
    assert waiter.wait(10) == 0
    assert kind.is_free()


def test_who_waits_is_seen(spawn: Spawn, path: Path) -> None:
    with ProcessLock(path).write():
        waiter = spawn(WAITER, sent(ProcessLock(path)))
        (seen,) = wait_until(lambda: ProcessLock(path).waiters())
        assert (seen.by.pid, seen.purpose) == (waiter.pid, "to wait")
    assert [hear(waiter), hear(waiter)] == ["asks\n", "held\n"]
    say(waiter)
    assert waiter.wait(10) == 0
    assert [one.name for one in path.parent.iterdir()] == ["session.lock"]


def test_a_waiter_that_was_killed_is_none(spawn: Spawn, kind: Kind, temporary: Path) -> None:
    with kind.lock().write():
        before = sorted(temporary.iterdir())
        waiter = spawn(WAITER, sent(kind.lock()))
        wait_until(kind.waiting)
        waiter.kill()
        waiter.wait(10)
        wait_until(lambda: kind.waiting() == 0)
        assert sorted(temporary.iterdir()) == before
    with kind.lock().write(timeout=10):
        pass


def _interrupted(number: int, work: Callable[[], object]) -> str | None:
    """Have a Ctrl-C come before the line ``number`` of the library in ``work``; return where that was."""
    folders = (os.path.dirname(_record.__file__), links.__file__)
    count, where = 0, None

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count, where
        if not frame.f_code.co_filename.startswith(folders):
            return None
        count += event == "line"
        if count == number and where is None:
            where = frame.f_code.co_name
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return where


def test_a_ctrl_c_at_any_line_leaves_the_lock_free(spawn: Spawn, kind: Kind) -> None:
    lock = kind.lock()

    def use() -> None:
        with lock.write():
            pass

    def wait() -> None:
        with suppress(LockTimeout), lock.write(timeout=0.001):
            pass

    left, number, begins = [], 0, 0
    use()  # what is made once is made
    while where := _interrupted(number := number + 1, use):
        _undo_what_only_a_trace_does()
        if _owner.HELD or not _becomes_free(kind):
            left.append(where)
            for hold in [*_process._open_holds.values()]:
                hold.release()
            for lease in [*_redis._open_holds.values()]:
                lease.release()
        _process._open_holds.clear()
    # Nothing of Python's can be done about the moment before the first line of `__exit__`.
    assert number > 50
    assert left == ["__exit__"]
    holder = spawn(HOLDER, sent(lock))
    assert hear(holder) == "held\n"
    before = sorted(kind.folder.iterdir())
    while _interrupted(begins := begins + 1, wait):
        _undo_what_only_a_trace_does()
        _process._open_holds.clear()
        assert sorted(kind.folder.iterdir()) == before
        assert not _owner.HELD
        assert not _redis._open_holds
    assert begins > 50
    assert pid_of(lock) == holder.pid
    say(holder)
    assert hear(holder) == "released\n"
    assert _becomes_free(kind)


def _becomes_free(kind: Kind) -> bool:
    """Tell whether nobody has the lock, in a moment: a thread may have to see to it."""
    for _ in range(4000 if kind.server and not _redis._open_holds else 1):
        if kind.is_free():
            return True
        time.sleep(0.005)
    return False


def _undo_what_only_a_trace_does() -> None:
    """Let go of what is held because Python was stopped between the end of a block and its `__exit__`."""
    renewers = [one._mutex for one in _taking._renewers.values()]
    mutexes: list[Any] = [_process._forking, _redis._counting, *renewers]
    for mutex in mutexes:
        while mutex._is_owned():
            mutex.release()


def test_takings_exclude_each_other_in_one_process(kind: Kind) -> None:
    """Several objects, or one that several threads share: each `write()` is a taking of its own."""
    lock = kind.lock()
    for other in (lock, kind.lock()):
        inside, leave = threading.Event(), threading.Event()
        thread = threading.Thread(target=_hold, args=(other, inside, leave))
        thread.start()
        assert inside.wait(20)
        with pytest.raises(LockTimeout), lock.write(timeout=0.05):
            pass
        leave.set()
        thread.join(20)
        with lock.write():
            pass


def test_nested_and_wrongly_ordered_takings_are_refused(kind: Kind) -> None:
    """A thread that would wait for itself, or in a circle with another, is told at once which two locks."""
    first, second = kind.lock("ant"), kind.lock("bee")
    with second.write():
        with pytest.raises(LockOrderError, match="already holds the lock `bee`") as caught, second.write():
            pass
        assert caught.value.details == {"held": "bee", "asked": "bee"}
        with pytest.raises(LockOrderError, match=r"holds the lock `bee`, so it cannot ask for `ant`"):
            first.write().try_acquire()
    with first.write(), second.write():
        pass
    # In any order they may be let go.
    one, other = first.write(), second.write()
    assert one.try_acquire()
    assert other.try_acquire()
    assert one.release()
    assert other.release()
    with first.write():
        pass


def test_a_lock_between_processes_may_come_last_and_one_between_hosts_comes_first(
    temporary: Path, shared_redis: RedisServer
) -> None:
    wide = RedisLock(shared_redis.url, "zebra")
    second = ProcessLock(temporary / "b.lock", name="bee")
    last = ProcessLock(temporary / "0.lock", last=True)
    with second.write():
        with last.write(), pytest.raises(LockOrderError), ProcessLock(temporary / "z.lock").write():
            pass
        with pytest.raises(LockOrderError, match="holds the lock `bee`, so it cannot ask for `zebra`"):
            wide.write().try_acquire()
    with wide.write(), second.write(), last.write():
        pass


def test_each_task_is_an_owner_of_its_own(kind: Kind) -> None:
    """Two tasks of one thread wait for each other like two threads."""

    async def main() -> list[str]:
        seen: list[str] = []

        async def one(name: str) -> None:
            async with kind.lock().write(timeout=10):
                seen.append(f"{name} in")
                await asyncio.sleep(0.01)
                seen.append(f"{name} out")

        await asyncio.gather(one("a"), one("b"))
        return seen

    seen = asyncio.run(main())
    assert seen in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])


def test_a_lock_that_blocks_is_refused_in_an_event_loop(kind: Kind) -> None:
    async def main() -> None:
        with pytest.raises(UsageError) as caught, kind.lock().write():
            pass
        assert "async with lock.write()" in str(caught.value.hint)

    asyncio.run(main())


def test_a_waiter_that_is_cancelled_leaves_nothing(kind: Kind) -> None:
    """At whatever await the cancellation comes: neither a lock nor a trace of waiting is left."""

    async def take() -> None:
        async with kind.lock().write(timeout=30):
            await asyncio.sleep(0)

    async def main() -> None:
        for steps in range(12):
            holder = kind.lock().write()
            await holder.__aenter__()
            task = asyncio.create_task(take())
            for _ in range(steps):
                await asyncio.sleep(0.002)
            if steps % 3 == 0:
                await holder.__aexit__(None, None, None)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if holder.held:
                await holder.__aexit__(None, None, None)
            # Where Redis has to be told, a thread does that, so that nobody waits who was cancelled.
            async with kind.lock().write(timeout=10 if kind.server else 0):
                pass
            assert kind.server or kind.waiting() == 0

    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    asyncio.run(main())
    assert kind.server or not before or len(os.listdir("/proc/self/fd")) <= before
    assert not _process._open_holds
    assert not _redis._open_holds
    assert not _owner.HELD
    wait_until(lambda: kind.waiting() == 0)
    assert kind.is_free()


def test_the_lock_does_not_survive_an_exec(spawn: Spawn, path: Path) -> None:
    """What a holder starts cannot keep the lock: a guard outlives the start that made it."""
    code = f"""
import os, subprocess, sys
from devsup.locks import ProcessLock
assert ProcessLock({str(path)!r}).write(purpose="start").try_acquire()
child = subprocess.Popen(["sleep", "60"], close_fds=False)
print(child.pid, flush=True)
sys.stdin.readline()
os._exit(0)
"""
    holder = spawn(code)
    child = int(hear(holder))
    who = identity.of(child)
    assert who is not None
    try:
        say(holder)
        holder.wait(10)
        with ProcessLock(path).write(timeout=5):
            assert not identity.is_gone(who)
    finally:
        identity.signal(who, signal.SIGKILL)


def test_a_fork_s_child_neither_holds_nor_frees_the_lock(spawn: Spawn, kind: Kind) -> None:
    """The child ends the block and lives on; the parent holds until it lets go, and frees it by its death."""
    code = """
import os, pickle, signal, sys
lock = pickle.loads(bytes.fromhex(sys.argv[1]))
hold = lock.write(purpose="parent")
with hold:
    if os.fork() == 0:
        assert not hold.held and hold.release()
        other = lock.write()
        assert not other.try_acquire()
        other.release()
        print("child", os.getpid(), flush=True)
        os.execvp("sleep", ["sleep", "60"]) if sys.argv[2] == "exec" else signal.pause()
        os._exit(0)
    sys.stdin.readline()
    assert hold.held
    if sys.argv[3] == "dies":
        os._exit(0)
print("left", flush=True)
sys.stdin.read()
"""
    lock = kind.lock(ttl=2.5)
    for goes_on in ("exec", "stays"):
        for end in ("dies", "leaves"):
            holder = spawn(code, sent(lock), goes_on, end)
            who = identity.of(int(hear(holder).split()[1]))
            assert who is not None
            assert pid_of(lock) == holder.pid
            assert _cannot_take(lock)
            say(holder)
            assert end == "dies" or hear(holder) == "left\n"
            with lock.write(timeout=10):
                assert not identity.is_gone(who)
            identity.signal(who, signal.SIGKILL)


def test_a_lock_can_be_sent_to_a_process_that_is_spawned(spawn: Spawn, kind: Kind) -> None:
    """What arrives is the lock, not the hold."""
    lock = kind.lock("shop", purpose="shared")
    copy = pickle.loads(pickle.dumps(lock))
    assert (repr(copy), copy.purpose, copy.name) == (repr(lock), "shared", "shop")
    code = """
import pickle, sys
hold = pickle.loads(bytes.fromhex(sys.argv[1])).write()
print(hold.try_acquire(), flush=True)
hold.release()
"""
    with lock.write():
        assert hear(spawn(code, sent(lock))) == "False\n"
    assert hear(spawn(code, sent(lock))) == "True\n"


def _hold(lock: Lock, inside: threading.Event, leave: threading.Event) -> None:
    with lock.write():
        inside.set()
        leave.wait(20)


def _cannot_take(lock: Lock) -> bool:
    hold = lock.write()
    taken = hold.try_acquire()
    hold.release()
    return not taken


def test_the_filelock_library_and_ours_exclude_each_other(path: Path) -> None:
    """Both call `flock` on the same file, so other programs may take part."""
    ours, theirs = ProcessLock(path).write(), LibraryLock(path, fallback_to_soft=False)
    assert ours.try_acquire()
    with pytest.raises(Timeout):
        theirs.acquire(timeout=0)
    ours.release()
    with theirs.acquire(timeout=0):
        assert not ours.try_acquire()
        ours.release()
    assert ours.try_acquire()
    ours.release()


def test_a_lock_whose_file_was_replaced_says_so(spawn: Spawn, path: Path) -> None:
    """Somebody deleted it: others may be in. Whoever asks next gets a lock that is one."""
    with pytest.raises(LockLost, match="was replaced"), ProcessLock(path).write():
        path.unlink()
    with pytest.raises(ValueError, match="mine"), ProcessLock(path).write():  # noqa: PT012 - the point of it
        path.unlink()
        raise ValueError("mine")
    first = ProcessLock(path).write()
    assert first.try_acquire()
    waiter = spawn(WAITER, sent(ProcessLock(path)))
    wait_until(lambda: ProcessLock(path).waiters())
    path.unlink()
    assert not first.release()
    # What it has waited for is the removed file's, which is free now: that is not the lock.
    assert [hear(waiter), hear(waiter)] == ["asks\n", "held\n"]
    assert _cannot_take(ProcessLock(path))
    say(waiter)
    assert waiter.wait(10) == 0


def test_a_lock_that_is_being_written_names_no_holder(path: Path) -> None:
    """Between the lock and the name there is a moment; it is told as nobody, not as nonsense."""
    for content in ('{"by": ', "", "[]", '{"name": "x"}\n', "4711\n", '{"by": 1}\n{"by": 2}'):
        path.write_text(content)
        assert ProcessLock(path).holder() is None
        assert _record.stats(str(path))["acquisitions"] == 0
    with ProcessLock(path, name="x" * 3000, purpose="ü" * 3000).write():
        held = ProcessLock(path).holder()
        assert held is not None
        assert held.by == identity.me()


def test_a_symlink_in_the_place_of_a_lock_is_refused(path: Path, temporary: Path) -> None:
    """Nobody makes us change another file by planting a link."""
    other = temporary / "precious"
    other.write_text("keep")
    path.symlink_to(other)
    with pytest.raises(OSError, match="symbolic link"), ProcessLock(path).write():
        pass
    assert other.read_text() == "keep"


def test_the_clock_on_the_wall_may_be_set(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither ages nor deadlines move with it."""
    with ProcessLock(path).write():
        for jump in (-(10**9), 10**9):
            real = clock.now_ms()
            monkeypatch.setattr(_record, "now_ms", lambda there=real + jump: there)
            monkeypatch.setattr(time, "time", lambda there=real + jump: there / 1e3)
            held = ProcessLock(path).holder()
            assert held is not None
            assert 0 <= held.age < 50
    began = time.monotonic()
    with ProcessLock(path).write(), pytest.raises(LockTimeout):
        asyncio.run(_take(path))
    assert time.monotonic() - began < 20


async def _take(path: Path) -> None:
    async with ProcessLock(path).write(timeout=0.1):
        pass


RUNNER = """
import pickle, sys
lock, count = pickle.loads(bytes.fromhex(sys.argv[1])), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(count):
    with lock.write(timeout=300):
        with open(sys.argv[2]) as file:
            number = int(file.read())
        with open(sys.argv[2], "w") as file:
            file.write(str(number + 1))
print(lock.stats() if hasattr(lock, "stats") else "", flush=True)
"""


def contend(spawn: Spawn, lock: Lock, number: Path, processes: int, rounds: int) -> list[str]:
    """Have processes add to a number under one lock; return what each tells of its counts."""
    number.write_text("0")
    runners = [spawn(RUNNER, sent(lock), number, rounds) for _ in range(processes)]
    assert [hear(one) for one in runners] == ["ready\n"] * processes
    for one in runners:
        say(one)
    told = [hear(one) for one in runners]
    assert [one.wait(300) for one in runners] == [0] * processes
    assert number.read_text() == str(processes * rounds)
    return told


def test_no_update_is_lost_between_processes(spawn: Spawn, kind: Kind, temporary: Path) -> None:
    lock = kind.lock()
    told = contend(spawn, lock, temporary / "number", 4, 50)
    if kind.server:
        assert ["'acquisitions': 50, 'failures': 0" in one for one in told] == [True] * 4
    else:
        assert kind.stats(lock)["acquisitions"] == 200
        assert kind.stats(lock)["failures"] == 0


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_eight_processes_take_a_lock_a_thousand_times_each(spawn: Spawn, temporary: Path) -> None:
    lock = ProcessLock(temporary / "count.lock")
    contend(spawn, lock, temporary / "number", 8, 1000)
    stats = _record.stats(lock.path)
    assert (stats["acquisitions"], stats["failures"]) == (8000, 0)
    print(stats)
