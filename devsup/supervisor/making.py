"""
Make a server, or give a living one a guard again, for a start that holds the session's lock.

The reservation is one transaction; then the guard is started, and the server is recorded before anything of
it runs. Loaded only by a start that does not find its server: most callers do.
"""

from __future__ import annotations

import os
import time
from binascii import hexlify

from devsup import bounds, identity, system, trace
from devsup import tree as trees
from devsup.apps import commands
from devsup.clock import now_ms
from devsup.errors import (
    DevsupError,
    InternalError,
    LimitReached,
    NameTaken,
    PortTaken,
    UnmanagedRunning,
)
from devsup.guard import job as jobs
from devsup.guard.spawn import ADOPT, START
from devsup.models import NO_GUARD, Row, StartResult, State
from devsup.registry import FolderBusy, PoolEmpty, PortLeased, SessionBusy
from devsup.supervisor import preflight, ready, sessions
from devsup.supervisor.launching import launch_guard, tidy
from devsup.supervisor.sandbox import dies_with_caller
from devsup.supervisor.view import OVER, Life, life, server_of
from devsup.supervisor.waiting import pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.apps.commands import Plan
    from devsup.fleet.membership import Membership
    from devsup.guard.spawn import Hearing
    from devsup.supervisor.leasing import Leasing
    from devsup.supervisor.start import Starter

__all__ = ["Making"]

#: Seconds that a guard gets to record its server, whatever the caller's deadline; it needs some 60 ms.
_HAND_OVER = 5.0
#: Rounds in which dead rows may stand in the way of a reservation; each removes at least one.
_CLEARING_ROUNDS = 50
#: Guards that may die before their server is ready until that is taken for a bug.
_GUARDS = 3


