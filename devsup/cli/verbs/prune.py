"""`devsup prune`: remove what dead servers have left behind."""

from __future__ import annotations

from devsup import masking
from devsup.cli import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.errors import DevsupError
    from devsup.models import PruneResult
    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines", "waits"]


def handle(
    supervisor: Supervisor, options: dict[str, Any], _: object
) -> tuple[PruneResult, DevsupError | None]:
    """Remove it, or say what would be."""
    asked = {name: options[name] for name in ("dry_run", "orphans", "grace")}
    return supervisor.prune(**asked), None


def waits(_options: dict[str, Any]) -> str:
    """Return what a person is told meanwhile."""
    return "looking for what is left"


def lines(result: PruneResult) -> list[str]:
    """Return one line a thing: what became of it, what it is, why."""
    cells = [
        ["yes" if one.done else "no", one.kind, masking.text(one.what), one.why] for one in result.pruned
    ]
    return plain.aligned([["GONE", "KIND", "WHAT", "WHY"], *cells])
