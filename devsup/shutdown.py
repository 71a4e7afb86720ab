"""
End a whole tree of processes: TERM, wait, KILL, verify, and report only what was seen.

Used by the guard for its own children and by `stop` where there is no guard. One call at a time per tree: the
stop claim in the registry sees to that. Nothing here waits without a bound.
"""

from __future__ import annotations

import os
import select
import signal
import time

from devsup import identity, system, trace
from devsup import tree as trees
from devsup.models import Identity, Member
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from devsup.system import Listener, ProcessInfo
    from devsup.tree import Tree

__all__ = ["DEFAULT_GRACE", "KILL_BUDGET", "PATIENCE", "Ended", "Manner", "end", "manner"]

#: Seconds that a stop waits for what others do with the server: announced operations, a restart.
PATIENCE = 5.0
#: Seconds from SIGTERM to SIGKILL. The slowest clean exit of a real dev server measured was 2.2 s (Next.js
#: 15).
DEFAULT_GRACE = 5.0
#: Seconds that the kernel gets to make killed processes disappear, under load.
KILL_BUDGET = 5.0
#: Seconds for listening sockets to close after their last owner is gone; the longest seen was 0.42 s.
PORT_BUDGET = 2.0
#: Longest single wait: a process that appears while the others are waited for is seen this late; so is one
#: that only a look at the whole system shows.
_LOOK_AGAIN = 0.25
#: So many seconds of grace can spare what passes until everybody is looked at.
_SHORT_GRACE = 1.0
#: Poll interval for what has no descriptor to wait on.
_PAUSE = 0.005
#: Processes that are waited on at once: descriptors are few (256 on macOS), and every look needs some too.
_WAIT_ON = 32
#: What Next.js starts at its end to send telemetry: gone in a moment, and nobody's business.
_FLUSH = "telemetry/detached-flush"


class Manner(Record):
    """How a server wants to be ended: the first signal, seconds until SIGKILL, programs that are left."""

    first: int = signal.SIGTERM
    grace: float = DEFAULT_GRACE
    keep: frozenset[str] = frozenset()
    #: Its port may be somebody else's (a container's proxy): waited for, but never a failure of the stop.
    any_owner: bool = False


def manner(policy: dict[str, Any], probe: dict[str, Any]) -> Manner:
    """Return what a job says of its end: see `devsup.guard.job`."""
    first = getattr(signal, str(policy.get("stop_signal", "SIGTERM")), signal.SIGTERM)
    return Manner(
        first if isinstance(first, signal.Signals) else signal.SIGTERM,
        float(policy.get("grace", DEFAULT_GRACE)),
        frozenset(policy.get("keep") or ()),
        bool(probe.get("any_owner")),
    )


class Ended(Record):
    """What was seen while a tree was ended. ``port_free`` is None where no port was known."""

    signals: list[str]
    escalated: bool
    ms: int
    survivors: list[Member]
    left_running: list[Member]
    port_free: bool | None
    #: A listening socket of the tree outlived all of it.
    port_held: bool


def end(
    tree: Tree,
    *,
    grace: float = DEFAULT_GRACE,
    sweep: bool = False,
    port: int | None = None,
    group: Identity | None = None,
    reap: Callable[[], None] = lambda: None,
    first: int = signal.SIGTERM,
    awaited: frozenset[int] = frozenset(),
    patience: Callable[[], float] | None = None,
) -> Ended:
    """
    End every process of ``tree`` and return what was seen.

    ``group`` is the leader where the caller is its parent and has not reaped it: only then is its number safe
    to signal as a group. ``reap`` collects the caller's dead children; it must leave ``group`` alone.
    ``sweep`` also ends what detached itself on purpose. ``first`` is the signal that asks it to end;
    ``awaited`` are the inodes of sockets that serve for the tree without being its own. ``patience`` is asked
    at each look for how many seconds there are still until SIGKILL at most, within ``grace``.
    """
    return _Shutdown(
        tree, sweep=sweep, port=port, group=group, reap=reap, first=first, awaited=awaited, patience=patience
    ).run(grace=grace)


