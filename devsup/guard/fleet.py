"""
A guard's membership in a fleet: its server on the list, its lease renewed, its mail read.

One connection to Redis, part of the guard's loop. It never waits but at the very end, and then for a moment;
what Redis does or does not do changes nothing for the server, but for an exclusive one as its lease says. A
third of the membership's time is the beat: one burst of commands says that the server is there and renews its
lease. In between there is something to say only when the server changes, and to do when somebody writes.
A connection that fails, is refused or silent is made anew after a pause that doubles, up to the beat at most.

For the guard's one thread.
"""

from __future__ import annotations

import os
import select
import time

from devsup import identity
from devsup.clock import boottime, now_ms
from devsup.errors import DevsupError
from devsup.fleet import holding, keys, listing, membership
from devsup.guard.book import FAILURES, say
from devsup.guard.lease import Lease
from devsup.guard.mail import Mail
from devsup.models import State
from devsup.records import Record
from devsup.redis import address as addresses
from devsup.redis.connection import Connection, failed
from devsup.redis.resp import ErrorReply, Push
from devsup.registry import public

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from devsup.fleet.membership import Membership
    from devsup.fleet.requests import Stop
    from devsup.guard.book import Book
    from devsup.guard.charge import Charge
    from devsup.models import Row
    from devsup.redis.address import Address
    from devsup.shutdown import Ended

__all__ = ["Fleet", "join"]

#: Seconds for Redis to answer, the shortest and the longest; in between it is half a beat.
_ANSWERS = (0.2, 5.0)
#: Seconds of the first pause before another connection, and of the longest, if a beat is longer than that.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0
#: Seconds to wait at the end for Redis to say that it has heard, at least and, where it is far away, at most.
#: What was sent it hears all the same, a frozen one when it goes on.
_GOODBYE = (0.05, 0.5)
#: So many of the last round trip are waited for in between.
_GOODBYE_TRIPS = 4.0


class _Sent(Record):
    """A command that is not answered yet."""

    what: str
    at: float  # monotonic
    boot: float
    wall: int


def join(charge: Charge, book: Book, url: str | None) -> Fleet | None:
    """
    Return what ``charge``'s job says that its server is to a fleet, whose Redis is at ``url``.

    None where another version has written that. An address that cannot be used is one that never answers.
    """
    try:
        member = membership.read(charge.job.fleet)
    except (KeyError, TypeError) as error:
        say(f"cannot read its membership in the fleet: {error!r}")
        return None
    if member is None:
        return None
    address = None
    try:
        address = addresses.parse(url or "")
    except DevsupError as error:
        say(error.message)
    if address is not None and address.tls:
        try:
            import devsup.redis.tls  # noqa: F401 - now, as the package may be gone when it is needed
        except ImportError:
            pass  # a Python without TLS: its connections say so
    return Fleet(charge, book, member, address)


