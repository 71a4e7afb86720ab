"""
What a configuration makes of the apps that are found: their names, folders, commands and all else.

Flag > environment > file > detected > default, key by key; here the middle three meet. A configured app that
names neither folder nor command is the detected one of its name; one with a `dir` is what is detected there;
one with a `command` needs nothing to be detected. Pure functions of files and environment.
"""

from __future__ import annotations

import errno
import os

from devsup import compactjson, masking
from devsup import config as configs
from devsup.apps import detect, naming
from devsup.apps.presets import COMMAND, KINDS
from devsup.errors import UsageError
from devsup.smallfile import contents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from devsup.apps.detect import App, Survey
    from devsup.apps.naming import Place
    from devsup.config import Config
    from devsup.paths import Home

__all__ = [
    "ENVIRONMENT",
    "apply",
    "check_dependencies",
    "fingerprint",
    "load",
    "policy",
    "probe",
    "settings_of",
    "variables",
]

#: What the environment may say: of an app `DEVSUP_<APP>_<KEY>`, of every app `DEVSUP_<KEY>`, but for two.
ENVIRONMENT = ("port", "host", "restart", "idle_timeout", "ttl", "log_limit")
#: What is an app's own: two cannot share a port, and `DEVSUP_HOST` is what this host is called in a fleet.
_OWN = ("port", "host")
#: Seconds between two looks at a server's health, where the configuration asks for them and names none.
HEALTH_INTERVAL = 10.0


def load(project: str, home: Home | None = None) -> Config | None:
    """Return the configuration of ``project``, None where it has none; raise as `devsup.config.load` does."""
    return configs.load(project, tuple(KINDS), home)


def apply(seen: Survey, config: Config | None) -> Survey:
    """
    Return ``seen`` with the configured apps in the places of those that they are; they come first.

    :raises ConfigInvalid: a `dir` is no folder
    """
    if config is None or not config.apps:
        return seen
    by_name = {app.name: app for app in seen.apps}
    apps: list[App] = []
    meant: set[Place] = set()
    for name, settings in config.apps.items():
        if "dir" in settings:
            folder = _folder(seen, config, name, settings["dir"])
            kind = settings.get("kind")
            found = seen.at(folder, kind) or detect.at_folder(seen.folders, folder, kind)
            if found is not None and kind is not None and found.kind not in (kind, COMMAND.name):
                found = None  # another app lives there, too
        else:
            found = by_name.get(name)
            folder = found.dir if found is not None else seen.project
        if found is not None:
            meant.add(found.place)
        apps.append(_app(name, settings, folder, found, placed="dir" in settings or found is not None))
    rest = [app for app in seen.apps if app.place not in meant]
    taken = {app.name for app in apps}
    clash = [app for app in rest if app.name in taken]
    if clash:
        taken |= {app.name for app in rest}
        renamed = naming.assign(seen.project, [(app.place, None) for app in clash], taken)
        rest = [app.replace(name=renamed.get(app.place, app.name)) for app in rest]
    return seen.replace(apps=[*apps, *rest])


def _app(name: str, settings: dict[str, Any], folder: str, found: App | None, *, placed: bool) -> App:
    command = settings.get("command")
    kind = settings.get("kind") or (found.kind if found is not None else COMMAND.name)
    if found is not None and command is None:
        return found.replace(name=name, kind=kind)
    return detect.App(
        name=name,
        kind=kind,
        dir=folder,
        script=None,
        manager=found.manager if found is not None else None,
        install_dir=found.install_dir if found is not None else "",
        command=command,
        placed=placed,
    )


def _folder(seen: Survey, config: Config, name: str, given: str) -> str:
    folder = os.path.realpath(os.path.join(seen.project, given))
    if not os.path.isdir(folder):
        known = sorted({naming.label(seen.project, app.dir) for app in seen.apps})
        near = [
            one for one in known if os.path.basename(one) == os.path.basename(given.rstrip("/"))
        ] or known[:1]
        raise config.error(
            f"apps.{name}.dir",
            f"`apps.{name}.dir`: there is no folder `{given}` in `{seen.project}`",
            allowed=known,
            hint=f"did you mean `{near[0]}`?" if near else None,
        )
    return folder


def check_dependencies(seen: Survey, config: Config | None, name: str) -> list[str]:
    """
    Return the apps that ``name`` depends on.

    :raises ConfigInvalid: there is no such app
    """
    wanted: list[str] = config.apps.get(name, {}).get("depends_on", []) if config is not None else []
    for other in wanted:
        if seen.named(other) is None and config is not None:
            known = sorted(app.name for app in seen.apps if app.name != name)
            listed = ", ".join(f"`{one}`" for one in known) or "none"
            near = detect.closest(other, known) if known else None
            raise config.error(
                f"apps.{name}.depends_on",
                f"`apps.{name}.depends_on`: there is no app `{other}`: allowed are {listed}",
                allowed=known,
                hint=f"did you mean `{near}`?" if near else None,
            )
    return wanted


