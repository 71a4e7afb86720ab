"""
From the options of a call to its answer: one function per verb, and one boundary around them all.

What machines call dozens of times an hour stands here; each other verb has a module in `devsup.cli.verbs`.

`run` is the only place where an exception becomes an answer; both lanes call it. Runs in the main thread of a
process that may be interrupted at any instruction: whatever was true then is what the registry says.
"""

from __future__ import annotations

import os

from devsup import masking, trace
from devsup.cli import hints, verbs
from devsup.cli.answer import Answer
from devsup.errors import (
    DevsupError,
    Interrupted,
    RegistryUnusable,
    Terminated,
    UsageError,
)
from devsup.models import SESSION_PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from devsup.cli.lane import Call
    from devsup.models import StopResult
    from devsup.supervisor import Supervisor

    Options = dict[str, Any]
    Listener = Callable[[Any], None] | None

__all__ = [
    "follows",
    "kind_of",
    "pages",
    "read_environment",
    "read_port",
    "run",
    "severity",
    "terminate",
    "waiting_for",
    "was_terminated",
    "worst",
]

#: Nothing is waited for longer: a day, so that a mistyped number cannot hold a caller for good.
LONGEST = 86400.0
#: Upper bounds that keep one answer in memory.
MOST = {"limit": 100_000, "lines": 1_000_000, "max_bytes": 100_000_000}
#: Of several targets or apps the worst decides the exit status, and that is the first one here.
_WORST_FIRST = (1, 11, 13, 10, 9, 2, 8, 7, 12, 4, 5, 3, 6, 0)

_terminated = False


def terminate(_number: int, _frame: object) -> None:
    """Handle SIGTERM: unwind as Ctrl-C does, so that a start still says what became of its server."""
    global _terminated
    _terminated = True
    raise KeyboardInterrupt


def was_terminated() -> bool:
    """Tell whether SIGTERM is what interrupted."""
    return _terminated


def run(call: Call, progress: Listener = None, make: Callable[[], Supervisor] | None = None) -> Answer:
    """
    Run ``call`` and return its answer; never raises, short of the interpreter's own end.

    ``make`` gives its supervisor, for a process that serves several projects at once: it goes to no folder
    then, and may call this from any thread.
    """
    supervisor: Supervisor | None = None
    try:
        _check_numbers(call.verb, call.options)
        if make is None:
            _enter(call.options)
        if call.verb == "version":
            return Answer("version", _version())
        from devsup.supervisor import Supervisor

        supervisor = Supervisor() if make is None else make()
        trace.step(f"{call.verb} in {supervisor.project}")
        handle = _HANDLERS.get(call.verb) or verbs.module(call.verb).handle
        data, error = handle(supervisor, call.options, progress)
        everywhere = bool(call.options.get("everywhere"))
        if error is not None:
            error.hint = hints.located(error.hint, call.options["directory"])
        raw = bool(call.options.get("raw"))
        return Answer(call.verb, data, error, _notes(supervisor), everywhere, raw)
    except (Exception, KeyboardInterrupt) as error:
        return _failed(call, error, supervisor)


def waiting_for(call: Call) -> str | None:
    """Return what a person is told while ``call`` takes its time; None where it never does."""
    options = call.options
    if call.verb == "start":
        return f"starting {options['app'] or masking.shown(options['command'] or ()) or 'the app'}"
    if call.verb == "stop":
        return f"stopping {', '.join(options['targets'] or ('every server',))}"
    if call.verb == "restart":
        return f"restarting {options['target']}"
    if call.verb == "wait":
        return f"waiting until {options['target']} is {'gone' if options['gone'] else 'ready'}"
    if call.verb in _HANDLERS or call.verb == "version":
        return None
    waits = getattr(verbs.module(call.verb), "waits", None)
    return None if waits is None else str(waits(options))


def follows(call: Call) -> bool:
    """Tell whether ``call`` gives more than one answer."""
    if call.verb in _HANDLERS or call.verb == "version":
        return bool(call.options.get("follow"))
    asked = getattr(verbs.module(call.verb), "follows", None)
    return asked is not None and bool(asked(call.options))


