"""`devsup doctor`: what is wrong here, and the command that mends it."""

from __future__ import annotations

from devsup import masking
from devsup.cli import hints, plain
from devsup.errors import Unhealthy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.errors import DevsupError
    from devsup.models import Health, HealthPart
    from devsup.supervisor import Supervisor

__all__ = ["drawn", "handle", "lines", "waits"]

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "bad": ("✗", "red"), "skipped": ("-", "dim")}


def handle(supervisor: Supervisor, options: dict[str, Any], _: object) -> tuple[Health, DevsupError | None]:
    """Look, and mend where that is asked for; an error beside the answer says that something is bad."""
    found = supervisor.doctor(fix=options["fix"])
    folder = options["directory"]
    parts = [
        part.replace(findings=[one.replace(fix=hints.located(one.fix, folder)) for one in part.findings])
        for part in found.parts
    ]
    # The hint of an error is located by whoever answers.
    return found.replace(parts=parts), _unhealthy(found) if found.status == "bad" else None


def waits(options: dict[str, Any]) -> str:
    """Return what a person is told meanwhile."""
    return "looking and mending" if options["fix"] else "looking"


def lines(data: Health) -> list[str]:
    """Return one line a part, and two below it for each finding: what is wrong, and what mends it."""
    return [line for part in data.parts for line in (_head(part), *_below(part))]


def _head(part: HealthPart) -> str:
    return f"{part.status:<8}{part.part:<13}{round(part.ms):>5} ms"


def _below(part: HealthPart) -> list[str]:
    return [
        line
        for one in part.findings
        for line in (f"  {masking.text(one.message)}", f"  fix: {one.fix}{_safe(safe=one.safe)}")
    ]


def _safe(*, safe: bool) -> str:
    return "  (--fix does it)" if safe else ""


def drawn(data: Health) -> Any:
    """Return the same for a terminal: what is wrong in colour, the commands on lines of their own."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    rows: list[Any] = []
    for part in data.parts:
        mark, style = _MARKS[part.status]
        head = Text.assemble((f"{mark} ", style), (f"{part.part:<13}", "bold" if part.findings else ""))
        head.append("skipped" if part.status == "skipped" else f"{round(part.ms)} ms", style="dim")
        rows.append(head)
        for one in part.findings:
            rows.append(Padding(Text(plain.clean(masking.text(one.message))), (0, 0, 0, 2), expand=False))
            fix = Text(
                plain.clean(one.fix), style="cyan", no_wrap=one.fix.startswith("devsup "), overflow="fold"
            )
            fix.append(_safe(safe=one.safe), style="dim")
            rows.append(Padding(fix, (0, 0, 0, 4), expand=False))
    return Group(*rows)


def _unhealthy(found: Health) -> Unhealthy:
    bad = [part for part in found.parts if part.status == "bad"]
    worst = next(one for part in bad for one in part.findings)
    count = sum(len(part.findings) for part in found.parts)
    more = f", and {count - 1} more" if count > 1 else ""
    safe = any(one.safe for part in found.parts for one in part.findings)
    return Unhealthy(
        f"{worst.message}{more}",
        hint="devsup doctor --fix" if safe else worst.fix,
        details={"findings": [one.id for part in found.parts for one in part.findings]},
    )
