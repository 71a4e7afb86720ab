"""
Stop servers: claim, have the guard do it, wait for what it saw.

Many callers may stop the same server at once: one wins the claim, the others wait for it and report the same
end. All targets of one call are stopped side by side, and what happens to one does not touch another. Nothing
waits without a bound. A caller that is killed changes nothing: the guard goes on, and a claim whose holder is
dead passes to the next.
"""

from __future__ import annotations

import os
import select
import signal
import time

from devsup import identity, shutdown, trace
from devsup.clock import distinct_ms, now_ms
from devsup.errors import DevsupError, PortHeld, RegistryUnusable, Survivors
from devsup.guard import job as jobs
from devsup.models import Member, Outcome, Row, State, StopClaim, StopResult, StopResults
from devsup.registry import Registry
from devsup.shutdown import Manner, manner
from devsup.supervisor import targets, view
from devsup.supervisor.view import Life

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Thread
    from typing import Any

    from devsup.models import Identity
    from devsup.paths import Home
    from devsup.shutdown import Ended
    from devsup.supervisor.targets import Target

__all__ = ["stop_all_of"]

#: Seconds beyond grace and kill that a guard or another caller gets to finish.
MARGIN = 10.0
#: Seconds between two looks at what has no descriptor to wait on.
_LOOK_EVERY = 0.02
#: Seconds until the next look where somebody else is at work and will end when that is done.
_LOOK_ANYWAY = 1.0
#: Seconds that a stop waits for what others do with the server.
PATIENCE = shutdown.PATIENCE
#: Seconds between two looks at these: at first and at most. The end of their processes is heard at once.
_SOON, _LATER = 0.02, 0.5
#: Where everything was to stop, what has failed by one of these is tried once more, after so many seconds.
_PASSING = frozenset({"survivors", "port_held", "busy", "internal"})
_RETRY_AFTER = 0.2
#: Descriptors left for everything but waiting: streams, the registry's files, a look at processes.
_OTHER_FILES = 24
#: What there is somebody's work in to lose.
_LIVING = (Life.LIVE, Life.ORPHANED, Life.UNCLAIMED)


def stop_all_of(
    home: Home,
    project: str,
    texts: list[str],
    rows: list[Row],
    *,
    grace: float | None,
    sweep: bool,
    everywhere: bool = False,
    refuse: Callable[[Row], DevsupError | None] | None = None,
    within: Sequence[str] | None = None,
    keeps_lease: bool = False,
) -> StopResults:
    """
    Stop what ``texts`` mean and all of ``rows``; return a result for each, in that order.

    What lives and ``refuse`` has something to say against is left alone, and so is what runs outside of the
    folders ``within``. ``rows`` mean the generations that they are, not what is started or restarted
    meanwhile. ``keeps_lease`` is for a caller that starts an exclusive app again at once.
    """
    registry = Registry(home)
    stops: list[_Stop] = []
    results: dict[int, StopResult] = {}
    first_of: dict[tuple[str, int], int] = {}
    same: dict[int, int] = {}
    wanted: list[tuple[str, Row | None]] = [(text, None) for text in texts]
    wanted += [(row.app or row.session, row) for row in rows]
    for index, (text, row) in enumerate(wanted):
        try:
            target = (
                targets.find(registry, project, text, everywhere=everywhere)
                if row is None
                else targets.Target(text, row, ended=False, notes=[])
            )
            if within is not None:
                from devsup.supervisor.reach import check

                check(target.row.cwd, within)
        except DevsupError as error:
            results[index] = refusal(text, error)
            continue
        key = (target.row.id, target.row.generation)
        if key in first_of:
            same[index] = first_of[key]
            continue
        first_of[key] = index
        refused = refuse(target.row) if refuse is not None and not target.ended else None
        if refused is not None and view.life(target.row) in _LIVING:
            results[index] = refusal(text, refused)
            continue
        # Two descriptors each; beyond what the limit leaves, targets are looked at every 20 ms instead.
        may_wait = 2 * len(stops) < os.sysconf("SC_OPEN_MAX") - _OTHER_FILES
        stops.append(
            _Stop(
                index, home, registry, target, grace=grace, sweep=sweep, may_wait=may_wait,
                pinned=row is not None, keeps_lease=keeps_lease,
            )
        )  # fmt: skip
    _run(registry, stops)
    _run_again(registry, [stop for stop in stops if stop.pinned])
    results.update({stop.index: stop.result for stop in stops if stop.result is not None})
    for index, original in same.items():
        results[index] = results[original].replace(target=wanted[index][0])
    notes = [note for stop in stops for note in stop.notes]
    return StopResults([results[index] for index in range(len(wanted))], notes)


