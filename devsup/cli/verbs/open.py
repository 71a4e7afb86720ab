"""`devsup open`: a server's address in the browser."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from devsup.cli import browser

if TYPE_CHECKING:
    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines"]


def handle(supervisor: Supervisor, options: dict[str, Any], _progress: Any) -> tuple[dict[str, Any], None]:
    """Open where a server answers, or only say it: with `--print`, and where no person looks."""
    found: dict[str, Any] = supervisor.url(options["target"])
    person = not options["print"] and not options["json"] and sys.stdout is not None and sys.stdout.isatty()
    opened = person and browser.open_url(str(found["url"]), os.environ)
    if person and not opened:
        supervisor.notes.append(f"no browser was found; name one in `{browser.VARIABLE}`")
    return {**found, "opened": opened}, None


def lines(data: dict[str, Any]) -> list[str]:
    """Return the address."""
    return [data["url"]]
