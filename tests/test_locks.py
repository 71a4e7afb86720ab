"""Locks between processes: one holder, freed by the kernel, seen by others, safe across forks and execs."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pickle
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock as LibraryLock
from filelock import Timeout

from devsup import clock, identity
from devsup.errors import LockLost, LockOrderError, LockTimeout, UsageError
from devsup.locks import ProcessLock, _owner, _process, _record
from tests.support import Spawn, hear, say, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

HOLDER = """
import sys
from devsup.locks import ProcessLock
with ProcessLock(sys.argv[1], name="shop").write(purpose="a test"):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.read()
"""

WAITER = """
import sys
from devsup.locks import ProcessLock
print("asks", flush=True)
with ProcessLock(sys.argv[1]).write(purpose="to wait"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def path(temporary: Path) -> Path:
    """Give the path of a lock."""
    return temporary / "session.lock"


@pytest.fixture(params=["sync", "async"])
def use(request: pytest.FixtureRequest) -> Callable[[Path, float, Callable[[], object]], None]:
    """One body of a test, both drivers: what only one of them does is a bug."""

    def plain(path: Path, timeout: float, work: Callable[[], object]) -> None:
        with ProcessLock(path).write(timeout=timeout):
            work()

    async def task(path: Path, timeout: float, work: Callable[[], object]) -> None:  # noqa: ASYNC109 - its word
        async with ProcessLock(path).write(timeout=timeout):
            work()

    if request.param == "sync":
        return plain
    return lambda path, timeout, work: asyncio.run(task(path, timeout, work))


def test_a_second_process_does_not_get_a_held_lock(
    spawn: Spawn, path: Path, use: Callable[[Path, float, Callable[[], object]], None]
) -> None:
    """Held means held; released means free, in the same file; and the error says who had it."""
    holder = spawn(HOLDER, path)
    assert hear(holder) == "held\n"
    with pytest.raises(LockTimeout, match=f"pid {holder.pid} \\(a test\\), for ") as caught:
        use(path, 0.05, lambda: None)
    assert caught.value.details["holder"] == {"pid": holder.pid, "purpose": "a test"}
    assert caught.value.details["age_ms"] >= 0
    inode = path.stat().st_ino
    say(holder)
    assert hear(holder) == "released\n"
    held: list[object] = []
    use(path, 10, lambda: held.append(ProcessLock(path).holder()))
    assert isinstance(held[0], _record.Holder)
    assert held[0].by == identity.me()
    assert ProcessLock(path).holder() is None
    assert path.stat().st_ino == inode
    assert _record.stats(str(path))["failures"] == 1
    assert _record.stats(str(path))["acquisitions"] == 2


def test_the_kernel_frees_the_lock_of_a_killed_holder(
    spawn: Spawn, path: Path, use: Callable[[Path, float, Callable[[], object]], None]
) -> None:
    """No age and no clean-up is needed: a dead holder holds nothing."""
    holder = spawn(HOLDER, path)
    assert hear(holder) == "held\n"
    held = ProcessLock(path).holder()
    assert held is not None
    assert (held.by.pid, held.purpose, held.name) == (holder.pid, "a test", "shop")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(10)
    assert ProcessLock(path).holder() is None
    use(path, 10, lambda: None)


def test_who_waits_is_seen_and_gets_it_next(spawn: Spawn, path: Path) -> None:
    waiter = None
    with ProcessLock(path).write():
        waiter = spawn(WAITER, path)
        (seen,) = wait_until(lambda: ProcessLock(path).waiters())
        assert (seen.by.pid, seen.purpose) == (waiter.pid, "to wait")
    assert [hear(waiter), hear(waiter)] == ["asks\n", "held\n"]
    assert ProcessLock(path).waiters() == []
    say(waiter)
    assert waiter.wait(10) == 0
    assert [one.name for one in path.parent.iterdir()] == ["session.lock"]


def test_a_waiter_that_was_killed_is_none(spawn: Spawn, path: Path) -> None:
    with ProcessLock(path).write():
        waiter = spawn(WAITER, path)
        wait_until(lambda: ProcessLock(path).waiters())
        waiter.kill()
        waiter.wait(10)
        assert ProcessLock(path).waiters() == []
        assert [one.name for one in path.parent.iterdir()] == ["session.lock"]


def _interrupted(number: int, work: Callable[[], object]) -> str | None:
    """Have a Ctrl-C come before the line ``number`` of the library in ``work``; return where that was."""
    folder, count, where = os.path.dirname(_record.__file__), 0, None

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count, where
        if not frame.f_code.co_filename.startswith(folder):
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


def test_a_ctrl_c_at_any_line_leaves_the_lock_free(path: Path) -> None:
    def use() -> None:
        with ProcessLock(path).write():
            pass

    def wait() -> None:
        with suppress(LockTimeout), ProcessLock(path).write(timeout=0.001):
            pass

    left, number, begins = [], 0, 0
    while where := _interrupted(number := number + 1, use):
        if not _can_take(path) or _owner.HELD:
            left.append(where)
            for hold in [*_process._open_holds.values()]:
                hold.release()
        _forget_the_interruption()
    # Nothing of Python's can be done about the moment before the first line of `__exit__`.
    assert number > 50
    assert left == ["__exit__"]
    with open(path) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        while _interrupted(begins := begins + 1, wait):
            assert [one.name for one in path.parent.iterdir()] == [path.name]
            _forget_the_interruption()
    assert begins > 50


def _forget_the_interruption() -> None:
    """Undo what a trace function alone can do: stop Python between the end of a block and its `__exit__`."""
    mutex: Any = _process._forking
    while mutex._is_owned():
        mutex.release()
    _process._open_holds.clear()


def _can_take(path: Path) -> bool:
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_takings_exclude_each_other_in_one_process(path: Path) -> None:
    """Several objects, or one that several threads share: each `write()` is a taking of its own."""
    lock = ProcessLock(path)
    for other in (lock, ProcessLock(path)):
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


def test_nested_and_wrongly_ordered_takings_are_refused(temporary: Path) -> None:
    """A thread that would wait for itself, or in a circle with another, is told at once which two locks."""
    first, second = ProcessLock(temporary / "a.lock"), ProcessLock(temporary / "b.lock", name="bee")
    last = ProcessLock(temporary / "0.lock", last=True)
    with second.write():
        with pytest.raises(LockOrderError, match="already holds the lock `bee`") as caught, second.write():
            pass
        assert caught.value.details == {"held": "bee", "asked": "bee"}
        with pytest.raises(LockOrderError, match=r"holds the lock `bee`, so it cannot ask for `.*a\.lock`"):
            first.write().try_acquire()
        with last.write(), pytest.raises(LockOrderError), ProcessLock(temporary / "z.lock").write():
            pass
    with first.write(), second.write():
        pass
    # In any order they may be let go.
    one, other = first.write(), second.write()
    assert one.try_acquire()
    assert other.try_acquire()
    one.release()
    other.release()
    with first.write():
        pass


def test_each_task_is_an_owner_of_its_own(path: Path) -> None:
    """Two tasks of one thread wait for each other like two threads."""

    async def main() -> list[str]:
        seen: list[str] = []

        async def one(name: str) -> None:
            async with ProcessLock(path).write(timeout=10):
                seen.append(f"{name} in")
                await asyncio.sleep(0.01)
                seen.append(f"{name} out")

        await asyncio.gather(one("a"), one("b"))
        return seen

    assert asyncio.run(main()) == ["a in", "a out", "b in", "b out"]


def test_a_lock_that_blocks_is_refused_in_an_event_loop(path: Path) -> None:
    async def main() -> None:
        with pytest.raises(UsageError) as caught, ProcessLock(path).write():
            pass
        assert "async with lock.write()" in str(caught.value.hint)

    asyncio.run(main())


def test_a_waiter_that_is_cancelled_leaves_nothing(path: Path) -> None:
    """At whatever await the cancellation comes: neither a lock nor a trace of waiting is left."""

    async def main() -> None:
        holder = ProcessLock(path).write()
        for steps in range(12):
            assert holder.try_acquire()
            task = asyncio.create_task(take())
            for _ in range(steps):
                await asyncio.sleep(0.002)
            if steps % 3 == 0:
                holder.release()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            holder.release()
            async with ProcessLock(path).write(timeout=0):
                pass
            assert ProcessLock(path).waiters() == []

    async def take() -> None:
        async with ProcessLock(path).write(timeout=30):
            await asyncio.sleep(0)

    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    asyncio.run(main())
    assert not before or len(os.listdir("/proc/self/fd")) <= before
    assert not _process._open_holds


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


def test_a_fork_s_child_neither_holds_nor_frees_the_lock(spawn: Spawn, path: Path) -> None:
    """The child ends the block and lives on; the parent holds until it lets go, and frees it by its death."""
    code = """
import os, signal, sys
from devsup.locks import ProcessLock
hold = ProcessLock(sys.argv[1]).write(purpose="parent")
with hold:
    if os.fork() == 0:
        assert not hold.held and hold.release()
        other = ProcessLock(sys.argv[1]).write()
        assert not other.try_acquire()
        other.release()
        print("child", os.getpid(), flush=True)
        os.execvp("sleep", ["sleep", "60"]) if sys.argv[2] == "exec" else signal.pause()
        os._exit(0)
    sys.stdin.readline()
    if sys.argv[3] == "dies":
        os._exit(0)
print("left", flush=True)
sys.stdin.read()
"""
    for goes_on in ("exec", "stays"):
        for end in ("dies", "leaves"):
            holder = spawn(code, path, goes_on, end)
            who = identity.of(int(hear(holder).split()[1]))
            assert who is not None
            held = ProcessLock(path).holder()
            assert held is not None
            assert held.by.pid == holder.pid
            assert _cannot_take(ProcessLock(path))
            say(holder)
            assert end == "dies" or hear(holder) == "left\n"
            with ProcessLock(path).write(timeout=10):
                assert not identity.is_gone(who)
            identity.signal(who, signal.SIGKILL)


def test_a_lock_can_be_sent_to_a_process_that_is_spawned(spawn: Spawn, path: Path) -> None:
    """What arrives is the lock, not the hold."""
    lock = ProcessLock(path, purpose="shared", name="shop")
    copy = pickle.loads(pickle.dumps(lock))
    assert (copy.path, copy.purpose, copy.name) == (lock.path, "shared", "shop")
    code = """
import pickle, sys
hold = pickle.loads(bytes.fromhex(sys.argv[1])).write()
print(hold.try_acquire(), flush=True)
hold.release()
"""
    with lock.write():
        assert hear(spawn(code, pickle.dumps(lock).hex())) == "False\n"
    assert hear(spawn(code, pickle.dumps(lock).hex())) == "True\n"


def _hold(lock: ProcessLock, inside: threading.Event, leave: threading.Event) -> None:
    with lock.write():
        inside.set()
        leave.wait(20)


def _cannot_take(lock: ProcessLock) -> bool:
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
    waiter = spawn(WAITER, path)
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
import sys, threading
from devsup.locks import ProcessLock
lock, count = ProcessLock(sys.argv[1]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(count):
    with lock.write(timeout=300):
        with open(sys.argv[2]) as file:
            number = int(file.read())
        with open(sys.argv[2], "w") as file:
            file.write(str(number + 1))
"""


def contend(spawn: Spawn, temporary: Path, processes: int, rounds: int) -> dict[str, object]:
    """Have processes add to a number under one lock; return the lock's counts."""
    path, number = temporary / "count.lock", temporary / "number"
    number.write_text("0")
    runners = [spawn(RUNNER, path, number, rounds) for _ in range(processes)]
    assert [hear(one) for one in runners] == ["ready\n"] * processes
    for one in runners:
        say(one)
    assert [one.wait(300) for one in runners] == [0] * processes
    assert number.read_text() == str(processes * rounds)
    return _record.stats(str(path))


def test_no_update_is_lost_between_processes(spawn: Spawn, temporary: Path) -> None:
    stats = contend(spawn, temporary, 4, 50)
    assert (stats["acquisitions"], stats["failures"]) == (200, 0)


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_eight_processes_take_a_lock_a_thousand_times_each(spawn: Spawn, temporary: Path) -> None:
    stats = contend(spawn, temporary, 8, 1000)
    assert (stats["acquisitions"], stats["failures"]) == (8000, 0)
    print(stats)