def _run(registry: Registry, stops: list[_Stop]) -> None:
    _go(registry, stops)
    while pending := [stop for stop in stops if stop.result is None]:
        poll = select.poll()
        for stop in pending:
            for handle in stop.handles:
                poll.register(handle, select.POLLIN)
        left = min(min(stop.deadline, stop.due) for stop in pending) - time.monotonic()
        ready = {fd for fd, _ in poll.poll(max(0.0, left) * 1e3 + 1)}
        now = time.monotonic()
        due = [
            stop
            for stop in pending
            if now >= min(stop.deadline, stop.due) or not ready.isdisjoint(stop.handles)
        ]
        _go(registry, due)


def _go(registry: Registry, stops: list[_Stop]) -> None:
    """Make the next step of each, on one connection: to open one takes as long as what is asked on it."""
    with registry.connection():
        for stop in stops:
            stop.go()
    for stop in stops:
        stop.settle()


def _run_again(registry: Registry, stops: list[_Stop]) -> None:
    """Try once more what has failed and may go well now."""
    failed = [stop for stop in stops if stop.result is not None and stop.result.error in _PASSING]
    if not failed:
        return
    time.sleep(_RETRY_AFTER)
    seconds = [stop.again() for stop in failed]
    _run(registry, seconds)
    for stop, second in zip(failed, seconds, strict=True):
        stop.result = second.result
        stop.notes += [f"`{stop.row.session}` was tried twice", *second.notes]


