"""
The guard at work: one `poll()` over signals, processes, probes and timers, from the claim to the end.

One thread. The registry is the only thing shared with others, and every write to it names the generation, so
a write that comes too late changes nothing. A signal only says "look at your row": what is asked stands
there.
"""

from __future__ import annotations

import os
import select
import signal
import sqlite3
import sys
import time

from devsup import identity, shutdown, system
from devsup import tree as trees
from devsup.clock import now_ms
from devsup.errors import DevsupError
from devsup.guard import job as jobs
from devsup.guard import launch
from devsup.guard.children import Exit, Handles, collect, exit_of, reap
from devsup.guard.spawn import ADOPT, LOOK
from devsup.guard.table import TRANSITIONS, Happening
from devsup.guard.watch import Watch
from devsup.models import State
from devsup.paths import Home
from devsup.readiness import Found, find, still_listens, url_of
from devsup.registry import Registry, recovery
from devsup.tree import MARKER, Marker, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.guard.job import Job
    from devsup.models import Identity, StopClaim
    from devsup.shutdown import Ended

__all__ = ["Guard", "main"]

#: Seconds after which a command without a port counts as running.
LIVED_AFTER = 1.0
#: Seconds that the rest of a tree gets to serve after its leader ended with 0 before it was ready.
LEADER_SETTLE = 2.0
#: Seconds for a listener to be replaced (Next.js takes 0.2 when its configuration changes) before
#: `unhealthy`.
REPLACE_WITHIN = 3.0
#: The same where the leader has ended too: what is left is then on its way out.
REPLACE_WITHOUT_LEADER = 1.0
#: Pauses between tries to write the end of a server to a registry that cannot be written.
_WRITE_PAUSES = (0.1, 0.5, 2.0)
#: Seconds between tries to write what a registry would not take; they double up to the second number.
_WRITE_AGAIN = (0.1, 5.0)
#: Poll interval for processes of whose end nothing tells: there is no descriptor of them, no SIGCHLD.
_UNTOLD = 1.0

_UP_STATES = (State.STARTING, State.RUNNING, State.READY, State.UNHEALTHY)
_OVER = (State.STOPPED, State.EXITED, State.CRASHED)
_WAKE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, LOOK)


