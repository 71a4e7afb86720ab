"""
Log files on disk: reading a moment of one that a server goes on appending to, and removing the old ones.

A `LogFile` sees the bytes that were there when it was opened; later ones are for the next. Offsets are
logical: bytes written since the generation began. Safe beside writers, other readers and other prunes.
"""

from __future__ import annotations

import os
import re
import stat
import time

from devsup.errors import NotFound, RegistryUnusable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from devsup.errors import DevsupError

__all__ = ["QUIET", "LogFile", "base_offset", "prune"]

#: Seconds without a new byte after which a line without its newline is shown: a prompt never gets one.
QUIET = 1.0


def base_offset(path: str) -> int:  # noqa: ARG001 (nothing is cut off yet)
    """Return the logical offset of the file's first byte: the only place that maps one to the other."""
    return 0


class LogFile:
    """
    One moment of a log file, for a ``with`` block.

    ``base`` and ``end`` are the logical offsets of what can be read; ``stalled`` says that nothing was
    written for a while. Offsets hold only if `moved` is still false after the last read.

    :raises NotFound: there is no such file
    :raises RegistryUnusable: it is no regular file, or cannot be read
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.base = base_offset(path)
        try:
            # Not blocking: a fifo in its place would keep us here until somebody writes to it.
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(path, error) from error
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise RegistryUnusable(f"the log `{path}` is not a regular file", hint="move it out of the way")
        self.end = self.base + status.st_size
        self.stalled = time.time() - status.st_mtime >= QUIET

    def __enter__(self) -> LogFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @property
    def moved(self) -> bool:
        """Whether bytes were cut off in front since it was opened."""
        return base_offset(self.path) != self.base

    def read(self, offset: int, count: int) -> bytes:
        """Return up to ``count`` bytes from ``offset`` on; fewer at the end, or if the file has shrunk."""
        try:
            return os.pread(self._fd, max(0, min(count, self.end - offset)), offset - self.base)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def inside(self, offset: int) -> bool:
        """Tell whether ``offset`` is inside a segment of a line (see `devsup.logs.text`)."""
        return offset > self.base and self.read(offset - 1, 1) not in (b"\n", b"\r", b"")


def prune(folder: str, session: str, keep: int = 3, *, keep_paths: Collection[str] = ()) -> list[str]:
    """
    Delete the logs of all but the last ``keep`` generations of ``session``, and return their paths.

    Those in ``keep_paths`` stay. What cannot be deleted stays too: the next call tries again.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    pattern = re.compile(re.escape(session) + r"\.([0-9]+)\.log")
    found = sorted((int(match[1]), name) for name in names if (match := pattern.fullmatch(name)))
    kept = {os.path.realpath(path) for path in keep_paths}
    deleted = []
    for _, name in found[: max(0, len(found) - keep)]:
        path = os.path.join(folder, name)
        if os.path.realpath(path) in kept:
            continue
        try:
            os.unlink(path)
        except OSError:
            continue
        deleted.append(path)
    return deleted


def _unreadable(path: str, error: OSError) -> DevsupError:
    if isinstance(error, FileNotFoundError):
        return NotFound(
            f"the log `{path}` is gone", hint="a server that runs gets a new log when it is restarted"
        )
    return RegistryUnusable(
        f"the log `{path}` cannot be read: {error.strerror}", hint="check who owns it and its permissions"
    )
