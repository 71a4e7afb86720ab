"""Shared append: every line once and whole, whoever writes, dies or runs out of disk meanwhile."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from devsup.errors import LockTimeout, UsageError
from devsup.locks import aappend, append
from tests.support import Spawn, hear, say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WRITER = """
import sys
from devsup.locks import append
path, name, count = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(count)):
    append(path, f"{name} {number} " + "x" * (number * 97 % 9000), timeout=100)
"""


def numbers_in(path: Path) -> Counter[str]:
    """Return how often each line, known by its first two words, is in the file; each must be whole."""
    lines = path.read_text().split("\n")
    assert lines.pop() == ""
    for line in lines:
        _, number, rest = line.split(" ")
        assert rest == "x" * (int(number) * 97 % 9000)
    return Counter(" ".join(line.split(" ")[:2]) for line in lines)


def test_a_hundred_writers_lose_and_tear_nothing(spawn: Spawn, temporary: Path) -> None:
    """Four processes, and in this one 48 threads and 48 tasks."""
    path = temporary / "shared.log"
    writers = [spawn(WRITER, path, f"process{number}", 50) for number in range(4)]
    assert [hear(one) for one in writers] == ["ready\n"] * 4
    for one in writers:
        say(one)

    def line(name: str, number: int) -> str:
        return f"{name} {number} " + "x" * (number * 97 % 9000)

    def thread(name: str) -> None:
        for number in range(5):
            append(path, line(name, number), timeout=120)

    async def tasks() -> None:
        async def task(name: str) -> None:
            for number in range(5):
                await aappend(path, line(name, number), timeout=120)

        await asyncio.gather(*(task(f"task{number}") for number in range(48)))

    threads = [threading.Thread(target=thread, args=(f"thread{number}",)) for number in range(48)]
    threads.append(threading.Thread(target=lambda: asyncio.run(tasks())))
    for worker in threads:
        worker.start()
    for worker in threads:
        worker.join(50)
    assert [one.wait(50) for one in writers] == [0] * 4
    expected = {f"process{one} {number}" for one in range(4) for number in range(50)}
    expected |= {
        f"{kind}{one} {number}" for kind in ("thread", "task") for one in range(48) for number in range(5)
    }
    assert numbers_in(path) == Counter(expected)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_whose_writer_was_killed_is_ended(temporary: Path) -> None:
    path = temporary / "log"
    path.write_text("whole\nhal")
    append(path, "next")
    append(path, b"\xff bytes")
    assert path.read_bytes() == b"whole\nhal\nnext\n\xff bytes\n"


def test_a_line_for_which_there_is_no_room_is_taken_back(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = temporary / "log", os.write
    append(path, "first")
    room = [3]

    def write(fd: int, data: bytes) -> int:
        if not room:
            raise OSError(28, "no space left on device")
        return real(fd, data[: room.pop()])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="no space"):
        append(path, "second")
    monkeypatch.setattr(os, "write", real)
    append(path, "third")
    assert path.read_text() == "first\nthird\n"


def test_a_line_belongs_into_the_file_that_is_there(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forced: opened, it is moved away or removed before it is locked: the line is not to go with it."""
    path, take = temporary / "shared.log", fcntl.flock
    changes: list[Callable[[], object]] = []

    def flock(fd: int, operation: int) -> None:
        while changes:
            changes.pop()()
        take(fd, operation)

    monkeypatch.setattr("devsup.locks.appending.fcntl.flock", flock)
    for change in (lambda: path.rename(temporary / "old.log"), path.unlink):
        append(path, "before")
        changes.append(change)
        append(path, "after")
        assert path.read_text() == "after\n"
        path.unlink()


def test_what_cannot_be_appended_is_refused(temporary: Path) -> None:
    path = temporary / "log"
    with pytest.raises(UsageError, match="newline"):
        append(path, "two\nlines")
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockTimeout, match="kept by other writers"):
            append(path, "late", timeout=0.05)
        with pytest.raises(LockTimeout):
            asyncio.run(aappend(path, "late", timeout=0.05))

    async def main() -> None:
        with pytest.raises(UsageError) as caught:
            append(path, "x")
        assert "await aappend()" in str(caught.value.hint)

    asyncio.run(main())
    assert path.read_text() == ""
