"""
Tell each step with its time on stderr, where somebody asked for it (`-v`, `DEVSUP_DEBUG`).

One process-wide switch; lines are single writes, so those of several threads do not mix.
"""

from __future__ import annotations

import os
import time

__all__ = ["enable", "step"]

_started = time.monotonic()
_on = os.environ.get("DEVSUP_DEBUG", "") not in ("", "0")


def enable() -> None:
    """Tell the steps from here on."""
    global _on
    _on = True


def step(text: str) -> None:
    """Write one step; never pass it a value that may be secret."""
    if _on:
        line = f"devsup +{(time.monotonic() - _started) * 1e3:.1f} ms  {text}\n"
        try:
            os.write(2, line.encode(errors="replace"))
        except OSError:
            return  # a closed stderr is no reason to fail
