"""
When which part of a log was written, for servers that print no times: one line per look of the guard.

A line says that at a moment the log had so many bytes. What was written since a moment begins at the last
line before it, or at most one look earlier: a second, while the log grows. One writer, the guard; readers
need no lock, since lines are appended whole and a shortened file comes by rename.
"""

from __future__ import annotations

import os

__all__ = ["note", "offset_at"]

#: Bytes of such a file; it is halved when it has more. Some thousand looks.
_MOST = 64 * 1024


def note(path: str, size: int, now: float) -> None:
    """
    Remember that at ``now`` (seconds since the epoch) the log ``path`` has had ``size`` bytes.

    :raises OSError: that cannot be written
    """
    name = f"{path}.times"
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, f"{now:.2f} {size}\n".encode())
        if os.fstat(fd).st_size > _MOST:
            _halve(name, os.pread(fd, 2 * _MOST, 0))
    finally:
        os.close(fd)


def _halve(name: str, raw: bytes) -> None:
    half = raw[raw.index(b"\n", len(raw) // 2) + 1 :]
    fd = os.open(f"{name}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, half)
    finally:
        os.close(fd)
    os.rename(f"{name}.new", name)


def offset_at(path: str, when: float) -> int | None:
    """
    Return where in the log ``path`` begins what was written after ``when``; None where nobody noted times.

    0 where ``when`` is before all that was noted.
    """
    try:
        with open(f"{path}.times", "rb") as file:
            lines = file.read(4 * _MOST).split(b"\n")
    except OSError:
        return None
    found = 0
    for line in lines[:-1]:
        try:
            time, size = line.split()
            if float(time) > when:
                return found
            found = int(size)
        except ValueError:
            continue
    return found
