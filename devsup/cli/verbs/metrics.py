"""`devsup metrics`: gauges and counters for a scraper."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.models import Metrics
    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines"]


def handle(supervisor: Supervisor, _options: dict[str, Any], _: object) -> tuple[Metrics, None]:
    """Look once."""
    return supervisor.metrics(), None


def lines(data: Metrics) -> list[str]:
    """Return the text as it is."""
    return data.text.splitlines()