class Guard:
    """One server's guard. `run` returns the guard's own exit status."""

    def __init__(self, job: Job, *, adopt: bool) -> None:
        self.job = job
        self.home = Home(job.home)
        # Named here so that it is loaded: a guard may be the first to meet a damaged registry.
        self.registry = Registry(self.home, rebuild=lambda: recovery.living(self.home))
        self.adopt = adopt
        self.generation = job.generation
        self.state = State.STARTING
        self.me = identity.me()
        self.leader: Identity | None = None
        #: How the leader ended; it stays unreaped until the tree is gone.
        self.left: Exit | None = None
        self.left_at = 0.0
        self.was_up = False
        self.launched_at = 0.0
        self.lost_at: float | None = None
        self.listener: Found | None = None
        self.handles = Handles()
        #: What the registry has not taken yet, and when it is asked again.
        self.unwritten: dict[str, Any] = {}
        self.write_at: float | None = None
        self.write_pause = 0.0
        self.asked_to_stop = False
        self.asked_to_look = False
        self.pipe: int | None = 3
        self.wake_read, self.wake_write = os.pipe()
        self.watch = Watch(job, self.tree, adopt=adopt)

    def run(self) -> int:
        """Guard from the claim to the end of the server."""
        self._listen_to_signals()
        if self.adopt:
            if not self._take_over():
                return 0
        else:
            if not self.registry.claim(self.job.id, self.generation, self.me):
                return 0  # the caller died or was stopped, and the reservation went to somebody else
            self._say("c")
            if not self._launch():
                return 0
        self._say("l")
        while self.state not in _OVER:
            try:
                self._turn()
            except (DevsupError, sqlite3.Error, OSError) as error:
                # A look that failed (no descriptor left, say) is no reason to leave the server alone.
                _log(f"went on after: {error!r}")
                self.asked_to_stop = self.asked_to_stop or self.state is State.STOPPING
                select.select([self.wake_read], [], [], _UNTOLD)
        return 0

    # -- the loop ------------------------------------------------------------------------------------

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self.wake_read, select.POLLIN)
        for handle in self.handles.all():
            poll.register(handle, select.POLLIN)
        for fd, events in self.watch.fds():
            poll.register(fd, events)
        ready = {fd for fd, _ in poll.poll(self._timeout())}
        if self.wake_read in ready:
            self._hear()
        self._reap()
        self._see_leader()
        if self.asked_to_stop or self.asked_to_look:
            self._obey()
            return
        found = self.watch.advance(ready)
        if found is not None:
            self._serve(found)
        self._see_listener()
        self._keep_time()

    def _timeout(self) -> float | None:
        """Milliseconds until something is due; None for ever."""
        times = [self.watch.due, self.write_at]
        if self.state is State.STARTING and self._is_portless():
            times.append(self.launched_at + LIVED_AFTER)
        if self.left is not None and not self.was_up:
            times.append(self.left_at + LEADER_SETTLE)
        if self.lost_at is not None and (self.state is State.READY or self.left is not None):
            times.append(self._lost_deadline())
        due = [when for when in times if when is not None]
        if not system.CAPABILITIES.pidfd or self._hears_of_nobody():
            due.append(time.monotonic() + _UNTOLD)
        return max(0.0, min(due) - time.monotonic()) * 1e3 + 1 if due else None

    def _hears_of_nobody(self) -> bool:
        """Tell whether what is left of the tree could end without a signal to this process."""
        orphans_come = system.CAPABILITIES.subreaper and not self.adopt
        return self.left is not None and not orphans_come and self.handles.get("listener") is None

    def _hear(self) -> None:
        for number in os.read(self.wake_read, 256):
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self.asked_to_stop = True
            elif number == LOOK:
                self.asked_to_look = True

    def _see_leader(self) -> None:
        if self.leader is None or self.left is not None:
            return
        if self.adopt:
            # Not our child: nobody tells us how it ended.
            self.left = Exit(reaped=True) if identity.is_gone(self.leader) else None
        else:
            self.left = exit_of(self.leader.pid)
        if self.left is not None:
            self.left_at = time.monotonic()
            self.handles.forget("leader")
            _log(f"leader {self.leader.pid} ended: exit code {self.left.code}, signal {self.left.signal}")

    def _see_listener(self) -> None:
        if self.listener is None or self.state not in (State.READY, State.UNHEALTHY):
            return
        handle = self.handles.get("listener")
        # Asked afresh: the number of a descriptor that was ready may have gone to this one in the same turn.
        gone = system.has_exited(handle) if handle is not None else not _lives(self.listener.pid)
        if gone and self.lost_at is None and self.watch.due is None:
            self.handles.forget("listener")
            self.lost_at = time.monotonic()
            self.watch.restart()

    def _keep_time(self) -> None:
        now = time.monotonic()
        if self.write_at is not None and now >= self.write_at:
            self._write()
        if self.left is not None:
            self._judge_exit(now)
        if self.state is State.STARTING and self._is_portless() and now >= self.launched_at + LIVED_AFTER:
            self._become(Happening.LIVED)
            self.was_up = True
            self.watch.relax()
            self._say("r")
        if self.lost_at is not None and now >= self._lost_deadline() and self.state is State.READY:
            self._become(Happening.LISTENER_LOST, event="unhealthy", reason="nothing listens any more")

    def _judge_exit(self, now: float) -> None:
        """Decide what the leader's end means; without a leader the rest of the tree may still serve."""
        assert self.left is not None
        rest = self._members()
        clean = self._is_portless() and self.left.code == 0
        if self.state is State.READY and self.lost_at is None and rest:
            return  # npm killed by hand, say: its tree serves on
        if rest and clean and self.lost_at is None:
            return  # it has put itself into the background
        if rest and self.lost_at is not None and now < self._lost_deadline():
            return
        if rest and not self.was_up and self.left.code == 0 and now < self.left_at + LEADER_SETTLE:
            return
        self._sweep(Happening.LEFT_CLEAN if clean else Happening.LEFT, self.left)

    def _lost_deadline(self) -> float:
        assert self.lost_at is not None
        return self.lost_at + (REPLACE_WITHIN if self.left is None else REPLACE_WITHOUT_LEADER)

    # -- what happens --------------------------------------------------------------------------------

    def _launch(self) -> bool:
        job = self.job
        try:
            os.makedirs(os.path.dirname(job.log), mode=0o700, exist_ok=True)
            log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._end(State.CRASHED, ended=None, reason=f"its log cannot be written: {error.strerror}")
            return False
        child = launch.fork(job, self._environ(), log)
        os.close(log)
        leader = identity.of(child.pid)
        self.leader = leader
        self.launched_at = time.monotonic()
        if leader is None:
            self._sweep(Happening.LEFT, Exit(*child.abandon()))  # it was killed at the gate
            return False
        if not self.registry.record_child(job.id, self.generation, leader, guard=self.me):
            child.abandon()
            self.leader = None
            claim = self._claim()
            if claim is not None and claim.purpose == "restart" and self._enter(Happening.RESTART):
                self._restart(grace=claim.grace)  # of what has not run yet: the next generation does
                return self.state not in _OVER
            self._end(State.STOPPED, ended=None, reason="stopped before it ran")
            return False
        try:
            child.release()
        except launch.ExecFailed as error:
            _log(str(error))
            with open(job.log, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"devsup: {error}\n")
            self._sweep(Happening.LEFT, Exit(code=127))
            return False
        self.handles.watch("leader", leader)
        return True

    def _take_over(self) -> bool:
        row = self.registry.row(self.job.id)
        # Two callers may each have started a guard for it; the first one has it.
        if row is None or row.guard is None or not identity.is_gone(row.guard):
            return False
        if not self.registry.claim(row.id, row.generation, self.me, instead_of=row.guard):
            return False
        self.generation = row.generation
        self.leader = row.leader
        self.state = row.state if row.state in _UP_STATES else State.STARTING
        self.was_up = self.state is not State.STARTING
        self.launched_at = time.monotonic()
        if self.state is State.READY and find(self.tree(), asked=None, log=self.job.log) is None:
            self.lost_at = self.launched_at  # its listener ended while nobody looked
        if self.leader is not None:
            self.handles.watch("leader", self.leader)
        self._say("c")
        return True

    def _serve(self, found: Found) -> None:
        """Record where the tree serves: for the first time, or after its listener was replaced."""
        again = self.state is State.READY
        self.listener = found
        self.lost_at = None
        who = identity.of(found.pid)
        if who is not None:
            self.handles.watch("listener", who)
        self.was_up = True
        if again:
            self._write(**_place(found))
        else:
            self._become(Happening.SERVING, event="ready", ready_at=now_ms(), **_place(found))
        self._say("r")

    def _obey(self) -> None:
        told, self.asked_to_stop, self.asked_to_look = self.asked_to_stop, False, False
        claim = self._claim()
        if claim is None and not told:
            self.watch.hurry()  # what was asked has been done, or somebody waits for us to see it ready
            return
        if claim is not None and claim.purpose == "restart":
            if self._enter(Happening.RESTART):
                self._restart(grace=claim.grace)
            return
        grace = claim.grace if claim is not None else shutdown.DEFAULT_GRACE
        if claim is None:
            self._become(Happening.STOP, event="stopping", reason="signal")
        else:
            self._enter(Happening.STOP)
        ended = self._shut_down(grace=grace, sweep=claim is not None and claim.sweep)
        by = f"pid {claim.by.pid}" if claim is not None else "signal"
        self._end(State.STOPPED, ended=ended, reason="stop" if claim is not None else "signal", by=by)

    def _claim(self) -> StopClaim | None:
        """Return how this generation is to be stopped; None where nobody has written that down."""
        try:
            row = self.registry.row(self.job.id)
        except (DevsupError, sqlite3.Error, OSError) as error:
            _log(f"cannot read who asks: {error}")
            return None
        return row.stop if row is not None and row.generation == self.generation else None

    def _restart(self, *, grace: float) -> None:
        ended = self._shut_down(grace=grace, sweep=False)
        if ended.survivors or ended.port_held:
            self._end(State.STOPPED, ended=ended, reason="restart")
            return
        row = self.registry.regenerate(self.job.id, self.generation, self._log_of)
        if row is None:
            self._end(State.STOPPED, ended=ended, reason="stop")  # a stop came while it went down
            return
        self._reap_leader()
        self.generation = row.generation
        self.job = self.job.replace(generation=row.generation, log=row.log)
        self.leader, self.left, self.listener, self.lost_at, self.was_up = None, None, None, None, False
        self.unwritten, self.write_at = {}, None
        self.watch = Watch(self.job, self.tree, adopt=False)
        self.adopt = False
        self._enter(Happening.LAUNCHED)
        try:
            jobs.write(self.home.job(self.job.id), self.job)
        except OSError as error:
            _log(f"cannot write the job: {error}")  # only a rebuilt registry would miss it
        self._launch()

    def _sweep(self, happening: Happening, left: Exit) -> None:
        """The server has ended by itself: end what is left of its tree and record that."""
        state = TRANSITIONS[self.state][happening]
        if state is None:
            return
        ended = self._shut_down(grace=shutdown.DEFAULT_GRACE, sweep=False)
        if left.signal is not None:
            reason = f"signal {left.signal}"
        else:
            reason = "ended" if left.code is None else f"exit code {left.code}"
        self._end(state, ended=ended, reason=reason, keep=self.was_up, left=left)

    def _shut_down(self, *, grace: float, sweep: bool) -> Ended:
        self.watch.stop()
        self._follow_socket()
        unreaped = not self.adopt and (self.left is None or not self.left.reaped)
        group = self.leader if unreaped else None
        port = self.listener.listener.port if self.listener is not None else self.job.port
        ended = shutdown.end(self.tree(), grace=grace, sweep=sweep, port=port, group=group, reap=self._reap)
        self._see_leader()
        self.handles.forget("listener")
        return ended

    def _follow_socket(self) -> None:
        """A process may have moved its socket without ending: what is said of the end shall be true of it."""
        if self.listener is None or still_listens(self.listener.listener.inode):
            return
        found = find(self.tree(), asked=self.job.port, log=self.job.log)
        if found is not None:
            self.listener = found
            self._write(**_place(found))

    def _end(
        self,
        state: State,
        *,
        ended: Ended | None,
        reason: str,
        by: str | None = None,
        keep: bool = False,
        left: Exit | None = None,
    ) -> None:
        """Write the end; only then is the leader's number given back to the kernel."""
        if ended is not None and (ended.survivors or ended.port_held):
            # It is not over, and saying so would be a lie: the row stays, and who asked for the stop tries
            # once more without a guard.
            _log(f"survivors: {ended.survivors}, port held: {ended.port_held}")
            self.state = state
            self._close_pipe()
            return
        left = left or self.left or Exit()
        outcome = _plain(ended)
        # Before the row: killed in between, a row without a job is found dead by the next command, but nobody
        # would look for a job without a row.
        jobs.remove(self.home.job(self.job.id))
        for pause in (*_WRITE_PAUSES, None):
            try:
                self.registry.finish(
                    self.job.id, self.generation, state=state, exit_code=left.code, signal=left.signal,
                    reason=reason, by=by, outcome=outcome, keep=keep, at=now_ms(),
                )  # fmt: skip
                break
            except (DevsupError, sqlite3.Error, OSError) as error:
                _log(f"cannot write the end: {error}")
                if pause is not None:
                    time.sleep(pause)
        self._reap_leader()
        self.state = state
        self._close_pipe()

    def _enter(self, happening: Happening) -> bool:
        """Go where the table says; tell whether that is somewhere else."""
        state = TRANSITIONS[self.state][happening]
        if state is not None:
            self.state = state
        return state is not None

    def _become(self, happening: Happening, **fields: Any) -> None:
        if self._enter(happening):
            self._write(state=self.state, **fields)

    def _write(self, **fields: Any) -> None:
        """Have the registry take ``fields``, and what it has not taken before; it is asked until it does."""
        # Whatever is the matter with it, the server is still to be guarded.
        self.unwritten.update(fields)
        try:
            self.registry.update(self.job.id, self.generation, **self.unwritten)
        except (DevsupError, sqlite3.Error, OSError) as error:
            first, longest = _WRITE_AGAIN
            self.write_pause = min(self.write_pause * 2 or first, longest)
            self.write_at = time.monotonic() + self.write_pause
            _log(f"cannot write {self.unwritten}: {error}")
        else:
            self.unwritten, self.write_at, self.write_pause = {}, None, 0.0

    # -- processes -----------------------------------------------------------------------------------

    def tree(self) -> Tree:
        """Return the server's tree as this guard knows it."""
        parent = None if self.adopt else self.me.pid
        return Tree(self.job.id, self.leader, parent, self.watch.helpers)

    def _members(self) -> list[system.ProcessInfo]:
        tree = self.tree()
        infos = trees.members(tree, full=tree.parent is None)
        left = trees.kept(tree, infos)
        return [info for info in infos if info.pid not in left]

    def _reap(self) -> None:
        """Collect dead orphans; the leader last, and helpers by whoever started them."""
        own = {self.leader.pid} if self.leader is not None else set()
        reap(self.me.pid, but=own | self.watch.helpers)

    def _reap_leader(self) -> None:
        if self.leader is not None and not self.adopt:
            collect(self.leader.pid)

    # -- the outside ---------------------------------------------------------------------------------

    def _environ(self) -> dict[bytes, bytes]:
        job = self.job
        environ = dict(os.environb)
        if not system.was_given(b"LC_CTYPE"):
            environ.pop(b"LC_CTYPE", None)
        marker = Marker(job.home, job.project, job.session, job.id, self.generation)
        environ[MARKER.encode()] = os.fsencode(str(marker))
        return environ

    def _log_of(self, generation: int) -> str:
        return self.home.log(self.job.project, self.job.session, generation)

    def _is_portless(self) -> bool:
        return self.job.port is None and not self.job.probe.get("http")

    def _listen_to_signals(self) -> None:
        for fd in (self.wake_read, self.wake_write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        for number in _WAKE:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _say(self, step: str) -> None:
        if self.pipe is None:
            return
        try:
            os.write(self.pipe, step.encode())
        except OSError:
            self._close_pipe()  # nobody listens any more
        if step == "r":
            self._close_pipe()

    def _close_pipe(self) -> None:
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None


def _plain(ended: Ended | None) -> dict[str, object] | None:
    if ended is None:
        return None
    plain = ended.asdict()
    for name in ("survivors", "left_running"):
        plain[name] = [member.asdict() for member in plain[name]]
    return plain


def _place(found: Found) -> dict[str, Any]:
    return {
        "port": found.listener.port,
        "url": url_of(found.listener, found.scheme),
        "listener_pid": found.pid,
        "listener_inode": found.listener.inode,
    }


def _lives(pid: int) -> bool:
    info = system.process(pid)
    return info is not None and not info.dead


def _log(text: str) -> None:
    os.write(2, f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n".encode(errors="replace"))


def main(argv: list[str]) -> int:
    """Guard the server that ``argv`` (HOME, ID, GENERATION, MODE) names; its own log is descriptor 2."""
    home, server, _, mode, *_ = argv
    system.become_subreaper()
    job = jobs.read(Home(home).job(server))
    system.set_title(f"devsup {job.app or job.session}")
    return Guard(job, adopt=mode == ADOPT).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
