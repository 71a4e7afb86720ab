"""The commands about a project as a whole: up, down, config, init."""

from __future__ import annotations

from typing import Annotated

import typer

from devsup.cli import complete
from devsup.cli.commands.options import Directory, Grace, Json, Verbose, app, call
from devsup.cli.lane import Call

__all__: list[str] = []

Apps = Annotated[
    list[str] | None,
    typer.Argument(metavar="APP", help="Apps of this project.", autocompletion=complete.several_apps),
]
Variables = Annotated[
    list[str] | None, typer.Option("--env", metavar="K=V", help="Variable for the servers; repeatable.")
]


@app.command(
    epilog="""\b
Examples:
  devsup up                         every app of devsup.toml, else every one that is found
  devsup up web                     with what it depends on

Apps that do not depend on each other start at the same time; what waits on one
that fails is skipped. Exit: the worst of them."""
)
def up(
    apps: Apps = None,
    *,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="S", help="Seconds for each to be ready (45, or as configured)."),
    ] = None,
    env: Variables = None,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Start the apps of this project in the order of their dependencies."""
    return call("up", locals())


@app.command(
    epilog="""\b
Examples:
  devsup down                       everything of this project
  devsup down api                   what depends on it first"""
)
def down(
    apps: Apps = None,
    *,
    grace: Grace = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="End what detached itself on purpose, too (editors, watchman).")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Also what another owner has started.")
    ] = False,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Stop the apps of this project, dependents first."""
    return call("down", locals())


@app.command(
    epilog="""\b
Examples:
  devsup config                     every app, every value, where it comes from
  devsup config web --port 4000     as a start with this option would have it
  devsup config --schema            the JSON Schema of devsup.toml, for editors"""
)
def config(
    app: Annotated[
        str | None,
        typer.Argument(metavar="APP", help="Only this app.", autocompletion=complete.apps),
    ] = None,
    *,
    port: Annotated[
        str | None,
        typer.Option(
            "--port", metavar="N|auto", help="As a start would be given.", autocompletion=complete.ports
        ),
    ] = None,
    env: Variables = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of devsup.toml.")] = False,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Show what is in force, and where each value comes from."""
    return call("config", locals())


@app.command(
    epilog="""\b
Examples:
  devsup init                       write devsup.toml at the root of this project
  devsup init --print               only show it"""
)
def init(
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace the devsup.toml that is there.")] = False,
    print: Annotated[bool, typer.Option("--print", help="Write to stdout instead.")] = False,  # noqa: A002 - the flag's name
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Write a devsup.toml from what is detected."""
    return call("init", locals())
