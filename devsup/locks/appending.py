"""
Add a whole line to a file to which many processes append.

Each line is one `write` at the file's end, made with the file locked: so a line that the disk had room for
only in part is taken back, and the half of one whose writer was killed is ended before the next begins.
Every line that was reported as written is in the file once and whole. Safe from any thread, task and
process of this machine, also where others rename or remove the file to begin a new one.
"""

from __future__ import annotations

import fcntl
import os
import time

from devsup.errors import LockTimeout, UsageError
from devsup.locks import _owner
from devsup.locks._process import pauses

__all__ = ["APPEND_TIMEOUT", "aappend", "append"]

#: Seconds that a line waits for others, each of which takes microseconds.
APPEND_TIMEOUT = 10.0


def append(path: str | os.PathLike[str], line: str | bytes, *, timeout: float = APPEND_TIMEOUT) -> None:
    """
    Add ``line`` and a newline to the end of the file ``path``, which is made (0600) where it is missing.

    :raises UsageError: the line has a newline in it, or an event loop runs in this thread: see `aappend`
    :raises LockTimeout: other writers kept the file for ``timeout`` seconds
    :raises OSError: it cannot be written; then nothing of the line is there
    """
    _owner.refuse_in_a_loop("append()", "await aappend()")
    data = _whole(line)
    for pause in pauses(timeout):
        if pause:
            time.sleep(pause)
        if _try(path, data):
            return
    raise _timed_out(path, timeout)


async def aappend(
    path: str | os.PathLike[str],
    line: str | bytes,
    *,
    timeout: float = APPEND_TIMEOUT,  # noqa: ASYNC109 - as everywhere in this library
) -> None:
    """Add ``line`` as `append` does; others run while it waits for other writers."""
    from asyncio import sleep

    data = _whole(line)
    for pause in pauses(timeout):
        if pause:
            await sleep(pause)
        if _try(path, data):
            return
    raise _timed_out(path, timeout)


def _whole(line: str | bytes) -> bytes:
    data = line.encode("utf-8", "surrogateescape") if isinstance(line, str) else bytes(line)
    if b"\n" in data:
        raise UsageError("a line has no newline in it", hint="append each line by itself")
    return data + b"\n"


def _try(path: str | os.PathLike[str], data: bytes) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_there(fd, path):
            return False  # somebody has put another one in its place: the line belongs into that
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            data = b"\n" + data  # a writer was killed amid its line
        written = 0
        try:
            while written < len(data):
                written += os.write(fd, data[written:])
        except BaseException:
            os.ftruncate(fd, size)
            raise
        finally:
            # Not by closing alone: a child that is forked meanwhile has the descriptor, too.
            fcntl.flock(fd, fcntl.LOCK_UN)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _is_there(fd: int, path: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _timed_out(path: str | os.PathLike[str], timeout: float) -> LockTimeout:
    return LockTimeout(
        f"`{os.fspath(path)}` was kept by other writers for {timeout:.1f} s",
        hint="try again: a line takes microseconds, or its writer is stopped (Ctrl-Z)",
        details={"holder": None, "age_ms": None},
    )
