"""
The lease of an exclusive app as its guard holds it: kept while the server lives, and never believed in longer
than it is held.

It is held until its time has passed since the last renewal that went well was *sent*: Redis counts from later
on. The clock goes on while the machine sleeps. What follows from a lost lease is `on_lost`: with ``stop`` the
server is ended so early that it is gone by then; with ``keep`` it goes on, and the guard takes the lease
again once that is free. Either is written down, and so is that somebody else has had it meanwhile.

For the guard's one thread; commands are made and answers are read here, `devsup.guard.fleet` sends them.
"""

from __future__ import annotations

from devsup.clock import boottime
from devsup.fleet import keys
from devsup.fleet.note import Note, left
from devsup.guard.book import FAILURES, say
from devsup.redis import leases
from devsup.redis.leases import Granted
from devsup.registry.frozen import EVENTS
from devsup.shutdown import KILL_BUDGET
from devsup.system.alarm import Alarm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.fleet.membership import Membership, Mine
    from devsup.guard.book import Book
    from devsup.guard.charge import Charge

__all__ = ["Lease"]


class Lease:
    """One lease. ``alarm`` is ready when something is to be done about it though Redis is silent."""

    def __init__(self, charge: Charge, book: Book, member: Membership, mine: Mine) -> None:
        assert member.project is not None
        self._charge = charge
        self._book = book
        self._member = member
        self._mine = mine
        self.keys = keys.lease(member.name, member.project, mine.app)
        self.stops = member.on_lost == "stop"
        #: Whether it is free, and somebody has had it since.
        self._anew = False
        self._leaving = False
        #: The findings about it that are open, with what they say.
        self._findings: dict[str, str] = self._left_open() if charge.adopt else {}
        self._unwritten: dict[str, str] = {}
        self._renewed_at: int | None = None
        self._expires_at: int | None = None
        #: Why the note could not be written the last time.
        self._unnoted: str | None = None
        self._note = Note(book.home, charge.job.id)
        self.alarm = Alarm()
        #: When the alarm is ready, by `boottime`: with ``stop`` its end begins then, else see `look`.
        self.looks_at = float("inf")
        self.until = self._first_until()
        self.held = boottime() < self.until
        if self.held:
            self._tell()
        else:
            self._lose("it was not renewed in time")

    def _first_until(self) -> float:
        """
        Return until when it is held as far as is known.

        Whoever acquired it has said when. A guard that takes over goes by the note of the one before; where
        it would have to end the server it has a beat to ask first: nobody was there who would have done that.
        """
        now, ttl = boottime(), self._member.ttl
        asking = now + ttl / 3 + (self.margin if self.stops else 0.0)
        if self._charge.adopt:
            noted = now + (left(self._book.home, self._charge.job.id) or 0.0)
            return max(asking, noted) if self.stops else noted
        return self._mine.since + ttl if self._mine.since is not None else asking

    @property
    def fencing(self) -> int:
        """The number of the acquisition that it goes by."""
        return self._mine.fencing

    @property
    def token(self) -> str:
        """What it is renewed and released by."""
        return self._mine.token

    # -- what Redis is asked, and says -------------------------------------------------------------

    def command(self, info: dict[str, str]) -> tuple[str | int, ...]:
        """
        Return the command to send now.

        It renews the lease, which also takes a lost one again where nobody has had it since; where somebody
        has, and it is free now, it is acquired anew.
        """
        ttl = round(self._member.ttl * 1e3)
        if self._anew:
            return leases.acquire(self.keys, self.token, ttl, info)
        return leases.renew(self.keys, self.token, ttl, self.fencing, info)

    def answered(self, reply: Any, sent: float, sent_at: int) -> bool:
        """
        Take in what Redis says to a command that was sent at ``sent`` (`boottime`) and ``sent_at`` (ms).

        True where there is something else to ask at once.
        """
        seen = leases.answered(reply)
        if not isinstance(seen, Granted):
            self._is_anothers(seen.holder, seen.fencing or int(seen.holder.get("fencing") or 0))
            anew = not seen.holder and not self.stops and not self._leaving
            first, self._anew = not self._anew, anew
            return first and anew
        self._anew = False
        if seen.fencing != self.fencing and not self._leaving:
            self._mine = self._mine.replace(fencing=seen.fencing, since=sent)
            self._keep_number()
        self.until = sent + self._member.ttl
        self._renewed_at, self._expires_at = sent_at, sent_at + round(self._member.ttl * 1e3)
        regained = not self.held and self.until > boottime()
        self.held = self.held or regained
        if regained:
            say(f"has its lease again (fencing {self.fencing})")
        if self.held:
            self._close_findings()
        self._tell()
        return False

    def leave(self) -> None:
        """Take it anew no more: the server has ended, its job is gone, and what comes now is only heard."""
        self._anew, self._leaving = False, True

    def _keep_number(self) -> None:
        """Have the guard that comes after this one go by the new number."""
        job = self._charge.job
        self._charge.job = job.replace(fleet=self._member.replace(lease=self._mine).plain())
        self._book.write_job()

    def _is_anothers(self, holder: dict[str, str], fencing: int) -> None:
        if fencing > self.fencing:
            self._overlapped(holder, fencing)
        if self.held:
            who = f"`{holder['host']}`" if holder.get("host") else "somebody else"
            self._lose(f"{who} has it, or has had it since (fencing {fencing or 'unknown'})")

    # -- the time ----------------------------------------------------------------------------------

    @property
    def margin(self) -> float:
        """Seconds that the end of the server may take, but never more than a third of the lease's time."""
        return min(self._charge.manner.grace + KILL_BUDGET, self._member.ttl / 3)

    def is_over(self) -> bool:
        """Tell whether the server is to be ended now, as its lease is lost or about to be."""
        return self.stops and (not self.held or boottime() >= self.until - self.margin)

    def patience(self) -> float:
        """Return how many seconds a server may still take to end until it is killed; 0 or less: none."""
        if not self.stops:
            return float("inf")
        if not self.held:
            return 0.0
        return self.until - boottime() - min(KILL_BUDGET, self.margin / 2)

    def look(self) -> bool:
        """
        Look at the clock; tell whether Redis is to be asked at once.

        It is where the lease has just been lost by that, and before, where a renewal is overdue: the time of
        the loop, by which it renews, stands still while the machine sleeps.
        """
        now = boottime()
        if not self.held or now < (self.until if self.stops else self.looks_at):
            return False
        if now < self.until:
            self._look_at(self.until)
        else:
            self._lose("it could not be renewed in time")
        return True

    def _look_at(self, at: float | None) -> None:
        self.looks_at = float("inf") if at is None else at
        self.alarm.set(at)

    def _lose(self, why: str) -> None:
        """It is no longer known to be held."""
        self.held = False
        say(f"lost its lease (fencing {self.fencing}): {why}")
        self._tell()
        if not self.stops:
            name = self._charge.job.app or self._charge.job.session
            self._find("lease_lost", f"`{name}` runs on without its lease in the fleet: {why}")

    def _overlapped(self, holder: dict[str, str], fencing: int) -> None:
        """Write down that somebody else has had the lease while this server was running."""
        name = self._charge.job.app or self._charge.job.session
        where = f" on `{holder['host']}`" if holder.get("host") else " elsewhere"
        self._find(
            "lease_overlap",
            f"`{name}` ran here while another had its lease{where}: fencing {fencing}, here {self.fencing}",
        )

    def _tell(self) -> None:
        """Say how it stands to `status`, and to the kernel when to wake this guard."""
        try:
            self._note.write(
                held=self.held, fencing=self.fencing, until=self.until,
                renewed_at=self._renewed_at, expires_at=self._expires_at,
            )  # fmt: skip
            self._unnoted = None
        except OSError as error:
            if str(error) != self._unnoted:
                say(f"cannot note its lease: {error}")
            self._unnoted = str(error)
        early = self.margin if self.stops else self._member.ttl / 3
        self._look_at(self.until - early if self.held else None)

    # -- findings ----------------------------------------------------------------------------------

    def _left_open(self) -> dict[str, str]:
        """Return what the guard before this one has found and not closed."""
        job, found = self._charge.job, {}
        try:
            events = self._book.registry.events(limit=EVENTS, project=job.project)
        except FAILURES as error:
            say(f"cannot read what was found of its lease: {error}")
            return {}
        for one in events:
            kind, _, server = str((one.details or {}).get("id")).partition(":")
            if one.type == "finding" and server == job.id:
                found[kind] = (one.reason or "") if (one.details or {}).get("open") else None
        return {kind: message for kind, message in found.items() if message is not None}

    def _find(self, kind: str, message: str) -> None:
        if kind in self._findings:
            return
        self._findings[kind] = message
        self._unwritten[kind] = message
        if not self.stops:  # else its end comes first: the registry may be locked
            self._write_down()

    def _write_down(self) -> None:
        unwritten, self._unwritten = self._unwritten, {}
        for kind, message in unwritten.items():
            self._record(kind, message, is_open=True)

    def _close_findings(self) -> None:
        """What was found is over: the lease is held again, or the server has ended."""
        self._write_down()
        for kind, message in self._findings.items():
            self._record(kind, message, is_open=False)
        self._findings = {}

    def _record(self, kind: str, message: str, *, is_open: bool) -> None:
        job = self._charge.job
        try:
            self._book.registry.add_event(
                "finding", project=job.project, session=job.session, by="guard", reason=message,
                details={"id": f"{kind}:{job.id}", "open": is_open},
            )  # fmt: skip
        except FAILURES as error:
            say(f"cannot record that {message}: {error}")

    def close(self) -> None:
        """The server has ended."""
        self._close_findings()
        self.alarm.close()
        self._note.close()
