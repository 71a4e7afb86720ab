"""
In which fleet are the servers of a project, and what is this host called in it? A pure function of its file
and the environment.
"""

from __future__ import annotations

import os

from devsup.errors import UsageError
from devsup.fleet.membership import DEFAULT_NAME, DEFAULT_TTL
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["HOST", "HOW", "URL", "Settings", "host", "read", "why_not"]

#: The variables that say where Redis is, and what this host is called.
URL, HOST = "DEVSUP_FLEET", "DEVSUP_HOST"
#: What a caller without a fleet is told.
HOW = f"set {URL}=redis://HOST:6379, or write `url` into `[fleet]` of devsup.toml"
_LONGEST = 63


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


def host(environ: Mapping[str, str]) -> str:
    """
    Return what this host is called.

    :raises UsageError: the variable holds what can be no name
    """
    told = environ.get(HOST, "").strip()
    if told:
        if len(told) > _LONGEST or not all(letter.isprintable() and letter not in " /" for letter in told):
            raise UsageError(
                f"{HOST} cannot be a name: a text without blanks and `/`, at most {_LONGEST} letters",
                hint=f"unset {HOST}",
            )
        return told
    named = "".join(letter for letter in os.uname().nodename if letter.isprintable() and letter not in " /")
    return named or "localhost"


def _url(said: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, str]:
    if environ.get(URL):
        return URL, environ[URL]
    named: str = said.get("url", "")
    return (named, environ.get(named[1:], "")) if named[:1] == "$" else ("url", named)