def pages(call: Call) -> Iterator[Answer]:
    """Give what a call that follows has to say, as it comes; the last answer may be an error."""
    supervisor: Supervisor | None = None
    try:
        options = call.options
        _check_numbers(call.verb, options)
        _enter(options)
        from devsup.supervisor import Supervisor

        supervisor = Supervisor()
        trace.step(f"following in {supervisor.project}")
        if call.verb != "logs":
            for data in verbs.module(call.verb).pages(supervisor, options, _rest):
                yield Answer(call.verb, data, notes=_notes(supervisor))
            return
        from devsup.cli import following

        labels = options["targets"] if len(set(options["targets"])) > 1 else ()
        width = max(map(len, labels), default=0)
        for page in following.pages(supervisor, options, _rest):
            label = _label(page.session, labels).ljust(width) if labels else None
            notes, supervisor.notes = _notes(supervisor), []
            yield Answer("logs", page, notes=notes, raw=options["raw"], label=label)
    except BrokenPipeError:
        raise  # whoever read has gone: there is nobody to tell
    except (Exception, KeyboardInterrupt) as error:
        yield _failed(call, error, supervisor)


def _label(session: str | None, targets: list[str]) -> str:
    """Return the name under which a server of this session was asked for."""
    name = session or ""
    app = name.removeprefix(SESSION_PREFIX)
    return next((target for target in targets if target in (name, app)), app)


def _rest(seconds: float) -> None:
    """
    Wait, but not for a reader that has gone away.

    :raises BrokenPipeError: nobody reads stdout any more
    """
    import select
    import time

    poll = select.poll()
    poll.register(1, 0)  # what is not asked for and always told: the other end is closed
    until = time.monotonic() + seconds
    for _, happened in poll.poll(seconds * 1e3):
        if happened & (select.POLLERR | select.POLLHUP):
            raise BrokenPipeError
        time.sleep(max(0.0, until - time.monotonic()))  # no stdout at all


def _failed(call: Call, error: BaseException, supervisor: Supervisor | None) -> Answer:
    notes = _notes(supervisor)
    if isinstance(error, KeyboardInterrupt):
        goes_on = "; what has begun goes on" if call.verb in ("start", "stop", "restart") else ""
        error = Interrupted(f"interrupted{goes_on}", hint="devsup list")
    elif not isinstance(error, DevsupError):
        from devsup.cli.report import internal

        error = internal(error, call)
    if isinstance(error, Interrupted) and _terminated:
        error = Terminated(
            error.message.replace("interrupted", "terminated"),
            hint=error.hint,
            details=error.details,
            data=error.data,
        )
    place = supervisor.place if supervisor is not None else None
    error.hint = hints.located(error.hint, place or call.options["directory"])
    return Answer(call.verb, error.data, error, notes)


def _notes(supervisor: Supervisor | None) -> list[str]:
    return [] if supervisor is None else list(supervisor.notes)


def _check_numbers(verb: str, options: Options) -> None:
    for name in ("timeout", "grace", "wait"):
        seconds = options.get(name)
        if seconds is not None and not 0 <= seconds <= LONGEST:
            raise UsageError(
                f"`--{name}` takes from 0 to {LONGEST:.0f} seconds", hint=f"devsup {verb} --help"
            )
    for name, most in MOST.items():
        number = options.get(name)
        if number is not None and not 0 <= number <= most:
            raise UsageError(
                f"`--{name.replace('_', '-')}` takes a number from 0 to {most}", hint=f"devsup {verb} --help"
            )


def _enter(options: Options) -> None:
    """Go to the folder of `-C`, as make and git do: relative paths mean the same then."""
    if options["verbose"]:
        trace.enable()
    folder = options["directory"]
    try:
        if folder is not None:
            os.chdir(folder)
        os.getcwd()
    except FileNotFoundError:
        if folder is None:
            raise UsageError("the current folder is no more", hint="cd to a folder that exists") from None
        raise UsageError(f"no folder `{folder}`", hint="name an existing folder after -C") from None
    except NotADirectoryError:
        raise UsageError(f"`{folder}` is no folder", hint="name an existing folder after -C") from None
    except OSError as error:
        raise UsageError(
            f"folder `{folder or '.'}` cannot be entered: {error.strerror}",
            hint="ask its owner for access, or name another folder after -C",
        ) from None


