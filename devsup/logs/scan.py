"""
Whole lines of one log from a place on, with the place of each: for what looks at lines rather than pages.

Nothing is held between two blocks but the place, so a log of any size is read in little memory, and a bound
that overtakes the reader is told and read on behind. Readers hold nobody up.
"""

from __future__ import annotations

from devsup.logs.files import LogFile, Passed
from devsup.logs.text import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MOST", "Scan", "text_of"]

#: Bytes that one call looks through at most, the newest; only a log without a limit is longer.
MOST = 64 * 1024 * 1024
_BLOCK = 256 * 1024
#: A line without a newline that is longer is taken as it stands.
_LONGEST = 1024 * 1024


def text_of(raw: bytes) -> str:
    """Return a raw line, or several, without colours, carriage returns and control characters."""
    return clean(raw).rstrip("\n")


class Scan:
    """
    One pass over the log at ``path`` from ``offset`` on; from its oldest line on, where that is None.

    ``at`` is where it has come to: after the last whole line. ``truncated`` and ``reset`` mean what they do
    of a page. ``over`` has the rest of a log count as a line that will not go on.
    """

    def __init__(self, path: str, offset: int | None, *, over: bool = False) -> None:
        self.path = path
        self.truncated = self.reset = False
        self.stalled = False
        self._over = over
        with LogFile(path) as log:
            self.end = log.end
            if offset is not None and offset > log.end:
                self.reset, offset = True, None
            self.at = max(log.first if offset is None else offset, log.end - MOST)
            if self.at not in (0, offset):
                self._skip(log)

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Give whole lines, many at a time, with the place of the first, up to the end of this moment."""
        with LogFile(self.path) as log:
            self.stalled = log.stalled
            while self.at < log.end:
                try:
                    if self.at < log.first:
                        raise Passed
                    raw = log.read(self.at, _BLOCK)
                    while raw and b"\n" not in raw and len(raw) < _LONGEST and self.at + len(raw) < log.end:
                        raw += log.read(self.at + len(raw), _BLOCK)
                except Passed:
                    self.at = log.first
                    self._skip(log)
                    continue
                end = raw.rfind(b"\n") + 1
                if not end and (len(raw) >= _LONGEST or self._over):
                    end = len(raw)
                if not end:
                    return
                start, self.at = self.at, self.at + end
                yield start, raw[:end]

    def _skip(self, log: LogFile) -> None:
        """Go on at the next beginning of a line: what is here may be the middle of one."""
        self.truncated = True
        try:
            raw = log.read(self.at, _BLOCK)
        except Passed:
            return
        self.at += raw.find(b"\n") + 1
