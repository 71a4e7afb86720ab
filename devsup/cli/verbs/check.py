"""`devsup check`: did the last edit break it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devsup.cli import plain
from devsup.errors import Unhealthy
from devsup.masking import quoted
from devsup.models import ENDED_STATES

if TYPE_CHECKING:
    from devsup.errors import DevsupError
    from devsup.models import CheckResult
    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines", "waits"]


def handle(
    supervisor: Supervisor, options: dict[str, Any], _progress: Any
) -> tuple[CheckResult, DevsupError | None]:
    """Look at one server; an error beside the answer says that it is not well."""
    result = supervisor.check(
        options["target"], path=options["path"], after=options["after"], timeout=options["timeout"]
    )
    if result.verdict == "ok":
        return result, None
    return result, _unhealthy(result, options["target"], options["after"])


def waits(options: dict[str, Any]) -> str:
    """Return what a person is told meanwhile."""
    return f"checking {options['target']}"


def lines(data: CheckResult) -> list[str]:
    """Return the verdict, then the errors, then from where on to look next time."""
    return [
        f"{data.server.session} {data.verdict}: {_seen(data)}",
        *(f"  {plain.finding(one)}" for one in data.new_errors),
        f"cursor {data.next_cursor}",
    ]


def _seen(data: CheckResult, since: str = "") -> str:
    if data.verdict == "down":
        return f"does not listen ({plain.state_text(data.server)})"
    count = len(data.new_errors)
    errors = f"{count or 'no'} {'error' if count == 1 else 'errors'}{since if count else ''}"
    if data.http is None:
        return f"{'listens' if data.listening else plain.state_text(data.server)}, {errors}"
    what = "no answer" if data.http["status"] is None else str(data.http["status"])
    return f"GET {data.http['path']} {what} in {data.http['ms']} ms, {errors}"


def _unhealthy(data: CheckResult, target: str, after: str | None) -> Unhealthy:
    name = quoted(target)
    since = " since its start" if after is None else " since the cursor"
    hint = f"devsup logs {name} -n 50"
    if data.verdict == "down":
        ended = data.server.exit_code is not None or data.server.state in ENDED_STATES
        hint = f"devsup restart {name}" if ended else f"devsup wait {name}"
    elif data.new_errors:
        # What it says is in the answer already; this is for when it has been mended.
        hint = f"devsup check {name} --after {data.next_cursor}"
    first = next(iter(data.new_errors), None)
    why = f": {plain.finding(first)}" if first is not None else ""
    return Unhealthy(
        f"`{data.server.session}` is {data.verdict} ({_seen(data, since)}){why}",
        hint=hint,
        details={"verdict": data.verdict},
    )
