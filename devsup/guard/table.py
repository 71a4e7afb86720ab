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
    LEFT = "left"  # it ended, and nobody had asked for that
    LEFT_CLEAN = "left clean"  # a command without a port ended with 0
    STOP = "stop"
    RESTART = "restart"
    DOWN = "down"  # the shutdown is over
    LAUNCHED = "launched"  # a new generation runs


_UP: dict[Happening, State | None] = {
    Happening.LIVED: None,
    Happening.SERVING: State.READY,
    Happening.LISTENER_LOST: State.UNHEALTHY,
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
    State.STARTING: {**_UP, Happening.LIVED: State.RUNNING, Happening.LISTENER_LOST: None},
    State.RUNNING: {**_UP, Happening.LISTENER_LOST: None},
    State.READY: _UP,
    State.UNHEALTHY: {**_UP, Happening.LISTENER_LOST: None},
    State.RESTARTING: {
        **_ENDED,
        Happening.STOP: State.STOPPING,
        Happening.LEFT: State.CRASHED,
        Happening.LAUNCHED: State.STARTING,
    },
    State.STOPPING: {**_ENDED, Happening.DOWN: State.STOPPED},
    State.STOPPED: _ENDED,
    State.EXITED: _ENDED,
    State.CRASHED: _ENDED,
    State.LOST: _ENDED,
}
