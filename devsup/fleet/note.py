"""
The lease of an exclusive app as its own host knows it: a note of how long it is held.

It is a small file beside the server's job, written in place by its guard alone, one write a time, so
that `status` asks no network. Who reads it asks the clock as well: a guard that was frozen or killed has
written nothing of what it lost.
"""

from __future__ import annotations

import json
import os

from devsup import identity
from devsup.clock import boottime, iso
from devsup.masking import MASK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.paths import Home

__all__ = ["Note", "left", "shown"]

#: Bytes of a note: always as many, so that a shorter one leaves nothing of a longer one behind.
_SIZE = 256
#: A read amid a write may see half of each; so many tries.
_TRIES = 3


class Note:
    """The note of one server's guard. Each write costs one system call."""

    def __init__(self, home: Home, server: str) -> None:
        self._path = _path(home, server)
        self._fd: int | None = None

    def write(
        self, *, held: bool, fencing: int, until: float, renewed_at: int | None, expires_at: int | None
    ) -> None:
        """
        Note it; ``until`` by `boottime`, the times in ms since the epoch.

        :raises OSError: it cannot be written
        """
        told = {"held": held, "fencing": fencing, "until": until, "boot": identity.here().boot}
        text = json.dumps({**told, "renewed_at": renewed_at, "expires_at": expires_at})
        if self._fd is None:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.pwrite(self._fd, text.ljust(_SIZE).encode(), 0)

    def close(self) -> None:
        """Write no more. The file goes with the job."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def left(home: Home, server: str) -> float | None:
    """Return for how many seconds the lease is held as noted (below zero: it was); None where nothing is."""
    told = _read(home, server)
    return _left(told) if told is not None else None


def shown(home: Home, server: str) -> dict[str, Any] | None:
    """Return the lease of a server as `status` shows it; None where its app is not exclusive."""
    told = _read(home, server)
    if told is None:
        return None
    seconds = _left(told)
    return {
        "state": "held" if seconds is not None and seconds > 0 else "lost",
        "token": MASK,
        "fencing": told["fencing"],
        "expires_at": iso(told["expires_at"]),
        "renewed_at": iso(told["renewed_at"]),
    }


def _left(told: dict[str, Any]) -> float | None:
    if told["boot"] != identity.here().boot:
        return None
    return float(told["until"]) - boottime() if told["held"] else 0.0


def _path(home: Home, server: str) -> str:
    # It begins as the job does: whoever removes that removes this.
    return f"{home.job(server)}.lease"


def _read(home: Home, server: str) -> dict[str, Any] | None:
    for _ in range(_TRIES):
        try:
            with open(_path(home, server), encoding="utf-8") as file:
                told = json.load(file)
            told["held"], told["until"], told["boot"], told["fencing"], told["renewed_at"], told["expires_at"]
        except (ValueError, KeyError, TypeError):
            continue
        except OSError:
            return None
        found: dict[str, Any] = told
        return found
    return None
