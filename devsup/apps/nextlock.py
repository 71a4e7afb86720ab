"""
Does a Next.js dev server run in this folder, whoever started it?

Next.js 16 and later holds an exclusive `flock` on `<distDir>/dev/lock` for as long as it runs. A shared lock
is tried and released at once: a server that starts in this very moment retries every 10 ms for a second, so
the look costs it nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os

from devsup import compactjson, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["running"]

CONFIGS = ("next.config.js", "next.config.mjs", "next.config.ts", "next.config.cjs")


def running(app_dir: str) -> dict[str, Any] | None:
    """
    Return `pid`, `port`, `url` and `log` of the dev server that runs in ``app_dir``; None if none does.

    What is not known for certain is None: the file of 16.0 is empty, and a pid counts only while it is alive
    with this very folder as its working folder.
    """
    folder = os.path.realpath(app_dir)
    for dist in _dist_dirs(folder):
        content = _held(os.path.join(dist, "dev", "lock"))
        if content is not None:
            return _facts(folder, dist, content)
    return None


def _held(path: str) -> bytes | None:
    """Return the content of the lock file if another process holds it; None if nobody does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return os.read(fd, 65536) if error.errno in (errno.EAGAIN, errno.EACCES) else None
    finally:
        os.close(fd)
    return None


def _facts(folder: str, dist: str, content: bytes) -> dict[str, Any]:
    log = os.path.join(dist, "dev", "logs", "next-development.log")
    facts: dict[str, Any] = {
        "pid": None,
        "port": None,
        "url": None,
        "log": log if os.path.isfile(log) else None,
    }
    try:
        told = compactjson.loads(content.decode())
    except (ValueError, RecursionError):
        return facts
    pid = told.get("pid") if isinstance(told, dict) else None
    if isinstance(pid, int) and pid > 0 and system.cwd(pid) == folder:
        port, url = told.get("port"), told.get("appUrl")
        facts["pid"] = pid
        facts["port"] = port if isinstance(port, int) else None
        facts["url"] = url if isinstance(url, str) else None
    return facts


def _dist_dirs(folder: str) -> list[str]:
    """Return the folders that may hold the lock: the one a config names in plain text, and the default."""
    found = []
    for name in CONFIGS:
        try:
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                text = file.read(1 << 18)
        except OSError:
            continue
        _, key, value = text.partition("distDir")
        value = value.lstrip("\"' \t").removeprefix(":").lstrip()
        if key and value[:1] in ("'", '"') and (end := value.find(value[0], 1)) > 1:
            found.append(value[1:end])
        break
    return [os.path.normpath(os.path.join(folder, name)) for name in [*found, ".next"]]
