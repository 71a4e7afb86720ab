"""
From a host's name to addresses without waiting: in a thread, as `getaddrinfo` cannot be told not to wait.

A `Lookup` belongs to one thread; its own writes `found` and `error` before the pipe ends, and nothing after.
"""

from __future__ import annotations

import _socket
import errno
import os
from _thread import start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Peer = tuple[int, tuple[Any, ...]]

__all__ = ["Lookup", "known"]

#: Where Redis listens by default comes first.
_LOCALHOST = ((_socket.AF_INET, "127.0.0.1"), (_socket.AF_INET6, "::1"))


def known(host: str, port: int) -> list[Peer]:
    """Return where ``host`` is, if that needs no look-up: it is an address, or this very machine."""
    if host.lower() == "localhost":
        return [(family, (address, port)) for family, address in _LOCALHOST]
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return [(family, (host, port))]
    return []


class Lookup:
    """
    A name on its way to addresses: once `is_done`, they are ``found``, or there is the ``error``.

    ``fd`` is readable then. `close` it in the end; a thread that still waits for its answer goes by itself.
    """

    def __init__(self, host: str, port: int) -> None:
        self.found: list[Peer] = []
        self.error: OSError | None = None
        self.fd, self._writer = os.pipe()
        os.set_blocking(self.fd, False)
        try:
            start_new_thread(self._run, (host, port))
        except RuntimeError as error:
            self.error = OSError(errno.EAGAIN, str(error))
            os.close(self._writer)

    def _run(self, host: str, port: int) -> None:
        try:
            # As bytes where it can be: a `str` has Python load the tables of international names.
            name = host.encode() if host.isascii() else host
            answers = _socket.getaddrinfo(name, port, 0, _socket.SOCK_STREAM)
            self.found = [(family, where) for family, _, _, _, where in answers]
        except OSError as error:
            self.error = error
        except ValueError:
            self.error = _socket.gaierror(_socket.EAI_NONAME, "no such name can be")
        finally:
            os.close(self._writer)

    def is_done(self) -> bool:
        """Tell whether the answer is there."""
        try:
            return os.read(self.fd, 1) == b""
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Give ``fd`` back; to be called once."""
        os.close(self.fd)
