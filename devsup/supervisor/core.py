"""
One object, one method a use case; the CLI and other programs call the same ones.

What only looks stands in `looking`, what starts, ends and keeps order here. A `Supervisor` keeps nothing but
where it looks (project and state folder), so any number of them, in any number of threads and processes, may
work side by side. The modules of each use case are loaded when it is called: a `list` does not pay for
`start`.
"""

from __future__ import annotations

import os
import time

from devsup import identity, system
from devsup.errors import Interrupted
from devsup.models import (
    CheckResult,
    ConfigResult,
    InitResult,
    LogPage,
    Row,
    ServerList,
    StartResult,
    StopResult,
    StopResults,
    UpResults,
)
from devsup.paths import ensure_home
from devsup.registry import Registry
from devsup.supervisor import loops
from devsup.supervisor.looking import CHECK_TIMEOUT, START_TIMEOUT, Looking
from devsup.supervisor.view import Life, life

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from devsup.errors import DevsupError
    from devsup.models import Health, Metrics, MonitorRound, PruneResult, Story
    from devsup.supervisor.operations import InFlight
    from devsup.supervisor.waiting import Progress

__all__ = ["OPERATION_TIMEOUT", "Supervisor"]

#: Seconds that an operation waits for a restart to end, or for others where it is exclusive.
OPERATION_TIMEOUT = 10.0


