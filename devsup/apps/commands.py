"""
From what a caller asked for to exactly what will be run: argv, folder, port, environment, session.

A plan is made from files and arguments alone; nothing is written or started, so it can be made again at any
time and two callers that ask for the same get the same plan.
"""

from __future__ import annotations

import os

from devsup import masking
from devsup.apps import configured, detect, lines, naming, owner, scripts
from devsup.apps.checks import environment, validate
from devsup.apps.folders import Folders
from devsup.apps.ports import AUTO, check_reserved, number, read_port, take_port, without_port
from devsup.apps.presets import COMMAND, KINDS
from devsup.apps.presets.kind import COMMON_FAILURES
from devsup.apps.recognise import recognise
from devsup.errors import UsageError
from devsup.filenames import portable
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from devsup.apps.checks import Needs
    from devsup.apps.detect import App, Survey
    from devsup.apps.lines import Line
    from devsup.apps.ports import Recipe
    from devsup.apps.presets import Kind
    from devsup.apps.recognise import Recognised
    from devsup.config import Config

__all__ = ["Call", "Plan", "environment", "of_app", "plan", "probe", "read_port", "same_command", "validate"]


class Call(Record):
    """What a caller asks for, beside app and command; ``given`` are the variables that it sets itself."""

    project: str
    cwd: str
    port: int | str | None
    given: dict[str, str]
    environ: Mapping[str, str]
    config: Config | None = None


class Plan(Record):
    """
    What will be run.

    ``env`` are changes to the caller's environment (None: unset). ``port_source`` says who named the port:
    "caller", "command" (the argv or the script), "default", or "none". With ``port_auto`` it is still to be
    chosen: ``with_port`` puts it in.
    """

    project: str
    app: str | None
    kind: str
    session: str
    cwd: str
    command: list[str]
    port: int | None
    port_auto: bool
    port_source: str
    folder: str | None
    env: dict[str, str | None]
    notes: list[str]
    probe: dict[str, Any]
    owner: str | None
    recipe: Recipe
    needs: Needs | None
    #: How long it lives and what becomes of it when it ends by itself: see `devsup.guard.job`.
    policy: dict[str, Any]
    #: Seconds that its configuration gives it to become ready.
    timeout: float | None = None
    #: The apps that are to run before it.
    depends_on: list[str] = []  # noqa: RUF012 - a default of a record, never changed
    #: Whether there may be one at most on all hosts of the fleet.
    exclusive: bool = False

    def with_port(self, port: int) -> Plan:
        """Return the plan with ``port`` in its command or environment."""
        check_reserved(KINDS[self.kind], port)
        command, env = self.recipe.render(port)
        kept = {name: value for name, value in self.env.items() if name != self.recipe.variable}
        return self.replace(command=command, port=port, env={**kept, **env})


def plan(
    project: str,
    cwd: str,
    *,
    app: str | None = None,
    command: list[str] | None = None,
    port: int | str | None = None,
    env: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Config | None = None,
) -> Plan:
    """
    Return what `devsup start [app] [-- command]` in ``cwd`` runs.

    ``env`` are the caller's own changes; they win over all that devsup sets. ``environ`` is the environment
    to change, ``config`` the project's configuration.

    :raises DevsupError: usage, not_found, ambiguous or config_invalid: nothing that could be run was asked
    for
    """
    environ = os.environ if environ is None else environ
    asked, given = read_port(port), dict(env or {})
    if app is not None and not naming.is_name(app):
        raise _no_name(app, command)
    project, cwd = os.path.realpath(project), os.path.realpath(cwd)
    call = Call(project, cwd, asked, given, environ, config)
    if command is None:
        seen = configured.apply(detect.survey(project, cwd), config)
        chosen = seen.choose(app)
        plan = of_app(seen, chosen, call)
        return plan.replace(notes=[*plan.notes, *seen.far(app, chosen)])
    _check_argv(command)
    return _explicit(call, app, command)


def of_app(seen: Survey, app: App, call: Call) -> Plan:
    """Return what ``call`` runs where it names no command: ``app``, as it is found and configured."""
    settings = configured.settings_of(call.config, app.name, call.environ)
    needed = configured.check_dependencies(seen, call.config, app.name)
    if app.command is not None:
        line, port = _configured(seen, app, settings, call)
    elif app.script is None and app.kind == COMMAND.name:
        assert call.config is not None
        raise call.config.error(
            f"apps.{app.name}",
            f"`apps.{app.name}` has no `command`, and there is nothing in `{app.dir}` that could be run",
            allowed=["command", "dir", "kind"],
            hint="give it a `command`",
        )
    else:
        line, port = lines.of_app(seen.folders, app, call.environ), None
    plan = _finish(call, app.name, line, settings, port, seen.notes())
    return plan.replace(depends_on=needed) if needed else plan


