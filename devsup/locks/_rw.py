"""
The read/write lock of one process, for threads (`RWLock`) and for tasks (`AsyncRWLock`).

Both are thin drivers of `_core.Core`: they guard it with a mutex that is held for microseconds, and wait
for what it grants, a thread on a lock of its own, a task on a future. Tasks of several loops and threads
may use one lock at once. A waiter that is cancelled, interrupted or out of time leaves neither a place in
the queue nor a lock behind; one that was let in at the same instant gives the lock on.

Leaving never waits for the mutex: a task that is thrown away is closed by the garbage collector, in the midst
of whatever its thread just does. It puts its ticket on a list, and who has the mutex sees to it.

In a fork's child the forking thread keeps what it holds, since it goes on in the same block; what others held
there is free.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import sys
import weakref
from _thread import TIMEOUT_MAX, _local, allocate_lock, get_ident
from collections import deque
from time import monotonic

from devsup import trace
from devsup.errors import LockTimeout
from devsup.locks import _owner
from devsup.locks._core import Core, Ticket
from devsup.locks._owner import HELD
from devsup.locks._stats import FRESH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from devsup.locks._owner import Order

__all__ = ["READ_TIMEOUT", "WRITE_TIMEOUT", "AsyncRWLock", "RWLock", "Resource"]

#: Seconds that an acquire waits unless it is told otherwise.
READ_TIMEOUT, WRITE_TIMEOUT = 10.0, 30.0

if sys.version_info >= (3, 12):
    from asyncio import current_task as _task
else:
    from asyncio.events import _get_running_loop
    from asyncio.tasks import _current_tasks  # type: ignore[attr-defined]  # where `current_task` looks

    _here = _local()

    def _task() -> Any:
        # `current_task` asks for the running loop, before 3.12 a system call: half of our whole cost.
        # A loop that has a current task while this thread runs no other is the one that runs here.
        try:
            return _current_tasks[_here.loop]
        except (AttributeError, KeyError):
            loop = _here.loop = _get_running_loop()
            return _current_tasks.get(loop)


_numbers = itertools.count(1)


class Resource(Core):
    """A core with its name, its place among all locks, and the mutex that guards it."""

    __slots__ = ("__weakref__", "label", "mutex", "order", "quitting", "stirred")

    def __init__(self, name: str | None = None, *, ordered: bool = True) -> None:
        super().__init__()
        number = next(_numbers)
        self.label = name if name is not None else f"lock {number}"
        #: None: it may be taken in any order, and somebody else sees to deadlocks.
        self.order: Order | None = None
        if ordered:
            self.order = (1, name, number) if name is not None else (2, "", number)
        self.mutex = allocate_lock()
        #: Whether somebody has left since the last `advance`.
        self.stirred = False
        #: Who neither waits any more nor wants to be in.
        self.quitting: deque[_Hold] = deque()
        _resources.add(self)

    def ask(self, ticket: _Hold) -> None:
        """Have ``ticket`` let in, now or when its turn comes: it is woken then."""
        with self.mutex:
            entering = self.enter(ticket, monotonic())
        self.wake(entering)

    def withdraw(self, ticket: _Hold) -> bool:
        """Take ``ticket``, whose time is over, out of the queue; False where it is in by now."""
        with self.mutex:
            waited = self.give_up(ticket)
            self.tally.failures += waited
            entering = self.advance(monotonic())
        self.wake(entering)
        return waited

    def settle(self) -> None:
        """Let in whose turn it is, unless another thread is about to. Never waits."""
        self.stirred = True
        while self.stirred and self.mutex.acquire(False):
            try:
                self.stirred = False
                while self.quitting:
                    ticket = self.quitting.popleft()
                    if not self.give_up(ticket):
                        self.leave(ticket, monotonic())
                entering = self.advance(monotonic())
                if len(self.tally.fresh) > FRESH:
                    self.tally.sum_up()
            finally:
                self.mutex.release()
            self._tell(entering)

    def wake(self, entering: list[Ticket]) -> None:
        """Tell those who have been let in; and settle what others could not while we had the mutex."""
        self._tell(entering)
        if self.stirred:
            self.settle()

    def _tell(self, entering: list[Ticket]) -> None:
        for ticket in entering:
            assert isinstance(ticket, _Hold)
            try:
                ticket.wake()
            except RuntimeError:
                # Its loop is closed: it will never come, so others do.
                trace.step(f"a waiter for {self.label} was let in when its loop was closed")
                self.leave(ticket, monotonic())
                self.stirred = True

    def quit(self, ticket: _Hold) -> None:
        """Take ``ticket`` out, wherever it is by now. Never waits."""
        self.quitting.append(ticket)
        self.settle()

    def stats(self) -> dict[str, Any]:
        """Return the counts, as JSON can hold them."""
        with self.mutex:
            shown = self.tally.shown(len(self.inside) + (self.writing is not None))
        self.wake([])
        return shown

    def forked(self, mine: tuple[Any, ...]) -> None:
        """Keep, in a fork's child, what the forking thread holds, and nothing else."""
        self.mutex = allocate_lock()
        self.stirred = False
        self.quitting.clear()
        self.readers.clear()
        self.writers.clear()
        for ticket in [one for one in self.inside if one.who not in mine]:
            del self.inside[ticket]
        if self.writing is not None and self.writing[0].who not in mine:
            self.writing = None
        self.closed = self.writing is not None


