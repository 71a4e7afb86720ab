"""One process holds a lock; the kernel frees it; nothing that is started inherits it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from filelock import FileLock as LibraryLock
from filelock import Timeout

from devsup import identity
from devsup.locks import FileLock
from tests.support import Spawn, hear, say, wait_until

HOLDER = """
import sys
from devsup.locks import FileLock
lock = FileLock(sys.argv[1], purpose="a test")
print(lock.try_acquire(), flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(temporary: Path) -> Path:
    """Give the path of a lock."""
    return temporary / "session.lock"


def test_a_second_process_does_not_get_a_held_lock(spawn: Spawn, path: Path) -> None:
    """Held means held; released means free, in the same file."""
    holder = spawn(HOLDER, path)
    assert hear(holder) == "True\n"
    lock = FileLock(str(path), purpose="mine")
    assert not lock.try_acquire()
    inode = path.stat().st_ino
    say(holder)
    assert hear(holder) == "released\n"
    assert lock.try_acquire()
    assert path.stat().st_ino == inode
    lock.release()


def test_the_kernel_frees_the_lock_of_a_killed_holder(spawn: Spawn, path: Path) -> None:
    """No age and no clean-up is needed: a dead holder holds nothing."""
    holder = spawn(HOLDER, path)
    assert hear(holder) == "True\n"
    lock = FileLock(str(path), purpose="mine")
    held = lock.holder()
    assert held is not None
    assert (held.by.pid, held.purpose) == (holder.pid, "a test")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(10)
    assert lock.holder() is None
    assert lock.try_acquire()
    lock.release()


def test_two_objects_in_one_process_exclude_each_other(path: Path) -> None:
    """Not re-entrant: a thread that takes the lock twice has a bug, and is told so."""
    one, other = FileLock(str(path), purpose="one"), FileLock(str(path), purpose="other")
    assert one.try_acquire()
    assert not other.try_acquire()
    with pytest.raises(RuntimeError, match="already held"):
        one.try_acquire()
    one.release()
    one.release()
    assert other.try_acquire()
    other.release()


def test_the_lock_does_not_survive_an_exec(spawn: Spawn, path: Path) -> None:
    """What a holder starts cannot keep the lock: a guard outlives the start that made it."""
    code = f"""
import os, subprocess, sys
from devsup.locks import FileLock
lock = FileLock({str(path)!r}, purpose="start")
assert lock.try_acquire()
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
        lock = FileLock(str(path), purpose="mine")
        assert wait_until(lock.try_acquire, timeout=5)
        assert not identity.is_gone(who)
        lock.release()
    finally:
        identity.signal(who, signal.SIGKILL)


def test_the_filelock_library_and_ours_exclude_each_other(path: Path) -> None:
    """Both call `flock` on the same file, so other programs may take part."""
    ours, theirs = FileLock(str(path), purpose="ours"), LibraryLock(path, fallback_to_soft=False)
    assert ours.try_acquire()
    with pytest.raises(Timeout):
        theirs.acquire(timeout=0)
    ours.release()
    with theirs.acquire(timeout=0):
        assert not ours.try_acquire()
    assert ours.try_acquire()
    ours.release()


def test_a_lock_that_is_being_written_names_no_holder(path: Path) -> None:
    """Between the lock and the name there is a moment; it is told as nobody, not as nonsense."""
    path.write_text('{"by": ')
    assert FileLock(str(path), purpose="mine").holder() is None
    path.write_text("")
    assert FileLock(str(path), purpose="mine").holder() is None


def test_a_symlink_in_the_place_of_a_lock_is_refused(path: Path, temporary: Path) -> None:
    """Nobody makes us truncate another file by planting a link."""
    other = temporary / "precious"
    other.write_text("keep")
    path.symlink_to(other)
    with pytest.raises(OSError, match="symbolic link"):
        FileLock(str(path), purpose="mine").try_acquire()
    assert other.read_text() == "keep"
