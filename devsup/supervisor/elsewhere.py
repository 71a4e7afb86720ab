"""
Stop servers of other hosts: find them on the fleet's list, ask their guards, wait for what these saw.

Which one is meant is decided once, by the list: only the generation on it is ended. A guard obeys no longer
than its caller waits, and a caller that goes takes its request back. What belongs to this host's own state
folder is stopped here, as any other, and Redis has no part in it.
"""

from __future__ import annotations

import os
import time
from binascii import hexlify

from devsup import masking
from devsup.apps import owner as owners
from devsup.errors import Ambiguous, Busy, DevsupError, FleetUnreachable, NotFound, OtherOwner, UsageError
from devsup.fleet import requests
from devsup.models import Member, Outcome, State, StopResult, StopResults
from devsup.supervisor.fleetwide import fleet_of, look, shown
from devsup.supervisor.leasing import client
from devsup.supervisor.stop import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from devsup.fleet.listing import Entry
    from devsup.fleet.settings import Settings
    from devsup.models import FleetServer
    from devsup.redis.connection import Client
    from devsup.supervisor.core import Supervisor
    from devsup.supervisor.fleetwide import Seen

__all__ = ["TIMEOUT", "find", "stop_in_fleet"]

#: Seconds for a stop on another host: a usual grace, the kill, and a guard that looks for its mail.
TIMEOUT = 30.0
#: Seconds beyond a grace that somebody asks for.
_BEYOND_GRACE = 15.0
#: Seconds for Redis to answer beyond the time that it is asked to wait.
_ANSWER = 2.0
#: Seconds for taking requests back when the caller goes.
_LAST = 1.0
#: Seconds between two tries to reach it again.
_PAUSE = 0.2
_LIST = "devsup list --fleet"


class _Asked:
    """A request on its way to another host's guard; ``element`` is what takes it back."""

    def __init__(self, text: str, entry: Entry, server: FleetServer, request: requests.Stop) -> None:
        self.text = text
        self.entry = entry
        self.server = server
        self.request = request
        self.element = ""

    @property
    def name(self) -> str:
        return f"`{self.server.app or self.server.session}` on `{self.entry.host}`"


def stop_in_fleet(
    supervisor: Supervisor,
    targets: Sequence[str],
    *,
    timeout: float | None,
    grace: float | None,
    sweep: bool,
    take_over: bool,
) -> StopResults:
    """
    Stop what ``targets`` mean on all hosts; return a result for each, in their order.

    :raises UsageError: no fleet is configured
    :raises FleetUnreachable: its Redis cannot be asked; nothing was done
    """
    began = time.monotonic()
    allowed = timeout if timeout is not None else max(TIMEOUT, (grace or 0.0) + _BEYOND_GRACE)
    fleet, config = fleet_of(supervisor)
    results: dict[int, StopResult] = {}
    asked: dict[int, _Asked] = {}
    here: dict[int, str] = {}
    with client(fleet) as redis:
        seen = look(supervisor, redis, fleet, config)
        for index, text in enumerate(targets):
            try:
                found = find(seen, text, fleet.host)
                if found is None or found.id in seen.own:
                    here[index] = text.rpartition("/")[2] if found is None else found.id
                    continue
                server = shown(found, seen)
                if server is None:
                    raise NotFound(f"`{text}` was published by another version of devsup", hint=_LIST)
            except DevsupError as error:
                results[index] = refusal(text, error)
                continue
            if found.lost:
                name = server.app or server.session
                message = f"`{name}` on `{found.host}` is lost, last seen at {server.seen_at}: nobody to ask"
                results[index] = _failed(text, server, FleetUnreachable.code, message)
                continue
            asked[index] = _Asked(
                text, found, server, _request(fleet, server, grace=grace, sweep=sweep, take_over=take_over)
            )

        def locally() -> dict[int, StopResult]:
            return _locally(supervisor, targets, here, grace=grace, sweep=sweep, take_over=take_over)

        results.update(_ask(redis, fleet, asked, began + allowed, locally))
    return StopResults([results[index] for index in range(len(targets))], list(supervisor.notes))


