"""What a person at a terminal sees: a real pseudo-terminal, a real server."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import free_port, server_argv, wait_until, with_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.support import Devsup

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A devsup command at a terminal of 80 columns; ``split`` keeps stdout as a pipe."""

    def __init__(self, argv: list[object], cwd: Path, env: Mapping[str, str | None], *, split: bool) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "devsup", *map(str, argv)],
            cwd=cwd,
            env=with_changes({"TERM": "xterm-256color", **env}),
            stdin=slave,
            stdout=subprocess.PIPE if split else slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.raw = b""

    def read(self, until: str | None = None) -> str:
        """Read to the end, or until the text has come; return everything so far."""
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline and (until is None or until not in self.text):
            try:
                chunk = os.read(self.master, 4096)
            except OSError:
                break  # how a pseudo-terminal says that nobody has it open any more
            if not chunk:
                break
            self.raw += chunk
        return self.text

    @property
    def text(self) -> str:
        """Everything so far, without colours and cursor movements."""
        return ESCAPE.sub("", self.raw.decode()).replace("\r\n", "\n")

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()
        os.close(self.master)


@pytest.fixture
def terminal(home: Path, project: Path) -> Iterator[Callable[..., Terminal]]:
    """Run commands at a terminal."""
    assert home.is_dir()
    opened: list[Terminal] = []

    def run(*argv: object, split: bool = False, env: Mapping[str, str | None] | None = None) -> Terminal:
        opened.append(Terminal(list(argv), project, env or {}, split=split))
        return opened[-1]

    yield run
    for one in opened:
        one.close()


def test_a_start_shows_what_it_waits_for_and_the_last_line_of_the_log(
    terminal: Callable[..., Terminal], devsup: Devsup
) -> None:
    command = ("--port", free_port(), "--", *server_argv("web", "--lines", 3, "--delay", 1.5))
    start = terminal("start", "web", *command)
    seen = start.read()
    assert start.process.wait(30) == 0
    assert "line 2" in seen  # from the log, while it waited
    assert seen.rstrip().splitlines()[-1].startswith("dev_server_web ready http://")
    assert b"\x1b[32mready" in start.raw
    again = terminal("start", "web", *command)
    text = again.read()
    # On a busy machine even this one takes its time, and the spinner comes before it.
    assert re.search(r"dev_server_web ready http://\S+ pid \d+ \(reused\)\n$", text)
    table = terminal("list").read()
    lines = [line.rstrip() for line in table.splitlines()]
    assert lines[0].split() == ["APP", "STATE", "PID", "URL", "UPTIME"]
    assert lines[1].split()[:2] == ["web", "ready"]
    assert devsup("stop", "web").code == 0


def test_an_up_shows_what_each_app_does(
    terminal: Callable[..., Terminal], devsup: Devsup, project: Path
) -> None:
    apps = {"quick": [], "slow": ["--delay", 2], "last": []}
    (project / "devsup.toml").write_text(
        "".join(
            f"apps.{name}.command = {json.dumps(server_argv('web', '--port', free_port(), *words))}\n"
            for name, words in apps.items()
        )
        + 'apps.last.depends_on = ["slow"]\n'
    )
    up = terminal("up")
    seen = up.read()
    assert up.process.wait(40) == 0
    assert re.search(r"quick: started http://\S+", seen)
    assert re.search(r"slow: waiting for `dev_server_slow` \(\d+ s\)", seen)
    assert "last: waits on slow" in seen
    assert "of 3 done" in seen
    lines = [line.split()[:2] for line in seen.rstrip().splitlines()[-3:]]
    assert lines == [["quick", "started"], ["slow", "started"], ["last", "started"]]
    assert devsup("down").code == 0


def test_a_pipe_gets_the_data_and_the_terminal_the_spinner(
    terminal: Callable[..., Terminal], devsup: Devsup
) -> None:
    """`url=$(devsup start ... | ...)`: a person still sees that something goes on."""
    command = ("--port", free_port(), "--", *server_argv("web", "--delay", 1.2))
    start = terminal("start", "web", *command, split=True)
    seen = start.read()
    assert start.process.stdout is not None
    out = start.process.stdout.read().decode()
    assert re.fullmatch(r"dev_server_web ready http://\S+ pid \d+\n", out)
    assert "web" in seen
    assert "dev_server_web ready http" not in seen
    quiet = terminal("restart", "web", "--json", split=True)
    assert quiet.read() == ""
    assert quiet.process.wait(30) == 0
    assert devsup("stop", "web").code == 0


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "TERM=dumb"])
def test_colour_can_be_switched_off(
    env: dict[str, str], terminal: Callable[..., Terminal], devsup: Devsup
) -> None:
    command = ("--port", free_port(), "--", *server_argv("web"))
    for argv in (("start", "web", *command), ("list",), ("stop", "nope"), ("--help",), ("stop", "web")):
        shown = terminal(*argv, env=env)
        shown.read()
        assert not re.search(rb"\x1b\[[0-9;]*3[0-7]", shown.raw), (argv, shown.raw)
    assert devsup("list", "--json").data["servers"] == []


def test_an_empty_list_says_how_to_begin(terminal: Callable[..., Terminal]) -> None:
    assert terminal("list").read() == "No servers here. Start one: devsup start\n"


def test_where_there_is_nothing_a_person_is_told_so(terminal: Callable[..., Terminal]) -> None:
    """A script sees an empty answer; a person would wonder whether anything has happened."""
    for words, text in (
        (["down"], "Nothing to stop."),
        (["stop", "--all"], "Nothing to stop."),
        (["prune"], "Nothing is left behind."),
        (["ports"], "Nobody listens on a port of this project."),
    ):
        assert text in terminal(*words).read().splitlines()


def test_ctrl_c_at_the_terminal_says_what_became_of_the_server(
    terminal: Callable[..., Terminal], devsup: Devsup
) -> None:
    start = terminal("start", "web", "--port", free_port(), "--", *server_argv("web", "--delay", 60))
    wait_until(lambda: [one for one in devsup("list", "--json").data["servers"] if one["pid"]], 20)
    start.process.send_signal(signal.SIGINT)
    text = start.read()
    assert start.process.wait(20) == 130
    assert "error: " in text
    assert "hint: devsup " in text
    assert "Traceback" not in text
    assert b"\x1b[?25h" in start.raw or b"\x1b[?25l" not in start.raw  # the cursor is back
    assert devsup("stop", "web").code == 0


def test_help_at_a_terminal_fits_it(terminal: Callable[..., Terminal]) -> None:
    for argv in (("--help",), ("start", "-h"), ("logs", "-h")):
        text = terminal(*argv).read()
        assert "Usage: devsup" in text
        assert max(map(len, text.splitlines())) <= 80
        assert "list[str]" not in text
        assert "<bool>" not in text
