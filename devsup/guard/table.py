"""What every event does in every state: one complete table, so that nothing is left to chance. Pure data."""

from __future__ import annotations

from enum import Enum

from devsup.models import State

__all__ = ["TRANSITIONS", "Happening"]


class Happening(Enum):
    """What can happen to a server, as its guard sees it."""

    LIVED = "lived"  # a command without a port has lived for a second
    SERVING = "serving"  # the tree answers on its own listening socket
    LISTENER_LOST = "listener lost"  # the process that listened has ended and no other took its place
    UNWELL = "unwell"  # it does not answer any more as it should
    FAILED = "failed"  # it ended, or is unwell, and is to be run again
    LEFT = "left"  # it ended, nobody had asked for that, and it stays down
    LEFT_CLEAN = "left clean"  # a command without a port ended with 0
    STOP = "stop"
    RESTART = "restart"
    DOWN = "down"  # the shutdown is over
    LAUNCHED = "launched"  # a new generation runs


_UP: dict[Happening, State | None] = {
    Happening.LIVED: None,
    Happening.SERVING: State.READY,
    Happening.LISTENER_LOST: State.UNHEALTHY,
    Happening.UNWELL: State.UNHEALTHY,
    Happening.FAILED: State.RESTARTING,
    Happening.LEFT: State.CRASHED,
    Happening.LEFT_CLEAN: State.EXITED,
    Happening.STOP: State.STOPPING,
    Happening.RESTART: State.RESTARTING,
    Happening.DOWN: None,
    Happening.LAUNCHED: None,
}

_ENDED: dict[Happening, State | None] = dict.fromkeys(Happening)

#: ``None`` is a decision: the event changes nothing in that state. A missing key is a bug.
TRANSITIONS: dict[State, dict[Happening, State | None]] = {
    State.STARTING: {
        **_UP,
        Happening.LIVED: State.RUNNING,
        Happening.LISTENER_LOST: None,
        Happening.UNWELL: None,
    },
    State.RUNNING: {**_UP, Happening.LISTENER_LOST: None, Happening.UNWELL: None},
    State.READY: _UP,
    State.UNHEALTHY: {**_UP, Happening.LISTENER_LOST: None, Happening.UNWELL: None},
    # Also the pause before the next try: a restart that is asked for then is one at once.
    State.RESTARTING: {
        **_ENDED,
        Happening.STOP: State.STOPPING,
        Happening.RESTART: State.RESTARTING,
        Happening.LEFT: State.CRASHED,
        Happening.LAUNCHED: State.STARTING,
    },
    State.STOPPING: {**_ENDED, Happening.DOWN: State.STOPPED},
    State.STOPPED: _ENDED,
    State.EXITED: _ENDED,
    State.CRASHED: _ENDED,
    State.LOST: _ENDED,
}
