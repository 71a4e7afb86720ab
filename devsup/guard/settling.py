"""
What follows from the end of a server's leader or listener, and from its first moments, and when.

Another process may take the place of either, so that time decides; nothing is done here. For the guard's one
thread; times are seconds on the monotonic clock.
"""

from __future__ import annotations

import time

from devsup.guard.table import Happening
from devsup.models import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.guard.charge import Charge

__all__ = ["due", "has_lost_listener", "left", "lives"]

#: Seconds after which a command without a port counts as running.
_LIVED_AFTER = 1.0
#: Seconds that the rest of a tree gets to serve after its leader ended with 0 before it was ready.
_LEADER_SETTLE = 2.0
#: Seconds for a listener to be replaced (Next.js takes 0.2 when its configuration changes) before
#: `unhealthy`.
_REPLACE_WITHIN = 3.0
#: The same where the leader has ended too: what is left is then on its way out.
_REPLACE_WITHOUT_LEADER = 1.0
#: Poll interval for a socket that is somebody else's, a container's proxy.
_FOREIGN = 2.0


def due(charge: Charge) -> list[float]:
    """Return when there is something to decide about ``charge``."""
    times = []
    if charge.state is State.STARTING and charge.is_portless() and charge.watch.has_said_so is None:
        times.append(charge.launched_at + _LIVED_AFTER)
    if charge.listener is not None and not charge.listener.pid:
        times.append(time.monotonic() + _FOREIGN)
    if charge.left is not None and not charge.was_up and not _has_ended_clean(charge):
        times.append(charge.left_at + _LEADER_SETTLE)
    if charge.lost_at is not None and (charge.state is State.READY or charge.left is not None):
        times.append(charge.lost_at + _replace_within(charge))
    return times


def lives(charge: Charge, now: float) -> bool:
    """Tell whether a command that need not listen is up: after a while, or when it has printed so."""
    if charge.state is not State.STARTING or not charge.is_portless():
        return False
    said = charge.watch.has_said_so
    return now >= charge.launched_at + _LIVED_AFTER if said is None else said


def has_lost_listener(charge: Charge, now: float) -> bool:
    """Tell whether nobody has taken the place of the process that listened."""
    return charge.state is State.READY and _is_lost(charge, now)


def left(charge: Charge, now: float) -> Happening | None:
    """
    Return what the leader's end means for the server; None while it means nothing.

    Without a leader the rest of the tree may still serve.
    """
    if charge.left is None:
        return None
    rest = charge.members()
    clean = _has_ended_clean(charge)
    if charge.state is State.READY and charge.lost_at is None and rest:
        return None  # npm killed by hand, say: its tree serves on
    if rest and clean and charge.lost_at is None:
        return None  # it has put itself into the background
    if rest and charge.lost_at is not None and not _is_lost(charge, now):
        return None
    if rest and not charge.was_up and charge.left.code == 0 and now < charge.left_at + _LEADER_SETTLE:
        return None
    return Happening.LEFT_CLEAN if clean else Happening.LEFT


def _has_ended_clean(charge: Charge) -> bool:
    """Tell whether a command that need not listen has ended with 0, for which no time decides anything."""
    return charge.left is not None and charge.left.code == 0 and charge.is_portless()


def _is_lost(charge: Charge, now: float) -> bool:
    return charge.lost_at is not None and now >= charge.lost_at + _replace_within(charge)


def _replace_within(charge: Charge) -> float:
    return _REPLACE_WITHIN if charge.left is None else _REPLACE_WITHOUT_LEADER
