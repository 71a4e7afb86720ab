"""
A log never takes more room than its limit, and a place in it stays the same place for ever.

The server appends and knows nothing of this; the oldest bytes are taken away under it, in the first of three
ways that the filesystem can:

``collapse``
    the oldest whole blocks are cut out of the file (ext4, xfs): it stays an ordinary one, only shorter
``punch``
    they become a hole (tmpfs, btrfs and most others): offsets never move, and the file begins with NULs
``copy``
    the newest bytes are copied to a file beside it, and the file is emptied. What the server writes in the
    microseconds between the last look at its size and the emptying is lost, and not counted

What was cut off is recorded beside the log (`Marks`, in ``<log>.base``): before and after each step that
moves bytes, and always so that who is killed between two of them leaves what the next one can finish.
Invariants, kept by `bound` and `settle` alone, which hold an exclusive ``flock`` on the log meanwhile:

1. The file's first byte is number ``base`` of its generation whenever ``going`` is empty.
2. Nothing from ``first`` on has been taken away; what is before may be gone at any moment.
3. ``first`` only grows.

Readers take no lock: they read the marks before and after the bytes. Any number of processes may do both.
"""

from __future__ import annotations

import fcntl
import os
import time

from devsup.errors import Busy, DevsupError, RegistryUnusable, UsageError
from devsup.records import Record
from devsup.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DEFAULT_LIMIT",
    "Marks",
    "before",
    "bound",
    "companions",
    "keep",
    "limit_of",
    "marks_of",
    "settle",
    "size_of",
]

#: Bytes of disk that the log of one generation takes, where nobody says otherwise.
DEFAULT_LIMIT = 20_000_000
#: Smaller ones would leave no room for one page, and cut at each look.
LEAST = 64 * 1024
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}

#: Seconds that a reader waits for a cut that is under way: it takes milliseconds, more on a busy disk.
_PATIENCE = 5.0
_LOOK_AGAIN = 0.005
_BLOCK = 64 * 1024


class Marks(Record):
    """
    Which bytes of a generation are where.

    ``base`` is the number of the file's first byte, ``first`` that of the oldest that can still be read. Is
    ``first`` less than ``base``, the bytes in between are in the file `before`. ``going`` is the step that is
    being taken, "" for none, and ``amount`` the ``base`` after it.
    """

    base: int = 0
    first: int = 0
    going: str = ""
    amount: int = 0


_WHOLE = Marks()
_BESIDE = (".base", ".base.new", ".before", ".before.new", ".times", ".times.new")


def limit_of(environ: Mapping[str, str], policy: Mapping[str, object] | None = None) -> int | None:
    """
    Return how many bytes of disk a log may take; None for any number.

    ``policy`` is that of its server (see `devsup.guard.job`); what it does not say, the environment does.

    :raises UsageError: `DEVSUP_LOG_LIMIT` is no size
    """
    said = (policy or {}).get("log_limit")
    if isinstance(said, int):
        return said or None
    text = environ.get("DEVSUP_LOG_LIMIT", "").strip()
    if not text:
        return DEFAULT_LIMIT
    try:
        return size_of(text) or None
    except ValueError:
        given = text if len(text) <= 20 else f"{text[:20]}…"
        raise UsageError(
            f"DEVSUP_LOG_LIMIT is `{given}`, not a size from 64 KiB on such as `20MB` (0: no limit)",
            hint="unset DEVSUP_LOG_LIMIT",
        ) from None


def size_of(text: str) -> int:
    """
    Return the bytes that a limit such as ``20MB`` or ``512k`` stands for; 0 is none.

    :raises ValueError: it is no size, or too small a one
    """
    bare = text.strip().lower().removesuffix("b")
    number, unit = (bare[:-1], bare[-1]) if bare[-1:] in ("k", "m", "g") else (bare, "")
    number = number.strip()
    if number.isascii() and number.isdecimal() and len(number) <= 12:
        size = int(number) * _UNITS[unit]
        if size == 0 or size >= LEAST:
            return size
    raise ValueError(text)


def before(path: str) -> str:
    """Return the file that holds the end of what a copy-and-truncate has emptied."""
    return f"{path}.before"


def companions(path: str) -> list[str]:
    """Return what stands beside the log ``path`` because of it, also what a killed process has left."""
    return [f"{path}{end}" for end in _BESIDE if os.path.exists(f"{path}{end}")]


def marks_of(path: str) -> Marks:
    """
    Return where the bytes of the log ``path`` are at this moment; all in their place where nobody said.

    :raises RegistryUnusable: the record cannot be read
    """
    name = f"{path}.base"
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return _WHOLE
    except OSError as error:
        raise RegistryUnusable(
            f"`{name}` cannot be read: {error.strerror}", hint="check who owns it and its permissions"
        ) from error
    try:
        words = os.read(fd, 256).split()
        base, first, amount = (int(word) for word in words[:3])
        return Marks(base, first, words[3].decode() if len(words) > 3 else "", amount)
    except (OSError, ValueError) as error:
        raise RegistryUnusable(
            f"`{name}` is damaged: it says where the log `{path}` begins", hint=f"remove {name}"
        ) from error
    finally:
        os.close(fd)


