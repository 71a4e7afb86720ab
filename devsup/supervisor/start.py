"""
Start an app, or find the server that it already has.

However many callers ask at once, one server comes of it: the first look is at the registry; who finds nothing
takes the session's lock and looks again; the reservation is one transaction; and the unique indexes hold even
where somebody passes the lock. The lock is held until the server is recorded, not while it becomes ready. A
caller killed at any point leaves a tracked server or nothing.
"""

from __future__ import annotations

import os
import time
from binascii import hexlify

from devsup import bounds, identity, masking, system, trace
from devsup import tree as trees
from devsup.apps import commands
from devsup.clock import now_ms
from devsup.errors import (
    Busy,
    DevsupError,
    InsideItself,
    InternalError,
    Interrupted,
    LimitReached,
    LockTimeout,
    NameTaken,
    PortTaken,
    RegistryUnusable,
    StoppedMeanwhile,
    Terminated,
    UnmanagedRunning,
)
from devsup.guard import job as jobs
from devsup.guard.spawn import ADOPT, START
from devsup.models import NO_GUARD, Row, StartResult, State
from devsup.registry import FolderBusy, PoolEmpty, PortLeased, Registry, SessionBusy
from devsup.supervisor import differing, preflight, ready
from devsup.supervisor.launching import launch_guard, session_lock, tidy
from devsup.supervisor.sandbox import dies_with_caller
from devsup.supervisor.view import Life, life, server_of, tree_of, trouble
from devsup.supervisor.waiting import Changes, Ticker, pause
from devsup.tree import MARKER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from devsup.apps.commands import Plan
    from devsup.fleet.membership import Membership
    from devsup.fleet.settings import Settings
    from devsup.guard.spawn import Hearing
    from devsup.locks import Hold
    from devsup.paths import Home
    from devsup.supervisor.leasing import Leasing
    from devsup.supervisor.waiting import Progress

__all__ = ["Starter"]

#: Seconds that a guard gets to record its server, whatever the caller's deadline; it needs some 60 ms.
_HAND_OVER = 5.0
#: Rounds in which dead rows may stand in the way of a reservation; each removes at least one.
_CLEARING_ROUNDS = 50
#: Guards that may die before their server is ready until that is taken for a bug.
_GUARDS = 3

#: What is no server any more.
_OVER = (Life.DEAD, Life.ENDED)


