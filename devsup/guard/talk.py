"""
Who speaks to a guard, and to whom it speaks: signals that wake its loop, and the pipe of its caller.

A signal only says "look at your row": what is asked stands there. For the guard's one thread.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what is behind `signal`, without its enums
import os
import select

from devsup.guard.spawn import LOOK

__all__ = ["Caller", "Signals"]

_STOP = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)


class Signals:
    """The signals that came since the last look, as a descriptor of the guard's loop."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        self.stop = False
        self.look = False

    def listen(self) -> None:
        """Have them come from now on."""
        for fd in (self.fd, self._write):
            os.set_blocking(fd, False)
        _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (*_STOP, _signal.SIGCHLD, LOOK):
            _signal.signal(number, lambda *_: None)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())

    def hear(self) -> None:
        """Take in what has come."""
        for number in os.read(self.fd, 256):
            self.stop = self.stop or number in _STOP
            self.look = self.look or number == LOOK

    def take(self) -> bool:
        """Forget what has come; tell whether a stop was in it."""
        told, self.stop, self.look = self.stop, False, False
        return told

    def rest(self, seconds: float) -> None:
        """Wait until one comes, at most so long."""
        select.select([self.fd], [], [], seconds)


class Caller:
    """The pipe to whoever started this guard, descriptor 3; see `devsup.guard.spawn.Hearing`."""

    def __init__(self) -> None:
        self._pipe: int | None = 3
        self._said = ""

    def say(self, step: str) -> None:
        """Tell it of ``step``, once; the last one ends the talk."""
        if self._pipe is None or step in self._said:
            return
        self._said += step
        try:
            os.write(self._pipe, step.encode())
        except OSError:
            self.close()  # nobody listens any more
        if step == "r":
            self.close()

    def close(self) -> None:
        """Tell it no more."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
