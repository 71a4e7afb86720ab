"""
How long a server lives that nobody stops: its time, its use, and the process that it was started for.

Each of these costs a guard its sleep only where it is asked for. For the guard's one thread.
"""

from __future__ import annotations

import time

from devsup import identity, system
from devsup.clock import now_ms
from devsup.guard.table import Happening
from devsup.guard.use import Use
from devsup.models import Identity
from devsup.shutdown import PATIENCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.guard.book import Book
    from devsup.guard.charge import Charge
    from devsup.guard.health import Health
    from devsup.guard.timers import Timers

__all__ = ["ASKED", "IDLE", "IN_FLIGHT", "LOST", "PARENT", "TTL", "Lifetimes"]

#: The reasons of these ends, and the timers' names.
TTL, IDLE, PARENT = "ttl", "idle", "parent_gone"
#: Those of a fleet's: another host has asked for it; its lease is lost.
ASKED, LOST = "fleet", "lease_lost"
#: Seconds between two looks at a parent of whose end nothing tells.
_LOOK_EVERY = 1.0
#: A use is written down at most so often, in seconds: for people, and for the guard that may come after.
_NOTE_EVERY = 60.0
#: The timer of an end that waits for operations, and seconds between two looks at these.
IN_FLIGHT = "in flight"
_LOOK_AGAIN = 0.5


class Lifetimes:
    """The lifetimes of one server, over all its generations."""

    def __init__(self, charge: Charge, book: Book, health: Health, timers: Timers) -> None:
        self._charge = charge
        self._book = book
        self._health = health
        self._timers = timers
        policy = charge.job.policy
        self._use = Use(float(policy["idle_timeout"])) if policy.get("idle_timeout") else None
        self._parent = Identity(**policy["parent"]) if policy.get("parent") else None
        self._noted = 0.0
        #: Why it is about to end, and until when that waits for operations.
        self.ending: str | None = None
        self._until = 0.0
        #: What it did not wait for any longer.
        self.amid: str | None = None

    def begin(self) -> None:
        """Count from the server's first start; a guard that took over knows that from the job."""
        now, job = time.monotonic(), self._charge.job
        if job.policy.get("ttl"):
            age = max(0.0, (now_ms() - job.started_at) / 1e3) if self._charge.adopt else 0.0
            self._timers.arm(TTL, now + float(job.policy["ttl"]) - age)
        if self._parent is not None:
            try:
                self._charge.handles.watch("parent", self._parent)
            except OSError:
                pass  # hidden from us: looked at instead, and what we may not know counts as alive
            if self._charge.handles.get("parent") is None:
                self._timers.arm(PARENT, now)

    def parent_is_gone(self) -> bool:
        """Tell, once, whether the process has ended for which the server was started."""
        handle = self._charge.handles.get("parent")
        if self._parent is None or handle is None or not system.has_exited(handle):
            return False
        self._charge.handles.forget("parent")
        return True

    def looks_for_parent(self) -> bool:
        """Tell whether it has ended, where no descriptor tells; look again later if not."""
        gone = self._parent is not None and identity.is_gone(self._parent)
        if not gone:
            self._timers.arm(PARENT, time.monotonic() + _LOOK_EVERY)
        return gone

    def has_to_wait(self, reason: str) -> bool:
        """Tell whether it is not yet to end for ``reason``: operations get some time, as with any stop."""
        now = time.monotonic()
        if self.ending is None:
            self.ending, self._until = reason, now + PATIENCE
        elif self.ending == ASKED:
            self.ending = reason  # who asked may take that back; what else there is stands
        # Whatever comes of this look, there is another one.
        self._timers.arm(IN_FLIGHT, min(now + _LOOK_AGAIN, max(now, self._until)))
        if now >= self._until:
            self.amid = self._book.in_flight()
        elif self._book.in_flight() is None and self._book.begin_end(self.ending):
            self._charge.enter(Happening.STOP)
        else:
            return True
        self._timers.disarm(IN_FLIGHT)
        return False

    def spare(self) -> None:
        """Do not end it after all: nobody waits for that any more."""
        self.ending = None
        self._timers.disarm(IN_FLIGHT)

    def serves(self) -> None:
        """Count the time for which nobody uses it from now on."""
        if self._use is not None:
            now = time.monotonic()
            self._use.begin(now, self._charge.ports())
            self._timers.arm(IDLE, self._use.next_look(now))

    def is_unused(self) -> bool:
        """
        Look whether somebody uses it; True once it was unused for too long and is recorded as stopping.

        The connections are looked at first, then the registry decides in one statement: a caller who is told
        that the server runs has noted that there before.
        """
        use = self._use
        if use is None:
            return False
        now = time.monotonic()
        # Whatever comes of this look, there is another one.
        self._timers.arm(IDLE, now + _LOOK_EVERY)
        if use.look(now, self._charge.ports(), self._health.own_ports(now)):
            self._note(now)
        if use.is_over(now) and self._book.in_flight():
            use.note(now)  # a use for as long as it lasts
        if use.is_over(now):
            if self._book.begin_end(IDLE, unused_since=now_ms() - round(use.timeout * 1e3)):
                self._timers.disarm(IDLE)
                return True
            asked = self._book.last_used()
            if asked is not None:
                use.note(now - max(0.0, (now_ms() - asked) / 1e3))
        self._timers.arm(IDLE, use.next_look(now))
        return False

    def _note(self, now: float) -> None:
        if now - self._noted >= _NOTE_EVERY:
            self._noted = now
            self._book.write(last_used_at=now_ms())
