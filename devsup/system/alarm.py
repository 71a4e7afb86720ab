"""
A descriptor that is ready at a time of the clock that goes on while the machine sleeps.

The timerfd of Linux; elsewhere there is none. Loads ctypes. An `Alarm` is for one thread.
"""

from __future__ import annotations

import os
import sys

from devsup.clock import UPTIME

__all__ = ["Alarm"]

_NONBLOCK, _CLOEXEC, _ABSOLUTE = 0o4000, 0o2000000, 1


class Alarm:
    """``fd`` is ready from a given time on, even one that the machine sleeps at; None where there is none."""

    def __init__(self) -> None:
        self.fd: int | None = None
        if sys.platform != "linux" or sys.maxsize < 1 << 32:
            return
        import ctypes

        libc = ctypes.CDLL(None)
        try:
            fd = libc.timerfd_create(UPTIME, _NONBLOCK | _CLOEXEC)
        except AttributeError:
            return
        if fd >= 0:
            self.fd = fd
            self._settime = libc.timerfd_settime
            self._spec = ctypes.c_int64 * 4

    def set(self, at: float | None) -> None:
        """Have it ready from ``at`` on (`boottime`), and not for what was set before; None: never."""
        if self.fd is None:
            return
        # The kernel takes zero for never.
        seconds, rest = divmod(max(at, 1e-9), 1) if at is not None else (0, 0)
        self._settime(self.fd, _ABSOLUTE, self._spec(0, 0, int(seconds), int(rest * 1e9)), None)

    def close(self) -> None:
        """Be ready for nothing any more."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
