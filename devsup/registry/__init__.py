"""What runs, for all processes of a user: transactions over SQLite, the only place with the schema."""

from __future__ import annotations

from devsup.registry.frozen import KEEP
from devsup.registry.queries import Snapshot
from devsup.registry.store import Registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.registry.errors import FolderBusy, Occupied, PoolEmpty, PortLeased, SessionBusy

__all__ = [
    "KEEP",
    "FolderBusy",
    "Occupied",
    "PoolEmpty",
    "PortLeased",
    "Registry",
    "SessionBusy",
    "Snapshot",
]


def __getattr__(name: str) -> object:
    # Only a start meets these; the calls that are made most often do without one more module.
    if name in __all__:
        from devsup.registry import errors

        return getattr(errors, name)
    raise AttributeError(name)