class Starter:
    """One call of `start`. Made for a plan that is complete; `run` does the rest."""

    def __init__(
        self,
        home: Home,
        plan: Plan,
        *,
        project: str,
        deadline: float,
        wait: bool,
        environ: Mapping[str, str],
        given_env: Mapping[str, str],
        given_command: list[str] | None = None,
        given_policy: Mapping[str, Any] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        fleet: tuple[Settings, Membership] | None = None,
    ) -> None:
        self.home = home
        self.registry = Registry(home)
        self.plan = plan
        self.project = project
        self.began = time.monotonic()
        self.deadline = deadline
        self.wait = wait
        self.environ = environ
        self.given_env = given_env
        self.given_command = given_command
        self.given_policy = given_policy or {}
        self.ticker = Ticker(on_progress)
        self.scope = identity.here().key
        self.notes: list[str] = list(plan.notes)
        #: The ids of the servers that this call has made, and how many of their guards have died.
        self.made: set[str] = set()
        self.lost_guards = 0
        #: Where its fleet is, and what a server of it is to that; the lease of an exclusive app.
        self.fleet = fleet
        self.leasing: Leasing | None = None
        #: The ids of dead rows that this call has cleared away.
        self.cleared: set[str] = set()

    def run(self) -> StartResult:
        """Return the server, started or found; see the errors of `Supervisor.start`."""
        try:
            return self._run()
        except BaseException:
            if self.leasing is not None:
                self.leasing.settle()
            raise

    def _run(self) -> StartResult:
        try:
            while True:
                result = self._round()
                if result is not None:
                    return result
                if time.monotonic() >= self.deadline:
                    raise Busy(
                        f"`{self.plan.session}` changed again and again until the time was over",
                        hint=f"devsup status {self.plan.app or self.plan.session}",
                    )
        except (KeyboardInterrupt, Interrupted, Terminated) as error:
            raise self._interrupted(error) from None
        except StoppedMeanwhile as error:
            error.hint = self._again()
            raise

    def _round(self) -> StartResult | None:
        row = self._find()
        alive = life(row) if row is not None else Life.DEAD
        if row is None or alive in _OVER:
            return self._create()
        self._refuse_inside(row)
        if row.state is State.STOPPING:
            self._wait_for_end(row)
            return None
        self._refuse_another_command(row, alive)
        if alive is Life.ORPHANED:
            self._give_guard(row)
            return None
        if alive is Life.UNCLAIMED or row.state in (State.STARTING, State.RESTARTING):
            return self._join(row)
        return self._reuse(row, alive)

    # -- a server that is there ----------------------------------------------------------------------

    def _find(self) -> Row | None:
        """Return the session's row, or that of the server which has the app's folder under another name."""
        row = self.registry.find(self.scope, self.project, self.plan.session)
        if self.plan.folder is None or (row is not None and life(row) not in _OVER):
            return row
        other = self.registry.in_folder(self.scope, self.plan.folder)
        return row if other is None or life(other) in _OVER else other

    def _reuse(self, row: Row, alive: Life) -> StartResult | None:
        """Return the server that was found; None where it is being stopped since, for want of use say."""
        trace.step(f"found {row.session}: {row.state.value}")
        return self._found(row, alive) if self.registry.touch(row.id) else None

    def _found(self, row: Row, alive: Life) -> StartResult:
        server = server_of(row, alive)
        if (row.project, row.session) != (self.project, self.plan.session):
            name = row.app or row.session
            self.notes.append(f"`{row.folder}` already has this server, as `{name}` of `{row.project}`")
        self.notes += differing.notes(
            self.home, row, self.plan, port=server.port, made=row.id in self.made, command=self.given_command,
            env=self.given_env, policy=self.given_policy,
        )  # fmt: skip
        if self.fleet is not None and self.plan.exclusive:
            self.notes += differing.lost_lease(self.home, row)
        if server.state is State.UNHEALTHY:
            name = row.app or row.session
            self.notes.append(f"{trouble(row, server)}; `devsup restart {name}` runs it again")
        return StartResult(server, row.id not in self.made, waited_ms=self._waited(), notes=self.notes)

    def _join(self, row: Row) -> StartResult | None:
        trace.step(f"{row.session} is {row.state.value}: joining")
        if not self.wait and row.leader is not None:
            return self._reuse(row, Life.LIVE)
        joined = ready.follow(
            self.registry, row, deadline=self.deadline, ticker=self.ticker, until_recorded=not self.wait,
            failures=self._failures(),
        )  # fmt: skip
        if joined is None:
            return None  # its starter or its guard died: see what is left
        return self._found(joined, life(joined))

    def _failures(self) -> Sequence[Sequence[str]]:
        return self.plan.probe.get("failures") or ()

    def _again(self, *options: str) -> str:
        """Return the same call, with ``options``, as a hint; a secret in it stays with the caller."""
        words = ["devsup", "start", *([self.plan.app] if self.plan.app else []), *options]
        words += ["--", *self.given_command] if self.given_command else []
        typed = None if self.given_env else masking.typed(words)
        return typed or f"make the same call again{f' with `{chr(32).join(options)}`' if options else ''}"

    def _refuse_inside(self, row: Row) -> None:
        marker = trees.parse(_raw(self.environ))
        if marker is not None and marker.id == row.id and trees.inside(tree_of(row), os.getpid()):
            raise InsideItself(
                f"`{row.session}` was asked to start itself: this call comes from inside it",
                hint="a script that devsup runs must start the server itself, not call devsup",
            )

    def _is_same(self, row: Row) -> bool:
        same = row.kind == self.plan.kind and commands.same_command(row.kind, row.command, self.plan.command)
        return same and row.cwd == self.plan.cwd

    def _refuse_another_command(self, row: Row, alive: Life) -> None:
        if self._is_same(row):
            return
        if row.session != self.plan.session or row.project != self.project:
            raise preflight.folder_taken(row, alive)
        running, asked = masking.shown(row.command), masking.shown(self.plan.command)
        raise NameTaken(
            f"`{row.session}` runs another command: `{running}` in `{row.cwd}`, "
            f"not `{asked}` in `{self.plan.cwd}`",
            hint=f"devsup stop {row.app or row.session}",
            details={"server": server_of(row, alive), "command": self.plan.command, "cwd": self.plan.cwd},
        )

    def _wait_for_end(self, row: Row) -> None:
        while time.monotonic() < self.deadline:
            self.ticker.tick(f"waiting for the stop of `{row.session}`", row.log)
            now = self.registry.row(row.id)
            if now is None or now.generation != row.generation or now.state is not State.STOPPING:
                return
            if identity.is_gone(now.stop.by) if now.stop is not None else life(now) is not Life.LIVE:
                self._finish_stop(now)
                return
            pause(self.deadline)
        raise LockTimeout(
            f"`{row.session}` is still being stopped",
            hint=f"devsup wait {row.app or row.session} --gone",
            details={"holder": {"pid": row.stop.by.pid} if row.stop else None},
        )

    def _finish_stop(self, row: Row) -> None:
        # Whoever began it is dead, perhaps before the guard was asked: a start would wait for ever.
        from devsup.supervisor.stop import stop_all_of

        grace, sweep = (row.stop.grace, row.stop.sweep) if row.stop is not None else (None, False)
        stop_all_of(self.home, self.project, [], [row], grace=grace, sweep=sweep)

    # -- a server that is to be made -----------------------------------------------------------------

    def _create(self) -> StartResult | None:
        executable = commands.validate(self.plan, self.environ)
        lock = self._session_lock()
        try:
            if not self._lock(lock):
                return None
            row = self._find()
            alive = life(row) if row is not None else Life.DEAD
            if row is not None and alive not in _OVER:
                return None
            try:
                preflight.refuse_doubles(self.home, self.plan)
                reserved = self._reserve(dead=[row] if row is not None and alive is Life.DEAD else [])
            except (NameTaken, PortTaken, UnmanagedRunning):
                row = self._find()
                if row is None or life(row) in _OVER:
                    raise
                reserved = None  # the folder's server, started under another name and so under another lock
            if reserved is None:
                return None
            hearing = self._spawn(reserved, executable, self._only_one(reserved))
        finally:
            lock.release()
        with hearing:
            tidy(self.registry, reserved, self.plan.policy)
            return self._wait_ready(reserved, hearing)

    def _session_lock(self) -> Hold:
        return session_lock(self.home, self.scope, self.project, self.plan.session, purpose="start")

    def _lock(self, lock: Hold) -> bool:
        """Take the session's lock; False as soon as the registry has something to join."""
        changes = Changes(self.home)
        while not self._try(lock):
            self.ticker.tick(f"waiting for another start of `{self.plan.session}`")
            # Looking is not free: while there is no registry yet it keeps whoever makes it waiting.
            row = self._find() if changes.any() else None
            if row is not None and life(row) not in _OVER:
                return False
            if time.monotonic() >= self.deadline:
                raise lock.timed_out()
            pause(self.deadline)
        return True

    def _try(self, lock: Hold) -> bool:
        try:
            return lock.try_acquire()
        except OSError as error:
            raise _unwritable(self.home, error) from error

    def _reserve(self, dead: list[Row]) -> Row | None:
        limit = preflight.limit(self.environ)
        bounds.limit_of(self.environ, self.plan.policy)  # refused here: a guard has nobody to tell
        idle: list[Row] = []
        for _ in range(_CLEARING_ROUNDS):
            plan = self.plan
            preflight.refuse_taken(self.registry, plan, self.scope, self._again)
            try:
                reserved = self.registry.reserve(
                    self._row(plan),
                    dead=dead,
                    limit=limit,
                    port=plan.port,
                    idle=idle,
                    wanted=preflight.auto_port(plan),
                    log_of=lambda generation: self.home.log(self.project, self.plan.session, generation),
                )
            except SessionBusy:
                return None
            except (FolderBusy, PortLeased) as busy:
                in_the_way = preflight.refuse_occupied(plan, self._again, busy)
                (idle if life(in_the_way) is Life.FOREIGN else dead).append(in_the_way)
            except PoolEmpty:
                raise preflight.no_auto_port() from None
            except LimitReached:
                more = [row for row in self.registry.rows(scope=self.scope) if life(row) is Life.DEAD]
                if all(row in dead for row in more):
                    raise
                dead += [row for row in more if row not in dead]
            else:
                if plan.port_auto and reserved.asked_port is not None:
                    self.plan = plan = plan.with_port(reserved.asked_port)
                self.made.add(reserved.id)
                self.cleared |= {row.id for row in dead}
                trace.step(f"reserved {plan.session}, generation {reserved.generation}, port {plan.port}")
                return reserved
        raise InternalError(
            f"the registry would not take `{self.plan.session}`", hint="devsup list --everywhere"
        )

    def _row(self, plan: Plan) -> Row:
        return Row(
            id=hexlify(os.urandom(6)).decode(),
            generation=0,
            scope=self.scope,
            netns=system.net_namespace(),
            project=self.project,
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
            if not self._withdraw(row):
                raise ready.stopped_before(row) from None
            raise

    def _membership(self, row: Row) -> Membership | None:
        if self.fleet is None or not self.plan.exclusive:
            return self.fleet[1] if self.fleet is not None else None
        from devsup.supervisor.leasing import Leasing

        if self.leasing is None:
            self.leasing = Leasing(self.home, self.registry, *self.fleet, self.cleared)
        return self.leasing.take(row, self.deadline)

    def _spawn(self, row: Row, executable: str, fleet: Membership | None) -> Hearing:
        """Start the guard; return once the server is recorded, or its guard has ended."""
        try:
            hearing = self._launch(row, executable, START, fleet)
        except (OSError, DevsupError) as error:
            if not self._withdraw(row):
                raise ready.stopped_before(row) from error  # its files went with it
            if isinstance(error, OSError):
                raise _unwritable(self.home, error) from error
            raise
        # A reservation that no guard has claimed would be a dead caller's when this one ends.
        heard = hearing.wait("l", max(self.deadline, time.monotonic() + _HAND_OVER))
        if not heard and hearing.ended:
            # It said nothing and ended: either it lost the reservation to a stop, or it could not run.
            now = self.registry.row(row.id)
            if "c" not in hearing.steps and self._withdraw(row):
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
            self.home, row, self.plan, executable, self.environ, mode=mode, fleet=fleet,
            redis=self.fleet[0].url if self.fleet is not None else None,
        )  # fmt: skip

    def _withdraw(self, row: Row) -> bool:
        """Take back a reservation that no guard has claimed, and what its guard was to run."""
        withdrawn = self.registry.withdraw(row.id, row.generation)
        if withdrawn:
            jobs.remove(self.home.job(row.id))
        return withdrawn

    def _wait_ready(self, row: Row, hearing: Hearing) -> StartResult | None:
        if self.wait:
            while not hearing.wait("r", min(self.deadline, time.monotonic() + self.ticker.slice)):
                self.ticker.tick(f"waiting for `{row.session}`", row.log)
                if hearing.ended or time.monotonic() >= self.deadline:
                    break
            trace.step(f"the guard said {hearing.steps!r}")
        if self.wait and time.monotonic() < self.deadline:
            # What was heard may be over: a restart has begun since, or the guard is being killed, whose pipe
            # is closed a moment before it counts as dead.
            now = ready.follow(
                self.registry, row, deadline=self.deadline, ticker=self.ticker, failures=self._failures()
            )
        else:
            now = ready.conclude(self.registry, row, wait=self.wait, failures=self._failures())
        if now is None:
            self._lost_guard(row)
            self.notes.append("its guard died before it was ready; another one went on")
            return None
        server = server_of(now, life(now))
        doom = dies_with_caller()
        self.notes += [doom] if doom is not None else []
        if self.plan.port is not None and server.port != self.plan.port and server.state is State.READY:
            self.notes.append(f"asked for port {self.plan.port}, but it listens on {server.port}")
        return StartResult(server, reused=False, waited_ms=self._waited(), notes=self.notes)

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

    def _give_guard(self, row: Row) -> None:
        """Start a new guard for a server whose guard has died."""
        lock = self._session_lock()
        try:
            while not self._try(lock):
                if time.monotonic() >= self.deadline:
                    raise lock.timed_out()
                pause(self.deadline)
            now = self.registry.row(row.id)
            if now is None or life(now) is not Life.ORPHANED:
                return
            at_gate = now.leader is None or trees.is_guard(now.leader.pid)
            if at_gate or not self._is_unclaimed(now):
                pause(self.deadline)  # its child is about to end at the gate, or somebody is about to end it
                return
            executable = commands.validate(self.plan, self.environ)
            # One that was adopted was never told of its fleet; the others keep to what they were told.
            fleet = self._membership(now) if jobs.find(self.home.job(now.id)) is None else None
            with self._launch(now, executable, ADOPT, fleet) as hearing:
                if hearing.wait("l", self.deadline):
                    adopted = now.guard == NO_GUARD
                    told = "it has a guard now" if adopted else "its guard had died; it has a new one"
                    self.notes.append(told)
                else:
                    self._lost_guard(row)  # or somebody else's guard was first
        finally:
            lock.release()

    def _is_unclaimed(self, row: Row) -> bool:
        """Tell whether nobody is ending ``row``; a claim whose holder died with the guard is given back."""
        if row.stop is None:
            return True
        # Whether it still serves is seen by the new guard, which this start then waits for.
        return identity.is_gone(row.stop.by) and self.registry.unclaim(
            row.id, row.generation, row.stop, state=State.STARTING
        )

    def _interrupted(self, error: BaseException) -> DevsupError:
        """Say what an interrupted start leaves: nothing, or a tracked server."""
        kind = Terminated if isinstance(error, Terminated) else Interrupted
        row = self._find()
        if row is not None and row.starter == identity.me() and self._withdraw(row):
            return kind("interrupted; nothing was started", hint="devsup list")
        row = self._find()
        if row is None or life(row) in _OVER:
            return kind("interrupted; nothing was started", hint="devsup list")
        server = server_of(row, life(row))
        return kind(
            f"interrupted; `{row.session}` goes on and is tracked (pid {server.pid}, {server.state.value})",
            hint=f"devsup stop {row.app or row.session}",
            details={"server": server},
        )

    def _waited(self) -> int:
        return round((time.monotonic() - self.began) * 1e3)


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


def _unwritable(home: Home, error: OSError) -> RegistryUnusable:
    what = f"`{error.filename}`" if error.filename else f"the state folder `{home.root}`"
    return RegistryUnusable(
        f"{what} cannot be used: {error.strerror}", hint="set DEVSUP_HOME to a folder that can be written"
    )


def _raw(environ: Mapping[str, str]) -> bytes:
    value = environ.get(MARKER)
    return b"" if value is None else f"{MARKER}={value}".encode(errors="surrogateescape")
