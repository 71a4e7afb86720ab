"""Numbers that are far out of range, and names that are numbers, are mistakes and never bugs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devsup.apps import naming
from devsup.errors import UsageError
from devsup.paths import Home
from devsup.registry import Registry
from devsup.supervisor.preflight import limit
from devsup.supervisor.targets import find
from tests.registry_child import make_row, reserve

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Devsup

LONG = "9" * 5000
CALLS = [
    *(["stop", number] for number in ("99999999999999999999", "2147483648", LONG, "999999999999")),
    *(["status", number] for number in ("99999999999999999999", LONG)),
    *(["url", f":{number}"] for number in ("99999999", LONG, "0", "", "٣")),
    *(["start", "x", "--port", number] for number in ("9" * 20, LONG, "0000803000", "-1", "1e3")),
    *(
        ["start", "x", flag, number]
        for flag in ("--timeout",)
        for number in ("1e400", "nan", "inf", "-1", LONG)
    ),
    *(["stop", "x", "--grace", number] for number in ("1e400", "nan", "inf", "-1", LONG)),
    *(["wait", "x", "--timeout", number] for number in ("-inf", "86401")),
    *(["logs", "x", flag, number] for flag in ("-n", "--max-bytes") for number in ("9" * 20, LONG, "-1")),
    ["logs", "x", "--max-bytes", "0", "--wait", "nan"],
]


@pytest.mark.parametrize("argv", CALLS, ids=[f"{at} {' '.join(argv)[:40]}" for at, argv in enumerate(CALLS)])
def test_a_number_out_of_range_is_a_mistake(argv: list[str], devsup: Devsup) -> None:
    answer = devsup("--json", *argv)
    assert (answer.code, answer.error["code"]) == (2, "usage"), answer
    assert answer.error["hint"]
    assert len(answer.error["message"]) < 200


@pytest.mark.parametrize("number", ["9" * 20, LONG, "0", "-1", "x", "100001", "٣"], ids=range(7))
def test_a_limit_out_of_range_is_a_mistake(number: str) -> None:
    with pytest.raises(UsageError, match="not a number from 1 to 100000") as caught:
        limit({"DEVSUP_MAX_SERVERS": number})
    assert caught.value.hint == "unset DEVSUP_MAX_SERVERS"
    assert limit({"DEVSUP_MAX_SERVERS": "100000"}) == 100000


def test_a_limit_out_of_range_is_an_answer(devsup: Devsup) -> None:
    answer = devsup("start", "x", "--json", "--", "true", env={"DEVSUP_MAX_SERVERS": "9" * 20})
    assert (answer.code, answer.error["code"]) == (2, "usage")


def test_a_number_is_no_name(devsup: Devsup) -> None:
    """`stop 4711` means a pid: with such a name the wrong server would be stopped."""
    answer = devsup("start", "4711", "--json", "--", "true")
    assert (answer.code, answer.error["code"]) == (2, "usage")
    assert answer.error["message"] == (
        "`4711` cannot be a name: a number means a pid wherever a server is named"
    )
    assert answer.error["hint"] == "devsup start app-4711 -- true"
    assert not naming.is_name("4711")
    assert naming.is_name("4711a")


def test_a_folder_that_is_a_number_gives_another_name(temporary: Path) -> None:
    assert naming.slug("2024") == "app-2024"
    assert naming.slug("2024.") == "app-2024"
    assert naming.is_name(naming.slug("9" * 100))
    root = str(temporary)
    names = naming.assign(root, [((f"{root}/{name}",), None) for name in ("2024", "app-2024", "a")])
    assert len(set(names.values())) == 3
    assert all(naming.is_name(name) for name in names.values())


def test_an_id_without_a_letter_is_an_id(devsup: Devsup, home: Path) -> None:
    """One in three hundred is; `restart` names the server it ends by its id."""
    registry = Registry(Home(str(home)))
    row = reserve(registry, make_row("123456789012"))
    assert find(registry, row.project, "123456789012").row.id == row.id
    registry.withdraw(row.id, row.generation)
    assert devsup("status", "123456789012").code == 2
