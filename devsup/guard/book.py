"""
What a guard reads and writes in the registry: every write names the generation, so that one which comes too
late changes nothing.

Whatever is the matter with the registry, the server is still to be guarded: what it would not take is kept
and offered again. For the guard's one thread.
"""

from __future__ import annotations

import os
import time

from devsup.clock import now_ms
from devsup.guard import job as jobs
from devsup.guard.launch import FAILURES
from devsup.models import State
from devsup.paths import Home
from devsup.readiness import url_of
from devsup.registry import Registry, recovery
from devsup.registry.locking import PATIENCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from devsup.guard.charge import Charge
    from devsup.guard.children import Exit
    from devsup.guard.job import Job
    from devsup.models import StopClaim
    from devsup.readiness import Found
    from devsup.registry.frozen import End
    from devsup.shutdown import Ended

__all__ = ["FAILURES", "Book", "place", "say"]

#: Pauses between tries to write the end of a server to a registry that cannot be written.
_END_PAUSES = (0.1, 0.5, 2.0)
#: Seconds between tries to write what a registry would not take; they double up to the second number.
_AGAIN = (0.1, 5.0)
#: Seconds that a question to the registry may wait at least, and the part of what is left that it may wait at
#: most, for either of two locks: an end asks three.
_LEAST, _SHARE = 0.05, 0.25
#: Later than any time in ms since the epoch.
_EVER = 1 << 62


class Book:
    """The registry, as the guard of one server uses it."""

    def __init__(self, charge: Charge) -> None:
        self.charge = charge
        self.home = Home(charge.job.home)
        #: Gives the seconds that there are for all that is still to be done; None where nothing presses.
        self.left: Callable[[], float] | None = None
        # Named here so that it is loaded: a guard may be the first to meet a damaged registry.
        self.registry = Registry(
            self.home, rebuild=lambda: recovery.living(self.home), patience=self._patience
        )
        #: What the registry has not taken yet, and when it is asked again.
        self._unwritten: dict[str, Any] = {}
        self._pause = 0.0
        self.due: float | None = None

    def _patience(self) -> float:
        """Return for how many seconds a question may wait for a registry that somebody has locked."""
        if self.left is None:
            return PATIENCE
        return min(PATIENCE, max(_LEAST, self.left() * _SHARE))

    def write(self, **fields: Any) -> None:
        """Have the registry take ``fields``, and what it has not taken before; it is asked until it does."""
        self._unwritten.update(fields)
        try:
            self.registry.update(self.charge.job.id, self.charge.generation, **self._unwritten)
        except FAILURES as error:
            first, longest = _AGAIN
            self._pause = min(self._pause * 2 or first, longest)
            self.due = time.monotonic() + self._pause
            say(f"cannot write {self._unwritten}: {error}")
        else:
            self.forget()
            self._pause = 0.0

    def forget(self) -> None:
        """Offer what was not taken no more: it is about a generation that is over."""
        self._unwritten, self.due = {}, None

    def claim(self) -> StopClaim | None:
        """Return how this generation is to be stopped; None where nobody has written that down."""
        try:
            row = self.registry.row(self.charge.job.id)
        except FAILURES as error:
            say(f"cannot read who asks: {error}")
            return None
        return row.stop if row is not None and row.generation == self.charge.generation else None

    def begin_end(self, reason: str, *, unused_since: int = _EVER) -> bool:
        """
        Say that it stops by itself; False where somebody has an operation on it, or is ending it already.

        Also where somebody has asked for it after ``unused_since``, in ms since the epoch.
        """
        job = self.charge.job
        return self.registry.update(
            job.id, job.generation, state=State.STOPPING, event="stopping", reason=reason,
            unused_since=unused_since,
        )  # fmt: skip

    def in_flight(self) -> str | None:
        """Return what is announced to be done with the server by a process that lives, or None."""
        try:
            found = self.registry.in_flight(self.charge.job.id)
        except FAILURES as error:
            say(f"cannot read what is in flight: {error}")
            return None
        return f"`{found[0].purpose}` of pid {found[0].by.pid}" if found else None

    def last_used(self) -> int | None:
        """Return when somebody last asked for it, in ms since the epoch."""
        row = self.registry.row(self.charge.job.id)
        return row.last_used_at if row is not None else None

    def begin_generation(
        self, failed: End | None = None, details: dict[str, Any] | None = None
    ) -> Job | None:
        """
        Close this generation and return the job of the next one; None where it has been ended.

        ``failed`` is how it ended by itself; ``details`` are those of the event.
        """
        job = self.charge.job

        def log_of(generation: int) -> str:
            return self.home.log(job.project, job.session, generation)

        row = self.registry.regenerate(job.id, job.generation, log_of, failed=failed, details=details)
        return None if row is None else job.replace(generation=row.generation, log=row.log)

    def write_job(self) -> None:
        """Write what this guard runs now."""
        try:
            jobs.write(self.home.job(self.charge.job.id), self.charge.job)
        except OSError as error:
            say(f"cannot write the job: {error}")  # only a rebuilt registry would miss it

    def finish(
        self, state: State, left: Exit, *, ended: Ended | None, reason: str, by: str | None, keep: bool
    ) -> None:
        """Write the end. Nothing presses any more."""
        self.left = None
        job, outcome = self.charge.job, _plain(ended)
        # Before the row: killed in between, a row without a job is found dead by the next command, but nobody
        # would look for a job without a row.
        jobs.remove(self.home.job(job.id))
        for pause in (*_END_PAUSES, None):
            try:
                self.registry.finish(
                    job.id, job.generation, state=state, exit_code=left.code, signal=left.signal,
                    reason=reason, by=by, outcome=outcome, keep=keep, at=now_ms(),
                )  # fmt: skip
                return
            except FAILURES as error:
                say(f"cannot write the end: {error}")
                if pause is not None:
                    time.sleep(pause)


def _plain(ended: Ended | None) -> dict[str, object] | None:
    if ended is None:
        return None
    plain = ended.asdict()
    for name in ("survivors", "left_running"):
        plain[name] = [member.asdict() for member in plain[name]]
    return plain


def place(found: Found) -> dict[str, Any]:
    """Return the fields that say where the server is."""
    return {
        "port": found.listener.port,
        "url": url_of(found.listener, found.scheme),
        "listener_pid": found.pid or None,
        "listener_inode": found.listener.inode,
    }


def say(text: str) -> None:
    """Write a line to the guard's own log, which is descriptor 2; a full disk is no reason to fail."""
    line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n"
    try:
        os.write(2, line.encode(errors="replace"))
    except OSError:
        return
