"""Which servers of a project run though devsup did not start them. Reads only; each look is of one moment."""

from __future__ import annotations

from devsup.apps import detect, nextlock
from devsup.errors import DevsupError
from devsup.models import Unmanaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["find_unmanaged"]


def find_unmanaged(project: str, cwd: str, *, known: Collection[str]) -> list[Unmanaged]:
    """Return the Next.js servers (16 and later say where they run) of folders that are not in ``known``."""
    try:
        apps = detect.find_apps(project, cwd)
    except DevsupError:
        return []  # a broken package.json is the business of `start`
    found = []
    for app in apps:
        if app.kind != "next" or app.dir in known:
            continue
        running = nextlock.running(app.dir)
        if running is not None:
            found.append(
                Unmanaged("next", running["pid"], running["port"], running["url"], app.dir, running["log"])
            )
    return found
