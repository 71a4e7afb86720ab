"""
The environment: programs that servers are run by and their versions, the system's limits, folders, the clock.

Programs are asked for their version each in a thread and within a time: one that hangs (a wrapper that
wants to download itself) delays nobody. Nothing is downloaded for an answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from devsup.apps import manifest
from devsup.apps.detect import LOCK_FILES
from devsup.doctor.scene import BAD, WARN, Seen
from devsup.masking import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from devsup.doctor.scene import Scene

__all__ = ["KINDS", "look"]

KINDS = (
    *("node_missing", "manager_missing", "program_silent", "inotify_watches", "inotify_instances"),
    *("tmpdir_unusable", "home_unwritable", "clock_behind"),
)
#: Seconds for one program to say its version.
_PATIENCE = 0.7
#: What watchers of a large project need; many systems come with an eighth of it.
_WATCHES, _INSTANCES = 65_536, 128
_ROOT = "/proc/sys/fs/inotify"
_INSTALL = {
    "npm": "install Node.js with npm: https://nodejs.org",
    "pnpm": "npm install -g pnpm",
    "yarn": "npm install -g yarn",
    "bun": "npm install -g bun",
}
#: An event that is younger than now by so many seconds shows that the clock was set back.
_SKEW = 60.0
#: 2025-01-01: no clock that is right says anything earlier.
_EARLIEST = 1_735_689_600


def look(scene: Scene, facts: list[str]) -> list[Seen]:
    """Look at each of them."""
    return [
        *_programs(scene, facts),
        *inotify(_ROOT),
        *_temporary(scene.environ),
        *_home(scene.environ),
        *_clock(scene, time.time()),
    ]


# -- programs ------------------------------------------------------------------------------------------------


def _programs(scene: Scene, facts: list[str]) -> list[Seen]:
    path = scene.environ.get("PATH")
    found = {name: shutil.which(name, path=path) for name in ("node", *manifest.MANAGERS)}
    there = {name: program for name, program in found.items() if program is not None}
    with ThreadPoolExecutor(len(found)) as pool:
        versions = dict(zip(there, pool.map(lambda pair: _version(*pair), there.items()), strict=True))
    facts.append(", ".join(f"{name} {version or '?'}" for name, version in versions.items()) or "no Node.js")
    seen = [
        Seen(
            WARN,
            f"program_silent:{name}",
            f"`{there[name]} --version` gives no answer within {_PATIENCE} s",
            f"run `{name} --version` and see what it waits for",
        )
        for name, version in versions.items()
        if version is None
    ]
    package = manifest.read(scene.project)
    if package is None:
        return seen
    if "node" not in there and "bun" not in there:
        seen.append(
            Seen(
                BAD,
                "node_missing",
                f"`{scene.project}` needs Node.js, and there is none on PATH",
                "install Node.js: https://nodejs.org",
                project=scene.project,
            )
        )
    manager = getattr(package, "manager", None) or _locked(scene.project)
    if manager is not None and manager not in there and "node" in there:
        seen.append(
            Seen(
                WARN,
                f"manager_missing:{manager}",
                f"`{scene.project}` is installed by {manager}, and there is none on PATH",
                _INSTALL[manager],
                project=scene.project,
            )
        )
    return seen


def _locked(project: str) -> str | None:
    return next((who for name, who in LOCK_FILES if os.path.isfile(f"{project}/{name}")), None)


def _version(name: str, program: str) -> str | None:
    """Return the version of ``program``: what its package says, else what it says itself."""
    return _of_package(name, program) or _asked(program)


def _of_package(name: str, program: str) -> str | None:
    # npm and its like start a whole Node.js to tell their version.
    if name in ("node", "bun"):
        return None
    folder = os.path.dirname(os.path.realpath(program))
    for _ in range(3):
        try:
            with open(f"{folder}/package.json", encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError):
            found = None
        if isinstance(found, dict) and isinstance(found.get("version"), str):
            return f"{found['version']}" if found.get("name") == name else f"by {found.get('name')}"
        folder = os.path.dirname(folder)
    return None


def _asked(program: str) -> str | None:
    quiet = {**os.environ, "COREPACK_ENABLE_NETWORK": "0", "COREPACK_ENABLE_DOWNLOAD_PROMPT": "0"}
    try:
        asked = subprocess.Popen(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=quiet,
            start_new_session=True,
        )
    except OSError:
        return None
    with asked:
        try:
            said, _ = asked.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            # With what it has begun: a wrapper's end is not that of the program below it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(asked.pid, signal.SIGKILL)
            return None
    words = said.decode(errors="replace").split()
    return words[0].removeprefix("v")[:40] if asked.returncode == 0 and words else None


# -- the system --------------------------------------------------------------------------------------------


def inotify(root: str) -> list[Seen]:
    """Return what the limits in the folder ``root`` are too low for."""
    seen = []
    for name, least, better in (
        ("max_user_watches", _WATCHES, 524_288),
        ("max_user_instances", _INSTANCES, 1024),
    ):
        value = _number(f"{root}/{name}")
        if value is not None and value < least:
            seen.append(
                Seen(
                    WARN,
                    f"inotify_{name.removeprefix('max_user_')}",
                    f"`fs.inotify.{name}` is {value}: watchers of large projects need {least} and more",
                    f"sudo sysctl fs.inotify.{name}={better}",
                )
            )
    return seen


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _temporary(environ: Mapping[str, str]) -> list[Seen]:
    folder = environ.get("TMPDIR", "")
    if not folder:
        return []
    if not os.path.isdir(folder):
        fix = f"mkdir -p {quoted(folder)}"
        return [Seen(BAD, f"tmpdir_unusable:{folder}", f"`TMPDIR` is `{folder}`, which is no folder", fix)]
    if _can_write(folder):
        return []
    message = f"`TMPDIR` is `{folder}`, which cannot be written"
    return [Seen(BAD, f"tmpdir_unusable:{folder}", message, "unset TMPDIR")]


def _home(environ: Mapping[str, str]) -> list[Seen]:
    folder = environ.get("HOME", "")
    if folder and os.path.isdir(folder) and _can_write(folder):
        return []
    message = f"`HOME` is `{folder}`, which cannot be written: package managers keep files there"
    return [Seen(WARN, f"home_unwritable:{folder}", message, "set `HOME` to a folder that can be written")]


def _can_write(folder: str) -> bool:
    try:
        return os.access(folder, os.W_OK | os.X_OK) and not os.statvfs(folder).f_flag & os.ST_RDONLY
    except OSError:
        return False


def _clock(scene: Scene, now: float) -> list[Seen]:
    newest = 0.0
    if scene.known is not None:
        events = scene.registry.event_page(after=None, limit=1, project=None).events
        newest = max((one.time / 1e3 for one in events), default=0.0)
    if now >= _EARLIEST and newest <= now + _SKEW:
        return []
    message = "the clock is wrong: it is long before now"
    if newest > now + _SKEW:
        message = f"the clock was set back: the last event is {newest - now:.0f} s from now"
    return [Seen(WARN, "clock_behind", message, "sudo timedatectl set-ntp true")]
