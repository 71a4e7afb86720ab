"""
Redis, where a fleet is configured: does it answer in time, may this user do what a fleet does, can it forget.

Also whether this host's servers are on its list, and hold their leases. What is written for it, a key and an
empty message, is gone within a second; nothing else is changed.
"""

from __future__ import annotations

import select
import time

from devsup.apps import fleets
from devsup.clock import now_ms
from devsup.doctor.scene import BAD, WARN, Seen, found
from devsup.errors import ConfigInvalid, DevsupError, FleetUnreachable
from devsup.fleet import keys, listing, membership, note, settings
from devsup.guard import job as jobs
from devsup.redis.connection import Client, Connection, failed
from devsup.redis.failures import words
from devsup.redis.resp import ErrorReply, Push

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.doctor.scene import Known, Scene
    from devsup.fleet.settings import Settings
    from devsup.redis.address import Address

__all__ = ["KINDS", "look"]

KINDS = (
    *("fleet_unreachable", "redis_address", "redis_old", "redis_unwritable", "redis_evicts", "redis_pubsub"),
    *("fleet_host", "lease_lost", "server_unpublished"),
)
#: Seconds for all that is asked: a check of everything takes one.
_PATIENCE = 0.8
_OLDEST = (6, 2)
#: Seconds after its start in which a server need not be published yet.
_YOUNG = 5.0


def look(scene: Scene, facts: list[str]) -> list[Seen] | None:
    """Ask it."""
    try:
        fleet, config = fleets.of_project(scene.project, scene.home, scene.environ)
    except ConfigInvalid:
        return None  # the ports part says what is wrong with the file
    except DevsupError as error:  # of all that the fleet is made of, only the name of this host is left
        return [*_leases(scene, facts), Seen(BAD, "fleet_host", error.message, error.hint or "correct it")]
    if fleet is None:
        facts.append(settings.why_not(config.fleet if config is not None else {}))
        return None
    leases = _leases(scene, facts)
    try:
        address = fleets.address(fleet)
    except DevsupError as error:
        return [*leases, Seen(BAD, "redis_address", error.message, error.hint or "correct it")]
    try:
        with Client(address, _PATIENCE, name="devsup-doctor") as client:
            return [*leases, *_ask(scene, fleet, client, facts)]
    except FleetUnreachable as error:
        return [*leases, found(error)]


