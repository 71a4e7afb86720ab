"""
What a project's configuration comes to, and a first one from what is detected.

Reads files and the environment; `init` writes one file, whole, and never over another unless told to.
"""

from __future__ import annotations

import os

from devsup import masking
from devsup.apps import commands, configured, detect, fleets, naming
from devsup.apps.presets import COMMAND, KINDS
from devsup.bounds import DEFAULT_LIMIT
from devsup.errors import DevsupError, UsageError
from devsup.fleet import settings
from devsup.fleet.membership import DEFAULT_NAME, DEFAULT_TTL
from devsup.models import ConfigResult, InitResult
from devsup.shutdown import DEFAULT_GRACE
from devsup.supervisor.looking import START_TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from devsup.apps.commands import Call, Plan
    from devsup.apps.detect import App, Survey
    from devsup.config import Config
    from devsup.fleet.settings import Settings
    from devsup.supervisor.core import Supervisor

__all__ = ["config", "init"]

#: What holds where nobody says otherwise; durations in seconds.
_DEFAULTS: dict[str, Any] = {
    "host": None,
    "env_file": [],
    "ready.tcp": False,
    "ready.http": None,
    "ready.status": None,
    "ready.log": None,
    "ready.timeout": START_TIMEOUT,
    "ready.owner": "tree",
    "stop.signal": "SIGTERM",
    "stop.grace": DEFAULT_GRACE,
    "stop.keep": [],
    "restart": "no",
    "idle_timeout": None,
    "ttl": None,
    "health.interval": None,
    "health.restart": False,
    "log_limit": DEFAULT_LIMIT,
    "depends_on": [],
    "exclusive": None,
}


def config(
    supervisor: Supervisor,
    name: str | None,
    *,
    port: int | str | None,
    env: Mapping[str, str] | None,
    environ: Mapping[str, str],
) -> ConfigResult:
    """Return what is in force; see `Supervisor.config`."""
    said = configured.load(supervisor.project, supervisor.home)
    seen = configured.apply(detect.survey(supervisor.project, supervisor.cwd), said)
    asked = commands.read_port(port)
    call = commands.Call(supervisor.project, supervisor.cwd, asked, dict(env or {}), environ, said)
    apps = [seen.choose(name)] if name is not None else seen.apps
    found = {app.name: _keys(seen, app, call) for app in apps}
    if said is None:
        where = (
            f"nothing configures `{supervisor.project}`: all of this is detected; `devsup init` writes a file"
        )
    else:
        where = (
            f"project `{said.project or os.path.basename(supervisor.project)}`, configured by `{said.file}`"
        )
    fleet = _fleet(supervisor.project, said, environ)
    return ConfigResult(found, fleet, [where, *supervisor.notes, *seen.notes()])


