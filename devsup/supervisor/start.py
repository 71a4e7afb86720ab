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

from devsup import identity, ports, system, trace, tree as trees
from devsup.apps import commands, nextlock
from devsup.apps.presets import KINDS
from devsup.clock import now_ms
from devsup.errors import (
    DevsupError,
    InsideItself,
    InternalError,
    Interrupted,
    LimitReached,
    LockTimeout,
    NameTaken,
    PortTaken,
    Terminated,
    UnmanagedRunning,
)
from devsup.guard import job as jobs
from devsup.guard.job import Job
from devsup.guard.spawn import ADOPT, START, Hearing, spawn
from devsup.locks import FileLock
from devsup.models import Row, StartResult, State
from devsup.registry import FolderBusy, PortLeased, Registry, SessionBusy
from devsup.supervisor import ready
from devsup.supervisor.view import Life, life, server_of, tree_of
from devsup.supervisor.waiting import Ticker, pause
from devsup.tree import MARKER, Marker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devsup.apps.commands import Plan
    from devsup.paths import Home
    from devsup.supervisor.waiting import Progress

__all__ = ["MAX_SERVERS", "Starter"]

#: Servers at most, where `DEVSUP_MAX_SERVERS` does not say otherwise.
MAX_SERVERS = 32
#: Rounds in which dead rows may stand in the way of a reservation; each removes at least one.
_CLEARING_ROUNDS = 50


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
        on_progress: Callable[[Progress], None] | None = None,
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
        self.ticker = Ticker(on_progress)
        self.scope = identity.here().key
        self.notes: list[str] = list(plan.notes)

    def run(self) -> StartResult:
        """Return the server, started or found; see the errors of `Supervisor.start`."""
        try:
            while True:
                result = self._round()
                if result is not None:
                    return result
        except (KeyboardInterrupt, Interrupted, Terminated) as error:
            raise self._interrupted(error) from None

    def _round(self) -> StartResult | None:
        row = self._find()
        alive = life(row) if row is not None else Life.DEAD
        if row is None or alive in (Life.DEAD, Life.ENDED):
            return self._create()
        self._refuse_inside(row)
        self._refuse_another_command(row, alive)
        if alive is Life.ORPHANED:
            self._give_guard(row)
            return None
        if row.state is State.STOPPING:
            self._wait_for_end(row)
            return None
        if alive is Life.UNCLAIMED or row.state in (State.STARTING, State.RESTARTING):
            return self._join(row)
        return self._reuse(row, alive)

    # -- a server that is there -------------------------------------------------------------------------------

    def _find(self) -> Row | None:
        return self.registry.find(self.scope, self.project, self.plan.session)

    def _reuse(self, row: Row, alive: Life) -> StartResult:
        trace.step(f"found {row.session}: {row.state.value}")
        self.registry.touch(row.id)
        server = server_of(row, alive)
        self._note_differences(server.port)
        return StartResult(server, reused=True, waited_ms=self._waited(), notes=self.notes)

    def _join(self, row: Row) -> StartResult | None:
        trace.step(f"{row.session} is {row.state.value}: joining")
        if not self.wait and row.leader is not None:
            return self._reuse(row, Life.LIVE)
        joined = ready.follow(
            self.registry, row, deadline=self.deadline, ticker=self.ticker, until_recorded=not self.wait
        )
        if joined is None:
            return None  # its starter or its guard died: see what is left
        server = server_of(joined, life(joined))
        self._note_differences(server.port)
        return StartResult(server, reused=True, waited_ms=self._waited(), notes=self.notes)

    def _note_differences(self, port: int | None) -> None:
        if self.plan.port_source == "caller" and self.plan.port not in (None, port):
            self.notes.append(f"it already runs on port {port}; --port {self.plan.port} was not applied")
        if self.given_env:
            self.notes.append("it already runs; --env was not applied (`devsup stop` it first)")

    def _refuse_inside(self, row: Row) -> None:
        marker = trees.parse(_raw(self.environ))
        if marker is not None and marker.id == row.id and trees.inside(tree_of(row), os.getpid()):
            raise InsideItself(
                f"`{row.session}` was asked to start itself: this call comes from inside it (pid {row.leader and row.leader.pid})",
                hint="a script that devsup runs must start the server itself, not call `devsup start`",
            )

    def _refuse_another_command(self, row: Row, alive: Life) -> None:
        if row.cwd == self.plan.cwd and row.command == self._command_with(row.asked_port):
            return
        running, asked = " ".join(row.command), " ".join(self.plan.command)
        raise NameTaken(
            f"`{row.session}` runs another command: `{running}` in `{row.cwd}`, not `{asked}` in `{self.plan.cwd}`",
            hint=f"devsup stop {row.app or row.session}",
            details={"server": server_of(row, alive), "command": self.plan.command, "cwd": self.plan.cwd},
        )

    def _command_with(self, port: int | None) -> list[str]:
        """Return the command as it would be on ``port``: another port makes no other command."""
        return self.plan.command if port is None else self.plan.with_port(port).command

    def _wait_for_end(self, row: Row) -> None:
        while time.monotonic() < self.deadline:
            self.ticker.tick(f"waiting for the stop of `{row.session}`", row.log)
            now = self.registry.row(row.id)
            if now is None or now.generation != row.generation or now.state is not State.STOPPING:
                return
            if now.stop is not None and identity.is_gone(now.stop.by) and life(now) is not Life.LIVE:
                # Its stopper and its guard are dead: finish what they began.
                from devsup.supervisor.stop import stop_all_of  # noqa: PLC0415 - rare, and `stop` is a lane of its own

                stop_all_of(self.home, self.project, [], [now], grace=now.stop.grace, sweep=now.stop.sweep)
                return
            pause(self.deadline)
        raise LockTimeout(
            f"`{row.session}` is still being stopped",
            hint=f"devsup wait {row.app or row.session} --gone",
            details={"holder": {"pid": row.stop.by.pid} if row.stop else None},
        )

    # -- a server that is to be made --------------------------------------------------------------------------

    def _create(self) -> StartResult | None:
        executable = commands.validate(self.plan, self.environ)
        lock = FileLock(self.home.session_lock(self.scope, self.project, self.plan.session), purpose="start")
        if not self._lock(lock):
            return None
        try:
            row = self._find()
            alive = life(row) if row is not None else Life.DEAD
            if row is not None and alive not in (Life.DEAD, Life.ENDED):
                return None
            self._refuse_doubles()
            reserved = self._reserve(dead=[row] if row is not None and alive is Life.DEAD else [])
            if reserved is None:
                return None
            hearing = self._spawn(reserved, executable)
        finally:
            lock.release()
        with hearing:
            return self._wait_ready(reserved, hearing)

    def _lock(self, lock: FileLock) -> bool:
        """Take the session's lock; False as soon as the registry has something to join."""
        while not lock.try_acquire():
            self.ticker.tick(f"waiting for another start of `{self.plan.session}`")
            row = self._find()
            if row is not None and life(row) not in (Life.DEAD, Life.ENDED):
                return False
            if time.monotonic() >= self.deadline:
                held = lock.holder()
                age = now_ms() - held.since if held is not None else None
                who = f"pid {held.by.pid} ({held.purpose}), for {age} ms" if held is not None else "another process"
                raise LockTimeout(
                    f"the lock of `{self.plan.session}` is held by {who}",
                    hint=f"devsup status {self.plan.app or self.plan.session}",
                    details={"holder": {"pid": held.by.pid, "purpose": held.purpose} if held else None, "age_ms": age},
                )
            pause(self.deadline)
        return True

    def _refuse_doubles(self) -> None:
        """Refuse what runs elsewhere already: the same session under another home, or a Next.js of its own."""
        for info, marker in trees.marked():
            same = marker.project == self.project and marker.session == self.plan.session
            if same and marker.home != self.home.root and not _is_guard_only(info):
                raise NameTaken(
                    f"`{self.plan.session}` of this project runs under another state folder, `{marker.home}` "
                    f"(pid {info.pid})",
                    hint=f"set DEVSUP_HOME={marker.home} to reach it",
                    details={"home": marker.home, "pid": info.pid},
                )
        if self.plan.kind != "next":
            return
        running = nextlock.running(self.plan.cwd)
        if running is not None:
            raise UnmanagedRunning(
                f"a Next.js server that devsup did not start runs in `{self.plan.cwd}`: "
                f"pid {running['pid'] or 'unknown'}, {running['url'] or 'address unknown'}",
                hint="use that one, or stop it where it was started; then call this again",
                details={"holder": {**running, "cwd": self.plan.cwd, "ours": False}},
            )

    def _reserve(self, dead: list[Row]) -> Row | None:
        limit = _limit(self.environ)
        for _ in range(_CLEARING_ROUNDS):
            plan = self._with_port()
            try:
                reserved = self.registry.reserve(
                    self._row(plan),
                    dead=dead,
                    limit=limit,
                    port=plan.port,
                    log_of=lambda generation: self.home.log(self.project, plan.session, generation),
                )
            except SessionBusy:
                return None
            except (FolderBusy, PortLeased) as busy:
                self._clear_or_refuse(busy, plan.port, dead)
            except LimitReached:
                more = [row for row in self.registry.rows(scope=self.scope) if life(row) is Life.DEAD]
                if not [row for row in more if row not in dead]:
                    raise
                dead += [row for row in more if row not in dead]
            else:
                self.plan = plan
                trace.step(f"reserved {plan.session}, generation {reserved.generation}, port {plan.port}")
                return reserved
        raise InternalError(f"the registry would not take `{self.plan.session}`")

    def _clear_or_refuse(self, busy: FolderBusy | PortLeased, port: int | None, dead: list[Row]) -> None:
        row = busy.row
        alive = life(row)
        if alive is Life.DEAD and row not in dead:
            dead.append(row)
            return
        server = server_of(row, alive)
        name = f"`{row.session}` of `{row.project}` (pid {server.pid})"
        if isinstance(busy, FolderBusy):
            raise NameTaken(
                f"`{row.folder}` already has a server: {name}",
                hint=f"devsup status {server.pid}" if server.pid else "devsup list --everywhere",
                details={"server": server},
            )
        if self.plan.port_auto or port is None:
            return  # somebody was faster: `_with_port` takes the next one
        raise self._port_taken(
            port, {"pid": server.pid, "command": " ".join(row.command), "cwd": row.cwd, "ours": row.id}, name
        )

    def _with_port(self) -> Plan:
        """Return the plan with a port that is free as far as anybody can tell."""
        plan = self.plan
        netns = system.net_namespace()
        leases = self.registry.leases(netns)
        if plan.port_auto:
            name = plan.app or plan.session
            taken = set(leases) | {one.port for one in system.listeners()}
            port = self.registry.auto_port(self.project, name)
            if port is None or port in taken:
                port = ports.auto_port(self.project, name, taken=taken)
                self.registry.remember_auto_port(self.project, name, port)
            return plan.with_port(port)
        if plan.port is not None:
            holder = ports.holder(plan.port, self.registry.rows(scope=self.scope))
            if holder is not None:
                name = f"pid {holder.pid} (`{holder.command}` in `{holder.cwd}`)" if holder.pid else "another process"
                raise self._port_taken(plan.port, holder.details(), name)
        return plan

    def _port_taken(self, port: int, holder: dict[str, object], name: str) -> PortTaken:
        whose = "" if holder["ours"] else ", which devsup did not start"
        target = self.plan.app or self.plan.session
        command = f" -- {' '.join(self.given_command)}" if self.given_command else ""
        return PortTaken(
            f"port {port} is taken by {name}{whose}",
            hint=f"devsup start {target} --port auto{command}",
            details={"port": port, "holder": {**holder, "ours": bool(holder["ours"])}},
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
        )

    def _spawn(self, row: Row, executable: str) -> Hearing:
        """Start the guard; return once the server is recorded, or its guard has ended."""
        environ = server_environ(self.environ, self.plan, self.given_env)
        hearing = launch_guard(self.home, row, self.plan, executable, environ, mode=START)
        heard = hearing.wait("l", self.deadline)
        if not heard and hearing.ended:
            # It said nothing and ended: either it lost the reservation to a stop, or it could not run.
            if "c" not in hearing.steps and self.registry.withdraw(row.id, row.generation):
                hearing.__exit__()
                tail = ready.tail(self.home.guard_log(row.project, row.session))
                raise InternalError(f"the guard of `{row.session}` did not start", details={"log_tail": tail})
        elif heard:
            trace.step("the server is recorded")
        return hearing

    def _wait_ready(self, row: Row, hearing: Hearing) -> StartResult:
        if self.wait:
            while not hearing.wait("r", min(self.deadline, time.monotonic() + self.ticker.slice)):
                self.ticker.tick(f"waiting for `{row.session}`", row.log)
                if hearing.ended or time.monotonic() >= self.deadline:
                    break
            trace.step(f"the guard said {hearing.steps!r}")
        now = ready.conclude(self.registry, row, wait=self.wait, failures=self.plan.probe.get("failures") or ())
        if now is None:
            raise InternalError(f"the guard of `{row.session}` died; its server may live", hint="devsup list")
        server = server_of(now, life(now))
        if self.plan.port is not None and server.port != self.plan.port and server.state is State.READY:
            self.notes.append(f"asked for port {self.plan.port}, but it listens on {server.port}")
        return StartResult(server, reused=False, waited_ms=self._waited(), notes=self.notes)

    def _give_guard(self, row: Row) -> None:
        """Start a new guard for a server whose guard has died."""
        lock = FileLock(self.home.session_lock(self.scope, self.project, self.plan.session), purpose="start")
        while not lock.try_acquire():
            if time.monotonic() >= self.deadline:
                raise LockTimeout(f"the lock of `{row.session}` is held", hint=f"devsup status {row.session}")
            pause(self.deadline)
        try:
            now = self.registry.row(row.id)
            if now is None or life(now) is not Life.ORPHANED:
                return
            environ = server_environ(self.environ, self.plan, self.given_env)
            with launch_guard(self.home, now, self.plan, now.command[0], environ, mode=ADOPT) as hearing:
                hearing.wait("l", self.deadline)
            self.notes.append("its guard had died; it has a new one")
        finally:
            lock.release()

    def _interrupted(self, error: BaseException) -> DevsupError:
        """Say what an interrupted start leaves: nothing, or a tracked server."""
        kind = Terminated if isinstance(error, Terminated) else Interrupted
        row = self._find()
        if row is not None and row.starter == identity.me() and self.registry.withdraw(row.id, row.generation):
            return kind("interrupted; nothing was started")
        row = self._find()
        if row is None or life(row) in (Life.DEAD, Life.ENDED):
            return kind("interrupted; nothing was started")
        server = server_of(row, life(row))
        return kind(
            f"interrupted; `{row.session}` goes on and is tracked (pid {server.pid}, {server.state.value})",
            hint=f"devsup stop {row.app or row.session}",
            details={"server": server},
        )

    def _waited(self) -> int:
        return round((time.monotonic() - self.began) * 1e3)


