"""
The kinds of dev server: one module of plain data each, and the table of them.

Adding a kind is adding a module and a line here (docs/kinds.md); nothing outside asks for a kind by name to
decide how it behaves.
"""

from __future__ import annotations

from devsup.apps.presets.angular import KIND as ANGULAR
from devsup.apps.presets.astro import KIND as ASTRO
from devsup.apps.presets.command import KIND as COMMAND
from devsup.apps.presets.django import KIND as DJANGO
from devsup.apps.presets.expo import KIND as EXPO
from devsup.apps.presets.fastapi import KIND as FASTAPI
from devsup.apps.presets.flask import KIND as FLASK
from devsup.apps.presets.kind import Kind
from devsup.apps.presets.metro import KIND as METRO
from devsup.apps.presets.next import KIND as NEXT
from devsup.apps.presets.nuxt import KIND as NUXT
from devsup.apps.presets.react_router import KIND as REACT_ROUTER
from devsup.apps.presets.storybook import KIND as STORYBOOK
from devsup.apps.presets.sveltekit import KIND as SVELTEKIT
from devsup.apps.presets.uvicorn import KIND as UVICORN
from devsup.apps.presets.vite import KIND as VITE
from devsup.apps.presets.webpack import KIND as WEBPACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

__all__ = ["COMMAND", "KINDS", "PYTHON", "SERVERS", "Kind", "of_program", "refined"]

#: The recognisable ones, in the order in which a script or folder is tried against them: what is built on
#: another comes before it.
SERVERS: tuple[Kind, ...] = (
    *(NEXT, EXPO, METRO),
    *(NUXT, ASTRO, SVELTEKIT, REACT_ROUTER, ANGULAR, VITE, WEBPACK, STORYBOOK),
    *(DJANGO, FASTAPI, FLASK, UVICORN),
)

#: Those that a Python project is tried against.
PYTHON: tuple[Kind, ...] = tuple(kind for kind in SERVERS if kind.python)

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*SERVERS, COMMAND)}

#: Those whose program has this name, but for what only the package tells, each with its place in `SERVERS`.
_PROGRAMS: dict[str, tuple[int, Kind]] = {
    program: (place, kind)
    for place, kind in enumerate(SERVERS)
    if kind.refines is None
    for program in kind.programs
}


def of_program(program: str) -> tuple[int, Kind] | None:
    """Return the kind with this program, and its rank: where a script runs several, the lowest one counts."""
    return _PROGRAMS.get(program)


def refined(kind: Kind, dependencies: AbstractSet[str]) -> Kind:
    """Return the kind that ``kind`` is in a package with these dependencies: SvelteKit where Vite runs it."""
    for other in SERVERS:
        if other.refines == kind.name and not dependencies.isdisjoint(other.dependencies):
            return other
    return kind
