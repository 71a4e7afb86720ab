"""The commands that say what is wrong and how things are."""

from __future__ import annotations

from typing import Annotated

import typer

from devsup.cli.commands.options import Directory, Json, Target, Verbose, app, call
from devsup.cli.lane import Call

__all__: list[str] = []


@app.command(
    epilog="""\b
Examples:
  devsup doctor                     what is wrong, and the command that mends it
  devsup doctor --fix               do those that are safe

Looks at the registry, locks, servers, ports, logs, the environment, completions and,
where a fleet is configured, its Redis.
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


@app.command(
    epilog="""\b
Examples:
  devsup why web                    who started it, why it ended, what to type
  devsup why :3000                  who has the port, and since when"""
)
def why(target: Target, *, json: Json = False, directory: Directory = None, verbose: Verbose = False) -> Call:
    """Tell the story of a server, a pid or a port."""
    return call("why", locals())


@app.command(
    epilog="""\b
Examples:
  devsup monitor --once             one look, recorded
  devsup monitor --interval 60      until Ctrl-C
  devsup start --monitor            the same, as a server of its own

Findings become events (`devsup events`): once when they appear, once when they go.
DEVSUP_MONITOR_MEMORY and DEVSUP_MONITOR_CPU are the limits where no flag says it."""
)
def monitor(
    *,
    interval: Annotated[
        float, typer.Option("--interval", metavar="S", help="Seconds between two looks.")
    ] = 300.0,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
    max_memory: Annotated[
        int | None,
        typer.Option("--max-memory", metavar="N", help="MiB that a server's tree may take (4096; 0: any)."),
    ] = None,
    max_cpu: Annotated[
        int | None,
        typer.Option("--max-cpu", metavar="N", help="Percent of a core that it may take (200; 0: any)."),
    ] = None,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Look again and again, and record what becomes wrong."""
    return call("monitor", locals())


@app.command(
    epilog="""\b
Examples:
  devsup metrics                    OpenMetrics text, for a scraper"""
)
def metrics(*, json: Json = False, directory: Directory = None, verbose: Verbose = False) -> Call:
    """Print gauges and counters of servers, locks and the registry."""
    return call("metrics", locals())
