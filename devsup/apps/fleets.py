"""
What a server will be to the fleet: where Redis is, what its project is called there, may it run once only.

Reads files; Redis is asked nothing here.
"""

from __future__ import annotations

from devsup.apps import configured, origin
from devsup.errors import ConfigInvalid, UsageError
from devsup.fleet import settings
from devsup.fleet.membership import Membership

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from devsup.apps.commands import Plan
    from devsup.config import Config
    from devsup.fleet.settings import Settings
    from devsup.paths import Home
    from devsup.redis.address import Address

__all__ = ["address", "configured_for", "identity", "membership", "of_project"]


def configured_for(config: Config | None, environ: Mapping[str, str]) -> Settings | None:
    """Return the fleet of a project that says ``config``; None where there is none."""
    return settings.read(config.fleet if config is not None else {}, environ)


def of_project(project: str, home: Home, environ: Mapping[str, str]) -> tuple[Settings | None, Config | None]:
    """
    Return the fleet of the project at ``project``, and its configuration.

    :raises ConfigInvalid: its file is wrong
    """
    config = configured.load(project, home)
    return configured_for(config, environ), config


def identity(project: str, config: Config | None) -> str | None:
    """Return what the project is called on all hosts; None where nothing or more than one thing says it."""
    if config is not None and config.project is not None:
        return config.project
    return origin.find(project).name


def membership(
    project: str, plan: Plan, config: Config | None, environ: Mapping[str, str]
) -> tuple[Settings, Membership, list[str]] | None:
    """
    Return the fleet, what a server of ``plan`` is to it, without its lease, and notes; None where none is.

    :raises UsageError: the address of its Redis is none
    :raises ConfigInvalid: the app is exclusive, and there is no fleet or nothing names its project
    """
    fleet = configured_for(config, environ)
    if fleet is None:
        if plan.exclusive and config is not None:
            raise config.error(
                f"apps.{plan.app}.exclusive",
                f"`{plan.app}` may run once in a fleet, and {settings.why_not(config.fleet)}",
                hint=settings.HOW,
            )
        return None
    address(fleet)  # refused here: a guard has nobody to tell
    named = config.project if config is not None else None
    found = origin.Origin(named) if named is not None else origin.find(project)
    if plan.exclusive and found.name is None:
        assert config is not None
        raise _nameless(config, plan, project, found)
    notes = []
    if found.ambiguous:
        notes.append(f"this project has no name in the fleet: {_several(found)}; {_NAME_IT}")
    return fleet, Membership(fleet.name, fleet.host, found.name, fleet.ttl, fleet.on_lost), notes


def address(fleet: Settings) -> Address:
    """
    Return where the fleet's Redis is.

    :raises UsageError: it is no address; says which setting that is
    """
    from devsup.redis import address

    try:
        return address.parse(fleet.url)
    except UsageError as error:
        named = f"`url` of `[fleet]`, {fleet.source}" if fleet.source != settings.URL else settings.URL
        raise UsageError(f"{named}: {error.message}", hint=error.hint) from None


_NAME_IT = 'add `project = "NAME"`, the same on every host'


def _several(found: origin.Origin) -> str:
    remotes = ", ".join(f"`{one}`" for one in found.ambiguous)
    return f"git has the remotes {remotes}, and follows none of them"


def _nameless(config: Config, plan: Plan, project: str, found: origin.Origin) -> ConfigInvalid:
    why = _several(found) if found.ambiguous else f"git names no other host's repository for `{project}`"
    return config.error(
        f"apps.{plan.app}.exclusive",
        f"`{plan.app}` may run once in a fleet, but this project has no name there: {why}",
        allowed=list(found.ambiguous),
        hint=_NAME_IT,
    )
