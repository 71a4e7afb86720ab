"""`devsup locks`: who holds locks and who waits for them, in all processes."""

from __future__ import annotations

from devsup import masking
from devsup.cli import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from devsup.models import LockList, LockStatus
    from devsup.supervisor import Supervisor

__all__ = ["drawn", "follows", "handle", "lines", "pages"]

#: Seconds between two looks of `--watch`.
_EVERY = 1.0
_HEADING = ["LOCK", "KIND", "HELD BY", "FOR", "WAITING", "USES", "FAILED", "WAIT", "HOLD"]


def handle(supervisor: Supervisor, options: dict[str, Any], _: object) -> tuple[LockList, None]:
    """Look once."""
    return supervisor.locks(everything=options["all"]), None


def follows(options: dict[str, Any]) -> bool:
    """Give one answer after another with `--watch`."""
    return bool(options["watch"])


def pages(
    supervisor: Supervisor, options: dict[str, Any], rest: Callable[[float], None]
) -> Iterator[LockList]:
    """Look again and again."""
    while True:
        yield supervisor.locks(everything=options["all"])
        rest(_EVERY)


def lines(found: LockList) -> list[str]:
    """Return one line a lock; times of waiting and holding are averages and 95th percentiles."""
    if not found.locks:
        return ["no lock is held"]
    return plain.aligned([_HEADING, *map(_cells, found.locks)])


def drawn(found: LockList) -> Any:
    """Return it as a table that fits a narrow terminal: how many wait, and 95th percentiles."""
    from rich.table import Table
    from rich.text import Text

    if not found.locks:
        return Text("No lock is held.")
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("LOCK", "HELD BY", "FOR", "WAITING", "USES", "FAILED", "WAIT", "HOLD"):
        grid.add_column(name, no_wrap=name != "LOCK", min_width=len(name))
    for lock in found.locks:
        style = "red" if lock.waiters else "yellow" if lock.holders else "dim"
        name, _, holders, age, _, uses, failures, *_ = _cells(lock)
        late = [plain.duration(lock.stats[which]["p95"] / 1e3) for which in ("wait_ms", "hold_ms")]
        cells = [name, holders, age, str(len(lock.waiters) or "-"), uses, failures, *late]
        # The first column gives way: where it becomes narrower than the name, that ends in an ellipsis.
        grid.add_row(*(Text(plain.clean(cell), style, no_wrap=True, overflow="ellipsis") for cell in cells))
    return grid


def _cells(lock: LockStatus) -> list[str]:
    stats = lock.stats
    return [
        masking.text(lock.name),
        lock.kind,
        masking.text(", ".join(map(_person, lock.holders))) or "-",
        plain.duration(lock.holder["age_ms"] / 1e3) if lock.holder is not None else "-",
        masking.text(", ".join(map(_person, lock.waiters[:3])))
        + (f" and {len(lock.waiters) - 3} more" if len(lock.waiters) > 3 else "")
        or "-",
        str(stats["acquisitions"]),
        str(stats["failures"]),
        _times(stats["wait_ms"]),
        _times(stats["hold_ms"]),
    ]


def _person(one: dict[str, Any]) -> str:
    words = [str(one["pid"]), *(["reads"] if one["mode"] == "read" else [])]
    return " ".join([*words, *([f"({one['purpose']})"] if one["purpose"] else [])])


def _times(times: dict[str, float]) -> str:
    return f"{times['avg']:.1f}/{times['p95']:.1f} ms"
