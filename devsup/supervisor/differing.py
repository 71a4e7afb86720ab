"""In what is a server that was found other than a start asks for? Words for people; reads files only."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from devsup.apps.commands import Plan
    from devsup.models import Row
    from devsup.paths import Home

__all__ = ["lost_lease", "notes"]

#: The flags that a caller may ask for a lifetime with, by the keys of a policy.
_FLAGS = {
    "restart": "--restart",
    "idle_timeout": "--idle-timeout",
    "ttl": "--ttl",
    "parent": "--with-parent",
}


def notes(
    home: Home,
    row: Row,
    plan: Plan,
    *,
    port: int | None,
    made: bool,
    command: Sequence[str] | None,
    env: Mapping[str, str],
    policy: Mapping[str, Any],
) -> list[str]:
    """
    Return what of a start's wishes does not apply to the server of ``row``, which listens on ``port``.

    ``command``, ``env`` and ``policy`` are what the caller gave; ``made`` says that it made the server.
    """
    found = []
    sources = ("caller", "file", "command") if command else ("caller", "file")
    if plan.port_source in sources and plan.port not in (None, port):
        found.append(f"it already runs on port {port}; port {plan.port} was not applied")
    if made:
        return found
    name = row.app or row.session
    ignored = ["--env"] if env else []
    # What tells the configuration of this app from another, where this is its own server.
    mark: str | None = plan.policy.get("config") if row.session == plan.session else None
    job = None
    if policy or mark is not None:  # else there is nothing to compare it with
        from devsup.guard import job as jobs

        job = jobs.find(home.job(row.id))
    if job is not None:
        ignored += [
            flag for key, flag in _FLAGS.items() if key in policy and job.policy.get(key) != policy[key]
        ]
    if ignored:
        verb = "was" if len(ignored) == 1 else "were"
        listed = ", ".join(ignored)
        found.append(f"it already runs; {listed} {verb} not applied (`devsup stop {name}` first)")
    if job is not None and mark is not None and job.policy.get("config") != mark:
        found.append(
            f"the configuration of `{name}` has changed since it was started; `devsup stop {name}` and "
            f"`devsup start {name}` apply it"
        )
    return found


def lost_lease(home: Home, row: Row) -> list[str]:
    """Return a note where the server of ``row``, whose app is exclusive, runs without its lease."""
    from devsup.fleet import note

    lease = note.shown(home, row.id)
    if lease is None or lease["state"] != "lost":
        return []
    return ["it runs without its lease in the fleet: another host may run it, too (`devsup list --fleet`)"]
