"""Timers: set again by many at once, each goes off once, at the last time it was set for."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devsup.timers import AsyncTimers, ThreadTimers, Timers
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = st.sampled_from("abcd")
STEPS = st.one_of(
    st.tuples(st.just("set"), KEYS, st.integers(0, 50)),
    st.tuples(st.just("cancel"), KEYS, st.just(0)),
    st.tuples(st.just("look"), KEYS, st.integers(0, 60)),
)


@given(st.lists(STEPS, max_size=60))
def test_the_table_does_what_a_plain_dictionary_does(steps: list[tuple[str, str, int]]) -> None:
    timers: Timers[str] = Timers()
    model: dict[str, float] = {}
    for what, key, number in steps:
        if what == "set":
            model[key] = number
            is_next = timers.set(key, number)
            assert is_next or min(model.values()) <= number
        elif what == "cancel":
            assert timers.cancel(key) == (model.pop(key, None) is not None)
        else:
            due = timers.due(number)
            assert sorted(due) == sorted(one for one, at in model.items() if at <= number)
            assert [model[one] for one in due] == sorted(model[one] for one in due)
            for one in due:
                del model[one]
        assert timers.next() == min(model.values(), default=None)
        assert len(timers) == len(model)


def test_a_timer_that_is_set_for_ever_takes_no_room() -> None:
    timers: Timers[str] = Timers()
    for number in range(10_000):
        timers.set("idle", float(number))
    assert len(timers._heap) < 100
    assert timers.due(9_998.0) == []
    assert timers.due(9_999.0) == ["idle"]


def test_what_is_due_is_given_to_one_of_many_drivers() -> None:
    timers: Timers[int] = Timers()
    for number in range(2_000):
        timers.set(number, 0.0)
    got: list[int] = []
    gate = threading.Barrier(4)

    def drive() -> None:
        gate.wait(20)
        while keys := timers.due(1.0):
            got.extend(keys)

    threads = [threading.Thread(target=drive) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(20)
    assert Counter(got) == Counter(range(2_000))


def in_threads(body: Callable[[Callable[[str, float], None], Callable[[str], bool]], None]) -> list[str]:
    """Run ``body`` with timers that a thread drives; return what went off until nothing is set."""
    fired: list[str] = []
    timers = ThreadTimers(fired.append)
    body(timers.set, timers.cancel)
    wait_until(lambda: timers._thread is None, 20)
    return fired


def in_a_loop(body: Callable[[Callable[[str, float], None], Callable[[str], bool]], None]) -> list[str]:
    """Run ``body`` in a thread beside the loop in which the timers go off."""

    async def main() -> list[str]:
        fired: list[str] = []
        timers = AsyncTimers(fired.append)
        await asyncio.to_thread(body, timers.set, timers.cancel)
        while len(timers._timers):  # noqa: ASYNC110 - it is what is tested
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.01)
        return fired

    return asyncio.run(main())


@pytest.mark.parametrize("drive", [in_threads, in_a_loop])
def test_a_timer_that_many_set_again_goes_off_once(
    drive: Callable[[Callable[[Callable[[str, float], None], Callable[[str], bool]], None]], list[str]],
) -> None:
    """A hundred threads push it on, then one more; it goes off once, in its time; a cancelled one never."""
    last: list[float] = []

    def body(set_: Callable[[str, float], None], cancel: Callable[[str], bool]) -> None:
        set_("later", 1.3)
        set_("never", 60.0)
        threads = [threading.Thread(target=set_, args=("idle", 1.2)) for _ in range(100)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(20)
        last.append(time.monotonic())
        set_("idle", 1.2)
        set_("soon", 0.0)
        assert cancel("never")
        assert not cancel("never")

    fired = drive(body)
    assert sorted(fired) == ["idle", "later", "soon"]
    assert time.monotonic() >= last[0] + 1.2


def test_one_that_fails_does_not_keep_others_from_going_off(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: said.append(str(args.exc_value)))
    fired: list[str] = []

    def fire(key: str) -> None:
        if key == "bad":
            raise OSError("no")
        fired.append(key)

    timers = ThreadTimers(fire)
    timers.set("bad", 0.0)
    timers.set("good", 0.01)
    wait_until(lambda: fired == ["good"])
    assert said == ["no"]
    # Its thread ends when nothing is set, and comes back.
    wait_until(lambda: timers._thread is None)
    timers.set("again", 0.0)
    wait_until(lambda: fired == ["good", "again"])


def test_a_timer_that_exits_does_not_keep_others_from_going_off(monkeypatch: pytest.MonkeyPatch) -> None:
    fired: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: fired.append(args.exc_type.__name__))
    timers: ThreadTimers[str] = ThreadTimers(lambda key: fired.append(key) if key == "b" else sys.exit(3))
    timers.set("a", 0.0)
    timers.set("b", 0.05)
    wait_until(lambda: fired == ["SystemExit", "b"])


def test_a_forks_child_begins_without_timers_and_may_set_its_own() -> None:
    fired: list[str] = []
    timers: ThreadTimers[str] = ThreadTimers(fired.append)
    timers.set("parent's", 1.0)
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # rather than wait for a lock that nobody has any more
        timers.set("child's", 0.0)
        timers.set("last", 1.2)
        deadline = time.monotonic() + 20
        while "last" not in fired and time.monotonic() < deadline:
            time.sleep(0.01)
        os._exit(0 if fired == ["child's", "last"] else 1)
    assert os.waitpid(child, 0)[1] == 0
    wait_until(lambda: fired == ["parent's"])


def test_a_thread_that_could_not_be_had_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fired: list[str] = []
    timers: ThreadTimers[str] = ThreadTimers(fired.append)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as broke:
        broke.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            timers.set("first", 0.0)
    timers.set("second", 0.0)
    wait_until(lambda: sorted(fired) == ["first", "second"])
