"""
The guard at work: one `poll()` over signals, processes, probes and timers, from the claim to the end.

One thread. The registry is the only thing shared with others, and every write to it names the generation, so
a write that comes too late changes nothing. A signal only says "look at your row": what is asked stands
there.
"""

from __future__ import annotations

import os
import select
import time

from devsup import identity, system
from devsup.clock import now_ms
from devsup.fleet.membership import ADDRESS
from devsup.guard import backoff, endings, launch, settling
from devsup.guard import health as checks
from devsup.guard.backoff import Backoff
from devsup.guard.book import FAILURES, Book, place, say
from devsup.guard.bounding import Bounding
from devsup.guard.charge import Charge
from devsup.guard.children import Exit
from devsup.guard.health import Health
from devsup.guard.launch import Refused
from devsup.guard.lifetimes import ASKED, IDLE, IN_FLIGHT, LOST, PARENT, TTL, Lifetimes
from devsup.guard.pace import Pace
from devsup.guard.table import TRANSITIONS, Happening
from devsup.guard.talk import Caller, Signals
from devsup.guard.timers import Timers
from devsup.models import State, StopClaim
from devsup.paths import Home
from devsup.readiness import find
from devsup.registry.frozen import End
from devsup.registry.locking import PATIENCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.fleet.requests import Stop
    from devsup.guard.beginning import Begun
    from devsup.guard.fleet import Fleet
    from devsup.guard.job import Job
    from devsup.guard.launch import Launched
    from devsup.readiness import Found
    from devsup.shutdown import Ended

__all__ = ["Guard"]

#: Poll interval for processes of whose end nothing tells: there is no descriptor of them, no SIGCHLD.
_UNTOLD = 1.0
#: The timers of the pause before the next try, and before a restart is tried again.
_AGAIN, _ANEW = "again", "anew"

_UP_STATES = (State.STARTING, State.RUNNING, State.READY, State.UNHEALTHY)
_WELL = (State.RUNNING, State.READY)
_OVER = (State.STOPPED, State.EXITED, State.CRASHED)


