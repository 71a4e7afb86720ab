"""When a guard looks whether its server serves: at a pace, and sooner after some output."""

from __future__ import annotations

import os
import select
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from devsup.guard import launch, watch
from devsup.guard.job import Job
from devsup.guard.watch import Watch
from devsup.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a file that grows")

#: A server that has been starting for so long is looked at every two seconds.
LONG = 120.0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "web.log"
    path.touch()
    return path


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the moments at which it is looked; nobody listens."""
    seen: list[float] = []

    def listening() -> frozenset[int]:
        seen.append(time.monotonic())
        return frozenset()

    monkeypatch.setattr(launch, "listening", listening)
    return seen


@pytest.fixture
def patient(log: Path, looks: list[float]) -> Iterator[Watch]:
    """Give a watch that has just looked, and whose next look is two seconds away."""
    fields: dict[str, Any] = dict.fromkeys(Job._fields)
    job = Job(**fields | {"log": str(log), "probe": {}, "port": 3000})
    one = Watch(job, lambda: Tree("a1", None), adopt=False, strangers=frozenset())
    one._began = time.monotonic() - LONG
    assert one.advance(set()) is None
    assert len(looks) == 1
    yield one
    one.close()
    assert one.fds() == []


def told(one: Watch) -> set[int]:
    """Return which of its descriptors are ready by now."""
    poll = select.poll()
    for fd, events in one.fds():
        poll.register(fd, events)
    return {fd for fd, _ in poll.poll(0)}


def test_a_line_of_output_brings_the_next_look_forward(patient: Watch, log: Path, looks: list[float]) -> None:
    """Most servers say where they listen as soon as they do."""
    far = patient.due
    assert far is not None
    assert told(patient) == set()
    with log.open("a") as file:
        file.write("Local: http://localhost:3000\n")
    ready = told(patient)
    assert ready
    assert patient.advance(ready) is None
    began = patient._looked_at
    assert patient.due == pytest.approx(began + (far - began) * watch._HASTE)
    assert (patient.fds(), len(looks)) == ([], 1), "what prints all the time is not looked at all the time"
    patient.due = time.monotonic()
    patient.advance(set())
    assert len(looks) == 2
    assert (patient.fds() != [], told(patient)) == (True, set())


def test_one_that_need_not_listen_may_print_for_ever(patient: Watch, log: Path) -> None:
    patient.relax()
    patient.due = time.monotonic()
    patient.advance(set())
    assert patient.fds() == []
    with log.open("a") as file:
        file.write("compiled\n")
    assert patient.due is not None
    assert patient.due > time.monotonic()


def test_what_told_of_output_is_closed_once_nobody_waits_for_it(patient: Watch, log: Path) -> None:
    """To close it at once would keep the answer back for as long as the kernel takes to forget the log."""
    before = os.listdir("/dev/fd")
    patient.stop()
    assert patient.fds() == []
    assert os.listdir("/dev/fd") == before
    assert patient.advance(set()) is None
    assert len(os.listdir("/dev/fd")) == len(before) - 1
    log.write_text("more\n")
    assert patient.fds() == []