def _ask(scene: Scene, fleet: Settings, client: Client, facts: list[str]) -> list[Seen]:
    client.call("PING")
    began = time.monotonic()
    mine = [one for one in scene.known or () if _is_member(scene, one, fleet)]
    ids = [one.row.id for one in mine]
    channel = keys.mail(fleet.name, "doctor")
    replies = client.pipeline(
        [
            ("TIME",),
            ("INFO",),
            listing.probe(fleet.name),
            ("PUBLISH", channel, ""),
            ("HLEN", keys.servers(fleet.name)),
            *((("ZMSCORE", keys.seen(fleet.name), *ids),) if ids else ()),
        ]
    )
    ms = (time.monotonic() - began) * 1e3
    clock, info, written, published, listed = replies[:5]
    told = _info(info)
    facts.append(f"`{client.address}` answers in {ms:.1f} ms, version {told.get('redis_version', 'unknown')}")
    if isinstance(clock, list):
        ahead = (int(str(clock[0])) * 1000 + int(str(clock[1])) // 1000 - now_ms()) / 1e3
        facts.append(f"its clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this host's")
    seen = [*_version(told), *_memory(told)]
    refused = next((one for one in (written, listed) if isinstance(one, ErrorReply)), None)
    if refused is not None:
        error = failed(client.address, refused)
        seen.append(Seen(BAD, "redis_unwritable", error.message, error.hint or "see what Redis says"))
    refusal = published if isinstance(published, ErrorReply) else _subscribe(client.address, channel)
    if refusal is not None:
        why = (
            f"{words(client.address, refusal)[0]}: so a stop from another host is heard"
            f" after up to {fleet.ttl / 3:g} s, not at once"
        )
        user = client.address.user or "default"
        allow = f"allow it: `ACL SETUSER {user} +@pubsub &{keys.prefix(fleet.name)}*`"
        seen.append(Seen(WARN, "redis_pubsub", why, allow))
    scores = replies[5] if ids else []
    return [*seen, *_unpublished(scene, mine, scores if isinstance(scores, list) else [])]


def _info(reply: object) -> dict[str, str]:
    if isinstance(reply, ErrorReply):
        return {}
    pairs = (line.partition(":") for line in str(reply).splitlines() if line[:1] not in ("", "#"))
    return {name: value.strip() for name, _, value in pairs}


def _version(told: dict[str, str]) -> list[Seen]:
    version = told.get("redis_version", "")
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if len(parts) < len(_OLDEST) or parts >= _OLDEST:
        return []
    return [
        Seen(
            BAD,
            "redis_old",
            f"Redis is of version {version}: a fleet needs 6.2 or later",
            "use a newer Redis",
        )
    ]


def _memory(told: dict[str, str]) -> list[Seen]:
    policy = told.get("maxmemory_policy", "noeviction")
    if told.get("maxmemory", "0") == "0" or policy == "noeviction":
        return []
    return [
        Seen(
            WARN,
            "redis_evicts",
            f"Redis may forget leases when its memory is full (maxmemory-policy is `{policy}`)",
            "in redis-cli: `CONFIG SET maxmemory-policy noeviction`, or use a Redis of its own",
        )
    ]


def _subscribe(address: Address, channel: str) -> ErrorReply | None:
    """Return why the user may not listen; None where it may, or nothing was said in time."""
    connection = Connection(address, name="devsup-doctor")
    deadline = time.monotonic() + _PATIENCE / 2
    try:
        connection.send(("SUBSCRIBE", channel))
        while connection.closed_why is None and (left := deadline - time.monotonic()) > 0:
            for reply in connection.advance():
                if isinstance(reply, ErrorReply):
                    return reply
                if isinstance(reply, Push) or connection.protocol == 2:
                    return None
            poll = select.poll()
            poll.register(connection.fd, connection.events)
            poll.poll(left * 1e3)
    finally:
        connection.close()
    return None


# -- this host's servers -----------------------------------------------------------------------------------


def _leases(scene: Scene, facts: list[str]) -> list[Seen]:
    seen, held = [], 0
    for one in scene.known or ():
        lease = note.shown(scene.home, one.row.id) if one.life in ("live", "orphaned") else None
        if lease is None:
            continue
        if lease["state"] == "held":
            held += 1
            continue
        row, name = one.row, one.row.app or one.row.session
        message = f"`{name}` of `{row.project}` runs without its lease: another host may run it, too"
        fix = scene.command("stop" if one.life == "live" else "start", row)
        about = {"project": row.project, "session": row.session}
        seen.append(Seen(BAD, f"lease_lost:{row.id}", message, fix, **about))  # type: ignore[arg-type] # by name
    if held or seen:
        facts.append(f"leases: {held} held, {len(seen)} lost")
    return seen


def _is_member(scene: Scene, one: Known, fleet: Settings) -> bool:
    """Tell whether a server of this project is to be on the list of this fleet."""
    if one.life != "live" or one.row.project != scene.project:
        return False
    job = jobs.find(scene.home.job(one.row.id))
    try:
        member = membership.read(job.fleet) if job is not None else None
    except (KeyError, TypeError):
        return False
    return member is not None and member.name == fleet.name


def _unpublished(scene: Scene, mine: list[Known], scores: list[Any]) -> list[Seen]:
    seen = []
    for one, score in zip(mine, scores, strict=False):
        row, name = one.row, one.row.app or one.row.session
        if score is not None or now_ms() - row.started_at < _YOUNG * 1e3:
            continue
        message = f"`{name}` runs, and other hosts do not see it: its guard does not reach this Redis"
        fix = f"read `{scene.home.guard_log(row.project, row.session)}`"
        about = {"project": row.project, "session": row.session}
        kind = f"server_unpublished:{row.id}"
        seen.append(Seen(WARN, kind, message, fix, **about))  # type: ignore[arg-type] # by name
    return seen
