"""
What the lease of an exclusive app says of its holder, beside token and fencing number: written by the start
that takes it and by the guard that renews it, read by who comes too late. Pure.
"""

from __future__ import annotations

from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from devsup.models import Scope

__all__ = ["Holder", "fields", "place", "read"]


class Holder(Record):
    """
    Who has a lease; ``url`` is None while it does not answer.

    ``place`` is the same for all who use one state folder, within one boot: whether ``server`` still lives
    can be said there.
    """

    host: str
    place: str
    owner: str | None
    url: str | None
    server: str
    generation: int
    fencing: int


def place(scope: Scope, home: str) -> str:
    """Return what all servers of the state folder ``home`` in ``scope`` have in common, and no others."""
    return f"{scope.boot}/{scope.pidns}{home}"


def fields(
    host: str, place: str, *, owner: str | None, url: str | None, server: str, generation: int
) -> dict[str, str]:
    """Return the fields as `devsup.redis.leases.acquire` and `renew` take them; all of them, each time."""
    return {
        "host": host,
        "place": place,
        "owner": owner or "",
        "url": url or "",
        "server": server,
        "generation": str(generation),
    }


def read(held: Mapping[str, str]) -> Holder | None:
    """Return who holds it, by the fields that Redis gave; None where another version has written them."""
    try:
        return Holder(
            host=held["host"],
            place=held["place"],
            owner=held["owner"] or None,
            url=held["url"] or None,
            server=held["server"],
            generation=int(held["generation"]),
            fencing=int(held["fencing"]),
        )
    except (KeyError, ValueError):
        return None
