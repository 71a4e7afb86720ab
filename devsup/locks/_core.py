"""
Many readers or one writer: who may enter, who waits, who is next.

A pure state machine: nothing here waits, reads a clock or knows of threads and tasks. A driver asks, is
told, and sees to it that one call of `enter`, `give_up` and `advance` happens at a time. Times are
monotonic seconds that the driver passes in.

`try_read` and `leave` need not even that: each is one atomic change of ``inside`` or ``writing``, and a
look at ``closed`` (`try_read` looks after its change, and so does `advance`, so that of a reader and a
writer who come at the same instant at least one sees the other). Who leaves while it is ``closed`` calls
`advance` afterwards.

Invariants, kept by `advance` and by nothing else:

1. A writer is in alone (beside it, for an instant, readers that find it closed and turn back).
2. Who waits, waits for somebody: with nobody in, nobody waits.
3. It is closed to new readers exactly while a writer is in or waits.
4. Writers enter in the order in which they asked. When one leaves, all readers enter that wait then. So no
   stream of writers keeps readers out, and a writer waits for one group of readers at most per writer
   before it.
"""

from __future__ import annotations

from devsup.locks._stats import Tally

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Core", "Ticket"]


class Ticket:
    """One request for a lock, by ``who``; heirs say whether it is to ``write``."""

    # No `__init__`, whose call would be a twentieth of a whole uncontended use.
    __slots__ = ("granted", "who")

    who: Any
    write: bool
    #: Whether it has been let in after it had to `enter`.
    granted: bool


class Core:
    """The state of one lock."""

    __slots__ = ("closed", "inside", "readers", "readers_first", "tally", "writers", "writing")

    def __init__(self) -> None:
        #: The readers that are in, and since when.
        self.inside: dict[Ticket, float] = {}
        #: The writer that is in, and since when.
        self.writing: tuple[Ticket, float] | None = None
        self.closed = False
        #: Who waits, in the order of asking, and since when.
        self.writers: dict[Ticket, float] = {}
        self.readers: dict[Ticket, float] = {}
        #: Whether it is the readers' turn: a writer was the last to leave.
        self.readers_first = False
        self.tally = Tally()

    def try_read(self, ticket: Ticket, now: float) -> bool:
        """Let a reader in where no writer is in or waits; False: it has to `enter`."""
        self.inside[ticket] = now
        if self.closed:
            del self.inside[ticket]
            return False
        return True

    def enter(self, ticket: Ticket, now: float) -> list[Ticket]:
        """Have ``ticket`` wait for its turn, which may be now; return who has been let in."""
        if ticket.write:
            self.closed = True
            self.writers[ticket] = now
        else:
            self.readers[ticket] = now
        return self.advance(now)

    def leave(self, ticket: Ticket, now: float) -> bool:
        """Take out who is in; True: call `advance`. Nothing happens where it is not in."""
        since = self.inside.pop(ticket, None)
        if since is None:
            if self.writing is None or self.writing[0] is not ticket:
                return False
            since = self.writing[1]
            self.readers_first = True
            self.writing = None
        self.tally.fresh.append(now - since)
        return self.closed

    def give_up(self, ticket: Ticket) -> bool:
        """Take out who waits, and tell whether it did; call `advance` afterwards."""
        return (self.writers if ticket.write else self.readers).pop(ticket, None) is not None

    def advance(self, now: float) -> list[Ticket]:
        """Let in whoever may enter now, and return them."""
        if self.writing is not None:
            return []
        if self.writers and self.inside:
            return []
        if self.readers and (self.readers_first or not self.writers):
            entering = self._let_in(self.readers, [*self.readers], now)
        elif self.writers:
            entering = self._let_in(self.writers, [next(iter(self.writers))], now)
            self.writing = (entering[0], now)
        else:
            entering = []
        self.readers_first = False
        self.closed = bool(self.writing or self.writers)
        return entering

    def _let_in(self, queue: dict[Ticket, float], entering: list[Ticket], now: float) -> list[Ticket]:
        for ticket in entering:
            self.tally.waited(now - queue.pop(ticket))
            if not ticket.write:
                self.inside[ticket] = now
            ticket.granted = True
        return entering

    def since(self, ticket: Ticket) -> float | None:
        """Return when ``ticket`` came in; None where it is not in."""
        writing = self.writing
        if writing is not None and writing[0] is ticket:
            return writing[1]
        return self.inside.get(ticket)

    def holders(self) -> list[tuple[Ticket, float]]:
        """Return who is in, and since when, the longest first."""
        writing = self.writing
        return [writing] if writing is not None else [*self.inside.copy().items()]

    def waiting(self) -> list[tuple[Ticket, float]]:
        """Return who waits, and since when, the longest first."""
        both = [*self.writers.copy().items(), *self.readers.copy().items()]
        return sorted(both, key=lambda one: one[1])
