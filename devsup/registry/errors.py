"""What the registry tells its callers about a reservation that cannot be; they make an answer of it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.models import Row
    from devsup.registry.pools import Pool

__all__ = ["FolderBusy", "Occupied", "PoolEmpty", "PortLeased", "SessionBusy"]


class Occupied(Exception):
    """Something a start needs belongs to the server ``row``; never shown to a user as it is."""

    def __init__(self, row: Row) -> None:
        super().__init__(f"{row.session} of {row.project} (server {row.id}, generation {row.generation})")
        self.row = row


class SessionBusy(Occupied):
    """The session has a live server."""


class FolderBusy(Occupied):
    """A live server of a kind that allows one per folder runs in this folder."""


class PortLeased(Occupied):
    """The port is leased to another server."""


class PoolEmpty(Exception):
    """Every number of the pool is lent, or taken by somebody else."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(f"{pool.name}: {pool.first} to {pool.first + pool.size - 1}")
        self.pool = pool
