"""The commands about what is there beside devsup's own servers: adopt, ports, prune."""

from __future__ import annotations

from typing import Annotated

import typer

from devsup.cli.commands.options import Directory, Grace, Json, Verbose, app, call
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


@app.command(
    epilog="""\b
Examples:
  devsup ports                      who listens where, and what a start would meet"""
)
def ports(*, json: Json = False, directory: Directory = None, verbose: Verbose = False) -> Call:
    """Show who has the ports of this project and of devsup's servers."""
    return call("ports", locals())


@app.command(
    epilog="""\b
Examples:
  devsup prune --dry-run            what would go
  devsup prune

Rows of servers whose processes are gone, logs beyond the last three of a session,
logs and ports of projects that are gone, registries set aside over 30 days ago."""
)
def prune(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="End processes whose server devsup does not know any more.")
    ] = False,
    grace: Grace = None,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Remove what dead servers have left behind, in every project."""
    return call("prune", locals())
