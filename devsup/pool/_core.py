"""
What a pool promises, apart from where it is kept and from who waits for that.

Pure but for two clocks. An operation is a generator: it yields what to ask the store, is sent the answer and
returns what the caller gets; a thread drives it or a task does. A request is the name of a store's operation
and its arguments, an answer a tuple of plain values whose first says what came of it: see `registry.lending`,
whose answers the scripts for Redis give too.

The promise, kept by each store in one atomic step per request: an item has one holder at most; a lease is
renewed and given back by its owner and number alone, and only while it is not over.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from datetime import datetime

from devsup import masking
from devsup.clock import UPTIME, iso
from devsup.durations import LONGEST, shown
from devsup.errors import Busy, NotFound, NotOwner, PoolExhausted, UsageError
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from typing import Any, Protocol, TypeVar

    T = TypeVar("T")
    Answer = tuple[Any, ...]
    #: A store's operation, and its arguments after the pool's name.
    Request = tuple[str, tuple[Any, ...]]
    Steps = Generator[Request, Answer, T]

    class Store(Protocol):
        """Where a pool is kept."""

        def call(self, request: Request) -> Answer:
            """Do what is asked for, in one atomic step."""

        def close(self) -> None:
            """Close connections."""


__all__ = ["Core", "Item", "Lease", "check_name", "decoded", "drive", "encoded", "is_name", "lease_of"]

#: Bytes of a pool's name, an item and an owner.
_MOST_BYTES = 500
#: A pool that is gone again each time it was made is somebody's work; an answer that comes too late each
#: time is a machine's.
_ATTEMPTS = 5
#: What callers are told who give something else.
_TEXT = f"give a text of one line, of 1 to {_MOST_BYTES} bytes"
_ITEM = "give a text or a whole number"
_TTL = f"give a number of seconds: more than 0, and not more than {LONGEST:.0f}"
_LEASE = "give what `acquire` or `renew` has returned"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_JSON = json.JSONEncoder(ensure_ascii=False)


class Lease(Record):
    """
    An item that ``owner`` has up to ``expires_at``, by the clock of where the pool is kept.

    By its own clock a holder counts ``ttl`` seconds from before it called. ``fencing`` grows with each lease
    of a pool. These fields are all there is to it: a lease may be written down and used by another process.
    """

    item: str | int
    owner: str
    fencing: int
    expires_at: str
    #: What `Pool.renew` lets it run for again.
    ttl: float | None = None


class Item(Record):
    """An item of a pool, with its lease: who has it, the number and the end; None where nobody has it."""

    item: str | int
    owner: str | None
    fencing: int | None
    expires_at: str | None


class Core:
    """One pool as its callers see it; any number of threads and tasks may use it at once."""

    def __init__(
        self, name: str, items: Iterable[str | int] | None, *, shown: bool = True, here: bool = False
    ) -> None:
        """Check what is given; `devsup pool` shows it if ``shown``, with `--here` if ``here``."""
        self.name = check_name(name)
        self._look = f"devsup pool {masking.quoted(name)}" if shown else None
        self._here = " --here" if here else ""
        self._offered = None if items is None else _offered(name, items)
        #: Which life of the name we have put our items into; empty: none yet.
        self._life = ""

    def acquire(self, owner: str, ttl: float) -> Steps[Lease]:
        """Get an item for ``ttl`` seconds."""
        owner, ms = _owner(owner), _milliseconds(ttl)
        for _ in range(_ATTEMPTS):
            call, began = os.urandom(8).hex(), _uptime()
            answer = yield from self._ask("acquire", owner, ms, call)
            if answer[0] == "full":
                raise self._exhausted(answer)
            if _uptime() - began < ms - 1:
                return lease_of(answer, owner, ttl)
            # It may not be over yet, and nobody has it.
            yield from self._ask("release", answer[1], owner, *answer[2:], os.urandom(8).hex())
        raise self._too_late(ttl)

    def renew(self, lease: Lease, ttl: float | None = None) -> Steps[Lease]:
        """Have a lease for ``ttl`` seconds from now, or as long as it was made for."""
        item, until, ttl = self._read(lease, lease.ttl if ttl is None else ttl)
        ms = _milliseconds(ttl)
        for _ in range(_ATTEMPTS):
            began = _uptime()
            answer = yield from self._ask("renew", item, lease.owner, lease.fencing, until, ms)
            if answer[0] == "no":
                raise self._not_owner(lease, answer, "renewed")
            if _uptime() - began < ms - 1:
                return lease_of(answer, lease.owner, ttl)
        raise self._too_late(ttl)

    def release(self, lease: Lease) -> Steps[None]:
        """Give a lease back."""
        item, until, _ = self._read(lease, None)
        call = os.urandom(8).hex()
        answer = yield from self._ask("release", item, lease.owner, lease.fencing, until, call)
        if answer[0] == "no":
            raise self._not_owner(lease, answer, "given back")

    def items(self) -> Steps[list[Item]]:
        """Return each item with who has it, in the order in which they came."""
        answer = yield from self._ask("items")
        found = []
        for item, owner, fencing, until in answer[1:]:
            held = owner is not None
            found.append(Item(decoded(item), owner, fencing if held else None, iso(until) if held else None))
        return found

    def add(self, item: str | int) -> Steps[bool]:
        """Lend an item too; False where the pool has it."""
        answer = yield from self._ask("add", encoded(item))
        return bool(answer[1])

    def remove(self, item: str | int) -> Steps[bool]:
        """Lend an item to nobody any more; who has it may keep it. False where the pool does not have it."""
        answer = yield from self._ask("remove", encoded(item))
        return bool(answer[1])

    def free(self, item: str | int) -> Steps[bool]:
        """Take an item from whoever has it; False where nobody has."""
        answer = yield from self._ask("free", encoded(item))
        return bool(answer[0] == "freed")

    def look(self, action: str = "") -> str | None:
        """Return the command that shows the pool or does ``action`` with it; None where there is none."""
        return self._look and f"{self._look}{action}{self._here}"

    def _ask(self, operation: str, *arguments: Any) -> Steps[Answer]:
        """Ask it of the pool that has our items in it, which may have been lost since."""
        for _ in range(_ATTEMPTS):
            if not self._life:
                _, self._life = yield "define", (self._offered or (),)
            answer = yield operation, (self._life, *arguments)
            if answer[0] != "undefined":
                return answer
            self._life = ""
        raise Busy(f"the pool `{self.name}` is lost again and again", hint="devsup doctor")

    def _read(self, lease: Lease, ttl: float | None) -> tuple[str, int, float]:
        if not isinstance(lease, Lease):
            raise UsageError(f"a lease is what `acquire` returns, not {type(lease).__name__}", hint=_LEASE)
        return encoded(lease.item), _ms(lease.expires_at), -1 if ttl is None else ttl

    def _exhausted(self, answer: Answer) -> PoolExhausted:
        shown_name = masking.text(self.name)
        if len(answer) == 1:
            return PoolExhausted(
                f"the pool `{shown_name}` has no items",
                hint=self.look(" add ITEM"),
                details={"pool": self.name, "item": None, "owner": None, "free_at": None},
            )
        item, owner, until = answer[1:]
        return PoolExhausted(
            f"every item of the pool `{shown_name}` is held; the next lease to end is that of"
            f" `{masking.text(str(decoded(item)))}` at {iso(until)}, of `{masking.text(owner or '?')}`",
            hint=self.look() or "ask again then, or give the pool more items",
            details={"pool": self.name, "item": decoded(item), "owner": owner, "free_at": iso(until)},
        )

    def _not_owner(self, lease: Lease, answer: Answer, what: str) -> NotOwner:
        by = answer[1]
        who = f"`{masking.text(by)}` has the item now" if by is not None else "nobody has the item now"
        return NotOwner(
            f"the lease of `{masking.text(str(lease.item))}` with the number {lease.fencing} cannot be"
            f" {what}: it is over, or not of `{masking.text(lease.owner)}`; {who}",
            hint=self.look() or "acquire another item",
            details={"pool": self.name, "item": lease.item, "owner": by, "fencing": lease.fencing},
        )

    def _too_late(self, ttl: float) -> Busy:
        return Busy(
            f"the pool `{masking.text(self.name)}` took longer to answer than a lease of {shown(ttl)} lasts",
            hint="ask for a longer time",
        )

    def unknown(self, item: str | int) -> NotFound:
        """Return the error for an item that the pool does not have."""
        return NotFound(
            f"the pool `{masking.text(self.name)}` has no `{masking.text(str(item))}`",
            hint=self.look(),
        )


def drive(steps: Steps[T], store: Store) -> T:
    """Run an operation to its end."""
    try:
        request = next(steps)
        while True:
            request = steps.send(store.call(request))
    except StopIteration as end:
        result: T = end.value
        return result


def lease_of(answer: Answer, owner: str, ttl: float | None) -> Lease:
    """Return the lease that a store has answered with."""
    _, item, fencing, until = answer
    return Lease(decoded(item), owner, int(fencing), iso(int(until)) or "", ttl)


# -- arguments ---------------------------------------------------------------------------------------


def check_name(name: str) -> str:
    """Return the name of a pool; raise `UsageError` for what is none."""
    return _text(name, "the name of a pool")


def is_name(name: str) -> bool:
    """Tell whether a pool can be called so."""
    try:
        check_name(name)
    except UsageError:
        return False
    return True


def encoded(item: str | int) -> str:
    """Return an item as stores hold it: JSON, which tells the number 1 from the text `1`."""
    if isinstance(item, bool) or not isinstance(item, str | int):
        raise UsageError(f"an item is of the type {type(item).__name__}", hint=_ITEM)
    if isinstance(item, int):
        if not -(2**63) <= item < 2**63:
            raise UsageError("an item that is a number has 64 bits at most", hint=_ITEM)
        return str(item)
    _text(item, "an item")
    return str(_JSON.encode(item))


def decoded(item: str) -> str | int:
    """Return an item as it was given."""
    found: str | int = json.loads(item) if item[:1] == '"' else int(item)
    return found


def _offered(name: str, items: Iterable[str | int]) -> tuple[str, ...]:
    if isinstance(items, str | bytes):
        raise UsageError(f"the items of the pool `{name}` are one text", hint="give a list of items")
    found = tuple(dict.fromkeys(map(encoded, items)))
    if not found:
        raise UsageError(f"the pool `{name}` is given no items", hint="name at least one")
    return found


def _owner(owner: str) -> str:
    return _text(owner, "the owner of a lease")


def _text(value: str, what: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{what} is a text, not {type(value).__name__}", hint=_TEXT)
    if not value:
        raise UsageError(f"{what} is empty", hint=_TEXT)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise UsageError(f"{what} is no text that can be written as UTF-8", hint=_TEXT) from None
    if size > _MOST_BYTES:
        raise UsageError(f"{what} has more than {_MOST_BYTES} bytes", hint=_TEXT)
    if _CONTROL.search(value):
        raise UsageError(f"{what} has control characters in it", hint=_TEXT)
    return value


def _milliseconds(ttl: float | None) -> int:
    if isinstance(ttl, bool) or not isinstance(ttl, int | float):
        raise UsageError(f"a ttl is a number of seconds, not {type(ttl).__name__}", hint=_TTL)
    if not math.isfinite(ttl) or not 0 < ttl <= LONGEST:
        raise UsageError(f"a ttl cannot be {ttl:g} seconds", hint=_TTL)
    # One more: a store counts from the beginning of the millisecond in which it is asked.
    return math.ceil(ttl * 1000) + 1


def _ms(moment: str) -> int:
    """Return a time as `clock.iso` writes it in ms since the epoch."""
    try:
        found = datetime.fromisoformat(moment)
        if found.tzinfo is None:
            raise ValueError
        return round(found.timestamp() * 1000)
    except (TypeError, ValueError, OverflowError):
        raise UsageError("`expires_at` of the lease is no time", hint=_LEASE) from None


def _uptime() -> int:
    return time.clock_gettime_ns(UPTIME) // 1_000_000
