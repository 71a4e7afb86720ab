"""
From rows to what is true now: is the server alive, where does it listen, what do we show.

Reads only. A row is what somebody wrote a moment ago; whoever needs certainty reads it again after the look.
What only the doubtful rows need is loaded with the first of them: `list` is called dozens of times an hour.
"""

from __future__ import annotations

import os
from enum import Enum

from devsup import identity, system
from devsup.models import ENDED_STATES, Row, Server, State
from devsup.registry import public

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.registry import Registry
    from devsup.tree import Tree

__all__ = ["OVER", "Life", "Sockets", "is_so", "life", "look", "server_of", "tree_of", "trouble", "whose"]


class Life(Enum):
    """How a row stands to the processes that it names."""

    LIVE = "live"
    ORPHANED = "orphaned"  # its tree lives, its guard does not
    UNCLAIMED = "unclaimed"  # reserved, its guard is on the way
    DEAD = "dead"  # nobody of it is left, and nobody wrote that down
    ENDED = "ended"  # its end stands in the row
    FOREIGN = "foreign"  # of another machine or pid namespace: nothing can be said


#: What is no server any more.
OVER = (Life.DEAD, Life.ENDED)


def tree_of(row: Row) -> Tree:
    """Return the row's tree, under its guard where that lives."""
    from devsup.tree import Tree

    parent = row.guard.pid if row.guard is not None and not identity.is_gone(row.guard) else None
    listener = None
    if row.listener_pid is not None and row.listener_inode is not None:
        listener = (row.listener_pid, row.listener_inode)
    return Tree(row.id, row.leader, parent, listener=listener)


def life(row: Row) -> Life:
    """Tell how ``row`` stands to reality; UNKNOWN processes count as alive."""
    relation = identity.scope_relation(row.scope)
    if relation != "here":
        return Life.FOREIGN if relation == "foreign" else Life.DEAD
    if row.state in ENDED_STATES:
        return Life.ENDED
    if row.guard is not None and not identity.is_gone(row.guard):
        return Life.LIVE
    if row.guard is None:
        return Life.DEAD if identity.is_gone(row.starter) else Life.UNCLAIMED
    return Life.ORPHANED if not identity.is_gone(row.leader) or _has_members(row) else Life.DEAD


def look(registry: Registry, server: str) -> tuple[Row | None, Life]:
    """
    Return the row of the server with this id and how it stands; None where it has none (any more).

    :raises RegistryUnusable: see `Registry.row`
    """
    while (row := registry.row(server)) is not None:
        alive = life(row)
        if is_so(registry, row, alive):
            return row, alive
    return None, Life.ENDED


def is_so(registry: Registry, row: Row, alive: Life) -> bool:
    """
    Tell whether ``row`` is still what it was when ``alive`` was found of it.

    A guard writes the end and then ends itself: with a row that was read before that, it would look as if it
    had died without a word; and who has lost his guard may just have been given another.

    :raises RegistryUnusable: see `Registry.row`
    """
    if alive not in (Life.DEAD, Life.ORPHANED):
        return True
    now = registry.row(row.id)
    return now is not None and (now.generation, now.state, now.guard) == (
        row.generation,
        row.state,
        row.guard,
    )


def whose(row: Row) -> str:
    """Return to whom a foreign row belongs, for a sentence."""
    machine, _, namespace = row.scope.split("/", 2)
    if machine != identity.here().machine:
        return f"another machine or container (`{machine}`)"
    return f"another container of this machine (pid namespace {namespace.partition('.')[0]})"


def _has_members(row: Row) -> bool:
    from devsup.tree import kept, members

    tree = tree_of(row)
    infos = members(tree, full=True)
    return len(infos) > len(kept(tree, infos))  # an editor that it opened is not the server


class Sockets:
    """The listening sockets of one moment, and those among them that no row knows."""

    def __init__(self, rows: list[Row]) -> None:
        mine = os.getuid()
        self.listeners = {one.inode: one for one in system.listeners()}
        known = {row.listener_inode for row in rows}
        #: The sockets of this user that none of the rows has recorded.
        self.unclaimed = {
            inode for inode, one in self.listeners.items() if inode not in known and one.uid in (mine, None)
        }

    def may_be_of(self, row: Row, alive: Life) -> bool:
        """
        Tell whether an unclaimed socket may be one of ``row``'s server; False is certain.

        A user's editor listens all day, so with a hundred servers this is asked a hundred times. What has
        listened since before a server was started is not its own; looking into its processes for the rest
        costs a twentieth of what finding the very address does.
        """
        unclaimed = self.unclaimed.difference(row.strangers or ())
        if not unclaimed:
            return False
        if alive is not Life.LIVE or row.guard is None or row.leader is None:
            return True
        # All that is left of a tree with a guard: what it started, and what came to it as an orphan. One that
        # took the server over has a leader that is no child of its own.
        waiting, seen = [row.leader.pid, *system.children(row.guard.pid)], set()
        while waiting:
            pid = waiting.pop()
            if pid in seen:
                continue
            if not unclaimed.isdisjoint(system.socket_inodes(pid)):
                return True
            seen.add(pid)
            waiting += system.children(pid)
        return False


def server_of(row: Row, alive: Life, sockets: Sockets | None = None) -> Server:
    """
    Return the public record of ``row``, with the address on which it listens at this moment.

    ``sockets`` are those of the moment, where the caller shows many rows.
    """
    state, port, url = row.state, row.port, row.url
    if alive is Life.DEAD:
        state = State.LOST if identity.scope_relation(row.scope) == "lost" else State.CRASHED
    elif state is State.RESTARTING:
        url = None
    elif alive in (Life.LIVE, Life.ORPHANED) and state in (State.RUNNING, State.READY, State.UNHEALTHY):
        state, port, url = _address(row, alive, sockets or Sockets([row]))
    return public.server(
        row,
        state,
        pid=None if row.leader is None or _pauses(row, state) else row.leader.pid,
        guard_pid=row.guard.pid if row.guard is not None and alive is Life.LIVE else None,
        port=port,
        url=url,
        foreign=alive is Life.FOREIGN,
    )


def _pauses(row: Row, state: State) -> bool:
    """Tell whether there is no process of it: the one that failed has ended, the next is not there yet."""
    return state is State.RESTARTING and row.leader is not None and identity.is_gone(row.leader)


def trouble(row: Row, server: Server) -> str:
    """Return what is the matter with an unhealthy server, for a sentence."""
    if server.url is None:
        return f"nothing of `{row.session}` listens any more"
    return f"`{row.session}` listens, but does not answer as it should"


def _address(row: Row, alive: Life, sockets: Sockets) -> tuple[State, int | None, str | None]:
    """Return state, port and url as the tree's sockets have them now."""
    # Unhealthy though it listens: its guard has asked it.
    if row.state in (State.READY, State.UNHEALTHY) and row.listener_inode in sockets.listeners:
        return row.state, row.port, row.url
    if sockets.may_be_of(row, alive):
        from devsup import readiness

        found = readiness.find(tree_of(row), asked=row.port or row.asked_port, log=row.log)
        if found is not None:
            scheme = row.url.partition(":")[0] if row.url is not None else found.scheme
            return State.READY, found.listener.port, readiness.url_of(found.listener, scheme)
    # A portless command may well listen nowhere; a server that did so before is not well.
    state = State.UNHEALTHY if row.state is State.READY else row.state
    return state, row.port, None if state is State.UNHEALTHY else row.url
