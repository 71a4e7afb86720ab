"""The commands about what happened, and what others are just doing."""

from __future__ import annotations

from typing import Annotated

import typer

from devsup.cli.commands.options import Directory, Json, Verbose, app, call
from devsup.cli.lane import Call

__all__: list[str] = []


@app.command(
    epilog="""\b
Examples:
  devsup events                     the last ones of this project
  devsup events -f                  and all that come
  devsup events --json --after 120  the next ones after number 120

With --json one line each. `seq` is the order: a reader that goes on with --after
misses nothing and sees nothing twice. 10,000 are kept, for 30 days; a line of
type `truncated` tells a reader that comes later than that."""
)
def events(
    *,
    after: Annotated[
        int | None, typer.Option("--after", metavar="SEQ", help="Those after this number; 0: all kept.")
    ] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", metavar="N", help="At most so many.")] = 100,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes.")] = False,
    everywhere: Annotated[bool, typer.Option("--everywhere", help="Those of all projects.")] = False,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Tell who started and stopped what, and why."""
    return call("events", locals())


@app.command(
    epilog="""\b
Examples:
  devsup locks                      who holds a lock or waits for one, in any process
  devsup locks --watch              again each second
  devsup locks --all --json         idle ones too, with what they have been through

Locks of starts, and those of programs that use devsup.locks with this state
folder. Notes tell of circles of waiting, holds over 60 s, attempts that mostly fail."""
)
def locks(
    *,
    all: Annotated[bool, typer.Option("-a", "--all", help="Those that nobody uses, too.")] = False,  # noqa: A002 - the flag's name
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Show them again each second.")] = False,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Show who holds locks and who waits for them."""
    return call("locks", locals())
