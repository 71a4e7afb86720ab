"""
Log files on disk: reading a moment of one that a server goes on appending to, and removing the old ones.

A `LogFile` sees the bytes that were there when it was opened; later ones are for the next. Offsets are
logical: bytes written since the generation began, whatever `devsup.bounds` has cut off in front. Safe beside
writers, other readers, cuts and other prunes.
"""

from __future__ import annotations

import os
import re
import stat
import time

from devsup import bounds
from devsup.errors import NotFound, RegistryUnusable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from devsup.bounds import Marks
    from devsup.errors import DevsupError

__all__ = ["QUIET", "LogFile", "Passed", "prune", "remove", "surplus"]

#: Seconds without a new byte after which a line without its newline is shown: a prompt never gets one.
QUIET = 1.0


class Passed(Exception):
    """What was to be read has been cut off since the log was opened."""


class LogFile:
    """
    One moment of a log file, for a ``with`` block.

    ``first`` and ``end`` are the logical offsets of what can be read; ``stalled`` says that nothing was
    written for a while. What `read` returns was there, at that offset; `first` grows while others cut.

    :raises NotFound: there is no such file
    :raises RegistryUnusable: it is no regular file, or cannot be read
    :raises Busy: a cut takes too long
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._before: int | None = None
        self.first = self.end = 0
        try:
            # Not blocking: a fifo in its place would keep us here until somebody writes to it.
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            self._look(bounds.settle(path))
        except BaseException:
            os.close(self._fd)
            raise

    def _look(self, marks: Marks) -> None:
        while True:
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                raise RegistryUnusable(
                    f"the log `{self.path}` is not a regular file", hint="move it out of the way"
                )
            now = bounds.settle(self.path)
            if now == marks:
                break
            marks = now  # the size is that of another moment
        self.end = marks.base + status.st_size
        self.stalled = time.time() - status.st_mtime >= QUIET
        self._arrange(marks)
        if self.first > self.end:  # emptied by hand since
            self.first = marks.base

    def _arrange(self, marks: Marks) -> None:
        self._marks = marks
        self._forget_before()
        self.first = marks.first
        if self.first < marks.base:
            try:
                self._before = os.open(bounds.before(self.path), os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self.first = marks.base

    def _forget_before(self) -> None:
        if self._before is not None:
            os.close(self._before)
            self._before = None

    def __enter__(self) -> LogFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget_before()
        os.close(self._fd)

    def read(self, offset: int, count: int) -> bytes:
        """
        Return up to ``count`` bytes from ``offset`` on; fewer at the end, or if the file has shrunk.

        :raises Passed: they are not there any more
        """
        count = max(0, min(count, self.end - offset))
        while True:
            try:
                raw = self._bytes(offset, count)
            except OSError as error:
                raise _unreadable(self.path, error) from error
            # After the read: what is cut off meanwhile may have been read as what follows it, or as NULs.
            marks = bounds.settle(self.path)
            if marks == self._marks:
                return raw
            self._arrange(marks)
            if offset < self.first and count:
                raise Passed

    def _bytes(self, offset: int, count: int) -> bytes:
        base = self._marks.base
        if offset >= base:
            return os.pread(self._fd, count, offset - base)
        if self._before is None:
            return b""
        raw = os.pread(self._before, min(count, base - offset), offset - self._marks.first)
        return raw + os.pread(self._fd, count - len(raw), 0) if len(raw) == base - offset else raw

    def inside(self, offset: int) -> bool:
        """Tell whether ``offset`` is inside a segment of a line (see `devsup.logs.text`)."""
        return offset > self.first and self.read(offset - 1, 1) not in (b"\n", b"\r", b"")


def prune(folder: str, session: str, keep: int = 3, *, keep_paths: Collection[str] = ()) -> list[str]:
    """
    Delete the logs of all but the last ``keep`` generations of ``session``, and return their paths.

    Those in ``keep_paths`` stay. What cannot be deleted stays too: the next call tries again.
    """
    found = surplus(folder, keep, keep_paths=keep_paths, session=session)
    return [path for path in found if remove(path)]


def remove(path: str) -> bool:
    """Delete a log and what stands beside it; False where it cannot be deleted."""
    try:
        os.unlink(path)
    except OSError:
        return False
    for beside in bounds.companions(path):
        try:
            os.unlink(beside)
        except OSError:
            continue
    return True


def surplus(
    folder: str, keep: int, *, keep_paths: Collection[str] = (), session: str | None = None
) -> list[str]:
    """Return the logs of all but the last ``keep`` generations of ``session``, or of every one in there."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    pattern = re.compile((re.escape(session) if session is not None else "(?:.+)") + r"\.([0-9]+)\.log")
    found: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        match = pattern.fullmatch(name)
        if match is not None:
            found.setdefault(name[: match.start(1)], []).append((int(match[1]), name))
    kept = {os.path.realpath(path) for path in keep_paths}
    paths = [
        os.path.join(folder, name)
        for own in found.values()
        for _, name in sorted(own)[: max(0, len(own) - keep)]
    ]
    return [path for path in paths if os.path.realpath(path) not in kept]


def _unreadable(path: str, error: OSError) -> DevsupError:
    if isinstance(error, FileNotFoundError):
        return NotFound(
            f"the log `{path}` is gone", hint="a server that runs gets a new log when it is restarted"
        )
    return RegistryUnusable(
        f"the log `{path}` cannot be read: {error.strerror}", hint="check who owns it and its permissions"
    )
