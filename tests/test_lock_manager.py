"""Locks by name, objects made once, and what is seen of both from other processes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

import devsup.locks
from devsup.cli.verbs import locks as locks_verb
from devsup.errors import LockOrderError, LockTimeout, RegistryUnusable, UsageError
from devsup.locks import LockManager, _manager, _publish, _record, _seeing, _stats, read_lock, write_lock
from devsup.models import LockList, LockStatus
from devsup.paths import Home
from tests.cli_support import StandIn
from tests.support import Spawn, free_port, hear, say, server_argv, wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.support import Devsup, DevsupPopen


WAITS = """
import sys
from devsup.locks import LockManager
manager = LockManager(sys.argv[1])
manager.rw("published")
print("asks", flush=True)
with manager.process("shop").write(purpose=sys.argv[2]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give other processes longer to tell of their locks than a person would wait."""
    monkeypatch.setattr(_publish, "_PATIENCE", 20.0)


@pytest.fixture
def folder(temporary: Path) -> Path:
    """Give the folder of a manager."""
    return temporary / "locks"


@pytest.fixture
def manager(folder: Path) -> LockManager:
    """Give a manager whose locks only this process sees."""
    return LockManager(folder, publish=False)


def test_the_public_names_are_there() -> None:
    assert set(dir(devsup.locks)) == set(devsup.locks.__all__)
    for name in devsup.locks.__all__:
        assert getattr(devsup.locks, name) is not None
    with pytest.raises(AttributeError, match="no `nope`"):
        devsup.locks.nope  # noqa: B018 - the look itself is what is tested


def test_a_name_is_one_lock(manager: LockManager) -> None:
    """Of threads and tasks the same one; between processes another one; other names others."""
    assert manager.rw("a").resource is manager.async_rw("a").resource
    assert manager.rw("b").resource is not manager.rw("a").resource
    assert manager.process("a").path == manager.process("a").path
    with manager.process("a").write(), manager.rw("a").write(), manager.rw("b").read():
        pass


def test_every_name_has_a_file_of_its_own(manager: LockManager) -> None:
    names = [
        "a",
        "A",
        "",
        ".",
        "..",
        "a/b",
        "a%2fb",
        "ä",
        "\udcff",
        "x" * 300,
        "x" * 301,
        "." * 300,
        " ",
        "a\n",
    ]
    paths = {manager.process(name).path for name in names}
    assert len(paths) == len(names)
    for name in names:
        with manager.process(name).write():
            pass
    assert {os.path.dirname(path) for path in paths} == {manager.folder}


def test_the_default_folder_is_that_of_the_state(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setenv("DEVSUP_HOME", str(temporary / "home"))
    assert LockManager().folder == str(temporary / "home" / "locks")
    assert (temporary / "home").stat().st_mode & 0o777 == 0o700


# -- decorators ----------------------------------------------------------------------------------------


def test_decorators_take_the_lock_that_the_arguments_name(manager: LockManager) -> None:
    def held(name: str) -> list[bool]:
        return [ticket.write for ticket, _ in manager.rw(name).resource.holders()]

    @write_lock("user:{user}", manager=manager)
    def save(user: int, *, text: str = "") -> tuple[list[bool], str]:
        """Save."""
        return held(f"user:{user}"), text

    @read_lock(lambda user: f"user:{user}", manager=manager)
    async def load(user: int) -> list[bool]:
        await asyncio.sleep(0)
        return held(f"user:{user}")

    assert save(7, text="x") == ([True], "x")
    assert save(user=7) == ([True], "")
    assert asyncio.run(load(7)) == [False]
    assert held("user:7") == []
    assert (save.__name__, save.__doc__) == ("save", "Save.")
    with pytest.raises(TypeError, match="yields"):

        @read_lock("x", manager=manager)
        def numbers() -> Any:
            yield 1


def test_decorators_refuse_what_would_run_without_the_lock(manager: LockManager) -> None:
    """A plain function around an async one returns a coroutine, which runs when the lock is free again."""

    async def work() -> None:
        raise AssertionError("it has run")

    def plain() -> Awaitable[None]:
        return work()

    def lines() -> Iterator[int]:
        return (one for one in range(3))

    for function in (plain, lines):
        with pytest.raises(TypeError, match="without the lock"):
            write_lock("x", manager=manager)(function)()
    with manager.rw("x").write(timeout=0):
        pass


def test_decorators_without_a_manager_share_one(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setenv("DEVSUP_HOME", str(temporary / "home"))
    monkeypatch.setattr(_manager, "_SHARED", LockManager())

    @write_lock("all")
    def one() -> None:
        with pytest.raises(LockOrderError):
            two()

    @read_lock("all")
    def two() -> None:
        pass

    one()
    two()


# -- made once -----------------------------------------------------------------------------------------


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """Run ``work`` in threads that begin at once; return what each gave or raised."""
    gate, results = threading.Barrier(count), []

    def body() -> None:
        gate.wait(30)
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=body) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def queueing(manager: LockManager, key: str) -> int:
    """Return how many wait until somebody has made the object of ``key``."""
    return len(manager._making[key].waiting())


async def queued(manager: LockManager, key: str, count: int) -> None:
    """Wait until so many wait for the object of ``key``."""
    async with asyncio.timeout(20):
        while queueing(manager, key) != count:  # noqa: ASYNC110 - what it polls knows no event
            await asyncio.sleep(0)


def test_a_hundred_threads_get_one_object(manager: LockManager) -> None:
    made: list[object] = []

    def factory() -> object:
        wait_until(lambda: queueing(manager, "pool") == 99, 20)
        made.append(object())
        return made[-1]

    results = in_threads(100, lambda: manager.get_or_create("pool", factory))
    assert len(made) == 1
    assert results == made * 100
    assert not manager._making
    assert not manager._makers
    assert not manager._waits


def test_a_hundred_tasks_get_one_object_and_threads_the_same(manager: LockManager) -> None:
    made: list[object] = []

    async def factory() -> object:
        await queued(manager, "pool", 99)
        made.append(object())
        return made[-1]

    async def main() -> list[object]:
        return await asyncio.gather(*(manager.aget_or_create("pool", factory) for _ in range(100)))

    assert asyncio.run(main()) == made * 100
    assert len(made) == 1
    assert manager.get_or_create("pool", object) is made[0]
    assert asyncio.run(manager.aget_or_create("plain", lambda: 4)) == 4


def test_what_is_yet_to_be_made_is_not_made_in_a_running_loop(manager: LockManager) -> None:
    async def task() -> None:
        with pytest.raises(UsageError) as caught:
            manager.get_or_create("db", list)
        assert "await aget_or_create()" in (caught.value.hint or "")
        made = await manager.aget_or_create("db", object)
        assert manager.get_or_create("db", object) is made, "nobody waits for what is there"

    asyncio.run(task())


def test_a_factory_that_fails_leaves_nothing(manager: LockManager) -> None:
    """Its caller gets the error; the next in line tries, and all others get what that made."""
    tries: list[int] = []

    def factory() -> str:
        tries.append(1)
        wait_until(lambda: queueing(manager, "x") == 20 - len(tries), 20)
        if len(tries) < 3:
            raise OSError("not yet")
        return "made"

    results = in_threads(20, lambda: manager.get_or_create("x", factory))
    assert len(tries) == 3
    assert sorted(map(str, results)) == ["made"] * 18 + ["not yet"] * 2


def test_another_task_takes_over_from_a_maker_that_is_cancelled(manager: LockManager) -> None:
    making = asyncio.Event()

    async def never() -> str:
        making.set()
        await asyncio.Event().wait()
        return "never"

    async def soon() -> str:
        return "soon"

    async def main() -> None:
        maker = asyncio.create_task(manager.aget_or_create("x", never))
        await making.wait()
        others = [asyncio.create_task(manager.aget_or_create("x", soon)) for _ in range(3)]
        await queued(manager, "x", 3)
        others[0].cancel()
        maker.cancel()
        results = await asyncio.gather(maker, *others, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in results] == [True, True, False, False]
        assert results[2:] == ["soon", "soon"]

    asyncio.run(main())


def test_objects_that_need_each_other_are_refused(manager: LockManager) -> None:
    """In one thread at once; in a circle of two by whichever closes it."""
    with pytest.raises(LockOrderError, match="makes `a`"):
        manager.get_or_create("a", lambda: manager.get_or_create("a", object))
    # One that needs another, while locks are held, is no circle.
    with manager.rw("z").write():
        assert manager.get_or_create("b", lambda: manager.get_or_create("a", lambda: 3)) == 3
    both = threading.Barrier(2)

    def needs(own: str, other: str) -> Any:
        def factory() -> Any:
            both.wait(20)
            return manager.get_or_create(other, object, timeout=20)

        return manager.get_or_create(own, factory, timeout=20)

    pairs = iter([("c", "d"), ("d", "c")])
    results = in_threads(2, lambda: needs(*next(pairs)))
    assert any(isinstance(one, LockOrderError) for one in results)
    assert not any(isinstance(one, LockTimeout) for one in results)


# -- seen from elsewhere -------------------------------------------------------------------------------

PROGRAM = """
import sys, threading
from devsup.locks import LockManager, LockTimeout
manager = LockManager(sys.argv[1])
with manager.process("db").write(purpose="to migrate"), manager.rw("cache").write(purpose="to fill it"):
    def reader():
        try:
            with manager.rw("cache").read(timeout=30): pass
        except LockTimeout: pass
    thread = threading.Thread(target=reader, name="a reader"); thread.start()
    while not manager.rw("cache").resource.waiting(): pass
    print("held", flush=True)
    sys.stdin.readline()
thread.join()
print("left", flush=True)
sys.stdin.read()
"""


def test_the_locks_of_other_processes_are_seen(spawn: Spawn, folder: Path, manager: LockManager) -> None:
    child = spawn(PROGRAM, folder)
    assert hear(child) == "held\n"
    cache, db = manager.status()
    assert (cache.name, cache.kind, db.name, db.kind) == ("cache", "rw", "db", "process")
    assert cache.holder is not None
    assert db.holder is not None
    told = (child.pid, "thread MainThread", "write", "to fill it")
    assert tuple(cache.holder[name] for name in ("pid", "who", "mode", "purpose")) == told
    assert db.holder["purpose"] == "to migrate"
    (waiter,) = cache.waiters
    assert (waiter["pid"], waiter["who"], waiter["mode"]) == (child.pid, "thread a reader", "read")
    say(child)
    assert hear(child) == "left\n"
    cache, db = manager.status()
    assert (cache.is_busy, db.is_busy) == (False, False)
    assert (cache.stats["acquisitions"], db.stats["acquisitions"]) == (2, 1)
    assert cache.stats["wait_ms"]["max"] > 0
    # A killed process leaves its socket, which nobody takes for a process, and which is removed.
    child.kill()
    child.wait(10)
    assert [one.name for one in manager.status()] == ["db"]
    assert not list(folder.glob("*.locks"))


def test_a_process_that_does_not_answer_holds_up_nobody(
    folder: Path, manager: LockManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_publish, "_PATIENCE", 0.05)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as mute, socket.socket(socket.AF_UNIX) as liar:
        for listener, name in ((mute, "4711-x.locks"), (liar, "4712-x.locks")):
            listener.bind(str(folder / name))
            listener.listen()

        def lie() -> None:
            for text in (b"[]", b"{}", b"nonsense", b'{"by": {"pid": 1}, "locks": []}'):
                connection, _ = liar.accept()
                with connection:
                    connection.sendall(text)

        thread = threading.Thread(target=lie)
        thread.start()
        for _ in range(4):
            locks, oddities = _seeing.look_with_oddities(str(folder), own=manager)
            assert locks == []
            told = {one.who: one.message for one in oddities}
            assert told["4711-x"] == "pid 4711 did not tell of its locks in time"
            assert told["4712-x"].startswith(("pid 4712 did not tell", "pid 4712 told of its locks in a way"))
            assert len(oddities) == 2
        thread.join(10)


def test_what_the_dead_have_left_is_pruned(spawn: Spawn, devsup: Devsup, home: Path) -> None:
    """A killed waiter cannot remove its file, nor a killed program its socket."""
    place = Path(Home(str(home)).locks)
    lock = LockManager(place, publish=False).process("shop")
    with lock.write():
        killed, living = (spawn(WAITS, place, name) for name in ("killed", "living"))
        for child in (killed, living):
            assert hear(child) == "asks\n"
        wait_until(lambda: len(lock.waiters()) == len([*place.glob("*.locks")]) == 2)
        killed.kill()
        killed.wait(10)
        (place / "shop.lock~4711-1-0").touch()  # its writer may live
        (place / "shop.lock~4711-2-0").touch()
        os.utime(place / "shop.lock~4711-2-0", (0, 0))
        would = devsup("--json", "prune", "--dry-run").data["pruned"]
        assert {one["kind"] for one in would} == {"lock"}
        names = sorted(Path(one["what"]).name for one in would)
        assert [one.partition("-")[0] for one in names] == sorted(
            [str(killed.pid), "shop.lock~4711", f"shop.lock~{killed.pid}"]
        )
        done = devsup("--json", "prune").data["pruned"]
        assert [{**one, "done": True} for one in would] == done
        assert len([*place.glob("shop.lock~*")]) == 2
        assert [one.name.partition("-")[0] for one in place.glob("*.locks")] == [str(living.pid)]
    assert hear(living) == "held\n"
    say(living)
    assert living.wait(10) == 0


def test_a_folder_of_locks_that_is_none_is_told(devsup: Devsup, home: Path) -> None:
    assert devsup("--json", "list").code == 0
    place = Path(Home(str(home)).locks)
    place.mkdir(parents=True, exist_ok=True)
    os.mkfifo(place / "odd.lock")  # whoever opened it to read would wait for ever
    assert devsup("--json", "locks").data == {"locks": []}
    (place / "odd.lock").unlink()
    place.rmdir()
    place.touch()
    answer = devsup("--json", "locks")
    assert (answer.code, answer.error["code"]) == (11, "registry_unusable")
    assert devsup("--json", "prune").data == {"pruned": []}


def test_a_fork_s_child_answers_for_itself(spawn: Spawn, folder: Path, manager: LockManager) -> None:
    """The parent's socket ends with the parent; the child has one when it asks for a lock that is new."""
    code = """
import os, signal, sys
from devsup.locks import LockManager
manager = LockManager(sys.argv[1])
manager.rw("old")
if os.fork() == 0:
    own = LockManager(sys.argv[1])
    with own.rw("new").write():
        print(os.getpid(), flush=True)
        signal.pause()
os.wait()
"""
    parent = spawn(code, folder)
    child = int(hear(parent))
    try:
        assert [one.name for one in manager.status()] == ["new", "old"]
        parent.kill()
        parent.wait(10)
        (new,) = manager.status()
        assert (new.name, new.holder and new.holder["pid"]) == ("new", child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_socket_may_lie_deep(spawn: Spawn, temporary: Path) -> None:
    """The path of a socket has 107 bytes, that of a state folder as many as it likes."""
    deep = temporary / ("d" * 100) / ("e" * 100)
    child = spawn(PROGRAM, deep)
    assert hear(child) == "held\n"
    assert [one.name for one in LockManager(deep, publish=False).status()] == ["cache", "db"]
    say(child)


def test_a_program_whose_state_folder_cannot_be_used_has_its_own_locks(
    monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    """Only nobody else sees them; what is between processes fails, and says why."""
    (temporary / "file").touch()
    monkeypatch.setenv("DEVSUP_HOME", str(temporary / "file"))
    manager = LockManager()
    with manager.rw("a").write():
        pass
    with pytest.raises(RegistryUnusable):
        manager.process("a")


def test_asking_costs_nothing_until_somebody_does(spawn: Spawn, folder: Path) -> None:
    """A program without named locks of its own gets no thread and no socket."""
    code = """
import sys, threading
from devsup.locks import LockManager, RWLock
manager = LockManager(sys.argv[1])
with manager.process("a").write(), RWLock().read(): pass
print(threading.active_count(), flush=True)
with manager.rw("a").read(): pass
print(threading.active_count(), flush=True)
"""
    child = spawn(code, folder)
    assert [hear(child), hear(child)] == ["1\n", "2\n"]
    child.wait(10)
    assert not list(folder.glob("*.locks"))


def status(name: str, holders: list[Any], waiters: list[Any], **counts: int) -> LockStatus:
    """Return a lock with the holders and waiters that are named by `(pid, who)`."""

    def person(one: tuple[int, str]) -> dict[str, Any]:
        return {"pid": one[0], "who": one[1], "mode": "write", "purpose": "", "since": "", "age_ms": 5}

    shown = [person(one) for one in holders]
    stats = {"acquisitions": 1, "failures": 0} | counts
    return LockStatus(name, "rw", shown[0] if shown else None, shown, [person(one) for one in waiters], stats)


def test_circles_long_holds_and_contention_are_found() -> None:
    one, two, three = (1, "a"), (2, "b"), (3, "c")
    circle = [status("x", [one], [three]), status("y", [two], [one]), status("z", [three], [two, (4, "d")])]
    (found,) = _seeing.findings(circle)
    assert found.startswith("deadlock: pid ")
    assert all(f"`{name}`" in found for name in "xyz")
    # Other threads of the same processes, or a chain, are no circle.
    assert _seeing.findings([status("x", [one], [(2, "x")]), status("y", [two], [(1, "x")])]) == []
    assert _seeing.findings([status("x", [one], [two]), status("y", [two], [three])]) == []
    long = status("x", [one], [])
    long.holders[0]["age_ms"] = 61_000
    assert _seeing.findings([long]) == ["`x` has been held for 61 s by pid 1"]
    assert _seeing.findings([status("x", [], [], acquisitions=3, failures=4)]) == [
        "`x` is contended: 4 of 7 attempts gave up"
    ]
    assert _seeing.findings([status("x", [], [], acquisitions=4, failures=4)]) == []
    assert _seeing.findings([status("x", [], [], acquisitions=0, failures=3)]) == []


CIRCLE = """
import sys
from devsup.locks import ProcessLock
mine, other = sys.argv[1:]
with ProcessLock(mine, name=mine[-6]).write():
    print("held", flush=True)
    sys.stdin.readline()
    # Wrongly ordered on purpose: only a lock that says it is the last passes.
    with ProcessLock(other, name=other[-6], last=True).write(timeout=30):
        print("both", flush=True)
"""


def test_a_deadlock_between_processes_is_told(spawn: Spawn, folder: Path, devsup: Devsup) -> None:
    """Two programs that break the rule of order: `devsup locks` names the circle."""
    folder = devsup_folder(devsup)
    paths = [folder / "a.lock", folder / "b.lock"]
    children = [spawn(CIRCLE, *paths), spawn(CIRCLE, *reversed(paths))]
    assert [hear(one) for one in children] == ["held\n"] * 2
    for one in children:
        say(one)

    def notes() -> Any:
        answer = devsup("locks", "--json")
        assert answer.data["locks"]
        return [note for note in answer.notes if note.startswith("deadlock: ")]

    (found,) = wait_until(notes, 20)
    assert all(f"pid {one.pid}" in found for one in children)
    assert "`a`" in found
    assert "`b`" in found
    children[0].kill()
    assert hear(children[1]) == "both\n"


def devsup_folder(devsup: Devsup) -> Path:
    """Return the locks folder of the test's home."""
    from pathlib import Path

    folder = Path(devsup("version", "--json").data["home"]) / "locks"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def test_starts_that_wait_for_each_other_are_shown(
    devsup: Devsup, devsup_popen: DevsupPopen, spawn: Spawn
) -> None:
    """While somebody has the session's lock every other start waits, and `devsup locks` says for whom."""
    command = ("start", "web", "--port", free_port(), "--json", "--", *server_argv("web"))
    assert devsup(*command).code == 0
    assert devsup("stop", "web").code == 0
    (path,) = devsup_folder(devsup).glob("*.lock")
    holder = spawn(
        """
import sys
from devsup.locks import ProcessLock
with ProcessLock(sys.argv[1], name="dev_server_web").write(purpose="a test"):
    print("held", flush=True)
    sys.stdin.readline()
""",
        path,
    )
    assert hear(holder) == "held\n"
    starts = [devsup_popen(*command) for _ in range(3)]

    def waiting() -> Any:
        (lock,) = devsup("locks", "--json").data["locks"]
        return lock if len(lock["waiters"]) == 3 else None

    lock = wait_until(waiting, 40)
    assert lock["holder"]["pid"] == holder.pid
    assert lock["holder"]["purpose"] == "a test"
    assert {one["pid"] for one in lock["waiters"]} == {one.pid for one in starts}
    assert {one["purpose"] for one in lock["waiters"]} == {"start"}
    say(holder)
    for one in starts:
        out, _ = one.communicate(timeout=120)
        assert json.loads(out)["ok"], out
    assert devsup("locks").out == "no lock is held\n"
    assert "dev_server_web in " in devsup("locks", "--all").out
    assert not list(path.parent.glob("*~*"))
    assert devsup("stop", "web").code == 0


def test_percentiles() -> None:
    assert _stats.percentile([]) == 0.0
    assert _stats.percentile([3.0]) == 3.0
    assert _stats.percentile([float(one) for one in range(1, 101)]) == 95.0
    assert _stats.percentile([float(one) for one in range(1, 21)]) == 19.0
    tally = _stats.Tally()
    tally.fresh = [0.001] * 96 + [0.5] * 4
    for seconds in (0.2, 0.3):  # two of a hundred had to wait: the 95th did not
        tally.waited(seconds)
    shown = tally.shown(0)
    assert shown["acquisitions"] == 100
    assert shown["hold_ms"] == {"avg": pytest.approx(20.96), "max": 500.0, "p95": 1.0}
    assert shown["wait_ms"] == {"avg": 5.0, "max": 300.0, "p95": 0.0}
    for _ in range(8):
        tally.waited(0.4)
    assert tally.shown(0)["wait_ms"]["p95"] == 400.0


def test_the_counts_of_a_name(manager: LockManager) -> None:
    assert manager.stats("x") == {}
    with manager.process("x").write(), manager.rw("x").write():
        time.sleep(0.002)
    stats = manager.stats("x")
    assert set(stats) == {"process", "rw"}
    for one in stats.values():
        assert (one["acquisitions"], one["failures"]) == (1, 0)
        assert 2 <= one["hold_ms"]["avg"] <= one["hold_ms"]["max"]
    assert _record.stats("/nonexistent")["acquisitions"] == 0


def test_a_narrow_terminal_shows_every_column() -> None:
    """Only the name gives way."""
    paper = io.StringIO()
    Console(file=paper, width=80).print(locks_verb.drawn(StandIn().locks()))
    heading, first, _ = paper.getvalue().splitlines()
    assert heading.split() == ["LOCK", "HELD", "BY", "FOR", "WAITING", "USES", "FAILED", "WAIT", "HOLD"]
    assert "…  4711 (start)  " in first
    assert "5" in first.split()
    assert str(locks_verb.drawn(LockList([], []))) == "No lock is held."
