"""
Answers for a person at a terminal: a spinner while something takes time, a table, a little colour.

Everything shown is data and never markup: a server may be called `[red]`. The spinner draws from a thread of
its own, on stderr only, and is gone before anything else is written.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from devsup import logs, masking
from devsup.cli import answer as answers
from devsup.cli import handlers, plain, verbs
from devsup.cli.colours import COLOURS
from devsup.models import (
    ENDED_STATES,
    FleetList,
    HostList,
    LogPage,
    PoolList,
    PortList,
    PruneResult,
    ServerList,
    StartResult,
    StopResults,
)

if TYPE_CHECKING:
    from devsup.apps.worktree import Place
    from devsup.cli.answer import Answer
    from devsup.cli.lane import Call
    from devsup.models import Server
    from devsup.supervisor.waiting import Progress

__all__ = ["run", "show", "table"]

#: A call that answers sooner has shown nothing.
_PATIENCE = 0.2


def run(call: Call) -> Answer:
    """Run ``call`` with a spinner on stderr, where that is a terminal and the call takes its time."""
    waits = handlers.waiting_for(call)
    if waits is None or not sys.stderr.isatty():
        return handlers.run(call)
    with _Waiting(waits) as waiting:
        return handlers.run(call, waiting.tell)


def show(answer: Answer) -> int:
    """Write ``answer`` and return its exit status."""
    out = _Page(sys.stdout)
    if isinstance(answer.data, LogPage):
        text = plain.render(answer)
        if answer.label is not None and out.console.is_terminal:
            text = out.lines(text, {f"{answer.label} |": _label_colour(answer.label)})
    elif isinstance(answer.data, ServerList) and out.console.is_terminal:
        text = out.drawn(_listed(answer.data, projects=answer.everywhere))
    elif answer.data is not None and out.console.is_terminal and (drawn := verbs.drawn(answer.verb)):
        text = out.drawn(drawn(answer.data))
    elif out.console.is_terminal and answer.error is None and (nothing := _nothing(answer.data)):
        text = out.drawn(Text(nothing))
    else:
        text = out.lines(plain.render(answer), _highlight(answer))
    failed = answers.write(text + _for_phones(answer, out))
    talk = {"error:": "bold red", "hint:": "bold", "note:": "dim"}
    answers.write(_Page(sys.stderr).lines(plain.talk(answer), talk), sys.stderr)
    return failed or answer.exit_code


def _for_phones(answer: Answer, out: _Page) -> str:
    """Return the QR code of an Expo server that has just been asked for, at a terminal."""
    if answer.verb not in ("start", "restart", "status", "url", "wait") or answer.error is not None:
        return ""
    data = answer.data
    if not out.console.is_terminal or data is None:
        return ""
    if isinstance(data, dict):  # of a url nothing else is known
        from devsup.supervisor import Supervisor

        known = Supervisor().list(everywhere=True).servers
        server = next((one for one in known if one.port == data["port"]), None)
    else:
        server = data.server
    if server is None or server.kind != "expo":
        return ""
    from devsup.cli import phone

    where = phone.address(server, os.environ)
    if where is None:
        return ""
    coloured = out.console.color_system is not None and not out.console.no_color
    drawn = phone.code(where, out.console.width, coloured=coloured)
    if drawn is None:
        return ""
    page = _Page(sys.stdout)
    page.console.print(drawn)
    page.console.print(Text(f"Expo Go: {where}"), soft_wrap=True)
    return page.drawn(Text())


def table(listed: ServerList, *, projects: bool, now: float | None = None) -> Table:
    """Return the table of a list: one line a server; names and projects are cut where there is no room."""
    now = time.time() if now is None else now
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("APP", min_width=6)
    for name in ("STATE", "PID", "URL", "UPTIME"):
        grid.add_column(name, no_wrap=True)
    if projects:
        grid.add_column("PROJECT", min_width=8)
    before: str | None = None
    for server, place in plain.by_worktree(listed, projects=projects):
        if place is not None and before not in (None, place.repository or server.project):
            grid.add_row()  # between repositories, so that the worktrees of one are seen together
        before = (place.repository or server.project) if place is not None else None
        name, state = server.app or server.session, plain.state_text(server)
        colour = COLOURS.get(server.state, "dim")
        cells = [name, state, plain.or_dash(server.pid), _address(server), plain.uptime(server, now)]
        where = [_cut(_place(server, place))] if place is not None else []
        grid.add_row(*_cells(cells, colour), *where)
    for other in listed.unmanaged:
        cells = [f"({other.kind})", "unmanaged", plain.or_dash(other.pid), plain.or_dash(other.url), "-"]
        grid.add_row(*_cells(cells, "dim"), *([_cut(os.path.basename(other.cwd))] if projects else []))
    return grid


def _place(server: Server, place: Place) -> str:
    name = os.path.basename(server.project)
    return f"{name} ({place.branch})" if place.branch else name


def _cells(cells: list[str], colour: str) -> list[Text]:
    name, state, *others = cells
    return [_cut(name), Text(plain.clean(state), style=colour), *(Text(plain.clean(cell)) for cell in others)]


def _cut(text: str) -> Text:
    # Where the column becomes narrower than the text, that ends in an ellipsis, not on a second line.
    return Text(plain.clean(masking.text(text)), no_wrap=True, overflow="ellipsis")


def _address(server: Server) -> str:
    # A port alone is worth showing while the server is on its way.
    waiting = server.port is not None and server.state not in ENDED_STATES
    return plain.address(server) or (f":{server.port}" if waiting else "-")


def _listed(listed: ServerList, *, projects: bool) -> Table | Text:
    if isinstance(listed, FleetList):
        return _fleet(listed) if listed.servers else Text("No host has a server in the fleet.")
    if not listed.servers and not listed.unmanaged:
        return Text("No servers here. Start one: devsup start")
    return table(listed, projects=projects)


def _fleet(listed: ServerList) -> Table:
    """Return the table of a fleet: names are cut where there is no room."""
    heading, rows = plain.fleet_rows(listed)
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in heading:
        cut = name in ("HOST", "PROJECT", "APP")
        grid.add_column(name, no_wrap=not cut, min_width=4 if cut else None)
    for server, (*names, state, url, seen) in zip(listed.servers, rows, strict=True):
        colour = COLOURS.get(server.state, "dim")
        others = (Text(plain.clean(cell)) for cell in (url, seen))
        grid.add_row(*map(_cut, names), Text(state, style=colour), *others)
    return grid


#: What a person is told where a list is empty; a script sees that by itself.
_NOTHING = (
    (StopResults, "results", "Nothing to stop."),
    (PruneResult, "pruned", "Nothing is left behind."),
    (HostList, "hosts", "No host has a server in the fleet."),
    (PoolList, "pools", "No pool here. Make one: devsup pool NAME add ITEM"),
    (PortList, "ports", "Nobody listens on a port of this project."),
)


def _nothing(data: object) -> str | None:
    found = [text for kind, name, text in _NOTHING if isinstance(data, kind) and not getattr(data, name)]
    return found[0] if found else None


def _label_colour(label: str) -> str:
    """Return a colour that stays that of this server, also in another call."""
    colours = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta")
    return colours[sum(label.strip().encode()) % len(colours)]


def _highlight(answer: Answer) -> dict[str, str]:
    servers: list[Server] = []
    if isinstance(answer.data, StartResult):
        servers = [answer.data.server]
    elif isinstance(answer.data, StopResults):
        return {" already stopped": "green", " stopped": "green", " not stopped": "red"}
    elif hasattr(answer.data, "server"):
        servers = [answer.data.server]
    return {str(server.state.value): COLOURS.get(server.state, "dim") for server in servers}


class _Page:
    """Draws for a stream without touching it: of a failing write Rich makes a traceback."""

    def __init__(self, stream: Any) -> None:
        self._paper = io.StringIO()
        self.console = _console(self._paper, terminal=_console(stream).is_terminal)

    def drawn(self, thing: RenderableType) -> str:
        """Return ``thing`` as the stream shows it."""
        self.console.print(thing)
        return self._paper.getvalue()

    def lines(self, text: str, styles: dict[str, str]) -> str:
        """Return the lines of ``text`` with the first of the words of ``styles`` in each drawn so."""
        for line in text.splitlines():
            shown = Text(line)
            for word, style in styles.items():
                at = line.find(word)
                if at >= 0:
                    shown.stylize(style, at, at + len(word))
                    break
            # A long path or url stays one line: the terminal folds it, and it can still be copied.
            self.console.print(shown, soft_wrap=True)
        return self._paper.getvalue()


def _console(stream: Any, *, terminal: bool | None = None) -> Console:
    return Console(file=stream, force_terminal=terminal, highlight=False, markup=False, emoji=False)


class _Waiting:
    """The spinner of one call; appears once the call has taken some time."""

    def __init__(self, text: str) -> None:
        self._began = time.monotonic()
        self._text = text
        self._log: str | None = None
        self._lines: list[str] = []
        self._live = Live(
            console=_console(sys.stderr), get_renderable=self._drawn, transient=True, refresh_per_second=10
        )
        self._timer = threading.Timer(_PATIENCE, self._live.start)

    def __enter__(self) -> _Waiting:
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        self._live.stop()

    def tell(self, progress: Progress) -> None:
        """Show what is being waited for, and the last line of the log; drawn at the next turn."""
        self._text, self._log, self._lines = progress.text, progress.log, progress.lines

    def _drawn(self) -> Table:
        seconds = int(time.monotonic() - self._began)
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=1)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_row(_SPINNER, Text(f"{plain.clean(masking.text(self._text))} ({seconds} s)"))
        for line in self._lines:
            grid.add_row("", Text(plain.clean(masking.text(line))))
        line = logs.last_line(self._log, 200) if self._log is not None else ""
        if line:
            grid.add_row("", Text(plain.clean(masking.text(line)), style="dim"))
        return grid


_SPINNER = Spinner("dots", style="cyan")
