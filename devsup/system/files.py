"""
What the kernel does to a file that somebody appends to: take its front away, tell that it has grown.

Linux only; elsewhere each answer is no. Whether a file's front can go is its filesystem's business, so it is
found out file by file. Loads ctypes when it is first used. Safe from any thread.
"""

from __future__ import annotations

import os
import sys

from devsup.system import CAPABILITIES

__all__ = ["Growth", "collapse_front", "front_hole", "punch_front"]

_LINUX = sys.platform == "linux"
_KEEP_SIZE, _PUNCH_HOLE, _COLLAPSE_RANGE = 0x01, 0x02, 0x08
_IN_MODIFY, _IN_ONESHOT = 0x2, 0x80000000


def collapse_front(fd: int, length: int) -> bool:
    """
    Remove the first ``length`` bytes of a file, so that the rest begins it; False where that cannot be.

    ``length`` is a multiple of the filesystem's block and less than the file. One step: nobody sees half.
    """
    return CAPABILITIES.collapse_range and _fallocate(fd, _COLLAPSE_RANGE, length)


def punch_front(fd: int, length: int) -> bool:
    """Give the first ``length`` bytes back; they read as NULs, and the rest stays where it is."""
    return CAPABILITIES.punch_hole and _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, length)


def front_hole(fd: int) -> int:
    """Return how many bytes of hole a file begins with; 0 also where its filesystem does not tell."""
    try:
        return os.lseek(fd, 0, os.SEEK_DATA) if _LINUX else 0
    except OSError:  # nothing but a hole
        return os.fstat(fd).st_size


def _fallocate(fd: int, mode: int, length: int) -> bool:
    if not _LINUX:
        return False
    import ctypes

    call = ctypes.CDLL(None).fallocate64 if sys.maxsize < 1 << 32 else ctypes.CDLL(None).fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(call(fd, mode, 0, length) == 0)


class Growth:
    """
    A descriptor that is ready once a file has been written to since it was last armed.

    It tells of one write only: a file that is written to a thousand times a second wakes nobody up a thousand
    times. ``fd`` is None where the kernel does not tell.
    """

    def __init__(self) -> None:
        self.fd: int | None = None
        self._watch = -1
        if _LINUX and CAPABILITIES.inotify:
            import ctypes

            fd = ctypes.CDLL(None).inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            self.fd = fd if fd >= 0 else None  # the user's instances are used up

    def arm(self, path: str) -> bool:
        """Have the next write to ``path`` make the descriptor ready; False where nothing will tell of it."""
        if self.fd is None:
            return False
        import ctypes

        self.drain()
        add = ctypes.CDLL(None).inotify_add_watch
        self._watch = add(self.fd, os.fsencode(path), ctypes.c_uint32(_IN_MODIFY | _IN_ONESHOT))
        return self._watch >= 0

    def disarm(self) -> None:
        """
        Be told no more for now.

        The kernel takes some 10 ms to forget a watch, and who closes before then waits for it.
        """
        if self.fd is not None and self._watch >= 0:
            import ctypes

            ctypes.CDLL(None).inotify_rm_watch(self.fd, self._watch)
            self._watch = -1

    def drain(self) -> None:
        """Make the descriptor wait again."""
        try:
            while self.fd is not None and os.read(self.fd, 4096):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Be told no more."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