class Supervisor(Looking):
    """
    Starts, finds, lists and stops the development servers of a project.

    ``project`` is any folder in it (the current one by default), ``home`` the state folder (see `find_home`).
    With ``within`` nothing is started, shown or stopped that runs outside of these folders.
    Everything that a method raises on purpose is a `DevsupError`.
    """

    # -- start ---------------------------------------------------------------------------------------

    def start(
        self,
        app: str | None = None,
        *,
        command: Sequence[str] | None = None,
        port: int | str | None = None,
        timeout: float | None = None,
        wait: bool = True,
        env: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        restart: str | None = None,
        idle_timeout: str | float | None = None,
        ttl: str | float | None = None,
        with_parent: int | None = None,
        owner: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> StartResult:
        """
        Return the app's server: the one that runs, or a new one that is ready.

        ``port`` is a number or ``"auto"``; ``env`` is added to ``environ``, by default this process's
        environment; ``timeout`` is one deadline in seconds, over all of it: by default what the project's
        configuration says, else 45. ``owner`` is whose a new server is, by default what ``environ`` says of
        the caller.

        A new server is run again when it ends by itself where ``restart`` is ``"on-failure"`` or
        ``"always"``; it is stopped after ``ttl``, when nobody has used it for ``idle_timeout`` (seconds, or a
        text such as ``"15m"``; 0 for never), and when the process ``with_parent`` ends.

        :raises NotFound, Ambiguous, UsageError, ConfigInvalid: there is no such app, or not only one
        :raises MissingExecutable, MissingDependencies: it cannot run; nothing was started
        :raises PortTaken, UnmanagedRunning: somebody else has its port or folder
        :raises NameTaken, InsideItself, LimitReached, LockTimeout: see each
        :raises LeaseHeldElsewhere, FleetUnreachable: exclusive; another host has it, or none can be asked
        :raises ExitedEarly, StoppedMeanwhile: it is not there any more
        :raises NotReady: the deadline is over; it goes on starting
        """
        loops.refuse("Supervisor.start", "devsup.aio.Supervisor.start_server(...)")
        began = time.monotonic()
        environ = _inherited() if environ is None else environ
        given = [*command] if command else None
        try:
            from devsup.apps import configured
            from devsup.supervisor import planning
            from devsup.supervisor.start import Starter

            config = configured.load(self.project, self.home)
            plan = planning.plan(self, app, given, config, port=port, env=env, environ=environ)
            self.confine(plan.cwd)
            fleet = planning.fleet_of(self, plan, config, environ)
            asked: dict[str, Any] = {}
            if any(one is not None for one in (restart, idle_timeout, ttl, with_parent)):
                from devsup.apps import policy

                asked = policy.asked(
                    restart=restart, idle_timeout=idle_timeout, ttl=ttl, with_parent=with_parent
                )
                plan = plan.replace(policy=policy.merged(plan.policy, asked))
            if owner is not None:
                from devsup.apps import owner as owners

                plan = plan.replace(owner=owners.clean(owner))
            ensure_home(self.home)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; nothing was started", hint="devsup list") from None
        allowed = timeout if timeout is not None else plan.timeout or START_TIMEOUT
        starter = Starter(
            self.home, plan, project=self.project, deadline=began + allowed, wait=wait, environ=environ,
            given_env=env or {}, given_command=given, given_policy=asked, on_progress=on_progress,
            fleet=fleet,
        )  # fmt: skip
        try:
            result = starter.run()
        finally:
            self.notes += starter.registry.warnings  # also beside an error
        notes = [*self.notes, *result.notes, *planning.missing(self, plan)]
        if owner is not None and result.server.owner != plan.owner:
            notes.append(f"it already runs, and belongs to `{result.server.owner}`; --owner was not applied")
        return result.replace(notes=notes)

    def restart(
        self, target: str, *, timeout: float = START_TIMEOUT, grace: float | None = None,
        take_over: bool = False, on_progress: Callable[[Progress], None] | None = None,
    ) -> StartResult:  # fmt: skip
        """
        Run a server again, as it was started, and return it when it is ready.

        Its guard does it, with the environment it has kept. Without a guard the caller's environment is used.

        :raises OtherOwner: it is somebody else's, and the caller does not ``take_over``
        :raises LeaseHeldElsewhere, FleetUnreachable: exclusive and without a guard; nothing was stopped
        """
        loops.refuse("Supervisor.restart", "devsup.aio.Supervisor.restart_server(...)")
        from devsup.supervisor.restart import restart

        refuse = None if take_over else self._refuse_others("restart")
        return restart(self, target, timeout=timeout, grace=grace, refuse=refuse, on_progress=on_progress)

    # -- all of them ---------------------------------------------------------------------------------

    def up(
        self,
        apps: Sequence[str] = (),
        *,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> UpResults:
        """
        Start ``apps`` and all that they depend on, or every app of the project; return when they are ready.

        Each is started as by `start`, when what it depends on is up; what does not depend on another is
        started at the same time. A failure of one is in its result; what waits on it is skipped. ``timeout``
        is for each app, ``env`` goes to all of them.

        :raises NotFound, Ambiguous, ConfigInvalid: there are no such apps; nothing was started
        :raises Interrupted: Ctrl-C; ``data`` says what runs
        """
        loops.refuse("Supervisor.up", "devsup.aio.Supervisor.up(...)")
        from devsup.supervisor.many import up

        ensure_home(self.home)
        return up(
            self, apps, timeout=timeout, env=env, environ=_inherited() if environ is None else environ,
            usual_timeout=START_TIMEOUT, on_progress=on_progress,
        )  # fmt: skip

    def down(
        self,
        apps: Sequence[str] = (),
        *,
        grace: float | None = None,
        sweep: bool = False,
        take_over: bool = False,
    ) -> StopResults:
        """
        Stop ``apps`` and what depends on them, or everything of this project: dependents first.

        Results are those of `stop`; so is the refusal of what is somebody else's.
        """
        loops.refuse("Supervisor.down", "devsup.aio.Supervisor.down(...)")
        from devsup.supervisor.many import down

        refuse = None if take_over else self._refuse_others("stop")
        return down(self, apps, grace=grace, sweep=sweep, refuse=refuse)

    def config(
        self,
        app: str | None = None,
        *,
        port: int | str | None = None,
        env: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> ConfigResult:
        """
        Return what is in force for each app, or for ``app``, and where each value comes from.

        ``port`` and ``env`` are what a `start` would be given.

        :raises ConfigInvalid: the file that says it is wrong
        """
        loops.refuse("Supervisor.config", "devsup.aio.Supervisor.config(...)")
        from devsup.supervisor.projects import config

        return config(self, app, port=port, env=env, environ=os.environ if environ is None else environ)

    def init(self, *, force: bool = False, write: bool = True) -> InitResult:
        """
        Write a `devsup.toml` at the project's root that says what is detected, or only return it.

        :raises UsageError: there is one already, unless with ``force``; or another file configures devsup
        """
        loops.refuse("Supervisor.init", "devsup.aio.Supervisor.init(...)")
        from devsup.supervisor.projects import init

        return init(self, force=force, write=write)

    def _refuse_others(self, verb: str) -> Callable[[Row], DevsupError | None]:
        """Return what says why the caller may not end a server: it is somebody else's."""
        from devsup.apps import owner as owners

        def refuse(row: Row) -> DevsupError | None:
            error = owners.anothers(row, os.environ)
            if error is not None:
                here = row.project == self.project
                name = (row.app or row.session) if here or row.leader is None else row.leader.pid
                error.hint = f"devsup {verb} {name} --take-over"
            return error

        return refuse

    def adopt(self, target: str, *, name: str | None = None, owner: str | None = None) -> StartResult:
        """
        Bring a server that devsup did not start under the registry: ``target`` is its pid or its `:port`.

        It is the app of its folder where there is one of its kind, else it gets ``name`` or a session of its
        own. It has no guard until `start` gives it one. One of ours is ``reused``.

        :raises NotFound: nobody is there
        :raises NotOurs: another user's, of another project, or where this call comes from
        :raises NameTaken, PortTaken, LimitReached, LockTimeout: see each
        """
        loops.refuse("Supervisor.adopt", "devsup.aio.Supervisor.adopt(...)")
        from devsup.apps import owner as owners
        from devsup.supervisor.adopt import adopt

        whose = owners.clean(owner) if owner is not None else owners.detect(os.environ)
        result = adopt(self, target, owner=whose, name=name)
        return result.replace(notes=[*self.notes, *result.notes])

    # -- stop ----------------------------------------------------------------------------------------

    def stop(
        self,
        targets: Sequence[str] = (),
        *,
        everything: bool = False,
        everywhere: bool = False,
        grace: float | None = None,
        sweep: bool = False,
        owner: str | None = None,
        take_over: bool = False,
        fleet: bool = False,
        timeout: float | None = None,
    ) -> StopResults:
        """
        Stop ``targets``, or ``everything`` that runs in this project (or ``everywhere``) at this moment.

        With ``owner`` everything of that one. A failure of one target is in its result and does not touch the
        others; so is the refusal of what is somebody else's, unless the caller means to ``take_over``.
        ``grace`` is in seconds from SIGTERM to SIGKILL, by default the app's own, else 5; ``sweep`` also ends
        what the servers have started and shared with others.

        With ``fleet`` the targets are servers of all hosts, `[HOST/]NAME`; their guards get ``timeout``
        seconds to answer, by default 30, or 15 more than ``grace``.

        :raises UsageError: no fleet is configured
        :raises FleetUnreachable: its Redis cannot be asked; nothing was done
        """
        loops.refuse("Supervisor.stop", "devsup.aio.Supervisor.stop_server(...)")
        from devsup.apps import owner as owners

        if fleet:
            from devsup.supervisor.elsewhere import stop_in_fleet

            return stop_in_fleet(
                self, targets, timeout=timeout, grace=grace, sweep=sweep, take_over=take_over
            )
        from devsup.supervisor.stop import stop_all_of

        whose = owners.clean(owner) if owner is not None else None

        rows: list[Row] = []
        registry = Registry(self.home)
        if everything or whose is not None:
            scope = identity.here().key
            rows = [
                row
                for row in registry.rows(scope=scope, project=None if everywhere else self.project)
                if whose in (None, row.owner) and life(row) is not Life.FOREIGN and self.may_see(row.cwd)
            ]
        stopped = stop_all_of(
            self.home, self.project, [*targets], rows, grace=grace, sweep=sweep, everywhere=everywhere,
            within=self.within, refuse=None if take_over else self._refuse_others("stop"),
        )  # fmt: skip
        return stopped.replace(notes=[*registry.warnings, *self.notes, *stopped.notes])

    # -- work ----------------------------------------------------------------------------------------

    def operation(
        self,
        target: str,
        *,
        purpose: str = "operation",
        exclusive: bool = False,
        timeout: float = OPERATION_TIMEOUT,
    ) -> InFlight:
        """
        Return a context manager for work with a server: while it is open, a stop waits (5 s at most).

        ``with supervisor.operation("web") as server:`` gives its record and counts as use of it. ``purpose``
        is what the others are told. Several may be open at once, but beside an ``exclusive`` one no other is;
        ``timeout`` is in seconds, for these and for a restart to end. When the process dies it is over.

        :raises NotFound, NotOurs, Busy, LockTimeout: see `InFlight`
        """
        from devsup.supervisor.operations import InFlight

        return InFlight(self, target, purpose=purpose, exclusive=exclusive, timeout=timeout)

    # -- order ---------------------------------------------------------------------------------------

    def doctor(self, *, fix: bool = False) -> Health:
        """
        Return what is wrong with the state folder, its servers, this project's ports and the environment.

        ``fix`` does what is safe: the notes say what was done, and the answer is how things are then. Without
        it nothing is changed, and no process is ended.
        """
        loops.refuse("Supervisor.doctor", "asyncio.to_thread(supervisor.doctor)")
        from devsup.supervisor import health

        self.confine(self.home.root)
        return health.check(self, fix=fix)

    def why(self, target: str) -> Story:
        """
        Return the story of a server, a pid or a `:port`: who started it, why it ended, who has the port.

        :raises NotFound: nothing is known of it
        """
        loops.refuse("Supervisor.why", "asyncio.to_thread(supervisor.why, target)")
        from devsup.supervisor.why import why

        return why(self, target)

    def metrics(self) -> Metrics:
        """Return how things are, in all projects, as OpenMetrics text."""
        loops.refuse("Supervisor.metrics", "asyncio.to_thread(supervisor.metrics)")
        from devsup.models import Metrics as Answer
        from devsup.supervisor.metrics import metrics

        self.confine(self.home.root)
        return Answer(metrics(self))

    def monitor(
        self,
        *,
        interval: float = 300.0,
        once: bool = False,
        max_memory: int | None = None,
        max_cpu: int | None = None,
        rest: Callable[[float], None] = time.sleep,
    ) -> Iterator[MonitorRound]:
        """
        Look every ``interval`` seconds, or ``once``; record what appears and what goes as events `finding`.

        ``max_memory`` (MiB) and ``max_cpu`` (percent of one core) are what a server's tree may take, 0 for no
        limit; by default what ``DEVSUP_MONITOR_MEMORY`` and ``DEVSUP_MONITOR_CPU`` say, else 4096 and 200.
        """
        loops.refuse("Supervisor.monitor", "asyncio.to_thread(...) of all its rounds")
        from devsup.supervisor import monitor

        self.confine(self.home.root)
        limits = monitor.Limits.read(max_memory, max_cpu, os.environ)
        ensure_home(self.home)
        return monitor.rounds(self, every=interval, once=once, limits=limits, rest=rest)

    def start_monitor(
        self, *, timeout: float | None = None, on_progress: Callable[[Progress], None] | None = None
    ) -> StartResult:
        """Return the monitor of this project, a server like any other: the one that runs, or a new one."""
        from devsup.supervisor import monitor

        command, env = monitor.command(self.home.root, os.environ)
        return self.start("monitor", command=command, env=env, timeout=timeout, on_progress=on_progress)

    def prune(
        self, *, dry_run: bool = False, orphans: bool = False, grace: float | None = None
    ) -> PruneResult:
        """
        Remove what dead servers of every project have left; with ``dry_run`` only say what that is.

        ``orphans`` also ends processes that carry the marker of a server which devsup has no row of, but for
        programs that are shared with others.
        """
        loops.refuse("Supervisor.prune", "devsup.aio.Supervisor.prune(...)")
        from devsup.supervisor.prune import prune

        self.confine(self.home.root)
        return prune(self.home, dry_run=dry_run, orphans=orphans, grace=grace)

    # -- the names for other programs ----------------------------------------------------------------

    def start_server(
        self,
        app: str | None = None,
        *,
        command: Sequence[str] | None = None,
        port: int | str | None = None,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        owner: str | None = None,
        restart: str | None = None,
        idle_timeout: str | float | None = None,
        ttl: str | float | None = None,
        with_parent: int | None = None,
    ) -> StartResult:
        """Return the app's server, started or found; see `start`."""
        return self.start(
            app, command=command, port=port, timeout=timeout, env=env, owner=owner, restart=restart,
            idle_timeout=idle_timeout, ttl=ttl, with_parent=with_parent,
        )  # fmt: skip

    def stop_server(
        self,
        target: str,
        *,
        grace: float | None = None,
        take_over: bool = False,
        fleet: bool = False,
        timeout: float | None = None,
    ) -> StopResult:
        """Stop one server; see `stop`."""
        stopped = self.stop([target], grace=grace, take_over=take_over, fleet=fleet, timeout=timeout)
        return stopped.results[0]

    def restart_server(
        self,
        target: str,
        *,
        timeout: float = START_TIMEOUT,
        grace: float | None = None,
        take_over: bool = False,
    ) -> StartResult:
        """Run a server again and return it when it is ready; see `restart`."""
        return self.restart(target, timeout=timeout, grace=grace, take_over=take_over)

    def list_servers(self, *, everywhere: bool = False, fleet: bool = False) -> ServerList:
        """Return what runs; see `list`."""
        return self.list(everywhere=everywhere, fleet=fleet)

    def get_server_logs(
        self,
        target: str,
        *,
        after: str | None = None,
        lines: int | None = None,
        max_bytes: int | None = None,
        wait: float = 0.0,
    ) -> LogPage:
        """Return a page of a log; see `logs`."""
        return self.logs(target, after=after, lines=lines, max_bytes=max_bytes, wait=wait)

    def check_server(
        self, target: str, *, path: str = "/", after: str | None = None, timeout: float = CHECK_TIMEOUT
    ) -> CheckResult:
        """Look whether a server listens, answers and has printed errors; see `check`."""
        return self.check(target, path=path, after=after, timeout=timeout)

    def cleanup(self, *, grace: float | None = None, take_over: bool = False) -> StopResults:
        """Stop all servers of this project; see `stop`."""
        return self.stop(everything=True, grace=grace, take_over=take_over)


#: What Python sets `LC_CTYPE` to where the caller has no locale.
_PYTHONS_LOCALES = ("C.UTF-8", "C.utf8", "UTF-8")


def _inherited() -> Mapping[str, str]:
    """Return the environment that this process was given or has made, without what Python did by itself."""
    if os.environ.get("LC_CTYPE") not in _PYTHONS_LOCALES or system.was_given(b"LC_CTYPE"):
        return os.environ
    return {name: value for name, value in os.environ.items() if name != "LC_CTYPE"}