class _Shutdown:
    """One run of the sequence. ``known`` grows, and whoever is in it gets each signal once."""

    def __init__(
        self,
        tree: Tree,
        *,
        sweep: bool,
        port: int | None,
        group: Identity | None,
        reap: Callable[[], None],
        first: int,
        awaited: frozenset[int],
        patience: Callable[[], float] | None,
    ) -> None:
        self.first = first
        self.awaited = awaited
        self.patience = patience
        self.tree = tree
        self.sweep = sweep
        self.port = port
        self.group = group
        self.reap = reap
        self.known: dict[int, ProcessInfo] = {}
        self.left: dict[int, ProcessInfo] = {}
        #: Who was seen to have detached himself since the TERM.
        self.late: dict[int, ProcessInfo] = {}
        self.inodes = {tree.listener[1]} if tree.listener is not None else set()
        self.handles: dict[int, int] = {}
        self.termed_at: int | None = None
        #: The sessions that were there when the TERM was sent.
        self.sessions: set[int] = set()
        #: When to look at everybody; only those below the guard were looked at before the TERM.
        self.look_wide_at: float | None = None
        self.was_narrow = False

    def run(self, *, grace: float) -> Ended:
        began = time.monotonic()
        signals = []
        escalated = False
        try:
            alive = self._first_look(grace)
            self._note_sockets(alive)
            if alive:
                signals.append(signal.Signals(self.first).name)
                self.termed_at = system.now_ticks()
                self.sessions = {info.sid for info in alive}
                self._signal_all(alive, self.first)
                self._signal_all(alive, signal.SIGCONT)
                trace.step(f"{signals[0]} to {sorted(info.pid for info in alive)}")
                alive = self._wait(grace, self.first, self.patience)
            if alive:
                signals.append("SIGKILL")
                escalated = True
                self.termed_at = None  # a tree that did not end by itself has nobody who is on his way out
                alive = self._look(full=True)
                self._signal_all(alive, signal.SIGKILL)
                trace.step(f"SIGKILL to {sorted(info.pid for info in alive)}")
                alive = self._wait(KILL_BUDGET, signal.SIGKILL)
            held = self._wait_for_sockets()
            self._name_detached()
        finally:
            self._let_go(())
        return Ended(
            signals=signals,
            escalated=escalated,
            ms=round((time.monotonic() - began) * 1e3),
            survivors=[Member(info.pid, trees.show(info)) for info in alive],
            left_running=[Member(info.pid, trees.show(info)) for info in self.left.values() if _lives(info)],
            port_free=None if self.port is None else not system.listeners(self.port),
            port_held=held,
        )

    def _first_look(self, grace: float) -> list[ProcessInfo]:
        """
        Return whom to ask first.

        All that descends from a server is below its guard. Who has the marker all the same, from a stranger
        that started him for the tree, is seen by the look at everybody that proves the end; where the tree
        takes its time that comes early enough for him to have all of his.
        """
        patience = grace if self.patience is None else self.patience()
        hurry = grace < _SHORT_GRACE or patience < grace
        if self.tree.parent is None or hurry or not system.CAPABILITIES.subreaper:
            return self._look(full=True)
        alive = self._look(full=False)
        if not alive:
            return self._look(full=True)
        self.was_narrow = True
        self.look_wide_at = time.monotonic() + _LOOK_AGAIN
        return alive

    def _look(self, *, full: bool) -> list[ProcessInfo]:
        """Return those to end that live now."""
        self.reap()
        if full:
            self.look_wide_at = None
        # Without a guard nobody inherits the orphans, so only a full look sees them.
        infos = trees.members(self.tree, full=full or self.tree.parent is None)
        # Without a marker (devsup did not start it) an orphan is known only by having been seen before.
        seen = {info.pid for info in infos}
        infos += [info for pid, info in self.known.items() if pid not in seen and _lives(info)]
        infos.sort(key=lambda info: (info.ticks, info.pid))
        left = set() if self.sweep else trees.kept(self.tree, infos) - self.known.keys()
        if left:
            held = trees.listening([info for info in infos if info.pid in left])
            left -= {pid for pid, ones in held.items() if self._are_ours(ones)}
        self.left.update({info.pid: info for info in infos if info.pid in left})
        infos = [info for info in infos if info.pid not in left]
        self.sessions.update(info.sid for info in infos if self._was_missed(info))
        late = {info.pid: info for info in infos if self._detached_since(info)}
        self.late.update(late)
        return [info for info in infos if info.pid not in late]

    def _are_ours(self, ones: list[Listener]) -> bool:
        """Tell whether one of these sockets is the server's, or in the way of the next one on its port."""
        return any(one.inode in self.inodes or one.port == self.port for one in ones)

    def _was_missed(self, info: ProcessInfo) -> bool:
        """Tell whether he was there when the TERM was sent, and did not get it."""
        return self.termed_at is not None and info.ticks <= self.termed_at and info.pid not in self.known

    def _detached_since(self, info: ProcessInfo) -> bool:
        # Next.js starts a process to send its telemetry when it is told to stop, in a session of its own: it
        # is gone a moment later and nobody's to wait for, unless it has our port. A session that was there
        # before is no such thing, whoever was born into it.
        if self.termed_at is None or info.pid in self.known or info.sid in self.sessions:
            return False
        if info.ticks <= self.termed_at:
            return False
        if self.was_narrow and not _is_younger(info.sid, self.termed_at) and not self._is_below(info):
            return False  # nobody has looked whether his session was there before
        return not self._are_ours(trees.listening([info]).get(info.pid, []))

    def _is_below(self, info: ProcessInfo) -> bool:
        return self.tree.parent in trees.above(info.pid)

    def _name_detached(self) -> None:
        """Whoever detached himself since the TERM and is still there is left, and said to be."""
        if self.termed_at is None:
            return
        # The last look was a full one; what has come since then from those it saw is below the guard.
        now = trees.members(self.tree, full=self.tree.parent is None)
        infos = {**self.late, **{info.pid: info for info in now}}.values()
        late = [info for info in infos if info.pid not in self.left and self._detached_since(info)]
        self.left.update({info.pid: info for info in late if _FLUSH not in trees.show(info)})

    def _note_sockets(self, alive: list[ProcessInfo]) -> None:
        held = trees.listening(alive + list(self.left.values()))
        self.inodes.update(one.inode for info in alive for one in held.get(info.pid, []))
        # A kept process that has the server's port, or shares one of its sockets, is no bystander.
        holders = [pid for pid in self.left if self._are_ours(held.get(pid, []))]
        alive.extend(self.left.pop(pid) for pid in holders)
        self.inodes.update(one.inode for pid in holders for one in held[pid])

    def _signal_all(self, infos: list[ProcessInfo], signum: int) -> None:
        group = self.group.pid if self.group is not None else None
        if group is not None:
            try:
                os.killpg(group, signum)
            except (ProcessLookupError, PermissionError):
                group = None
        for info in infos:  # oldest first: a parent that restarts its children hears it before they end
            self.known[info.pid] = info
            if group is not None and info.pgid == group:
                continue
            self._signal(info, signum)

    def _signal(self, info: ProcessInfo, signum: int) -> None:
        who = identity.of(info.pid)
        if who is not None and who.ticks == info.ticks:
            try:
                identity.signal(who, signum)
            except PermissionError:
                trace.step(f"not allowed to signal {info.pid}")

    def _wait(
        self, budget: float, signum: int, patience: Callable[[], float] | None = None
    ) -> list[ProcessInfo]:
        """Wait until nobody is left or ``budget`` or ``patience`` is over; newcomers get ``signum`` too."""
        deadline = time.monotonic() + budget
        # A quick look may miss somebody: who left the tree unseen still carries the marker.
        while alive := self._look(full=self._is_time_for_all()) or self._look(full=True):
            newcomers = [info for info in alive if info.pid not in self.known]
            if any(self._was_missed(info) for info in newcomers):
                self._note_sockets(newcomers)
                deadline = time.monotonic() + budget  # his grace begins now
            for info in newcomers:
                self.known[info.pid] = info
                self._signal(info, signum)
                self._signal(info, signal.SIGCONT)
            left = deadline - time.monotonic()
            if patience is not None:
                left = min(left, patience())
            if left <= 0:
                return alive
            wide = _LOOK_AGAIN if self.look_wide_at is None else self.look_wide_at - time.monotonic()
            self._wait_for_exit(alive, max(0.0, min(left, wide, _LOOK_AGAIN)))
        return []

    def _is_time_for_all(self) -> bool:
        return self.look_wide_at is not None and time.monotonic() >= self.look_wide_at

    def _wait_for_exit(self, alive: list[ProcessInfo], seconds: float) -> None:
        """Wait until one of them ends, at most so long; where nothing tells of that, for a moment."""
        some = alive[:_WAIT_ON]
        self._let_go({info.pid for info in some})
        poll = select.poll()
        for info in some:
            handle = self._handle(info)
            if handle is None:
                # No pidfd here, no descriptor left for it, or it has just gone: look again soon.
                select.select([], [], [], _PAUSE)
                return
            poll.register(handle, select.POLLIN)
        poll.poll(seconds * 1e3)

    def _handle(self, info: ProcessInfo) -> int | None:
        handle = self.handles.get(info.pid)
        if handle is not None:
            return None if _readable(handle) else handle
        try:
            who = identity.of(info.pid)
            handle = identity.wait_handle(who) if who is not None and who.ticks == info.ticks else None
        except OSError:
            self._let_go(())
            return None
        if handle is not None:
            self.handles[info.pid] = handle
        return handle

    def _let_go(self, but: Collection[int]) -> None:
        """Wait on nobody any more but on those."""
        for pid in [pid for pid in self.handles if pid not in but]:
            os.close(self.handles.pop(pid))

    def _wait_for_sockets(self) -> bool:
        """Wait until the tree's listening sockets are closed; tell whether one was still there at the end."""
        deadline = time.monotonic() + PORT_BUDGET
        while left := (self.inodes | self.awaited) & {one.inode for one in system.listeners()}:
            if time.monotonic() > deadline:
                return bool(left & self.inodes)
            self.reap()
            select.select([], [], [], _PAUSE)
        return False


def _is_younger(pid: int, ticks: int) -> bool:
    try:
        info = system.process(pid)
    except PermissionError:
        return False
    return info is not None and info.ticks > ticks


def _readable(handle: int) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))


def _lives(info: ProcessInfo) -> bool:
    try:
        now = system.process(info.pid)
    except PermissionError:
        return True
    return now is not None and now.ticks == info.ticks and now.state not in "ZX"
