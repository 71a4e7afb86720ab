"""`devsup agent-guide`: what an agent must know, as Markdown for its prompt."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines"]

_PATH = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "agent_guide.md")


def handle(_supervisor: Supervisor, _options: dict[str, Any], _progress: Any) -> tuple[dict[str, str], None]:
    """Return the guide."""
    with open(_PATH, encoding="utf-8") as file:
        return {"guide": file.read()}, None


def lines(data: dict[str, str]) -> list[str]:
    """Return the guide as it is pasted."""
    return data["guide"].splitlines()
