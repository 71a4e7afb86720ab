"""`devsup mcp`: serve a client of the Model Context Protocol until it goes away."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from devsup.errors import MissingDependencies, UsageError

if TYPE_CHECKING:
    from devsup.supervisor import Supervisor

__all__ = ["handle"]


def handle(supervisor: Supervisor, _options: dict[str, Any], _progress: Any) -> NoReturn:
    """
    Serve, then leave.

    :raises MissingDependencies: the SDK is not installed
    :raises UsageError: a person has called it
    """
    try:
        from devsup.cli.mcp import server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("anyio", "mcp", "mcp_types"):
            raise
        raise MissingDependencies(
            "`devsup mcp` needs the SDK of the Model Context Protocol, which is not installed",
            hint="run `pip install 'devsup[mcp]'` where devsup is installed",
        ) from None
    if sys.stdin is not None and sys.stdin.isatty():
        raise UsageError(
            "`devsup mcp` speaks the Model Context Protocol on stdin and stdout: a client starts it",
            hint="devsup mcp --help",
        )
    server.serve(supervisor.cwd)
    os._exit(
        0
    )  # stdout is the protocol's, so there is no answer; and a call may still be under way in a thread