def launch_guard(
    home: Home, row: Row, plan: Plan, executable: str, environ: dict[str, str], *, mode: str
) -> Hearing:
    """Write the job of ``row`` and start its guard."""
    job = Job(
        id=row.id,
        generation=row.generation,
        home=home.root,
        scope=row.scope,
        netns=row.netns,
        project=row.project,
        session=row.session,
        app=row.app,
        kind=row.kind,
        cwd=row.cwd,
        command=row.command,
        executable=executable,
        port=row.asked_port,
        default_port=KINDS[plan.kind].default_port,
        folder=row.folder,
        probe=plan.probe,
        log=row.log,
        owner=row.owner,
        started_at=row.started_at,
    )
    os.makedirs(os.path.dirname(row.log), mode=0o700, exist_ok=True)
    jobs.write(home.job(row.id), job)
    marker = Marker(home.root, row.project, row.session, row.id, row.generation)
    return spawn(job, {**environ, MARKER: str(marker)}, mode=mode, log=home.guard_log(row.project, row.session))


def server_environ(environ: Mapping[str, str], plan: Plan, given: Mapping[str, str]) -> dict[str, str]:
    """Return the server's environment: the caller's, as the plan changes it, and what was given by hand on top."""
    result = dict(environ)
    for name, value in plan.env.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = value
    result.update(given)
    return result


def _raw(environ: Mapping[str, str]) -> bytes:
    value = environ.get(MARKER)
    return b"" if value is None else f"{MARKER}={value}".encode(errors="surrogateescape")


def _is_guard_only(info: system.ProcessInfo) -> bool:
    # A guard alone is on its way out, or waits for its server to be recorded.
    return any("devsup/guard/__main__.py" in word for word in system.cmdline(info.pid)[:6])


def _limit(environ: Mapping[str, str]) -> int:
    text = environ.get("DEVSUP_MAX_SERVERS", "")
    return int(text) if text.isdecimal() and int(text) > 0 else MAX_SERVERS
