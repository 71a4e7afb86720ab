"""What devsup promises every program: schemas that stand alone, effects, one quiet and small document."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from devsup.cli import contract
from devsup.cli.answer import LINED
from devsup.cli.grammar import VERBS
from tests.cli_support import SERVES
from tests.support import Answer, free_port, server_argv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import Devsup


def references(node: Any) -> Iterator[str]:
    """Give every reference below ``node``."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def test_every_command_declares_its_effect() -> None:
    """A command that is in no table would be unknown, not safe."""
    assert set(contract.EFFECTS) == set(VERBS)
    assert set(contract.EFFECTS.values()) <= {"read", "write", "destructive"}


@pytest.mark.parametrize("verb", VERBS)
def test_a_schema_stands_alone(verb: str) -> None:
    schema = contract.schema(verb)
    Draft202012Validator.check_schema(schema)
    found = set(references(schema))
    assert all(one.startswith("#/$defs/") for one in found)
    for one in found:
        node = schema
        for step in one.removeprefix("#/").split("/"):
            node = node[step]
    envelope = schema["$defs"]["failure"] if verb in LINED else schema
    assert "description" in envelope["properties"]["notes"]
    answer: dict[str, Any] = {"schema_version": 1, "ok": True, "data": None, "error": None, "notes": []}
    Draft202012Validator(schema).validate({**answer, "ok": False, "error": an_error()})
    for wrong in ({**answer, "data": 1}, {**answer, "ok": False}, {**answer, "error": an_error()}):
        with pytest.raises(ValidationError):
            Draft202012Validator(schema).validate(wrong)


def an_error() -> dict[str, Any]:
    """Return an error of the right shape."""
    return {"code": "usage", "message": "x", "hint": None, "retryable": False, "details": {}}


def test_the_schema_command_shows_both(devsup: Devsup) -> None:
    listed = devsup("schema", "--json").data["commands"]
    assert [one["command"] for one in listed] == list(VERBS)
    assert {one["command"]: one["effect"] for one in listed} == contract.EFFECTS
    shown = json.loads(devsup("schema", "start").out)
    assert shown == devsup("schema", "start", "--json").data == contract.schema("start")
    assert json.loads(devsup("schema", "ls").out) == contract.schema("list")
    assert devsup("schema").out.splitlines()[0].split() == ["COMMAND", "EFFECT"]
    wrong = devsup("schema", "nope", "--json")
    assert (wrong.code, wrong.error["code"], wrong.error["hint"]) == (2, "usage", "devsup schema")


# -- on a real server ----------------------------------------------------------------------------------


def looked_at(answer: Answer, verb: str) -> dict[str, Any]:
    """Return the envelope of an answer that is one line, alone, and as its schema says."""
    assert answer.err == "", answer
    assert answer.out.count("\n") == 1, answer
    envelope = answer.json
    Draft202012Validator(contract.schema(verb)).validate(envelope)
    assert envelope["ok"] is (answer.code == 0)
    return envelope


def times(node: Any) -> Iterator[str]:
    """Give the value of every key that is a time."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name.endswith("_at") or name in ("time", "since"):
                if value is not None:
                    yield value
            else:
                yield from times(value)
    elif isinstance(node, list):
        for item in node:
            yield from times(item)


def test_every_command_says_one_thing_and_says_it_on_stdout(devsup: Devsup, project: Path) -> None:
    """A harness merges stderr into a context that costs money."""
    port = free_port()
    command = ["--port", port, "--", *server_argv("web")]
    targeted = {"status", "logs", "url", "wait", "restart", "check", "why"}
    more = {"monitor": ["--once"]}
    answers = {"start": devsup("start", "web", "--json", *command)}
    for verb in (one for one in VERBS if one not in SERVES | LINED | {"start", "stop"}):
        answers[verb] = devsup(verb, "--json", *(["web"] if verb in targeted else more.get(verb, [])))
    answers["stop"] = devsup("stop", "web", "--json")
    found = [one for verb, answer in answers.items() for one in times(looked_at(answer, verb))]
    assert len(found) > 10
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one) for one in found), found
    # Long paths are paid by whoever has given them; the rest is what every caller pays for.
    given = str(project), str(project.parent / "home"), *server_argv("web")
    for verb in ("start", "status", "stop"):
        text = answers[verb].out
        own = sum(text.count(word) * len(word) for word in given)
        assert len(text) - own < 1024, text
