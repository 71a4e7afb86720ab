"""
What is in the pools of a Redis, told within a moment or not at all: for a key press.

By devsup's own client, which loads no library and does not try again. It only looks, where `RedisStore` would
make the pool that it is asked for.
"""

from __future__ import annotations

import time

from devsup.pool._core import Core, drive, is_name
from devsup.pool._scripts import NAMES, SCRIPTS, arguments, keys, read
from devsup.redis import address
from devsup.redis.connection import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.pool._core import Answer, Item, Request

__all__ = ["glance"]


def glance(url: str, name: str | None, within: float) -> list[tuple[str, list[Item]]]:
    """
    Return the pool that is named with its items, or all of them without, within so many seconds.

    :raises UsageError: ``url`` is none
    :raises FleetUnreachable: Redis cannot be reached, refuses, or has not told in time
    """
    deadline = time.monotonic() + within
    with Client(address.parse(url), within) as client:
        found: Any = client.call("SMEMBERS", NAMES)
        known = sorted(one for one in map(str, found) if is_name(one))
        if name is None:
            return [(one, []) for one in known]
        if name not in known:
            return []
        return [(name, drive(Core(name, None).items(), _Glance(name, client, deadline)))]


class _Glance:
    """The store of one pool that is only looked at, up to ``deadline`` (monotonic)."""

    def __init__(self, name: str, client: Client, deadline: float) -> None:
        self._keys, self._client, self._deadline = keys(name), client, deadline

    def call(self, request: Request) -> Answer:
        """Ask for what there is; of a pool that is none there is no life, and it stays so."""
        operation = request[0]
        if operation == "define":
            return "defined", self._ask("HGET", self._keys[0], "life") or ""
        script = SCRIPTS[operation]
        return read(self._ask("EVAL", script, len(self._keys), *self._keys, *arguments(request)))

    def _ask(self, *command: str | int) -> Any:
        return self._client.call(*command, timeout=max(0.0, self._deadline - time.monotonic()))

    def close(self) -> None:
        """Leave the client to whoever has it."""
