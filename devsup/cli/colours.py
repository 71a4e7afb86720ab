"""Which colour a state has at a terminal; what is not named is dim. Constants."""

from __future__ import annotations

from devsup.models import State

__all__ = ["COLOURS"]

COLOURS: dict[State, str] = {
    State.READY: "green",
    State.RUNNING: "green",
    State.STARTING: "yellow",
    State.RESTARTING: "yellow",
    State.STOPPING: "yellow",
    State.UNHEALTHY: "red",
    State.CRASHED: "red",
    State.LOST: "red",
}