class Guard:
    """
    One server's guard. `run` returns the guard's own exit status.

    ``begun`` is the server's first launch, where that is over; else `run` does all of it.
    """

    def __init__(self, job: Job, *, adopt: bool, begun: Begun | None = None) -> None:
        self.adopt = adopt
        self.begun = begun
        self.charge = Charge(job, adopt=adopt, strangers=begun.strangers if begun is not None else None)
        self.book = Book(self.charge)
        self.signals = begun.signals if begun is not None else Signals()
        self.caller = begun.caller if begun is not None else Caller()
        self.bounding = Bounding(job.log, ours=Home(job.home).owns(job.log), policy=job.policy)
        self.timers = Timers()
        self.pace = Pace(say)
        self.health = Health(job)
        self.lifetimes = Lifetimes(self.charge, self.book, self.health, self.timers)
        self.backoff = Backoff()
        #: None where it is in no fleet.
        self.fleet: Fleet | None = None
        #: How the run before this pause ended, and which try comes next.
        self.failed: tuple[End, backoff.Pause] | None = None
        #: Why it ends, where nobody has asked for that.
        self.over: str | None = None

    def run(self) -> int:
        """Guard from the claim to the end of the server."""
        charge = self.charge
        if self.begun is None:
            self.signals.listen()
        if self.adopt:
            if not self._take_over():
                return 0
            self._join_fleet()
        elif self.begun is not None:
            self._launched(self.begun.launched)
        else:
            if not self.book.registry.claim(charge.job.id, charge.generation, charge.me):
                return 0  # the caller died or was stopped, and the reservation went to somebody else
            self.caller.say("c")
            self._join_fleet()
            self._launch()
        self.lifetimes.begin()
        if charge.state not in _OVER:
            self.caller.say("l")
        while charge.state not in _OVER:
            try:
                self._turn()
            except FAILURES as error:
                # A look that failed (no descriptor left, say) is no reason to leave the server alone.
                say(f"went on after: {error!r}")
                self.signals.stop = self.signals.stop or charge.state is State.STOPPING
                self.signals.look = self.signals.look or charge.state is State.RESTARTING
                self.signals.rest(_UNTOLD)
        return 0

    def _join_fleet(self) -> None:
        if self.charge.job.fleet is not None:
            from devsup.guard.fleet import join  # loaded before anything runs, see `beginning`

            self.fleet = join(self.charge, self.book, os.environ.get(ADDRESS))
            self.book.left = self.fleet.patience if self.fleet is not None else None

    # -- the loop ------------------------------------------------------------------------------------

    def _turn(self) -> None:
        charge = self.charge
        poll = select.poll()
        poll.register(self.signals.fd, select.POLLIN)
        for handle in charge.handles.all():
            poll.register(handle, select.POLLIN)
        fleet = self.fleet.fds() if self.fleet is not None else ()
        for fd, events in (*charge.watch.fds(), *self.health.fds(), *fleet):
            poll.register(fd, events)
        if self.bounding.fd is not None:
            poll.register(self.bounding.fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(self._timeout())}
        if self._has_lost_lease():
            self.over = self.over or LOST
            self._obey()
            return
        self.bounding.advance(ready)
        if self.signals.fd in ready:
            self.signals.hear()
        charge.reap()
        self._see_leader()
        if self.lifetimes.parent_is_gone():
            self._run_out(PARENT)
        if self.fleet is not None:
            self.fleet.advance(ready)
            if self.fleet.has_news() and self._request() is not None:
                self._run_out(ASKED)
        if self.over or self.signals.stop or self.signals.look:
            self._obey()
            return
        found = charge.watch.advance(ready)
        if found is not None:
            self._serve(found)
        self._see_listener()
        self._check(ready)
        self._keep_time()

    def _timeout(self) -> float | None:
        """Milliseconds until something is due; None for ever."""
        charge = self.charge
        now = time.monotonic()
        moments = {
            # What failed in the turn before is tried again.
            "signal": now if self.signals.stop or self.signals.look else None,
            "watch": charge.watch.due,
            "registry": self.book.due,
            "log": self.bounding.due,
            "timers": self.timers.due,
            "health": self.health.due,
            "fleet": self.fleet.wakes_at if self.fleet is not None else None,
            "settling": min(settling.due(charge), default=None),
        }
        if not system.CAPABILITIES.pidfd or charge.hears_of_nobody():
            moments["untold"] = now + _UNTOLD
        seconds = self.pace.sleep(moments, time.monotonic())
        return seconds * 1e3 + 1 if seconds is not None else None

    def _see_leader(self) -> None:
        charge = self.charge
        if charge.see_leader():
            assert charge.leader is not None
            assert charge.left is not None
            code, number = charge.left.code, charge.left.signal
            say(f"leader {charge.leader.pid} ended: exit code {code}, signal {number}")

    def _see_listener(self) -> None:
        charge = self.charge
        if charge.listener is None or charge.state not in (State.READY, State.UNHEALTHY):
            return
        if charge.lost_listener() and charge.lost_at is None and charge.watch.due is None:
            charge.handles.forget("listener")
            charge.lost_at = time.monotonic()
            self.health.stop()  # nobody is there to be asked, until it serves again
            charge.watch.restart()

    def _check(self, ready: set[int]) -> None:
        """Ask it whether it is well, where that is wanted."""
        charge, health = self.charge, self.health
        if health.due is None:
            return
        well = health.advance(ready, charge.job, charge.listener)
        if well and charge.state is State.UNHEALTHY and charge.listener is not None:
            self._serve(charge.listener)
        if well is False and health.failed >= checks.FAILURES and charge.state is State.READY:
            self._unwell(Happening.UNWELL, health.why, f"{health.failed} checks failed: {health.why}")

    def _unwell(self, happening: Happening, why: str, reason: str) -> None:
        """Say that it is unhealthy, and run it again where that is wanted."""
        charge, now = self.charge, time.monotonic()
        if charge.up_since is not None and now - charge.up_since >= backoff.STEADY:
            self.backoff.forget()
        charge.up_since = None
        self._become(happening, event="unhealthy", reason=reason)
        if self.health.restarts:
            self._failed(Exit(), f"unhealthy: {why}")

    def _keep_time(self) -> None:
        charge, now = self.charge, time.monotonic()
        if self.book.due is not None and now >= self.book.due:
            self.book.write()
        happening = settling.left(charge, now)
        if happening is not None and charge.left is not None:
            self._left(happening, charge.left)
        if settling.lives(charge, now):
            self._see_life()
        if settling.has_lost_listener(charge, now):
            why = "nothing listens any more"
            self._unwell(Happening.LISTENER_LOST, why, why)
        for name in self.timers.fired(now):
            try:
                self._fire(name)
            except BaseException:
                # It was due and is not done: once more, when whatever was the matter may be over.
                self.timers.arm(name, time.monotonic() + _UNTOLD)
                raise

    def _fire(self, name: str) -> None:
        charge = self.charge
        if name == _AGAIN:
            self._run_again()
        elif name == _ANEW and charge.state is State.RESTARTING:
            self._restart(grace=None)
        elif name == IN_FLIGHT and self.lifetimes.ending == ASKED and self._request() is None:
            self.lifetimes.spare()  # who asked has gone, or meant a generation that is over
        elif name in (TTL, IN_FLIGHT) or (name == PARENT and self.lifetimes.looks_for_parent()):
            self._run_out(self.lifetimes.ending or name)
            if self.over:
                self._obey()
        elif name == IDLE and charge.state in (State.READY, State.UNHEALTHY) and self.lifetimes.is_unused():
            charge.enter(Happening.STOP)
            self.over = name
            self._obey()

    def _run_out(self, reason: str) -> None:
        """Its time is over: end it when nothing is in flight, or when that has had some time to end."""
        if not self.lifetimes.has_to_wait(reason):
            self.over = self.lifetimes.ending

    def _see_life(self) -> None:
        """A command that need not listen is up."""
        charge = self.charge
        if charge.watch.has_said_so:
            self._become(Happening.LIVED, event="ready", ready_at=now_ms(), reason="log")
        else:
            self._become(Happening.LIVED)
        charge.up()
        charge.watch.relax()
        self.caller.say("r")

    # -- what happens --------------------------------------------------------------------------------

    def _launch(self) -> bool:
        """Run the server's first process; False where that has ended already, or never ran."""
        charge = self.charge
        return self._launched(
            launch.launch(charge.job, charge.me, self.book.registry, forbidden=self._has_lost_lease)
        )

    def _launched(self, launched: Launched) -> bool:
        """Take in what has come of a launch."""
        charge, job, refused = self.charge, self.charge.job, launched.refused
        charge.launched_at = launched.at
        if refused is None or refused is Refused.NOT_EXECUTED:
            charge.leader = launched.leader
        if refused is None:
            assert launched.leader is not None
            charge.handles.watch("leader", launched.leader)
            return True
        if refused is Refused.UNWRITABLE:
            reason = f"its log `{job.log}` cannot be written: {launched.reason}"
            self._end(State.CRASHED, ended=None, reason=reason)
        elif refused is Refused.KILLED:
            self._left(Happening.LEFT, Exit(*launched.left))
        elif refused is Refused.UNRECORDED:
            claim = self.book.claim()
            if claim is not None and claim.purpose == "restart" and charge.enter(Happening.RESTART):
                self._restart(grace=claim.grace)  # of what has not run yet: the next generation does
                return charge.state not in _OVER
            self._end(State.STOPPED, ended=None, reason="stopped before it ran")
        elif refused is Refused.FORBIDDEN:
            # This machine slept since the lease was taken, or since the run before.
            self._end(State.STOPPED, ended=None, reason=LOST, by="guard")
        else:
            say(launched.reason)
            with open(job.log, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"devsup: {launched.reason}\n")
            self._left(Happening.LEFT, Exit(code=127))
        return False

    def _take_over(self) -> bool:
        """Become the guard of a server that lives without one; False where somebody else has."""
        charge, registry = self.charge, self.book.registry
        row = registry.row(charge.job.id)
        # Two callers may each have started a guard for it; the first one has it.
        if row is None or row.guard is None or not identity.is_gone(row.guard):
            return False
        if not registry.claim(row.id, row.generation, charge.me, instead_of=row.guard):
            return False
        charge.job = charge.job.replace(generation=row.generation)
        charge.leader = row.leader
        charge.state = row.state if row.state in _UP_STATES else State.STARTING
        charge.was_up = charge.state is not State.STARTING
        charge.ever_up = charge.was_up or row.ready_at is not None
        charge.launched_at = time.monotonic()
        charge.up_since = charge.launched_at if charge.state in _WELL else None
        if charge.state is State.READY and find(charge.tree(), asked=None, log=charge.job.log) is None:
            charge.lost_at = charge.launched_at  # its listener ended while nobody looked
        if charge.leader is not None:
            charge.handles.watch("leader", charge.leader)
        self.caller.say("c")
        return True

    def _serve(self, found: Found) -> None:
        """Record where the tree serves: for the first time, or after its listener was replaced."""
        again = self.charge.state is State.READY
        self.charge.serve(found)
        if self.health.due is None:
            self.health.begin(time.monotonic())
        if not self.timers.is_armed(IDLE):
            self.lifetimes.serves()
        if again:
            self.book.write(**place(found))
        else:
            self._become(Happening.SERVING, event="ready", ready_at=now_ms(), **place(found))
        self.caller.say("r")

    def _obey(self) -> None:
        charge = self.charge
        told = self.signals.take()
        if self.over == LOST and not self._has_time():
            charge.enter(Happening.STOP)
            self._pause_all()
            self._end(State.STOPPED, ended=self._shut_down(), reason=LOST, by="guard")
            return
        claim = self.book.claim()
        if claim is None and not told and self.over is None:
            charge.watch.hurry()  # what was asked has been done, or somebody waits for us to see it ready
            return
        if claim is not None and claim.purpose == "restart" and self.over is None:
            self.backoff.forget()
            if charge.enter(Happening.RESTART):
                self._restart(grace=claim.grace)
            return
        asked = claim is not None and claim.purpose == "stop"
        order = claim or (self._request() if self.over == ASKED else None)
        reason = "stop" if asked else self.over or "signal"
        if claim is None:
            amid = self.lifetimes.amid
            details = {} if amid is None else {"details": {"amid": amid}}
            self._become(Happening.STOP, event="stopping", reason=reason, **details)
        else:
            charge.enter(Happening.STOP)
        self._pause_all()
        grace, sweep = (order.grace, order.sweep) if order is not None else (None, False)
        ended = self._shut_down(grace=grace, sweep=sweep)
        by = "guard" if self.over else "signal"
        if isinstance(order, StopClaim):
            by = f"pid {order.by.pid}" if asked else by
        elif order is not None:
            by = order.by
        self._end(State.STOPPED, ended=ended, reason=reason, by=by)

    def _restart(self, *, grace: float | None) -> None:
        self._pause_all()
        ended = self._shut_down(grace=grace)
        if not endings.is_over(ended):
            self._end(State.STOPPED, ended=ended, reason="restart")
            return
        if self._has_lost_lease():
            self._end(State.STOPPED, ended=ended, reason=LOST, by="guard")
            return
        try:
            job = self.book.begin_generation()
        except FAILURES as error:
            say(f"cannot begin again: {error}")
            self.charge.rest()  # its end was asked for, and is not to be judged
            self.timers.arm(_ANEW, time.monotonic() + _UNTOLD)
            return
        if job is None:
            self._end(State.STOPPED, ended=ended, reason="stop")  # a stop came while it went down
            return
        self._begin(job)

    def _begin(self, job: Job) -> None:
        """Run the next generation."""
        charge = self.charge
        self.failed = None
        charge.begin_again(job)
        self.bounding.finish()
        self.bounding = Bounding(job.log, ours=Home(job.home).owns(job.log), policy=job.policy)
        self.book.forget()
        charge.enter(Happening.LAUNCHED)
        self.book.write_job()
        try:
            self._launch()
        except FAILURES as error:
            if charge.state is not State.STARTING:
                raise  # its end, or a restart in its place, has begun: that goes on
            # No process could be had, or it could not be recorded: nothing else would ever end this start.
            charge.left, charge.left_at = Exit(), time.monotonic()
            self._left(Happening.LEFT, charge.left, f"it could not be run: {error}")

    # -- ends that nobody has asked for --------------------------------------------------------------

    def _left(self, happening: Happening, left: Exit, reason: str | None = None) -> None:
        """The server has ended by itself: run it again where that is wanted, or record its end."""
        charge = self.charge
        if TRANSITIONS[charge.state][happening] is None:
            return
        reason = reason or endings.how(left)
        wanted = charge.job.policy.get("restart")
        # Who starts it and waits is told at once that it cannot run; `always` means that, too.
        failure = wanted == "on-failure" and happening is Happening.LEFT and charge.ever_up
        if failure or wanted == "always":
            self._failed(left, reason)
        else:
            self._stays_down(happening, left, reason)

    def _failed(self, left: Exit, reason: str) -> None:
        """End what is left of this run; the next one comes after a pause, unless there were too many."""
        charge, now = self.charge, time.monotonic()
        pause = self.backoff.failed(now, up_since=charge.up_since)
        if pause is None:
            many = f"gave up after {backoff.MOST} restarts within {backoff.WINDOW:g} s"
            self._stays_down(Happening.LEFT, left, f"{many}: {reason}")
            return
        self.failed = (
            End(State.EXITED, left.code, left.signal, reason, by=None, outcome=None, at=now_ms(), keep=False),
            pause,
        )
        self._become(
            Happening.FAILED, port=None, url=None, listener_pid=None, listener_inode=None,
        )  # fmt: skip
        self._pause_all()
        ended = self._shut_down()
        if not endings.is_over(ended):
            self._end(State.CRASHED, ended=ended, reason=reason, left=left)
            return
        charge.rest()
        say(f"{reason}; try {pause.attempt} in {pause.seconds:g} s")
        self.timers.arm(_AGAIN, time.monotonic() + pause.seconds)

    def _run_again(self) -> None:
        """The pause is over."""
        if self.failed is None:
            return  # somebody has restarted it meanwhile
        failed, pause = self.failed
        details = {"attempt": pause.attempt, "delay_ms": round(pause.seconds * 1e3)}
        job = self.book.begin_generation(failed, details)
        if job is not None:
            self.backoff.restarted(time.monotonic())
            self._begin(job)
        elif self.book.claim() is not None:
            self._obey()  # a stop was claimed meanwhile, and is about to be asked for
        else:
            self._end(State.STOPPED, ended=None, reason="stop")  # somebody has ended its row

    def _stays_down(self, happening: Happening, left: Exit, reason: str) -> None:
        charge = self.charge
        state = TRANSITIONS[charge.state][happening]
        assert state is not None
        self._pause_all()
        ended = self._shut_down()
        self._end(state, ended=ended, reason=reason, keep=charge.ever_up, left=left)

    def _pause_all(self) -> None:
        """Check and count no more, until it serves again."""
        self.health.stop()
        self.timers.disarm(_AGAIN, _ANEW, IDLE)

    def _shut_down(self, *, grace: float | None = None, sweep: bool = False) -> Ended:
        self.bounding.rest()
        return endings.shut_down(self.charge, self.book, grace=grace, sweep=sweep, fleet=self.fleet)

    def _end(self, state: State, *, ended: Ended | None, reason: str, **how: Any) -> None:
        self.bounding.finish()
        endings.end(self.charge, self.book, state, ended=ended, reason=reason, **how)
        self.caller.close()
        if self.fleet is not None:
            over = ended is None or endings.is_over(ended)
            self.fleet.finish(state, ended, reason=reason, is_over=over)

    # -- its fleet -----------------------------------------------------------------------------------

    def _has_lost_lease(self) -> bool:
        return self.fleet is not None and self.fleet.is_over()

    def _has_time(self) -> bool:
        """Tell whether its lease leaves time to ask a registry that somebody has locked."""
        return self.fleet is None or self.fleet.patience() > PATIENCE / 2

    def _request(self) -> Stop | None:
        return self.fleet.request() if self.fleet is not None else None

    def _become(self, happening: Happening, **fields: Any) -> None:
        if self.charge.enter(happening):
            self.book.write(state=self.charge.state, **fields)
