"""
Readiness as part of the guard's loop: when to look next, which descriptors to wait on, what was found.

It never blocks. A look finds the tree's listening socket; kinds with an HTTP check then get one request;
others must hold the socket for a moment, since a port test opens one too. Where a line of the output is asked
for, nothing counts before that. Looks come at a pace; what the server prints brings the next one forward,
since most say where they listen as soon as they do.
"""

from __future__ import annotations

import os
import re
import select
import sys
import time

from devsup import readiness
from devsup.guard import launch
from devsup.guard.printed import Printed
from devsup.readiness import Found
from devsup.system.files import Growth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from devsup.guard.job import Job
    from devsup.readiness import Answer, Probe
    from devsup.tree import Tree

__all__ = ["Watch"]

#: A socket must be there this long where no HTTP answer proves it. Expo's port test holds one for some ms;
#: the stand-in of the tests for 20.
_SETTLE = 0.06
#: The same for one on another port than was asked for, which the output does not name: a debugger's, a hot
#: reloader's. Next.js and Vite, which move on from a taken port, say where they went.
_PATIENCE = 2.0
#: Pause after a probe that was refused or said "not yet".
_ASK_AGAIN = 0.05
#: (seconds since the start, pause between looks): a look costs about half a millisecond.
_PACE = ((2.0, 0.015), (10.0, 0.05), (60.0, 0.25))
#: Output brings the next look forward to this part of the pause at the earliest: some print all the time.
_HASTE = 0.2
#: After that: this part of the time that it took already, so that a slow server is seen soon enough and one
#: that never comes costs nothing. `wait` has the guard look at once.
_PATIENT_PACE = 1 / 60
#: Longest pause.
_IDLE_PACE = 60.0


