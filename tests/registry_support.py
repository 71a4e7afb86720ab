"""Processes that race over a registry, and small filesystems to put one on."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from devsup.paths import Home
from devsup.registry import Registry
from tests.support import ROOT, hear, say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import Spawn

__all__ = ["PRELUDE", "mounted", "open_registry", "race"]

#: What every child starts with: `registry` is the one of the home in its first argument; `pause` tells the
#: parent where it stands and waits for a line.
PRELUDE = """
import os, sys
from devsup import identity
from devsup.models import Identity, State
from devsup.paths import Home
from devsup.registry import FolderBusy, PortLeased, Registry, SessionBusy, frozen
from tests.registry_child import log_of, make_claim, make_row, reserve, stranger

registry = Registry(Home(sys.argv[1]))
me = identity.me()

def pause(word):
    print(word, flush=True)
    sys.stdin.readline()

"""


def open_registry(home: Path) -> Registry:
    """Return the registry of a state folder that holds nothing alive."""
    return Registry(Home(str(home)), rebuild=list)


def race(spawn: Spawn, count: int, code: str, home: Path, *args: object, gate: int = 0) -> list[str]:
    """
    Run `code` in `count` processes that begin at once; return what each printed after the starting gun.

    The code finds its number in `number`. With ``gate`` it calls `pause` that many times: nobody goes on from
    there before all have arrived.
    """
    opening = PRELUDE + "number = int(sys.argv[2])\npause('ready')\n"
    children = [spawn(opening + code, home, number, *args, cwd=ROOT) for number in range(count)]
    heard: list[str] = ["" for _ in children]
    for turn in range(gate + 1):
        for number, child in enumerate(children):
            word = hear(child)
            assert word, child.stderr and child.stderr.read()
            heard[number] += word if turn else ""
        for child in children:
            say(child)
    answers = []
    for number, child in enumerate(children):
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        answers.append((heard[number] + out).strip())
    return answers


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[Path]:
    """Mount a small filesystem in memory at `place`, for as long as the block lasts."""
    if os.geteuid() != 0:
        pytest.skip("mounting a filesystem needs root")
    place.mkdir(mode=0o700, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(("mode=700", *options)), "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no filesystem can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
