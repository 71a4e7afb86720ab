"""What the parts of a health check look at, and what they answer. Records, no state."""

from __future__ import annotations

from devsup.masking import quoted
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devsup.errors import DevsupError
    from devsup.models import Pruned, Row, Server
    from devsup.paths import Home
    from devsup.registry import Registry
    from devsup.registry.inspecting import Inspection

__all__ = ["BAD", "WARN", "Conflict", "Known", "Scene", "Seen", "found"]

WARN, BAD = "warn", "bad"


class Seen(Record):
    """
    One finding as a part gives it.

    ``level`` is `WARN` or `BAD`. ``mend`` does what ``fix`` says and tells what it did; None where that is
    not safe to do unasked. ``project`` and ``session`` are whom it concerns, None for the whole state folder.
    """

    level: str
    id: str
    message: str
    fix: str
    mend: Callable[[], str] | None = None
    project: str | None = None
    session: str | None = None


class Known(Record):
    """A row, how it stands to its processes (the value of a `Life`), and its server as it is shown."""

    row: Row
    life: str
    server: Server


class Conflict(Record):
    """A port that an app of this project is to have, and that somebody else has; ``instead`` helps."""

    app: str
    port: int
    whose: str
    instead: str


class Scene(Record):
    """
    Where a health check looks. The callables may cost something: a part calls what it needs.

    ``known`` is None where the registry cannot be used (``trouble`` says why) or is damaged. ``prunable`` is
    what a prune would remove, ``prune`` does it, ``guard`` gives a server that has none a guard.
    """

    home: Home
    project: str
    cwd: str
    environ: Mapping[str, str]
    registry: Registry
    inspection: Inspection | None
    known: list[Known] | None
    trouble: DevsupError | None
    prunable: Callable[[], list[Pruned]]
    conflicts: Callable[[], list[Conflict]]
    prune: Callable[[bool], list[Pruned]]
    guard: Callable[[Row], None]

    def command(self, verb: str, row: Row) -> str:
        """Return the command that does ``verb`` to the server of ``row``, as it is typed in this project."""
        if row.project == self.project:
            return f"devsup {verb} {quoted(row.app or row.session)}"
        return f"devsup -C {quoted(row.project)} {verb} {quoted(row.app or row.session)}"


def found(error: DevsupError, *, level: str = BAD, project: str | None = None) -> Seen:
    """Return the finding that an error is."""
    return Seen(level, error.code, error.message, error.hint or "devsup --help", project=project)
