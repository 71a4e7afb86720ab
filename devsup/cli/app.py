"""
The command line as Typer sees it: the one source of its grammar, its help and its completions.

A command here only says what it takes; it returns the call, and whoever parsed it runs it. Loaded for what
the hot lane does not fully understand: mistakes, `--help`, completion. Main thread only.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.main

from devsup.cli import complete, hints
from devsup.cli.lane import Call, arrange, cut
from devsup.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["app", "completion", "parse"]

_HELP = ["-h", "--help"]

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
    context_settings={"help_option_names": _HELP},
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    suggest_commands=False,  # `_wrong_verb` knows more words
)

Json = Annotated[
    bool, typer.Option("--json", help="Answer with one JSON document (also: DEVSUP_OUTPUT=json).")
]
Directory = Annotated[
    str | None, typer.Option("-C", "--directory", metavar="DIR", help="Run as if started in DIR.")
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Tell each step with its time on stderr.")]
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
Grace = Annotated[float, typer.Option("--grace", metavar="S", help="Seconds from SIGTERM to SIGKILL.")]


def _call(verb: str, given: dict[str, Any]) -> Call:
    return Call(verb, {name: value for name, value in given.items() if name != "context"})


@app.callback()
def devsup(
    context: typer.Context,
    *,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> Call | None:
    del json, directory, verbose, version  # `arrange` has moved them behind the verb
    if context.invoked_subcommand is None and not context.resilient_parsing:
        typer.echo(context.get_help())
    return None


@app.command(
    epilog="""\b
Examples:
  devsup start                      the only app here
  devsup start web --port auto      on a port of its own, the same every time
  devsup start api -- npm run dev   any command, as `dev_server_api`
  devsup start --env LOG=1 web      with a variable

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
    timeout: Timeout = 45.0,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return once it is started.")] = False,
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="K=V", help="Variable for the server; repeatable.")
    ] = None,
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
    return _call("start", locals())


@app.command(
    epilog="""\b
Examples:
  devsup stop web
  devsup stop 4711 :8081            by pid, by port
  devsup stop --all                 everything of this project

A process that devsup did not start is refused, never signalled."""
)
def stop(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET", help="Apps, sessions, pids or :ports.", autocompletion=complete.targets
        ),
    ] = None,
    *,
    all: Annotated[bool, typer.Option("--all", help="Every server of this project.")] = False,  # noqa: A002 - the flag's name
    grace: Grace = 5.0,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="End what detached itself on purpose, too (editors, watchman).")
    ] = False,
    everywhere: Annotated[bool, typer.Option("--everywhere", help="Beyond this project.")] = False,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Stop servers with all their processes; say what was seen."""
    return _call("stop", locals())


@app.command(
    "list",
    epilog="""\b
Examples:
  devsup list
  devsup list --everywhere          every project of yours
  devsup ls -a                      ended ones, too""",
)
def list_(
    *,
    all: Annotated[bool, typer.Option("-a", "--all", help="Ended servers, too.")] = False,  # noqa: A002 - the flag's name
    everywhere: Annotated[bool, typer.Option("--everywhere", help="Every project.")] = False,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """List the servers of this project (also: ls, ps)."""
    return _call("list", locals())


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
    return _call("status", locals())


@app.command(
    epilog="""\b
Examples:
  devsup logs web -n 50
  devsup logs web -f                follow until the server ends
  devsup logs web --json --after 3:1024 --wait 20

