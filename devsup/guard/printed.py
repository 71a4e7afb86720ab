"""
Has the server printed the line that it is ready by?

Each look reads what came since the last one, so that a server that prints much is not read again and again.
For the guard's one thread.
"""

from __future__ import annotations

import os
import re

from devsup.readiness import without_colours

__all__ = ["Printed"]

#: Bytes that one look reads at most; what is left is read by the next.
_CHUNK = 262_144
#: Bytes of the last look that are looked at again: a line may come in two parts.
_OVERLAP = 4096


class Printed:
    """Looks for ``pattern`` in the log at ``path``; colours are taken out before."""

    def __init__(self, path: str, pattern: str) -> None:
        self._path = path
        try:
            self._pattern = re.compile(pattern.encode(), re.MULTILINE)
        except re.error:
            # A project file is checked; whatever comes in another way is meant as it stands.
            self._pattern = re.compile(re.escape(pattern.encode()))
        self._offset = 0
        self._rest = b""
        self.seen = False

    def look(self) -> bool:
        """Read on; tell whether it has been printed by now."""
        if self.seen:
            return True
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if os.fstat(fd).st_size < self._offset:
                self._offset, self._rest = 0, b""  # its beginning was cut off
            new = os.pread(fd, _CHUNK, self._offset)
        except OSError:
            return False
        finally:
            os.close(fd)
        self._offset += len(new)
        text = without_colours(self._rest + new)
        self._rest = text[-_OVERLAP:]
        self.seen = self._pattern.search(text) is not None
        return self.seen
