"""
A lock between processes: one file, one holder at a time, for threads and tasks alike.

Plain `flock`, the call that the filelock library makes on the same file, so the two exclude each other (a
test shows it); importing filelock takes three times a bare interpreter. The kernel frees the lock when its
holder dies; it is never taken away by age. The file is never unlinked, as a waiter may hold the old inode;
where somebody else has removed it, who gets the lock sees that and begins anew.

A `ProcessLock` may be used by many threads and tasks at once: each `write()` is a taking of its own, which
excludes all others, in this process too. A `Hold` belongs to one thread or task. After a fork the child has
nothing of what its parent holds: not the lock, not the right to free it. Nothing that is executed inherits
it.
"""

from __future__ import annotations

import fcntl
import os
import time
from _thread import RLock

from devsup import trace
from devsup.errors import LockLost, LockTimeout
from devsup.locks import _owner, _record
from devsup.locks._record import Holder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Self

    from devsup.locks._owner import Order

__all__ = ["PROCESS_TIMEOUT", "Hold", "ProcessLock", "pauses"]

#: Seconds that an acquire waits unless it is told otherwise.
PROCESS_TIMEOUT = 60.0
#: Seconds between two tries: at first, later, and after `_LONG`, when uses seem to be long. Among many short
#: uses who tries oftener waits less: with 0.02 from the beginning the longest waits were twice as long.
_SOON, _LATER, _SELDOM = 0.0005, 0.005, 0.02
_LONG = 10.0
#: Times that the file may be removed while we take the lock.
_ROUNDS = 100


class ProcessLock:
    """
    An exclusive lock on the file ``path``, which is made where it is missing; its folder must exist.

    ``purpose`` says to others what it is held for; ``name`` what they shall call it. A lock that is ``last``
    comes after all others: no other one is asked for while it is held, and so it may be taken beside any.
    """

    __slots__ = ("last", "name", "path", "purpose")

    def __init__(
        self, path: str | os.PathLike[str], *, purpose: str | None = None, name: str = "", last: bool = False
    ) -> None:
        self.path = os.path.abspath(path)
        self.purpose = purpose
        self.name = name
        self.last = last

    def write(self, *, timeout: float = PROCESS_TIMEOUT, purpose: str | None = None) -> Hold:
        """
        Return a hold: ``with`` or ``async with`` it to have the lock.

        :raises LockTimeout: on entering: it was not free within ``timeout`` seconds; names who has it
        :raises LockOrderError: on entering: this thread or task holds it already, or a later one
        :raises UsageError: on entering by a plain ``with`` in a running event loop
        :raises LockLost: on leaving: the file was replaced meanwhile, so others may have had the lock too
        :raises OSError: the file cannot be used
        """
        return Hold(self, timeout, purpose or self.purpose or "")

    def holder(self) -> Holder | None:
        """Return who holds the lock as far as the file tells, or None; a holder proven dead is none."""
        return _record.who_holds(self.path)

    def waiters(self) -> list[Holder]:
        """Return who waits for the lock, the longest first."""
        return _record.who_waits(self.path)

    def __repr__(self) -> str:
        return f"ProcessLock({self.path!r})"


