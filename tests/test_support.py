"""Do the helpers of the tests keep their promises?"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import (
    Leftovers,
    RealApp,
    Spawn,
    StandIn,
    fetch,
    free_port,
    hear,
    is_listening,
    processes_of,
    say,
    wait_until,
)

if TYPE_CHECKING:
    from pathlib import Path

ECHO = "import sys; print('ready', flush=True); print(sys.stdin.readline(), end='', flush=True)"
DETACH = """
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        sys.stdin.close()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in 0, 1, 2:
            os.dup2(null, stream)
        import time
        time.sleep(600)
    os._exit(0)
os.wait()
"""


def test_a_spawned_process_hears_and_answers(spawn: Spawn) -> None:
    child = spawn(ECHO)
    assert hear(child) == "ready\n"
    say(child, "hello\n")
    assert hear(child) == "hello\n"


def test_a_process_that_left_its_session_is_found_and_ended(
    home: Path, spawn: Spawn, leftovers: Leftovers
) -> None:
    """The environment is the one thing a double-forked daemon keeps, so it decides who belongs to a test."""
    assert spawn(DETACH).wait(10) == 0
    (found,) = wait_until(lambda: processes_of(home))
    leftovers.expected = True
    assert leftovers.finish() == [found]
    assert processes_of(home) == []


def test_a_stranger_is_left_alone(home: Path, leftovers: Leftovers) -> None:
    """A process of another home is not of this test, whatever it runs."""
    stranger = {name: value for name, value in os.environ.items() if name != "DEVSUP_HOME"}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=stranger) as child:
        assert processes_of(home) == []
        leftovers.finish()
        assert child.poll() is None
        child.kill()


def test_ports_are_given_out_once(spawn: Spawn) -> None:
    """Two test processes that ask at once never get the same port."""
    child = spawn(
        "from tests.support import *; print(*[free_port() for _ in range(200)], flush=True); input()"
    )
    theirs = {int(word) for word in hear(child).split()}
    ours = {free_port() for _ in range(200)}
    assert len(theirs) == len(ours) == 200
    assert not theirs & ours


def test_waiting_ends_with_a_failure_that_shows_the_last_value() -> None:
    with pytest.raises(AssertionError, match="still 0 after"):
        wait_until(lambda: 0, 0.05)


@pytest.mark.real
def test_a_copied_next_runs_on_its_linked_packages(
    real_app: RealApp, stand_in: StandIn, temporary: Path
) -> None:
    """Turbopack refuses packages outside its root; a copy that does not run would fail every test on it."""
    folder, port = real_app("web"), free_port()
    argv = [str(folder / "node_modules/.bin/next"), "dev", "-H", "127.0.0.1", "-p", str(port)]
    stand_in("chain", "--", *argv, cwd=folder)
    answer = wait_until(lambda: is_listening(port) and fetch(f"http://127.0.0.1:{port}/", timeout=40), 30)
    log = (temporary / "chain.log").read_text()
    assert answer, log
    assert answer[0] == 200, log
    assert "Hello from devsup" in answer[1]
