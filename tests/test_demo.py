"""The tour is the first thing anybody sees of devsup: it must work, and leave nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import Leftovers, RealApp, fetch, free_port, is_listening, wait_until, with_changes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def scratch(leftovers: Leftovers, temporary: Path) -> Path:
    """Give the folder in which the tour makes its home, and have it watched."""
    folder = temporary / "tmp"
    folder.mkdir()
    leftovers.watch(folder)
    return folder


def tour(*args: object, scratch: Path) -> list[str]:
    """Make the tour and return the commands it showed."""
    argv = [sys.executable, "-m", "devsup.demo", *map(str, args)]
    environment = with_changes({"TMPDIR": str(scratch), "DEVSUP_OUTPUT": "json"})
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=55, check=False, cwd=scratch
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing is left" in done.stdout
    assert "(reused)" in done.stdout
    assert list(scratch.iterdir()) == []
    return [line[2:] for line in done.stdout.splitlines() if line.startswith("$ ")]


VERBS = ["start", "start", "list", "url", "logs", "stop", "list"]


def test_the_tour_on_the_small_server(scratch: Path) -> None:
    port = free_port()
    commands = tour("--port", port, scratch=scratch)
    assert [words.split()[1] for words in commands if words.startswith("devsup")] == VERBS
    assert f"curl http://127.0.0.1:{port}/api/health" in commands
    assert not is_listening(port)


@pytest.mark.real
def test_the_tour_on_a_real_app(scratch: Path, real_app: RealApp) -> None:
    port = free_port()
    commands = tour(real_app("web"), "--port", port, scratch=scratch)
    assert commands[0] == f"devsup start web --port {port}"
    assert not is_listening(port)


def test_a_missing_app_is_said_and_does_not_matter(scratch: Path, temporary: Path) -> None:
    commands = tour(temporary, "--port", free_port(), scratch=scratch)
    assert "devsup.demo.server" in commands[0]


@pytest.fixture
def interrupted(scratch: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a tour that has been interrupted once its server answered."""
    port = free_port()
    argv = [sys.executable, "-u", "-m", "devsup.demo", "--port", str(port)]
    environment = with_changes({"TMPDIR": str(scratch)})
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=environment, stdout=pipe, stderr=pipe, text=True) as child:
        wait_until(lambda: is_listening(port), 20)
        child.send_signal(signal.SIGINT)
        yield child
        child.kill()
    assert not is_listening(port)


def test_an_interrupted_tour_stops_what_it_started(interrupted: subprocess.Popen[str]) -> None:
    _, talk = interrupted.communicate(timeout=40)
    assert interrupted.returncode == 130
    assert "interrupted" in talk


def test_the_small_server_answers_and_obeys(small_server: tuple[subprocess.Popen[str], int]) -> None:
    server, port = small_server
    status, body = fetch(f"http://127.0.0.1:{port}/anything")
    assert (status, body) == (200, f'{{"ok": true, "pid": {server.pid}}}')
    server.terminate()
    assert server.wait(10) == 0


@pytest.fixture
def small_server() -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    argv = [sys.executable, "-m", "devsup.demo.server"]
    pipe = subprocess.PIPE
    environment = with_changes({"PORT": str(port)})
    with subprocess.Popen(argv, env=environment, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == f"- Local:  http://127.0.0.1:{port}\n"
        yield child, port
        child.kill()


def test_the_small_server_says_that_its_port_is_taken(
    small_server: tuple[subprocess.Popen[str], int],
) -> None:
    _, port = small_server
    done = subprocess.run(
        [sys.executable, "-m", "devsup.demo.server"],
        env=with_changes({"PORT": str(port)}),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