def find(seen: Seen, text: str, host: str) -> Entry | None:
    """
    Return what ``text`` means, `[HOST/]NAME`; None where only ``host``, this one, may know of it.

    This project's comes first, and what is there before what is lost.

    :raises Ambiguous: several could be meant
    :raises NotFound: there is none
    """
    where, slash, name = text.rpartition("/")
    if not name or name == ":" or (slash and not where):
        raise UsageError(f"`{text}` names no server", hint=_LIST)
    named = [one for one in seen.entries if _is_called(one, name) and (not slash or one.host == where)]
    of_project = [one for one in named if seen.project is not None and one.project == seen.project]
    found = of_project or named
    found = [one for one in found if not one.lost] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise _ambiguous(text, found)
    if not slash or where == host:
        return None
    known = ", ".join(f"`{one}`" for one in sorted({one.host for one in seen.entries})) or "none"
    raise NotFound(f"no server `{name}` on `{where}` in the fleet; its hosts: {known}", hint=_LIST)


def _is_called(entry: Entry, name: str) -> bool:
    server = entry.server
    if name[:1] == ":":
        return str(server.get("port")) == name[1:]
    if name in (server.get("app"), server.get("session"), entry.id):
        return True
    return name.isdecimal() and name in (str(server.get("pid")), str(server.get("guard_pid")))


def _ambiguous(text: str, found: list[Entry]) -> Ambiguous:
    short = [f"{one.host}/{one.server.get('app') or one.server.get('session')}" for one in found]
    # Two of one name on one host are of two projects.
    names = [
        name if short.count(name) == 1 else f"{one.host}/{one.id}"
        for name, one in zip(short, found, strict=True)
    ]
    listed = ", ".join(f"`{name}`" for name in names[:5]) + (", ..." if len(names) > 5 else "")
    return Ambiguous(
        f"`{text}` is {len(found)} servers of the fleet: {listed}",
        hint=_again(names[0]),
        details={
            "candidates": [
                {
                    "target": name,
                    "host": one.host,
                    "app": one.server.get("app"),
                    "session": one.server.get("session"),
                    "project": one.server.get("project"),
                    "id": one.id,
                    "pid": one.server.get("pid"),
                }
                for name, one in zip(names, found, strict=True)
            ]
        },
    )


def _again(name: str, *options: str) -> str:
    """Return the command that stops ``name``, for a shell: hosts call themselves what they like."""
    return masking.typed(["devsup", "stop", name, "--fleet", *options]) or _LIST


# -- what is here ----------------------------------------------------------------------------------------


def _locally(
    supervisor: Supervisor,
    targets: Sequence[str],
    here: dict[int, str],
    *,
    grace: float | None,
    sweep: bool,
    take_over: bool,
) -> dict[int, StopResult]:
    """Stop what belongs to this state folder; what only it may know of is looked for there."""
    if not here:
        return {}
    stopped = supervisor.stop(
        list(here.values()), everywhere=True, grace=grace, sweep=sweep, take_over=take_over
    )
    supervisor.notes = list(stopped.notes)
    return {index: _of_here(targets[index], one) for index, one in zip(here, stopped.results, strict=True)}


def _of_here(text: str, one: StopResult) -> StopResult:
    if one.outcome is not Outcome.NOT_FOUND:
        return one.replace(target=text)
    message = f"no host of the fleet has a server `{text}`, nor has this one"
    return one.replace(target=text, message=message, hint=_LIST)


# -- what is elsewhere -----------------------------------------------------------------------------------


def _request(
    fleet: Settings, server: FleetServer, *, grace: float | None, sweep: bool, take_over: bool
) -> requests.Stop:
    return requests.Stop(
        id=hexlify(os.urandom(8)).decode(),
        server=server.id,
        generation=server.generation,
        by=f"pid {os.getpid()} on {fleet.host}",
        owner=owners.detect(os.environ),
        may_take=take_over or owners.is_interactive(os.environ),
        grace=grace,
        sweep=sweep,
    )


def _ask(
    redis: Client,
    fleet: Settings,
    asked: dict[int, _Asked],
    deadline: float,
    meanwhile: Callable[[], dict[int, StopResult]],
) -> dict[int, StopResult]:
    """Ask all at once, do ``meanwhile``, then wait for one after another: answers keep."""
    results: dict[int, StopResult] = {}
    try:
        if asked:
            left = max(0.001, deadline - time.monotonic())
            posts = [tuple(requests.post(fleet.name, one.request, left)) for one in asked.values()]
            for one, reply in zip(asked.values(), redis.pipeline(posts), strict=True):
                one.element = _text(redis, reply)
        results.update(meanwhile())
        for index, one in asked.items():
            results[index] = _wait(redis, fleet, one, deadline)
    except BaseException:
        _withdraw_all(redis, fleet, [one for index, one in asked.items() if index not in results])
        raise
    return results