class Hold:
    """
    One taking of a `ProcessLock`, for one thread or task.

    Used by ``with`` or ``async with``; or by hand: `try_acquire` never waits, `release` ends it either way.
    """

    __slots__ = (
        *("_asked", "_fd", "_held", "_inode", "_since", "_waiting"),
        *("lock", "owner", "purpose", "timeout"),
    )

    def __init__(self, lock: ProcessLock, timeout: float, purpose: str) -> None:
        self.lock = lock
        self.timeout = timeout
        self.purpose = purpose
        self.owner: Any = None
        self._fd = -1
        self._held = False
        self._inode = 0
        self._asked = self._since = 0.0
        #: The file that says that we wait.
        self._waiting: str | None = None

    @property
    def order(self) -> Order:
        """Locks between processes come first: nobody of this process should wait behind one."""
        return 3 if self.lock.last else 0, self.lock.path, 0

    @property
    def label(self) -> str:
        """The lock's name, else its path."""
        return self.lock.name or self.lock.path

    @property
    def held(self) -> bool:
        """Whether this taking has the lock; never in a fork's child."""
        return self._held

    # -- the core: never waits -----------------------------------------------------------------------

    def try_acquire(self) -> bool:
        """
        Take the lock if it is free. After the first try that fails, others see that we wait.

        :raises LockOrderError: see `ProcessLock.write`
        :raises OSError: the file cannot be used; a link in its place is not followed
        """
        if self._held:
            raise RuntimeError(f"this hold of `{self.label}` has the lock already")
        owner = _owner.me()
        _owner.check(self, owner)
        now = time.monotonic()
        self._asked = self._asked or now
        for _ in range(_ROUNDS):
            size = self._lock_file()
            if size is None:
                self._announce(owner)
                return False
            if size >= 0:
                break
        else:
            self._close()
            raise OSError(f"`{self.lock.path}` is removed again and again")
        self._held = True
        self._since = time.monotonic()
        try:
            _record.write_owner(self._fd, self.lock.name, self.purpose, _owner.shown(owner), size)
        except OSError:
            trace.step(f"the holder of {self.label} could not be written")  # a full disk: locked all the same
        self.owner = owner
        _owner.take(self, owner)
        self._unannounce()
        return True

    def _lock_file(self) -> int | None:
        """Lock the file: its size, None where somebody has it, -1 where it is another file by now."""
        try:
            if self._fd < 0:
                self._open()
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(self._fd)
            if self._is_at_its_path(found.st_ino):
                self._inode = found.st_ino
                return found.st_size
        except BlockingIOError:
            return None
        except BaseException:
            self._close()
            raise
        self._close()
        return -1

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        # No fork between the two: the child would have a lock that it does not know of.
        with _forking:
            self._fd = os.open(self.lock.path, flags, 0o600)
            _open_holds[id(self)] = self

    def _is_at_its_path(self, inode: int) -> bool:
        try:
            return os.stat(self.lock.path, follow_symlinks=False).st_ino == inode
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        with _forking:
            fd, self._fd = self._fd, -1
            _open_holds.pop(id(self), None)
            if fd >= 0:
                os.close(fd)

    def release(self) -> bool:
        """
        Give the lock back, or stop waiting for it; without effect where it is neither held nor waited for.

        False: the file was replaced while the lock was held, so that somebody else may have had it too.
        """
        ours = True
        try:
            self._unannounce()
            asked, self._asked = self._asked, 0.0
            if self._held:
                ours = self._is_at_its_path(self._inode)
                _record.count(self._fd, self._since - asked, time.monotonic() - self._since)
                _record.clear_owner(self._fd, self.lock.name)
        except OSError:
            pass  # a full disk, or a folder that is gone: what counts is that the lock becomes free
        finally:
            # Also where a Ctrl-C comes amid all this, here or there.
            try:
                # Not by closing alone: a child that was forked outside Python's sight has the descriptor too.
                if self._held and self._fd >= 0:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
            finally:
                try:
                    if self._held:
                        self._held = False
                        _owner.untake(self, self.owner)
                finally:
                    if self._fd >= 0:
                        self._close()
        if not ours:
            trace.step(f"{self.lock.path} was replaced while it was held")
        return ours

    def _announce(self, owner: object) -> None:
        if self._waiting is None:
            who = _owner.shown(owner)
            # Noted before it is there: so it is removed whatever comes in between.
            self._waiting = _record.waiter_file(self.lock.path, who)
            _record.write_waiter(self._waiting, self.lock.name, self.purpose, who)

    def _unannounce(self) -> None:
        if self._waiting is not None:
            try:
                os.unlink(self._waiting)
            except OSError:
                pass  # it could not be written, or was removed with its folder
            self._waiting = None

    def timed_out(self) -> LockTimeout:
        """Stop waiting; return the error that says who has the lock, and count the failure."""
        waited = time.monotonic() - (self._asked or time.monotonic())
        holder = _record.who_holds(self.lock.path)
        self.release()
        _record.add_failure(self.lock.path)
        age = round(holder.age * 1e3) if holder is not None else None
        who = "another process"
        if holder is not None:
            who = f"pid {holder.by.pid}{f' ({holder.purpose})' if holder.purpose else ''}, for {age} ms"
        shown = {"pid": holder.by.pid, "purpose": holder.purpose} if holder is not None else None
        return LockTimeout(
            f"the lock `{self.label}` was not free within {waited:.1f} s: it is held by {who}",
            hint="devsup locks",
            details={"holder": shown, "age_ms": age},
        )

    # -- the drivers -----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        _owner.refuse_in_a_loop("with lock.write()", "async with lock.write()")
        try:
            for pause in pauses(self.timeout):
                if pause:
                    time.sleep(pause)
                if self.try_acquire():
                    return self
            raise self.timed_out()
        except BaseException:
            self.release()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            ours = self.release()
        except BaseException:  # a Ctrl-C came amid that
            self.release()
            _owner.untake(self, self.owner)
            raise
        if not ours and kind is None:
            raise LockLost(
                f"the lock file `{self.lock.path}` was replaced while it was held", hint="devsup locks"
            )

    async def __aenter__(self) -> Self:
        from asyncio import sleep

        try:
            for pause in pauses(self.timeout):
                if pause:
                    await sleep(pause)
                # No await from here to the return: a cancelled task must not leave with the lock taken.
                if self.try_acquire():
                    return self
            raise self.timed_out()
        except BaseException:
            self.release()
            raise

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.__exit__(kind)


def pauses(timeout: float) -> Iterator[float]:
    """Give how long to wait before each try; the first comes at once, the last when the time is over."""
    began, pause = time.monotonic(), _SOON
    yield 0.0
    while (left := began + timeout - (now := time.monotonic())) > 0:
        yield min(pause, left)
        pause = min(pause * 2, _LATER) if now - began < _LONG else _SELDOM


# -- forks ---------------------------------------------------------------------------------------------

#: What has a descriptor now; changed under `_forking`, which every fork takes before it happens.
_open_holds: dict[int, Hold] = {}
_forking = RLock()


def _in_child() -> None:
    for hold in _open_holds.values():
        # Closed, not unlocked: that would free the lock of the parent, whose descriptor is the same.
        if hold._fd >= 0:  # noqa: SLF001 - one promise, two places
            os.close(hold._fd)  # noqa: SLF001
            hold._fd = -1  # noqa: SLF001
        hold._waiting = None  # noqa: SLF001
        if hold._held:  # noqa: SLF001
            hold._held = False  # noqa: SLF001
            _owner.untake(hold, hold.owner)
    _open_holds.clear()
    _forking.release()


os.register_at_fork(before=_forking.acquire, after_in_parent=_forking.release, after_in_child=_in_child)
