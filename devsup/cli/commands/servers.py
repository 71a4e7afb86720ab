"""The commands about one server after another: start, stop, list and their like."""

from __future__ import annotations

from typing import Annotated

import typer

from devsup.cli import complete, hints
from devsup.cli.commands.options import (
    Directory,
    Grace,
    Json,
    TakeOver,
    Target,
    Timeout,
    Verbose,
    app,
    call,
)
from devsup.cli.lane import Call
from devsup.errors import UsageError

__all__: list[str] = []


@app.command(
    epilog="""\b
Examples:
  devsup start                      the only app here
  devsup start web --port auto      on a port of its own, the same every time
  devsup start api -- npm run dev   any command, as `dev_server_api`
  devsup start --env LOG=1 web      with a variable
  devsup start --restart on-failure --idle-timeout 15m web

A server that already runs is reused. Exit 0: it answers, or a note says that it
does not any more; 6: still starting, see `devsup wait`."""
)
def start(
    context: typer.Context,
    app: Annotated[
        str | None,
        typer.Argument(
            metavar="APP", help="App of this project, or the name for COMMAND.", autocompletion=complete.apps
        ),
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND", help="What to run instead of the app's own script."),
    ] = None,
    *,
    port: Annotated[
        str | None,
        typer.Option(
            "--port",
            metavar="N|auto",
            help="Port to serve on; `auto` picks a free one, the same every time.",
            autocompletion=complete.ports,
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="S", help="Seconds to wait until it is ready (45, or as configured)."
        ),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return once it is started.")] = False,
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="K=V", help="Variable for the server; repeatable.")
    ] = None,
    restart: Annotated[
        str | None,
        typer.Option(
            "--restart",
            metavar="no|on-failure|always",
            help="Run it again when it ends by itself.",
            autocompletion=complete.restarts,
        ),
    ] = None,
    idle_timeout: Annotated[
        str | None,
        typer.Option("--idle-timeout", metavar="15m", help="Stop it when nobody used it for so long."),
    ] = None,
    ttl: Annotated[
        str | None, typer.Option("--ttl", metavar="2h", help="Stop it so long after its start.")
    ] = None,
    with_parent: Annotated[
        int | None,
        typer.Option("--with-parent", metavar="PID", help="Stop it when this process ends."),
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(
            "--owner", metavar="NAME", help="Whose it is (also: DEVSUP_OWNER; else the agent's name)."
        ),
    ] = None,
    monitor: Annotated[
        bool, typer.Option("--monitor", help="Start the monitor of this project instead of an app.")
    ] = False,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Start a server, or find it running; wait until it answers."""
    if command:
        rest = context.obj["rest"] if isinstance(context.obj, dict) else None
        given = {"app": app, "command": [*command, *(rest or ())], "env": env}
        raise UsageError(
            f"unexpected argument `{command[0]}`: a command comes after `--`",
            hint=hints.start(given, *(("--port", port) if port else ())),
        )
    command = context.obj["rest"] if isinstance(context.obj, dict) else None
    return call("start", locals())


@app.command(
    epilog="""\b
Examples:
  devsup stop web
  devsup stop 4711 :8081            by pid, by port
  devsup stop --all                 everything of this project
  devsup stop --owner ci            everything that `ci` has started here
  devsup stop box-b/web --fleet     on another host of the fleet

