"""
Does the server still answer? A request every so many seconds, once it has been ready.

The check is that of its readiness: the paths and the status that its probe names; where it names no path, a
connection that is accepted. So is TLS, which a guard does not speak. It never blocks; for the guard's one
thread.
"""

from __future__ import annotations

import time

from devsup import readiness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.guard.job import Job
    from devsup.readiness import Answer, Found, Probe

__all__ = ["FAILURES", "Health", "fault_of"]

#: Checks in a row that must fail until the server is unhealthy: one may meet a compilation.
FAILURES = 3
#: Seconds for which a closed connection of this guard's may still be seen; the kernel remembers it for 60.
_REMEMBERED = 90.0


class Health:
    """Checks one server after another look; ``due`` is when it has something to do, None for never."""

    def __init__(self, job: Job) -> None:
        wanted = job.policy.get("health") or {}
        self.interval = float(wanted.get("interval") or 0.0)
        self.restarts = bool(wanted.get("restart"))
        self.due: float | None = None
        self.failed = 0
        #: Why the last check failed.
        self.why = ""
        self._probe: Probe | None = None
        self._deadline = 0.0
        #: From which ports it has asked, and when.
        self._asked: dict[int, float] = {}

    def begin(self, now: float) -> None:
        """Check from now on."""
        self.stop()
        if self.interval:
            self.due = now + self.interval

    def stop(self) -> None:
        """Check no more."""
        self._close()
        self.due, self.failed = None, 0

    def fds(self) -> list[tuple[int, int]]:
        """Return the descriptors to wait on, with their events."""
        return [(self._probe.fd, self._probe.events)] if self._probe is not None else []

    def own_ports(self, now: float) -> set[int]:
        """Return the ports from which it asked: its own connections are no use of the server."""
        self._asked = {port: at for port, at in self._asked.items() if now - at < _REMEMBERED}
        return set(self._asked)

    def advance(self, ready: set[int], job: Job, found: Found | None) -> bool | None:
        """Go on; return the verdict of a check that is through, None while there is none."""
        now = time.monotonic()
        probe = self._probe
        if probe is None:
            if self.due is not None and now >= self.due and found is not None:
                self._ask(now, job, found)
            return None
        answer = probe.step() if probe.fd in ready else None
        if answer is not None:
            return self._judge(now, fault_of(job, answer))
        return self._judge(now, "it does not answer") if now >= self._deadline else None

    def _ask(self, now: float, job: Job, found: Found) -> None:
        paths = job.probe.get("http") or []
        path = paths[self.failed % len(paths)] if paths and found.scheme == "http" else None
        self._probe = readiness.Probe(found.listener, path, whole_body=bool(job.probe.get("body")))
        self._asked[self._probe.local_port] = now
        self._deadline = self.due = now + readiness.PROBE_TIMEOUT

    def _judge(self, now: float, fault: str | None) -> bool:
        self._close()
        self.due = now + self.interval
        self.failed = self.failed + 1 if fault else 0
        self.why = fault or ""
        return fault is None

    def _close(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None


def fault_of(job: Job, answer: Answer) -> str | None:
    """Return what is wrong with ``answer``, None where nothing is."""
    if not answer.status:
        return "it accepts no connection, or hangs up"
    wanted = job.probe.get("status")
    if answer.status not in (readiness.CONNECTED, wanted) and wanted is not None:
        return f"it answers {answer.status}, not {wanted}"
    body = job.probe.get("body")
    if body and answer.status != readiness.CONNECTED and body.encode() not in answer.body:
        return "it answers something else"
    return None
