"""The commands that say what is wrong and how things are."""

from __future__ import annotations

from typing import Annotated

import typer

from devsup.cli.commands.options import Directory, Json, Verbose, app, call
from devsup.cli.lane import Call

__all__: list[str] = []


@app.command(
    epilog="""\b
Examples:
  devsup doctor                     what is wrong, and the command that mends it
  devsup doctor --fix               do those that are safe

Looks at the registry, locks, servers, ports, logs, the environment and completions.
Exit 14 where something is bad; a warning alone is 0."""
)
def doctor(
    *,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what is safe to mend, and say what was done.")
    ] = False,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Find out what is wrong here, part by part."""
    return call("doctor", locals())
