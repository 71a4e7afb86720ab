"""The commands about what is there beside devsup's own servers: adopt, ports, prune."""

from __future__ import annotations

from typing import Annotated

import typer

from devsup.cli import complete
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
  devsup pool                                   every pool, and who has what
  devsup pool slots add a b c                   make one, or lend more
  devsup pool slots                             that one
  devsup pool slots acquire --owner ci --ttl 5m
  devsup pool slots renew a --owner ci --ttl 5m
  devsup pool slots release a --owner ci
  devsup pool slots free a --force              take it from whoever has it
  devsup pool slots remove c

These are the pools in the fleet's Redis where there is a fleet, else of this machine.
`acquire` and `renew` print the item alone; exit 10 where none is free, 12 where it is
not the owner's (any more)."""
)
def pool(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="The pool.", show_default=False, autocompletion=complete.pools),
    ] = None,
    action: Annotated[
        str | None,
        typer.Argument(
            metavar="ACTION",
            help="add, remove, acquire, renew, release or free.",
            show_default=False,
            autocompletion=complete.pool_actions,
        ),
    ] = None,
    items: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ITEM", help="Items of the pool.", show_default=False, autocompletion=complete.pool_items
        ),
    ] = None,
    *,
    owner: Annotated[
        str | None,
        typer.Option("--owner", metavar="NAME", help="Whose the lease is (also: DEVSUP_OWNER)."),
    ] = None,
    ttl: Annotated[
        str | None, typer.Option("--ttl", metavar="30s", help="How long the lease runs from now.")
    ] = None,
    fencing: Annotated[
        int | None,
        typer.Option("--fencing", metavar="N", help="The lease with this number, and no other."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Free what somebody has.")] = False,
    here: Annotated[bool, typer.Option("--here", help="This machine's, even with a fleet.")] = False,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Show and edit pools: ports, slots or sandboxes that are lent one at a time."""
    return call("pool", locals())


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
