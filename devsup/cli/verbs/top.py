"""`devsup top`: the servers live, with what they cost, until the person leaves."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any

from devsup.errors import UsageError

if TYPE_CHECKING:
    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines"]


def handle(supervisor: Supervisor, options: dict[str, Any], _progress: Any) -> tuple[None, None]:
    """
    Show the servers until `q` or Ctrl-C.

    :raises UsageError: this is no terminal
    """
    if options["json"] or not all(map(_is_terminal, (sys.stdin, sys.stdout))):
        raise UsageError("`devsup top` needs a terminal", hint="devsup list")
    if not 0.1 <= options["interval"] <= 3600:
        raise UsageError("`--interval` takes from 0.1 to 3600 seconds", hint="devsup top --help")
    from devsup.cli import handlers, live

    gc.enable()  # this one may live for days
    try:
        live.run(supervisor, everywhere=options["everywhere"], every=options["interval"])
    except KeyboardInterrupt:
        if handlers.was_terminated():
            raise
    return None, None


def lines(_data: None) -> list[str]:
    """Return nothing: the screen was the answer."""
    return []


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
