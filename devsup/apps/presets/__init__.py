"""
The kinds of dev server: one module of plain data each, and the table of them.

Adding a kind is adding a module and a line here; nothing outside asks for a kind by name to decide how it
behaves.
"""

from __future__ import annotations

from devsup.apps.presets.command import KIND as COMMAND
from devsup.apps.presets.expo import KIND as EXPO
from devsup.apps.presets.kind import Kind
from devsup.apps.presets.metro import KIND as METRO
from devsup.apps.presets.next import KIND as NEXT

__all__ = ["COMMAND", "KINDS", "SERVERS", "Kind"]

#: The recognisable ones, in the order in which a script or folder is tried against them.
SERVERS: tuple[Kind, ...] = (NEXT, EXPO, METRO)

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*SERVERS, COMMAND)}
