"""Where nothing was ever started, many readers ask at once, and hold nobody up."""

from __future__ import annotations

import time
from threading import Event, Thread
from typing import TYPE_CHECKING

from devsup.models import Row
from devsup.paths import Home
from devsup.registry import Registry
from devsup.registry.locking import PATIENCE
from devsup.registry.pools import Pool
from tests.support import wait_until

if TYPE_CHECKING:
    from pathlib import Path

#: Something to write: a pool of one number.
POOL = Pool("ports", "net", 10000, 1)


def test_who_looks_for_the_living_keeps_nobody_from_making_the_registry(home: Path) -> None:
    """In a fresh home a hundred starts took turns at this look, and the one that had to write never came."""
    looks, go_on = Event(), Event()

    def look() -> list[Row]:
        looks.set()
        assert go_on.wait(4 * PATIENCE)
        return []

    place = Home(str(home))
    reader = Thread(target=Registry(place, rebuild=look).rows)
    reader.start()
    try:
        assert looks.wait(PATIENCE)
        began = time.monotonic()
        Registry(place, rebuild=list).acquire(POOL, "web /p", "a1", until=None)
        assert time.monotonic() - began < PATIENCE
    finally:
        go_on.set()
        reader.join()
    assert Registry(place, rebuild=list).assigned("ports", "web /p") == 10000


def test_who_asks_again_and_again_looks_once(home: Path) -> None:
    """Each look reads the environment of every process; callers that wait for another ask every 20 ms."""
    looks = []

    def look() -> list[Row]:
        looks.append(time.monotonic())
        return []

    place = Home(str(home))
    registry = Registry(place, rebuild=look)
    for _ in range(5):
        assert registry.rows() == []
    assert looks[1:] == [] or looks[-1] - looks[0] > 1
    # As soon as there is something it is seen.
    Registry(place, rebuild=list).acquire(POOL, "web /p", "a1", until=None)
    assert registry.assigned("ports", "web /p") == 10000
    # And not for ever: somebody may have lost a registry that this caller has never seen.
    other = Registry(Home(str(home / "other")), rebuild=look)
    (home / "other").mkdir(mode=0o700)
    before = len(looks)
    wait_until(lambda: other.rows() or len(looks) >= before + 2)
