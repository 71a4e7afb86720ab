"""
One object, one method a use case; the CLI and other programs call the same ones.

A `Supervisor` keeps nothing but where it looks (project and state folder), so any number of them, in any
number of threads and processes, may work side by side. The modules of each use case are loaded when it is
called: a `list` does not pay for `start`.
"""

from __future__ import annotations

import os
import time

from devsup import identity, system
from devsup.errors import Interrupted, NotFound, NotReady, UsageError
from devsup.models import (
    CheckResult,
    ConfigResult,
    InitResult,
    LockList,
    LogPage,
    Row,
    ServerList,
    StartResult,
    State,
    StatusResult,
    StopResult,
    StopResults,
    UpResults,
)
from devsup.paths import Home, ensure_home, find_home
from devsup.registry import Registry
from devsup.supervisor import loops
from devsup.supervisor.view import Life, Sockets, life, server_of, trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builtins import list as List  # noqa: N812 - `list` is a method of the class below
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from devsup.apps.commands import Plan
    from devsup.errors import DevsupError
    from devsup.models import (
        EventPage,
        Health,
        Metrics,
        MonitorRound,
        PortList,
        PruneResult,
        Story,
        Unmanaged,
    )
    from devsup.supervisor.operations import InFlight
    from devsup.supervisor.targets import Target
    from devsup.supervisor.waiting import Progress
    from devsup.system import Listener

__all__ = ["Supervisor"]

#: Seconds for a whole start: lock, joining, waiting for a stop to end, readiness.
START_TIMEOUT = 45.0
#: Seconds for a check: a first request compiles the page.
CHECK_TIMEOUT = 20.0