class Fleet:
    """One server's membership; ``due`` is when there is something to do, None for never."""

    def __init__(self, charge: Charge, book: Book, member: Membership, address: Address | None) -> None:
        self._charge = charge
        self._book = book
        self._member = member
        self._address = address
        mine = member.lease
        self.lease = Lease(charge, book, member, mine) if mine is not None else None
        self._beat = member.ttl / 3
        shortest, longest = _ANSWERS
        self._patience = max(shortest, min(self._beat / 2, longest))
        self._connection: Connection | None = None
        #: When the connection was begun; it has as long to come up as an answer.
        self._connected_at = 0.0
        self._was_up = False
        self._has_greeted = False
        #: Whether a message wakes this guard when there is mail.
        self._hears = False
        #: Whether what there is to say goes with the next greeting; it does once, where the same address has
        #: just let in who took the lease: what is refused is to be refused before anything is done.
        self._is_eager = mine is not None and not charge.adopt
        self._pending: list[_Sent] = []
        self._outgoing: list[tuple[Any, ...]] = []
        self._trip = 0.0
        self._failures = 0
        self._trouble: str | None = None
        self.due: float | None = time.monotonic() if address is not None else None
        #: How it was published last, and what that was made of.
        self._record: list[Any] | None = None
        self._info: dict[str, str] | None = None
        self._of: tuple[object, ...] | None = None
        self._stale = False
        self._place = holding.place(identity.here(), charge.job.home)
        self._mail = Mail(charge, member.name, self._send)

    # -- what the loop needs -----------------------------------------------------------------------

    def fds(self) -> list[tuple[int, int]]:
        """Return the descriptors to wait on, with their events."""
        found = []
        if self._connection is not None:
            found.append((self._connection.fd, self._connection.events))
        if self.lease is not None and self.lease.alarm.fd is not None:
            found.append((self.lease.alarm.fd, select.POLLIN))
        return found

    def is_over(self) -> bool:
        """Tell whether the server is to be ended because of its lease. To be asked before anything else."""
        return self.lease is not None and self.lease.is_over()

    def patience(self) -> float:
        """Return how many seconds a server on its way down may still take until it is killed."""
        return float("inf") if self.lease is None else self.lease.patience()

    def advance(self, ready: set[int]) -> None:
        """Go on; ``ready`` are the descriptors that are. Nothing that Redis says or does makes this fail."""
        try:
            self._advance(ready)
            self._flush()
        except Exception as error:  # what it says may be nonsense, in more ways than can be listed
            self._fail(f"{error!r}")

    def has_news(self) -> bool:
        """Tell, once, whether somebody has asked for something."""
        return self._mail.has_news()

    def meanwhile(self) -> None:
        """Go on amid something that takes its time."""
        poll = select.poll()
        for fd, events in self.fds():
            poll.register(fd, events)
        self.advance({fd for fd, _ in poll.poll(0)})

    def _advance(self, ready: set[int]) -> None:
        now = time.monotonic()
        if self.lease is not None and self.lease.look() and self._was_up:
            self.due = now
        connection = self._connection
        if connection is None:
            if self.due is not None and now >= self.due:
                self._connect(now)
            return
        if connection.fd in ready:
            self._hear(connection.advance())
            if self._connection is None:
                return
        if not connection.is_up:
            if now < self._connected_at + self._patience:
                return
            if connection.alternatives:
                self._connected_at = now
                connection.skip()
                self._see_closed()
            else:
                self._fail(f"{connection.waits_for} within {self._patience:.1f} s")
            return
        if self._pending and now >= self._pending[0].at + self._patience:
            self._fail(f"{connection.waits_for} within {self._patience:.1f} s")
        elif not self._was_up:
            self._was_up = True
            if not self._has_greeted:
                self._greet(hears=connection.protocol != 2)
        elif self.due is not None and now >= self.due:
            self._say_all()
        elif self._has_changed():
            self._tell_change()

    @property
    def _next(self) -> float | None:
        times = [self.due]
        if self._connection is not None:
            times = [self._connected_at + self._patience] if not self._connection.is_up else times
            times += [self._pending[0].at + self._patience] if self._pending else []
        return min((one for one in times if one is not None), default=None)

    @property
    def wakes_at(self) -> float | None:
        """When it is to go on though nothing is ready; None for never."""
        if self._connection is not None and self._connection.is_up and self._has_changed():
            return time.monotonic()
        lease = self.lease
        if lease is None or lease.alarm.fd is not None or not lease.held:
            return self._next
        # No descriptor tells: by this clock, which may be late after a sleep.
        over = lease.looks_at - boottime() + time.monotonic()
        return min(over, self._next) if self._next is not None else over

    # -- the connection ----------------------------------------------------------------------------

    def _connect(self, now: float) -> None:
        assert self._address is not None
        self._connected_at = now
        self._was_up = self._has_greeted = self._hears = False
        first, self._is_eager = self._introduce if self._is_eager else None, False
        self._connection = Connection(self._address, name=f"devsup-guard-{self._charge.job.id}", first=first)
        self._see_closed()

    def _connect_once_more(self) -> None:
        """Connect so that what is said reaches a Redis also that does not answer now."""
        self._close()
        if self._address is not None:
            self._connection = Connection(self._address, eager=True)
            self._trip = 0.0
            self._see_closed()

    def _see_closed(self) -> None:
        if self._connection is not None and self._connection.closed_why is not None:
            self._fail(self._connection.closed_why)

    def _fail(self, why: str) -> None:
        """Make another connection after a pause; what was sent on this one may have been done or not."""
        if why != self._trouble:
            say(f"the fleet cannot be reached: {why}")
            self._trouble = why
        self._close()
        pause = min(_FIRST_PAUSE * 2 ** min(self._failures, 20), self._beat, _LONGEST_PAUSE)
        self._failures += 1
        # Half of it is chance: the guards of a fleet are not to come back all at once.
        self.due = time.monotonic() + pause * (0.5 + os.urandom(1)[0] / 510)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._pending, self._outgoing = [], []

    def _send(self, what: str, command: Sequence[Any]) -> None:
        """Have ``command`` sent with all that there is to send now: each call of the system costs as much."""
        if self._connection is None:
            return
        self._pending.append(_Sent(what, time.monotonic(), boottime(), now_ms()))
        self._outgoing.append(tuple(command))

    def _flush(self) -> None:
        commands, self._outgoing = self._outgoing, []
        if commands and self._connection is not None:
            self._connection.send(*commands)

    # -- what is said ------------------------------------------------------------------------------

    def _greet(self, *, hears: bool) -> None:
        """Say everything; where it ``hears`` of mail, ask for that and then look for what came before."""
        self._has_greeted, self._hears = True, hears
        self._say_all()
        if hears:
            self._send("subscribe", ("SUBSCRIBE", keys.mail(self._member.name, self._charge.job.id)))
            self._mail.take()

    def _introduce(self) -> list[tuple[Any, ...]]:
        """Return what goes with the greeting, by which nobody has said yet that he speaks RESP3."""
        self._greet(hears=True)
        commands, self._outgoing = self._outgoing, []
        return commands

    def _say_all(self) -> None:
        """Renew the lease, say that the server is there, look for mail where nobody would wake this guard."""
        self.due = time.monotonic() + self._beat
        if self._has_changed() or self._stale:
            self._look_at_row()
        self._renew()
        self._publish()
        if not self._hears:
            self._mail.take()

    def _renew(self) -> None:
        if self.lease is not None and self._info is not None:
            self._send("renew", self.lease.command(self._info))

    def _publish(self) -> None:
        if self._record is not None:
            self._send("publish", self._record)

    def _tell_change(self) -> None:
        self._look_at_row()
        self._publish()
        self._renew()

    # -- what there is to say ----------------------------------------------------------------------

    def _made_of(self) -> tuple[object, ...]:
        charge = self._charge
        return charge.state, charge.generation, charge.leader, charge.listener

    def _has_changed(self) -> bool:
        return self._made_of() != self._of

    def _look_at_row(self) -> None:
        """Make the public record anew; where the registry cannot be read, the last one stands a beat more."""
        charge, self._of = self._charge, self._made_of()
        row = None
        try:
            if not self.is_over():  # else its end comes first: the registry may be locked
                row = self._book.registry.row(charge.job.id)
        except FAILURES as error:
            say(f"cannot read what to publish: {error}")
        self._stale = row is None
        if row is not None:
            self._take_in(row)
        elif self._info is None:
            self._info = self._fields(None)

    def _take_in(self, row: Row) -> None:
        charge = self._charge
        state = charge.state
        url = row.url if state not in (State.STARTING, State.RESTARTING) else None
        pid = charge.leader.pid if charge.leader is not None else None
        shown, member = public.published(row, state, pid=pid, url=url), self._member
        self._record = listing.publish(
            member.name, shown, host=member.host, project=member.project, ttl=member.ttl
        )
        self._info = self._fields(shown["url"])

    def _fields(self, url: str | None) -> dict[str, str]:
        job = self._charge.job
        return holding.fields(
            self._member.host, self._place, owner=job.owner, url=url, server=job.id,
            generation=job.generation,
        )  # fmt: skip

    # -- what is heard -----------------------------------------------------------------------------

    def _hear(self, replies: list[object]) -> None:
        connection = self._connection
        for reply in replies:
            if isinstance(reply, Push):
                self._hear_push(reply)
            elif self._pending:
                self._hear_reply(self._pending.pop(0), reply)
            if self._connection is not connection:
                return
        self._see_closed()

    def _hear_push(self, push: Push) -> None:
        if push.kind in ("subscribe", "unsubscribe"):
            self._pending = [one for one in self._pending if one.what != push.kind]
        elif push.kind == "message":
            self._mail.take()

    def _hear_reply(self, sent: _Sent, reply: object) -> None:
        assert self._address is not None
        self._trip = time.monotonic() - sent.at
        if isinstance(reply, ErrorReply):
            if sent.what == "subscribe":
                self._hears = False
                say(f"mail is looked for at each beat: {reply}")
            elif not self._unsubscribes:  # else it was refused amid that, and is said again
                self._fail(str(failed(self._address, reply)))
            return
        if sent.what == "subscribe":
            # No push: that is RESP2, and of anything but channels this connection hears no more. What comes
            # after it was not done; what came before is said once more.
            if not self._unsubscribes:
                self._close()
                self._connect(time.monotonic())
            return
        if sent.what == "renew":
            assert self.lease is not None
            if self.lease.answered(reply, sent.boot, sent.wall):
                self._renew()
        elif sent.what == "take":
            self._mail.read(reply, sent.boot)
        if not self._pending and not self._outgoing:
            # Only now: of what is said each time, something else may be what is refused each time.
            if self._trouble is not None:
                say("the fleet is reached again")
            self._trouble, self._failures = None, 0

    @property
    def _unsubscribes(self) -> bool:
        """Whether it has said so, as it does at the end, and has not heard that it was done."""
        return any(one.what == "unsubscribe" for one in self._pending)

    def request(self) -> Stop | None:
        """Return what is asked of this guard and still waited for."""
        stop = self._mail.request()
        self._flush()
        return stop

    # -- the end -----------------------------------------------------------------------------------

    def finish(self, state: State, ended: Ended | None, *, reason: str, is_over: bool) -> None:
        """
        Answer whoever asked, take the server off the list and give its lease back.

        Where not ``is_over``, something of the server is left: only the answers go out.
        """
        try:
            # What was said on this one must not come after what is said now on another.
            if self._connection is None or not (self._connection.is_up or self._has_greeted):
                self._connect_once_more()
            if self._connection is not None:
                self._say_goodbye(state, ended, reason=reason, is_over=is_over)
        except Exception as error:  # see `advance`
            self._fail(f"{error!r}")
        if self.lease is not None:
            self.lease.close()
        self._close()

    def _say_goodbye(self, state: State, ended: Ended | None, *, reason: str, is_over: bool) -> None:
        least, most = _GOODBYE
        deadline = time.monotonic() + max(least, min(self._trip * _GOODBYE_TRIPS, most))
        lease, member = self.lease, self._member
        late = lease is not None and boottime() >= lease.until
        if lease is not None:
            lease.leave()
        if any(one.what == "subscribe" for one in self._pending):
            # Should it be RESP2, what follows would be refused, and nobody may be there to say it again.
            self._send("unsubscribe", ("UNSUBSCRIBE",))
        self._mail.answer_all(state, ended, reason=reason)
        self._mail.take()
        if late:
            self._renew()  # the answer says whether somebody else has had it by now
        if is_over:
            of = (None, "") if lease is None else (lease.keys.lease, lease.token)
            self._send("forget", listing.forget(member.name, self._charge.job.id, lease=of[0], token=of[1]))
        self._flush()
        while self._pending and self._wait(deadline):
            self._mail.answer_all(state, ended, reason=reason)
            self._flush()

    def _wait(self, deadline: float) -> bool:
        """Wait for Redis, at most until ``deadline``; tell whether it said something."""
        connection = self._connection
        seconds = deadline - time.monotonic()
        if connection is None or seconds <= 0:
            return False
        poll = select.poll()
        poll.register(connection.fd, connection.events)
        if not poll.poll(seconds * 1e3):
            return False
        self._hear(connection.advance())
        return self._connection is not None
