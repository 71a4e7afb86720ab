"""
The file lock of the registry: shared by every open, exclusive for what replaces the file.

A plain `flock` on a file that is never unlinked; the kernel frees it when its holder dies. The file also says
which database it speaks for (its inode) and the highest generation given out, so that a registry that was
lost with everything in it still never gives a generation twice.

One object belongs to one thread. Two objects of one process exclude each other as two processes do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from devsup.errors import LockTimeout, RegistryUnusable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from devsup.paths import Home

__all__ = ["PATIENCE", "FileLock"]

#: Seconds that anybody waits for a registry. A transaction takes microseconds and a rebuild some 50 ms; the
#: longest wait seen with 40 processes on two cores was below one second.
PATIENCE = 5.0
#: Fixed width: a generation is written in place by whoever gives it out, while others read the inode.
_CONTENT = b"devsup registry\ninode      %020d\ngeneration %020d\n"
_INODE = slice(27, 47)
_GENERATION = slice(59, 79)
_LENGTH = 80


class FileLock:
    """`registry.lock`, open; ``read_only`` where its folder is, and then perhaps without a lock at all."""

    __slots__ = ("_descriptor", "_here", "_home", "patience", "read_only", "stamp")

    def __init__(self, home: Home, patience: float = PATIENCE) -> None:
        self._home = home
        #: Seconds to wait for it, and then as long for a turn in the database.
        self.patience = patience
        self.read_only = False
        #: The inode of the database that this file speaks for; None where there never was one.
        self.stamp: int | None = None
        self._here: os.stat_result | None = None
        self._descriptor = self._open()

    def _open(self) -> int:
        path, flags = self._home.registry_lock, os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise self._refused(error) from error
        self.read_only = True
        try:
            return os.open(path, os.O_RDONLY | flags)
        except FileNotFoundError:
            return -1
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> RegistryUnusable:
        if error.errno == errno.ENOSPC:
            return RegistryUnusable(
                f"no space is left for the registry in `{self._home.root}`",
                hint="free some space on that disk",
            )
        return RegistryUnusable(
            f"the registry's lock `{self._home.registry_lock}` cannot be used: {_text(error)}",
            hint="move it away, or set `DEVSUP_HOME` to a folder of your own",
        )

    def share(self) -> None:
        """Keep everybody from replacing the registry."""
        self._take(fcntl.LOCK_SH)

    def exclude(self, *, over: Callable[[], bool] = lambda: False) -> bool:
        """
        Keep everybody out; what was seen under the shared lock may have changed when this returns.

        The shared lock is let go first: two that both held on to it would wait for each other. Returns False,
        with no lock at all, where ``over`` tells meanwhile that another has done what it is for: a hundred
        that found no registry would else wait for each other's turn at what one of them does.
        """
        self.release()
        return self._take(fcntl.LOCK_EX, over)

    def release(self) -> None:
        """Let others have the lock; it can be taken again."""
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _take(self, operation: int, over: Callable[[], bool] = lambda: False) -> bool:
        if self._descriptor < 0:
            return True
        pause, deadline = 0.0005, 0.0
        while True:
            try:
                fcntl.flock(self._descriptor, operation | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if over():
                    return False
                now = time.monotonic()
                deadline = deadline or now + self.patience
                if now > deadline:
                    raise self._timed_out() from None
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                raise RegistryUnusable(
                    f"the filesystem of `{self._home.root}` has no file locks: {_text(error)}",
                    hint="set `DEVSUP_HOME` to a folder on a local disk",
                ) from error
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        self._read()
        return True

    def _read(self) -> None:
        content = os.pread(self._descriptor, _LENGTH, 0)
        try:
            self.stamp = int(content[_INODE]) if len(content) == _LENGTH else None
        except ValueError:
            self.stamp = None

    def is_in_place(self) -> bool:
        """Tell whether the path still leads to this file: others lock what they find there."""
        try:
            there = os.stat(self._home.registry_lock)
            self._here = self._here or os.fstat(self._descriptor)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (self._here.st_dev, self._here.st_ino)

    def generation(self) -> int:
        """Return the highest generation this file knows of."""
        try:
            return int(os.pread(self._descriptor, _LENGTH, 0)[_GENERATION])
        except ValueError:
            return 0

    def write_stamp(self, inode: int, generation: int) -> None:
        """
        Say that the registry is now the file `inode`; call it with the lock held exclusively.

        The highest generation is that of the file or `generation`: it never goes down.
        """
        os.pwrite(self._descriptor, _CONTENT % (inode, max(self.generation(), generation)), 0)
        self.stamp = inode

    def write_generation(self, generation: int) -> None:
        """Note that `generation` is given out; call it in the transaction that does so."""
        os.pwrite(self._descriptor, b"%020d" % generation, _GENERATION.start)

    def _timed_out(self) -> LockTimeout:
        holders = _holders(self._descriptor)
        who = f" by process {holders[0]}" if holders else ""
        return LockTimeout(
            f"the registry `{self._home.registry}` was locked{who} for more than {self.patience:.1g} s",
            hint="try again: whoever holds it needs milliseconds, or is stopped (Ctrl-Z)",
            details={"holder": {"pid": holders[0]} if holders else None, "age_ms": int(self.patience * 1000)},
        )

    def close(self) -> None:
        """Let go of the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _holders(descriptor: int) -> list[int]:
    """Return who holds a `flock` on this file, as far as the kernel tells."""
    found = os.fstat(descriptor)
    where = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as table:
            lines = [line.split() for line in table]
    except OSError:
        return []
    return [int(line[4]) for line in lines if line[1] == "FLOCK" and line[5] == where]


def _text(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
