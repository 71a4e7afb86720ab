"""`devsup hosts`: which hosts are in the fleet, and when each was last seen."""

from __future__ import annotations

import time

from devsup.cli import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.errors import DevsupError
    from devsup.models import HostList
    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines"]


def handle(
    supervisor: Supervisor, _options: dict[str, Any], _: object
) -> tuple[HostList, DevsupError | None]:
    """Ask Redis."""
    return supervisor.hosts(), None


def lines(found: HostList) -> list[str]:
    """Return one line a host."""
    now = time.time()
    cells = [
        [
            one.host + (" (this one)" if one.here else ""),
            str(one.up),
            str(one.lost),
            plain.age(one.seen_at, now),
        ]
        for one in found.hosts
    ]
    return plain.aligned([["HOST", "UP", "LOST", "SEEN"], *cells])
