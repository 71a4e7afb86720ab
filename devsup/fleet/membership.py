"""
What one server is to its fleet, as its job and its guard have it. A record, no state.

The address of Redis is no part of it: it may hold a password, and a job is a file.
"""

from __future__ import annotations

from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ADDRESS", "DEFAULT_NAME", "DEFAULT_TTL", "Membership", "Mine", "read"]

#: The variable that tells a guard where Redis is; its server does not get it.
ADDRESS = "DEVSUP_GUARD_FLEET"
DEFAULT_NAME = "default"
#: Seconds for which a host that is not heard of counts as there.
DEFAULT_TTL = 30.0


class Mine(Record):
    """
    The lease of an exclusive app, as its holder has it.

    ``since`` is when its acquisition was sent, by `devsup.clock.boottime`; it counts from there.
    """

    app: str
    token: str
    fencing: int
    since: float | None = None


class Membership(Record):
    """
    A server in the fleet ``name``, on the host ``host``.

    ``project`` is the same on all hosts, None where nothing names it; ``ttl`` are seconds; ``on_lost`` is
    what becomes of an exclusive server whose lease is lost: ``"keep"`` or ``"stop"``. ``lease`` is None where
    the app is not exclusive.
    """

    name: str
    host: str
    project: str | None
    ttl: float = DEFAULT_TTL
    on_lost: str = "keep"
    lease: Mine | None = None

    def plain(self) -> dict[str, Any]:
        """Return it as a job holds it; see `read`."""
        fields = self.asdict()
        fields["lease"] = self.lease.asdict() if self.lease is not None else None
        return fields


def read(fields: dict[str, Any] | None) -> Membership | None:
    """
    Return what `Membership.plain` has written.

    :raises KeyError, TypeError: it is of another version
    """
    if fields is None:
        return None
    lease = fields.get("lease")
    return Membership(**{**fields, "lease": Mine(**lease) if lease is not None else None})
