"""
What the file of a lock between processes tells, and the small files of those who wait for it.

The lock file, which only its holder writes::

    0     one line of JSON: the lock's name and, while it is held, who holds it
    1024  counts as native 64-bit numbers, see `_HEAD`; then the last waits and holds in microseconds
    end   one byte more for each attempt that has failed, appended by whoever failed

A waiter's file lies beside it, `<lock>~<pid>-<number>`, and is one line of JSON. It is removed by its waiter,
and by anybody where that is proven dead. Reading disturbs nobody: no lock is taken for it.
"""

from __future__ import annotations

import os
import time

from devsup import compactjson, identity
from devsup.clock import now_ms
from devsup.models import Identity
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "LENGTH",
    "Holder",
    "add_failure",
    "clear_owner",
    "count",
    "holder_is_gone",
    "stats",
    "waiter",
    "waiter_file",
    "waiter_files",
    "who_holds",
    "who_waits",
    "write_owner",
    "write_waiter",
]

#: Where the counts begin, their number, and of how many uses the last are kept.
_COUNTS = 1024
_HEAD = ("acquisitions", "wait_total", "wait_max", "hold_total", "hold_max")
_KEPT = 64
_SIZE = 8 * (len(_HEAD) + 2 * _KEPT)
#: Bytes of a lock file with which nothing has failed.
LENGTH = _COUNTS + _SIZE
#: Bytes of a purpose or a name in the one line: it has to fit.
_TEXT = 200


class Holder(Record):
    """
    Who holds a lock, or waits for it.

    ``since`` is in ms since the epoch, for showing; ``clock`` is the same moment in seconds of the boot's
    monotonic clock, which nobody sets. ``who`` names the thread or task.
    """

    by: Identity
    since: int
    purpose: str
    scope: str = ""
    clock: float = 0.0
    who: str = ""
    name: str = ""

    @property
    def age(self) -> float:
        """For how many seconds it has held, or waited."""
        if self.clock and self.by.boot == identity.me().boot:
            return max(0.0, time.monotonic() - self.clock)
        return max(0.0, (now_ms() - self.since) / 1e3)

    @property
    def is_gone(self) -> bool:
        """Whether it is proven dead; where its pid means nothing here, it is not."""
        relation = identity.scope_relation(self.scope) if self.scope else "here"
        return relation == "lost" or (relation == "here" and identity.is_gone(self.by))


def _line(name: str, purpose: str, who: str) -> bytes:
    fields = {
        "name": name[:_TEXT],
        "by": identity.me().asdict(),
        "since": now_ms(),
        "purpose": purpose[:_TEXT],
        "scope": identity.here().key,
        "clock": time.monotonic(),
        "who": who[:_TEXT],
    }
    line = compactjson.dumps(fields).encode()
    if len(line) >= _COUNTS:  # JSON writes some letters as six bytes
        line = compactjson.dumps(fields | {"name": "", "purpose": purpose[:20], "who": ""}).encode()
    return line + b"\n"


def _parse(raw: bytes) -> Holder | None:
    try:
        fields = compactjson.loads(raw.partition(b"\n")[0].decode())
        return Holder(**{**fields, "by": Identity(**fields["by"])})
    except (ValueError, TypeError, KeyError):
        return None  # nobody, somebody else's content, or just being written


# -- the lock file -------------------------------------------------------------------------------------


def write_owner(fd: int, name: str, purpose: str, who: str, size: int) -> None:
    """Say in the lock file, which has ``size`` bytes, that this process holds it."""
    if size < LENGTH:
        os.ftruncate(fd, LENGTH)
    os.pwrite(fd, _line(name, purpose, who), 0)


def clear_owner(fd: int, name: str) -> None:
    """Say in the lock file that nobody holds it."""
    os.pwrite(fd, compactjson.dumps({"name": name[:_TEXT]}).encode() + b"\n", 0)


