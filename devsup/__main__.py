"""
The entry point: the hot lane first, Typer for what it does not understand, one answer, one exit status.

One command per process, in its main thread. Nothing is imported that a plain call does not need: each module
here is paid for dozens of times an hour.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from devsup.cli.answer import Answer
    from devsup.cli.lane import Call

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; without ``argv`` it is the process's own and ends it."""
    if argv is None:
        gc.disable()  # a short life makes little garbage: looking for it is 3 % of a `list`
        _fill_standard_descriptors()
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        if "_DEVSUP_COMPLETE" in os.environ:
            from devsup.cli.app import completion

            return completion()
        code = _command(arguments, own_process=argv is None)
    except KeyboardInterrupt:
        # A second Ctrl-C, while the answer to the first was on its way, or one amid the page of a follower.
        handlers = sys.modules.get("devsup.cli.handlers")
        code = 143 if handlers is not None and handlers.was_terminated() else 130
    if argv is None:
        _leave(code)
    return code


def _command(arguments: list[str], *, own_process: bool) -> int:
    as_json = _wants_json(arguments)
    from devsup.cli import answer

    if sys.platform == "win32":
        from devsup.errors import UnsupportedPlatform

        return answer.show(
            answer.Answer(
                "", error=UnsupportedPlatform("devsup does not run on Windows", hint="run it within WSL")
            ),
            as_json=as_json,
        )
    from devsup.cli import lane

    call = lane.parse(arguments) or _ask_typer(arguments, as_json=as_json)
    return call if isinstance(call, int) else _run(call, as_json=as_json, own_process=own_process)


def _ask_typer(arguments: list[str], *, as_json: bool) -> Call | int:
    """Return the call that the hot lane did not understand, or the exit status of help or a mistake."""
    from devsup.cli import answer
    from devsup.errors import DevsupError

    try:
        from devsup.cli import app

        call = app.parse(arguments, as_json=as_json, pretty=_is_terminal(1) and not as_json)
        if isinstance(call, str):
            result = answer.Answer("help", {"help": call} if as_json else None)
            return answer.show(result, as_json=True) if as_json else answer.write(call)
    except DevsupError as error:
        from devsup.cli import hints

        error.hint = hints.located(error.hint, hints.folder_of(arguments))
        return answer.show(answer.Answer("", error=error), as_json=as_json)
    except SystemExit as exit_:  # Typer's own: completion has been installed or shown
        return exit_.code if isinstance(exit_.code, int) else 1
    except BrokenPipeError:
        return 0
    except Exception as error:
        from devsup.cli.report import internal

        return answer.show(answer.Answer("", error=internal(error)), as_json=as_json)
    return call


def _run(call: Call, *, as_json: bool, own_process: bool) -> int:
    from devsup.cli import answer, handlers

    if own_process:
        _catch_sigterm(handlers.terminate)
    as_json = as_json or call.options["json"]
    people = not as_json and (_is_terminal(1) or (_is_terminal(2) and handlers.waiting_for(call) is not None))

    def to_machines(result: Answer) -> int:
        return answer.show(result, as_json=as_json)

    execute: Callable[[Call], Answer] = handlers.run
    show: Callable[[Answer], int] = to_machines
    if people:
        from devsup.cli import screen

        execute, show = screen.run, screen.show
    code = 0
    try:
        if handlers.follows(call):
            gc.enable()  # this one may live for days
            for page in handlers.pages(call):
                code = page.exit_code
                if code in (130, 143) and not as_json:
                    return code  # how a person leaves a follower is no error to talk about
                code = show(page)
                if code != page.exit_code:
                    return code  # it could not be written, and so will be the next
            return code
        result = execute(call)
        code = result.exit_code
        return show(result)
    except BrokenPipeError:
        return code  # whoever read has gone; what was to be done is done
    except Exception as error:  # in what shows: the call itself has answered
        from devsup.cli.report import internal

        return answer.show(answer.Answer(call.verb, error=internal(error, call)), as_json=as_json)


def _wants_json(arguments: list[str]) -> bool:
    # From the raw arguments, because parsing may fail. What follows `--` is somebody's command.
    for word in arguments:
        if word == "--":
            break
        if word == "--json":
            return True
    return os.environ.get("DEVSUP_OUTPUT", "").lower() == "json"


def _is_terminal(descriptor: int) -> bool:
    return os.isatty(descriptor) and os.environ.get("TERM", "") != "dumb"


def _catch_sigterm(handler: Any) -> None:
    import _signal  # type: ignore[import-not-found]  # what is behind `signal`, without its enums

    _signal.signal(_signal.SIGTERM, handler)


def _fill_standard_descriptors() -> None:
    """Open what the caller has closed (`2>&-`): else the next file we open would be written to as stderr."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number, which is this one


def _leave(code: int) -> NoReturn:
    # Nothing is left to clean up, and the interpreter's own end costs a tenth of a short command.
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
