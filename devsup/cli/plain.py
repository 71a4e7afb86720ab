"""
Answers as plain text: one line per thing, aligned, stable, never wrapped, no colour.

Functions of the answer alone, but for the branch of a worktree; nothing here looks at the terminal.
"""

from __future__ import annotations

import time

from devsup import masking
from devsup.cli import verbs
from devsup.models import (
    ENDED_STATES,
    FleetList,
    FleetServer,
    LogPage,
    Outcome,
    Server,
    ServerList,
    StartResult,
    State,
    StatusResult,
    StopResult,
    StopResults,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from devsup.apps.worktree import Place
    from devsup.cli.answer import Answer
    from devsup.errors import DevsupError
    from devsup.models import Finding, Member

__all__ = [
    "address",
    "age",
    "aligned",
    "by_worktree",
    "clean",
    "duration",
    "failure",
    "finding",
    "fleet_rows",
    "or_dash",
    "render",
    "rows",
    "server_line",
    "state_text",
    "stop_line",
    "talk",
    "uptime",
]


def render(answer: Answer) -> str:
    """Return what belongs on stdout."""
    data = answer.data
    if data is None:
        return ""
    if isinstance(data, LogPage):
        return _page(data, answer)
    lines = _list(data, projects=answer.everywhere) if isinstance(data, ServerList) else _lines(answer)
    text = "".join(f"{clean(masking.text(line))}\n" for line in lines)
    # What an error brings along is for programs; what a command found beside one is for everybody.
    return "" if answer.error is not None and answer.error.data is data else text


def talk(answer: Answer) -> str:
    """Return what belongs on stderr: notes, then the error and what to do about it."""
    notes = list(answer.notes)
    for note in getattr(answer.data, "notes", ()):
        if note not in notes:
            notes.append(note)
    lines = [f"note: {_shown(note)}" for note in notes]
    if isinstance(answer.data, StopResults):
        lines += [
            f"note: {_shown(one.message)}" for one in answer.data.results if one.message and not one.error
        ]
    if isinstance(answer.data, LogPage):
        lines += _log_notes(answer.data)
    if answer.error is not None:
        lines += failure(answer.error)
    return "".join(f"{line}\n" for line in lines)


def failure(error: DevsupError) -> list[str]:
    """Return an error as lines: what happened, the end of the log where there is one, the hint."""
    lines = [f"error: {_shown(error.message)}"]
    failed = error.details.get("failed")
    if isinstance(failed, list) and len(failed) > 1:
        lines += ["", *(f"  {_shown(str(one['target']))}: {_shown(str(one['message']))}" for one in failed)]
    tail = error.details.get("log_tail")
    if isinstance(tail, str) and tail.strip():
        lines += ["", *(f"  | {_shown(line)}" for line in tail.rstrip().splitlines())]
    cause = error.details.get("cause")
    if isinstance(cause, str) and cause not in error.message:
        lines += ["", f"cause: {_shown(cause)}"]
    if error.hint:
        lines += ["", f"hint: {_shown(error.hint)}"]
    return lines


def clean(text: str) -> str:
    """Return ``text`` without control characters: no name or command moves a cursor or forges a line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\t" else f"\\x{ord(char):02x}" for char in text)


def _shown(text: str) -> str:
    """Return ``text`` for people; masked first: cleaned, a secret may not be known by sight any more."""
    return clean(masking.text(text))


def _lines(answer: Answer) -> list[str]:
    data = answer.data
    for kind, show in _SHOWN:
        if isinstance(data, kind):
            return show(data)
    if isinstance(data, dict) and "url" in data:
        return [str(data["url"])]
    if isinstance(data, dict) and "version" in data:
        return [f"devsup {data['version']} (Python {data['python']}, {data['platform']})"]
    if answer.verb == "help":
        return [str(data)]
    return list(verbs.module(answer.verb).lines(data))


# -- start, restart, wait ------------------------------------------------------------------------------


def server_line(result: StartResult) -> str:
    """Return the one line that tells of a start: what, in which state, where."""
    server = result.server
    words = [server.session, state_text(server)]
    if server.url:
        words.append(server.url)
    if server.pid:
        words.append(f"pid {server.pid}")
    if result.reused:
        words.append("(reused)")
    return " ".join(words)


def state_text(server: Server) -> str:
    """Return the state with what explains it: `crashed (exit 1)`, `crashed (SIGKILL)`."""
    text = str(server.state.value)
    if server.state in (State.CRASHED, State.EXITED):
        if server.signal is not None:
            text += f" ({_signal_name(server.signal)})"
        elif server.exit_code is not None:
            text += f" (exit {server.exit_code})"
    return text if server.scope == "here" else f"{text} ({server.scope})"


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# -- list ----------------------------------------------------------------------------------------------


def rows(
    listed: ServerList, *, projects: bool, now: float | None = None
) -> tuple[list[str], list[list[str]]]:
    """Return heading and cells of a list, with ``projects`` that column too."""
    now = time.time() if now is None else now
    heading = [
        "SESSION",
        "STATE",
        "PID",
        "PORT",
        "URL",
        "UPTIME",
        *(["PROJECT", "BRANCH"] if projects else []),
    ]
    cells = [
        [
            server.session,
            state_text(server),
            or_dash(server.pid),
            or_dash(server.port),
            or_dash(address(server)),
            uptime(server, now),
            *([server.project, or_dash(place.branch)] if place is not None else []),
        ]
        for server, place in by_worktree(listed, projects=projects)
    ]
    cells += [
        [
            f"({other.kind})",
            "unmanaged",
            or_dash(other.pid),
            or_dash(other.port),
            or_dash(other.url),
            "-",
            *([other.cwd, "-"] if projects else []),
        ]
        for other in listed.unmanaged
    ]
    return heading, cells


def by_worktree(listed: ServerList, *, projects: bool) -> list[tuple[Server, Place | None]]:
    """
    Return the servers; with ``projects`` each with its place, the worktrees of a repository together.

    The branch is what git's files say now.
    """
    if not projects:
        return [(server, None) for server in listed.servers]
    from devsup.apps import worktree

    places = {project: worktree.find(project) for project in {one.project for one in listed.servers}}

    def order(server: Server) -> tuple[str, str]:
        return (places[server.project].repository or server.project, server.project)

    return [(server, places[server.project]) for server in sorted(listed.servers, key=order)]


def fleet_rows(listed: ServerList, *, now: float | None = None) -> tuple[list[str], list[list[str]]]:
    """Return heading and cells of the list of a fleet."""
    now = time.time() if now is None else now
    cells = [
        [
            server.host,
            server.project.rstrip("/").rpartition("/")[2] or "/",
            server.app or server.session,
            str(server.state.value),
            or_dash(address(server)),
            age(server.seen_at, now),
        ]
        for server in listed.servers
        if isinstance(server, FleetServer)
    ]
    return ["HOST", "PROJECT", "APP", "STATE", "URL", "SEEN"], cells


def age(time: str, now: float) -> str:
    """Return how long ago something was."""
    from datetime import datetime

    return f"{duration(max(0.0, now - datetime.fromisoformat(time).timestamp()))} ago"


def _list(listed: ServerList, *, projects: bool) -> list[str]:
    if isinstance(listed, FleetList):
        heading, cells = fleet_rows(listed)
        return aligned([heading, *cells])
    heading, cells = rows(listed, projects=projects)
    return aligned([heading, *cells])


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def address(server: Server) -> str | None:
    """Return where ``server`` answers; nothing where it is no more."""
    return None if server.state in ENDED_STATES else server.url


def uptime(server: Server, now: float) -> str:
    """Return for how long ``server`` has been there, or `-` where it is no more."""
    if server.state in ENDED_STATES:
        return "-"
    from datetime import datetime

    return duration(now - datetime.fromisoformat(server.started_at).timestamp())


def duration(seconds: float) -> str:
    """Return a length of time in at most two units: `850ms`, `12s`, `3m05s`, `2h10m`, `4d03h`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1e3))}ms"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def or_dash(value: object) -> str:
    """Return a cell's text; `-` for what is not known."""
    return "-" if value is None else str(value)


