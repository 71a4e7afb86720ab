"""
What is, without changing it: list, status, address, log, events, ports, locks; and waiting for a change.

The half of the `Supervisor` that is asked most. Reads the registry and the processes, but for the note that
somebody has used a server. Any number of callers, in any number of threads and processes.
"""

from __future__ import annotations

import os
import time

from devsup import identity
from devsup.errors import NotFound, NotReady, UsageError
from devsup.models import Row, ServerList, StartResult, State
from devsup.paths import Home, find_home
from devsup.registry import Registry
from devsup.supervisor import loops
from devsup.supervisor.view import OVER, Life, Sockets, is_so, life, server_of, trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builtins import list as List  # noqa: N812 - `list` is a method of the class below
    from collections.abc import Callable, Sequence

    from devsup.models import (
        CheckResult,
        EventPage,
        HostList,
        LockList,
        LogPage,
        PoolList,
        PortList,
        StatusResult,
        Unmanaged,
    )
    from devsup.supervisor.targets import Target
    from devsup.supervisor.waiting import Progress
    from devsup.system import Listener

__all__ = ["CHECK_TIMEOUT", "START_TIMEOUT", "Looking"]

#: Seconds for a whole start: lock, joining, waiting for a stop to end, readiness.
START_TIMEOUT = 45.0
#: Seconds for a check: a first request compiles the page.
CHECK_TIMEOUT = 20.0


class Looking:
    """Where a supervisor looks, and what it sees there; see `Supervisor`."""

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

    # -- look ----------------------------------------------------------------------------------------

    def list(self, *, everywhere: bool = False, ended: bool = False, fleet: bool = False) -> ServerList:
        """
        Return the servers of this project (or ``everywhere``) as they are at one moment.

        With ``fleet`` those of all hosts, as their guards have last published them; see `FleetServer`.

        :raises UsageError: no fleet is configured
        :raises FleetUnreachable: its Redis cannot be asked
        """
        loops.refuse("Supervisor.list", "devsup.aio.Supervisor.list_servers(...)")
        if fleet:
            from devsup.supervisor.fleetwide import fleet_list

            if ended:
                raise UsageError(
                    "a fleet has no ended servers: `--all` and `--fleet` exclude each other",
                    hint="devsup list --fleet",
                )
            return fleet_list(self)
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
        unmanaged = self._unmanaged(registry, rows, sockets)
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
            rows = [look for look in looks if is_so(registry, *look)]
            if len(rows) == len(looks):
                break
        # A reservation whose caller was killed is no server that has crashed: nothing of it ever ran.
        rows = [(row, alive) for row, alive in rows if alive is not Life.DEAD or row.guard is not None]
        rows = [look for look in rows if self.may_see(look[0].cwd)]
        return rows, [row for row in snapshot.ended if self.may_see(row.cwd)], snapshot.elsewhere

    def _unmanaged(
        self, registry: Registry, rows: List[tuple[Row, Life]], sockets: Sockets
    ) -> List[Unmanaged]:
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
            known={row.cwd for row, _ in rows if row.exit_code is None},
            sockets={inode: sockets.listeners[inode] for inode in sockets.unclaimed},
            # Each guard leads a session of its own.
            sessions={row.leader.pid for row, _ in rows if row.leader is not None}
            | {row.guard.pid for row, alive in rows if row.guard is not None and alive is Life.LIVE},
            is_ours=is_ours,
        )
        return [one for one in found if self.may_see(one.cwd)]

    def hosts(self) -> HostList:
        """
        Return the hosts of the fleet that have servers.

        :raises UsageError: no fleet is configured
        :raises FleetUnreachable: its Redis cannot be asked
        """
        loops.refuse("Supervisor.hosts", "devsup.aio.Supervisor.hosts(...)")
        from devsup.supervisor.fleetwide import hosts

        return hosts(self)

    def pool(
        self,
        name: str | None = None,
        action: str | None = None,
        items: Sequence[str] = (),
        *,
        owner: str | None = None,
        ttl: str | float | None = None,
        fencing: int | None = None,
        force: bool = False,
        here: bool = False,
    ) -> PoolList:
        """
        Return the pools of the fleet (without one, or ``here``: of this machine), or the one that is named.

        Before that, ``action`` is done with it: ``"add"`` or ``"remove"`` items, ``"acquire"`` one for
        ``owner``, ``"renew"`` or ``"release"`` one that it has, ``"free"`` one that another has, by
        ``force``.

        :raises NotFound: there is no such pool, or it has no such item
        :raises UsageError: something is missing, or not understood
        :raises PoolExhausted, NotOwner: see `devsup.pool.Pool`
        :raises OtherOwner: somebody has the item that is to be freed, and no ``force`` is asked for
        :raises FleetUnreachable, RegistryUnusable: the place cannot be used
        """
        loops.refuse("Supervisor.pool", "devsup.aio.Supervisor.pool(...)")
        from devsup.supervisor.pooling import pools

        return pools(self, name, action, items, owner=owner, ttl=ttl, fencing=fencing, force=force, here=here)

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
        from devsup.models import LockList

        locks, oddities = _seeing.look_with_oddities(self.home.locks)
        notes = [*_seeing.findings(locks), *(one.message for one in oddities)]
        return LockList([one for one in locks if everything or one.is_busy], notes)

    def status(self, target: str) -> StatusResult:
        """Return one server and the processes of its tree; an ended one answers from the history."""
        loops.refuse("Supervisor.status", "devsup.aio.Supervisor.status(...)")
        from devsup import tree as trees
        from devsup.models import StatusResult
        from devsup.supervisor.view import tree_of

        found, alive = self._find(target)
        processes, lease = [], None
        if alive in (Life.LIVE, Life.ORPHANED):
            from devsup.fleet import note

            lease = note.shown(self.home, found.row.id)
            infos = trees.members(tree_of(found.row), full=True)
            processes = [{"pid": info.pid, "ppid": info.ppid, "command": trees.show(info)} for info in infos]
        return StatusResult(server_of(found.row, alive), processes, lease, found.notes)

    def url(self, target: str) -> dict[str, str | int | None]:
        """
        Return where a server answers: ``{"url", "port"}``.

        :raises NotReady: it does not listen yet, or any more
        """
        loops.refuse("Supervisor.url", "devsup.aio.Supervisor.list_servers(...)")
        found, alive = self._find(target)
        server = server_of(found.row, alive)
        name = server.app or server.session
        if alive in OVER:
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
        elif alive in OVER:
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

            job = jobs.find(self.home.job(found.row.id))
            bounds.keep(found.row.log, os.environ, job.policy if job is not None else {})
        return found, alive
