"""
Remove what servers and callers have left behind: rows of the dead, old logs, jobs of nobody, registries set
aside, files of those who waited for a lock.

It goes over the whole state folder. Everything is found first and each thing is looked at again, or its
removal is conditional, when its turn comes: servers start and stop meanwhile. What lives is ended only where
that was asked for: processes that carry the marker of a server which has no row.
"""

from __future__ import annotations

import os
import time
from functools import partial

from devsup import identity, logs, shutdown
from devsup import tree as trees
from devsup.config import cache
from devsup.filenames import native
from devsup.guard import job as jobs
from devsup.models import Pruned, PruneResult
from devsup.registry import Registry
from devsup.supervisor import preflight
from devsup.supervisor.launching import KEPT_LOGS
from devsup.supervisor.view import Life, life

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devsup.models import Row
    from devsup.paths import Home
    from devsup.system import ProcessInfo

    Step = tuple[Pruned, Callable[[], bool]]

__all__ = ["prune"]

#: What nobody can be asked about any more is old after so many days.
OLD_DAYS = 30
_DAY = 86_400


def prune(home: Home, *, dry_run: bool, orphans: bool, grace: float | None) -> PruneResult:
    """Return what was removed, or with ``dry_run`` what would be; see `Supervisor.prune`."""
    registry = Registry(home)
    # Files and processes first, then rows: both appear after their row was written.
    found = _listed(home.servers)
    marked = trees.marked(home.root)
    rows = registry.rows()
    steps: list[Step] = [
        *_rows(registry, rows),
        *_stale_jobs(registry, found, {marker.id for _, marker in marked}, rows),
        *_logs(registry, home, rows),
        *_ports(registry, rows),
        *_set_aside(home),
        *_configs(home),
        *_waiters(home),
        *_orphans(registry, marked, rows, orphans=orphans, grace=grace),
    ]
    done = [what if dry_run else what.replace(done=do()) for what, do in steps]
    return PruneResult(done, list(registry.warnings))


# -- the registry ----------------------------------------------------------------------------------------


def _rows(registry: Registry, rows: list[Row]) -> Iterator[Step]:
    old = (time.time() - OLD_DAYS * _DAY) * 1e3
    for row in rows:
        what = f"{row.session} of {row.project}"
        alive = life(row)
        if alive is Life.DEAD:
            lost = identity.scope_relation(row.scope) == "lost"
            why = "the machine or container it ran on has ended" if lost else "its processes are gone"
            yield Pruned("row", what, None, why, done=False), partial(_end, registry, row)
        elif alive is Life.ENDED and (_is_gone(row.project) or (row.ended_at or 0) < old):
            why = "its project is gone" if _is_gone(row.project) else f"it ended over {OLD_DAYS} days ago"
            yield (
                Pruned("row", what, None, why, done=False),
                partial(registry.dismiss, row.id, row.generation),
            )


def _end(registry: Registry, row: Row) -> bool:
    jobs.remove(registry.home.job(row.id))
    registry.end_lost([row], identity.here().key)
    now = registry.row(row.id)
    return now is None or now.generation != row.generation


def _ports(registry: Registry, rows: list[Row]) -> Iterator[Step]:
    living = {row.project for row in rows}
    for owner, number in registry.owners(preflight.AUTO_PORTS):
        text = native(owner) if isinstance(owner, str) else os.fsdecode(owner)
        name, _, project = text.partition(" ")
        if project not in living and _is_gone(project):
            what = f"{number} of {name} of {project}"
            step = partial(registry.forget, preflight.AUTO_PORTS, owner)
            yield Pruned("port", what, None, "its project is gone", done=False), step


# -- files -----------------------------------------------------------------------------------------------


def _stale_jobs(registry: Registry, found: list[str], marked: set[str], rows: list[Row]) -> Iterator[Step]:
    known = {
        row.id for row in rows
    } | marked  # what runs without a row needs its job when that is found again
    for name in found:
        path = f"{registry.home.servers}/{name}"
        if name.partition(".")[0] not in known:
            yield (
                Pruned("job", path, _size(path), "its server is no more", done=False),
                partial(_unlink, path),
            )


