"""
Take the lease of an exclusive app, so that its server is the only one on all hosts.

Asked for once the server has its reservation here, and before its guard is started: with the session's lock
held, outside of any transaction, in one round trip; in two where the lease is that of a server of this very
place that is no more, and that this start has not cleared away itself. A caller that is killed in between
leaves a lease that its next start takes over at once, and other hosts when its time is over.
"""

from __future__ import annotations

import os
import time
from binascii import hexlify

from devsup import identity, trace
from devsup.apps import fleets
from devsup.clock import boottime, iso, now_ms
from devsup.errors import DevsupError, FleetUnreachable, LeaseHeldElsewhere
from devsup.fleet import holding, keys, listing, membership
from devsup.fleet.membership import Mine
from devsup.redis import leases
from devsup.redis.connection import Client
from devsup.redis.leases import Granted, Held
from devsup.supervisor.view import OVER, life

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Set
    from typing import Any

    from devsup.fleet.membership import Membership
    from devsup.fleet.settings import Settings
    from devsup.guard.job import Job
    from devsup.models import Row
    from devsup.paths import Home
    from devsup.registry import Registry

__all__ = ["Leasing", "client", "give_back", "leave"]

#: Seconds for an answer of Redis: within one network it takes a millisecond.
_TIMEOUT = 2.0
#: Seconds for giving a lease back: it is over by itself, too.
_LAST_TIMEOUT = 0.5
#: A connection that broke sooner than this is made once more; what has hung so long, hangs.
_AGAIN_WITHIN = 0.5


def client(fleet: Settings, timeout: float = _TIMEOUT) -> Client:
    """
    Return a client of the fleet's Redis, not yet connected.

    :raises UsageError: the address is none
    """
    return Client(fleets.address(fleet), timeout, name="devsup")