class Making:
    """What one call of `start` makes; each of its steps may be called again."""

    def __init__(self, call: Starter) -> None:
        self.call = call
        self.home = call.home
        self.registry = call.registry
        #: How many guards of servers that this call has made have died.
        self.lost_guards = 0
        #: The lease of an exclusive app.
        self.leasing: Leasing | None = None
        #: The ids of dead rows that this call has cleared away.
        self.cleared: set[str] = set()

    def settle(self) -> None:
        """The call has failed: give a lease back that no server goes by."""
        if self.leasing is not None:
            self.leasing.settle()

    def create(self, executable: str) -> tuple[Row, Hearing] | None:
        """
        Return the recorded server and what its guard says; None where another has come in between.

        The session's lock is held. The rest is `wait_ready`, without it.
        """
        row = self.call.find()
        alive = life(row) if row is not None else Life.DEAD
        if row is not None and alive not in OVER:
            return None
        try:
            preflight.refuse_doubles(self.home, self.call.plan)
            reserved = self._reserve(dead=[row] if row is not None and alive is Life.DEAD else [])
        except (NameTaken, PortTaken, UnmanagedRunning):
            row = self.call.find()
            if row is None or life(row) in OVER:
                raise
            return None  # the folder's server, started under another name and so under another lock
        if reserved is None:
            return None
        return reserved, self._spawn(reserved, executable, self._only_one(reserved))

    def _reserve(self, dead: list[Row]) -> Row | None:
        limit = preflight.limit(self.call.environ)
        bounds.limit_of(self.call.environ, self.call.plan.policy)  # refused here: a guard has nobody to tell
        idle: list[Row] = []
        for _ in range(_CLEARING_ROUNDS):
            plan = self.call.plan
            preflight.refuse_taken(self.registry, plan, self.call.scope, self.call.again)
            try:
                reserved = self.registry.reserve(
                    self._row(plan),
                    dead=dead,
                    limit=limit,
                    port=plan.port,
                    idle=idle,
                    wanted=preflight.auto_port(plan),
                    log_of=self._log_of,
                )
            except SessionBusy:
                return None
            except (FolderBusy, PortLeased) as busy:
                in_the_way = preflight.refuse_occupied(plan, self.call.again, busy)
                (idle if life(in_the_way) is Life.FOREIGN else dead).append(in_the_way)
            except PoolEmpty:
                raise preflight.no_auto_port() from None
            except LimitReached:
                more = [row for row in self.registry.rows(scope=self.call.scope) if life(row) is Life.DEAD]
                if all(row in dead for row in more):
                    raise
                dead += [row for row in more if row not in dead]
            else:
                if plan.port_auto and reserved.asked_port is not None:
                    self.call.plan = plan = plan.with_port(reserved.asked_port)
                self.call.made.add(reserved.id)
                self.cleared |= {row.id for row in dead}
                trace.step(f"reserved {plan.session}, generation {reserved.generation}, port {plan.port}")
                return reserved
        raise InternalError(
            f"the registry would not take `{self.call.plan.session}`", hint="devsup list --everywhere"
        )

    def _log_of(self, generation: int) -> str:
        return self.home.log(self.call.project, self.call.plan.session, generation)

    def _row(self, plan: Plan) -> Row:
        return Row(
            id=hexlify(os.urandom(6)).decode(),
            generation=0,
            scope=self.call.scope,
            netns=system.net_namespace(),
            project=self.call.project,
            session=plan.session,
            app=plan.app,
            kind=plan.kind,
            cwd=plan.cwd,
            command=plan.command,
            log="",
            owner=plan.owner,
            started_at=now_ms(),
            folder=plan.folder,
            asked_port=plan.port,
            starter=identity.me(),
            strangers=_listening_now(),
        )

    def _only_one(self, row: Row) -> Membership | None:
        """Return what the server is to its fleet; an exclusive app has its lease then."""
        try:
            return self._membership(row)
        except DevsupError:
            if not self.call.withdraw(row):
                raise ready.stopped_before(row) from None
            raise

    def _membership(self, row: Row) -> Membership | None:
        if self.call.fleet is None or not self.call.plan.exclusive:
            return self.call.fleet[1] if self.call.fleet is not None else None
        from devsup.supervisor.leasing import Leasing

        if self.leasing is None:
            self.leasing = Leasing(self.home, self.registry, *self.call.fleet, self.cleared)
        return self.leasing.take(row, self.call.deadline)

    def _spawn(self, row: Row, executable: str, fleet: Membership | None) -> Hearing:
        """Start the guard; return once the server is recorded, or its guard has ended."""
        try:
            hearing = self._launch(row, executable, START, fleet)
        except (OSError, DevsupError) as error:
            if not self.call.withdraw(row):
                raise ready.stopped_before(row) from error  # its files went with it
            if isinstance(error, OSError):
                raise sessions.unwritable(self.home, error) from error
            raise
        # A reservation that no guard has claimed would be a dead caller's when this one ends.
        heard = hearing.wait("l", max(self.call.deadline, time.monotonic() + _HAND_OVER))
        if not heard and hearing.ended:
            # It said nothing and ended: either it lost the reservation to a stop, or it could not run.
            now = self.registry.row(row.id)
            if "c" not in hearing.steps and self.call.withdraw(row):
                hearing.close()
                if now is not None and now.stop is not None:
                    raise ready.stopped_before(row)
                log = self.home.guard_log(row.project, row.session)
                raise InternalError(
                    f"the guard of `{row.session}` did not start",
                    hint=f"read `{log}`",
                    details={"log_tail": ready.tail(log)},
                )
        elif heard:
            trace.step("the server is recorded")
        return hearing

    def _launch(self, row: Row, executable: str, mode: str, fleet: Membership | None) -> Hearing:
        return launch_guard(
            self.home, row, self.call.plan, executable, self.call.environ, mode=mode, fleet=fleet,
            redis=self.call.fleet[0].url if self.call.fleet is not None else None,
        )  # fmt: skip

    def wait_ready(self, row: Row, hearing: Hearing) -> StartResult | None:
        """Return the server that was made as soon as it is ready; None where its guard died: look again."""
        with hearing:
            tidy(self.registry, row, self.call.plan.policy)
            return self._result(row, hearing)

    def _result(self, row: Row, hearing: Hearing) -> StartResult | None:
        call = self.call
        ticker, failures = call.ticker, call.failures()
        if call.wait:
            # The deadline is asked each time: whoever starts several brings it forward when interrupted.
            while not hearing.wait("r", min(call.deadline, time.monotonic() + ticker.slice)):
                ticker.tick(f"waiting for `{row.session}`", row.log)
                if hearing.ended or time.monotonic() >= call.deadline:
                    break
            trace.step(f"the guard said {hearing.steps!r}")
        if call.wait and time.monotonic() < call.deadline:
            # What was heard may be over: a restart has begun since, or the guard is being killed, whose pipe
            # is closed a moment before it counts as dead.
            now = ready.follow(self.registry, row, deadline=call.deadline, ticker=ticker, failures=failures)
        else:
            now = ready.conclude(self.registry, row, wait=call.wait, failures=failures)
        if now is None:
            self._lost_guard(row)
            call.notes.append("its guard died before it was ready; another one went on")
            return None
        server = server_of(now, life(now))
        doom = dies_with_caller()
        call.notes += [doom] if doom is not None else []
        if call.plan.port not in (None, server.port) and server.state is State.READY:
            call.notes.append(f"asked for port {call.plan.port}, but it listens on {server.port}")
        return StartResult(server, reused=False, waited_ms=call.waited(), notes=call.notes)

    def _lost_guard(self, row: Row) -> None:
        """Count a guard that has died; where they all do, another one will not help."""
        self.lost_guards += 1
        if self.lost_guards >= _GUARDS:
            log = self.home.guard_log(row.project, row.session)
            raise InternalError(
                f"the guards of `{row.session}` die; its server may live",
                hint=f"read `{log}`",
                details={"log_tail": ready.tail(log)},
            )

    def give_guard(self, row: Row) -> None:
        """
        Start a new guard for a server whose guard has died; nothing where somebody else is at it.

        The session's lock is held.
        """
        now = self.registry.row(row.id)
        if now is None or life(now) is not Life.ORPHANED:
            return
        at_gate = now.leader is None or trees.is_guard(now.leader.pid)
        if at_gate or not self._is_unclaimed(now):
            pause(self.call.deadline)  # its child is about to end at the gate, or somebody is about to end it
            return
        executable = commands.validate(self.call.plan, self.call.environ)
        # One that was adopted was never told of its fleet; the others keep to what they were told.
        fleet = self._membership(now) if jobs.find(self.home.job(now.id)) is None else None
        with self._launch(now, executable, ADOPT, fleet) as hearing:
            if hearing.wait("l", self.call.deadline):
                adopted = now.guard == NO_GUARD
                told = "it has a guard now" if adopted else "its guard had died; it has a new one"
                self.call.notes.append(told)
            else:
                self._lost_guard(row)  # or somebody else's guard was first

    def _is_unclaimed(self, row: Row) -> bool:
        """Tell whether nobody is ending ``row``; a claim whose holder died with the guard is given back."""
        if row.stop is None:
            return True
        # Whether it still serves is seen by the new guard, which this start then waits for.
        return identity.is_gone(row.stop.by) and self.registry.unclaim(
            row.id, row.generation, row.stop, state=State.STARTING
        )


#: More are not written down: each is read by every `list`.
_STRANGERS = 100


def _listening_now() -> list[int] | None:
    """Return the inodes of this user's listening sockets, where that costs nothing."""
    if not system.CAPABILITIES.sock_diag:
        return None
    try:
        mine = [one.inode for one in system.listeners() if one.uid in (os.getuid(), None)]
    except OSError:
        return None
    return mine[:_STRANGERS]
