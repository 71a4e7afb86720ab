"""
Open an address in the person's browser, where there is one.

Asks nothing and waits for nothing: a browser belongs to the desktop and outlives this process.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VARIABLE", "command", "open_url"]

#: Names the program (and its arguments) that opens an address.
VARIABLE = "DEVSUP_BROWSER"


def command(environ: Mapping[str, str]) -> list[str] | None:
    """Return what opens an address here; None where nothing can, or is not to."""
    named = environ.get(VARIABLE)
    if named is not None:
        return shlex.split(named) or None
    if environ.get("BROWSER") == "none":
        return None
    if sys.platform == "darwin":
        return ["open"]
    # Without a desktop it would find a browser for terminals, and that takes ours.
    desktop = environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")
    for program in ("wslview", *(("xdg-open",) if desktop else ())):
        if shutil.which(program, path=environ.get("PATH")):
            return [program]
    return None


def open_url(url: str, environ: Mapping[str, str]) -> bool:
    """Have ``url`` opened; False where that cannot be."""
    words = command(environ)
    if words is None:
        return False
    try:
        opener = subprocess.Popen(
            [*words, url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return False
    opener.returncode = 0  # it is not ours to wait for, and its end is not ours to tell
    return True
