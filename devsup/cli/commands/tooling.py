"""The commands for programs and the agents that call them."""

from __future__ import annotations

from typing import Annotated

import typer

from devsup.cli import complete
from devsup.cli.commands.options import Directory, Json, Target, Verbose, app, call
from devsup.cli.lane import Call

__all__: list[str] = []


@app.command(
    epilog="""\b
Examples:
  devsup schema start               one JSON Schema of its whole answer
  devsup schema --json              every command: read, write or destructive"""
)
def schema(
    command: Annotated[
        str | None,
        typer.Argument(
            metavar="COMMAND", help="Whose answer; without: every command.", autocompletion=complete.verbs
        ),
    ] = None,
    *,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Show the JSON Schema of a command's answer."""
    return call("schema", locals())


@app.command(
    epilog="""\b
Examples:
  claude mcp add devsup -- devsup mcp
  devsup mcp -C ~/shop              allow this folder, where the client names none

Ends with its client; the servers go on. Needs `pip install 'devsup[mcp]'`."""
)
def mcp(*, json: Json = False, directory: Directory = None, verbose: Verbose = False) -> Call:
    """Serve an MCP client on stdin and stdout."""
    return call("mcp", locals())


@app.command(
    "agent-guide",
    epilog="""\b
Examples:
  devsup agent-guide                for AGENTS.md, CLAUDE.md or a skill""",
)
def agent_guide(*, json: Json = False, directory: Directory = None, verbose: Verbose = False) -> Call:
    """Print what an agent must know, as Markdown."""
    return call("agent-guide", locals())


@app.command(
    "open",
    epilog="""\b
Examples:
  devsup open web
  devsup open web --print           only say where it is

DEVSUP_BROWSER names the program that opens it. Without a terminal nothing is opened.""",
)
def open_(
    target: Target,
    *,
    print: Annotated[bool, typer.Option("--print", help="Only print the address.")] = False,  # noqa: A002 - the flag's name
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Open a server's address in the browser."""
    return call("open", locals())


@app.command(
    epilog="""\b
Examples:
  devsup top
  devsup top --everywhere           every project

Keys: arrows or j and k select, s stops, r restarts, l shows the log, q leaves."""
)
def top(
    *,
    everywhere: Annotated[bool, typer.Option("--everywhere", help="Every project.")] = False,
    interval: Annotated[float, typer.Option("--interval", metavar="S", help="Seconds between looks.")] = 2.0,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Watch the servers live, with CPU and memory."""
    return call("top", locals())