_resources: weakref.WeakSet[Resource] = weakref.WeakSet()


def _in_child() -> None:
    mine = (get_ident(), _owner.me())
    for resource in [*_resources]:
        resource.forked(mine)


os.register_at_fork(after_in_child=_in_child)


class _Hold(Ticket):
    """One taking of a lock, made by `read` or `write`: what it was asked for with."""

    __slots__ = ("purpose", "resource", "timeout", "wake")

    resource: Resource
    timeout: float
    purpose: str
    #: Says to whoever waits with this ticket that it is in.
    wake: Callable[[], object]

    def _ask(self) -> None:
        self.granted = False
        self.wake = _nobody
        self.resource.ask(self)

    def _is_in(self) -> bool:
        # Asked after `wake` is set, too: who has let it in before that has woken nobody.
        return self.granted

    def _timed_out(self) -> LockTimeout:
        resource = self.resource
        holders = resource.holders()
        age, shown, who = None, None, "nobody any more"
        if holders:
            holder, since = holders[0]
            assert isinstance(holder, _Hold)
            age = round(max(0.0, monotonic() - since) * 1e3)
            shown = {"pid": os.getpid(), "purpose": holder.purpose, "who": _owner.shown(holder.who)}
            purpose = f" ({holder.purpose})" if holder.purpose else ""
            who = f"{shown['who']}, which {'writes' if holder.write else 'reads'}{purpose}, for {age} ms"
            who += f", and {len(holders) - 1} more" if len(holders) > 1 else ""
        return LockTimeout(
            f"the lock `{resource.label}` was not free within {self.timeout:.1f} s: it is held by {who}",
            hint="hold it for less time, or wait longer: `timeout=`",
            details={"holder": shown, "age_ms": age},
        )

    def _forget(self) -> None:
        """Undo a taking that did not come to its end, or end one of which that is not known."""
        _owner.untake(self.resource, self.who)
        self.resource.inside.pop(self, None)
        self.resource.quit(self)

    def _leave(self) -> None:
        resource = self.resource
        _owner.untake(resource, self.who)
        if resource.leave(self, monotonic()) or len(resource.tally.fresh) > FRESH:
            resource.settle()


class _SyncHold(_Hold):
    """A taking by a thread: ``with`` it."""

    __slots__ = ()

    def __enter__(self) -> Self:
        _owner.refuse_in_a_loop("with RWLock", "async with AsyncRWLock")
        resource = self.resource
        who = self.who = get_ident()
        if who in HELD:
            _owner.check(resource, who)
        try:
            if self.write or not resource.try_read(self, monotonic()):
                self._wait()
            _owner.take(resource, who)
        except BaseException:
            self._forget()
            raise
        return self

    def _wait(self) -> None:
        self._ask()
        if self._is_in():
            return
        gate = allocate_lock()
        gate.acquire()
        self.wake = gate.release
        if self._is_in() or gate.acquire(True, min(max(0.0, self.timeout), TIMEOUT_MAX)):
            return
        # Out of time and let in at the same instant: the core decides which.
        if self.resource.withdraw(self):
            raise self._timed_out()

    def __exit__(self, *_: object) -> None:
        try:
            self._leave()
        except BaseException:  # a Ctrl-C came amid that
            self._forget()
            raise


class _AsyncHold(_Hold):
    """A taking by a task: ``async with`` it."""

    __slots__ = ()

    async def __aenter__(self) -> Self:
        resource = self.resource
        who = self.who = _task()
        if who in HELD:
            _owner.check(resource, who)
        try:
            await self._wait()
            # No await from here to the return: a cancelled task must not leave with the lock taken.
            _owner.take(resource, who)
        except BaseException:
            self._forget()
            raise
        return self

    async def _wait(self) -> None:
        self._ask()
        if self._is_in():
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.wake = functools.partial(loop.call_soon_threadsafe, _finish, future)
        if self._is_in():
            return
        alarm = loop.call_later(max(0.0, self.timeout), _finish, future)
        try:
            await future
        finally:
            alarm.cancel()
        # Out of time and let in at the same instant: the core decides which.
        if not self._is_in() and self.resource.withdraw(self):
            raise self._timed_out()

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self._leave()