def same_command(kind: str, one: list[str], other: list[str]) -> bool:
    """Tell whether two commands of ``kind`` are one but for the port: by this a start finds its server."""
    return without_port(one, KINDS[kind]) == without_port(other, KINDS[kind])


def probe(kind: Kind, folder: str | None) -> dict[str, Any]:
    """Return how the guard finds out whether a server of ``kind`` serves, or why it does not."""
    return {
        "kind": kind.name,
        "http": list(kind.http),
        "body": kind.body,
        "unready": list(kind.unready),
        "root_header": kind.root_header,
        "root": folder,
        "failures": [list(pair) for pair in (*kind.failures, *COMMON_FAILURES)],
    }


def _no_name(app: str, command: list[str] | None) -> UsageError:
    why = f"lower-case letters, digits, `_` and `-`, at most {naming.MAX_LENGTH}"
    if app.isascii() and app.isdecimal():
        why = "a number means a pid wherever a server is named"
    name = naming.slug(app)
    line = masking.typed(["devsup", "start", name, *(["--", *command] if command else [])])
    shown = app if len(app) <= 2 * naming.MAX_LENGTH else f"{app[: naming.MAX_LENGTH]}…"
    return UsageError(f"`{shown}` cannot be a name: {why}", hint=line or f"call it `{name}`")


def _check_argv(command: list[str]) -> None:
    if not command or not command[0]:
        raise UsageError("no command after `--`", hint="devsup start --help")
    if any("\0" in word for word in command):
        raise UsageError("a word of the command contains a NUL byte", hint="give the command without it")


def _explicit(call: Call, name: str | None, command: list[str]) -> Plan:
    project, cwd, environ = call.project, call.cwd, call.environ
    folders = Folders(project)
    found = recognise(command, folders, cwd)
    if found is None:
        settings = configured.settings_of(call.config, name, environ)
        kind = KINDS[settings.get("kind", COMMAND.name)]
        return _finish(call, name, lines.of_command(command, kind, cwd), settings, None, [])
    inside = (found.folder + "/").startswith(project.rstrip("/") + "/")
    seen = configured.apply(detect.survey(project, found.folder if inside else cwd, folders), call.config)
    own = seen.at(found.folder, found.kind.name)
    line, port = _recognised(seen, found, own, cwd, environ)
    if name is None and (found.kind is not COMMAND or _is_own(found, own)):
        name = _name(seen, line, own)
    settings = configured.settings_of(call.config, name, environ)
    return _finish(call, name, line, settings, port, [])


def _configured(
    seen: Survey, app: App, settings: dict[str, Any], call: Call
) -> tuple[lines.Line, int | None]:
    """Return the line of a configured command, and the port that it begins with."""
    command, kind = app.command or [], settings.get("kind")
    found = recognise(command, seen.folders, app.dir)
    if found is None:
        return lines.of_command(command, KINDS[kind or COMMAND.name], app.dir), None
    line, port = _recognised(seen, found, None, app.dir, call.environ)
    return (line if kind is None else line.replace(kind=KINDS[kind])), port


def _is_own(found: Recognised, own: App | None) -> bool:
    """Tell whether the command runs the script that its app runs anyway, or one that says the same."""
    if own is None or own.script is None or found.package is None or found.script is None:
        return False
    if "--bun" in found.argv:
        return False
    if found.script == own.script:
        return True
    same = found.package.scripts[found.script] == own.text
    return same and not own.hooks and not scripts.has_hooks(found.package, found.script)


def _name(seen: Survey, line: Line, own: App | None) -> str:
    if own is not None and own.kind == line.kind.name:
        return own.name
    role = line.kind.role
    known = any(KINDS[app.kind].role == role for app in seen.apps)
    names = [app.name for app in seen.apps]
    place = (line.folder,)
    return naming.assign(seen.project, [(place, None if known else role)], names)[place]


def _recognised(
    seen: Survey, found: Recognised, own: App | None, cwd: str, environ: Mapping[str, str]
) -> tuple[Line, int | None]:
    """Return the line of a recognised command, and the port that its prefix or arguments ask for."""
    variables, port = dict(found.variables), None
    if found.kind.port_env in variables:
        port = _port_of(variables.pop(found.kind.port_env))
    prefix = ["env", *(f"{name}={value}" for name, value in variables.items())] if variables else []
    if found.package is None:
        return lines.of_program(seen.folders, found, prefix, cwd, environ), port
    taken = take_port(found.argv, found.args, found.kind)
    if own is not None and _is_own(found, own) and not prefix and not taken.argv[found.args :]:
        return lines.of_app(seen.folders, own, environ), taken.port or port
    return lines.of_script(seen.folders, found, found.package, prefix, cwd), port


