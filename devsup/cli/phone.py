"""
Where a phone finds an Expo server, as a QR code for its camera.

Reads the machine's addresses and listening sockets; pure drawing besides.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from rich.text import Text

from devsup import ports
from devsup.models import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devsup.models import Server

__all__ = ["address", "code"]

#: What Expo itself reads where the machine's address is not the one to use.
_HOST = "REACT_NATIVE_PACKAGER_HOSTNAME"
#: Dark modules in the upper and lower half of a character.
_HALVES = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def address(server: Server, environ: Mapping[str, str]) -> str | None:
    """Return the `exp://` address of an Expo server; None where no phone could reach it."""
    if server.kind != "expo" or server.port is None or server.state is not State.READY:
        return None
    heard = [listener.address for listener in ports.listening(server.port)]
    if heard and all(one == "::1" or one.startswith("127.") for one in heard):
        return None
    host = environ.get(_HOST) or _own_address()
    return f"exp://{host}:{server.port}" if host else None


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: the kernel only chooses the way
        except OSError:
            return None  # no network
        host = str(probe.getsockname()[0])
    return None if host.startswith(("127.", "0.")) else host


def code(text: str, width: int, *, coloured: bool = True) -> Text | None:
    """
    Return ``text`` as a QR code in half characters; None where it is wider than ``width``.

    Black on white where that may be said; else in the terminal's own colours, which most often are light on
    dark.
    """
    import segno

    rows = [list(row) for row in segno.make(text, error="l", micro=False).matrix_iter(border=2)]
    if len(rows[0]) > width:
        return None
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    drawn = [
        "".join(
            _HALVES[bool(upper) is coloured, bool(lower) is coloured]
            for upper, lower in zip(above, below, strict=True)
        )
        for above, below in zip(rows[::2], rows[1::2], strict=True)
    ]
    return Text("\n".join(drawn), style="#000000 on #ffffff" if coloured else "", no_wrap=True)