def _logs(registry: Registry, home: Home, rows: list[Row]) -> Iterator[Step]:
    current = {row.log for row in rows}
    folders = {os.path.dirname(home.log(one, "", 0)): one for one in registry.projects()}
    living = {os.path.dirname(home.log(row.project, "", 0)) for row in rows if life(row) is not Life.ENDED}
    old = time.time() - OLD_DAYS * _DAY
    for name in _listed(home.logs):
        folder = f"{home.logs}/{name}"
        project = folders.get(folder)
        if folder not in living and project is not None and _is_gone(project):
            yield from _files(folder, f"its project `{project}` is gone")
        elif folder not in living and project is None and _newest(folder) < old:
            yield from _files(folder, f"nothing was written for {OLD_DAYS} days")
        else:
            for path in logs.surplus(folder, KEPT_LOGS, keep_paths=current):
                why = f"it is older than the last {KEPT_LOGS} of its session"
                yield Pruned("log", path, _size(path), why, done=False), partial(logs.remove, path)


def _set_aside(home: Home) -> Iterator[Step]:
    old = time.time() - OLD_DAYS * _DAY
    for name in _listed(home.set_aside):
        folder = f"{home.set_aside}/{name}"
        if _newest(folder) < old:
            size = sum(_size(f"{folder}/{one}") or 0 for one in _listed(folder))
            why = f"it was set aside over {OLD_DAYS} days ago"
            yield Pruned("registry", folder, size, why, done=False), partial(_remove, folder)


def _configs(home: Home) -> Iterator[Step]:
    for path, project in cache.remembered(home):
        if project is None or _is_gone(project):
            why = "it cannot be read" if project is None else f"its project `{project}` is gone"
            yield Pruned("config", path, _size(path), why, done=False), partial(_unlink, path)


def _waiters(home: Home) -> Iterator[Step]:
    from devsup.locks import _seeing

    for path in _seeing.left_behind(home.locks):
        why = "the process that waited for a lock, or had some, is dead"
        yield Pruned("lock", path, _size(path), why, done=False), partial(_unlink, path)


def _files(folder: str, why: str) -> Iterator[Step]:
    size = sum(_size(f"{folder}/{one}") or 0 for one in _listed(folder))
    yield Pruned("log", folder, size, why, done=False), partial(_remove, folder)


def _remove(folder: str) -> bool:
    """Remove a folder with the files in it; never anything deeper, and never through a link."""
    if os.path.islink(folder):
        return False
    for name in _listed(folder):
        _unlink(f"{folder}/{name}")
    try:
        os.rmdir(folder)
    except OSError:
        return False
    return True


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _size(path: str) -> int | None:
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return None


def _newest(folder: str) -> float:
    """Return when something was written in ``folder`` last; now, where that cannot be told."""
    times = [_time(folder), *(_time(f"{folder}/{name}") for name in _listed(folder))]
    return max(times)


def _time(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return time.time()


def _is_gone(project: str) -> bool:
    """Tell whether a project's folder is certainly not there."""
    try:
        os.stat(project)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


# -- processes -------------------------------------------------------------------------------------------


def _orphans(
    registry: Registry, marked: list[tuple[ProcessInfo, trees.Marker]], rows: list[Row], *, orphans: bool,
    grace: float | None,
) -> Iterator[Step]:  # fmt: skip
    known = {row.id for row in rows}
    groups: dict[str, list[ProcessInfo]] = {}
    for info, marker in marked:
        if marker.id not in known:
            groups.setdefault(marker.id, []).append(info)
    for server, infos in groups.items():
        if _is_busy(infos):
            continue
        left = trees.kept(trees.Tree(server, None), infos)
        end = _End(registry, server, asked=orphans, grace=grace)
        for info in infos:
            if info.pid not in left:
                why = "its server has no row" if orphans else "its server has no row; `--orphans` ends it"
                what = f"pid {info.pid} ({trees.show(info)})"
                yield Pruned("orphan", what, None, why, done=False), partial(end, info)


class _End:
    """Ends all of one server at its first call; each call says whether that was the end of one process."""

    def __init__(self, registry: Registry, server: str, *, asked: bool, grace: float | None) -> None:
        self._registry = registry
        self._server = server
        self._asked = asked
        self._grace = shutdown.DEFAULT_GRACE if grace is None else grace
        self._left: set[int] | None = None

    def __call__(self, info: ProcessInfo) -> bool:
        if not self._asked or self._registry.row(self._server) is not None:
            return False
        if self._left is None:
            ended = shutdown.end(trees.Tree(self._server, None), grace=self._grace)
            self._left = {one.pid for one in (*ended.survivors, *ended.left_running)}
        return info.pid not in self._left


def _is_busy(infos: list[ProcessInfo]) -> bool:
    """Tell whether a guard is still at it, or this very call comes from inside."""
    if any(trees.is_guard(info.pid) for info in infos):
        return True
    pids = {info.pid for info in infos}
    try:
        return any(one.pid in pids for one in trees.lineage(os.getpid()))
    except OSError:
        return True