def settings_of(config: Config | None, name: str | None, environ: Mapping[str, str]) -> dict[str, Any]:
    """
    Return what environment and file say of the app ``name``; of what has no name nothing.

    :raises UsageError: a variable has a value that cannot be
    """
    settings = dict(config.settings(name)) if config is not None else {}
    if name is not None:
        for key, (_, value) in from_environment(name, environ).items():
            settings[key] = value
    return settings


def from_environment(name: str, environ: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    """Return the variable and the value of each key that the environment sets for the app ``name``."""
    found: dict[str, tuple[str, Any]] = {}
    own = name.upper().replace("-", "_")
    for key in ENVIRONMENT:
        for variable in (
            f"DEVSUP_{own}_{key.upper()}",
            *(() if key in _OWN else (f"DEVSUP_{key.upper()}",)),
        ):
            if environ.get(variable):
                found[key] = variable, _value(variable, key, environ[variable])
                break
    return found


def _value(variable: str, key: str, text: str) -> Any:
    from devsup.config import values

    try:
        if key == "port":
            return values.port(int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else text)
        if key == "host":
            return values.host(text)
        if key == "restart":
            return values.one_of(text, values.RESTARTS)
        if key == "log_limit":
            return values.size(text)
        return values.duration(text)
    except values.Wrong as wrong:
        said = masking.text(masking.cut(text, 41))
        raise UsageError(
            f"{variable} is `{said}`: allowed are {', '.join(wrong.allowed)}", hint=f"unset {variable}"
        ) from None


def variables(
    config: Config | None, name: str | None, folder: str, settings: dict[str, Any]
) -> dict[str, str]:
    """
    Return the variables that the configuration gives an app: of its `env_file`, over them those of `env`.

    :raises ConfigInvalid: a file cannot be read
    """
    found: dict[str, str] = {}
    for given in settings.get("env_file", ()):
        from devsup.config import dotenv  # few apps have such a file

        # Relative to the app, as the tools that read such files by themselves have it.
        path = os.path.join(folder, given)
        key = f"apps.{name}.env_file"
        try:
            raw = contents(path)
            if raw is None:
                raise OSError(errno.EINVAL, "it is no regular file")
            found |= dotenv.parse(raw.decode())
        except dotenv.Unreadable as error:
            raise configs.invalid(path, key, error.line, error.why, allowed=["NAME=value"]) from None
        except (OSError, UnicodeDecodeError) as error:
            assert config is not None
            own = config.apps.get(name or "", {}).get("env_file", ())
            if isinstance(error, FileNotFoundError) and given not in own:
                continue  # what `[defaults]` names need not be in every app's folder
            why = error.strerror if isinstance(error, OSError) else "it is not valid UTF-8"
            message = f"`{key}`: `{path}` cannot be read: {str(why).lower()}"
            raise config.error(key, message, allowed=["a file that is there"]) from None
    found |= settings.get("env", {})
    if found:
        masking.learn(found)
    return found


def probe(settings: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """Return how the guard finds out that the server serves: as ``usual`` but for what `ready` says."""
    ready = settings.get("ready")
    if not ready:
        return usual
    changed = dict(usual)
    if ready.get("tcp") or "http" in ready:
        changed |= {"http": [ready["http"]] if "http" in ready else [], "body": None, "root_header": None}
    if "status" in ready and not changed["http"]:
        changed["http"] = ["/"]  # a status is that of some path
    if ready.get("tcp") and "http" not in ready:
        changed["tcp"] = True
    for key in ("log", "status"):
        if key in ready:
            changed[key] = ready[key]
    if ready.get("owner") == "any":
        changed["any_owner"] = True
    return changed


def policy(settings: dict[str, Any]) -> dict[str, Any]:
    """Return how long the server lives and how it is ended: see `devsup.guard.job`."""
    found: dict[str, Any] = {}
    if settings.get("restart", "no") != "no":
        found["restart"] = settings["restart"]
    for key in ("idle_timeout", "ttl"):
        if settings.get(key):
            found[key] = settings[key]
    if "log_limit" in settings:
        found["log_limit"] = settings["log_limit"]
    stop = settings.get("stop", {})
    for key, name in (("signal", "stop_signal"), ("grace", "grace"), ("keep", "keep")):
        if key in stop:
            found[name] = stop[key]
    health = settings.get("health")
    if health:
        interval = health.get("interval", HEALTH_INTERVAL)
        if interval:
            found["health"] = {"interval": interval, "restart": bool(health.get("restart"))}
    return found


def fingerprint(settings: dict[str, Any], env: dict[str, str]) -> str | None:
    """Return a short sum of a configuration, by which a change of it is seen; None where there is none."""
    relevant = {key: value for key, value in settings.items() if key not in ("depends_on", "port")}
    if not relevant and not env:
        return None
    from binascii import crc32

    return f"{crc32(compactjson.dumps([relevant, env]).encode()):08x}"
