"""
What the commands promise to programs: what each does to the world, and the shape of its answer.

Constants, and pure functions of the JSON files in `devsup/schemas`.
"""

from __future__ import annotations

import json
import os
from typing import Any

from devsup.cli.answer import LINED
from devsup.cli.grammar import ALIASES, VERBS
from devsup.errors import UsageError

__all__ = ["EFFECTS", "commands", "schema"]

#: What a call may do at most. ``read`` changes nothing that another caller could miss; ``write`` starts or
#: records something; ``destructive`` may end processes.
EFFECTS = {
    "adopt": "write",
    "check": "read",
    "agent-guide": "read",
    "events": "read",
    "config": "read",
    "doctor": "destructive",
    "down": "destructive",
    "hosts": "read",
    "init": "write",
    "list": "read",
    "locks": "read",
    "logs": "read",
    "mcp": "destructive",
    "metrics": "read",
    "monitor": "write",
    "open": "write",
    "pool": "write",
    "ports": "read",
    "prune": "destructive",
    "restart": "destructive",
    "schema": "read",
    "start": "write",
    "status": "read",
    "stop": "destructive",
    "top": "destructive",
    "up": "write",
    "url": "read",
    "version": "read",
    "wait": "read",
    "why": "read",
}

_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "schemas")
_URN = "urn:devsup:schema:1:"


def commands() -> list[dict[str, str]]:
    """Return every command with its effect, in the order in which help lists them."""
    return [{"command": verb, "effect": EFFECTS[verb]} for verb in VERBS]


def schema(command: str) -> dict[str, Any]:
    """
    Return one JSON Schema of the whole answer of ``command``, errors included, with no reference out of it.

    :raises UsageError: there is no such command
    """
    verb = ALIASES.get(command, command)
    if verb not in VERBS:
        raise UsageError(f"no command `{command}`", hint="devsup schema")
    whole = _load("envelope")
    definitions: dict[str, Any] = whole["$defs"]
    _embed(verb, definitions)
    if verb in LINED:
        return _lined(verb, whole)
    whole["title"] = f"The whole answer of `devsup {verb} --json`"
    whole["$id"] = f"{_URN}{verb}:answer"
    data = {"$ref": f"#/$defs/{verb}"}
    whole["properties"]["data"] = {"anyOf": [data, {"type": "null"}]}
    whole["then"]["properties"]["data"] = data
    return whole


def _lined(verb: str, envelope: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of each line of an answer that comes without an envelope unless it has failed."""
    definitions = envelope.pop("$defs")
    head = {name: envelope.pop(name) for name in ("$schema", "$id", "title")}
    envelope["properties"]["ok"] = {"const": False}
    definitions["failure"] = envelope
    return {
        **head,
        "title": f"A line of `devsup {verb} --json`",
        "$id": f"{_URN}{verb}:answer",
        "anyOf": [{"$ref": f"#/$defs/{verb}"}, {"$ref": "#/$defs/failure"}],
        "$defs": definitions,
    }


def _load(name: str) -> dict[str, Any]:
    with open(os.path.join(_FOLDER, f"{name}.json"), encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def _embed(name: str, definitions: dict[str, Any]) -> None:
    """Add the schema ``name`` to ``definitions``, and what it refers to."""
    one = _load(name)
    del one["$id"], one["$schema"]
    definitions[name] = one
    _redirect(one, name, definitions)


def _redirect(node: Any, name: str, definitions: dict[str, Any]) -> None:
    if isinstance(node, list):
        for item in node:
            _redirect(item, name, definitions)
        return
    if not isinstance(node, dict):
        return
    target = node.get("$ref")
    if isinstance(target, str):
        if target.startswith(_URN):
            other, _, inner = target.removeprefix(_URN).partition("#")
            node["$ref"] = f"#/$defs/{other}{inner}"
            if other not in definitions:
                _embed(other, definitions)
        else:
            node["$ref"] = f"#/$defs/{name}{target.removeprefix('#')}"
    for value in node.values():
        _redirect(value, name, definitions)