def _write(path: str, marks: Marks) -> None:
    # By rename: a reader sees all of it or what was there before.
    temporary = f"{path}.base.new"  # one name for all: only who holds the lock writes it
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, f"{marks.base} {marks.first} {marks.amount} {marks.going}\n".encode())
    finally:
        os.close(fd)
    os.rename(temporary, f"{path}.base")


def bound(path: str, limit: int) -> bool:
    """
    Cut the oldest bytes off the log ``path`` where it is about to take more than ``limit`` bytes of disk.

    Returns whether anything was cut: about half of the limit is left then. Returns False where there is no
    such log, or somebody else is at it.

    :raises OSError: the log or its folder cannot be written
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        if os.fstat(fd).st_size <= limit * 3 // 4:  # the usual case, without a lock
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return _cut(fd, path, _finished(fd, path), limit)
    finally:
        os.close(fd)


def keep(path: str, environ: Mapping[str, str], policy: Mapping[str, object] | None = None) -> None:
    """Do what `bound` does, for a log that no guard looks at; what cannot be cut waits for the next try."""
    try:
        limit = limit_of(environ, policy)
        if limit is not None:
            bound(path, limit)
    except (DevsupError, OSError):
        return


def _cut(fd: int, path: str, marks: Marks, limit: int) -> bool:
    size = os.fstat(fd).st_size
    if marks.base + size < marks.first:  # somebody has emptied it by hand
        marks = Marks(marks.base, marks.base)
        _write(path, marks)
    hole = files.front_hole(fd)
    if size - hole <= limit * 3 // 4:
        return False
    block = os.fstatvfs(fd).f_bsize
    if block > _BLOCK:  # what a network filesystem likes to send at once
        block = 4096
    length = (size - limit // 2) // block * block
    if length <= hole:
        return False
    if _collapse(fd, path, marks, length, block):
        done = True
    else:
        first = marks.base + length
        _write(path, Marks(marks.base, first))
        done = files.punch_front(fd, length)
    if done:
        if marks.first < marks.base:
            _remove(before(path))
        return True
    _write(path, marks)  # nothing was taken away
    _copy(fd, path, marks, limit // 8)
    return True


def _collapse(fd: int, path: str, marks: Marks, length: int, block: int) -> bool:
    base = marks.base + length
    # Readers let go of what is to be cut; then the first block becomes a hole. It goes with the rest, so the
    # file itself tells whether that has happened, should we be killed before we can say so.
    _write(path, Marks(marks.base, base))
    if not files.punch_front(fd, block) or not files.front_hole(fd):
        return False
    _write(path, Marks(marks.base, base, "collapse", base))
    done = files.collapse_front(fd, length)
    _write(path, Marks(base if done else marks.base, base))
    return done


def _copy(fd: int, path: str, marks: Marks, keep: int) -> None:
    new = f"{before(path)}.new"
    out = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        end = os.fstat(fd).st_size
        start = at = max(0, end - keep, marks.first - marks.base)
        while data := os.pread(fd, _BLOCK, at):  # to the end, wherever that is by then
            at += os.write(out, data)  # a full disk takes a part, and refuses the rest of it next
    finally:
        os.close(out)
    base = marks.base + at
    first = marks.base + start
    # From here on the cut is under way: who is killed before the end of it has it done over again.
    _write(path, Marks(marks.base, first, "copy", base))
    _empty(fd, path, Marks(base, first))


def _empty(fd: int, path: str, after: Marks) -> None:
    try:
        os.rename(f"{before(path)}.new", before(path))
    except FileNotFoundError:
        pass  # it was, by one who did not get further
    os.ftruncate(fd, 0)
    _write(path, after)


def settle(path: str) -> Marks:
    """
    Return the marks of the log ``path`` once no cut is under way: wait for it, or finish a dead one's.

    :raises Busy: it takes too long
    :raises RegistryUnusable: a cut was left half-done, and this process may not finish it
    """
    deadline = time.monotonic() + _PATIENCE
    while (marks := marks_of(path)).going:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return marks
        except OSError as error:
            raise RegistryUnusable(
                f"the log `{path}` was left half cut, and cannot be written: {error.strerror}",
                hint="check who owns it and its permissions",
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _finished(fd, path)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Busy(
                    f"the log `{path}` is being cut by another process", hint="make the same call again"
                ) from None
        finally:
            os.close(fd)
        time.sleep(_LOOK_AGAIN)
    return marks


def _finished(fd: int, path: str) -> Marks:
    """Return the marks; holding the lock, finish the step of one who was killed in it."""
    marks = marks_of(path)
    if marks.going == "collapse":
        collapsed = not files.front_hole(fd)
        after = Marks(marks.amount if collapsed else marks.base, marks.first)
        _write(path, after)
    elif marks.going == "copy":
        # Emptied already or not: what came since is lost once more, but no number is given twice.
        after = Marks(marks.amount, marks.first)
        _empty(fd, path, after)
    else:
        return marks
    return after


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
