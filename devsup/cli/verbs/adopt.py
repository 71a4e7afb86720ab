"""`devsup adopt`: track a server that devsup did not start."""

from __future__ import annotations

from devsup.cli import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.errors import DevsupError
    from devsup.models import StartResult
    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines"]


def handle(
    supervisor: Supervisor, options: dict[str, Any], _: object
) -> tuple[StartResult, DevsupError | None]:
    """Adopt it."""
    return supervisor.adopt(options["target"], name=options["name"], owner=options["owner"]), None


def lines(result: StartResult) -> list[str]:
    """Return the line of the server."""
    return [plain.server_line(result)]
