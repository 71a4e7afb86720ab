"""
One exclusive lock on one file, for one process at a time; its holder writes down who it is.

Plain `flock`, the same call that the filelock library makes on the same file, so the two exclude each other
(a test shows it). Importing filelock takes three times a bare interpreter, and a hundred starts that find
nothing running would each pay that before they could see that another was first.

An object belongs to one thread. Two objects on one path exclude each other, also in one process.
"""

from __future__ import annotations

import fcntl
import json
import os

from devsup import identity
from devsup.clock import now_ms
from devsup.models import Identity
from devsup.records import Record

__all__ = ["FileLock", "Held"]


class Held(Record):
    """Who holds a lock, since when (ms since the epoch), and what for."""

    by: Identity
    since: int
    purpose: str


class FileLock:
    """Exclusive, not re-entrant, freed by the kernel when the process dies."""

    def __init__(self, path: str, *, purpose: str) -> None:
        self.path = path
        self.purpose = purpose
        self._fd: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free, without waiting."""
        if self._fd is not None:
            raise RuntimeError(f"`{self.path}` is already held by this object")
        # The descriptor does not survive an exec, so nothing that is started can keep the lock.
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        held = {"by": identity.me().asdict(), "since": now_ms(), "purpose": self.purpose}
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(held).encode(), 0)
        return True

    def release(self) -> None:
        """Give the lock back; without effect where it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def holder(self) -> Held | None:
        """Return who holds the lock as far as the file tells, or None; a holder proven dead is none."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fields = json.loads(os.read(fd, 4096))
            held = Held(Identity(**fields["by"]), fields["since"], fields["purpose"])
        except (ValueError, TypeError, KeyError):
            return None  # just taken, and not yet written
        finally:
            os.close(fd)
        return None if identity.is_gone(held.by) else held