def _text(redis: Client, reply: object) -> str:
    from devsup.redis.connection import failed
    from devsup.redis.resp import ErrorReply

    if isinstance(reply, ErrorReply):
        raise failed(redis.address, reply)
    return str(reply)


def _wait(redis: Client, fleet: Settings, one: _Asked, deadline: float) -> StopResult:
    """Return what the guard saw, or that it did not say so in time."""
    trouble: FleetUnreachable | None = None
    while (left := deadline - time.monotonic()) > 0:
        command = requests.wait_for_answer(fleet.name, one.request, left)
        try:
            answer = requests.read_answer(redis.call(*command, timeout=left + _ANSWER))
        except FleetUnreachable as error:
            # Its answer lies there for a while, should Redis come back.
            trouble = error
            time.sleep(min(_PAUSE, max(0.0, deadline - time.monotonic())))
            continue
        if answer is not None:
            return _result(one, answer)
        break
    try:
        commands = (
            requests.withdraw(fleet.name, one.request, one.element),
            requests.look_for_answer(fleet.name, one.request),  # it may have come at the last moment
        )
        taken_back, late = redis.pipeline([tuple(command) for command in commands])
        last = requests.read_answer(_text(redis, late) if late is not None else None)
    except FleetUnreachable as error:
        why = f"{one.name} was asked, then Redis was gone ({trouble or error}): it may still stop"
        return _not_answered(one, error.code, why)
    if last is not None:
        return _result(one, last)
    if taken_back:
        why = f"the guard of {one.name} never heard of it in time: nothing was done"
        return _not_answered(one, FleetUnreachable.code, why)
    why = f"the guard of {one.name} heard, has not answered yet: it may still stop"
    return _not_answered(one, Busy.code, why)


def _withdraw_all(redis: Client, fleet: Settings, asked: list[_Asked]) -> None:
    """Take back what was asked, also what was on its way when the caller was interrupted."""
    try:
        unheard = [one for one in asked if not one.element]
        looks = [tuple(requests.posted(fleet.name, one.request)) for one in unheard]
        for one, reply in zip(unheard, redis.pipeline(looks, timeout=_LAST), strict=True):
            one.element = requests.element_of(reply, one.request) or ""
        commands = [
            tuple(requests.withdraw(fleet.name, one.request, one.element)) for one in asked if one.element
        ]
        redis.pipeline(commands, timeout=_LAST)
    except FleetUnreachable:
        return  # it is over when this caller would have waited no longer


def _result(one: _Asked, answer: dict[str, Any]) -> StopResult:
    """Return what the guard says, which may be of another version."""
    try:
        outcome = Outcome(answer["outcome"])
        ended = outcome in (Outcome.STOPPED, Outcome.STOPPED_BY_OTHER)
        error = answer["error"]
        result = StopResult(
            target=one.text,
            server=one.server.replace(state=State.STOPPED, guard_pid=None) if ended else one.server,
            outcome=outcome,
            signals=[str(name) for name in answer["signals"]],
            escalated=bool(answer["escalated"]),
            ms=int(answer["ms"]),
            survivors=[Member(int(each["pid"]), str(each["command"])) for each in answer["survivors"]],
            left_running=[Member(int(each["pid"]), str(each["command"])) for each in answer["left_running"]],
            port_free=None if answer["port_free"] is None else bool(answer["port_free"]),
            error=None if error is None else str(error),
            message=None if answer["message"] is None else str(answer["message"]),
        )
    except (KeyError, TypeError, ValueError):
        return _not_answered(one, "internal", f"the guard of {one.name} gave an answer of another version")
    if error is None:
        return result
    return result.replace(hint=_again(one.text, "--take-over") if error == OtherOwner.code else _LIST)


def _not_answered(one: _Asked, code: str, message: str) -> StopResult:
    return _failed(one.text, one.server, code, message)


def _failed(text: str, server: FleetServer, code: str, message: str) -> StopResult:
    return StopResult(
        target=text, server=server, outcome=Outcome.FAILED, signals=[], escalated=False, ms=0, survivors=[],
        left_running=[], port_free=None, error=code, message=message, hint=_LIST,
    )  # fmt: skip
