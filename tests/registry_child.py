"""Rows for the registry's tests; racing children import this too, so it is small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devsup import identity
from devsup.models import Identity, Row, StopClaim

if TYPE_CHECKING:
    from typing import Any

    from devsup.registry import Registry

__all__ = ["log_of", "make_claim", "make_row", "reserve", "stranger"]


def make_row(server: str = "a1", session: str = "dev_server_web", project: str = "/p", **changes: Any) -> Row:
    """Return a row as a start would reserve it."""
    row = Row(
        id=server,
        generation=0,
        scope=identity.here().key,
        netns="net",
        project=project,
        session=session,
        app="web",
        kind="next",
        cwd=project,
        command=["next", "dev"],
        log="",
        owner=None,
        started_at=1_000,
        starter=identity.me(),
    )
    return row.replace(**changes)


def log_of(generation: int) -> str:
    """Return the log of a generation."""
    return f"/logs/{generation}.log"


def reserve(registry: Registry, row: Row, *, dead: list[Row] | None = None, port: int | None = None) -> Row:
    """Reserve with room for many."""
    return registry.reserve(row, dead=dead or [], limit=1_000, port=port, log_of=log_of)


def stranger(number: int) -> Identity:
    """Return an identity that is not of this process; nothing in the registry looks whether it lives."""
    return Identity(number, number * 10, "boot", 0)


def make_claim(by: Identity, purpose: str = "stop") -> StopClaim:
    """Return a claim to stop."""
    return StopClaim(by, 5_000, purpose, 5.0, sweep=False)
