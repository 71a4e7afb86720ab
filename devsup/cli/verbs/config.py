"""`devsup config`: what is in force for each app, and where each value comes from."""

from __future__ import annotations

import json

from devsup.cli import handlers, plain
from devsup.models import ConfigResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines"]


def handle(
    supervisor: Supervisor, options: dict[str, Any], _progress: Any
) -> tuple[ConfigResult | dict[str, Any], None]:
    """Return the values, or the schema of the file."""
    if options["schema"]:
        from devsup.apps.presets import KINDS
        from devsup.config.model import json_schema

        return json_schema(tuple(KINDS)), None
    port = handlers.read_port(options)
    env = handlers.read_environment(options["env"])
    return supervisor.config(options["app"], port=port, env=env or None), None


def lines(data: ConfigResult | dict[str, Any]) -> list[str]:
    """Return a table of what somebody said or what was found; what is as usual is left out."""
    if not isinstance(data, ConfigResult):
        return json.dumps(data, indent=2, ensure_ascii=False).splitlines()
    table = [("APP", "KEY", "SOURCE", "VALUE")]  # a command may be longer than the screen
    for app, keys in data.apps.items():
        for key, one in keys.items():
            if one["source"] != "default" or key == "port":
                table.append((app, key, one["source"], _text(key, one["value"])))
    # Of a fleet nothing is said where there is none.
    for key, one in data.fleet.items() if data.fleet["url"]["value"] is not None else ():
        table.append(("[fleet]", key, one["source"], _text(key, one["value"])))
    return plain.aligned(table)


def _text(key: str, value: Any) -> str:
    from devsup import durations, masking

    if key == "command":
        return masking.shown(value)
    if isinstance(value, float):
        return durations.shown(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return plain.or_dash(value) if not isinstance(value, bool) else str(value).lower()
