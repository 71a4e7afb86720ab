"""
A lock between hosts: one holder at a time among all who ask the same Redis.

The same as `ProcessLock` where that can be. What Redis cannot do as a kernel does is to see that a holder has
died, and to tell it from one that sleeps. So the lock is a lease, see `devsup.redis.leases`: it is over after
its ttl unless its holder renews it, which a thread of this process does every third of that. A holder who
could not renew it, or slept, finds out by `RedisHold.lost` at any time and by `LockLost` when it leaves; what
it wrote meanwhile only the fencing number tells from what the next holder wrote.

One body serves ``with`` and ``async with``: generators that yield what to send, or how long to pause. Threads
and tasks may use a `RedisLock` at once; a hold belongs to one of them. After a fork the child has nothing of
what its parent holds, nor its connections.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from devsup.clock import now_ms
from devsup.durations import LONGEST
from devsup.errors import FleetUnreachable, LockLost, LockTimeout, UsageError
from devsup.locks import _owner
from devsup.locks._stats import FRESH, Tally
from devsup.locks._taking import CHANCE, Pauses, Taking, renewer
from devsup.records import Record
from devsup.redis import address, leases, links
from devsup.redis.hosts import host, printable

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Self

    from devsup.locks._owner import Order
    from devsup.redis.links import Command

    #: What to send as one and for how long to wait for the answers; nothing to send means a pause.
    Ask = tuple[tuple[Command, ...], float]
    Steps = Generator[Ask, list[Any], bool]

__all__ = ["REDIS_TIMEOUT", "RedisHold", "RedisHolder", "RedisLock"]

#: Seconds that an acquire waits unless it is told otherwise.
REDIS_TIMEOUT = 60.0
#: Seconds that the first answer may take, whatever the timeout: a connection has to be made.
_FIRST = 1.0
#: Seconds that a later one may take where the timeout is nearly over, and where there is plenty.
_LEAST, _MOST = 0.25, 2.0
#: Seconds between two looks of who waits: the word of a release may go to a waiter that has just died.
_LOOK = 1.0
#: Seconds that leaving waits for Redis; what it has not said by then is said later, by another thread.
_LEAVE = 0.5
#: Refusals that pass by themselves, and no answer at all.
_PASSING = frozenset({"", "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "TRYAGAIN"})


class RedisHolder(Record):
    """
    Who holds a lock between hosts: a process by its host and pid, and there the thread or task ``who``.

    ``since`` is in ms since the epoch and ``age`` in seconds, both by the clock of Redis; ``left`` is for how
    many seconds it holds if it does not renew it.
    """

    host: str
    pid: int
    who: str
    purpose: str
    fencing: int
    since: int
    age: float
    left: float


class RedisLock:
    """
    An exclusive lock called ``name`` in the Redis at ``url``, for all hosts that use that.

    ``ttl`` is for how many seconds it stays with a holder that is dead, or cannot reach Redis; ``purpose``
    says to others what it is held for.

    :raises UsageError: ``url`` is none, ``name`` is empty or no text, or ``ttl`` is less than a tenth of a
        second or more than a year
    """

    __slots__ = ("address", "holding", "keys", "name", "order", "purpose", "tally", "ttl", "url")

    def __init__(self, url: str, name: str, *, ttl: float = 30.0, purpose: str | None = None) -> None:
        if not name:
            raise UsageError("a lock needs a name", hint="give a text of at least one letter")
        if _sendable(name) != name:
            raise UsageError(
                "the name of a lock is no text that can be written as UTF-8",
                hint="give a text without halves of letters",
            )
        if not 0.1 <= ttl <= LONGEST:
            raise UsageError(f"a lock cannot be renewed every third of {ttl} s", hint="ttl=30.0 is usual")
        #: Where Redis is, without the password where it is shown.
        self.address = address.parse(url)
        self.url = url
        self.name = name
        self.ttl = ttl
        self.purpose = purpose
        stem = f"{{devsup:lock:{name}}}"
        self.keys = leases.Keys(stem, f"{stem}:fence", f"{stem}:wake")
        #: Its place among all locks: the same on all hosts, unless they call one Redis by two names.
        self.order: Order = (-1, f"{name}\0{self.address}", 0)
        #: The counts of this object, see `stats`.
        self.tally = Tally()
        #: The hold by which it is held through this object.
        self.holding: RedisHold | None = None

    def write(self, *, timeout: float = REDIS_TIMEOUT, purpose: str | None = None) -> RedisHold:
        """
        Return a hold: ``with`` or ``async with`` it to have the lock.

        :raises LockTimeout: on entering: it was not free within ``timeout`` seconds; names who has it
        :raises FleetUnreachable: on entering: Redis refused, or was not heard of within ``timeout`` seconds
            (or within one second, where that is longer)
        :raises LockOrderError: on entering: this thread or task holds it already, or a later one
        :raises UsageError: on entering: by a plain ``with`` in a running event loop, or `DEVSUP_HOST` can be
            no name
        :raises MissingDependencies: on entering: redis-py is not installed
        :raises LockLost: on leaving: the lease was over meanwhile, so others may have had the lock too
        """
        return RedisHold(self, timeout, purpose or self.purpose or "")

    @property
    def fencing(self) -> int | None:
        """
        The fencing number of the hold by which the lock is held through this object; None where it is not.

        Numbers only grow. A store that refuses what comes with a lower number than it has seen is safe from a
        holder that does not know yet that it is none.
        """
        holding = self.holding
        return None if holding is None else holding.fencing

    def holder(self) -> RedisHolder | None:
        """
        Return who holds the lock on whatever host, or None.

        :raises FleetUnreachable: Redis cannot be asked
        :raises UsageError: an event loop runs in this thread
        """
        _owner.refuse_in_a_loop("lock.holder()", "await lock.aholder()")
        return self._seen(links.link(self.address).call(*self._look(), within=_MOST))

    async def aholder(self) -> RedisHolder | None:
        """Return what `holder` does, in an event loop."""
        link = await links.async_link(self.address)
        return self._seen(await link.call(*self._look(), within=_MOST))

    def _look(self) -> tuple[Command, ...]:
        return ("TIME",), ("PTTL", self.keys.lease), leases.look(self.keys)

    def _seen(self, answers: list[Any]) -> RedisHolder | None:
        (seconds, micros), left, fields = answers
        return _holder(leases.holder(fields), int(seconds) * 1000 + int(micros) // 1000, int(left))

    def stats(self) -> dict[str, Any]:
        """Return how often and how long this object was waited for and held, as JSON can hold it."""
        with _counting:
            return self.tally.shown(int(self.holding is not None))

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self.url, self.name, self.ttl, self.purpose)

    def __repr__(self) -> str:
        return f"RedisLock({str(self.address)!r}, {self.name!r})"


def _remade(url: str, name: str, ttl: float, purpose: str | None) -> RedisLock:
    return RedisLock(url, name, ttl=ttl, purpose=purpose)


def _sendable(text: str) -> str:
    """Return ``text`` with a `?` for each letter that there is none of; bytes of paths and arguments stay."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _holder(fields: dict[str, str], now: int, left: int) -> RedisHolder | None:
    try:
        fencing = int(fields["fencing"])
        # In microseconds it is the time of acquisition by Redis, unless its clock was set back.
        since = min(fencing // 1000, now)
        return RedisHolder(
            host=fields["host"],
            pid=int(fields["pid"]),
            who=fields["who"],
            purpose=fields["purpose"],
            fencing=fencing,
            since=since,
            age=(now - since) / 1e3,
            left=max(0, left) / 1e3,
        )
    except (KeyError, ValueError):
        return None  # nobody, or somebody else's


class RedisHold:
    """
    One taking of a `RedisLock`, for one thread or task.

    Used by ``with`` or ``async with``; or by hand: `try_acquire` asks once, `release` ends it either way, and
    `atry_acquire` and `arelease` do the same in an event loop.
    """

    __slots__ = (
        *("_asked", "_found", "_lost", "_since", "_taking"),
        *("lock", "owner", "purpose", "timeout"),
    )

    def __init__(self, lock: RedisLock, timeout: float, purpose: str) -> None:
        self.lock = lock
        self.timeout = timeout
        self.purpose = purpose
        self.owner: Any = None
        self._taking: Taking | None = None
        #: Who had the lock when it was last asked for.
        self._found: leases.Held | None = None
        self._asked = self._since = 0.0
        self._lost = False

    @property
    def order(self) -> Order:
        """Locks between hosts come before all others: who may wait longest should hold nothing meanwhile."""
        return self.lock.order

    @property
    def label(self) -> str:
        """The lock's name."""
        return self.lock.name

    @property
    def held(self) -> bool:
        """Whether this taking has the lock at this moment, as far as can be told; never in a fork's child."""
        taking = self._taking
        return taking is not None and taking.counts

    @property
    def lost(self) -> bool:
        """Whether it had the lock, and was then without Redis for longer than its ttl."""
        taking = self._taking
        return self._lost if taking is None else taking.fencing is not None and not taking.counts

    @property
    def fencing(self) -> int | None:
        """The fencing number, until the lock is left: of a lost one, too."""
        return None if self._taking is None else self._taking.fencing

    # -- the one body: it yields what to send and never waits itself -----------------------------------

    def _entering(self, timeout: float) -> Steps:
        """Take the lock within ``timeout`` seconds; False: it was not free."""
        self.owner = _owner.me()
        _owner.check(self, self.owner)
        began = self._asked = time.monotonic()
        self._lost = False
        # Noted before it is asked for: so it is given back whatever comes in between.
        _open_holds[id(self)] = self
        taking = self._taking = self._token()
        patience, failures = max(timeout, _FIRST), Pauses()
        while True:
            self._found = error = None
            try:
                within = max(_LEAST, min(_MOST, began + patience - time.monotonic()))
                [answer] = yield (taking.acquire(),), within
                found = taking.acquired(answer)
            except FleetUnreachable as failure:
                error = failure
                if links.refusal(error) not in _PASSING:
                    self._drop()
                    raise
            else:
                if taking.counts:
                    self._entered(taking)
                    return True
                if isinstance(found, leases.Held):
                    self._found = found
                else:  # granted so long ago that it is over: this process slept
                    renewer(self.lock.address).give_back(taking)
                    taking = self._taking = self._token()
                patience, failures = timeout, Pauses()
            left = began + patience - time.monotonic()
            if left <= 0:
                self._drop()  # here, too: a Ctrl-C may come before whoever asked does that
                if error is not None:
                    raise error
                return False
            try:
                yield self._pause(left) or ((), min(failures.next(), left))
            except FleetUnreachable:
                pass  # the next try tells whether it has come back

    def _token(self) -> Taking:
        info = {
            "host": host(os.environ),
            "pid": str(os.getpid()),
            "who": _sendable(_owner.shown(self.owner)),
            "purpose": _sendable(self.purpose),
            "since": str(now_ms()),
        }
        return Taking(self.lock.keys, self.lock.ttl, info)

    def _pause(self, left: float) -> Ask | None:
        """Return how to wait for the holder, if there is one: until it releases, or may be dead."""
        if self._found is None:
            return None
        # Not all waiters at the same moment: one of them gets it.
        most = min(self._found.left / 1e3 + 0.001, _LOOK) * CHANCE.uniform(1.0, 1.25)
        wait = max(0.001, min(left, most))
        return (("BLPOP", str(self.lock.keys.wake), f"{wait:.3f}"),), wait + _LEAST

    def _entered(self, taking: Taking) -> None:
        self._since = time.monotonic()
        _owner.take(self, self.owner)
        self.lock.holding = self
        renewer(self.lock.address).keep(taking)
        self.lock.tally.waited(self._since - self._asked)

    def _leaving(self) -> Steps:
        """Give the lock back; False: it was lost."""
        taking = self._taking
        if taking is None or taking.fencing is None:
            self._drop()
            return True
        while not taking.end():
            yield (), 0.002
        # From here on nothing makes it longer: this is the last moment at which it was needed.
        ours, heard, unsure = taking.counts, False, False
        end = time.monotonic() + _LEAVE
        while not heard and (left := end - time.monotonic()) > 0:
            try:
                [released] = yield (taking.release(),), left
            except FleetUnreachable as error:
                if links.refusal(error):
                    break
                unsure = True  # it may have been done, so a 0 says nothing any more
                yield (), min(0.05, left)
            else:
                heard = True
                ours = ours and (unsure or bool(released))
        held = time.monotonic() - self._since
        self._drop(heard=heard)
        self._lost = not ours
        self.lock.tally.fresh.append(held)
        if len(self.lock.tally.fresh) > FRESH:
            with _counting:
                self.lock.tally.sum_up()
        return ours

    def _drop(self, *, heard: bool = False) -> None:
        """Have nothing any more; what Redis does not know yet it is told by another thread. Never waits."""
        try:
            self._forget(heard=heard)
        except BaseException:  # a Ctrl-C came amid that
            self._forget(heard=heard)
            raise

    def _forget(self, *, heard: bool) -> None:
        taking = self._taking
        if taking is not None:
            told = renewer(self.lock.address)
            told.forget(taking)
            if taking.is_to_be_released and not (heard and not taking.doubt):
                told.give_back(taking)
        if self.lock.holding is self:
            self.lock.holding = None
        _owner.untake(self, self.owner)
        self._lost, self._taking = self.lost, None
        _open_holds.pop(id(self), None)

    def timed_out(self) -> LockTimeout:
        """Return the error that says who has the lock, and count the failure."""
        with _counting:
            self.lock.tally.failures += 1
        found = self._found
        holder = None if found is None else _holder(found.holder, found.at, found.left)
        who, shown, age = "another process", None, None
        if holder is not None:
            age = round(holder.age * 1e3)
            purpose, where = printable(holder.purpose), printable(holder.host)
            for_what = f" ({purpose})" if purpose else ""
            who = f"pid {holder.pid}{for_what}, for {age} ms, on the host `{where}`"
            shown = {"pid": holder.pid, "purpose": purpose, "host": where}
        waited = time.monotonic() - self._asked
        return LockTimeout(
            f"the lock `{self.label}` was not free within {waited:.1f} s: it is held by {who}",
            hint="hold it for less time, or wait longer: `timeout=`",
            details={"holder": shown, "age_ms": age},
        )

    def _was_lost(self) -> LockLost:
        return LockLost(
            f"the lock `{self.label}` was lost while it was held: it could not be renewed for"
            f" {self.lock.ttl:g} s, or Redis gave it to somebody else",
            hint="give it a longer `ttl=`, and let what you write carry `fencing`",
        )

    def _refuse_a_second_use(self) -> None:
        if self._taking is not None:
            raise RuntimeError(f"this hold of `{self.label}` is in use already")

    # -- the drivers -------------------------------------------------------------------------------------

    def try_acquire(self) -> bool:
        """
        Take the lock if it is free: one question to Redis.

        :raises FleetUnreachable: see `RedisLock.write`, as are the others
        """
        _owner.refuse_in_a_loop("hold.try_acquire()", "await hold.atry_acquire()")
        self._refuse_a_second_use()
        try:
            taken = _block(links.link(self.lock.address), self._entering(0.0))
            return taken  # noqa: RET504 - in one step a Ctrl-C could come between it and the `except`
        except BaseException:
            self._drop()
            raise

    def release(self) -> bool:
        """
        Give the lock back; without effect where it is not held. False: it was lost, others may have had it.

        Where Redis is not heard of within a second or so, or an event loop runs, another thread sees to it.
        """
        if self._taking is None or _owner.in_a_loop():
            ours = not self.lost
            self._drop()
            return ours
        try:
            return _block(links.link(self.lock.address), self._leaving())
        except BaseException:
            self._drop()
            raise

    def __enter__(self) -> Self:
        _owner.refuse_in_a_loop("with lock.write()", "async with lock.write()")
        self._refuse_a_second_use()
        try:
            if not _block(links.link(self.lock.address), self._entering(self.timeout)):
                raise self.timed_out()
            return self
        except BaseException:
            self._drop()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            ours = self.release()
        except BaseException:  # a Ctrl-C came amid that
            self._drop()
            raise
        if not ours and kind is None:
            raise self._was_lost()

    async def atry_acquire(self) -> bool:
        """Do what `try_acquire` does, in an event loop."""
        self._refuse_a_second_use()
        try:
            taken = await _wait(await links.async_link(self.lock.address), self._entering(0.0))
            # No await from here to the return: a cancelled task must not leave with the lock taken.
            return taken  # noqa: RET504 - see `try_acquire`
        except BaseException:
            self._drop()
            raise

    async def arelease(self) -> bool:
        """Do what `release` does, in an event loop."""
        if self._taking is None:
            return not self.lost
        try:
            return await _wait(await links.async_link(self.lock.address), self._leaving())
        except BaseException:
            self._drop()
            raise

    async def __aenter__(self) -> Self:
        self._refuse_a_second_use()
        try:
            if not await _wait(await links.async_link(self.lock.address), self._entering(self.timeout)):
                raise self.timed_out()
            return self
        except BaseException:
            self._drop()
            raise

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not await self.arelease() and kind is None:
            raise self._was_lost()


def _block(link: links.Link, steps: Steps) -> bool:
    """Do what ``steps`` asks for, in this thread."""
    try:
        commands, seconds = next(steps)
        while True:
            answers: list[Any] = []
            try:
                if commands:
                    answers = link.call(*commands, within=seconds)
                else:
                    time.sleep(seconds)
            except FleetUnreachable as error:
                commands, seconds = steps.throw(error)
            else:
                commands, seconds = steps.send(answers)
    except StopIteration as end:
        return bool(end.value)


async def _wait(link: links.AsyncLink, steps: Steps) -> bool:
    """Do what ``steps`` asks for, in this task."""
    try:
        commands, seconds = next(steps)
        while True:
            answers: list[Any] = []
            try:
                if commands:
                    answers = await link.call(*commands, within=seconds)
                else:
                    await asyncio.sleep(seconds)
            except FleetUnreachable as error:
                commands, seconds = steps.throw(error)
            else:
                commands, seconds = steps.send(answers)
    except StopIteration as end:
        return bool(end.value)


# -- forks, and the end of the process -----------------------------------------------------------------

#: What has asked for a lock, until it has given it back.
_open_holds: dict[int, RedisHold] = {}
_counting = threading.RLock()


def _in_child() -> None:
    global _counting
    _counting = threading.RLock()
    for hold in _open_holds.values():
        # Forgotten, not given back: that would free the lock of the parent, whose token is the same.
        hold._taking = None  # noqa: SLF001 - one promise, two places
        hold.lock.holding = None
        _owner.untake(hold, hold.owner)
    _open_holds.clear()


os.register_at_fork(after_in_child=_in_child)


@atexit.register
def _at_the_end() -> None:
    # As the kernel does with other locks; `_taking` waits for it, registered earlier and so called later.
    for hold in [*_open_holds.values()]:
        hold._drop()  # noqa: SLF001
