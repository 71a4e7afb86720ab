"""
The Typer app, and the arguments and options that several commands share.

Constants but for the app, on which the modules of this package register their commands when imported.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from devsup.cli import complete
from devsup.cli.lane import Call

__all__ = ["HELP", "Directory", "Grace", "Json", "TakeOver", "Target", "Timeout", "Verbose", "app", "call"]

HELP = ["-h", "--help"]

app = typer.Typer(
    name="devsup",
    help="Start, track and stop development servers; many callers may do so at once.",
    epilog="""\b
Examples:
  devsup start web                  the web app's server, new or reused
  devsup start api -- npm run dev   run any command as `dev_server_api`
  devsup list                       what runs in this project
  devsup logs web -n 50             the end of its output
  devsup stop web                   end it and all its processes

Every command takes --json: one document on stdout, the same shape for success and failure.""",
    context_settings={"help_option_names": HELP},
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    suggest_commands=False,  # `_wrong_verb` knows more words
)

#: What every command takes.
Json = Annotated[
    bool, typer.Option("--json", help="Answer with one JSON document (also: DEVSUP_OUTPUT=json).")
]
Directory = Annotated[
    str | None, typer.Option("-C", "--directory", metavar="DIR", help="Run as if started in DIR.")
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Tell each step with its time on stderr.")]
#: What several do.
Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="App, session, pid or :port.",
        autocompletion=complete.targets,
        show_default=False,
    ),
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", metavar="S", help="Seconds to wait until it is ready."),
]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Also what belongs to another owner (an agent, say).")
]
Grace = Annotated[
    float | None,
    typer.Option("--grace", metavar="S", help="Seconds from SIGTERM to SIGKILL (the app's own, else 5)."),
]


def call(verb: str, given: dict[str, Any]) -> Call:
    """Return the call that a command function's ``locals()`` say."""
    return Call(verb, {name: value for name, value in given.items() if name != "context"})
