"""
The use cases for programs that run an asyncio event loop.

What waits here is a thread, never the loop: each call runs the synchronous `devsup.Supervisor` in a worker
thread. The workers are shared by the whole process, are made when they are needed, at most `MOST` of them,
and end after some idle seconds; further calls queue in their order. They are daemons and belong to no loop:
neither the end of a loop nor that of the interpreter waits for them, and any number of loops, tasks and
threads may call at once.

Cancelling a call leaves the truth behind. A call that still queues does nothing. A start that is running is
told, and ends as by Ctrl-C: before its guard has claimed the server nothing is started, after that the server
runs and is tracked. A stop that has begun goes on, as it does when the command that began it is killed.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from concurrent.futures import Future
from contextvars import copy_context

from devsup.errors import DevsupError, Interrupted
from devsup.pool._core import Core, drive, lease_of
from devsup.supervisor import Supervisor as Blocking
from devsup.supervisor.core import OPERATION_TIMEOUT
from devsup.supervisor.looking import CHECK_TIMEOUT, START_TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Self, TypeVar

    from devsup.models import (
        CheckResult,
        ConfigResult,
        EventPage,
        Health,
        HostList,
        InitResult,
        LockList,
        LogPage,
        Metrics,
        PoolList,
        PortList,
        PruneResult,
        Server,
        ServerList,
        StartResult,
        StatusResult,
        StopResult,
        StopResults,
        Story,
        UpResults,
    )
    from devsup.pool import Item, Lease
    from devsup.pool._core import Answer, Request, Steps
    from devsup.pool._redis import AsyncRedisStore
    from devsup.pool._sqlite import SqliteStore
    from devsup.supervisor.operations import InFlight

    T = TypeVar("T")

__all__ = ["Operation", "Pool", "Supervisor"]

#: Threads at most. Most of them only wait for a server; one costs some 50 kB.
MOST = 64
#: Seconds after which a worker without work ends.
_IDLE = 5.0


class _Workers:
    """
    Daemon threads that run calls in their order.

    Invariant, kept by `submit` and `_work` under one lock: while calls queue, either all threads allowed are
    at work or one is on its way to the queue.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._idle = 0
        self._count = 0

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._changed:
            self._calls.append((future, call))
            if self._idle >= len(self._calls):
                self._changed.notify()
            elif self._count < MOST:
                try:
                    threading.Thread(target=self._work, name="devsup", daemon=True).start()
                except RuntimeError:  # the system gives no more threads
                    if not self._count:
                        self._calls.pop()
                        raise
                else:
                    self._count += 1
        return future

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: bool(self._calls), _IDLE)
                self._idle -= 1
                if not self._calls:
                    self._count -= 1
                    return
                future, call = self._calls.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # a Ctrl-C never comes here; what comes is the caller's
                future.set_exception(error)
            del future, call  # nothing is kept alive by a thread that waits


_workers = _Workers()


def _begin_anew() -> None:
    global _workers
    _workers = _Workers()  # the parent's threads are not in a child that was forked


os.register_at_fork(after_in_child=_begin_anew)


class _Cancelled:
    """Tells a call in its thread that nobody waits for it any more."""

    def __init__(self) -> None:
        self._said = threading.Event()

    def say(self) -> None:
        self._said.set()

    def check(self, *_: object) -> None:
        """Raise where it was said; what a start calls while it waits."""
        if self._said.is_set():
            raise Interrupted("cancelled", hint="devsup list")

    def rest(self, seconds: float) -> None:
        """Wait so long, but not when it was said."""
        if self._said.wait(seconds):
            raise Interrupted("cancelled", hint="devsup list")


async def _run(call: Callable[[_Cancelled], T], *, undo: Callable[[T], object] | None = None) -> T:
    """Return what ``call`` returns in a worker; where this is cancelled too late for it, ``undo`` that."""
    cancelled = _Cancelled()
    context = copy_context()  # in which operations the task is
    future: Future[T] = _workers.submit(lambda: context.run(call, cancelled))
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        cancelled.say()
        future.cancel()  # what still queues never runs
        if undo is not None:
            future.add_done_callback(lambda done: _undo(done, undo))
        raise


