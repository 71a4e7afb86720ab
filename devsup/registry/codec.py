"""
Rows, identities and claims as the registry stores them.

Pure functions. What does not decode was not written by devsup: `Undecodable` means a damaged registry.
"""

from __future__ import annotations

import os

from devsup import compactjson
from devsup.filenames import native, native_all, portable, portable_all
from devsup.models import Event, Identity, Operation, Row, State, StopClaim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

__all__ = [
    "RUN_COLUMNS",
    "Undecodable",
    "claim_from",
    "claim_text",
    "description",
    "event",
    "identity_from",
    "identity_text",
    "json_from",
    "json_text",
    "operation",
    "pid_of",
    "plain",
    "record",
    "row_from",
    "row_from_record",
    "run_values",
    "text",
]

#: The columns of `runs` that make a `Row`, in the order of `row_from`; ``live`` is not one of them.
RUN_COLUMNS = (
    "id, generation, scope, project, session, folder, state, starter, guard, leader, port, url,"
    " listener_pid, listener_inode, log, started_at, ready_at, last_used_at, exit_code, signal, ended_at,"
    " reason, stop, outcome"
)

#: What decoding of damaged text or of missing keys ends in.
_BROKEN = (ValueError, KeyError, TypeError, IndexError, AttributeError)


class Undecodable(Exception):
    """A value that devsup did not write."""


def _dumps(value: Any) -> str:
    return compactjson.dumps(portable_all(value))


def _loads(stored: str) -> Any:
    return native_all(compactjson.loads(stored))