class Leasing:
    """The lease that one start has asked for, if any. For one thread."""

    def __init__(
        self, home: Home, registry: Registry, fleet: Settings, membership: Membership, cleared: Set[str]
    ) -> None:
        self.home = home
        self.registry = registry
        self.fleet = fleet
        self.membership = membership
        #: The ids of reservations whose callers are dead, and which this start has removed.
        self.cleared = cleared
        #: The token and the server for which a lease may have been taken: the answer can be lost.
        self._asked: tuple[str, Row] | None = None

    def take(self, row: Row, deadline: float) -> Membership:
        """
        Return what the server of ``row`` is to its fleet, with its lease; ``deadline`` is that of the start.

        :raises LeaseHeldElsewhere: another server has it
        :raises FleetUnreachable: Redis cannot be asked, or refuses
        """
        token = hexlify(os.urandom(16)).decode()
        self._asked = token, row
        # A start that has used up its time by waiting for others still gets an answer, if there is one.
        timeout = min(_TIMEOUT, max(_LAST_TIMEOUT, deadline - time.monotonic()))
        with client(self.fleet, timeout) as redis:
            since = boottime()
            answer = self._ask(redis, row, token, instead=self._left_behind())
            if not isinstance(answer, Granted) and self._is_left_over(answer):
                trace.step("the lease is that of a server of ours which is no more: taking it over")
                since = boottime()
                answer = self._ask(redis, row, token, instead=answer.holder["token"])
        if not isinstance(answer, Granted):
            self._asked = None
            raise self._held(answer, row)
        trace.step(f"has the lease of {row.app}, fencing number {answer.fencing}")
        return self.membership.replace(lease=Mine(str(row.app), token, answer.fencing, since))

    def keep(self, row: Row, mine: Mine | None) -> None:
        """
        Let the app of ``row``, which has no guard, be the one of all hosts while it is stopped and started.

        ``mine`` is the lease that it was started with, if any: it gets its whole time again.

        :raises LeaseHeldElsewhere: another server has it
        :raises FleetUnreachable: Redis cannot be asked, or would refuse to give a lease
        """
        of = self._keys(row)
        ttl = round(self.membership.ttl * 1e3)
        ask = (
            leases.look(of)
            if mine is None
            else leases.renew(of, mine.token, ttl, mine.fencing, self._info(row))
        )
        with client(self.fleet) as redis:
            # A full Redis renews what it would not give.
            _twice(lambda: redis.call(*listing.probe(self.membership.name)))
            answer: Any = redis.call(*ask)
        held = leases.answered(answer) if mine is not None else Held(leases.holder(answer), 0, now_ms(), 0)
        if isinstance(held, Held) and held.holder and not self._is_left_over(held, ends=row.id):
            raise self._held(held, row)

    def settle(self) -> None:
        """Give the lease back where the server that it was taken for has not come to be, or is no more."""
        if self._asked is None:
            return
        token, row = self._asked
        try:
            now = self.registry.row(row.id)
            if now is not None and life(now) not in OVER:
                return  # its guard has it
            self._asked = None
            with client(self.fleet, _LAST_TIMEOUT) as redis:
                redis.call(*leases.release(self._keys(row), token))
        except DevsupError as error:
            # What made the start fail is what its caller is to hear.
            trace.step(f"the lease is over by itself: {error}")

    def _left_behind(self) -> str:
        """Return whose lease a killed caller has left, most likely: it needs no answer first."""
        if len(self.cleared) != 1:
            return ""
        (dead,) = self.cleared
        # A row that is still there was claimed by its guard at the last moment.
        return f"{self._place()} {dead}" if self.registry.row(dead) is None else ""

    def _place(self) -> str:
        return holding.place(identity.here(), self.home.root)

    def _keys(self, row: Row) -> leases.Keys:
        return keys.lease(self.membership.name, str(self.membership.project), str(row.app))

    def _ask(self, redis: Client, row: Row, token: str, *, instead: str = "") -> Granted | Held:
        ttl = round(self.membership.ttl * 1e3)
        command = leases.acquire(self._keys(row), token, ttl, self._info(row), instead=instead)
        return leases.answered(_twice(lambda: redis.call(*command)))

    def _info(self, row: Row) -> dict[str, str]:
        return holding.fields(
            self.membership.host,
            self._place(),
            owner=row.owner,
            url=row.url,
            server=row.id,
            generation=row.generation,
        )

    def _is_left_over(self, held: Held, *, ends: str | None = None) -> bool:
        """Tell whether the holder is a server of this state folder that is no more, or ``ends`` just now."""
        holder = holding.read(held.holder)
        if holder is None or holder.place != self._place():
            return False
        row = self.registry.row(holder.server)
        if row is not None:
            return row.id == ends or life(row) in OVER
        # What is not known here may live elsewhere: copies of one machine all have its place.
        return holder.server in self.cleared or bool(self.registry.ended(id=holder.server, limit=1))

    def _held(self, held: Held, row: Row) -> LeaseHeldElsewhere:
        holder = holding.read(held.holder)
        if holder is None:
            return LeaseHeldElsewhere(
                f"`{row.app}` runs on another host, with another version of devsup",
                hint="devsup list --fleet",
                details={"host": held.holder.get("host"), "owner": None, "url": None, "fencing": None},
            )
        where = f"on `{holder.host}`"
        if holder.place == self._place():
            other = self.registry.row(holder.server)
            where = f"on this host, in `{other.project}`" if other is not None else where
        whose = f", for `{holder.owner}`" if holder.owner else ""
        # The number is the time at which it was taken, in microseconds; never before that.
        at = max(0, min(holder.fencing // 1000, held.at))
        since = f" since {iso(at)}"
        what = f"runs {where}{whose}{since}: {holder.url}" if holder.url else f"is starting {where}{whose}"
        return LeaseHeldElsewhere(
            f"`{row.app}` {what}",
            hint="devsup list --fleet",
            details={
                "host": holder.host,
                "owner": holder.owner,
                "url": holder.url,
                "fencing": holder.fencing,
            },
        )


def leave(home: Home, row: Row, job: Job, *, keeps_lease: bool) -> None:
    """
    Take the server of ``row``, which has ended without a guard, off its fleet's list; give its lease back.

    It needs at most half a second and never fails: where Redis is away, both are over by themselves.
    """
    try:
        member = membership.read(job.fleet)
        fleet, _ = fleets.of_project(row.project, home, os.environ)
        if member is None or fleet is None or fleet.name != member.name:
            return
        mine = member.lease if not keeps_lease else None
        of = keys.lease(member.name, str(member.project), mine.app).lease if mine is not None else None
        with client(fleet, _LAST_TIMEOUT) as redis:
            redis.call(*listing.forget(member.name, row.id, lease=of, token=mine.token if mine else ""))
        trace.step(f"{row.session} is off the list of the fleet")
    except (DevsupError, KeyError, TypeError) as error:
        trace.step(f"{row.session} stays on the list of the fleet until its time is over: {error}")


def give_back(home: Home, row: Row) -> None:
    """
    Give back the lease that a start which was killed before there was a guard may have taken for ``row``.

    It needs at most half a second a round trip, and never fails: the lease is over by itself, too.
    """
    try:
        fleet, config = fleets.of_project(row.project, home, os.environ)
        project = fleets.identity(row.project, config)
        if fleet is None or project is None or row.app is None:
            return
        of = keys.lease(fleet.name, project, row.app)
        with client(fleet, _LAST_TIMEOUT) as redis:
            fields = leases.holder(redis.call(*leases.look(of)))
            holder = holding.read(fields)
            if holder is None or holder.place != holding.place(identity.here(), home.root):
                return
            if holder.server == row.id:
                redis.call(*leases.release(of, fields["token"]))
    except (DevsupError, KeyError) as error:
        trace.step(f"a lease of {row.session}, if any, is over by itself: {error}")


def _twice(call: Callable[[], object]) -> object:
    """Return what ``call`` returns; once more where its connection breaks: a token is never given twice."""
    began = time.monotonic()
    try:
        return call()
    except FleetUnreachable as error:
        if "reply" in error.details or time.monotonic() - began > _AGAIN_WITHIN:
            raise
        return call()
