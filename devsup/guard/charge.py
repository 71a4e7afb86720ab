"""
What a guard knows of the server in its charge: where it stands in the table, its processes, its socket.

For the guard's one thread. Nothing here waits or writes: what others are to know is written by
`devsup.guard.book`.
"""

from __future__ import annotations

import time

from devsup import identity, system
from devsup import tree as trees
from devsup.guard.children import Exit, Handles, collect, exit_of, reap
from devsup.guard.table import TRANSITIONS
from devsup.guard.watch import Watch
from devsup.models import State
from devsup.readiness import find, still_listens
from devsup.shutdown import manner
from devsup.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.guard.job import Job
    from devsup.guard.table import Happening
    from devsup.models import Identity
    from devsup.readiness import Found
    from devsup.shutdown import Manner
    from devsup.system import ProcessInfo

__all__ = ["Charge"]


class Charge:
    """
    One server, one generation of it after another. ``adopt``: this guard is not the leader's parent.

    ``strangers`` are the sockets that listened before it was started, where it has been.
    """

    def __init__(self, job: Job, *, adopt: bool, strangers: frozenset[int] | None = None) -> None:
        self.me = identity.me()
        self.job = job
        self.adopt = adopt
        self.state = State.STARTING
        self.leader: Identity | None = None
        #: How the leader ended, and when; it stays unreaped until the tree is gone.
        self.left: Exit | None = None
        self.left_at = 0.0
        #: Whether it has come up, in this generation and in any.
        self.was_up = self.ever_up = False
        #: Since when it is well; None while it is not.
        self.up_since: float | None = None
        self.launched_at = 0.0
        self.listener: Found | None = None
        #: Since when nobody listens any more.
        self.lost_at: float | None = None
        self.handles = Handles()
        self.watch = Watch(job, self.tree, adopt=adopt, strangers=strangers)

    def begin_again(self, job: Job) -> None:
        """Forget a generation whose tree is gone; ``job`` is that of the next one."""
        self.rest()
        self.job = job
        self.was_up = False
        self.watch.close()
        self.watch = Watch(job, self.tree, adopt=False)

    def rest(self) -> None:
        """Know of no process any more: the tree is gone, and the leader's number is given back."""
        self.reap_leader()
        self.adopt = False
        self.handles.forget("leader")
        self.handles.forget("listener")
        self.leader, self.left, self.listener, self.lost_at, self.up_since = None, None, None, None, None

    @property
    def generation(self) -> int:
        """The generation that runs, or is about to."""
        return self.job.generation

    def enter(self, happening: Happening) -> bool:
        """Go where the table says; tell whether that is somewhere else."""
        state = TRANSITIONS[self.state][happening]
        if state is not None:
            self.state = state
        return state is not None

    @property
    def manner(self) -> Manner:
        """How it wants to be ended."""
        return manner(self.job.policy, self.job.probe)

    def up(self) -> None:
        """Note that it has come up, or is well again."""
        self.was_up = self.ever_up = True
        if self.up_since is None:
            self.up_since = time.monotonic()

    def ports(self) -> set[int]:
        """Return the ports on which it listens now."""
        held = trees.listening(self.members())
        found = {one.port for ones in held.values() for one in ones}
        return found | ({self.listener.listener.port} if self.listener is not None else set())

    def is_portless(self) -> bool:
        """Tell whether nothing says that this command will listen at all."""
        return self.job.port is None and not self.job.probe.get("http")

    # -- its processes -------------------------------------------------------------------------------

    def tree(self) -> Tree:
        """Return the server's tree as this guard knows it."""
        parent = None if self.adopt else self.me.pid
        listener = None
        if self.adopt and self.listener is not None and self.listener.pid:
            # Once its leader has ended nothing else may tell of it: it has no marker where devsup did not
            # start it.
            listener = (self.listener.pid, self.listener.listener.inode)
        return Tree(self.job.id, self.leader, parent, self.watch.helpers, self.manner.keep, listener)

    def members(self) -> list[ProcessInfo]:
        """Return the living processes of its own, without those that it only shares."""
        tree = self.tree()
        infos = trees.members(tree, full=tree.parent is None)
        left = trees.kept(tree, infos)
        return [info for info in infos if info.pid not in left]

    def see_leader(self) -> bool:
        """Look whether the leader has ended; True when that is news."""
        if self.leader is None or self.left is not None:
            return False
        if self.adopt:
            # Not our child: nobody tells us how it ended.
            self.left = Exit(reaped=True) if identity.is_gone(self.leader) else None
        else:
            self.left = exit_of(self.leader.pid)
        if self.left is None:
            return False
        self.left_at = time.monotonic()
        self.handles.forget("leader")
        return True

    def reap(self) -> None:
        """Collect dead orphans; the leader last, and helpers by whoever started them."""
        own = {self.leader.pid} if self.leader is not None else set()
        reap(self.me.pid, but=own | self.watch.helpers)

    def reap_leader(self) -> None:
        """Give the leader's number back to the kernel."""
        if self.leader is not None and not self.adopt:
            collect(self.leader.pid)

    def hears_of_nobody(self) -> bool:
        """Tell whether what is left of the tree could end without a signal to this process."""
        orphans_come = system.CAPABILITIES.subreaper and not self.adopt
        return self.left is not None and not orphans_come and self.handles.get("listener") is None

    # -- its socket ----------------------------------------------------------------------------------

    def serve(self, found: Found) -> None:
        """Take ``found`` as the place where it serves, and wait for the end of who listens there."""
        self.listener = found
        self.lost_at = None
        who = identity.of(found.pid) if found.pid else None
        if who is not None:
            self.handles.watch("listener", who)
        else:
            self.handles.forget("listener")
        self.up()

    def lost_listener(self) -> bool:
        """Tell whether the process that listened has ended."""
        assert self.listener is not None
        if not self.listener.pid:  # somebody else's: only the socket can be looked at
            return not still_listens(self.listener.listener)
        handle = self.handles.get("listener")
        # Asked afresh: the number of a descriptor that was ready may have gone to this one in the same turn.
        return system.has_exited(handle) if handle is not None else not _lives(self.listener.pid)

    def moved_socket(self) -> Found | None:
        """Return where it serves now, if it has moved its socket though nobody ended."""
        if self.listener is None or not self.listener.pid or still_listens(self.listener.listener):
            return None
        found = find(self.tree(), asked=self.job.port, log=self.job.log)
        if found is not None:
            self.listener = found
        return found


def _lives(pid: int) -> bool:
    info = system.process(pid)
    return info is not None and not info.dead