def text(value: str | bytes) -> str | bytes:
    """
    Return a path as SQLite can hold it: file names are bytes, and not all of them are UTF-8.

    The same for the same bytes in every process: rows are found and kept apart by it.
    """
    if isinstance(value, bytes) or value.isascii():
        return value
    value = portable(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape")
    return value


def plain(value: str | bytes) -> str:
    """Return the path behind its `text`."""
    return native(value) if isinstance(value, str) else os.fsdecode(value)


def json_text(fields: dict[str, Any] | None) -> str | None:
    """Return what was seen of an end, or an event's details, as JSON."""
    return None if fields is None else _dumps(fields)


def json_from(stored: str | None) -> Any:
    """Return what is behind a `json_text`."""
    try:
        return None if stored is None else _loads(stored)
    except ValueError as error:
        raise Undecodable(f"JSON in the registry cannot be read ({error})") from error


def pid_of(identity: str | None) -> int | None:
    """Return the pid in the text of an identity."""
    return None if identity is None else int(identity.partition(" ")[0])


def identity_text(who: Identity | None) -> str | None:
    """Return the one text of an identity: equal texts are the same process."""
    return None if who is None else f"{who.pid} {who.ticks} {who.inode} {who.boot}"


def identity_from(stored: str | None) -> Identity | None:
    """Return the identity behind its text."""
    return None if stored is None else _identity(stored)


def _identity(stored: str) -> Identity:
    pid, ticks, inode, boot = stored.split(" ", 3)
    return Identity(int(pid), int(ticks), boot, int(inode))


class _Numbers:
    """Numbers that are taken out of their text when somebody asks for them: of most rows nobody does."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __iter__(self) -> Iterator[int]:
        return map(int, self._text.split())

    def __eq__(self, other: object) -> bool:
        return list(self) == (list(other) if isinstance(other, _Numbers) else other)

    def __hash__(self) -> int:
        return hash(self._text)


def _numbers(found: Iterable[int] | None) -> str | None:
    return None if found is None else " ".join(map(str, found))


def _numbers_from(stored: Any) -> Iterable[int] | None:
    if stored is None or (isinstance(stored, list) and all(isinstance(one, int) for one in stored)):
        return stored  # a list: before it was one text
    # Now, and not where they are taken out: here it is known whose damage it is.
    if stored and not stored.replace(" ", "").isdecimal():
        raise ValueError("not numbers")
    return _Numbers(stored)


def claim_text(claim: StopClaim | None) -> str | None:
    """Return a claim as JSON."""
    if claim is None:
        return None
    fields = claim.asdict()
    fields["by"] = identity_text(claim.by)
    return _dumps(fields)


def claim_from(stored: str | None) -> StopClaim | None:
    """Return the claim behind its text; keys of later versions are passed over."""
    if stored is None:
        return None
    try:
        fields = _loads(stored)
        by = _identity(fields["by"])
        return StopClaim(by, fields["since"], fields["purpose"], fields["grace"], fields["sweep"])
    except _BROKEN as error:
        raise Undecodable(f"a stop claim in the registry cannot be read ({error})") from error


def description(row: Row) -> str:
    """Return what never changes of a server and is not in `runs`, as JSON; these keys are frozen."""
    return _dumps(
        {
            "netns": row.netns,
            "app": row.app,
            "kind": row.kind,
            "cwd": row.cwd,
            "command": row.command,
            "owner": row.owner,
            "asked_port": row.asked_port,
            "strangers": _numbers(row.strangers),
        }
    )


def run_values(row: Row) -> tuple[object, ...]:
    """Return the values of `RUN_COLUMNS`."""
    return (
        row.id,
        row.generation,
        row.scope,
        text(row.project),
        row.session,
        None if row.folder is None else text(row.folder),
        row.state.value,
        identity_text(row.starter),
        identity_text(row.guard),
        identity_text(row.leader),
        row.port,
        row.url,
        row.listener_pid,
        row.listener_inode,
        text(row.log),
        row.started_at,
        row.ready_at,
        row.last_used_at,
        row.exit_code,
        row.signal,
        row.ended_at,
        row.reason,
        claim_text(row.stop),
        json_text(row.outcome),
    )


def row_from(values: tuple[Any, ...], described: str) -> Row:
    """Return the row of `RUN_COLUMNS` values and its description."""
    try:
        return _row(values, _loads(described))
    except _BROKEN as error:
        raise Undecodable(f"a row in the registry cannot be read ({error})") from error


def _row(values: tuple[Any, ...], about: dict[str, Any]) -> Row:
    return Row(
        id=values[0],
        generation=values[1],
        scope=values[2],
        netns=about["netns"],
        project=plain(values[3]),
        session=values[4],
        app=about["app"],
        kind=about["kind"],
        cwd=about["cwd"],
        command=about["command"],
        log=plain(values[14]),
        owner=about["owner"],
        started_at=values[15],
        folder=None if values[5] is None else plain(values[5]),
        asked_port=about["asked_port"],
        state=State(values[6]),
        starter=identity_from(values[7]),
        guard=identity_from(values[8]),
        leader=identity_from(values[9]),
        port=values[10],
        url=values[11],
        listener_pid=values[12],
        listener_inode=values[13],
        ready_at=values[16],
        last_used_at=values[17],
        exit_code=values[18],
        signal=values[19],
        ended_at=values[20],
        reason=values[21],
        stop=claim_from(values[22]),
        outcome=None if values[23] is None else _loads(values[23]),
        strangers=_numbers_from(about.get("strangers")),
    )


def record(row: Row) -> str:
    """Return the whole row as the JSON that the history keeps."""
    fields = row.asdict()
    for name in ("starter", "guard", "leader"):
        fields[name] = identity_text(fields[name])
    fields["stop"] = claim_text(row.stop)
    fields["state"] = row.state.value
    fields["strangers"] = _numbers(row.strangers)
    return _dumps(fields)


def row_from_record(stored: str) -> Row:
    """Return the row behind a history record; keys of later versions are passed over."""
    try:
        fields = _loads(stored)
        for name in ("starter", "guard", "leader"):
            fields[name] = identity_from(fields[name])
        fields["stop"] = claim_from(fields["stop"])
        fields["state"] = State(fields["state"])
        fields["strangers"] = _numbers_from(fields.get("strangers"))
        return Row(**{name: fields[name] for name in Row._fields if name in fields})
    except _BROKEN as error:
        raise Undecodable(f"its history cannot be read ({error})") from error


def event(values: tuple[Any, ...]) -> Event:
    """Return the event of a whole row of `events`."""
    seq, time, type_, session, project, server, generation, pid, by, reason, exit_code, details = values
    where = None if project is None else plain(project)
    told = json_from(details)
    return Event(seq, time, type_, session, where, server, generation, pid, by, reason, exit_code, told)


def operation(values: tuple[Any, ...]) -> Operation:
    """Return the operation of a whole row of `operations`."""
    try:
        number, server, generation, by, since, purpose, exclusive = values
        return Operation(number, server, generation, _identity(by), since, purpose, bool(exclusive))
    except _BROKEN as error:
        raise Undecodable(f"an operation in the registry cannot be read ({error})") from error
