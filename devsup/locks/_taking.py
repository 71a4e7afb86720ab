"""
One taking of a lock that stands in Redis: its token, whether it still counts, and what renews it.

A taking counts until its ttl is over since the sending of the last command that Redis has answered with yes,
by a clock that goes on while the machine sleeps. Redis begins to count later than that, and is told to count
a little further, since no two clocks run at one pace: so whoever looks at `Taking.counts` never takes for
held what is free already. Once it does not count it never does again.

One thread per process and Redis renews all that is held there, whatever thread or task holds it; it also
gives back what could not be given back at once. Nothing of a taking is renewed once it was ended: `end` waits
until no renewal is under way, since one that comes after the release would take the lock again.
"""

from __future__ import annotations

import atexit
import math
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

from devsup import trace
from devsup.clock import boottime
from devsup.errors import FleetUnreachable
from devsup.redis import leases, links
from devsup.timers import ThreadTimers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devsup.redis.address import Address
    from devsup.redis.leases import Granted, Held, Keys
    from devsup.redis.links import Command

__all__ = ["CHANCE", "Pauses", "Renewer", "Taking", "renewer"]

#: How much faster than ours a clock may run: what slews clocks stays below a half of that.
_PACE = 1.001
#: Seconds that an answer to a renewal or a release is waited for.
_PATIENCE = 1.0
#: Seconds to the first try after one that failed, and the most.
_SOON, _LATER = 0.005, 1.0
#: Seconds after which a release is said again where a command of the token may still lie in Redis, unread.
_AGAIN = (0.1, 1.0)
#: Seconds for which a release is tried beyond the ttl.
_STUBBORN = 60.0
#: Seconds that the end of the process waits for releases.
_PARTING = 0.5

#: Not the generator that programs seed, and may have seeded for a reason.
CHANCE = random.SystemRandom()


class Pauses:
    """Pauses between tries: twice as long each time, not the same for two who failed at once."""

    def __init__(self) -> None:
        self._next = _SOON

    def next(self) -> float:
        """Return the seconds."""
        pause, self._next = self._next, min(self._next * 2, _LATER)
        return pause * CHANCE.uniform(0.5, 1.0)


class Taking:
    """
    What one token has of a lease. Its commands are made and their answers read here; it speaks to nobody.

    Used by whoever takes and by the renewing thread; the first is alone before `granted` and after `end`.
    """

    __slots__ = (
        *("_asked", "_mutex", "_open", "_renewing", "_unanswered", "_until"),
        *("ended", "fencing", "info", "keys", "lost", "pauses", "token", "ttl"),
    )

    def __init__(self, keys: Keys, ttl: float, info: Mapping[str, str]) -> None:
        self.keys = keys
        self.ttl = ttl
        self.info = info
        self.token = os.urandom(16).hex()
        self.fencing: int | None = None
        #: Whether Redis, or our clock, has said that it is over.
        self.lost = False
        #: Whether it is not to be renewed any more.
        self.ended = False
        self.pauses = Pauses()
        self._asked = self._until = 0.0
        self._open = self._renewing = self._unanswered = False
        self._mutex = threading.RLock()

    @property
    def counts(self) -> bool:
        """Whether nobody else can have the lock now, as far as Redis keeps what it has said."""
        if self.fencing is None or self.lost:
            return False
        if boottime() >= self._until:
            self.lost = True
            return False
        return True

    def acquire(self) -> Command:
        """Return the command that asks for the lock; the same token may ask again and again."""
        self._unanswered, self._open = self.doubt, True
        self._asked = boottime()
        return leases.acquire(self.keys, self.token, self._ms(), self.info)

    def acquired(self, answer: Any) -> Granted | Held:
        """Read the answer, and note what it gives."""
        found = leases.answered(answer)
        if isinstance(found, leases.Granted):
            self._until = self._asked + self.ttl
            self.fencing = found.fencing
        self._open = False
        return found

    def may_renew(self) -> bool:
        """Tell whether to renew it now; then `renewed` has to be called, whatever comes of it."""
        with self._mutex:
            self._renewing = not self.ended and self.counts
            return self._renewing

    def renew(self) -> Command:
        """Return the command that renews it."""
        assert self.fencing is not None
        self._asked = boottime()
        return leases.renew(self.keys, self.token, self._ms(), self.fencing, self.info)

    def _ms(self) -> int:
        return math.ceil(self.ttl * _PACE * 1e3)

    def renewed(self, answer: Any) -> None:
        """Note what came of a renewal; None: no answer."""
        try:
            if answer is None:
                self._unanswered = True
            elif isinstance(leases.answered(answer), leases.Held):
                self.lost = True
            elif self.counts:  # else it was over before the answer came, and was told to be
                self._until = self._asked + self.ttl
        finally:
            self._renewing = False

    @property
    def doubt(self) -> bool:
        """Whether Redis may still do what it was told for this token: the answer to a command never came."""
        return self._unanswered or self._open

    @property
    def is_to_be_released(self) -> bool:
        """Whether Redis holds something of it, or may come to."""
        return self.doubt or self.fencing is not None

    def end(self) -> bool:
        """Have it not renewed any more; False: ask again in a moment, a renewal is under way."""
        with self._mutex:
            self.ended = True
            return not self._renewing

    def left(self) -> float:
        """For how many seconds it counts, if nothing renews it."""
        return self._until - boottime()

    def release(self) -> Command:
        """Return the command that gives the lock back."""
        return leases.release(self.keys, self.token)


