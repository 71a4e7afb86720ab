"""`devsup up`: start the apps of a project, and say what became of each."""

from __future__ import annotations

from devsup.cli import handlers, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.errors import DevsupError
    from devsup.models import UpResult, UpResults
    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines", "waits"]


def handle(
    supervisor: Supervisor, options: dict[str, Any], progress: Any
) -> tuple[UpResults, DevsupError | None]:
    """Start the apps; the error beside the results is the worst of theirs."""
    results = supervisor.up(
        options["apps"] or [],
        timeout=options["timeout"],
        env=handlers.read_environment(options["env"]) or None,
        on_progress=progress,
    )
    return results, _worst(results.results)


def lines(data: UpResults) -> list[str]:
    """Return a line for each app."""
    table = []
    for one in data.results:
        server = one.server
        where = [server.url or "-", f"pid {server.pid}"] if server is not None and server.pid else ["", ""]
        if one.error is not None:
            where = [str(one.error["code"]), ""]
        table.append([one.app, one.outcome, *where])
    return plain.aligned(table) if table else []


def waits(options: dict[str, Any]) -> str:
    """Return what a person is told meanwhile."""
    return f"starting {', '.join(options['apps'] or ()) or 'every app'}"


def _worst(results: list[UpResult]) -> DevsupError | None:
    failed = [(one.app, one.error) for one in results if one.error is not None]
    if not failed:
        return None
    app, worst = min(failed, key=lambda pair: handlers.severity(pair[1]["code"]))
    message = f"`{app}` was not started: {worst['message']}"
    if len(failed) > 1:
        message = f"{len(failed)} of {len(results)} apps were not started"
    details = {
        **worst["details"],
        "app": app,
        "failed": [
            {"target": name, "code": error["code"], "message": error["message"]} for name, error in failed
        ],
    }
    return handlers.kind_of(worst["code"])(message, hint=worst["hint"], details=details)
