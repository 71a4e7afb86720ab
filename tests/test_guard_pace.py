"""A guard sleeps until something is due, and does not turn for ever where that never ends."""

from __future__ import annotations

import pytest

from devsup.guard.pace import Pace

#: Seconds of a turn that does nothing, and of one on a busy machine.
TURN, BUSY = 0.001, 0.05


def test_it_sleeps_until_the_first_thing_is_due() -> None:
    said: list[str] = []
    pace = Pace(said.append)
    assert pace.sleep({"a": None}, 5.0) is None
    assert pace.sleep({"a": 8.0, "b": 7.5, "c": None}, 5.0) == 2.5
    assert pace.sleep({"a": 4.0, "b": 7.5}, 5.0) == 0.0
    assert said == []


def test_what_is_due_for_ever_wakes_it_once_a_second() -> None:
    """However long a turn takes, and whether the moment stays or is always now."""
    for seconds, stays in ((TURN, True), (TURN, False), (BUSY, True)):
        said: list[str] = []
        pace, now = Pace(said.append), 100.0
        for _ in range(1000):
            rest = pace.sleep({"log": 50.0 if stays else now, "timers": None}, now)
            assert rest is not None
            now += seconds + rest
        assert now > 700
        assert said == ["`log` is due all the time and nothing comes of it: it is looked at once a second"]


def test_what_else_is_due_is_in_time_though_something_is_due_for_ever() -> None:
    pace, now = Pace(lambda _: None), 100.0
    for _ in range(500):
        now += TURN
        pace.sleep({"log": 50.0}, now)
    assert pace.sleep({"log": 50.0, "timers": now + 0.3}, now) == pytest.approx(0.3)
    assert pace.sleep({"log": 50.0, "timers": now + 3}, now) == 1.0
    # And once it is over, all is as before.
    assert pace.sleep({"log": now + 5}, now) == pytest.approx(5)
    assert pace.sleep({"log": now}, now) == 0.0


def test_work_that_is_done_late_on_a_busy_machine_is_not_delayed() -> None:
    """Each look is due 15 ms after the one before and takes longer than that."""
    said: list[str] = []
    pace, now = Pace(said.append), 100.0
    for _ in range(2000):
        began = now
        now += BUSY
        assert pace.sleep({"watch": began + 0.015}, now) == 0.0
    assert said == []
