"""
Timers that may be set again at any moment, by anyone, and go off once each time they were set.

`Timers` is a table: it neither waits nor calls anybody. Whoever drives it asks when the next one is due,
waits until then, and takes out what is due: each timer is given to one driver, once. `ThreadTimers` and
`AsyncTimers` are drivers that call a function. They go by the monotonic clock, so setting the clock on the
wall moves no timer. Safe from any thread; an `AsyncTimers` calls in its loop.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Hashable

__all__ = ["AsyncTimers", "ThreadTimers", "Timers"]

_K = TypeVar("_K", bound="Hashable")


class Timers(Generic[_K]):
    """
    When each key is due, in seconds of any one clock.

    Invariants: a key is due at one time at most, the last that was set. The heap holds that time, and perhaps
    older ones, which are skipped: they have another number than the table.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._heap: list[tuple[float, int, _K]] = []
        self._set: dict[_K, int] = {}
        self._numbers = itertools.count()

    def set(self, key: _K, at: float) -> bool:
        """Have ``key`` go off at that time and no other; True: it is the next, so a driver has to wake up."""
        with self._mutex:
            number = self._set[key] = next(self._numbers)
            heapq.heappush(self._heap, (at, number, key))
            if len(self._heap) > 2 * len(self._set) + 64:  # one that is set again and again
                self._heap = [one for one in self._heap if self._set.get(one[2]) == one[1]]
                heapq.heapify(self._heap)
            self._skip()
            return self._heap[0][1] == number

    def cancel(self, key: _K) -> bool:
        """Have ``key`` not go off; False: it was not set, or has gone off."""
        with self._mutex:
            return self._set.pop(key, None) is not None

    def next(self) -> float | None:
        """Return when the next one is due; None: none is set."""
        with self._mutex:
            self._skip()
            return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[_K]:
        """Take out what is due, in the order of its times: nobody else gets it."""
        keys = []
        with self._mutex:
            self._skip()
            while self._heap and self._heap[0][0] <= now:
                key = heapq.heappop(self._heap)[2]
                del self._set[key]
                keys.append(key)
                self._skip()
        return keys

    def _skip(self) -> None:
        while self._heap and self._set.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)

    def __len__(self) -> int:
        return len(self._set)


class ThreadTimers(Generic[_K]):
    """
    Calls ``fire(key)`` when a key is due, from one daemon thread, which lives while a timer is set.

    What ``fire`` raises ends only that call; it goes to `threading.excepthook`. After a fork the timers go
    off in the parent; the child begins without any.
    """

    def __init__(self, fire: Callable[[_K], object]) -> None:
        self._fire = fire
        self._begin()
        _threaded.add(self)

    def _begin(self) -> None:
        self._timers: Timers[_K] = Timers()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def set(self, key: _K, seconds: float) -> None:
        """
        Have ``key`` go off in so many seconds, and not when it was set for before.

        :raises RuntimeError: the system gives no more threads; it goes off once there is one for another
        """
        with self._changed:
            sooner = self._timers.set(key, time.monotonic() + seconds)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="devsup-timers", daemon=True)
                thread.start()  # it waits for us; where the system gives no more threads the next `set` tries
                self._thread = thread
            elif sooner:
                self._changed.notify()

    def cancel(self, key: _K) -> bool:
        """Have ``key`` not go off; False: it was not set, or has gone off."""
        with self._changed:
            cancelled = self._timers.cancel(key)
            self._changed.notify()
            return cancelled

    def _run(self) -> None:
        while True:
            with self._changed:
                at = self._timers.next()
                if at is None:
                    self._thread = None
                    return
                left = at - time.monotonic()
                if left > 0:
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))
                keys = self._timers.due(time.monotonic())
            for key in keys:
                try:
                    self._fire(key)
                except BaseException as error:  # a `sys.exit` there must not end the others' thread, either
                    where = threading.current_thread()
                    threading.excepthook(
                        threading.ExceptHookArgs((type(error), error, error.__traceback__, where))
                    )


_threaded: weakref.WeakSet[ThreadTimers[Any]] = weakref.WeakSet()


def _in_child() -> None:
    for one in [*_threaded]:
        one._begin()  # noqa: SLF001 - the thread that had its lock, perhaps, is not there


os.register_at_fork(after_in_child=_in_child)


class AsyncTimers(Generic[_K]):
    """
    Calls ``fire(key)`` in the loop in which this was made, when a key is due.

    What ``fire`` raises goes to the loop's exception handler. `set` and `cancel` may come from any thread.
    """

    def __init__(self, fire: Callable[[_K], object]) -> None:
        from asyncio import get_running_loop

        self._fire = fire
        self._timers: Timers[_K] = Timers()
        self._loop = get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None

    def set(self, key: _K, seconds: float) -> None:
        """Have ``key`` go off in so many seconds, and not when it was set for before."""
        if self._timers.set(key, time.monotonic() + seconds):
            self._loop.call_soon_threadsafe(self._arm)

    def cancel(self, key: _K) -> bool:
        """Have ``key`` not go off; False: it was not set, or has gone off."""
        return self._timers.cancel(key)

    def _arm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        at = self._timers.next()
        if at is not None:
            self._alarm = self._loop.call_later(max(0.0, at - time.monotonic()), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        for key in self._timers.due(time.monotonic()):
            self._loop.call_soon(self._fire, key)
        self._arm()
