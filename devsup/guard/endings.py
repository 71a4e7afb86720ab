"""
How a guard ends its server: the tree first, then the row, and only then the leader's number.

For the guard's one thread; nothing here waits without a bound.
"""

from __future__ import annotations

from devsup import shutdown
from devsup.guard.book import place, say
from devsup.guard.children import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.guard.book import Book
    from devsup.guard.charge import Charge
    from devsup.guard.fleet import Fleet
    from devsup.models import State
    from devsup.shutdown import Ended

__all__ = ["end", "how", "is_over", "shut_down"]


def shut_down(
    charge: Charge,
    book: Book,
    *,
    grace: float | None = None,
    sweep: bool = False,
    fleet: Fleet | None = None,
) -> Ended:
    """
    End every process of the server, in its own manner, and return what was seen.

    ``fleet`` goes on meanwhile, and may have less patience than its grace.
    """

    def reap() -> None:
        charge.reap()
        if fleet is not None:
            fleet.meanwhile()

    manner = charge.manner
    charge.watch.stop()
    # A process may have moved its socket without ending: what is said of the end shall be true of it.
    moved = charge.moved_socket()
    if moved is not None:
        book.write(**place(moved))
    unreaped = not charge.adopt and (charge.left is None or not charge.left.reaped)
    group = charge.leader if unreaped else None
    foreign = [charge.listener] if charge.listener is not None and not charge.listener.pid else []
    awaited = frozenset(one.listener.inode for one in foreign)
    port = charge.listener.listener.port if charge.listener is not None else charge.job.port
    ended = shutdown.end(
        charge.tree(),
        grace=manner.grace if grace is None else grace,
        sweep=sweep,
        port=port,
        group=group,
        reap=reap,
        first=manner.first,
        awaited=awaited,
        patience=fleet.patience if fleet is not None else None,
    )
    charge.see_leader()
    charge.handles.forget("listener")
    return ended


def is_over(ended: Ended) -> bool:
    """Tell whether nothing of the tree is left and its sockets are closed."""
    return not ended.survivors and not ended.port_held


def end(
    charge: Charge,
    book: Book,
    state: State,
    *,
    ended: Ended | None,
    reason: str,
    by: str | None = None,
    keep: bool = False,
    left: Exit | None = None,
) -> None:
    """Write the end; only then is the leader's number given back to the kernel."""
    if ended is not None and not is_over(ended):
        # Saying that it is over would be a lie: the row stays, and who asked for the stop tries once more
        # without a guard.
        say(f"survivors: {ended.survivors}, port held: {ended.port_held}")
    else:
        book.finish(state, left or charge.left or Exit(), ended=ended, reason=reason, by=by, keep=keep)
        charge.reap_leader()
    charge.state = state


def how(left: Exit) -> str:
    """Return how a leader ended, as the reason of an end."""
    if left.signal is not None:
        return f"signal {left.signal}"
    return "ended" if left.code is None else f"exit code {left.code}"
