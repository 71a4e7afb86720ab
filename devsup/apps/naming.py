"""
Which name does an app have? The same from every folder of its project, and never that of another app.

Invariant, kept by `assign`: names are distinct, and depend only on the apps given, not on their order.
"""

from __future__ import annotations

import os

from devsup.filenames import portable
from devsup.models import SESSION_PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    #: The folder of an app, and for a further app of the same folder what it is.
    Place = tuple[str] | tuple[str, str]

__all__ = ["SESSION_PREFIX", "assign", "is_name", "label", "slug"]

MAX_LENGTH = 63
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_LETTERS = _FIRST | {"_", "-"}


def is_name(text: str) -> bool:
    """Tell whether ``text`` can be the name of an app: ``[a-z0-9][a-z0-9_-]{0,62}``, and not a number."""
    fits = 0 < len(text) <= MAX_LENGTH and text[0] in _FIRST and _LETTERS.issuperset(text)
    return fits and not text.isdecimal()  # wherever a server is named, a number is a pid


def slug(text: str) -> str:
    """Return ``text`` as a name: lower case, every other sign a hyphen; a number is `app-4711`."""
    letters = "".join(letter if letter in _LETTERS else "-" for letter in portable(text).lower())
    while "--" in letters:
        letters = letters.replace("--", "-")
    name = letters.strip("-_")[:MAX_LENGTH].rstrip("-_") or "app"
    return f"app-{name}"[:MAX_LENGTH] if name.isdecimal() else name


def label(project: str, folder: str) -> str:
    """Return ``folder`` as a reader of the project knows it: relative to its root."""
    return os.path.relpath(folder, project) if folder != project else "."


def assign(
    project: str, apps: Iterable[tuple[Place, str | None]], taken: Iterable[str] = ()
) -> dict[Place, str]:
    """
    Return a name for each app, given as (place, role).

    The only app of a role has the role's name. All others have their folder's, with what a further app of it
    is behind; where two would have the same one, all of these have their path's.
    """
    wanted = sorted(apps, key=lambda app: (app[0], app[1] or ""))
    used = set(taken)
    names: dict[Place, str] = {}
    roles = [role for _, role in wanted]
    for place, role in wanted:
        if role is not None and roles.count(role) == 1 and role not in used:
            names[place] = role
            used.add(role)
    rest = [place for place, _ in wanted if place not in names]
    short = {place: slug("-".join((os.path.basename(place[0]), *place[1:]))) for place in rest}
    plain = list(short.values())
    for place in rest:
        if plain.count(short[place]) == 1 and short[place] not in used:
            names[place] = short[place]
    used.update(names.values())
    for place in rest:
        if place not in names:
            folder = place[0]
            path = label(project, folder) if folder != project else os.path.basename(folder)
            names[place] = _free(slug("-".join((path.replace("/", "-"), *place[1:]))), used)
            used.add(names[place])
    return names


def _free(name: str, used: set[str]) -> str:
    number, free = 2, name
    while free in used:
        suffix = f"-{number}"
        free = name[: MAX_LENGTH - len(suffix)] + suffix
        number += 1
    return free
