"""
Checked configurations, remembered as JSON in the state folder: the check loads tomllib and pydantic, 60 ms.

Nobody has to trust a cache: it says for which files, in which state, it holds, and carries a checksum. One
that is damaged, of somebody else or cannot be written is as good as none. Writers replace it whole, so any
number of them may come at once.
"""

from __future__ import annotations

import os
import time

from devsup import __version__, compactjson
from devsup.smallfile import contents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from devsup.paths import Home

__all__ = ["read", "remembered", "version", "write"]

#: Changed when the shape of a checked configuration does.
SCHEMA = 2
#: A file that was changed less than this long ago may be changed again without its time telling: times are as
#: coarse as the kernel's tick, at most 10 ms.
_TOO_YOUNG_NS = 20_000_000
#: Seconds after which nobody is writing a file any more.
_FORGOTTEN = 3600.0


def version() -> str:
    """Return what a remembered configuration was checked by."""
    return f"{__version__}/{SCHEMA}"


def read(home: Home | None, project: str, key: Sequence[Any]) -> dict[str, Any] | None:
    """Return the configuration remembered for ``key``, None where there is none."""
    if home is None:
        return None
    try:
        fd = os.open(home.config(project), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if os.fstat(fd).st_uid != os.geteuid():
                return None  # what stands there is run
            raw = b""
            while part := os.read(fd, 1 << 20):
                raw += part
        finally:
            os.close(fd)
        checksum, _, text = raw.partition(b"\n")
        if checksum != _checksum(text):
            return None
        kept = compactjson.loads(text.decode())
        return kept["config"] if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(
    home: Home | None,
    project: str,
    key: Sequence[Any],
    config: dict[str, Any],
    states: Sequence[Sequence[int]],
) -> None:
    """Remember ``config`` for ``key``, unless a file in one of ``states`` is too young; never an error."""
    youngest = max(max(state[2:]) for state in states)
    if home is None or not os.path.isdir(home.root) or time.time_ns() - youngest < _TOO_YOUNG_NS:
        return
    path = home.config(project)
    temporary = f"{path}.{os.getpid()}"
    text = compactjson.dumps({"key": key, "config": config}).encode()
    try:
        try:
            os.mkdir(os.path.dirname(path), 0o700)
        except FileExistsError:
            pass
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, b"%b\n%b" % (_checksum(text), text))
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError:
        return  # the next call checks again


def remembered(home: Home) -> Iterator[tuple[str, str | None]]:
    """Give each file of the cache and the project that it is of; None for what is none, or no more."""
    folder = os.path.dirname(home.config(""))
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        path = f"{folder}/{name}"
        project = None
        try:
            raw = contents(path) or b""
            project = os.path.dirname(compactjson.loads(raw.partition(b"\n")[2].decode())["key"][2][0][0])
        except OSError:
            continue  # it has just been replaced
        except (ValueError, KeyError, IndexError, TypeError):
            pass
        if project is not None or time.time() - _written(path) > _FORGOTTEN:
            yield path, project


def _written(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return time.time()


def _checksum(text: bytes) -> bytes:
    from binascii import crc32

    return b"%08x" % crc32(text)
