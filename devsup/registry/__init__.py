"""What runs, for every process of this user: transactions over SQLite, the only place that knows the schema."""

from __future__ import annotations

from devsup.registry.errors import FolderBusy, Occupied, PortLeased, SessionBusy
from devsup.registry.frozen import KEEP
from devsup.registry.store import Registry, Snapshot

__all__ = ["KEEP", "FolderBusy", "Occupied", "PortLeased", "Registry", "SessionBusy", "Snapshot"]