# -- one function per verb: (what to show, error beside it) -----------------------------------------------


def _start(supervisor: Supervisor, options: Options, progress: Listener) -> tuple[Any, DevsupError | None]:
    if options["monitor"]:
        return _start_monitor(supervisor, options, progress)
    environment = read_environment(options["env"])
    port = read_port(options)
    result = supervisor.start(
        options["app"],
        command=options["command"],
        port=port,
        timeout=options["timeout"],
        wait=not options["no_wait"],
        env=environment or None,
        restart=options["restart"],
        idle_timeout=options["idle_timeout"],
        ttl=options["ttl"],
        with_parent=options["with_parent"],
        owner=options["owner"],
        on_progress=progress,
    )
    return result, None


def _start_monitor(
    supervisor: Supervisor, options: Options, progress: Listener
) -> tuple[Any, DevsupError | None]:
    if options["app"] is not None or options["command"]:
        raise UsageError("`--monitor` starts the monitor alone", hint="devsup start --monitor")
    return supervisor.start_monitor(timeout=options["timeout"], on_progress=progress), None


def read_port(options: Options) -> int | str | None:
    """Return the port that a call names; raise `UsageError` for what is none."""
    text: str | None = options["port"]
    if text is None or text == "auto":
        return text
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        given = text if len(text) <= 20 else f"{text[:20]}…"
        raise UsageError(
            f"`{given}` is no port: give a number from 1 to 65535, or `auto`",
            hint=hints.start(options, "--port", "auto"),
        )
    return int(text)


def read_environment(pairs: list[str] | None) -> dict[str, str]:
    """Return the variables of `--env`, whose secrets are masked from here on."""
    environment = {}
    for position, pair in enumerate(pairs or (), 1):
        name, equals, value = pair.partition("=")
        # The text itself may be a secret that somebody forgot to name, so it is not repeated.
        if not equals or not name or "\0" in pair:
            raise UsageError(f"`--env` number {position} is not of the form K=V", hint="devsup start --help")
        environment[name] = value
    if environment:
        masking.learn(environment)
    return environment


def _stop(supervisor: Supervisor, options: Options, _: Listener) -> tuple[Any, DevsupError | None]:
    targets, everything, owner = options["targets"] or [], options["all"], options["owner"]
    if not targets and not everything and owner is None:
        raise UsageError("nothing to stop: name a target, or `--all`", hint="devsup stop --all")
    if targets and (everything or owner is not None):
        what = "`--all` means every server" if everything else f"`--owner` means every server of `{owner}`"
        raise UsageError(
            f"{what}: leave out the targets",
            hint=f"devsup stop {' '.join(map(masking.quoted, targets))}",
        )
    if options["fleet"]:
        if not targets:
            raise UsageError("`--fleet` needs targets: name each server", hint="devsup list --fleet")
        results = supervisor.stop(
            targets, grace=options["grace"], sweep=options["sweep"], take_over=options["take_over"],
            fleet=True, timeout=options["timeout"],
        )  # fmt: skip
        return results, worst(results.results)
    if options["timeout"] is not None:
        raise UsageError(
            "`--timeout` is for `--fleet`: a server of this host is waited for to its end",
            hint=f"devsup stop {' '.join(map(masking.quoted, targets)) or '--all'}",
        )
    results = supervisor.stop(
        targets,
        everything=everything,
        grace=options["grace"],
        sweep=options["sweep"],
        everywhere=options["everywhere"],
        owner=owner,
        take_over=options["take_over"],
    )
    return results, worst(results.results)