class _Stop:
    """One target on its way down. `go` makes a step and never waits; the result stands when it is over."""

    def __init__(
        self,
        index: int,
        home: Home,
        registry: Registry,
        target: Target,
        *,
        grace: float | None,
        sweep: bool,
        may_wait: bool,
        pinned: bool,
        keeps_lease: bool,
    ) -> None:
        self.index = index
        self.home = home
        self.registry = registry
        self.target = target
        self.row = target.row
        self.job = jobs.find(home.job(target.row.id))
        self.manner = manner(self.job.policy, self.job.probe) if self.job is not None else Manner()
        self.grace = self.manner.grace if grace is None else grace
        self.sweep = sweep
        self.began = time.monotonic()
        self.deadline = self.began + self.grace + shutdown.KILL_BUDGET + shutdown.PORT_BUDGET + MARGIN
        self.result: StopResult | None = None
        #: What to wait on: pidfds of the guard and of the caller that has the claim; and when to look anyway.
        self.handles: list[int] = []
        self.due = self.began
        self.mine: StopClaim | None = None
        self.asked = False
        self.worker: Thread | None = None
        #: Whether descriptors are plenty enough to wait on some for this target.
        self.may_wait = may_wait
        #: Why the registry cannot take the end.
        self.unrecorded: RegistryUnusable | None = None
        #: Only the generation that ran when the call began is meant, or the one a restart was about to make.
        self.pinned = pinned
        self.keeps_lease = keeps_lease
        #: Of whose reservation the fleet may hold a lease that is to be given back.
        self.owing: Row | None = None
        #: Until when others may finish, from the first look that has seen them on.
        self.patient_until: float | None = None
        self.pause = _SOON
        #: What it has waited for last, for the note that it did not end in time.
        self.waited_for: str | None = None
        self.notes: list[str] = []

    def again(self) -> _Stop:
        """Return a new one for the same target, which has had its time to wait for others."""
        second = _Stop(
            self.index, self.home, self.registry, self.target, grace=self.grace, sweep=self.sweep,
            may_wait=self.may_wait, pinned=self.pinned, keeps_lease=self.keeps_lease,
        )  # fmt: skip
        second.began = second.patient_until = self.began
        return second

    def go(self) -> None:
        """Make the next step; a failure is this target's own."""
        try:
            self._step()
        except RegistryUnusable as error:
            if self.target.ended or self.unrecorded is not None:
                self._finish(Outcome.FAILED, error=error.code, message=error.message)
            else:
                self._end_unrecorded(error)
        except DevsupError as error:
            self._finish(Outcome.FAILED, error=error.code, message=error.message)
        except OSError as error:
            self._finish(Outcome.FAILED, error="internal", message=str(error))
        except Exception as error:
            if not self.pinned:
                raise
            # A bug, but one that this target has met: the others are to end all the same.
            self._finish(Outcome.FAILED, error="internal", message=f"{type(error).__name__}: {error}")
        if self.result is None and self.worker is None and time.monotonic() >= self.deadline:
            self._give_up()

    def settle(self) -> None:
        """Do what may wait for others, after the step and without the registry."""
        if self.owing is not None:
            from devsup.supervisor.leasing import give_back

            row, self.owing = self.owing, None
            try:
                give_back(self.home, row)
            except Exception as error:  # whatever Redis says: it is stopped, and the others are to be
                trace.step(f"a lease of {row.session}, if any, is over by itself: {error!r}")

    def _step(self) -> None:
        self.due = time.monotonic() + _LOOK_EVERY
        if self.worker is not None:
            if not self.worker.is_alive() and self.result is None:
                # What a thread raises goes nowhere, and without an answer it would be begun again for ever.
                self._finish(Outcome.FAILED, error="internal", message="its shutdown ended by an error")
            return
        if self.target.ended:
            self._finish(Outcome.ALREADY_STOPPED)
            return
        self._close_handles()
        row, alive = view.look(self.registry, self.row.id)
        if row is None or (row.generation != self.row.generation and self.mine is not None):
            # A guard writes the end, then ends itself: nothing at all is to be left when we say so.
            if row is None and self._waits_for_guard():
                return
            self._report_end()
            return
        if self.pinned and row.generation != self.row.generation and not _is_restarting(self.row):
            self._report_end()  # somebody has restarted it since: that one is not meant
            return
        self.row = row  # a restart in between makes a later generation of the same server
        if alive is Life.FOREIGN:
            self._finish(
                Outcome.REFUSED, error="not_ours", message=f"`{row.session}` belongs to {view.whose(row)}"
            )
        elif identity.scope_relation(row.scope) == "lost":
            # Its numbers mean other processes here, or none: there is nothing to end but the row.
            jobs.remove(self.home.job(row.id))
            self.registry.end_lost([row], identity.here().key)
            self._finish(Outcome.ALREADY_STOPPED)
        elif alive is Life.ENDED:
            self.registry.dismiss(row.id, row.generation)
            self._finish(Outcome.ALREADY_STOPPED)
        elif self._has_claim(row):
            self._proceed(row, alive)

    def _waits_for_guard(self) -> bool:
        guard = self.row.guard
        if guard is None or identity.is_gone(guard) or time.monotonic() >= self.deadline:
            return False
        self._wait_for(guard)
        return True

    def _wait_for(self, *processes: Identity, at_most: float = float("inf")) -> None:
        """Wait for the end of any of ``processes`` instead of looking again and again."""
        if not self.may_wait:
            return
        handles = [_handle_of(one) for one in processes]
        self.handles = [handle for handle in handles if handle is not None]
        if len(self.handles) == len(handles):
            self.due = time.monotonic() + at_most

    def _has_claim(self, row: Row) -> bool:
        """Claim the stop; where another has it, arrange to wait for that."""
        if self.mine is not None and row.stop == self.mine:
            return True
        held = row.stop
        dead = held.by if held is not None and identity.is_gone(held.by) else None
        mine = StopClaim(identity.me(), distinct_ms(), "stop", self.grace, self.sweep)
        if held is None or dead is not None or held.purpose == "restart":  # a stop outranks a restart
            held = self._try_claim(row, mine, dead)
            if held is None:
                return False
        if held == mine:
            self.mine = mine
            trace.step(f"claimed the stop of {row.session}")
            return True
        if held is not None and row.guard is not None and not identity.is_gone(row.guard):
            # The holder may be killed before it has asked the guard, or give its claim back.
            self._wait_for(row.guard, held.by, at_most=_LOOK_ANYWAY)
        # Without a guard the holder does it, and that may live on (an agent's): look again.
        return False

    def _try_claim(self, row: Row, mine: StopClaim, dead: Identity | None) -> StopClaim | None:
        """Return the claim in force; None where it has ended, or others get some time to finish."""
        if self.patient_until is not None and time.monotonic() >= self.patient_until:
            held = self.registry.claim_stop(row.id, row.generation, mine, dead_holder=dead)
            if held == mine and self.waited_for is not None:
                self.notes.append(
                    f"`{row.session}` was stopped amid {self.waited_for}: it had {PATIENCE:.0f} s to finish"
                )
            return held
        answer = self.registry.claim_patiently(row.id, row.generation, mine, dead_holder=dead)
        if isinstance(answer, list):
            from devsup.supervisor import operations

            own = operations.own(row.id)
            others = [one for one in self.registry.living(answer) if one.number not in own]
            if others:
                self._be_patient(operations.described(others[0]), *(one.by for one in others))
                return None
            answer = self.registry.claim_patiently(row.id, row.generation, mine, dead_holder=dead, but=own)
            if isinstance(answer, list):
                return None  # another one has begun: the next step looks at it
        if answer is not None and answer != mine and answer.purpose == "restart":
            self._be_patient(f"the restart by pid {answer.by.pid}", answer.by)
            return None
        return answer

    def _be_patient(self, what: str, *processes: Identity) -> None:
        now = time.monotonic()
        if self.patient_until is None:
            self.deadline += PATIENCE
            self.patient_until = now + PATIENCE
        self.waited_for = what
        self._wait_for(*list(dict.fromkeys(processes))[:2])
        self.due = min(now + self.pause, self.patient_until)
        self.pause = min(self.pause * 2, _LATER)

    def _proceed(self, row: Row, alive: Life) -> None:
        if row.guard is None:
            if self.registry.withdraw(row.id, row.generation):
                jobs.remove(self.home.job(row.id))
                if alive is Life.DEAD and not self.keeps_lease:
                    self.owing = row  # its caller was killed, and nobody will know of its server
                self._finish(Outcome.STOPPED, port_free=True)
            return  # its guard has claimed it meanwhile: the next step asks that
        if alive is Life.LIVE:
            self._ask_guard(row)
        else:
            self._do_it_here(row, Outcome.STOPPED if alive is Life.ORPHANED else Outcome.ALREADY_STOPPED)

    def _ask_guard(self, row: Row) -> None:
        assert row.guard is not None
        if time.monotonic() >= self.deadline:
            self._end_deaf_guard(row)
            return
        if not self.asked:
            identity.signal(row.guard, signal.SIGTERM)
            identity.signal(row.guard, signal.SIGCONT)
            self.asked = True
            trace.step(f"asked guard {row.guard.pid} to stop {row.session}")
        self._wait_for(row.guard)

    def _end_deaf_guard(self, row: Row) -> None:
        # Stopped by a debugger, say. It is ours, and without it the tree can be ended from here.
        assert row.guard is not None
        identity.signal(row.guard, signal.SIGKILL)
        self.deadline += MARGIN

    def _do_it_here(self, row: Row, outcome: Outcome) -> None:
        """End the tree without a guard; in a thread of its own, so that other targets do not wait."""
        import threading

        self.worker = threading.Thread(target=self._end_tree, args=(row, outcome), daemon=True)
        self.worker.start()
        self.deadline = time.monotonic() + self.grace + shutdown.KILL_BUDGET + shutdown.PORT_BUDGET + MARGIN

    def _end_tree(self, row: Row, outcome: Outcome) -> None:
        try:
            ended = self._end_processes(row)
            plain = ended.asdict()
            if ended.survivors or ended.port_held:
                code = Survivors.code if ended.survivors else PortHeld.code
                self._finish(Outcome.FAILED, seen=plain, error=code)
                return
            state = State.STOPPED if outcome is Outcome.STOPPED else State.CRASHED
            reason = "stop" if outcome is Outcome.STOPPED else "found dead: neither it nor its guard was left"
            stored = {**plain, "survivors": [], "left_running": [one.asdict() for one in ended.left_running]}
            jobs.remove(self.home.job(row.id))
            self.registry.finish(
                row.id, row.generation, state=state, exit_code=None, signal=None, reason=reason,
                by=f"pid {os.getpid()}", outcome=stored, keep=False, at=now_ms(),
            )  # fmt: skip
            self._leave_fleet(row)
            self._finish(outcome, seen=plain)
        except (DevsupError, OSError) as error:
            # The processes are ended in any case; what could not be written is said.
            code = error.code if isinstance(error, DevsupError) else "internal"
            self._finish(Outcome.FAILED, error=code, message=f"stopped, but its row stays: {error}")

    def _leave_fleet(self, row: Row) -> None:
        if self.job is not None and self.job.fleet is not None:
            from devsup.supervisor.leasing import leave

            leave(self.home, row, self.job, keeps_lease=self.keeps_lease)

    def _end_processes(self, row: Row) -> Ended:
        port = row.port or row.asked_port
        manner, inode = self.manner, row.listener_inode
        return shutdown.end(
            view.tree_of(row).replace(keep=manner.keep),
            grace=self.grace,
            sweep=self.sweep,
            port=port,
            first=manner.first,
            awaited=frozenset([inode] if manner.any_owner and inode is not None else []),
        )

    def _end_unrecorded(self, error: RegistryUnusable) -> None:
        """End the server all the same: a full disk is no reason for it to hold its port."""
        import threading

        self.unrecorded = error
        self.worker = threading.Thread(target=self._end_and_say, args=(error,), daemon=True)
        self.worker.start()

    def _end_and_say(self, error: RegistryUnusable) -> None:
        guard = self.row.guard
        signals: list[str] = []
        while guard is not None and not identity.is_gone(guard) and time.monotonic() < self.deadline:
            if not signals:
                # Without a claim to read it does what TERM means to a guard: an orderly stop.
                identity.signal(guard, signal.SIGTERM)
                identity.signal(guard, signal.SIGCONT)
                signals = ["SIGTERM"]
            time.sleep(_LOOK_EVERY)
        try:
            ended = self._end_processes(self.row)
        except OSError as problem:
            self._finish(Outcome.FAILED, error="internal", message=str(problem))
            return
        what = "its processes are not all ended" if ended.survivors else "its processes are ended"
        seen = {**ended.asdict(), "signals": list(dict.fromkeys([*signals, *ended.signals]))}
        self._finish(
            Outcome.FAILED, seen=seen, error=error.code, message=f"{what}, but its row stays: {error.message}"
        )

    def _report_end(self) -> None:
        """The row is gone: report what the one who ended it saw."""
        history = self.registry.ended(id=self.row.id, limit=50)
        ended = next((row for row in history if row.generation == self.row.generation), None)
        if ended is None:
            self._finish(Outcome.STOPPED_BY_OTHER if self.mine is None else Outcome.STOPPED)
            return
        self.row = ended
        asked = self.mine is not None and ended.state is State.STOPPED
        if asked:
            outcome = Outcome.STOPPED
        else:
            outcome = Outcome.STOPPED_BY_OTHER if ended.state is State.STOPPED else Outcome.ALREADY_STOPPED
        self._finish(outcome, seen=ended.outcome)

    def _give_claim_back(self) -> None:
        # This process may live on (an agent's), and its claim would keep the next stop from trying.
        assert self.mine is not None
        try:
            self.registry.unclaim(self.row.id, self.row.generation, self.mine)
        except DevsupError as error:
            trace.step(f"the claim stays: {error}")

    def _give_up(self) -> None:
        self._finish(
            Outcome.FAILED,
            error="busy",
            message=f"something else with `{self.row.session}` took over {self.deadline - self.began:.0f} s",
        )

    def _finish(
        self,
        outcome: Outcome,
        *,
        seen: dict[str, Any] | None = None,
        error: str | None = None,
        message: str | None = None,
        port_free: bool | None = None,
    ) -> None:
        self._close_handles()
        if error is not None and self.mine is not None:
            self._give_claim_back()
        seen = seen or {}
        survivors = _members(seen.get("survivors"))
        if survivors and self.unrecorded is None:
            outcome = Outcome.FAILED
            message = f"{len(survivors)} processes survived SIGKILL"
        elif seen.get("port_held") and error in (None, PortHeld.code):
            outcome, error = Outcome.FAILED, PortHeld.code
            message = "a listening socket of it outlived its processes"
        free = seen.get("port_free", port_free)
        alive = view.life(self.row) if error is not None else Life.ENDED
        self.result = StopResult(
            target=self.target.text,
            server=view.server_of(self.row, alive),
            outcome=outcome,
            signals=seen.get("signals") or [],
            escalated=bool(seen.get("escalated")),
            ms=round((time.monotonic() - self.began) * 1e3),
            survivors=survivors,
            left_running=_members(seen.get("left_running")),
            port_free=free if isinstance(free, bool) else None,
            error=error,
            message=message or "; ".join(self.target.notes) or None,
        )

    def _close_handles(self) -> None:
        for handle in self.handles:
            os.close(handle)
        self.handles = []


def _is_restarting(row: Row) -> bool:
    return row.state is State.RESTARTING or (row.stop is not None and row.stop.purpose == "restart")


def _handle_of(who: Identity) -> int | None:
    try:
        return identity.wait_handle(who)
    except OSError:
        return None  # no pidfd here, or no descriptor left: looked at every 20 ms instead


def _members(value: object) -> list[Member]:
    return (
        [one if isinstance(one, Member) else Member(**one) for one in value]
        if isinstance(value, list)
        else []
    )


_REFUSALS = {
    "not_found": Outcome.NOT_FOUND,
    "not_ours": Outcome.REFUSED,
    "other_owner": Outcome.REFUSED,
}


def refusal(text: str, error: DevsupError) -> StopResult:
    """Return the result of a target that was left alone because of ``error``."""
    outcome = _REFUSALS.get(error.code, Outcome.FAILED)
    return StopResult(
        target=text,
        server=None,
        outcome=outcome,
        signals=[],
        escalated=False,
        ms=0,
        survivors=[],
        left_running=[],
        port_free=None,
        error=error.code,
        message=error.message,
        hint=error.hint,
        details=error.details or None,
    )
