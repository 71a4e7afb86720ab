"""
A view of the servers that stays: drawn anew every so often and at each key, until `q`.

The board is data and drawing only; `run` owns the terminal and gives it back as it was, however it ends. Keys
are read and the screen is drawn in the main thread; a stop or restart runs in a thread of its own.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from devsup import logs, masking
from devsup.cli import plain
from devsup.cli.colours import COLOURS
from devsup.errors import DevsupError
from devsup.supervisor.usage import Meter

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from devsup.models import Server
    from devsup.supervisor import Supervisor
    from devsup.supervisor.usage import Usage

__all__ = ["Board", "run"]

#: Narrower than this there is no room for pids and log lines.
_NARROW = 70
#: Lines that are not servers: the title, the heading, what happened, the keys.
_FRAME = 4
_KEYS = "↑↓ select  s stop  r restart  l log  q quit"


class Board:
    """What is shown: the servers, which one is selected, what a key has done."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.rows: list[Usage] = []
        self.said = ""
        self.reads_log = False
        self._selected: str | None = None

    @property
    def selected(self) -> Usage | None:
        """Return the selected server; it stays so while others come and go."""
        return next((row for row in self.rows if row.server.id == self._selected), None) or next(
            iter(self.rows), None
        )

    def take(self, rows: list[Usage]) -> None:
        """Show these from now on."""
        self.rows = rows
        chosen = self.selected
        self._selected = chosen.server.id if chosen else None
        self.reads_log = self.reads_log and chosen is not None

    def move(self, step: int) -> None:
        """Select the next server, or the one before."""
        chosen = self.selected
        if chosen is not None:
            at = max(0, min(len(self.rows) - 1, self.rows.index(chosen) + step))
            self._selected = self.rows[at].server.id

    def draw(self, width: int, height: int, now: float | None = None) -> RenderableType:
        """Return a picture of exactly ``height`` lines."""
        now = time.time() if now is None else now
        chosen = self.selected
        parts: list[RenderableType]
        if self.reads_log and chosen is not None:
            name = chosen.server.app or chosen.server.session
            parts = [_line(f"log of {name}", style="bold"), *self._log(chosen.server, height - 2)]
            return Group(*parts, _line("l back  q quit", style="dim"))
        room = max(1, height - _FRAME)
        parts = [self._title()] if height > 3 else []
        parts.append(self._table(width, room, now) if self.rows else _line("No servers here: devsup start"))
        used = len(parts) - 1 + (1 + min(room, len(self.rows)) if self.rows else 1)
        parts += [Text("")] * max(0, height - used - 2)
        if height > 4:
            parts.append(_line(self.said, style="yellow"))
        if height > 2:
            parts.append(_line(_KEYS, style="dim"))
        return Group(*parts)

    def _title(self) -> Text:
        cpu = sum(row.cpu or 0.0 for row in self.rows)
        memory = sum(row.memory or 0 for row in self.rows)
        what = "server" if len(self.rows) == 1 else "servers"
        return _line(f"{self.place}: {len(self.rows)} {what}, {cpu:.0f}% CPU, {_size(memory)}", style="bold")

    def _table(self, width: int, room: int, now: float) -> Table:
        wide = width >= _NARROW
        grid = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        grid.add_column("APP", no_wrap=True, overflow="ellipsis", max_width=max(8, width // 5))
        grid.add_column("STATE", no_wrap=True, overflow="ellipsis", max_width=16)
        for name in ("PID", "PORT", "CPU", "MEM", "UP") if wide else ("PORT", "CPU", "MEM"):
            grid.add_column(name, justify="right", no_wrap=True)
        if wide:
            grid.add_column("LAST LINE", no_wrap=True, overflow="ellipsis", ratio=1)
        chosen = self.selected
        at = self.rows.index(chosen) if chosen is not None else 0
        first = max(0, min(at - room // 2, len(self.rows) - room))
        for row in self.rows[first : first + room]:
            server = row.server
            numbers = [
                plain.or_dash(server.port),
                "-" if row.cpu is None else f"{row.cpu:.0f}%",
                "-" if row.memory is None else _size(row.memory),
            ]
            if wide:
                numbers = [plain.or_dash(server.pid), *numbers, plain.uptime(server, now)]
            cells = [
                Text(_shown(server.app or server.session)),
                Text(plain.state_text(server), style=COLOURS.get(server.state, "dim")),
                *(Text(number) for number in numbers),
                *([Text(_shown(logs.last_line(server.log, width)), style="dim")] if wide else []),
            ]
            grid.add_row(*cells, style="reverse" if row is chosen else "")
        return grid

    def _log(self, server: Server, room: int) -> list[Text]:
        lines = logs.tail_text(server.log, lines=max(1, room), max_bytes=64_000).splitlines()[-room:]
        return [_line(_shown(line)) for line in lines] + [Text("")] * max(0, room - len(lines))


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _shown(text: str) -> str:
    return plain.clean(masking.text(text)).expandtabs(4)


def _size(number: float) -> str:
    for unit in ("B", "K", "M"):
        if number < 1000:
            return f"{number:.0f}{unit}"
        number /= 1024
    return f"{number:.1f}G"


# -- the terminal --------------------------------------------------------------------------------------


def run(supervisor: Supervisor, *, everywhere: bool, every: float) -> None:
    """Show the board on the terminal until `q` or Ctrl-C; looks ``every`` so many seconds."""
    board = Board("all projects" if everywhere else os.path.basename(supervisor.project) or "/")
    meter = Meter(supervisor, everywhere=everywhere)
    deeds = _Deeds(supervisor.cwd, board)
    console = Console(highlight=False, markup=False, emoji=False)
    with (
        _Keyboard(sys.stdin.fileno()) as keyboard,
        Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live,
    ):
        due = 0.0
        while True:
            if time.monotonic() >= due or deeds.fresh():
                board.take(meter.look())
                due = time.monotonic() + every
            live.update(board.draw(*console.size), refresh=True)
            for key in keyboard.wait(max(0.0, due - time.monotonic()), deeds.bell):
                if key == "q":
                    return
                deeds.press(key)


class _Deeds:
    """What the keys do."""

    def __init__(self, folder: str, board: Board) -> None:
        self._folder = folder
        self._board = board
        self._fresh = threading.Event()
        self.bell, self._rope = os.pipe()

    def fresh(self) -> bool:
        """Tell whether something has been done since the last time."""
        was = self._fresh.is_set()
        self._fresh.clear()
        return was

    def press(self, key: str) -> None:
        board = self._board
        if key in ("up", "k"):
            board.move(-1)
        elif key in ("down", "j"):
            board.move(1)
        elif key in ("l", "escape"):
            board.reads_log = key == "l" and not board.reads_log and board.selected is not None
        elif key in ("s", "r") and board.selected is not None:
            server = board.selected.server
            name = server.app or server.session
            board.said = f"{'stopping' if key == 's' else 'restarting'} {name} ..."
            work = self._stop if key == "s" else self._restart
            threading.Thread(target=self._do, args=(work, server), daemon=True).start()

    def _do(self, work: Callable[[Supervisor, str], str], server: Server) -> None:
        from devsup.supervisor import Supervisor

        try:
            self._board.said = _shown(work(Supervisor(self._folder), server.id))
        except DevsupError as error:
            self._board.said = _shown(error.message)
        except Exception as error:
            self._board.said = _shown(f"{type(error).__name__}: {error}")  # a thread has nobody else to tell
        self._fresh.set()
        os.write(self._rope, b"!")

    @staticmethod
    def _stop(supervisor: Supervisor, target: str) -> str:
        result = supervisor.stop([target], everywhere=True).results[0]
        return result.message if result.error and result.message else plain.stop_line(result)

    @staticmethod
    def _restart(supervisor: Supervisor, target: str) -> str:
        return plain.server_line(supervisor.restart(target))


#: What a terminal sends; the longer ones first.
_NAMES = {"\x1b[A": "up", "\x1bOA": "up", "\x1b[B": "down", "\x1bOB": "down", "\x1b": "escape"}


class _Keyboard:
    """The terminal's keys, one by one, unechoed; as it was afterwards."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] = []
        self._resized, self._signalled = os.pipe()
        self._handler: Any = None

    def __enter__(self) -> _Keyboard:
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        now = termios.tcgetattr(self._fd)
        now[6][termios.VSUSP] = b"\0"  # a stopped view would leave its screen to the shell
        termios.tcsetattr(self._fd, termios.TCSANOW, now)
        os.set_blocking(self._signalled, False)
        self._handler = signal.signal(signal.SIGWINCH, self._resize)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGWINCH, self._handler)
        try:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        except termios.error:
            pass  # the terminal has gone

    def _resize(self, _number: int, _frame: object) -> None:
        try:
            os.write(self._signalled, b"!")
        except BlockingIOError:
            pass  # it is to be drawn anew already

    def wait(self, seconds: float, bell: int) -> list[str]:
        """
        Return the keys that come within ``seconds``; none where the size changes or the bell rings.

        :raises KeyboardInterrupt: the terminal has gone
        """
        ready, _, _ = select.select([self._fd, self._resized, bell], [], [], seconds)
        for other in (self._resized, bell):
            if other in ready:
                os.read(other, 4096)
        if self._fd not in ready:
            return []
        try:
            typed = os.read(self._fd, 1024).decode(errors="replace")
        except OSError:
            typed = ""
        if not typed:
            raise KeyboardInterrupt
        keys = []
        while typed:
            name = next((one for one in _NAMES if typed.startswith(one)), typed[0])
            keys.append(_NAMES.get(name, name))
            typed = typed[len(name) :]
        return keys
