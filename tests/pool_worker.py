"""
A caller of a pool that writes down what it believed, until it is ended.

``python -m tests.pool_worker JSON``, which says the pool (``items``, ``url`` or ``home``), where to write
(``log``), the ``seed``, how long a lease is (``ttl``) and whether to break the scripts (``without_compare``).
It holds items for moments, renews some, and now and then keeps one beyond its time and still tries to give it
back, as a program does that was asleep. A line is written with one system call, so that a killed process
leaves whole ones:

    got ITEM NUMBER START DEADLINE · kept NUMBER DEADLINE · left NUMBER END · done
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from typing import TYPE_CHECKING, Any

from devsup.errors import DevsupError, NotOwner, PoolExhausted
from devsup.pool import Pool, _scripts
from devsup.registry import lending
from tests.history import Held

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["COMPARE", "read", "without_compare"]

#: What keeps a lease from everybody but its holder.
COMPARE = "local mine = last == fencing and by == owner and ends > now"


def without_compare() -> None:
    """Have both stores take whoever comes for the holder."""

    def release(db: Any, name: str, life: str, item: str, *_: object) -> Any:
        lending.free(db, name, life, item)
        return ("freed",)

    vars(lending)["release"] = release
    for name in ("renew", "release"):
        text = _scripts.SCRIPTS[name]
        assert COMPARE in text
        _scripts.SCRIPTS[name] = text.replace(COMPARE, "local mine = true")


def read(log: Path, who: str) -> tuple[list[Held], int]:
    """Return what a worker believed, and how many calls it has made."""
    holds: dict[int, Held] = {}
    calls = 0
    for line in log.read_text().splitlines():
        word, *values = line.split()
        calls += 1
        if word == "got":
            number = int(values[1])
            holds[number] = Held(values[0], who, number, float(values[2]), float(values[3]))
        elif word in ("kept", "left"):
            number, end = int(values[0]), float(values[1])
            one = holds[number]
            holds[number] = one._replace(end=end if word == "kept" else min(end, one.end))
    return list(holds.values()), calls


def main(told: dict[str, Any]) -> None:
    """Acquire, renew and release until the process is ended."""
    if told["without_compare"]:
        without_compare()
    log = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(*words: object) -> None:
        os.write(log, (" ".join(map(str, words)) + "\n").encode())

    chance = random.Random(told["seed"])
    place = {name: told[name] for name in ("url", "home") if name in told}
    pool = Pool("history", told["items"], **place)
    ttl, owner = told["ttl"], f"worker {os.getpid()}"
    while True:
        before = time.monotonic()
        try:
            lease = pool.acquire(owner, ttl)
        except PoolExhausted:
            time.sleep(chance.uniform(0.001, 0.01))
            continue
        except DevsupError:
            write("done")
            continue
        deadline = before + ttl
        write("got", lease.item, lease.fencing, time.monotonic(), deadline)
        sleeps = chance.random() < 0.04
        if not sleeps:
            time.sleep(chance.uniform(0, 0.004))
            if chance.random() < 0.4:
                before = time.monotonic()
                try:
                    pool.renew(lease)
                except NotOwner:
                    write("left", lease.fencing, time.monotonic())
                    continue
                except DevsupError:
                    write("done")
                else:
                    deadline = before + ttl
                    write("kept", lease.fencing, deadline)
        else:
            time.sleep(max(0.0, deadline - time.monotonic()) + chance.uniform(0, ttl / 2))
        write("left", lease.fencing, time.monotonic())
        try:
            pool.release(lease)
        except DevsupError:
            pass


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
