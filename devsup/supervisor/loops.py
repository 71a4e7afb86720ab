"""Refuses calls that block where they would hold up an event loop. No state; any thread may ask."""

from __future__ import annotations

import sys

from devsup.errors import UsageError

__all__ = ["refuse"]


def refuse(name: str, instead: str) -> None:
    """
    Raise where an asyncio event loop runs in this thread, in which ``name`` would block.

    :raises UsageError: says that it is ``instead`` that waits without blocking
    """
    # Whoever runs a loop has loaded asyncio; nobody else shall pay for it (60 ms).
    asyncio = sys.modules.get("asyncio")
    running = getattr(asyncio, "_get_running_loop", None)
    if running is not None and running() is not None:
        raise UsageError(
            f"`{name}` blocks, and an event loop runs in this thread", hint=f"`await {instead}` instead"
        )
