"""
What runs on all hosts of the fleet, as Redis has it: one round trip, however many there are.

Reads only. A server is on the list as long as its guard says that it is there, or has not been heard of for
less than a day; what is there now is known on its own host alone.
"""

from __future__ import annotations

import os

from devsup import identity
from devsup.clock import iso, now_ms
from devsup.errors import UsageError
from devsup.fleet import listing, settings
from devsup.models import FleetList, FleetServer, HostList, HostSeen, Server, State
from devsup.records import Record
from devsup.registry import Registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.config import Config
    from devsup.fleet.listing import Entry
    from devsup.fleet.settings import Settings
    from devsup.redis.connection import Client
    from devsup.supervisor.looking import Looking

__all__ = ["Seen", "fleet_list", "fleet_of", "hosts", "look", "shown"]


class Seen(Record):
    """
    The fleet at one moment.

    ``entries`` are all that this supervisor may see, ``own`` the ids of those in its own state folder,
    ``project`` what its project is called in the fleet, ``ahead`` by how many ms this host's clock goes
    before that of Redis.
    """

    entries: list[Entry]
    own: frozenset[str]
    project: str | None
    ahead: int


def fleet_of(supervisor: Looking) -> tuple[Settings, Config | None]:
    """
    Return the fleet that is meant here.

    :raises UsageError: there is none
    """
    from devsup.apps import fleets

    fleet, config = fleets.of_project(supervisor.project, supervisor.home, os.environ)
    if fleet is None:
        said = config.fleet if config is not None else {}
        raise UsageError(settings.why_not(said), hint=settings.HOW)
    return fleet, config


def look(supervisor: Looking, client: Client, fleet: Settings, config: Config | None) -> Seen:
    """
    Return the fleet.

    :raises FleetUnreachable: Redis cannot be asked
    """
    from devsup.apps import fleets

    answer: Any = client.call(*listing.read_all(fleet.name))
    ahead = now_ms() - int(answer[0])
    entries = listing.entries(answer)
    project = fleets.identity(supervisor.project, config)
    if supervisor.within is not None:
        # Folders of other hosts say nothing here: whoever may see this project sees it everywhere.
        entries = [one for one in entries if project is not None and one.project == project]
    registry = Registry(supervisor.home)
    own = frozenset(row.id for row in registry.rows(scope=identity.here().key))
    supervisor.notes += [note for note in registry.warnings if note not in supervisor.notes]
    return Seen(entries, own, project, ahead)


def fleet_list(supervisor: Looking) -> FleetList:
    """Return the servers of all hosts; see `Supervisor.list`."""
    from devsup.supervisor.leasing import client

    fleet, config = fleet_of(supervisor)
    with client(fleet) as redis:
        seen = look(supervisor, redis, fleet, config)
    servers: list[Server] = [one for entry in seen.entries if (one := shown(entry, seen)) is not None]
    return FleetList(servers, [], list(supervisor.notes))


def hosts(supervisor: Looking) -> HostList:
    """Return the hosts of the fleet; see `Supervisor.hosts`."""
    from devsup.supervisor.leasing import client

    fleet, config = fleet_of(supervisor)
    with client(fleet) as redis:
        seen = look(supervisor, redis, fleet, config)
    found: dict[str, list[Entry]] = {}
    for one in seen.entries:
        found.setdefault(one.host, []).append(one)
    return HostList(
        [
            HostSeen(
                host,
                sum(not one.lost for one in entries),
                sum(one.lost for one in entries),
                iso(max(one.seen_at for one in entries) + seen.ahead) or "",
                here=any(one.id in seen.own for one in entries) or host == fleet.host,
            )
            for host, entries in sorted(found.items())
        ],
        list(supervisor.notes),
    )


#: What the fields of a record may be, beside None: another version may have published it, or a stranger.
_KINDS: dict[str, type] = dict.fromkeys(
    ("generation", "pid", "guard_pid", "port", "exit_code", "signal"), int
)
_NEVER_NONE = frozenset(("id", "generation", "session", "kind", "project", "cwd", "started_at", "log"))


def shown(entry: Entry, seen: Seen) -> FleetServer | None:
    """Return the public record; None for what is none. Times of sight are by this host's clock."""
    fields: dict[str, Any] = {name: entry.server.get(name) for name in Server._fields}
    command = fields.pop("command")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        return None
    for name, value in fields.items():
        if value is None:
            if name in _NEVER_NONE:
                return None
        elif type(value) is not _KINDS.get(name, str):
            return None
    try:
        fields["state"] = State(fields["state"])
    except ValueError:
        return None
    fields["scope"] = "here" if entry.id in seen.own else "foreign"
    at = iso(max(entry.seen_at, 0) + seen.ahead) or ""
    return FleetServer(**fields, command=command, host=entry.host, seen_at=at)
