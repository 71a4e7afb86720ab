"""The names of a fleet's keys. One hash tag for all of them: what one script touches lies in one place."""

from __future__ import annotations

from devsup.redis.leases import Keys

__all__ = ["answer", "lease", "mail", "prefix", "seen", "servers"]


def prefix(fleet: str) -> str:
    """Return what every key of the fleet ``fleet`` begins with."""
    return f"{{devsup:{fleet}}}:"


def servers(fleet: str) -> str:
    """Return the key of the records, by the id of the server."""
    return f"{prefix(fleet)}servers"


def seen(fleet: str) -> str:
    """Return the key of the last sign of life of each server."""
    return f"{prefix(fleet)}seen"


def mail(fleet: str, server: str) -> str:
    """Return the key of the requests to the guard of a server, and of the channel that wakes it."""
    return f"{prefix(fleet)}mail:{server}"


def answer(fleet: str, request: str) -> str:
    """Return the key of the answer to a request."""
    return f"{prefix(fleet)}answer:{request}"


def lease(fleet: str, project: str, app: str) -> Keys:
    """Return where the lease of an exclusive app stands."""
    return Keys(f"{prefix(fleet)}lease:{project}:{app}", f"{prefix(fleet)}fence:{project}:{app}")
