"""
How long a server lives and what becomes of it when it ends by itself, as asked for by a caller.

A policy is a plain dict that goes to the guard in the job: see `devsup.guard.job`. A project file fills the
same keys; what a caller asks for wins.
"""

from __future__ import annotations

from devsup import durations, identity
from devsup.config import values
from devsup.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["asked", "merged"]

_HELP = "devsup start --help"


def asked(
    *,
    restart: str | None = None,
    idle_timeout: str | float | None = None,
    ttl: str | float | None = None,
    with_parent: int | None = None,
) -> dict[str, Any]:
    """
    Return what a caller asks for; a key whose value is None is to be as usual, whatever a file says.

    :raises UsageError: no such word, no duration, or no such process
    """
    policy: dict[str, Any] = {}
    if restart is not None:
        if restart not in values.RESTARTS:
            words = ", ".join(f"`{word}`" for word in values.RESTARTS)
            raise UsageError(f"`{_brief(restart)}` is no way to restart: {words}", hint=_HELP)
        policy["restart"] = None if restart == "no" else restart
    for key, given in (("idle_timeout", idle_timeout), ("ttl", ttl)):
        if given is None:
            continue
        try:
            policy[key] = durations.parse(given) or None
        except ValueError as error:
            raise UsageError(f"--{key.replace('_', '-')}: {error}", hint=_HELP) from None
    if with_parent is not None:
        policy["parent"] = _parent(with_parent)
    return policy


def merged(policy: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return ``policy`` with what a caller asked for."""
    return {key: value for key, value in {**policy, **given}.items() if value is not None}


def _parent(pid: int) -> dict[str, Any]:
    # Who it is now: a process that gets the same number later is somebody else.
    who = identity.of(pid) if 0 < pid < 1 << 31 else None
    if who is None:
        raise UsageError(
            f"there is no process {_brief(str(pid))} with which the server could end",
            hint="give the pid of a process that lives as long as you need the server",
        )
    return who.asdict()


def _brief(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:20]}…"