A process that devsup did not start is refused, never signalled. So is another
owner's server, unless a person asks at a terminal or with --take-over."""
)
def stop(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET",
            help="Apps, sessions, pids or :ports; with --fleet also HOST/NAME.",
            autocompletion=complete.targets,
        ),
    ] = None,
    *,
    all: Annotated[bool, typer.Option("--all", help="Every server of this project.")] = False,  # noqa: A002 - the flag's name
    grace: Grace = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="End what detached itself on purpose, too (editors, watchman).")
    ] = False,
    everywhere: Annotated[bool, typer.Option("--everywhere", help="Beyond this project.")] = False,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="NAME", help="Every server of this owner.")
    ] = None,
    take_over: TakeOver = False,
    fleet: Annotated[bool, typer.Option("--fleet", help="On all hosts of the fleet.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="S", help="With --fleet: seconds to wait for other hosts (30)."),
    ] = None,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Stop servers with all their processes; say what was seen."""
    return call("stop", locals())


@app.command(
    "list",
    epilog="""\b
Examples:
  devsup list
  devsup list --everywhere          every project of yours
  devsup list --fleet               all hosts that share a Redis
  devsup ls -a                      ended ones, too""",
)
def list_(
    *,
    all: Annotated[bool, typer.Option("-a", "--all", help="Ended servers, too.")] = False,  # noqa: A002 - the flag's name
    everywhere: Annotated[bool, typer.Option("--everywhere", help="Every project.")] = False,
    fleet: Annotated[bool, typer.Option("--fleet", help="Every host of the fleet.")] = False,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """List the servers of this project (also: ls, ps)."""
    return call("list", locals())


@app.command(
    epilog="""\b
Examples:
  devsup hosts                      which hosts have servers in the fleet

Listed is every host with a server that was started with DEVSUP_FLEET=redis://... or
`[fleet]` in devsup.toml; a host that has vanished stays for a day, as lost."""
)
def hosts(*, json: Json = False, directory: Directory = None, verbose: Verbose = False) -> Call:
    """Show the hosts of the fleet."""
    return call("hosts", locals())


app.command("ls", hidden=True)(list_)
app.command("ps", hidden=True)(list_)


@app.command(
    epilog="""\b
Examples:
  devsup status web
  devsup status :3000"""
)
def status(
    target: Target, *, json: Json = False, directory: Directory = None, verbose: Verbose = False
) -> Call:
    """Show one server, also an ended one, with its processes."""
    return call("status", locals())


@app.command(
    epilog="""\b
Examples:
  devsup logs web -n 50
  devsup logs web -f                follow until the server ends
  devsup logs -f web api            several side by side
  devsup logs web --errors          what went wrong, with file and line
  devsup logs web --json --after 3:1024 --wait 20

The answer's `next_cursor` is where the next page begins: give it back with --after."""
)
def logs(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET",
            help="App, session, pid or :port; several with --follow.",
            autocompletion=complete.targets,
            show_default=False,
        ),
    ],
    *,
    lines: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--lines",
            metavar="N",
            help="The last N lines (without --after: 100).",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the server ends.")] = False,
    after: Annotated[
        str | None, typer.Option("--after", metavar="CURSOR", help="What came after this cursor.")
    ] = None,
    max_bytes: Annotated[
        int | None,
        typer.Option("--max-bytes", metavar="N", help="At most N bytes in one answer."),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option("--wait", metavar="S", help="Wait up to S seconds for something new."),
    ] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only what went wrong, each once.")] = False,
    grep: Annotated[str | None, typer.Option("--grep", metavar="RE", help="Only lines that match.")] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="What came since then: 10m, 14:30."),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Do not mask what looks like a secret.")] = False,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Show what a server has written, also an ended one."""
    return call("logs", locals())


@app.command(
    epilog="""\b
Examples:
  devsup check web                  errors since its start count
  devsup check web --after 3:1024   only those since this cursor
  devsup check web --path /api/health --json

Exits with 14 where it is not well. The answer's `next_cursor` is what the next check takes as --after."""
)
def check(
    target: Target,
    *,
    path: Annotated[
        str, typer.Option("--path", metavar="PATH", help="What to ask it for; 500 or more is broken.")
    ] = "/",
    after: Annotated[
        str | None, typer.Option("--after", metavar="CURSOR", help="Count errors printed after this cursor.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", help="Seconds for all of it.")] = 20.0,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Tell whether a server listens, answers and has printed new errors."""
    return call("check", locals())


@app.command(
    epilog="""\b
Examples:
  devsup url web
  curl "$(devsup url web)\""""
)
def url(target: Target, *, json: Json = False, directory: Directory = None, verbose: Verbose = False) -> Call:
    """Print the address on which a server really listens."""
    return call("url", locals())


@app.command(
    epilog="""\b
Examples:
  devsup wait web
  devsup wait web --gone --timeout 10"""
)
def wait(
    target: Target,
    *,
    gone: Annotated[
        bool, typer.Option("--gone/--ready", help="Until it has ended, or until it answers.")
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", help="Seconds to wait.")] = 45.0,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Wait until a server is ready, or gone."""
    return call("wait", locals())


@app.command(
    epilog="""\b
Examples:
  devsup restart web"""
)
def restart(
    target: Target,
    *,
    timeout: Timeout = 45.0,
    grace: Grace = None,
    take_over: TakeOver = False,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """
    Stop a server and run it again as it was.

    With the same command, environment and port; its next log begins anew.
    """
    return call("restart", locals())


@app.command()
def version(*, json: Json = False, directory: Directory = None, verbose: Verbose = False) -> Call:
    """Show the version."""
    return call("version", locals())
