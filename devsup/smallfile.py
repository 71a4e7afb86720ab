"""
Read a file that somebody else may have put there: a regular one, at once, and no more of it than is sensible.

Any number of readers; a file that changes meanwhile is read as it was before, after, or in part.
"""

from __future__ import annotations

import os
import stat

__all__ = ["MAX_BYTES", "contents"]

#: No manifest and no configuration is this large; a file that is does not belong to an app.
MAX_BYTES = 8 << 20


def contents(path: str) -> bytes | None:
    """
    Return what a file contains, at most a byte more than `MAX_BYTES`; None for what is no regular file.

    :raises OSError: it cannot be read
    """
    # O_NONBLOCK: a fifo of this name must not hang every command. Plain os calls: half the price of `open`.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        parts = []
        size = min(status.st_size, MAX_BYTES) + 1
        while size > 0 and (part := os.read(fd, size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
    finally:
        os.close(fd)