def _undo(done: Future[T], undo: Callable[[T], object]) -> None:
    if not done.cancelled() and done.exception() is None:
        result = done.result()
        _workers.submit(lambda: undo(result))  # this may run in the loop


class Supervisor:
    """
    Starts, finds, lists and stops the development servers of a project, all of it by ``await``.

    Takes what `devsup.Supervisor` takes, and its methods return and raise the same.
    """

    def __init__(
        self, project: str | None = None, home: str | None = None, *, within: Sequence[str] | None = None
    ) -> None:
        there = Blocking(project, home, within=within)
        self.project = there.project
        self._place = (there.cwd, there.home.root, there.within)

    def _blocking(self) -> Blocking:
        """Return one for a single call, which keeps that call's notes."""
        cwd, home, within = self._place
        return Blocking(cwd, home, within=within)

    async def start_server(
        self,
        app: str | None = None,
        *,
        command: Sequence[str] | None = None,
        port: int | str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - one deadline over all of it, as everywhere here
        env: Mapping[str, str] | None = None,
        owner: str | None = None,
        restart: str | None = None,
        idle_timeout: str | float | None = None,
        ttl: str | float | None = None,
        with_parent: int | None = None,
    ) -> StartResult:
        """Return the app's server, started or found, when it is ready; see `devsup.Supervisor.start`."""
        return await _run(
            lambda cancelled: self._blocking().start(
                app, command=command, port=port, timeout=timeout, env=env, owner=owner,
                restart=restart, idle_timeout=idle_timeout, ttl=ttl, with_parent=with_parent,
                on_progress=cancelled.check,
            )
        )  # fmt: skip

    async def stop_server(
        self,
        target: str,
        *,
        grace: float | None = None,
        take_over: bool = False,
        fleet: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - how long another host's guard is waited for
    ) -> StopResult:
        """Stop one server; see `devsup.Supervisor.stop`."""
        return await _run(
            lambda _: self._blocking().stop_server(
                target, grace=grace, take_over=take_over, fleet=fleet, timeout=timeout
            )
        )

    async def restart_server(
        self,
        target: str,
        *,
        timeout: float = START_TIMEOUT,  # noqa: ASYNC109 - as above
        grace: float | None = None,
        take_over: bool = False,
    ) -> StartResult:
        """Run a server again and return it when it is ready; see `devsup.Supervisor.restart`."""
        return await _run(
            lambda cancelled: self._blocking().restart(
                target, timeout=timeout, grace=grace, take_over=take_over, on_progress=cancelled.check
            )
        )

    async def list_servers(self, *, everywhere: bool = False, fleet: bool = False) -> ServerList:
        """Return what runs; see `devsup.Supervisor.list`."""
        return await _run(lambda _: self._blocking().list_servers(everywhere=everywhere, fleet=fleet))

    async def hosts(self) -> HostList:
        """Return the hosts of the fleet; see `devsup.Supervisor.hosts`."""
        return await _run(lambda _: self._blocking().hosts())

    async def get_server_logs(
        self,
        target: str,
        *,
        after: str | None = None,
        lines: int | None = None,
        max_bytes: int | None = None,
        wait: float = 0.0,
    ) -> LogPage:
        """Return a page of a log; with ``wait`` when there is something new, or after so many seconds."""
        return await _run(
            lambda cancelled: self._blocking().logs(
                target, after=after, lines=lines, max_bytes=max_bytes, wait=wait, rest=cancelled.rest
            )
        )

    async def check_server(
        self,
        target: str,
        *,
        path: str = "/",
        after: str | None = None,
        timeout: float = CHECK_TIMEOUT,  # noqa: ASYNC109 - the work itself keeps it
    ) -> CheckResult:
        """Look whether a server listens, answers and has printed errors."""
        return await _run(
            lambda cancelled: self._blocking().check(
                target, path=path, after=after, timeout=timeout, rest=cancelled.rest
            )
        )

    async def events(
        self, *, after: int | None = None, limit: int = 100, everywhere: bool = False, wait: float = 0.0
    ) -> EventPage:
        """Return what happened; see `devsup.Supervisor.events`."""
        return await _run(
            lambda cancelled: self._blocking().events(
                after=after, limit=limit, everywhere=everywhere, wait=wait, rest=cancelled.rest
            )
        )

    async def cleanup(self, *, grace: float | None = None, take_over: bool = False) -> StopResults:
        """Stop all servers of this project; see `devsup.Supervisor.stop`."""
        return await _run(lambda _: self._blocking().cleanup(grace=grace, take_over=take_over))

    async def up(
        self,
        apps: Sequence[str] = (),
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        env: Mapping[str, str] | None = None,
    ) -> UpResults:
        """Start the apps of this project in the order of their dependencies; see `devsup.Supervisor.up`."""
        return await _run(
            lambda cancelled: self._blocking().up(apps, timeout=timeout, env=env, on_progress=cancelled.check)
        )

    async def down(
        self, apps: Sequence[str] = (), *, grace: float | None = None, take_over: bool = False
    ) -> StopResults:
        """Stop the apps of this project, dependents first; see `devsup.Supervisor.down`."""
        return await _run(lambda _: self._blocking().down(apps, grace=grace, take_over=take_over))

    async def adopt(self, target: str, *, name: str | None = None, owner: str | None = None) -> StartResult:
        """Bring a server that devsup did not start under the registry; see `devsup.Supervisor.adopt`."""
        return await _run(lambda _: self._blocking().adopt(target, name=name, owner=owner))

    async def status(self, target: str) -> StatusResult:
        """Return one server and the processes of its tree."""
        return await _run(lambda _: self._blocking().status(target))

    async def doctor(self, *, fix: bool = False) -> Health:
        """Return what is wrong, part by part; see `devsup.Supervisor.doctor`."""
        return await _run(lambda _: self._blocking().doctor(fix=fix))

    async def why(self, target: str) -> Story:
        """Return the story of a server, a process or a port; see `devsup.Supervisor.why`."""
        return await _run(lambda _: self._blocking().why(target))

    async def metrics(self) -> Metrics:
        """Return OpenMetrics text; see `devsup.Supervisor.metrics`."""
        return await _run(lambda _: self._blocking().metrics())

    async def ports(self) -> PortList:
        """Return who listens where; see `devsup.Supervisor.ports`."""
        return await _run(lambda _: self._blocking().ports())

    async def pool(
        self,
        name: str | None = None,
        action: str | None = None,
        items: Sequence[str] = (),
        *,
        owner: str | None = None,
        ttl: str | float | None = None,
        fencing: int | None = None,
        force: bool = False,
        here: bool = False,
    ) -> PoolList:
        """Return pools, or edit one; see `devsup.Supervisor.pool`. For programs there is `Pool`."""
        return await _run(
            lambda _: self._blocking().pool(
                name, action, items, owner=owner, ttl=ttl, fencing=fencing, force=force, here=here
            )
        )

    async def locks(self, *, everything: bool = False) -> LockList:
        """Return who holds and who waits for locks; see `devsup.Supervisor.locks`."""
        return await _run(lambda _: self._blocking().locks(everything=everything))

    async def prune(
        self, *, dry_run: bool = False, orphans: bool = False, grace: float | None = None
    ) -> PruneResult:
        """Remove what dead servers have left; see `devsup.Supervisor.prune`."""
        return await _run(lambda _: self._blocking().prune(dry_run=dry_run, orphans=orphans, grace=grace))

    async def config(
        self, app: str | None = None, *, port: int | str | None = None, env: Mapping[str, str] | None = None
    ) -> ConfigResult:
        """Return what is in force for each app; see `devsup.Supervisor.config`."""
        return await _run(lambda _: self._blocking().config(app, port=port, env=env))

    async def init(self, *, force: bool = False, write: bool = True) -> InitResult:
        """Write a `devsup.toml` that says what is detected; see `devsup.Supervisor.init`."""
        return await _run(lambda _: self._blocking().init(force=force, write=write))

    def operation(
        self,
        target: str,
        *,
        purpose: str = "operation",
        exclusive: bool = False,
        timeout: float = OPERATION_TIMEOUT,
    ) -> Operation:
        """Return a context manager for ``async with``; see `devsup.Supervisor.operation`."""
        return Operation(
            lambda: self._blocking().operation(target, purpose=purpose, exclusive=exclusive, timeout=timeout)
        )