def worst(results: list[StopResult]) -> DevsupError | None:
    """Return the error of the whole: that of the worst target; None where all went well."""
    failed = [result for result in results if result.error is not None]
    if not failed:
        return None
    first = min(failed, key=lambda result: severity(result.error or "internal"))
    code = first.error or "internal"
    message = first.message or f"`{first.target}` could not be stopped"
    if len(failed) > 1:
        message = f"{len(failed)} of {len(results)} targets could not be stopped"
    details = {
        **(first.details or {}),
        "target": first.target,
        "survivors": first.survivors,
        "failed": [{"target": one.target, "code": one.error, "message": one.message} for one in failed],
    }
    usual = _STOP_HINTS.get(code, "devsup list --everywhere").format(masking.quoted(first.target))
    return kind_of(code)(message, hint=first.hint or usual, details=details)


#: By code, for what was found out on the way; a target that was refused brings its own.
_STOP_HINTS = {
    "busy": "devsup wait {} --gone",
    "lock_timeout": "devsup wait {} --gone",
    "port_held": "devsup list",
    "registry_unusable": "make room in the state folder, or make it writable; then `devsup stop {}`",
    "survivors": "devsup status {}",
}


def severity(code: str) -> int:
    """Return the place of an error among several: the lowest one is that of the worst."""
    exit_code = kind_of(code).exit_code
    return _WORST_FIRST.index(exit_code) if exit_code in _WORST_FIRST else len(_WORST_FIRST)


def kind_of(code: str) -> type[DevsupError]:
    """
    Return the error that has this code: of several the general one, which stands before its kinds.

    The base of all for a code that this version does not know: a guard on another host may be a newer one.
    """
    from devsup import errors

    kinds = (one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, DevsupError))
    return next((kind for kind in kinds if kind.code == code), DevsupError)


def _list(supervisor: Supervisor, options: Options, _: Listener) -> tuple[Any, DevsupError | None]:
    if options["fleet"]:
        return supervisor.list(ended=options["all"], fleet=True), None
    return supervisor.list(everywhere=options["everywhere"], ended=options["all"]), None


def _status(supervisor: Supervisor, options: Options, _: Listener) -> tuple[Any, DevsupError | None]:
    return supervisor.status(options["target"]), None


def _logs(supervisor: Supervisor, options: Options, _: Listener) -> tuple[Any, DevsupError | None]:
    targets = options["targets"]
    if len(targets) > 1:
        words = " ".join(map(masking.quoted, targets))
        raise UsageError(
            "several logs are shown side by side with `--follow`", hint=f"devsup logs -f {words}"
        )
    page = supervisor.logs(
        targets[0],
        lines=options["lines"],
        after=options["after"],
        max_bytes=options["max_bytes"],
        wait=options["wait"] or 0.0,
        errors=options["errors"],
        grep=options["grep"],
        since=options["since"],
    )
    return page, None


def _url(supervisor: Supervisor, options: Options, _: Listener) -> tuple[Any, DevsupError | None]:
    return supervisor.url(options["target"]), None


def _wait(supervisor: Supervisor, options: Options, progress: Listener) -> tuple[Any, DevsupError | None]:
    target, gone, timeout = options["target"], options["gone"], options["timeout"]
    return supervisor.wait(target, gone=gone, timeout=timeout, on_progress=progress), None


def _restart(supervisor: Supervisor, options: Options, progress: Listener) -> tuple[Any, DevsupError | None]:
    restarted = supervisor.restart(
        options["target"],
        timeout=options["timeout"],
        grace=options["grace"],
        take_over=options["take_over"],
        on_progress=progress,
    )
    return restarted, None


def _version() -> dict[str, str | None]:
    import sys

    from devsup import __version__
    from devsup.paths import find_home

    try:
        home = find_home().root
    except RegistryUnusable:
        home = None
    python = ".".join(map(str, sys.version_info[:3]))
    return {"version": __version__, "python": python, "platform": sys.platform, "home": home}


_HANDLERS: dict[str, Callable[[Supervisor, Options, Listener], tuple[Any, DevsupError | None]]] = {
    "start": _start,
    "stop": _stop,
    "list": _list,
    "status": _status,
    "logs": _logs,
    "url": _url,
    "wait": _wait,
    "restart": _restart,
}
