"""
When a guard looks at the size of its server's log: soon after it grows, never while nothing comes.

A quiet log costs nothing: the kernel tells of the next write to it (once, however many follow), or, where it
does not, a timer doubles from one second to sixty. While it grows, the looks come so often that it gets half
of what is left of the limit in between at most. One thread; the cutting itself is `devsup.bounds`'s.
"""

from __future__ import annotations

import os
import time

from devsup import bounds, logtimes
from devsup.errors import DevsupError
from devsup.system.files import Growth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Bounding"]

#: Seconds between two looks at a log that grows; they double up to the second number while it does not.
_FIRST, _LONGEST = 1.0, 60.0
#: Seconds to the look after a first write: nothing is known yet of how much will come.
_SOON = 0.1
#: Looks are never closer than this: a server that writes as fast as it can fills 20 MB in some ten of them.
_CLOSEST = 0.02


class Bounding:
    """
    Keeps one log within the limit that policy or environment name; ``due`` is when it looks next.

    One that is not ``ours`` (Next.js keeps its own, and an adopted server may have no other) is left alone.
    """

    def __init__(
        self,
        path: str,
        environ: Mapping[str, str] = os.environ,
        *,
        ours: bool = True,
        policy: Mapping[str, object] | None = None,
    ) -> None:
        self.path = path
        self.limit = _limit(environ, policy) if ours else None
        self.due: float | None = None if self.limit is None else time.monotonic() + _FIRST
        self._growth = Growth() if self.limit is not None else None
        self._pause = _FIRST
        self._size = 0
        self._looked_at = time.monotonic()
        self._noted_at = 0.0

    @property
    def fd(self) -> int | None:
        """The descriptor that is ready when a quiet log grows; None where a timer does it."""
        return self._growth.fd if self._growth is not None and self.due is None else None

    def advance(self, ready: set[int]) -> None:
        """Do what is due; ``ready`` are the descriptors that are."""
        now = time.monotonic()
        if self.fd in ready:
            self._note(self._size)  # what comes now begins here
            self.due = now + _SOON
        elif self.due is not None and now >= self.due:
            self.look(now)

    def look(self, now: float) -> None:
        """Cut where that is needed, and say when to look again."""
        if self.limit is None:
            return
        size = self._size
        try:
            size = os.stat(self.path).st_size
            if bounds.bound(self.path, self.limit):
                self._size, size = 0, os.stat(self.path).st_size  # a new beginning: it has grown
        except (DevsupError, OSError):  # a full disk, say: the server writes on, and so do we
            self._pause = min(max(self._pause, _FIRST) * 2, _LONGEST)
            self.due = now + self._pause
            return
        came, passed = abs(size - self._size), max(now - self._looked_at, _CLOSEST)
        self._size, self._looked_at = size, now
        if came:
            if now - self._noted_at >= _FIRST / 2:
                self._noted_at = now
                self._note(size)
            room = self.limit / 8
            self._pause = max(_CLOSEST, min(_FIRST, room * passed / came))
            self.due = now + self._pause
        elif self._growth is not None and self._growth.arm(self.path):
            self.due = None if self._is(size) else now + _SOON
        else:
            self._pause = min(max(self._pause, _FIRST / 2) * 2, _LONGEST)
            self.due = now + self._pause

    def _note(self, size: int) -> None:
        """Say beside the log when it had which size: `devsup logs --since` reads it."""
        try:
            logtimes.note(self.path, bounds.marks_of(self.path).base + size, time.time())
        except (DevsupError, OSError):
            pass  # a full disk: nobody will be able to ask for this moment

    def _is(self, size: int) -> bool:
        # Once more, now that the kernel would tell: it may have grown between the look and the arming.
        try:
            return os.stat(self.path).st_size == size
        except OSError:
            return False

    def rest(self) -> None:
        """Expect the end: `finish` is quick a moment after this. Looks go on where there is none."""
        if self._growth is not None:
            self._growth.disarm()
            self.due = time.monotonic() + _FIRST if self.due is None else self.due

    def finish(self) -> None:
        """Leave the log of a server that has ended within its limit."""
        if self.limit is not None:
            try:
                bounds.bound(self.path, self.limit)
            except (DevsupError, OSError):
                pass  # the next start of the session tries again
        self.close()

    def close(self) -> None:
        """Look no more."""
        self.due = None
        if self._growth is not None:
            self._growth.close()
            self._growth = None


def _limit(environ: Mapping[str, str], policy: Mapping[str, object] | None) -> int | None:
    try:
        return bounds.limit_of(environ, policy)
    except DevsupError:  # `start` refuses it; a guard that takes over has what its caller had
        return bounds.DEFAULT_LIMIT