def _finish(
    call: Call,
    name: str | None,
    line: Line,
    settings: dict[str, Any],
    prefixed: int | None,
    notes: list[str],
) -> Plan:
    """Put together what the call, the environment, the file and the command say; ``prefixed`` is its port."""
    project, given, environ = call.project, call.given, call.environ
    kind = line.kind
    host = settings.get("host")
    placed = lines.with_host(line, host)
    if host is not None and placed is line:
        notes = [*notes, f"the command itself says on which address it listens: `host` {host} has no effect"]
    line = placed
    recipe, own = lines.recipe_of(line)
    env = configured.variables(call.config, name, line.cwd, settings)
    asked = _asked(kind, prefixed if call.port is None else call.port, given)
    from_file = asked is None and (asked := settings.get("port") or _port_in(kind, env)) is not None
    if recipe.fixed and asked is not None and asked != own:
        why = (
            f"the command sets port {own} itself" if own else "the command cannot be told its port from here"
        )
        notes = [*notes, f"{why}: `--port {asked}` has no effect"]
        asked = None
    elif line.wrapper and recipe.own is not None and isinstance(asked, int) and asked != recipe.own:
        notes = [*notes, f"the script says port {recipe.own}; `{recipe.flag} {asked}` was added behind it"]
    auto = asked == AUTO
    port = asked if isinstance(asked, int) else None if auto else own or kind.default_port
    source = "file" if from_file else "caller" if asked is not None else "command" if own else ""
    source = source or ("default" if port else "none")
    check_reserved(kind, port)
    argv, told = recipe.render(port)
    if own == 0 and asked is None:
        # The command asks for any port: only the server knows which.
        argv, told, port, source = line.argv, {}, None, "command"
    folder = line.folder if kind.exclusive_folder else None
    changes, said = _environment(line, {**line.env, **env, **told}, given, environ, source)
    lasting = configured.policy(settings)
    mark = configured.fingerprint(call.config.settings(name), env) if call.config is not None else None
    if mark is not None:
        lasting["config"] = mark
    return Plan(
        project=project,
        app=name,
        kind=kind.name,
        session=naming.SESSION_PREFIX + name if name is not None else _session(project, line),
        cwd=line.cwd,
        command=argv,
        port=port,
        port_auto=auto,
        port_source=source,
        folder=folder,
        env=changes,
        notes=[*notes, *said],
        probe=configured.probe(settings, probe(kind, folder)),
        owner=owner.detect(environ),
        recipe=recipe,
        needs=line.needs,
        policy=lasting,
        timeout=settings.get("ready", {}).get("timeout"),
        exclusive=settings.get("exclusive") == "fleet",
    )


def _asked(kind: Kind, asked: int | str | None, given: dict[str, str]) -> int | str | None:
    """Return the port asked for by `--port`, or by `--env PORT=...` where the kind is known to read that."""
    if kind.port_env is None or kind.port_env not in given or (kind is COMMAND and asked is None):
        return asked
    by_env = _port_of(given[kind.port_env])
    if asked not in (None, by_env):
        raise UsageError(
            f"`--port {asked}` and `--env {kind.port_env}={by_env}` contradict each other",
            hint="give one of the two",
        )
    return by_env


def _environment(
    line: Line,
    env: dict[str, str | None],
    given: dict[str, str],
    environ: Mapping[str, str],
    source: str,
) -> tuple[dict[str, str | None], list[str]]:
    own = {name: value for name, value in line.kind.set_env if name not in environ}
    if line.environment is not None:
        own["VIRTUAL_ENV"] = line.environment
    changes: dict[str, str | None] = {"BROWSER": "none", **own, **env, **given}
    notes = []
    for name in line.kind.unset_env:
        if name in environ and name not in given:
            changes[name] = None
            notes.append(
                f"`{name}` was taken out of the environment: with it the server does not watch files"
            )
    for name, value in env.items():
        # What a surrounding tool exports for itself is no wish; what the caller typed may be one.
        if source == "default" and environ.get(name, value) != value:
            notes.append(f"`{name}={environ[name]}` of the environment was replaced by {value}")
    if line.bin_dirs:
        path = given.get("PATH", environ.get("PATH", os.defpath))
        changes["PATH"] = os.pathsep.join([*line.bin_dirs, path])
    return changes, notes


def _session(project: str, line: Line) -> str:
    from binascii import crc32  # only commands without a name need it

    text = "\0".join((project, line.cwd, *line.argv))
    return f"session_{crc32(portable(text).encode('utf-8', 'surrogateescape')):08x}"


def _port_in(kind: Kind, env: dict[str, str]) -> int | None:
    """Return the port that the variables of a configuration name, where the kind is known to read that."""
    text = env.get(kind.port_env or "")
    return number(text) if text is not None and kind is not COMMAND else None


def _port_of(text: str) -> int:
    port = read_port(text)
    assert isinstance(port, int) or port == AUTO
    if not isinstance(port, int):
        raise UsageError("`auto` is no port here: only `--port auto` chooses one", hint="say `--port auto`")
    return port
