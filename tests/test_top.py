"""The live view: on a real pseudo-terminal, read back as the screen that a person sees."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Any

import pyte
import pytest
from rich.console import Console

from devsup.cli.live import Board
from devsup.models import State
from devsup.supervisor import Supervisor
from devsup.supervisor.usage import Meter, Usage
from tests.cli_support import make_server
from tests.support import devsup_argv, free_port, server_argv, wait_until, with_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support import Devsup


#: Takes the terminal as its own, as a shell does, so that Ctrl-C and a change of its size come to it.
AT_HOME = """\
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])"""


class Screen:
    """`devsup top` at a terminal of a size, and what stands on it."""

    def __init__(self, cwd: Path, *words: object, width: int = 80, height: int = 24) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(width, height)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [sys.executable, "-c", AT_HOME, *devsup_argv("top", *words)],
            cwd=cwd,
            env=with_changes({"TERM": "xterm-256color"}),
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
        )
        self.screen = pyte.Screen(width, height)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""

    def resize(self, width: int, height: int) -> None:
        """Change the size of the terminal's window."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        if hasattr(self, "screen"):
            self.screen.resize(height, width)

    def read(self, seconds: float = 0.05) -> None:
        """Take in what has been drawn."""
        while select.select([self.master], [], [], seconds)[0]:
            try:
                chunk = os.read(self.master, 65536)
            except OSError:
                return  # how a pseudo-terminal says that nobody has it open any more
            self.raw += chunk
            self.stream.feed(chunk)

    @property
    def lines(self) -> list[str]:
        """What stands on the screen now."""
        self.read()
        return [line.rstrip() for line in self.screen.display]

    def shows(self, text: str, timeout: float = 30) -> list[str]:
        """Wait until ``text`` stands on the screen; return its lines."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            lines = self.lines
            if any(text in line for line in lines):
                return lines
        raise AssertionError(f"no {text!r} on the screen:\n" + "\n".join(self.lines))

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.master, keys.encode())

    def ends(self) -> int:
        """Wait for its end, and check that the terminal is as it was."""

        def ended() -> bool:
            self.read()
            return self.process.poll() is not None

        wait_until(ended, 20)
        assert termios.tcgetattr(self.slave) == self.before
        assert self.raw.rfind(b"\x1b[?1049l") > self.raw.rfind(b"\x1b[?1049h")
        assert self.raw.rfind(b"\x1b[?25h") > self.raw.rfind(b"\x1b[?25l")
        return self.process.wait()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def top(home: Path, project: Path) -> Iterator[Callable[..., Screen]]:
    """Run `devsup top` in the project."""
    assert home.is_dir()
    opened: list[Screen] = []

    def run(*words: object, **size: int) -> Screen:
        opened.append(Screen(project, *words, **size))
        return opened[-1]

    yield run
    for one in opened:
        one.close()


def test_it_shows_selects_and_stops(top: Callable[..., Screen], devsup: Devsup) -> None:
    for name in ("api", "web"):
        port = free_port()
        devsup("start", name, "--", *server_argv("web", "--port", port, "--lines", 3))
    screen = top("--interval", 0.5, width=120, height=20)
    lines = screen.shows("Local:")
    assert lines[0].startswith("project: 2 servers")
    assert lines[1].split() == ["APP", "STATE", "PID", "PORT", "CPU", "MEM", "UP", "LAST", "LINE"]
    assert len(lines) == 20
    assert "q quit" in lines[-1]
    assert re.search(
        r"ready +\d+ +\d+ +(-|\d+%) +\d+(\.\d)?[MG] ", next(one for one in lines if "api" in one)
    )
    screen.type("jl")
    chosen = "web" if lines[2].startswith("api") else "api"
    assert "line 1" in "\n".join(screen.shows(f"log of {chosen}"))
    screen.type("l")
    screen.shows("2 servers")
    screen.type("s")
    screen.shows(f"dev_server_{chosen} stopped in")
    screen.shows("1 server,")
    left = devsup("list", "--json").data["servers"]
    assert [one["app"] for one in left] == [{"api", "web"}.difference({chosen}).pop()]
    screen.type("\x1b[Ar")
    screen.shows("ready http://")
    assert devsup("list", "--json").data["servers"][0]["generation"] > left[0]["generation"]
    screen.resize(60, 8)
    narrow = screen.shows("APP")
    wait_until(lambda: screen.lines[0].startswith("project: 1 server") and len(screen.lines) == 8, 20)
    assert all(len(line) <= 60 for line in narrow)
    screen.type("q")
    assert screen.ends() == 0
    assert devsup("stop", "--all").code == 0


@pytest.mark.parametrize(("end", "code"), [("key", 0), ("SIGINT", 0), ("SIGTERM", 143)])
def test_the_terminal_is_given_back(top: Callable[..., Screen], end: str, code: int) -> None:
    screen = top()
    screen.shows("No servers here")
    assert not termios.tcgetattr(screen.slave)[3] & termios.ECHO
    if end == "key":
        screen.type("\x03")
    else:
        screen.process.send_signal(getattr(signal, end))
    assert screen.ends() == code


def test_without_a_terminal_it_says_what_to_use(devsup: Devsup) -> None:
    answer = devsup("top", "--json")
    assert (answer.code, answer.error["code"], answer.error["hint"]) == (2, "usage", "devsup list")
    assert devsup("top").code == 2


# -- the picture ---------------------------------------------------------------------------------------


def picture(board: Board, width: int, height: int) -> list[str]:
    """Return the lines that a screen of this size shows."""
    paper = io.StringIO()
    console = Console(file=paper, width=width, height=height, highlight=False, markup=False, emoji=False)
    console.print(board.draw(width, height, now=1.8e9), end="")
    return paper.getvalue().splitlines()


def boarded(number: int, **changes: Any) -> Board:
    """Return a board with so many servers."""
    board = Board("shop")
    board.take(
        [
            Usage(make_server(id=f"{at:012x}", app=f"app{at}", log="/nowhere", **changes), 12.3, 5 << 20, 3)
            for at in range(number)
        ]
    )
    return board


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("height", [3, 5, 8, 24])
@pytest.mark.parametrize("number", [0, 1, 3, 50])
def test_a_picture_fits(width: int, height: int, number: int) -> None:
    board = boarded(number)
    for _ in range(max(0, number - 1)):
        board.move(1)
    for reads_log in (False, True):
        board.reads_log = reads_log
        lines = picture(board, width, height)
        assert len(lines) <= height
        assert all(len(line) <= width for line in lines)
    board.reads_log = False
    if number:
        assert any(line.startswith(f"app{number - 1} ") for line in picture(board, width, height))


def test_hostile_names_and_states_are_shown_as_data() -> None:
    board = boarded(1, session="[red]x\x1b[2J", state=State.CRASHED, exit_code=1)
    board.take([row.replace(server=row.server.replace(app=None)) for row in board.rows])
    text = "\n".join(picture(board, 120, 10))
    assert "[red]x\\x1b[2J" in text
    assert "crashed (exit 1)" in text


def test_the_selection_stays_with_its_server() -> None:
    board = boarded(3)
    board.move(1)
    rows = board.rows
    board.take(rows[1:])
    assert board.selected == rows[1]
    board.take(rows[:1])
    assert board.selected == rows[0]
    board.move(-5)
    board.take([])
    board.move(1)
    assert board.selected is None


def test_the_meter_counts_the_whole_tree(devsup: Devsup, home: Path, project: Path) -> None:
    burn = "import os, time\nos.fork()\nwhile True: sum(range(1000))"
    devsup("start", "burn", "--no-wait", "--", "sh", "-c", f'python3 -c "{burn}"; true')
    meter = Meter(Supervisor(str(project), str(home)))
    wait_until(lambda: [row.processes for row in meter.look()] == [3], 20)
    seen: list[Usage] = []

    def burns() -> bool:
        seen[:] = meter.look()
        return (seen[0].cpu or 0) > 20

    wait_until(burns, 20)
    assert (seen[0].memory or 0) > 5 << 20
    assert devsup("stop", "burn").code == 0
    assert meter.look() == []
