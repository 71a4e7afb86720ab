"""`devsup ports`: who listens where, and what a start would meet."""

from __future__ import annotations

from devsup import masking
from devsup.cli import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.errors import DevsupError
    from devsup.models import PortList
    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines"]


def handle(
    supervisor: Supervisor, _options: dict[str, Any], _: object
) -> tuple[PortList, DevsupError | None]:
    """Look who listens."""
    return supervisor.ports(), None


def lines(found: PortList) -> list[str]:
    """Return one line a socket; a session is one of ours."""
    cells = [
        [
            str(one.port),
            one.address,
            plain.or_dash(one.pid),
            plain.or_dash(one.session),
            plain.or_dash(one.project or one.cwd),
            masking.text(plain.or_dash(one.command)),
        ]
        for one in found.ports
    ]
    return plain.aligned([["PORT", "ADDRESS", "PID", "SESSION", "FOLDER", "COMMAND"], *cells])