# -- status --------------------------------------------------------------------------------------------


def _status(result: StatusResult) -> list[str]:
    server = result.server
    pairs = [
        ("session", server.session),
        ("state", state_text(server)),
        ("url", server.url),
        ("pid", server.pid),
        ("guard", server.guard_pid),
        ("port", server.port),
        ("kind", server.kind),
        ("project", server.project),
        ("cwd", server.cwd),
        ("command", masking.shown(server.command)),
        ("started", server.started_at),
        ("ready", server.ready_at),
        ("log", server.log),
        ("owner", server.owner),
    ]
    lines = [f"{name:<9} {value}" for name, value in pairs if value is not None]
    if (lease := result.lease) is not None:
        until = f" until {lease['expires_at']}" if lease["state"] == "held" and lease["expires_at"] else ""
        lines.append(f"lease     {lease['state']}{until} (fencing {lease['fencing']})")
    return lines + [
        f"process   {process.get('pid')} {_shown_command(process.get('command'))}"
        for process in result.processes
    ]


def _shown_command(command: object) -> str:
    return masking.shown(command) if isinstance(command, list) else masking.text(str(command))


# -- stop ----------------------------------------------------------------------------------------------


def stop_line(result: StopResult) -> str:
    """Return the one line that tells what was seen of a stop."""
    name = result.server.session if result.server else result.target
    if isinstance(result.server, FleetServer):
        name += f" on {result.server.host}"
    if result.outcome is Outcome.ALREADY_STOPPED:
        return f"{name} already stopped"
    done = {Outcome.STOPPED: "stopped", Outcome.STOPPED_BY_OTHER: "stopped by another call"}
    # Where nothing was done there is no time to tell.
    took = f" in {result.ms} ms" if result.ms or result.outcome in done else ""
    words = [f"{name} {done.get(result.outcome, 'not stopped')}{took}"]
    if result.signals:
        words[0] += f" ({', '.join(result.signals)})"
    port = result.server.port if result.server else None
    if port is not None and result.port_free is not None:
        words.append(f"port {port} {'is free' if result.port_free else 'is still held'}")
    if result.survivors:
        words.append(f"survivors: {_members(result.survivors)}")
    if result.left_running:
        words.append(f"left running: {_members(result.left_running)}")
    return "; ".join(words)


