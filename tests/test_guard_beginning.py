"""A guard's first moments: its server runs before the guard is loaded whole, and is ready only after that."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from devsup import identity
from devsup.models import State
from tests.guarding import Host
from tests.support import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Leftovers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes")

#: A guard that writes down which modules it has, when it first says something, and at its end.
TELLING = """
import atexit
from devsup.guard import talk
say = talk.Caller.say
def note(step):
    path = FOLDER + "/modules-" + step
    if os.path.exists(path):
        return
    with open(path, "w") as file:
        print(*sys.modules, file=file)
def told(self, step):
    note(step)
    say(self, step)
talk.Caller.say = told
atexit.register(note, "end")
"""


@pytest.fixture
def host(leftovers: Leftovers, temporary: Path) -> Host:
    """Give a state folder whose guards are in no fleet."""
    return Host("elm", temporary, "redis://nowhere", leftovers)


def modules(host: Host, step: str) -> set[str]:
    """Return what a `TELLING` guard had loaded at ``step``."""
    return set((host.folder / f"modules-{step}").read_text().split())


def test_a_server_runs_before_its_guard_is_loaded_whole(host: Host) -> None:
    """What is known of readiness, ends and restarts is loaded while it comes up, and no later than that."""
    server = host.start(code=TELLING, member=False)
    wait_until(lambda: server.row.ready_at is not None, 30)
    server.stop()
    wait_until(host.nobody_is_left)
    launched, ready, end = (modules(host, step) for step in ("l", "r", "end"))
    assert {"devsup.guard.loop", "devsup.readiness", "devsup.shutdown", "re", "json"}.isdisjoint(launched)
    assert {"devsup.guard.loop", "devsup.readiness", "devsup.shutdown", "devsup.registry.recovery"} <= ready
    assert end <= ready, "it could be gone by then"


def test_a_server_outlives_a_guard_whose_package_has_gone_at_the_beginning(host: Host) -> None:
    """Its row names it, so the next guard has it."""
    server = host.start(code="sys.modules['devsup.guard.loop'] = None", member=False)
    first = server.row.guard
    assert first is not None
    wait_until(lambda: identity.is_gone(first))
    leader = server.row.leader
    assert leader is not None
    assert not identity.is_gone(leader)
    assert (server.row.state, "ModuleNotFoundError" in host.log()) == (State.STARTING, True)
    with server.spawn() as hearing:
        assert hearing.wait("r", time.monotonic() + 30)
    assert server.row.leader == leader
    assert server.row.guard != first
    server.stop()
    wait_until(host.nobody_is_left)