class Watch:
    """Looks for the tree's server until it is found; `restart` begins again."""

    def __init__(
        self, job: Job, tree: Callable[[], Tree], *, adopt: bool, strangers: frozenset[int] | None = None
    ) -> None:
        self._job = job
        self._tree = tree
        #: Sockets that listened before the server started are not its own.
        self._strangers: frozenset[int] = frozenset()
        if not adopt:
            self._strangers = launch.listening() if strangers is None else strangers
        paths = job.probe.get("http") or []
        self._paths: list[str] = list(paths)
        self._asked = 0
        pattern = job.probe.get("log")
        self._printed = Printed(job.log, pattern) if pattern else None
        self.helpers: frozenset[int] = frozenset()
        self._probe: Probe | None = None
        self._candidate: Found | None = None
        #: What to accept if the TLS helper fails: a server that has answered in clear text after all.
        self._in_clear: Found | None = None
        self._candidate_since = 0.0
        #: The output says https, and the server did not speak TLS when it was asked.
        self._doubts_tls = False
        self._deadline = 0.0
        self._growth: Growth | None = None
        #: Whether the next write to its log is waited for.
        self._armed = False
        self._looked_at = 0.0
        self.due: float | None = None
        self.restart()

    def restart(self) -> None:
        """Look again from now on."""
        self._drop()
        self._candidate = None
        self._began = time.monotonic()
        self._slow = 0.0
        self.due = self._began

    @property
    def has_said_so(self) -> bool | None:
        """Whether it has printed the line that it is ready by; None where no line is asked for."""
        return None if self._printed is None else self._printed.seen

    def relax(self) -> None:
        """Look ever more seldom: nothing says that this command will listen at all."""
        self._slow = self._slow or 0.1

    def hurry(self) -> None:
        """Look now, and as often as at first: somebody waits for it."""
        if self.due is not None and self._probe is None and not self.helpers:
            self.due = self._began = time.monotonic()
            self._slow = 0.1 if self._slow else 0.0

    def stop(self) -> None:
        """
        Look no more, and be told no more of output.

        The descriptor for that is closed by `close`, or by the next `advance`: at once it would take a while.
        """
        self._drop()
        self._armed = False
        if self._growth is not None:
            self._growth.disarm()
        self.due = None

    def close(self) -> None:
        """Look no more, and give everything back."""
        self.stop()
        self._hear_nothing()

    def fds(self) -> list[tuple[int, int]]:
        """Return the descriptors to wait on, with their events."""
        if self._probe is not None:
            return [(self._probe.fd, self._probe.events)]
        told = self._told
        return [(told, select.POLLIN)] if told is not None else []

    @property
    def _told(self) -> int | None:
        """The descriptor that is ready when the server has printed something; None where none is."""
        return self._growth.fd if self._growth is not None and self._armed and not self.helpers else None

    def advance(self, ready: set[int]) -> Found | None:
        """Go on: ``ready`` are the descriptors that are. Returns what serves, once."""
        now = time.monotonic()
        if self._probe is not None:
            if self._probe.fd in ready:
                answer = self._probe.step()
                if answer is not None:
                    return self._judge(answer)
            elif now >= self._deadline:
                self._asked += 1
                self._again(0.0)
            return None
        if self.helpers:
            return self._ask_helper(now)
        if self.due is None:
            self._hear_nothing()
            return None
        if self._told in ready:
            self._armed = False
            self.due = min(self.due, self._looked_at + (self.due - self._looked_at) * _HASTE)
        return self._look(now) if now >= self.due else None

    def _look(self, now: float) -> Found | None:
        job = self._job
        self.due, self._looked_at = now + self._pace(now), now
        self._listen()  # before the look: what is printed from here on is news
        if self._printed is not None and not self._printed.look():
            return None
        found = self._find()
        if found is None:
            self._candidate = None
            return None
        if self._candidate is None or self._candidate.listener.inode != found.listener.inode:
            self._candidate, self._candidate_since = found, now
        moved = job.port is not None and found.listener.port != job.port
        settle = _PATIENCE if moved and not found.named else 0.0 if self._paths else _SETTLE
        if now - self._candidate_since < settle:
            self.due = min(self.due, self._candidate_since + settle)
            return None
        if not self._paths:
            return self._accept(found)
        self._candidate = found
        if found.scheme == "https" and not self._doubts_tls:
            self._start_helper(found)
        else:
            self._candidate, self._doubts_tls = found.replace(scheme="http"), False
            path = self._paths[self._asked % len(self._paths)]
            whole = bool(job.probe.get("body"))
            self._probe = readiness.Probe(found.listener, path, whole_body=whole)
            self._deadline = self.due = now + readiness.PROBE_TIMEOUT
        return None

    def _listen(self) -> None:
        if self._slow:
            self._hear_nothing()  # one that need not listen may print for ever
        elif not self._armed:
            self._growth = self._growth or Growth()
            self._armed = self._growth.arm(self._job.log)

    def _hear_nothing(self) -> None:
        self._armed = False
        if self._growth is not None:
            self._growth.close()
            self._growth = None

    def _find(self) -> Found | None:
        job = self._job
        if not job.probe.get("any_owner") and launch.listening() <= self._strangers:
            return None  # nobody at all: no need to look who belongs to the server
        found = readiness.find(
            self._tree(), asked=job.port, log=job.log, strangers=self._strangers, default=job.default_port
        )
        if job.port is None or not job.probe.get("any_owner"):
            return found
        if found is not None and found.listener.port == job.port:
            return found
        return readiness.find_any(job.port, job.log)

    def _pace(self, now: float) -> float:
        if self._slow:
            self._slow = min(self._slow * 2, _IDLE_PACE)
            return self._slow
        took = now - self._began
        return next((pause for until, pause in _PACE if took < until), min(took * _PATIENT_PACE, _IDLE_PACE))

    def _judge(self, answer: Answer) -> Found | None:
        found = self._candidate
        self._drop()
        if found is not None:
            wanted, unready = self._job.probe.get("status"), self._job.probe.get("unready") or ()
            fine = answer.status not in unready if wanted is None else answer.status == wanted
            answered = bool(answer.status) and fine and self._is_ours(answer)
            if answer.tls:
                self._start_helper(found.replace(scheme="https"), in_clear=found if answered else None)
                return None
            if answered and readiness.still_listens(found.listener):
                return self._accept(found)
        self._again(_ASK_AGAIN)
        return None

    def _is_ours(self, answer: Answer) -> bool:
        probe = self._job.probe
        body = probe.get("body")
        if body and body.encode() not in answer.body:
            return False
        name = probe.get("root_header")
        root = readiness.header(answer.headers, name) if name else None
        if root is None:
            return True
        return os.path.realpath(_unquoted(root)) == os.path.realpath(self._job.cwd)

    def _start_helper(self, found: Found, *, in_clear: Found | None = None) -> None:
        self._candidate, self._in_clear = found, in_clear
        path = self._paths[self._asked % len(self._paths)]
        wanted = self._job.probe.get("status")
        argv = readiness.tls_helper_argv(sys.executable, found.listener, path, status=wanted)
        null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
        environ = {"PATH": os.environ.get("PATH", "")}
        pid = os.posix_spawn(argv[0], argv, environ, file_actions=null, setsigmask=())
        self.helpers = frozenset((pid,))
        self._deadline = time.monotonic() + 2 * readiness.PROBE_TIMEOUT
        self.due = time.monotonic() + _ASK_AGAIN

    def _ask_helper(self, now: float) -> Found | None:
        (pid,) = self.helpers
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            if now >= self._deadline:
                os.kill(pid, 9)  # our own child, unreaped: the number is still its own
                os.waitpid(pid, 0)
                self.helpers = frozenset()
            self.due = now + _ASK_AGAIN
            return None
        self.helpers = frozenset()
        self._doubts_tls = status != 0
        found = self._candidate if status == 0 else self._in_clear
        if found is not None and readiness.still_listens(found.listener):
            return self._accept(found)
        self._again(_ASK_AGAIN)
        return None

    def _accept(self, found: Found) -> Found:
        self.stop()
        return found

    def _again(self, pause: float) -> None:
        self._drop()
        self._armed = False  # it may print of each request, and is not to be asked again for that
        self.due = time.monotonic() + pause

    def _drop(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        for pid in self.helpers:
            try:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue
        self.helpers = frozenset()


def _unquoted(text: str) -> str:
    # `urllib.parse` would cost the guard 3 ms for these lines.
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes((int(match[1], 16),)), text.encode()).decode(
        errors="surrogateescape"
    )
