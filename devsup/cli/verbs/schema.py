"""`devsup schema`: the shape of a command's answer, or what each command does to the world."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from devsup.cli import contract, plain

if TYPE_CHECKING:
    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines"]


def handle(_supervisor: Supervisor, options: dict[str, Any], _progress: Any) -> tuple[dict[str, Any], None]:
    """Return the JSON Schema of one command's answer, or all commands with their effects."""
    if options["command"] is not None:
        return contract.schema(options["command"]), None
    return {"commands": contract.commands()}, None


def lines(data: dict[str, Any]) -> list[str]:
    """Return a schema as it is written to a file, or a table of the commands."""
    if "commands" not in data:
        return json.dumps(data, indent=2).splitlines()
    return plain.aligned(
        [("COMMAND", "EFFECT"), *((one["command"], one["effect"]) for one in data["commands"])]
    )