class SyncReadHold(_SyncHold):
    """A reader."""

    __slots__ = ()
    write = False


class SyncWriteHold(_SyncHold):
    """A writer."""

    __slots__ = ()
    write = True


class AsyncReadHold(_AsyncHold):
    """A reader. Does what its heritage would, without the calls: each would be a tenth of the whole."""

    __slots__ = ()
    write = False

    async def __aenter__(self) -> Self:
        resource = self.resource
        who = self.who = _task()
        entry: Any = resource
        if who in HELD:
            _owner.check(resource, who)
            entry = resource, HELD[who]
        try:
            resource.inside[self] = monotonic()
            if resource.closed:
                del resource.inside[self]
                await self._wait()
            HELD[who] = entry
        except BaseException:
            self._forget()
            raise
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        resource, who = self.resource, self.who
        since = resource.inside.pop(self, None)
        try:
            if HELD[who] is resource:
                del HELD[who]
            else:
                _owner.untake(resource, who)
        except KeyError:
            pass  # of a task that does not go on in this fork's child
        if since is not None:
            fresh = resource.tally.fresh
            fresh.append(monotonic() - since)
            if resource.closed or len(fresh) > FRESH:
                resource.settle()


class AsyncWriteHold(_AsyncHold):
    """A writer."""

    __slots__ = ()
    write = True


def _nobody() -> None:
    """Wake nobody: the ticket was let in before anyone waited with it."""


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class RWLock:
    """
    Many readers or one writer, among threads. Not re-entrant.

    ``name`` says in which order it is taken with others, see `LockOrderError`. Given an `AsyncRWLock`'s
    ``resource`` it is the same lock, for threads.
    """

    __slots__ = ("resource",)

    def __init__(self, name: str | None = None, *, resource: Resource | None = None) -> None:
        self.resource = Resource(name) if resource is None else resource

    def read(self, *, timeout: float = READ_TIMEOUT, purpose: str = "") -> SyncReadHold:
        """
        Return a hold to be entered by ``with``, beside other readers.

        :raises LockTimeout: on entering: it took longer than ``timeout`` seconds; names who has it
        :raises LockOrderError: on entering: this thread holds it already, or a later lock
        :raises UsageError: on entering: an event loop runs in this thread
        """
        hold = SyncReadHold()
        hold.resource, hold.timeout, hold.purpose = self.resource, timeout, purpose
        return hold

    def write(self, *, timeout: float = WRITE_TIMEOUT, purpose: str = "") -> SyncWriteHold:
        """Return a hold to be entered by ``with``, alone; the errors are those of `read`."""
        hold = SyncWriteHold()
        hold.resource, hold.timeout, hold.purpose = self.resource, timeout, purpose
        return hold

    def __reduce__(self) -> str:
        raise TypeError("a lock of one process cannot be sent to another: use a ProcessLock")


class AsyncRWLock:
    """
    Many readers or one writer, among tasks. Not re-entrant.

    ``name`` says in which order it is taken with others, see `LockOrderError`. Given an `RWLock`'s
    ``resource`` it is the same lock, for tasks.
    """

    __slots__ = ("resource",)

    def __init__(self, name: str | None = None, *, resource: Resource | None = None) -> None:
        self.resource = Resource(name) if resource is None else resource

    def read(self, *, timeout: float = READ_TIMEOUT, purpose: str = "") -> AsyncReadHold:
        """
        Return a hold to be entered by ``async with``, beside other readers.

        :raises LockTimeout: on entering: it took longer than ``timeout`` seconds; names who has it
        :raises LockOrderError: on entering: this task holds it already, or a later lock
        """
        hold = AsyncReadHold()
        hold.resource = self.resource
        hold.timeout = timeout
        hold.purpose = purpose
        return hold

    def write(self, *, timeout: float = WRITE_TIMEOUT, purpose: str = "") -> AsyncWriteHold:
        """Return a hold to be entered by ``async with``, alone; the errors are those of `read`."""
        hold = AsyncWriteHold()
        hold.resource, hold.timeout, hold.purpose = self.resource, timeout, purpose
        return hold

    def __reduce__(self) -> str:
        raise TypeError("a lock of one process cannot be sent to another: use a ProcessLock")
