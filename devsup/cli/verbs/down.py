"""`devsup down`: stop the apps of a project, dependents first."""

from __future__ import annotations

from devsup.cli import handlers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.errors import DevsupError
    from devsup.models import StopResults
    from devsup.supervisor import Supervisor

__all__ = ["handle", "waits"]


def handle(
    supervisor: Supervisor, options: dict[str, Any], _progress: Any
) -> tuple[StopResults, DevsupError | None]:
    """Stop them; results and errors are those of `stop`."""
    results = supervisor.down(
        options["apps"] or [],
        grace=options["grace"],
        sweep=options["sweep"],
        take_over=options["take_over"],
    )
    return results, handlers.worst(results.results)


def waits(options: dict[str, Any]) -> str:
    """Return what a person is told meanwhile."""
    return f"stopping {', '.join(options['apps'] or ()) or 'every app'}"
