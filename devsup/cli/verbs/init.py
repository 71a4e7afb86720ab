"""`devsup init`: a devsup.toml from what is detected."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from devsup.models import InitResult
    from devsup.supervisor import Supervisor

__all__ = ["handle", "lines"]


def handle(supervisor: Supervisor, options: dict[str, Any], _progress: Any) -> tuple[InitResult, None]:
    """Write it, or only return it."""
    return supervisor.init(force=options["force"], write=not options["print"]), None


def lines(data: InitResult) -> list[str]:
    """Return what was written where, or the text itself."""
    return [f"wrote {data.path}"] if data.written else data.text.splitlines()