class Renewer:
    """Renews what is held in one Redis and gives back what was given up, in a thread that ends when idle."""

    def __init__(self, address: Address) -> None:
        self._link = links.link(address)
        self._timers = ThreadTimers(self._fire)
        self._mutex = threading.RLock()
        #: When to look at what, by the monotonic clock; and when the timer goes off.
        self._due: dict[Taking, float] = {}
        self._next = float("inf")
        #: What is to be given back -> how often that was answered, and until when it is tried.
        self._ending: dict[Taking, tuple[int, float]] = {}
        self._idle = threading.Event()

    def keep(self, taking: Taking) -> None:
        """
        Renew ``taking`` every third of its ttl until it ends.

        :raises RuntimeError: the system gives no more threads
        """
        self._at(taking, taking.ttl / 3)

    def forget(self, taking: Taking) -> None:
        """Look at ``taking`` no more."""
        with self._mutex:
            self._due.pop(taking, None)

    def give_back(self, taking: Taking) -> None:
        """Release ``taking`` as soon as Redis can be asked; returns at once."""
        taking.ended = True
        self._ending.setdefault(taking, (0, time.monotonic() + taking.ttl + _STUBBORN))
        self._idle.clear()
        taking.pauses = Pauses()
        try:
            self._at(taking, 0.0)
        except RuntimeError:
            self._give_back(taking)  # the system gives no more threads

    def finish(self, seconds: float) -> None:
        """Wait until nothing is to be given back, for so long at most."""
        if self._ending:
            self._idle.wait(seconds)

    def _at(self, taking: Taking, seconds: float) -> None:
        due = time.monotonic() + seconds
        with self._mutex:
            self._due[taking] = due
            if due < self._next:
                self._timers.set(self, seconds)
                self._next = due  # not before: after a Ctrl-C in there the next one who comes tries again

    def _fire(self, _: object) -> None:
        try:
            while ready := self._ready():
                for taking in ready:
                    again = self._tend(taking)
                    if again is not None:
                        with self._mutex:
                            self._due.setdefault(taking, time.monotonic() + again)
        finally:
            with self._mutex:
                self._next = min(self._due.values(), default=float("inf"))
                if self._due:
                    self._timers.set(self, self._next - time.monotonic())

    def _ready(self) -> list[Taking]:
        with self._mutex:
            now = time.monotonic()
            ready = [taking for taking, due in self._due.items() if due <= now]
            for taking in ready:
                del self._due[taking]
            self._next = float("-inf")  # no need to wake up for what comes meanwhile
        return ready

    def _tend(self, taking: Taking) -> float | None:
        """Do what is due for ``taking``; return in how many seconds to look at it again, or None."""
        try:
            return self._give_back(taking) if taking in self._ending else self._renew(taking)
        except Exception as error:  # of one taking: those of others are to be renewed all the same
            trace.step(f"{taking.keys.lease}: {error!r}")
            return taking.pauses.next()

    def _renew(self, taking: Taking) -> float | None:
        """Renew ``taking`` once; return in how many seconds to look at it again, or None."""
        if not taking.may_renew():
            return None
        answer = None
        try:
            within = min(_PATIENCE, taking.ttl / 3, max(0.001, taking.left()))
            [answer] = self._link.call(taking.renew(), within=within)
        except FleetUnreachable as error:
            trace.step(f"{taking.keys.lease} was not renewed: {error}")
        finally:
            taking.renewed(answer)
        if not taking.counts:
            trace.step(f"{taking.keys.lease} was lost")
            return None
        if answer is None:
            return min(taking.pauses.next(), taking.ttl / 6)
        taking.pauses = Pauses()
        return taking.ttl / 3

    def _give_back(self, taking: Taking) -> float | None:
        """Release ``taking``; return in how many seconds to do that again, or None."""
        times, until = self._ending[taking]
        again: float | None = None
        try:
            self._link.call(taking.release(), within=_PATIENCE)
            if taking.doubt and times < len(_AGAIN):
                again = _AGAIN[times]
                times += 1
        except FleetUnreachable as error:
            trace.step(f"{taking.keys.lease} was not given back: {error}")
            if time.monotonic() < until:
                again = taking.pauses.next()
        if again is None:
            del self._ending[taking]
        else:
            self._ending[taking] = (times, until)
        if not any(not answered for answered, _ in [*self._ending.values()]):
            self._idle.set()
        return again


_renewers: dict[Address, Renewer] = {}


def renewer(address: Address) -> Renewer:
    """Return what renews locks at ``address`` in this process."""
    return _renewers.get(address) or _renewers.setdefault(address, Renewer(address))


os.register_at_fork(after_in_child=_renewers.clear)


@atexit.register
def _finish() -> None:
    end = time.monotonic() + _PARTING
    for one in [*_renewers.values()]:
        one.finish(max(0.0, end - time.monotonic()))
