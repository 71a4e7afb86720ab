"""Redis, where a fleet is configured: nothing here uses it yet."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.doctor.scene import Scene, Seen

__all__ = ["KINDS", "look"]

KINDS = ()


def look(_scene: Scene, facts: list[str]) -> list[Seen] | None:
    """Skip it."""
    facts.append("not configured")
    return None
