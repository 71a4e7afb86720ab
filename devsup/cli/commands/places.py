"""The commands about what is there beside devsup's own servers: adopt, ports, prune."""

from __future__ import annotations

from typing import Annotated

import typer

from devsup.cli.commands.options import Directory, Json, Verbose, app, call
from devsup.cli.lane import Call

__all__: list[str] = []


@app.command(
    epilog="""\b
Examples:
  devsup adopt 4711                 a server that was started by hand
  devsup adopt :3000                whoever listens there

It must run in a folder of this project. It is stopped like any other then, with
what descends from it; `devsup start` gives it a guard."""
)
def adopt(
    target: Annotated[
        str, typer.Argument(metavar="PID|:PORT", help="The process, or its port.", show_default=False)
    ],
    *,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name, where it is no app of this project.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="NAME", help="Whose it is from now on.")
    ] = None,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Track a server of this project that devsup did not start."""
    return call("adopt", locals())