def _fleet(project: str, said: Config | None, environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return what is in force for the fleet of the project, and where that comes from."""
    own = said.fleet if said is not None else {}
    found = fleets.configured_for(said, environ)
    source = "default" if found is None else "file" if found.source == "url" else "environment"
    keys: dict[str, tuple[Any, str]] = {
        "url": (found and _address(found), source),
        **{
            key: (own.get(key, usual), "file" if key in own else "default")
            for key, usual in (("name", DEFAULT_NAME), ("ttl", DEFAULT_TTL), ("on_lost", "keep"))
        },
        "host": (settings.host(environ), "environment" if environ.get(settings.HOST) else "detected"),
        "project": (
            fleets.identity(project, said),
            "file" if said is not None and said.project is not None else "detected",
        ),
    }
    return {key: {"value": value, "source": where} for key, (value, where) in keys.items()}


def _address(fleet: Settings) -> str:
    """Return where its Redis is, for showing: nothing of what cannot be read, for it may be the password."""
    try:
        return str(fleets.address(fleet))
    except UsageError:
        return masking.MASK


def _keys(seen: Survey, app: App, call: Call) -> dict[str, dict[str, Any]]:
    plan = commands.of_app(seen, app, call)
    own = call.config.settings(app.name) if call.config is not None else {}
    env = configured.variables(call.config, app.name, plan.cwd, own)
    environment = configured.from_environment(app.name, call.environ)
    keys: dict[str, tuple[Any, str]] = {
        "kind": (
            plan.kind,
            "file" if "kind" in own else "default" if plan.kind == COMMAND.name else "detected",
        ),
        "dir": (naming.label(seen.project, plan.cwd), "file" if "dir" in own else "detected"),
        "command": (masking.command(plan.command), "file" if app.command is not None else "detected"),
        "port": ("auto" if plan.port_auto else plan.port, _port_source(plan, environment)),
    }
    if app.command is not None and not app.placed:
        keys["dir"] = (keys["dir"][0], "default")
    for variable in sorted({*env, *call.given}):
        keys[f"env.{variable}"] = (masking.MASK, "flag" if variable in call.given else "file")
    said = _flat(own)
    for key, value in _DEFAULTS.items():
        if key in environment:
            keys[key] = (environment[key][1], "environment")
        else:
            keys[key] = (said[key], "file") if key in said else (value, "default")
    if own.get("health") and "health.interval" not in said:
        keys["health.interval"] = (configured.HEALTH_INTERVAL, "default")
    return {key: {"value": value, "source": source} for key, (value, source) in keys.items()}


def _port_source(plan: Plan, environment: dict[str, Any]) -> str:
    if plan.port_source == "file":
        return "environment" if "port" in environment else "file"
    return {"caller": "flag", "command": "detected"}.get(plan.port_source, "default")


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in settings.items():
        if isinstance(value, dict) and key != "env":
            found.update({f"{key}.{inner}": one for inner, one in value.items()})
        else:
            found[key] = value
    return found


# -- init ----------------------------------------------------------------------------------------------


def init(supervisor: Supervisor, *, force: bool, write: bool) -> InitResult:
    """Write a configuration; see `Supervisor.init`."""
    path = os.path.join(supervisor.project, "devsup.toml")
    there = os.path.lexists(path)
    if write and there and not force:
        raise UsageError(f"`{path}` is there already; `--force` replaces it", hint="devsup init --print")
    # What the file that is to be replaced says does not count, nor whether it is right.
    other = None if there else configured.load(supervisor.project, supervisor.home)
    if write and other is not None:
        name = os.path.basename(other.file)
        raise UsageError(
            f"`{name}` configures devsup already: one file has to say it all", hint="devsup config"
        )
    seen = detect.survey(supervisor.project, supervisor.project)
    call = commands.Call(supervisor.project, supervisor.project, None, {}, os.environ)
    text = _text(seen, call)
    if write:
        _write(path, text, force=force)
    return InitResult(path, text, written=write, notes=[*supervisor.notes, *seen.notes()])


_HEAD = """\
# How the apps of this project are run. All keys: docs/configuration.md of devsup.
# What is not said here is detected: `devsup config` shows both. `devsup up` starts every app of this file.
# For an editor: `devsup config --schema > devsup.schema.json`, and here `#:schema ./devsup.schema.json`.

project = {project}

# What holds for every app that does not say otherwise:
# [defaults]
# idle_timeout = "2h"          # stop what nobody has used for so long
# restart = "on-failure"       # run again what ends by itself
# env_file = ".env"            # variables, from each app's folder
"""

_NONE = """
# No app was found. One that runs any command:
# [apps.api]
# command = "go run ./cmd/api"
# port = 8080                  # given as $PORT; "auto" for a free one that stays the same
# ready = {http = "/health", timeout = "30s"}
"""

_MORE = """
# Also for an app: host, env, env_file, stop, restart, idle_timeout, ttl, health, log_limit, exclusive, and
# depends_on = ["api"]         # apps that `devsup up` starts first
# ready = {http = "/health", timeout = "90s"}
"""


def _text(seen: Survey, call: Call) -> str:
    parts = [_HEAD.format(project=_quoted(os.path.basename(seen.project) or "project"))]
    ports: set[int] = set()
    for app in seen.apps:
        if detect.runs_others(app) and len(seen.apps) > 1:
            parts.append(f"\n# `{app.name}` is left out: it only runs the others ({_one_line(app.text)}).\n")
            continue
        if KINDS[app.kind].companion:
            parts.append(f"\n# `{app.name}` ({app.kind}) is found, too: devsup start {app.name}\n")
            continue
        try:
            plan = commands.of_app(seen, app, call)
        except DevsupError as error:  # of this app's own script: the others are written all the same
            parts.append(f"\n# `{app.name}` is left out: {_one_line(error.message)}\n")
            continue
        lines = ["", f"[apps.{app.name}]"]
        if plan.kind != COMMAND.name:
            lines.append(f"kind = {_quoted(plan.kind)}")
        folder = naming.label(seen.project, app.dir)
        if folder != "." or plan.kind == COMMAND.name:
            lines.append(f"dir = {_quoted(folder)}")
        typed = masking.typed([app.manager or "npm", "run", app.script]) if app.script is not None else None
        lines += [f"# command = {_quoted(typed)}  # as detected"] if typed else []
        lines += _port_lines(plan, ports)
        parts.append("\n".join(lines) + "\n")
    return "".join([*parts, _MORE if seen.apps else _NONE])


def _port_lines(plan: Plan, ports: set[int]) -> list[str]:
    if plan.port is None:
        return ['# port = "auto"']
    free = plan.port not in ports
    ports.add(plan.port)
    if plan.port_source == "command":
        return [f"# port = {plan.port}  # its command says so"]
    if free:
        # Not set: in a second worktree it may then be another one.
        return [f'# port = {plan.port}  # as usual; "auto": one of its own in each worktree']
    return [f'port = "auto"  # {plan.port} is that of another app']


def _one_line(text: str) -> str:
    return " ".join(masking.text(text).split())


def _quoted(text: str) -> str:
    import json

    # A basic string of TOML has the escapes of JSON, but for DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(path: str, text: str, *, force: bool) -> None:
    temporary = f"{path}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with open(fd, "wb") as file:
                file.write(text.encode())
            if force:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)  # fails where somebody has been faster
        finally:
            if os.path.lexists(temporary):
                os.unlink(temporary)
    except FileExistsError:
        raise UsageError(
            f"`{path}` is there already; `--force` replaces it", hint="devsup init --print"
        ) from None
    except OSError as error:
        raise UsageError(
            f"`{path}` cannot be written: {str(error.strerror).lower()}", hint="devsup init --print"
        ) from None
