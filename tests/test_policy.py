"""How long a server is asked to live: durations, words and processes, before anything is started."""

from __future__ import annotations

import os
from typing import Any

import pytest

from devsup import durations, identity
from devsup.apps import policy
from devsup.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400),
        ("45", 45), ("0.25", 0.25), ("0", 0), (" 3s ", 3), ("1d", 86400), (90, 90), (0.5, 0.5),
    ],
)  # fmt: skip
def test_a_duration_is_read_as_people_write_it(text: str | float, seconds: float) -> None:
    assert durations.parse(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "soon", "5x", "5 m", "m", "-5s", "1e9", "5s!", "s5", "nan", "inf", "400d", "٣s", "1h 5", True, -1.0],
)
def test_what_is_no_duration_is_refused_with_what_to_write(text: str | float) -> None:
    with pytest.raises(ValueError, match="write `30s`, `15m`, `2h` or a number of seconds"):
        durations.parse(text)


@pytest.mark.parametrize("text", ["30s", "15m", "1h30m", "1d1s", "0.2s", "2h"])
def test_a_duration_is_shown_as_it_is_read(text: str) -> None:
    assert durations.shown(durations.parse(text)) == text


def test_what_a_caller_asks_for_wins_over_the_file() -> None:
    asked = policy.asked(restart="no", idle_timeout="0", ttl="2h")
    assert policy.merged({"restart": "always", "idle_timeout": 900.0, "grace": 3}, asked) == {
        "ttl": 7200.0,
        "grace": 3,
    }
    assert policy.merged({"restart": "always"}, policy.asked()) == {"restart": "always"}


def test_a_parent_is_known_by_more_than_its_number() -> None:
    assert policy.asked(with_parent=os.getpid()) == {"parent": identity.me().asdict()}


@pytest.mark.parametrize(
    "asked", [{"restart": "sometimes"}, {"ttl": "soon"}, {"idle_timeout": "-1"}, {"with_parent": 2**22 + 1}]
)
def test_what_cannot_be_is_a_usage_error_before_anything_starts(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        policy.asked(**asked)
