"""
The pools of the fleet, or of this machine, shown and edited: what `devsup.pool` is for programs, for people.

Each edit is one atomic step of the store; what is shown afterwards is of a moment a little later.
"""

from __future__ import annotations

import os

from devsup import durations, masking
from devsup.apps import fleets
from devsup.apps import owner as owners
from devsup.errors import NotFound, OtherOwner, UsageError
from devsup.models import PoolList, PoolStatus
from devsup.pool._core import Core, Lease, check_name, drive
from devsup.pool._pool import names, store_of
from devsup.redis import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from devsup.pool._core import Item, Store
    from devsup.supervisor.looking import Looking

__all__ = ["ACTIONS", "glimpse", "pools"]

#: What can be done with a pool, and whether that names items.
ACTIONS = {"add": True, "remove": True, "acquire": False, "renew": True, "release": True, "free": True}
_LONG_AGO = "1970-01-01T00:00:00.000Z"


def pools(
    supervisor: Looking,
    name: str | None,
    action: str | None,
    items: Sequence[str],
    *,
    owner: str | None,
    ttl: str | float | None,
    fencing: int | None,
    force: bool,
    here: bool,
) -> PoolList:
    """Do ``action`` with a pool, where there is one, and return what there is to see of it then."""
    url, where = _place(supervisor, here=here)
    home = supervisor.home.root
    if name is None:
        return PoolList(where, [_status(one, url, home) for one in names(url=url, home=home)], None, [])
    _check(name, action, items)
    if action != "add" and name not in (known := names(url=url, home=home)):
        raise NotFound(f"no pool `{masking.text(name)}` in `{where}`", hint=_hint(known, here=here))
    store = store_of(name, url, home)
    try:
        edit = _Edit(Core(name, None, here=here), store, action or "show")
        lease, notes = edit.run(items, owner=owner, ttl=ttl, fencing=fencing, force=force)
        return PoolList(where, [PoolStatus(name, edit.items())], lease, notes)
    finally:
        store.close()


def glimpse(supervisor: Looking, name: str | None, *, within: float, here: bool) -> list[PoolStatus]:
    """
    Return the pool that is named, or all of them without their items; nothing is made or changed.

    :raises DevsupError: the place cannot be used, or its Redis did not tell within so many seconds
    """
    url, _ = _place(supervisor, here=here)
    if url is not None:
        from devsup.pool._glance import glance

        return [PoolStatus(one, items) for one, items in glance(url, name, within)]
    home = supervisor.home.root
    if name is None:
        return [PoolStatus(one, []) for one in names(home=home)]
    return [_status(one, None, home) for one in names(home=home) if one == name]


def _place(supervisor: Looking, *, here: bool) -> tuple[str | None, str]:
    fleet = None if here else fleets.of_project(supervisor.project, supervisor.home, os.environ)[0]
    if fleet is None:
        return None, supervisor.home.root
    return fleet.url, str(address.parse(fleet.url))


def _status(name: str, url: str | None, home: str) -> PoolStatus:
    store = store_of(name, url, home)
    try:
        return PoolStatus(name, drive(Core(name, None).items(), store))
    finally:
        store.close()


def _check(name: str, action: str | None, items: Sequence[str]) -> None:
    check_name(name)
    if action is None:
        return
    if action not in ACTIONS:
        raise UsageError(
            f"`{masking.text(action)}` is none of {', '.join(f'`{one}`' for one in ACTIONS)}",
            hint="devsup pool --help",
        )
    if ACTIONS[action] and not items:
        raise UsageError(f"`{action}` needs an item", hint="devsup pool --help")
    if not ACTIONS[action] and items:
        raise UsageError("`acquire` takes whichever is free: leave out the item", hint="devsup pool --help")
    if action in ("renew", "release") and len(items) > 1:
        raise UsageError(f"`{action}` takes one item at a time", hint="devsup pool --help")


def _hint(known: Sequence[str], *, here: bool) -> str:
    if not known:
        return "devsup pool --help"
    return "devsup pool --here" if here else "devsup pool"


class _Edit:
    """One action on one pool."""

    def __init__(self, core: Core, store: Store, action: str) -> None:
        self._core, self._store, self._action = core, store, action

    def items(self) -> list[Item]:
        """Return what is in the pool."""
        return drive(self._core.items(), self._store)

    def run(
        self,
        items: Sequence[str],
        *,
        owner: str | None,
        ttl: str | float | None,
        fencing: int | None,
        force: bool,
    ) -> tuple[Lease | None, list[str]]:
        """Do it; return the lease that was made or renewed, and what is worth a note."""
        action, core, store = self._action, self._core, self._store
        if action == "acquire":
            return drive(core.acquire(_owner(owner), _seconds(ttl)), store), []
        if action in ("renew", "release"):
            lease = self._lease(items[0], _owner(owner), fencing)
            if action == "renew":
                return drive(core.renew(lease, _seconds(ttl)), store), []
            drive(core.release(lease), store)
            return None, []
        if not items:
            return None, []
        # Looked at once for all of them: what has changed since is told by each step itself.
        there = self.items()
        notes = [self._change(action, text, _find(there, text), force=force) for text in items]
        return None, [note for note in notes if note is not None]

    def _change(self, action: str, text: str, found: Item | None, *, force: bool) -> str | None:
        core, store, shown = self._core, self._store, masking.text(text)
        if action == "add":
            added = drive(core.add(_item(text) if found is None else found.item), store)
            return None if added else f"the pool has `{shown}` already"
        if found is None:
            raise core.unknown(text)
        if action == "remove":
            if not drive(core.remove(found.item), store):
                raise core.unknown(text)
            return found.owner and f"`{masking.text(found.owner)}` keeps `{shown}` until {found.expires_at}"
        if found.owner is None:
            return f"nobody has `{shown}`"
        if not force:
            raise OtherOwner(
                f"`{masking.text(found.owner)}` has `{shown}` until {found.expires_at}",
                hint=core.look(f" free {masking.quoted(text)} --force"),
                details={"owner": found.owner, "fencing": found.fencing, "free_at": found.expires_at},
            )
        return None if drive(core.free(found.item), store) else f"nobody has `{shown}`"

    def _lease(self, text: str, owner: str, fencing: int | None) -> Lease:
        """Return the lease that is meant: what is not its holder's is refused by the store."""
        found = _find(self.items(), text)
        if found is None:
            raise self._core.unknown(text)
        number = fencing if fencing is not None else found.fencing or 0
        return Lease(found.item, owner, number, found.expires_at or _LONG_AGO)


def _find(there: Sequence[Item], text: str) -> Item | None:
    """Return the item that is written so: the text before the number."""
    found = [one for one in there if str(one.item) == text]
    return min(found, key=lambda one: isinstance(one.item, int), default=None)


def _owner(owner: str | None) -> str:
    name = owners.detect(os.environ) if owner is None else owners.clean(owner)
    if owner is None and name in owners.ANYBODY:
        raise UsageError("nothing says whose the lease is", hint="name its owner after `--owner`")
    return name


def _seconds(ttl: str | float | None) -> float:
    if ttl is None:
        raise UsageError("nothing says how long the lease runs", hint=f"`--ttl`: {durations.EXAMPLES}")
    try:
        return durations.parse(ttl)
    except ValueError as error:
        raise UsageError(f"`--ttl`: {error}", hint="devsup pool --help") from None


def _item(text: str) -> str | int:
    """Return a new item: what is written as a whole number is one."""
    digits = text.isascii() and text.removeprefix("-").isdigit() and len(text) < 19
    return int(text) if digits and str(int(text)) == text else text
