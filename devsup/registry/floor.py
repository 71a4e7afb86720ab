"""The highest generation that can have been given out, by all that is left beside the database."""

from __future__ import annotations

import os

from devsup import compactjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.models import Row
    from devsup.paths import Home

__all__ = ["highest_generation"]


def highest_generation(home: Home, rows: list[Row]) -> int:
    """Return the highest generation among the living, the job files and the names of the logs."""
    highest = max((row.generation for row in rows), default=0)
    for name in _names(home.servers):
        try:
            with open(f"{home.servers}/{name}", encoding="utf-8") as file:
                highest = max(highest, int(compactjson.loads(file.read())["generation"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # half a file or somebody else's says nothing
    for folder in _names(home.logs):
        for name in _names(f"{home.logs}/{folder}"):
            parts = name.rsplit(".", 2)
            if len(parts) == 3 and parts[2] == "log" and parts[1].isdecimal():
                highest = max(highest, int(parts[1]))
    return highest


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
