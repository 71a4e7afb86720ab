"""
What other hosts ask of a guard, from the moment it has read that until it has answered.

A request is refused where it means another generation or somebody else's server, forgotten once its time is
over or it is taken back, and answered with what was seen of the end. For the guard's one thread: commands are
made and answers are read here, `devsup.guard.fleet` sends them.
"""

from __future__ import annotations

import time

from devsup import masking
from devsup.clock import boottime
from devsup.errors import OtherOwner, PortHeld, Survivors
from devsup.fleet import requests
from devsup.guard.lifetimes import ASKED
from devsup.models import Outcome, State
from devsup.owners import is_anothers
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from devsup.fleet.requests import Stop
    from devsup.guard.charge import Charge
    from devsup.shutdown import Ended

__all__ = ["Mail"]


class _Request(Record):
    """A stop that somebody waits for ``until`` (`boottime`); ``since`` is when it was read (monotonic)."""

    stop: Stop
    since: float
    until: float


class Mail:
    """The requests to one guard of the fleet ``fleet``; ``send`` takes what a command is and the command."""

    def __init__(self, charge: Charge, fleet: str, send: Callable[[str, Sequence[Any]], None]) -> None:
        self._charge = charge
        self._fleet = fleet
        self._send = send
        self._requests: list[_Request] = []
        self._news = False

    def take(self) -> None:
        """Ask for what there is; `read` takes the reply in."""
        self._send("take", requests.take(self._fleet, self._charge.job.id))

    def has_news(self) -> bool:
        """Tell, once, whether somebody has asked for something."""
        news, self._news = self._news, False
        return news

    def read(self, reply: object, sent: float) -> None:
        """Take in the reply to a `take` that was sent at ``sent`` (`boottime`)."""
        now, gone = time.monotonic(), requests.withdrawn(reply)
        self._requests = [one for one in self._requests if one.stop.id not in gone]
        for stop, seconds in requests.taken(reply):
            if stop.id in gone:
                continue
            request = _Request(stop, now, sent + seconds)
            refusal = self._refusal(stop)
            if refusal is None:
                self._requests.append(request)
                self._news = True
            else:
                self._refuse(request, *refusal)

    def request(self) -> Stop | None:
        """Return what is asked of this guard and still waited for; what is over is forgotten."""
        now, kept = boottime(), []
        for one in self._requests:
            refusal = self._refusal(one.stop)
            if refusal is not None:
                self._refuse(one, *refusal)  # restarted meanwhile: that one was not meant
            elif now < one.until:
                kept.append(one)
        self._requests = kept
        return kept[0].stop if kept else None

    def answer_all(self, state: State, ended: Ended | None, *, reason: str) -> None:
        """Tell everybody who still waits how the server has ended; ``reason`` is why."""
        self.request()
        own = reason == ASKED
        for request in self._requests:
            outcome = Outcome.STOPPED if own else Outcome.STOPPED_BY_OTHER
            own = False  # of several who asked, the first one was obeyed
            if state is not State.STOPPED:
                outcome = Outcome.ALREADY_STOPPED
            self._answer(request, _seen(request, outcome, ended))
        self._requests = []

    def _refusal(self, stop: Stop) -> tuple[str, str] | None:
        """Return why ``stop`` is not obeyed, as a code and a sentence."""
        job = self._charge.job
        name = job.app or job.session
        if stop.server != job.id or stop.generation != self._charge.generation:
            return "not_found", f"`{name}` runs as another generation than the one that was to be stopped"
        if is_anothers(job.owner, stop.owner) and not stop.may_take:
            return OtherOwner.code, f"`{job.session}` belongs to `{job.owner}`"
        return None

    def _refuse(self, request: _Request, code: str, message: str) -> None:
        self._answer(request, _seen(request, Outcome.REFUSED, None, error=code, message=message))

    def _answer(self, request: _Request, seen: dict[str, Any]) -> None:
        self._send("answer", requests.answer(self._fleet, request.stop, masking.value(seen)))


def _seen(
    request: _Request,
    outcome: Outcome,
    ended: Ended | None,
    *,
    error: str | None = None,
    message: str | None = None,
) -> dict[str, Any]:
    """Return the fields of `StopResult` that tell another host what was seen here."""
    if ended is not None and ended.survivors:
        outcome, error = Outcome.FAILED, Survivors.code
        message = f"{len(ended.survivors)} processes survived SIGKILL"
    elif ended is not None and ended.port_held:
        outcome, error = Outcome.FAILED, PortHeld.code
        message = "a listening socket of it outlived its processes"
    return {
        "outcome": outcome.value,
        "signals": ended.signals if ended is not None else [],
        "escalated": ended is not None and ended.escalated,
        "ms": round((time.monotonic() - request.since) * 1e3),
        "survivors": [one.asdict() for one in ended.survivors] if ended is not None else [],
        "left_running": [one.asdict() for one in ended.left_running] if ended is not None else [],
        "port_free": ended.port_free if ended is not None else None,
        "error": error,
        "message": message,
    }
