"""
Start an app: find the server that it already has, join one that is coming up, or have one made.

However many callers ask at once, one server comes of it: the first look is at the registry; who finds nothing
takes the session's lock and looks again (`devsup.supervisor.making`); the reservation is one transaction; and
the unique indexes hold even where somebody passes the lock. A caller killed at any point leaves a tracked
server or nothing. What only a part of the callers needs is loaded by those: most find their server.
"""

from __future__ import annotations

import os
import time

from devsup import identity, masking, trace
from devsup.apps import commands
from devsup.errors import (
    Busy,
    DevsupError,
    InsideItself,
    Interrupted,
    LockTimeout,
    NameTaken,
    StoppedMeanwhile,
    Terminated,
)
from devsup.models import MARKER, Row, StartResult, State
from devsup.registry import Registry
from devsup.supervisor import differing
from devsup.supervisor.view import OVER, Life, life, server_of, tree_of, trouble
from devsup.supervisor.waiting import Changes, Ticker, pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from devsup.apps.commands import Plan
    from devsup.fleet.membership import Membership
    from devsup.fleet.settings import Settings
    from devsup.locks import Hold
    from devsup.paths import Home
    from devsup.supervisor.making import Making
    from devsup.supervisor.waiting import Progress

__all__ = ["Starter"]


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
        #: The ids of the servers that this call has made.
        self.made: set[str] = set()
        #: Where its fleet is, and what a server of it is to that.
        self.fleet = fleet
        self._making: Making | None = None

    def run(self) -> StartResult:
        """Return the server, started or found; see the errors of `Supervisor.start`."""
        try:
            return self._run()
        except BaseException:
            if self._making is not None:
                self._making.settle()
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
            error.hint = self.again()
            raise

    def _round(self) -> StartResult | None:
        row = self.find()
        alive = life(row) if row is not None else Life.DEAD
        if row is None or alive in OVER:
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

    def find(self) -> Row | None:
        """Return the session's row, or that of the server which has the app's folder under another name."""
        row = self.registry.find(self.scope, self.project, self.plan.session)
        if self.plan.folder is None or (row is not None and life(row) not in OVER):
            return row
        other = self.registry.in_folder(self.scope, self.plan.folder)
        return row if other is None or life(other) in OVER else other

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
        return StartResult(server, row.id not in self.made, waited_ms=self.waited(), notes=self.notes)

    def _join(self, row: Row) -> StartResult | None:
        trace.step(f"{row.session} is {row.state.value}: joining")
        if not self.wait and row.leader is not None:
            return self._reuse(row, Life.LIVE)
        from devsup.supervisor import ready

        joined = ready.follow(
            self.registry, row, deadline=self.deadline, ticker=self.ticker, until_recorded=not self.wait,
            failures=self.failures(),
        )  # fmt: skip
        if joined is None:
            return None  # its starter or its guard died: see what is left
        return self._found(joined, life(joined))

    def failures(self) -> Sequence[Sequence[str]]:
        """Return by what in its log the cause of an early end is known."""
        return self.plan.probe.get("failures") or ()

    def again(self, *options: str) -> str:
        """Return the same call, with ``options``, as a hint; a secret in it stays with the caller."""
        words = ["devsup", "start", *([self.plan.app] if self.plan.app else []), *options]
        words += ["--", *self.given_command] if self.given_command else []
        typed = None if self.given_env else masking.typed(words)
        return typed or f"make the same call again{f' with `{chr(32).join(options)}`' if options else ''}"

    def _refuse_inside(self, row: Row) -> None:
        if MARKER not in self.environ:
            return
        from devsup import tree as trees

        raw = f"{MARKER}={self.environ[MARKER]}".encode(errors="surrogateescape")
        marker = trees.parse(raw)
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
            from devsup.supervisor.preflight import folder_taken

            raise folder_taken(row, alive)
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
        """Have it made; None where there is something to find or to join by now."""
        executable = commands.validate(self.plan, self.environ)
        lock = self._session_lock()
        try:
            made = self._maker().create(executable) if self._lock(lock) else None
        finally:
            lock.release()
        return self._maker().wait_ready(*made) if made is not None else None

    def _give_guard(self, row: Row) -> None:
        from devsup.supervisor import sessions

        lock = self._session_lock()
        try:
            while not sessions.try_hold(self.home, lock):
                if time.monotonic() >= self.deadline:
                    raise lock.timed_out()
                pause(self.deadline)
            self._maker().give_guard(row)
        finally:
            lock.release()

    def _session_lock(self) -> Hold:
        from devsup.supervisor import sessions

        return sessions.hold(self.home, self.scope, self.project, self.plan.session, purpose="start")

    def _lock(self, lock: Hold) -> bool:
        """Take the session's lock; False as soon as the registry has something to join."""
        from devsup.supervisor import sessions

        changes = Changes(self.home)
        while not sessions.try_hold(self.home, lock):
            self.ticker.tick(f"waiting for another start of `{self.plan.session}`")
            # Looking is not free: while there is no registry yet it keeps whoever makes it waiting.
            row = self.find() if changes.any() else None
            if row is not None and life(row) not in OVER:
                return False
            if time.monotonic() >= self.deadline:
                raise lock.timed_out()
            pause(self.deadline)
        return True

    def _maker(self) -> Making:
        if self._making is None:
            from devsup.supervisor.making import Making  # most callers find or join a server

            self._making = Making(self)
        return self._making

    def withdraw(self, row: Row) -> bool:
        """Take back a reservation that no guard has claimed, and what its guard was to run."""
        withdrawn = self.registry.withdraw(row.id, row.generation)
        if withdrawn:
            from devsup.guard import job as jobs

            jobs.remove(self.home.job(row.id))
        return withdrawn

    def _interrupted(self, error: BaseException) -> DevsupError:
        """Say what an interrupted start leaves: nothing, or a tracked server."""
        kind = Terminated if isinstance(error, Terminated) else Interrupted
        row = self.find()
        if row is not None and row.starter == identity.me() and self.withdraw(row):
            return kind("interrupted; nothing was started", hint="devsup list")
        row = self.find()
        if row is None or life(row) in OVER:
            return kind("interrupted; nothing was started", hint="devsup list")
        server = server_of(row, life(row))
        return kind(
            f"interrupted; `{row.session}` goes on and is tracked (pid {server.pid}, {server.state.value})",
            hint=f"devsup stop {row.app or row.session}",
            details={"server": server},
        )

    def waited(self) -> int:
        """Return how many milliseconds this call has taken so far."""
        return round((time.monotonic() - self.began) * 1e3)
