"""
Pools: ports, slots or sandboxes that are lent one at a time, to callers in any number of processes and hosts.

::

    from devsup.pool import Pool

    sandboxes = Pool("sandboxes", ["box-1", "box-2"])  # on this machine; url="redis://..." for many
    with sandboxes.held("worker 7", ttl=30) as lease:
        work(lease.item, lease.fencing)

No item is lent to two at once, whoever asks at the same moment and whoever dies; what was not given back
comes back when its time is over, once. Each lease has a fencing number higher than all before it: whoever is
told a lower number than it has seen knows a caller whose time was over.

The names below are loaded when they are first asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.errors import NotOwner, PoolExhausted
    from devsup.pool._core import Item, Lease
    from devsup.pool._pool import Pool

__all__ = ["Item", "Lease", "NotOwner", "Pool", "PoolExhausted"]

_HOMES = {
    "devsup.errors": ("NotOwner", "PoolExhausted"),
    "devsup.pool._core": ("Item", "Lease"),
    "devsup.pool._pool": ("Pool",),
}


def __getattr__(name: str) -> Any:
    import sys

    for home, names in _HOMES.items():
        if name in names:
            __import__(home)
            return getattr(sys.modules[home], name)
    raise AttributeError(f"module `devsup.pool` has no `{name}`")


def __dir__() -> list[str]:
    return __all__