def count(fd: int, waited: float, held: float) -> None:
    """Count one use of the lock; call it while it is held."""
    raw = bytearray(os.pread(fd, _SIZE, _COUNTS))
    if len(raw) != _SIZE:
        return
    numbers = memoryview(raw).cast("Q")
    wait, hold = max(0, int(waited * 1e6)), max(0, int(held * 1e6))
    head = len(_HEAD)
    place = head + numbers[0] % _KEPT
    numbers[place], numbers[place + _KEPT] = wait, hold
    numbers[0] += 1
    numbers[1] += wait
    numbers[2] = max(numbers[2], wait)
    numbers[3] += hold
    numbers[4] = max(numbers[4], hold)
    os.pwrite(fd, raw, _COUNTS)


def add_failure(path: str) -> None:
    """Count an attempt that was given up; without effect where that cannot be written."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        if os.fstat(fd).st_size >= LENGTH:  # else its holder is just making it: what we append it would take
            os.write(fd, b".")
    except OSError:
        pass  # a full disk is no reason to fail twice
    finally:
        os.close(fd)


def _read(path: str, length: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(fd, length)
    except OSError:
        return b""
    finally:
        os.close(fd)


def who_holds(path: str) -> Holder | None:
    """Return who holds the lock as far as its file tells, or None; who is proven dead holds nothing."""
    holder = _parse(_read(path, _COUNTS))
    return None if holder is None or holder.is_gone else holder


def holder_is_gone(path: str) -> bool:
    """Tell whether the file names a holder who is proven dead."""
    holder = _parse(_read(path, _COUNTS))
    return holder is not None and holder.is_gone


def name_in(path: str) -> str | None:
    """Return the name that the lock's last holder gave it."""
    try:
        name = compactjson.loads(_read(path, _COUNTS).partition(b"\n")[0].decode())["name"]
    except (ValueError, TypeError, KeyError):
        return None
    return name if isinstance(name, str) and name else None


def stats(path: str) -> dict[str, Any]:
    """Return the counts of the lock, over all processes, as JSON can hold them."""
    from devsup.locks._stats import percentile, times

    raw = _read(path, LENGTH)[_COUNTS:]
    numbers = memoryview(raw if len(raw) == _SIZE else bytes(_SIZE)).cast("Q")
    uses, head = numbers[0], len(_HEAD)
    kept = min(uses, _KEPT)
    waits = [one / 1e6 for one in numbers[head : head + kept]]
    holds = [one / 1e6 for one in numbers[head + _KEPT : head + _KEPT + kept]]
    try:
        failures = max(0, os.stat(path).st_size - LENGTH)
    except OSError:
        failures = 0
    return {
        "acquisitions": uses,
        "failures": failures,
        "wait_ms": times(numbers[1] / 1e6, uses, numbers[2] / 1e6, percentile(waits)),
        "hold_ms": times(numbers[3] / 1e6, uses, numbers[4] / 1e6, percentile(holds)),
    }


# -- those who wait --------------------------------------------------------------------------------------

_number = 0


def waiter_file(path: str, who: str) -> str:
    """Return the file of a new waiter of this process for the lock."""
    global _number
    _number += 1
    return f"{path}~{os.getpid()}-{_number}-{id(who):x}"


def write_waiter(file: str, name: str, purpose: str, who: str) -> None:
    """Say in its ``file`` that this process waits for the lock, if that can be written."""
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return  # waiting goes on unseen
    try:
        os.write(fd, _line(name, purpose, who))
    except OSError:
        pass  # as above, and the file is removed all the same
    finally:
        os.close(fd)


def waiter_files(path: str) -> list[str]:
    """Return the files of those who wait for the lock."""
    folder, _, base = path.rpartition("/")
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return []
    return [f"{folder}/{name}" if folder else name for name in names if name.startswith(f"{base}~")]


def waiter(file: str) -> Holder | None:
    """Return whom a waiter's file is of; None where it is just being written, or removed."""
    return _parse(_read(file, _COUNTS))


def who_waits(path: str, files: list[str] | None = None) -> list[Holder]:
    """Return who waits for the lock, the longest first; the files of the dead are removed."""
    waiting = []
    for file in waiter_files(path) if files is None else files:
        one = waiter(file)
        if one is None:
            continue
        if one.is_gone:
            try:
                os.unlink(file)
            except OSError:
                pass  # somebody else was faster
        else:
            waiting.append(one)
    return sorted(waiting, key=lambda one: -one.age)  # the clock on the wall may have been set
