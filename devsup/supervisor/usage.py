"""
What the servers' processes cost: CPU since the last look, and memory, of each whole tree.

A meter belongs to one thread. A process that ends between two looks takes its part of the CPU with it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil

from devsup import identity
from devsup import tree as trees
from devsup.records import Record
from devsup.registry import Registry
from devsup.supervisor.view import tree_of

if TYPE_CHECKING:
    from devsup.models import Server
    from devsup.supervisor.core import Supervisor

__all__ = ["Meter", "Usage"]


class Usage(Record):
    """
    One server and what its tree takes.

    ``cpu`` is in percent of one core, None at the first look; ``memory`` in bytes (resident, so what several
    processes share counts for each), None where nothing of it lives.
    """

    server: Server
    cpu: float | None
    memory: int | None
    processes: int


class Meter:
    """Looks at a project's servers again and again."""

    def __init__(self, supervisor: Supervisor, *, everywhere: bool = False) -> None:
        self._supervisor = supervisor
        self._everywhere = everywhere
        #: Per process (pid, start): the seconds of CPU it had at the last look.
        self._spent: dict[tuple[int, float], float] = {}
        self._looked_at: float | None = None

    def look(self) -> list[Usage]:
        """Return the servers as `Supervisor.list` does, each with its cost since the last look."""
        servers = self._supervisor.list(everywhere=self._everywhere).servers
        rows = {row.id: row for row in Registry(self._supervisor.home).rows(scope=identity.here().key)}
        now = time.monotonic()
        seconds = None if self._looked_at is None else max(now - self._looked_at, 0.001)
        spent: dict[tuple[int, float], float] = {}
        found = []
        for server in servers:
            row = rows.get(server.id)
            pids = [] if row is None else [info.pid for info in trees.members(tree_of(row), full=False)]
            memory, used = 0, 0.0
            for pid in pids:
                cost = _cost(pid)
                if cost is None:
                    continue
                key, total, resident = cost
                spent[key] = total
                memory += resident
                # A process that is new since the last look has spent all of it since then.
                used += total - self._spent.get(key, 0.0)
            cpu = None if seconds is None or not pids else max(0.0, 100 * used / seconds)
            found.append(Usage(server, cpu, memory if pids else None, len(pids)))
        self._spent, self._looked_at = spent, now
        return found


def _cost(pid: int) -> tuple[tuple[int, float], float, int] | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return (pid, process.create_time()), times.user + times.system, process.memory_info().rss
    except psutil.Error:
        return None  # it has just ended
