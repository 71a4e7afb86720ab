"""
The command line as Typer sees it: the one source of its grammar, its help and its completions.

The commands themselves stand in `devsup.cli.commands`. Loaded for what the hot lane does not fully
understand: mistakes, `--help`, completion. Main thread only.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.main

from devsup.cli import lane
from devsup.cli.commands import HELP, Directory, Json, Verbose, app
from devsup.cli.grammar import GLOBALS
from devsup.cli.lane import Call, arrange, cut
from devsup.errors import UsageError
from devsup.masking import typed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["app", "completion", "parse"]


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


# -- running it ----------------------------------------------------------------------------------------

#: What people type who know another tool.
_OTHER_WORDS = {
    "info": "status",
    "kill": "stop",
    "log": "logs",
    "run": "start",
    "show": "status",
    "tail": "logs",
}
_OTHER_OPTIONS = {
    "--cursor": "--after",
    "--last": "--lines",
    "--since-cursor": "--after",
    "--tail": "--lines",
    "-p": "--port",
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
        raise _usage_error(error, words, rest) from error
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
        for param in (*one.params, one.get_help_option(one.context_class(one, help_option_names=HELP))):
            if param.param_type_name == "argument" or param.is_flag:
                # Help would call them `<list[str]>` and `<bool>`, which are no words for a user.
                param.display_type_rich = lambda ctx: ""  # noqa: ARG005 - called by this name
    return group


def completion() -> int:
    """Answer a shell that asks what could come next."""
    command().main(sys.argv[1:], prog_name="devsup")
    return 0


def _usage_error(error: typer.TyperException, words: list[str], rest: list[str] | None) -> UsageError:
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
        return _wrong_verb(words, rest)
    if option and message.startswith("No such option"):
        near = [
            *filter(None, [_OTHER_OPTIONS.get(option)]),
            *sorted(getattr(error, "possibilities", None) or ()),
        ]
        hint = help_
        if near:
            meant = [near[0] + word[len(option) :] if _is(word, option) else word for word in words]
            hint = _typed(meant, rest) or f"did you mean `{near[0]}`? see `{help_}`"
        return UsageError(f"`{path}` has no option `{option}`", hint=hint)
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
_TAKES = {
    "N": "a whole number",
    "PID": "the pid of a process",
    "S": "a number of seconds",
    "SEQ": "the number of an event",
}


def _is(word: str, option: str) -> bool:
    return word == option or word.startswith(f"{option}=")


def _typed(words: list[str], rest: list[str] | None) -> str | None:
    """Return the call that was probably meant, if it is one and can be shown, without how it is answered."""
    words, own = cut(words)
    behind = [] if own is None and rest is None else ["--", *(own or rest or ())]
    call = lane.parse([*words, *behind])
    if call is None or call.options.get("env"):
        return None
    given = iter(words)
    said = []
    for word in given:
        if word in ("-C", "--directory"):
            next(given, None)  # whoever shows the hint puts it there
        elif word not in GLOBALS and not word.startswith(("-C", "--directory=")):
            said.append(word)
    return typed(["devsup", *said, *behind])


def _wrong_verb(words: list[str], rest: list[str] | None) -> UsageError:
    word = words[0]
    names = [info.name or _name(info.callback) for info in app.registered_commands if not info.hidden]
    begun = [name for name in names if len(word) > 1 and name.startswith(word)]
    near = begun or difflib.get_close_matches(word, names, n=1)
    if word in _OTHER_WORDS:
        near = [_OTHER_WORDS[word]]
    hint = "devsup --help"
    if near:
        sure = len(near) == 1 and _typed([near[0], *words[1:]], rest)
        hint = sure or f"did you mean `devsup {near[0]}`? see `devsup --help`"
    return UsageError(f"no command `{word}`", hint=hint)


def _name(callback: Callable[..., Any] | None) -> str:
    return getattr(callback, "__name__", "")


def _our_style(message: str) -> str:
    message = message.strip().rstrip(".")
    return (message[:1].lower() + message[1:]).replace("'", "`")