class Operation:
    """One operation of a task; see `devsup.Supervisor.operation`. It is over when the task leaves it."""

    def __init__(self, make: Callable[[], InFlight]) -> None:
        self._make = make
        self._in_flight: InFlight | None = None

    async def __aenter__(self) -> Server:
        def begin(cancelled: _Cancelled) -> tuple[InFlight, Server]:
            one = self._make()
            return one, one.begin(cancelled.rest)

        if self._in_flight is not None:
            raise RuntimeError("this operation is open already: make another one")
        in_flight, server = await _run(begin, undo=lambda begun: begun[0].end())
        # No await from here on: whoever is cancelled now is inside, and leaves as usual.
        in_flight.enter()
        self._in_flight = in_flight
        return server

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        in_flight, self._in_flight = self._in_flight, None
        assert in_flight is not None
        in_flight.leave()
        # Taken back also where the task is cancelled right now: the worker does not hear of that.
        try:
            await asyncio.shield(asyncio.wrap_future(_workers.submit(in_flight.end)))
        except DevsupError:
            if kind is None:  # what went wrong in the body is the one to tell
                raise


class Pool:
    """
    Items that are lent one at a time; takes what `devsup.pool.Pool` takes, returns and raises the same.

    A pool in Redis is asked by ``redis.asyncio``, over connections of the event loop that asks; one in a
    state folder by a worker thread. An `acquire` that is cancelled leaves no item lent for longer than its
    ttl.
    """

    def __init__(
        self, name: str, items: Iterable[str | int], *, url: str | None = None, home: str | None = None
    ) -> None:
        self._core = Core(name, items, shown=url is None and home is None, here=True)
        self.name = self._core.name
        self._threads: SqliteStore | None = None
        self._redis: AsyncRedisStore | None = None
        if url is None:
            from devsup.pool._sqlite import SqliteStore

            self._threads = SqliteStore(name, home)
        else:
            from devsup.redis import client

            client.package()
            from devsup.pool._redis import AsyncRedisStore

            self._redis = AsyncRedisStore(name, url)

    async def acquire(self, owner: str, ttl: float) -> Lease:
        """Get an item for ``ttl`` seconds; see `devsup.pool.Pool.acquire`."""
        return await self._do(self._core.acquire(owner, ttl))

    async def renew(self, lease: Lease, ttl: float | None = None) -> Lease:
        """Have a lease for ``ttl`` seconds from now; see `devsup.pool.Pool.renew`."""
        return await self._do(self._core.renew(lease, ttl))

    async def release(self, lease: Lease) -> None:
        """Give an item back; see `devsup.pool.Pool.release`."""
        await self._do(self._core.release(lease))

    async def items(self) -> list[Item]:
        """Return each item of the pool with who has it."""
        return await self._do(self._core.items())

    def held(self, owner: str, ttl: float) -> Held:
        """Return a block for ``async with`` that has an item; see `devsup.pool.Pool.held`."""
        return Held(self, owner, ttl)

    async def aclose(self) -> None:
        """Close the connections of this event loop; leases stay as they are."""
        if self._redis is not None:
            await self._redis.aclose()
        elif self._threads is not None:
            close = self._threads.close
            await _run(lambda _: close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _do(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                request = steps.send(await self._ask(request))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _ask(self, request: Request) -> Answer:
        if self._redis is not None:
            return await self._redis.call(request)
        threads = self._threads
        assert threads is not None

        def give_back(answer: Answer) -> None:
            if request[0] == "acquire" and answer[0] == "lent":
                owner = request[1][1]
                drive(self._core.release(lease_of(answer, owner, None)), threads)

        return await _run(lambda _: threads.call(request), undo=give_back)


class Held:
    """The block of `Pool.held`."""

    def __init__(self, pool: Pool, owner: str, ttl: float) -> None:
        self._pool, self._owner, self._ttl = pool, owner, ttl
        self._leases: list[Lease] = []

    async def __aenter__(self) -> Lease:
        lease = await self._pool.acquire(self._owner, self._ttl)
        self._leases.append(lease)
        return lease

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await asyncio.shield(self._pool.release(self._leases.pop()))
        except DevsupError:
            if kind is None:  # what went wrong in the body is the one to tell
                raise
