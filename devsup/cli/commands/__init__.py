"""
What the commands take, in Typer's words: one module per group, in the order in which help lists them.

A command only says what it takes and returns the call; what it does stands in `devsup.cli.handlers` and
`devsup.cli.verbs`.
"""

from __future__ import annotations

from devsup.cli.commands import servers as servers  # isort: skip - the import registers them, in this order
from devsup.cli.commands import health as health
from devsup.cli.commands import history as history
from devsup.cli.commands import places as places
from devsup.cli.commands import projects as projects
from devsup.cli.commands import tooling as tooling
from devsup.cli.commands.options import HELP, Directory, Json, Verbose, app

__all__ = ["HELP", "Directory", "Json", "Verbose", "app"]
