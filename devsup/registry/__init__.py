"""What runs, for all processes of a user: transactions over SQLite, the only place with the schema."""

from __future__ import annotations

from devsup.registry.errors import FolderBusy, Occupied, PortLeased, SessionBusy
from devsup.registry.frozen import KEEP
from devsup.registry.queries import Snapshot
from devsup.registry.store import Registry

__all__ = ["KEEP", "FolderBusy", "Occupied", "PortLeased", "Registry", "SessionBusy", "Snapshot"]
