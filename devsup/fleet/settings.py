"""
In which fleet are the servers of a project, and what is this host called in it? A pure function of its file
and the environment.
"""

from __future__ import annotations

from devsup.fleet.membership import DEFAULT_NAME, DEFAULT_TTL
from devsup.records import Record
from devsup.redis.hosts import HOST, host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["HOST", "HOW", "URL", "Settings", "host", "read", "why_not"]

#: The variable that says where Redis is.
URL = "DEVSUP_FLEET"
#: What a caller without a fleet is told.
HOW = f"set {URL}=redis://HOST:6379, or write `url` into `[fleet]` of devsup.toml"


class Settings(Record):
    """
    A fleet. ``url`` may hold a password: it is never written down or shown; ``source`` is where it is from.

    The rest is as in `devsup.fleet.membership.Membership`.
    """

    url: str
    source: str
    name: str
    ttl: float
    on_lost: str
    host: str


def read(said: Mapping[str, Any], environ: Mapping[str, str]) -> Settings | None:
    """
    Return the fleet that ``said`` (the table `[fleet]`) and ``environ`` mean; None where there is none.

    :raises UsageError: this host cannot be called so
    """
    source, url = _url(said, environ)
    if not url:
        return None
    return Settings(
        url,
        source,
        said.get("name", DEFAULT_NAME),
        said.get("ttl", DEFAULT_TTL),
        said.get("on_lost", "keep"),
        host(environ),
    )


def why_not(said: Mapping[str, Any]) -> str:
    """Return why `read` has found no fleet, for a sentence."""
    named = said.get("url", "")
    return f"`{named[1:]}` is not set, which `[fleet]` names" if named else "no fleet is configured"


def _url(said: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, str]:
    if environ.get(URL):
        return URL, environ[URL]
    named: str = said.get("url", "")
    return (named, environ.get(named[1:], "")) if named[:1] == "$" else ("url", named)
