"""
Looks again and again, and records what has become wrong and what is well again as events of type `finding`.

A round is the cheap parts of a health check and what each server's tree costs. Any number of monitors may run
beside each other, of one project or of many: see `devsup.registry.findings`. Between two rounds a monitor
sleeps, and holds nothing open.
"""

from __future__ import annotations

import os
import sys
import time

from devsup import doctor
from devsup.doctor.scene import WARN, Seen
from devsup.errors import DevsupError, UsageError
from devsup.models import MonitorRound
from devsup.paths import find_home
from devsup.records import Record
from devsup.registry import Registry
from devsup.registry.findings import Open
from devsup.supervisor import health
from devsup.supervisor.usage import Meter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from devsup.supervisor.core import Supervisor

__all__ = ["INTERVAL", "Limits", "command", "rounds"]

#: Seconds between two rounds.
INTERVAL = 300.0
#: Above these the tree of a server is worth a word: MiB of memory, percent of one core.
MEMORY, CPU = 4096, 200
#: Findings about this project alone: no monitor of another one can tell that they are gone.
_OF_PROJECT = ("port_taken", "config_invalid", "ambiguous")
#: Seconds over which the CPU is measured where there is no round before.
_SAMPLE = 0.5


class Limits(Record):
    """What a server's tree may take; 0 for no limit. ``memory`` in MiB, ``cpu`` in percent of one core."""

    memory: int
    cpu: int

    @classmethod
    def read(cls, memory: int | None, cpu: int | None, environ: Mapping[str, str]) -> Limits:
        """
        Return what was given, else what ``DEVSUP_MONITOR_MEMORY`` and ``DEVSUP_MONITOR_CPU`` say.

        :raises UsageError: one is no whole number
        """
        return cls(
            _limit("--max-memory", "DEVSUP_MONITOR_MEMORY", memory, environ, MEMORY),
            _limit("--max-cpu", "DEVSUP_MONITOR_CPU", cpu, environ, CPU),
        )


def _limit(flag: str, variable: str, given: int | None, environ: Mapping[str, str], usual: int) -> int:
    text = environ.get(variable, "") if given is None else str(given)
    if not text:
        return usual
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        name = variable if given is None else flag
        raise UsageError(f"`{name}` takes a whole number from 0", hint="devsup monitor --help")
    return int(text)


def command(home: str, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return what a monitor that is a server runs, and the variables that it needs for this state folder."""
    # `-P`: a folder of the project that is called devsup is not what is meant.
    argv = [sys.executable, "-P", "-m", "devsup", "monitor"]
    return argv, {} if find_home(environ).root == home else {"DEVSUP_HOME": home}


def rounds(
    supervisor: Supervisor, *, every: float, once: bool, limits: Limits, rest: Callable[[float], None]
) -> Iterator[MonitorRound]:
    """Give what each round has changed; ``rest`` waits in between."""
    meter = Meter(supervisor, everywhere=True)
    if limits.cpu and once:
        meter.look()
        rest(_SAMPLE)
    while True:
        began = time.monotonic()
        try:
            yield _round(supervisor, meter, limits)
        except DevsupError as error:
            if once:
                raise
            yield MonitorRound([], [], [], [f"this round could not be recorded: {error}"])
        if once:
            return
        rest(max(0.0, every - (time.monotonic() - began)))


def _round(supervisor: Supervisor, meter: Meter, limits: Limits) -> MonitorRound:
    registry = Registry(supervisor.home)
    since = registry.event_page(after=None, limit=1, project=None).next_after
    scene = health.scene(supervisor, whole=False)
    examined = doctor.examine(scene, doctor.CHEAP)
    dear = _costs(meter, limits) if scene.known is not None else None
    seen = [each for one in examined for each in one.seen or ()] + (dear or [])
    kinds = {
        kind
        for one in examined
        if one.seen is not None and one.whole
        for kind in doctor.PARTS[one.part].KINDS
        # Only the whole of the file shows damage: doctor looks at that.
        if kind != "registry_damaged"
    }
    servers = {one.row.id for one in scene.known or ()}

    def covered(one: Open) -> bool:
        kind, _, which = one.id.partition(":")
        if kind in ("memory_high", "cpu_high"):
            server, _, limit = which.partition(":")
            own = limits.memory if kind == "memory_high" else limits.cpu
            return dear is not None and (limit == str(own) or server not in servers)
        return kind in kinds and (kind not in _OF_PROJECT or one.project == supervisor.project)

    recorded = registry.record_findings(
        [Open(one.id, one.message, one.project, one.session) for one in seen],
        covered,
        since=since,
        by=f"pid {os.getpid()}",
    )
    opened, closed, still = (
        [one.asdict() for one in each] for each in (recorded.opened, recorded.closed, recorded.open)
    )
    return MonitorRound(opened, closed, still, list(registry.warnings))


def _costs(meter: Meter, limits: Limits) -> list[Seen]:
    seen = []
    for one in meter.look():
        server = one.server
        name, memory = f"`{server.session}` of `{server.project}`", (one.memory or 0) / 2**20
        over = []
        if limits.memory and memory > limits.memory:
            text = f"{name} takes {memory:.0f} MiB of memory in {one.processes} processes"
            over.append((f"memory_high:{server.id}:{limits.memory}", text))
        if limits.cpu and (one.cpu or 0) > limits.cpu:
            text = f"{name} takes {one.cpu:.0f} % of a core"
            over.append((f"cpu_high:{server.id}:{limits.cpu}", text))
        fix = f"devsup restart {server.pid}"
        seen += [
            Seen(WARN, key, text, fix, project=server.project, session=server.session) for key, text in over
        ]
    return seen
