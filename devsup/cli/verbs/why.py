"""`devsup why`: one thing's story, and what to type next."""

from __future__ import annotations

from devsup import masking
from devsup.cli import hints, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.models import Story
    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines"]


def handle(supervisor: Supervisor, options: dict[str, Any], _: object) -> tuple[Story, None]:
    """Tell it."""
    told = supervisor.why(options["target"])
    return told.replace(next=hints.located(told.next, options["directory"])), None


def lines(data: Story) -> list[str]:
    """Return one line a sentence, then the command."""
    cells = [[plain.or_dash(one.time), one.source, masking.text(one.text)] for one in data.story]
    return [*plain.aligned(cells), f"next: {data.next}"]
