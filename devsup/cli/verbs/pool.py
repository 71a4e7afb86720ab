"""`devsup pool`: what is lent to whom, and how to change that."""

from __future__ import annotations

from devsup import masking
from devsup.cli import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.errors import DevsupError
    from devsup.models import PoolList
    from devsup.pool import Item
    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines"]


def handle(supervisor: Supervisor, options: dict[str, Any], _: object) -> tuple[PoolList, DevsupError | None]:
    """Do what is asked for, and look."""
    found = supervisor.pool(
        options["name"],
        options["action"],
        options["items"] or (),
        owner=options["owner"],
        ttl=options["ttl"],
        fencing=options["fencing"],
        force=options["force"],
        here=options["here"],
    )
    return found, None


def lines(found: PoolList) -> list[str]:
    """Return one line an item, and of a new lease nothing but its item."""
    if found.lease is not None:
        return [plain.clean(str(found.lease.item))]
    cells = []
    for pool in found.pools:
        cells += [[masking.text(pool.name), *_cells(one)] for one in pool.items]
        if not pool.items:
            cells.append([masking.text(pool.name), *"----"])
    return plain.aligned([["POOL", "ITEM", "OWNER", "NUMBER", "UNTIL"], *cells])


def _cells(one: Item) -> list[str]:
    return [
        masking.text(str(one.item)),
        masking.text(plain.or_dash(one.owner)),
        plain.or_dash(one.fencing),
        plain.or_dash(one.expires_at),
    ]
