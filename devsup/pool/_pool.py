"""The pool for plain programs; `devsup.aio.Pool` is its twin for those with an event loop."""

from __future__ import annotations

from devsup.errors import DevsupError
from devsup.pool._core import Core, drive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self

    from devsup.pool._core import Item, Lease, Store

__all__ = ["Pool", "names", "store_of"]


def store_of(name: str, url: str | None, home: str | None) -> Store:
    """Return where the pool is kept: in Redis where there is a ``url``, else in a state folder."""
    if url is None:
        from devsup.pool._sqlite import SqliteStore

        return SqliteStore(name, home)
    from devsup.redis import client

    client.package()  # without it there is a hint instead of an ImportError
    from devsup.pool._redis import RedisStore

    return RedisStore(name, url)


def names(*, url: str | None = None, home: str | None = None) -> list[str]:
    """Return the names of all pools of a place."""
    if url is None:
        from devsup.pool._sqlite import names as of_machine

        return of_machine(home)
    from devsup.redis import client

    client.package()
    from devsup.pool._redis import names as of_redis

    return of_redis(url)


class Pool:
    """
    Items that are lent one at a time: ports, slots, sandboxes.

    ``items`` are texts or whole numbers, lent as they are given. A pool is known by its name: whoever uses it
    adds the items it names and lends from all of them; `devsup pool NAME remove ITEM` takes one out. It is
    kept in the state folder (``home``, else the environment's) for the processes of one machine, or in Redis
    at ``url`` for those of many.

    Any number of threads may use one object, any number of processes one pool.

    :raises UsageError: an argument is none
    :raises RegistryUnusable: the state folder cannot be used
    :raises FleetUnreachable: Redis cannot be reached, or refuses; from each method
    """

    def __init__(
        self, name: str, items: Iterable[str | int], *, url: str | None = None, home: str | None = None
    ) -> None:
        self._core = Core(name, items, shown=url is None and home is None, here=True)
        self._store = store_of(name, url, home)

    @property
    def name(self) -> str:
        """The name by which all its users know it."""
        return self._core.name

    def acquire(self, owner: str, ttl: float) -> Lease:
        """
        Get the item that has been free for the longest time, for ``ttl`` seconds.

        :raises PoolExhausted: every item is held; says when the next lease is over
        """
        return drive(self._core.acquire(owner, ttl), self._store)

    def renew(self, lease: Lease, ttl: float | None = None) -> Lease:
        """
        Have a lease for ``ttl`` seconds from now (by default as long as it was made for), with its number.

        :raises NotOwner: it is over, or is not the caller's
        """
        return drive(self._core.renew(lease, ttl), self._store)

    def release(self, lease: Lease) -> None:
        """
        Give an item back.

        :raises NotOwner: the lease is over, or is not the caller's
        """
        drive(self._core.release(lease), self._store)

    def items(self) -> list[Item]:
        """Return each item of the pool with who has it."""
        return drive(self._core.items(), self._store)

    def held(self, owner: str, ttl: float) -> Held:
        """
        Return a block that has an item while it runs: ``with pool.held("me", 30) as lease``.

        It is not renewed by itself. A block that ends after its time raises `NotOwner`: somebody else may
        have had the item.
        """
        return Held(self, owner, ttl)

    def close(self) -> None:
        """Close connections; leases stay as they are. The pool can be used again."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Held:
    """The block of `Pool.held`."""

    def __init__(self, pool: Pool, owner: str, ttl: float) -> None:
        self._pool, self._owner, self._ttl = pool, owner, ttl
        self._leases: list[Lease] = []

    def __enter__(self) -> Lease:
        lease = self._pool.acquire(self._owner, self._ttl)
        self._leases.append(lease)
        return lease

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        try:
            self._pool.release(self._leases.pop())
        except DevsupError:
            if kind is None:  # what went wrong in the block is the one to tell
                raise
