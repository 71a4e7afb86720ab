"""Rows for the registry's tests, and the child processes that race over them."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from devsup import identity
from devsup.models import Identity, Row, StopClaim
from devsup.paths import Home
from devsup.registry import Registry
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import Spawn

__all__ = [
    "PRELUDE",
    "log_of",
    "make_claim",
    "make_row",
    "mounted",
    "open_registry",
    "race",
    "reserve",
    "stranger",
]

#: What every child starts with: `registry` is the one of the home in its first argument; `pause` tells the
#: parent where it stands and waits for a line.
PRELUDE = """
import os, sys
from devsup import identity
from devsup.models import Identity, State
from devsup.paths import Home
from devsup.registry import FolderBusy, PortLeased, Registry, SessionBusy, frozen
from tests.registry_rows import log_of, make_claim, make_row, reserve, stranger

registry = Registry(Home(sys.argv[1]))
me = identity.me()

def pause(word):
    print(word, flush=True)
    sys.stdin.readline()

"""


def make_row(server: str = "a1", session: str = "dev_server_web", project: str = "/p", **changes: Any) -> Row:
    """Return a row as a start would reserve it."""
    row = Row(
        id=server,
        generation=0,
        scope=identity.here().key,
        netns="net",
        project=project,
        session=session,
        app="web",
        kind="next",
        cwd=project,
        command=["next", "dev"],
        log="",
        owner=None,
        started_at=1_000,
        starter=identity.me(),
    )
    return row.replace(**changes)


def log_of(generation: int) -> str:
    """Return the log of a generation."""
    return f"/logs/{generation}.log"


def reserve(registry: Registry, row: Row, *, dead: list[Row] | None = None, port: int | None = None) -> Row:
    """Reserve with room for many."""
    return registry.reserve(row, dead=dead or [], limit=1_000, port=port, log_of=log_of)


def stranger(number: int) -> Identity:
    """Return an identity that is not of this process; nothing in the registry looks whether it lives."""
    return Identity(number, number * 10, "boot", 0)


def make_claim(by: Identity, purpose: str = "stop") -> StopClaim:
    """Return a claim to stop."""
    return StopClaim(by, 5_000, purpose, 5.0, sweep=False)


def open_registry(home: Path) -> Registry:
    """Return the registry of a state folder that holds nothing alive."""
    return Registry(Home(str(home)), rebuild=list)


def race(spawn: Spawn, count: int, code: str, home: Path, *args: object) -> list[str]:
    """
    Run `code` in `count` processes that begin at once; return what each printed after the starting gun.

    The code finds its number in `number`; it begins by waiting for the gun.
    """
    opening = PRELUDE + "number = int(sys.argv[2])\npause('ready')\n"
    children = [spawn(opening + code, home, number, *args, cwd=ROOT) for number in range(count)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n", child.stderr and child.stderr.read()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = []
    for child in children:
        out, err = child.communicate(timeout=50)
        assert child.returncode == 0, err
        answers.append(out.strip())
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
