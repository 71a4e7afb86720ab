"""`devsup monitor`: look again and again, and record what becomes wrong."""

from __future__ import annotations

from devsup import masking
from devsup.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from devsup.models import MonitorRound
    from devsup.supervisor import Supervisor

__all__ = ["follows", "handle", "lines", "pages"]

#: Seconds between two looks: a look takes a tenth of one, and a day is long enough to hear of nothing.
_LEAST, _MOST = 0.1, 86_400.0


def handle(supervisor: Supervisor, options: dict[str, Any], _: object) -> tuple[MonitorRound, None]:
    """Look once."""
    [one] = supervisor.monitor(**_asked(options))
    return one, None


def follows(options: dict[str, Any]) -> bool:
    """Give one answer after another, unless one look is asked for."""
    return bool(not options["once"])


def pages(
    supervisor: Supervisor, options: dict[str, Any], rest: Callable[[float], None]
) -> Iterator[MonitorRound]:
    """Give each round."""
    yield from supervisor.monitor(**_asked(options), rest=rest)


def _asked(options: dict[str, Any]) -> dict[str, Any]:
    if not _LEAST <= options["interval"] <= _MOST:
        raise UsageError(
            f"`--interval` takes from {_LEAST} to {_MOST:.0f} seconds", hint="devsup monitor --help"
        )
    return {name: options[name] for name in ("interval", "once", "max_memory", "max_cpu")}


def lines(data: MonitorRound) -> list[str]:
    """Return one line for each finding that has appeared or gone."""
    return [
        f"{word} {one['id']}: {masking.text(one['message'])}"
        for word, found in (("open", data.opened), ("gone", data.closed))
        for one in found
    ]
