"""
Whose a server is. A *named* owner's is its own; what was started by a caller without a name is anybody's.

Pure: who asks is found out by `devsup.apps.owner`, or told by another host.
"""

from __future__ import annotations

__all__ = ["ANYBODY", "SCRIPT", "TERMINAL", "is_anothers"]

TERMINAL, SCRIPT = "terminal", "script"
#: Names that many callers have at once: they protect nothing.
ANYBODY = frozenset({None, TERMINAL, SCRIPT})


def is_anothers(owner: str | None, caller: str | None) -> bool:
    """Tell whether what belongs to ``owner`` is protected from ``caller``."""
    return owner not in ANYBODY and owner != caller