def _members(members: Sequence[Member]) -> str:
    return ", ".join(f"{member.pid} {_shown_command(member.command)}" for member in members)


# -- logs ----------------------------------------------------------------------------------------------


def _page(page: LogPage, answer: Answer) -> str:
    text = page.text
    if page.errors is not None:
        text = "".join(f"{clean(finding(one))}\n" for one in page.errors)
    text = text if answer.raw else masking.text(text)
    if answer.label is None or not text:
        return text
    return "".join(f"{answer.label} | {line}\n" for line in text.removesuffix("\n").split("\n"))


def finding(one: Finding) -> str:
    """Return the one line that tells of an error: where, what, how often."""
    place = ":".join(str(part) for part in (one.file, one.line, one.column) if part is not None)
    often = f" ({one.count} times)" if one.count > 1 else ""
    return f"{one.kind}: {f'{place}: ' if place else ''}{one.message}{often}"


def _log_notes(page: LogPage) -> list[str]:
    notes = []
    if page.reset:
        notes.append("note: the server was restarted; this is the new log")
    if page.truncated:
        notes.append("note: what came before this is not shown")
    return notes


#: Outcomes of which nothing was seen: the error says all there is to say.
_UNSEEN = frozenset({Outcome.NOT_FOUND, Outcome.REFUSED})

_SHOWN: tuple[tuple[type, Callable[[Any], list[str]]], ...] = (
    (StartResult, lambda result: [server_line(result)]),
    (StatusResult, _status),
    (StopResults, lambda results: [stop_line(one) for one in results.results if one.outcome not in _UNSEEN]),
)
