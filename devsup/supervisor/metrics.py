"""
How things are, in the words of OpenMetrics, for those who scrape.

A look at one moment; reads only. Counters are those that the registry keeps for good (they begin anew when it
is rebuilt); what is made of the ends that are kept is a gauge histogram, since old ends are dropped.
"""

from __future__ import annotations

import time

from devsup.fleet import note
from devsup.locks import _seeing
from devsup.models import State
from devsup.registry import Registry
from devsup.supervisor import health
from devsup.supervisor.usage import Meter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devsup.models import LockStatus, Row
    from devsup.supervisor.core import Supervisor

    Samples = Iterable[tuple[str, Mapping[str, str], float]]

__all__ = ["metrics"]

#: Seconds by which durations are sorted.
_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: Ends of each project that durations are made of.
_ENDS = 200


def metrics(supervisor: Supervisor) -> str:
    """Return everything there is to tell, of all projects, ended by `# EOF`."""
    began = time.monotonic()
    registry = Registry(supervisor.home)
    known = health.rows(registry)
    reading = time.monotonic() - began
    inspection, counters = registry.inspect(whole=False), registry.counters()
    locks = _seeing.look(supervisor.home.locks)
    ended = [row for project in registry.projects() for row in registry.ended(project=project, limit=_ENDS)]
    usages = Meter(supervisor, everywhere=True).look()
    states = [one.server.state for one in known]
    held = [
        lease["state"] for one in known
        if one.life in ("live", "orphaned") and (lease := note.shown(supervisor.home, one.row.id)) is not None
    ]  # fmt: skip
    text = [
        _family("devsup_servers", "gauge", "Servers by state.", None, (
            ("", {"state": state.value}, states.count(state)) for state in State
        )),
        _family("devsup_servers_unguarded", "gauge", "Servers that run without their guard.", None, (
            ("", {}, sum(one.life == "orphaned" for one in known)),
        )),
        _family("devsup_leases", "gauge", "Leases of exclusive apps that run here.", None, (
            ("", {"state": state}, held.count(state)) for state in ("held", "lost")
        )),
        _family("devsup_server_memory_bytes", "gauge", "Resident memory of a server and its tree.", "bytes", (
            ("", _labels(one.server), one.memory) for one in usages if one.memory is not None
        )),
        _family("devsup_events", "counter", "Events by type, since the registry was made.", None, (
            ("_total", {"type": name.removeprefix("event:")}, value)
            for name, value in sorted(counters.items()) if name.startswith("event:")
        )),
        _family("devsup_restarts", "counter", "Times that a server was run again.", None, (
            ("_total", {}, counters.get("event:restarted", 0)),
        )),
        _family("devsup_generations", "counter", "Runs of servers that were given a number.", None, (
            ("_total", {}, counters.get("generation", 0)),
        )),
        _family("devsup_registry_size_bytes", "gauge", "Registry with its write-ahead log.", "bytes", (
            ("", {}, inspection.size + inspection.wal if inspection is not None else 0),
        )),
        _family("devsup_registry_rows", "gauge", "What the registry keeps.", None, (
            ("", {"table": name}, getattr(inspection, name)) for name in ("live", "ended", "events")
            if inspection is not None
        )),
        _family("devsup_registry_read_seconds", "gauge", "Reading every row and its processes.", "seconds", (
            ("", {}, round(reading, 6)),
        )),
        *_locks(locks),
        _durations("devsup_start_seconds", "From a start to its answer.", [
            (row.ready_at - row.started_at) / 1e3
            for row in (*ended, *(one.row for one in known)) if row.ready_at is not None
        ]),
        _durations("devsup_stop_seconds", "From a stop to the end of the whole tree.", [
            stop for row in ended if (stop := _stop(row)) is not None
        ]),
    ]  # fmt: skip
    return "".join(text) + "# EOF\n"


def _stop(row: Row) -> float | None:
    took = (row.outcome or {}).get("ms")
    return took / 1e3 if isinstance(took, int | float) else None


def _labels(server: object) -> dict[str, str]:
    return {
        name: str(getattr(server, name)) for name in ("session", "project", "id") if getattr(server, name)
    }


def _locks(locks: list[LockStatus]) -> Iterable[str]:
    # Those of a program's threads end with it, so that no counter could be made of them.
    files = [one for one in locks if one.kind == "process"]

    def family(name: str, type_: str, help_: str, unit: str | None, key: str, suffix: str) -> str:
        samples = ((suffix, {"lock": one.name}, _stat(one, key)) for one in files)
        return _family(name, type_, help_, unit, samples)

    yield _family("devsup_locks_held", "gauge", "Locks that somebody holds, by kind.", None, (
        ("", {"kind": kind}, sum(bool(one.holders) for one in locks if one.kind == kind))
        for kind in ("process", "rw")
    ))  # fmt: skip
    yield _family("devsup_lock_waiters", "gauge", "Who waits for a lock, by kind.", None, (
        ("", {"kind": kind}, sum(len(one.waiters) for one in locks if one.kind == kind))
        for kind in ("process", "rw")
    ))  # fmt: skip
    yield family(
        "devsup_lock_acquisitions", "counter", "Times a lock was taken.", None, "acquisitions", "_total"
    )
    yield family("devsup_lock_failures", "counter", "Attempts that gave up.", None, "failures", "_total")
    for what, help_ in (("wait", "Longest wait for a lock."), ("hold", "Longest hold of a lock.")):
        yield family(f"devsup_lock_{what}_max_seconds", "gauge", help_, "seconds", f"{what}_ms", "")


def _stat(lock: LockStatus, key: str) -> float:
    value = lock.stats[key]
    return round(value["max"] / 1e3, 6) if isinstance(value, dict) else float(value)


# -- the format ------------------------------------------------------------------------------------------


def _family(name: str, type_: str, help_: str, unit: str | None, samples: Samples) -> str:
    lines = [f"# TYPE {name} {type_}"]
    if unit is not None:
        lines.append(f"# UNIT {name} {unit}")
    lines.append(f"# HELP {name} {help_}")
    told: dict[str, float] = {}
    for suffix, labels, value in samples:
        key = f"{name}{suffix}{_shown(labels)}"
        told[key] = told.get(key, 0) + value  # two locks of one name are one series
    return "".join(
        f"{line}\n" for line in (*lines, *(f"{key} {_number(value)}" for key, value in told.items()))
    )


def _durations(name: str, help_: str, seconds: list[float]) -> str:
    samples = [("_bucket", {"le": _number(edge)}, sum(one <= edge for one in seconds)) for edge in _BUCKETS]
    samples += [("_bucket", {"le": "+Inf"}, len(seconds)), ("_gcount", {}, len(seconds))]
    total = [("_gsum", dict[str, str](), round(sum(seconds), 3))]
    return _family(name, "gaugehistogram", help_, "seconds", [*samples, *total])


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) or value != int(value) else f"{value:.1f}"


def _shown(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    plain = text.encode(errors="replace").decode()
    return plain.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