class Supervisor:
    """
    Starts, finds, lists and stops the development servers of a project.

    ``project`` is any folder in it (the current one by default), ``home`` the state folder (see `find_home`).
    With ``within`` nothing is started, shown or stopped that runs outside of these folders.
    Everything that a method raises on purpose is a `DevsupError`.
    """

    def __init__(
        self, project: str | None = None, home: str | None = None, *, within: Sequence[str] | None = None
    ) -> None:
        from devsup.apps.project import find_project

        self.cwd = os.path.abspath(project if project is not None else os.getcwd())
        if not os.path.isdir(self.cwd):
            raise UsageError(f"`{self.cwd}` is no folder", hint="devsup list --everywhere")
        self.project = find_project(self.cwd)
        self.home = Home(os.path.abspath(home)) if home is not None else find_home()
        self.within = None if within is None else tuple(map(os.path.realpath, within))
        self.confine(self.cwd)
        self.notes: list[str] = []
        #: Where the server last asked for belongs to, if that is another project: its name means it there.
        self.place: str | None = None

    def confine(self, path: str) -> None:
        """Raise `UsageError` for a ``path`` outside of the folders that this supervisor is confined to."""
        if self.within is not None:
            from devsup.supervisor.reach import check

            check(path, self.within)

    def may_see(self, path: str) -> bool:
        """Tell whether ``path`` lies within the folders that this supervisor is confined to."""
        if self.within is None:
            return True
        from devsup.supervisor.reach import inside

        return inside(path, self.within)

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
        :raises ExitedEarly, StoppedMeanwhile: it is not there any more
        :raises NotReady: the deadline is over; it goes on starting
        """
        loops.refuse("Supervisor.start", "devsup.aio.Supervisor.start_server(...)")
        began = time.monotonic()
        environ = _inherited() if environ is None else environ
        given = [*command] if command else None
        try:
            from devsup.supervisor.start import Starter

            plan = self._plan(app, given, port=port, env=env, environ=environ)
            self.confine(plan.cwd)
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
        )  # fmt: skip
        try:
            result = starter.run()
        finally:
            self.notes += starter.registry.warnings  # also beside an error
        notes = [*self.notes, *result.notes, *self._missing(plan)]
        if owner is not None and result.server.owner != plan.owner:
            notes.append(f"it already runs, and belongs to `{result.server.owner}`; --owner was not applied")
        return result.replace(notes=notes)

    def _missing(self, plan: Plan) -> List[str]:
        """Return a note on what a started app depends on and what does not run."""
        if not plan.depends_on:
            return []
        missing = [name for name in plan.depends_on if self._running(name) is None]
        if not missing:
            return []
        listed = " and ".join(f"`{name}`" for name in missing)
        verb = "does" if len(missing) == 1 else "do"
        how = f"`devsup up {plan.app}` starts them in their order"
        return [f"`{plan.app}` depends on {listed}, which {verb} not run: {how}"]

    def _plan(
        self,
        app: str | None,
        given: List[str] | None,
        *,
        port: int | str | None,
        env: Mapping[str, str] | None,
        environ: Mapping[str, str],
    ) -> Plan:
        from devsup.apps import commands, configured

        config = configured.load(self.project, self.home)
        try:
            return commands.plan(
                self.project,
                self.cwd,
                app=app,
                command=given,
                port=port,
                env=env,
                environ=environ,
                config=config,
            )
        except NotFound:
            running = self._running(app) if given is None else None
            if running is None:
                raise
            return commands.plan(
                self.project,
                running.cwd,
                app=running.app,
                command=running.command,
                port=port,
                env=env,
                environ=environ,
                config=config,
            )

    def _running(self, name: str | None) -> Row | None:
        """Return the server that was started under ``name`` with a command of its own."""
        rows = Registry(self.home).rows(scope=identity.here().key, project=self.project)
        return next(
            (
                row
                for row in rows
                if name is not None
                and name in (row.app, row.session)
                and life(row) not in (Life.DEAD, Life.ENDED)
            ),
            None,
        )

    def restart(
        self, target: str, *, timeout: float = START_TIMEOUT, grace: float | None = None,
        take_over: bool = False, on_progress: Callable[[Progress], None] | None = None,
    ) -> StartResult:  # fmt: skip
        """
        Run a server again, as it was started, and return it when it is ready.

        Its guard does it, with the environment it has kept. Without a guard the caller's environment is used.

        :raises OtherOwner: it is somebody else's, and the caller does not ``take_over``
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

        refuse = (lambda _row: None) if take_over else self._refuse_others("stop")
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
    ) -> StopResults:
        """
        Stop ``targets``, or ``everything`` that runs in this project (or ``everywhere``) at this moment.

        With ``owner`` everything of that one. A failure of one target is in its result and does not touch the
        others; so is the refusal of what is somebody else's, unless the caller means to ``take_over``.
        ``grace`` is in seconds from SIGTERM to SIGKILL, by default the app's own, else 5; ``sweep`` also ends
        what the servers have started and shared with others.
        """
        loops.refuse("Supervisor.stop", "devsup.aio.Supervisor.stop_server(...)")
        from devsup.apps import owner as owners
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
            within=self.within,
            **({} if take_over else {"refuse": self._refuse_others("stop")}),
        )  # fmt: skip
        return stopped.replace(notes=[*registry.warnings, *self.notes, *stopped.notes])

    # -- work ----------------------------------------------------------------------------------------

    def operation(
        self, target: str, *, purpose: str = "operation", exclusive: bool = False, timeout: float = 10.0
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

    # -- look ----------------------------------------------------------------------------------------

    def list(self, *, everywhere: bool = False, ended: bool = False) -> ServerList:
        """Return the servers of this project (or ``everywhere``) as they are at one moment."""
        loops.refuse("Supervisor.list", "devsup.aio.Supervisor.list_servers(...)")
        registry = Registry(self.home)
        project = None if everywhere else self.project
        notes: list[str] = []
        rows, history, elsewhere = self._snapshot(registry, project, ended=ended)
        sockets = Sockets([row for row, _ in rows])
        servers = [server_of(row, alive, sockets) for row, alive in rows]
        servers += [server_of(row, Life.ENDED) for row in history]
        if elsewhere and not everywhere:
            what = "server runs" if elsewhere == 1 else "servers run"
            notes.append(f"{elsewhere} {what} in other projects: devsup list --everywhere")
        unmanaged = self._unmanaged(registry, [row for row, _ in rows], sockets)
        return ServerList(servers, unmanaged, [*registry.warnings, *notes])

    def _snapshot(
        self, registry: Registry, project: str | None, *, ended: bool
    ) -> tuple[List[tuple[Row, Life]], List[Row], int]:
        # A server may be stopped between the read and the look at its processes: its row is then gone, and it
        # has not crashed. Such a snapshot is thrown away; amid many stops, where the next one is no better,
        # what has ended since is left out.
        for _ in range(3):
            snapshot = registry.snapshot(project=project, ended=ended)
            looks = [(row, life(row)) for row in snapshot.rows]
            rows = [look for look in looks if self._is_so(registry, *look)]
            if len(rows) == len(looks):
                break
        # A reservation whose caller was killed is no server that has crashed: nothing of it ever ran.
        rows = [(row, alive) for row, alive in rows if alive is not Life.DEAD or row.guard is not None]
        rows = [look for look in rows if self.may_see(look[0].cwd)]
        return rows, [row for row in snapshot.ended if self.may_see(row.cwd)], snapshot.elsewhere

    @staticmethod
    def _is_so(registry: Registry, row: Row, alive: Life) -> bool:
        if alive not in (Life.DEAD, Life.ORPHANED):
            return True
        now = registry.row(row.id)
        return now is not None and now.generation == row.generation and now.state is row.state

    def _unmanaged(self, registry: Registry, rows: List[Row], sockets: Sockets) -> List[Unmanaged]:
        from devsup.apps.unmanaged import find_unmanaged

        def is_ours(pid: int, listener: Listener) -> bool:
            # Rare, so it may cost something: another project's, or one without a session of its own.
            from devsup import tree
            from devsup.ports import server_of as whose

            marker = tree.marker_of(pid)
            every = registry.rows(scope=identity.here().key)
            if marker is not None:
                return marker.home != self.home.root or any(row.id == marker.id for row in every)
            return whose(pid, listener, every) is not None

        found = find_unmanaged(
            self.project,
            self.cwd,
            known={row.cwd for row in rows if row.exit_code is None},
            sockets={inode: sockets.listeners[inode] for inode in sockets.unclaimed},
            sessions={row.leader.pid for row in rows if row.leader is not None},
            is_ours=is_ours,
        )
        return [one for one in found if self.may_see(one.cwd)]

    def ports(self) -> PortList:
        """
        Return who listens where: our servers, strangers in this project's folders, on its apps' ports.

        The notes say which port a start of each app would use now, or who has it.
        """
        loops.refuse("Supervisor.ports", "devsup.aio.Supervisor.ports(...)")
        from devsup.supervisor.portlist import port_list

        return port_list(self)

    def locks(self, *, everything: bool = False) -> LockList:
        """
        Return who holds and who waits for the locks in the state folder, in all processes that use it.

        The notes say what is wrong: circles of waiting, long holds, attempts that mostly fail. Locks that
        nobody holds or waits for are left out, unless ``everything`` is asked for.
        """
        loops.refuse("Supervisor.locks", "devsup.aio.Supervisor.locks(...)")
        from devsup.locks import _seeing

        locks, oddities = _seeing.look_with_oddities(self.home.locks)
        notes = [*_seeing.findings(locks), *oddities]
        return LockList([one for one in locks if everything or one.is_busy], notes)

    def doctor(self, *, fix: bool = False) -> Health:
        """
        Return what is wrong with the state folder, its servers, this project's ports and the environment.

        ``fix`` does what is safe: the notes say what was done, and the answer is how things are then. Without
        it nothing is changed, and no process is ended.
        """
        loops.refuse("Supervisor.doctor", "a thread: `await asyncio.to_thread(supervisor.doctor)`")
        from devsup.supervisor import health

        self.confine(self.home.root)
        return health.check(self, fix=fix)

    def why(self, target: str) -> Story:
        """
        Return the story of a server, a pid or a `:port`: who started it, why it ended, who has the port.

        :raises NotFound: nothing is known of it
        """
        loops.refuse("Supervisor.why", "a thread: `await asyncio.to_thread(supervisor.why, target)`")
        from devsup.supervisor.why import why

        return why(self, target)

    def metrics(self) -> Metrics:
        """Return how things are, in all projects, as OpenMetrics text."""
        loops.refuse("Supervisor.metrics", "a thread: `await asyncio.to_thread(supervisor.metrics)`")
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
        loops.refuse("Supervisor.monitor", "a thread of its own")
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

    def status(self, target: str) -> StatusResult:
        """Return one server and the processes of its tree; an ended one answers from the history."""
        loops.refuse("Supervisor.status", "devsup.aio.Supervisor.status(...)")
        from devsup import tree as trees
        from devsup.supervisor.view import tree_of

        found, alive = self._find(target)
        processes = []
        if alive in (Life.LIVE, Life.ORPHANED):
            infos = trees.members(tree_of(found.row), full=True)
            processes = [{"pid": info.pid, "ppid": info.ppid, "command": trees.show(info)} for info in infos]
        return StatusResult(server_of(found.row, alive), processes, found.notes)

    def url(self, target: str) -> dict[str, str | int | None]:
        """
        Return where a server answers: ``{"url", "port"}``.

        :raises NotReady: it does not listen yet, or any more
        """
        loops.refuse("Supervisor.url", "devsup.aio.Supervisor.list_servers(...)")
        found, alive = self._find(target)
        server = server_of(found.row, alive)
        name = server.app or server.session
        if alive in (Life.ENDED, Life.DEAD):
            raise NotFound(
                f"`{server.session}` does not run ({server.state.value})", hint=f"devsup restart {name}"
            )
        if server.state is State.UNHEALTHY:
            raise NotReady(
                f"{trouble(found.row, server)} (pid {server.pid})",
                hint=f"devsup restart {name}",
            )
        if server.url is None:
            raise NotReady(f"`{server.session}` does not listen yet", hint=f"devsup wait {name}")
        if alive is Life.LIVE:
            Registry(self.home).touch(server.id)
        return {"url": server.url, "port": server.port}

    def wait(
        self, target: str, *, gone: bool = False, timeout: float = START_TIMEOUT,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> StartResult:  # fmt: skip
        """Wait until a server is ready, or ``gone``; the errors are those of `start`."""
        loops.refuse("Supervisor.wait", "devsup.aio.Supervisor.start_server(...)")
        from devsup.supervisor import ready
        from devsup.supervisor.waiting import Ticker

        began = time.monotonic()
        found, alive = self._find(target)
        row = found.row
        registry = Registry(self.home)
        ticker = Ticker(on_progress)
        if gone:
            row, alive = ready.follow_down(registry, row, alive, deadline=began + timeout, ticker=ticker)
        elif alive in (Life.ENDED, Life.DEAD):
            raise NotFound(
                f"`{row.session}` does not run ({server_of(row, alive).state.value})",
                hint=f"devsup restart {row.app or row.session}",
            )
        elif alive is not Life.FOREIGN and server_of(row, alive).state not in (State.RUNNING, State.READY):
            row = ready.follow_guarded(registry, row, deadline=began + timeout, ticker=ticker)
            alive = life(row)
        waited = round((time.monotonic() - began) * 1e3)
        return StartResult(server_of(row, alive), reused=True, waited_ms=waited, notes=found.notes)

    def logs(
        self,
        target: str,
        *,
        lines: int | None = None,
        after: str | None = None,
        max_bytes: int | None = None,
        wait: float = 0.0,
        errors: bool = False,
        grep: str | None = None,
        since: str | None = None,
        rest: Callable[[float], None] = time.sleep,
    ) -> LogPage:
        """
        Return a page of a server's log; with ``wait`` block for so many seconds until there is something new.

        ``grep`` keeps the lines that match a regular expression. ``errors`` gives what went wrong instead of
        text: each error once, since the server's start or ``after``. ``since`` is a duration (``10m``) or a
        time, in place of ``after``. ``rest`` waits for a number of seconds, and ends the call by an exception
        where nobody listens any more.

        :raises UsageError: bad cursor, expression, time or bound
        :raises NotFound: no such server, or its log is gone
        """
        loops.refuse("Supervisor.logs", "devsup.aio.Supervisor.get_server_logs(...)")
        from devsup.supervisor.reading import Wanted, read_page, since_cursor

        if since is not None and after is not None:
            raise UsageError(
                "`--since` and `--after` both say where to begin: give one", hint="devsup logs --help"
            )
        if errors and grep is not None:
            raise UsageError("`--errors` are no lines to grep in: give one", hint="devsup logs --help")
        found, alive = self._find(target)
        if since is not None:
            after = since_cursor(found.row, since, self.notes)
        wanted = Wanted(lines=lines, after=after, max_bytes=max_bytes, errors=errors, grep=grep)
        return read_page(self.home, found.row, alive, wanted, wait=wait, rest=rest)

    def check(
        self,
        target: str,
        *,
        path: str = "/",
        after: str | None = None,
        timeout: float = CHECK_TIMEOUT,
        rest: Callable[[float], None] = time.sleep,
    ) -> CheckResult:
        """
        Look whether a server listens, answers ``path``, and has printed errors since ``after`` (its start).

        Its verdict is "down" where nothing listens, unless it runs and was given no port; "broken" where it
        answers with 500 or more, or not in time, or has printed an error; else "ok". One that is ready by its
        socket alone (``ready = {tcp = true}``) is asked for no other path than it is told. ``timeout`` is in
        seconds.

        :raises NotFound: no such server, or its log is gone
        :raises UsageError: bad path or cursor
        """
        loops.refuse("Supervisor.check", "devsup.aio.Supervisor.check_server(...)")
        from devsup.supervisor import checking

        found, alive = self._find(target)
        return checking.check(
            found.row,
            alive,
            path=path,
            after=after,
            timeout=timeout,
            asked=path != "/" or not checking.speaks_no_http(self.home, found.row),
            rest=rest,
        )

    def events(
        self,
        *,
        after: int | None = None,
        limit: int = 100,
        everywhere: bool = False,
        wait: float = 0.0,
        rest: Callable[[float], None] = time.sleep,
    ) -> EventPage:
        """
        Return what happened in this project (or ``everywhere``): at most ``limit`` events, oldest first.

        Those after the number ``after`` (0: all that are kept), else the last ones; with ``wait`` block so
        many seconds until there are some. Go on with ``next_after``: nothing is missed, nothing comes twice.
        Where some are no longer kept, an entry of type `truncated` says which.
        """
        loops.refuse("Supervisor.events", "devsup.aio.Supervisor.events(...)")
        from devsup.supervisor import history

        if limit < 1:
            raise UsageError("`--limit` takes a number from 1", hint="devsup events --help")
        project = None if everywhere else self.project
        return history.read(self.home, project, after=after, limit=limit, wait=wait, rest=rest)

    def _find(self, target: str) -> tuple[Target, Life]:
        from devsup.supervisor.targets import find

        registry = Registry(self.home)
        found = find(registry, self.project, target)
        self.confine(found.row.cwd)
        self.notes += registry.warnings
        self.place = found.row.project if found.row.project != self.project else None
        alive = Life.ENDED if found.ended else life(found.row)
        # Its guard would have kept the log within its limit.
        if alive is Life.ORPHANED and self.home.owns(found.row.log):
            from devsup import bounds
            from devsup.guard import job as jobs

            try:
                policy = jobs.read(self.home.job(found.row.id)).policy
            except (OSError, ValueError):
                policy = {}
            bounds.keep(found.row.log, os.environ, policy)
        return found, alive

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

    def stop_server(self, target: str, *, grace: float | None = None, take_over: bool = False) -> StopResult:
        """Stop one server; see `stop`."""
        return self.stop([target], grace=grace, take_over=take_over).results[0]

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

    def list_servers(self, *, everywhere: bool = False) -> ServerList:
        """Return what runs; see `list`."""
        return self.list(everywhere=everywhere)

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