The answer's `next_cursor` is where the next page begins: give it back with --after."""
)
def logs(
    target: Target,
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
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """Show what a server has written, also an ended one."""
    return _call("logs", locals())


@app.command(
    epilog="""\b
Examples:
  devsup url web
  curl "$(devsup url web)\""""
)
def url(target: Target, *, json: Json = False, directory: Directory = None, verbose: Verbose = False) -> Call:
    """Print the address on which a server really listens."""
    return _call("url", locals())


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
    return _call("wait", locals())


@app.command(
    epilog="""\b
Examples:
  devsup restart web"""
)
def restart(
    target: Target,
    *,
    timeout: Timeout = 45.0,
    grace: Grace = 5.0,
    json: Json = False,
    directory: Directory = None,
    verbose: Verbose = False,
) -> Call:
    """
    Stop a server and run it again as it was.

    With the same command, environment and port; its next log begins anew.
    """
    return _call("restart", locals())


@app.command()
def version(*, json: Json = False, directory: Directory = None, verbose: Verbose = False) -> Call:
    """Show the version."""
    return _call("version", locals())


# -- running it ----------------------------------------------------------------------------------------

#: What people type who know another tool.
_OTHER_WORDS = {
    "down": "stop",
    "info": "status",
    "kill": "stop",
    "log": "logs",
    "open": "url",
    "run": "start",
    "show": "status",
    "tail": "logs",
    "up": "start",
}


def parse(argv: Sequence[str], *, as_json: bool, pretty: bool = False) -> Call | str:
    """
    Return the call that ``argv`` is, or the text that answers it without one (help).

    :raises UsageError: nothing of it is understood or something of it is wrong; says what and what to type
    """
    words, rest = cut(argv)
    words = arrange(words)
    verb = words[0] if words else ""
    if verb == "start" and rest == []:
        raise UsageError("no command after `--`", hint="devsup start --help")
    if rest is not None and verb != "start":
        words += ["--", *rest]
    shown = io.StringIO()
    # Typer prints help by itself. At a terminal let it; for everybody else it is part of our answer.
    target = contextlib.nullcontext() if pretty else contextlib.redirect_stdout(shown)
    try:
        with target:
            result = command(pretty=pretty).main(
                words, prog_name="devsup", standalone_mode=False, obj={"rest": rest}
            )
    except typer.TyperException as error:
        raise _usage_error(error, words) from error
    except SystemExit as end:  # a completion script was shown or installed
        if end.code:
            raise
        return shown.getvalue()
    if isinstance(result, Call):
        return result
    if as_json and not {"-h", "--help"} & set(words):
        raise UsageError("no command given", hint="devsup --help")
    return shown.getvalue()


def command(*, pretty: bool = False) -> Any:
    """Return the command line as Typer's own machinery runs it; ``pretty`` help is for terminals."""
    app.rich_markup_mode = "rich" if pretty else None
    group: Any = typer.main.get_command(app)
    for one in (group, *group.commands.values()):
        for param in (*one.params, one.get_help_option(one.context_class(one, help_option_names=_HELP))):
            if param.param_type_name == "argument" or param.is_flag:
                # Help would call them `<list[str]>` and `<bool>`, which are no words for a user.
                param.display_type_rich = lambda ctx: ""  # noqa: ARG005 - called by this name
    return group


def completion() -> int:
    """Answer a shell that asks what could come next."""
    command().main(sys.argv[1:], prog_name="devsup")
    return 0


def _usage_error(error: typer.TyperException, words: list[str]) -> UsageError:
    """Return Typer's complaint in our words: what is wrong in lower case, and the next thing to type."""
    context: Any = getattr(error, "ctx", None)
    known_verb = bool(words) and words[0] in {
        info.name or _name(info.callback) for info in app.registered_commands
    }
    path = f"devsup {words[0]}" if known_verb else "devsup"
    help_ = f"{path} --help"
    option = getattr(error, "option_name", None)
    param: Any = getattr(error, "param", None)
    message = error.format_message()
    if context is not None and context.parent is None and words and words[0][:1] != "-":
        return _wrong_verb(words[0])
    if option and message.startswith("No such option"):
        near = sorted(getattr(error, "possibilities", None) or ())
        known = f"did you mean `{near[0]}`? see `{help_}`" if near else help_
        return UsageError(f"`{path}` has no option `{option}`", hint=known)
    if option and message.endswith("requires an argument."):
        return UsageError(f"`{option}` needs a value", hint=help_)
    if message.startswith("Got unexpected extra argument"):
        return UsageError(f"`{path}` takes no argument `{message.rpartition(' (')[2][:-1]}`", hint=help_)
    if message.startswith("Missing argument"):
        return UsageError(f"`{path}` needs {param.metavar if param else 'an argument'}", hint=help_)
    if param is not None and param.metavar in _TAKES:
        return UsageError(f"`{param.opts[-1]}` takes {_TAKES[param.metavar]}", hint=help_)
    return UsageError(_our_style(message), hint=help_)


#: What an option takes, by the letter that its help shows.
_TAKES = {"N": "a whole number", "S": "a number of seconds"}


def _wrong_verb(word: str) -> UsageError:
    names = [info.name or _name(info.callback) for info in app.registered_commands if not info.hidden]
    begun = [name for name in names if len(word) > 1 and name.startswith(word)]
    near = begun or difflib.get_close_matches(word, names, n=1)
    if word in _OTHER_WORDS:
        near = [_OTHER_WORDS[word]]
    hint = f"did you mean `devsup {near[0]}`? see `devsup --help`" if near else "devsup --help"
    return UsageError(f"no command `{word}`", hint=hint)


def _name(callback: Callable[..., Any] | None) -> str:
    return getattr(callback, "__name__", "")


def _our_style(message: str) -> str:
    message = message.strip().rstrip(".")
    return (message[:1].lower() + message[1:]).replace("'", "`")
