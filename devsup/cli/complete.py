"""
What a shell can complete: apps of this project, and what one may call a running server.

Runs inside a shell's key press: never raises, never prints, changes nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from devsup.models import PoolStatus, Server

__all__ = [
    "apps",
    "pool_actions",
    "pool_items",
    "pools",
    "ports",
    "restarts",
    "several_apps",
    "targets",
    "verbs",
]


def apps(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the apps that are found from here, and the names under which servers run."""
    del incomplete
    found: dict[str, str] = {}
    _enter(context)
    try:
        from devsup.apps import configured, detect, project
        from devsup.paths import find_home

        here = os.getcwd()
        seen = detect.survey(project.find_project(here), here)
        found = {app.name: app.kind for app in seen.apps}
        config = configured.load(seen.project, find_home())
        found = {app.name: app.kind for app in configured.apply(seen, config).apps}
    except Exception:
        pass  # a completion that cannot know is empty: an error would be typed into the user's line
    for server in _servers():
        if server.app:
            found.setdefault(server.app, f"{server.state.value}: {server.kind}")
    return sorted(found.items())


def several_apps(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the apps that are not named yet."""
    given = context.params.get("apps") or ()
    return [pair for pair in apps(context, incomplete) if pair[0] not in given]


#: Seconds for what is asked over a network: somebody has pressed a key.
_PRESS = 0.3


def targets(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return names and pids of this project's servers; with `--fleet` the names of those of all hosts."""
    _enter(context)
    given = context.params.get("targets") or ()
    if context.params.get("fleet"):
        return [pair for pair in _of_fleet() if pair[0] not in given]
    found: list[tuple[str, str]] = []
    for server in _servers():
        what = " ".join(filter(None, (server.state.value, server.url)))
        names = [server.app or server.session]
        if incomplete:  # the long names only once it is clear that they are meant
            names += [server.session, str(server.pid or "")]
        found += [(name, what) for name in dict.fromkeys(names) if name and name not in given]
    return found


def pools(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of pools."""
    del incomplete
    return [one.name for one in _pools(context, None)]


def pool_actions(incomplete: str) -> list[tuple[str, str]]:
    """Return what can be done with a pool."""
    del incomplete
    what = {
        "add": "lend these items, too",
        "remove": "lend these items no more",
        "acquire": "get an item",
        "renew": "keep an item for longer",
        "release": "give an item back",
        "free": "take an item from whoever has it",
    }
    return [*what.items()]


def pool_items(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the items of the pool that is named, with who has them."""
    del incomplete
    given = context.params.get("items") or ()
    items = [item for one in _pools(context, context.params.get("name")) for item in one.items]
    return [(str(item.item), item.owner or "free") for item in items if str(item.item) not in given]


def ports(incomplete: str) -> list[tuple[str, str]]:
    """Return the one port that is a word."""
    del incomplete
    return [("auto", "a free port, the same every time")]


def restarts(incomplete: str) -> list[tuple[str, str]]:
    """Return when a server may be run again."""
    del incomplete
    what = ("it stays down", "when it ends by itself", "also after a clean end, and from the first try on")
    return [*zip(("no", "on-failure", "always"), what, strict=True)]


def verbs(incomplete: str) -> list[str]:
    """Return the commands."""
    from devsup.cli.grammar import VERBS

    return [verb for verb in VERBS if verb.startswith(incomplete)]


def _pools(context: typer.Context, name: str | None) -> list[PoolStatus]:
    _enter(context)
    try:
        from devsup.supervisor import Supervisor, pooling

        here = bool(context.params.get("here"))
        return pooling.glimpse(Supervisor(), name, within=_PRESS, here=here)
    except Exception:
        return []  # see above


def _of_fleet() -> list[tuple[str, str]]:
    try:
        from devsup.supervisor import Supervisor, fleetwide, leasing

        supervisor = Supervisor()
        fleet, config = fleetwide.fleet_of(supervisor)
        with leasing.client(fleet, _PRESS) as redis:
            seen = fleetwide.look(supervisor, redis, fleet, config)
        servers = [one for entry in seen.entries if (one := fleetwide.shown(entry, seen)) is not None]
        named = {f"{one.host}/{one.app or one.session}": one.state.value for one in servers}
        return [(name, state) for name, state in named.items() if name.isprintable()]
    except Exception:
        return []  # see above


def _servers() -> list[Server]:
    try:
        from devsup.supervisor import Supervisor

        return Supervisor().list().servers
    except Exception:
        return []  # see above


def _enter(context: typer.Context) -> None:
    folder: Any = context.params.get("directory")
    if folder is None and context.parent is not None:
        folder = context.parent.params.get("directory")
    if isinstance(folder, str):
        try:
            os.chdir(os.path.expanduser(folder))
        except OSError:
            pass  # then the folder will be refused when the command runs
