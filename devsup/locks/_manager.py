"""
Locks by the name of what they guard, and objects that are made once.

A manager may be used by any number of threads and tasks. `rw` and `async_rw` of one name are one lock, seen
from threads and from tasks; `process` of that name is another one, between processes. Locks are made when
they are first asked for and kept for as long as the manager.
"""

from __future__ import annotations

import functools
import inspect
import os
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from devsup.errors import LockOrderError
from devsup.locks import _owner, _publish, _record, _seeing
from devsup.locks._process import ProcessLock
from devsup.locks._rw import READ_TIMEOUT, WRITE_TIMEOUT, AsyncRWLock, Resource, RWLock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from devsup.models import LockStatus

__all__ = ["LockManager", "read_lock", "write_lock"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MISSING: Any = object()
#: Bytes of a lock's own name in that of its file, which has 255 at most with what is added for waiters.
_NAME_BYTES = 120


class LockManager:
    """
    The locks of one program, by name.

    ``folder`` holds the locks between processes: by default that of devsup's state, where `devsup locks`
    looks. There, too, other processes can see who holds the others: when the first is asked for, a thread
    begins to wait for their questions; ``publish=False`` leaves it out.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, publish: bool = True) -> None:
        self._folder = None if folder is None else os.path.abspath(folder)
        self._publish = publish
        self._ready = False
        self._resources: dict[str, Resource] = {}
        self._made: dict[Hashable, Any] = {}
        self._making: dict[Hashable, Resource] = {}
        #: Who makes what, and who waits for what to be made.
        self._makers: dict[Hashable, Any] = {}
        self._waits: dict[Any, Hashable] = {}

    @property
    def folder(self) -> str:
        """The folder of the locks between processes; it is made when it is first needed."""
        if not self._ready:
            if self._folder is None:
                from devsup.paths import ensure_home, find_home

                home = find_home()
                ensure_home(home)
                self._folder = home.locks
            else:
                os.makedirs(self._folder, mode=0o700, exist_ok=True)
            self._ready = True
        assert self._folder is not None
        return self._folder

    # -- locks -----------------------------------------------------------------------------------------

    def process(self, name: str, *, purpose: str | None = None) -> ProcessLock:
        """Return the lock of this name between processes; see `ProcessLock`."""
        return ProcessLock(f"{self.folder}/{_file_name(name)}", purpose=purpose, name=name)

    def rw(self, name: str) -> RWLock:
        """Return the lock of this name among threads; see `RWLock`."""
        return RWLock(resource=self._resource(name))

    def async_rw(self, name: str) -> AsyncRWLock:
        """Return the lock of this name among tasks, the same as `rw` gives; see `AsyncRWLock`."""
        return AsyncRWLock(resource=self._resource(name))

    def _resource(self, name: str) -> Resource:
        try:
            return self._resources[name]
        except KeyError:
            if self._publish:
                _publish.publish(self)
            return self._resources.setdefault(name, Resource(name))

    # -- seeing them -----------------------------------------------------------------------------------

    def own(self) -> list[dict[str, Any]]:
        """Return the state of this manager's locks among threads and tasks, as JSON can hold it."""
        return [_seeing.of_resource(one) for one in [*self._resources.values()]]

    def stats(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the counts of a name, by kind (``process``, over all processes, and ``rw``)."""
        counts = {}
        path = f"{self.folder}/{_file_name(name)}"
        if os.path.exists(path):
            counts["process"] = _record.stats(path)
        if name in self._resources:
            counts["rw"] = self._resources[name].stats()
        return counts

    def status(self) -> list[LockStatus]:
        """Return every lock that can be seen in the folder, those of other processes too."""
        return _seeing.look(self.folder, own=self)

    # -- made once -------------------------------------------------------------------------------------

    def get_or_create(
        self, key: Hashable, factory: Callable[[], _T], *, timeout: float = WRITE_TIMEOUT
    ) -> _T:
        """
        Return the object of this key; the first caller makes it, and all others wait for that.

        A factory that fails leaves nothing: its caller gets the error, and the next one tries.

        :raises UsageError: it is not made yet, and an event loop runs in this thread
        :raises LockTimeout: another caller took longer than ``timeout`` seconds
        :raises LockOrderError: the factory asks for what it is making, perhaps by way of others
        """
        made = self._made.get(key, _MISSING)
        if made is not _MISSING:
            return made  # type: ignore[no-any-return]  # what this key's factory returned
        _owner.refuse_in_a_loop("get_or_create()", "await aget_or_create()")
        resource, who = self._begin(key)
        try:
            with RWLock(resource=resource).write(timeout=timeout):
                self._waits.pop(who, None)
                if key not in self._made:
                    self._makers[key] = who
                    self._made[key] = factory()
                return self._made[key]  # type: ignore[no-any-return]  # as above
        finally:
            self._end(key, who)

    @overload
    async def aget_or_create(
        self,
        key: Hashable,
        factory: Callable[[], Awaitable[_T]],
        *,
        timeout: float = ...,  # noqa: ASYNC109 - as everywhere in this library
    ) -> _T: ...
    @overload
    async def aget_or_create(
        self,
        key: Hashable,
        factory: Callable[[], _T],
        *,
        timeout: float = ...,  # noqa: ASYNC109 - as above
    ) -> _T: ...
    async def aget_or_create(
        self,
        key: Hashable,
        factory: Callable[[], Any],
        *,
        timeout: float = WRITE_TIMEOUT,  # noqa: ASYNC109 - as above
    ) -> Any:
        """
        Return the object of this key as `get_or_create` does; the factory may be ``async``.

        A caller that is cancelled while it makes the object leaves nothing, and another one makes it.
        """
        made = self._made.get(key, _MISSING)
        if made is not _MISSING:
            return made
        resource, who = self._begin(key)
        try:
            async with AsyncRWLock(resource=resource).write(timeout=timeout):
                self._waits.pop(who, None)
                if key not in self._made:
                    self._makers[key] = who
                    made = factory()
                    self._made[key] = await made if inspect.isawaitable(made) else made
                return self._made[key]
        finally:
            self._end(key, who)

    def _begin(self, key: Hashable) -> tuple[Resource, Any]:
        who = _owner.me()
        self._waits[who] = key  # noted before looking: of two that close a circle one sees it
        at: Any = key
        while at is not _MISSING:
            maker = self._makers.get(at, _MISSING)
            if maker == who:
                del self._waits[who]
                raise LockOrderError(
                    f"{_owner.shown(who)} makes `{at}` and needs `{key}` for it, which waits for `{at}`",
                    hint="make one of the two without the other",
                    details={"held": str(at), "asked": str(key)},
                )
            at = self._waits.get(maker, _MISSING)
        return self._making.setdefault(key, Resource(f"making {key}", ordered=False)), who

    def _end(self, key: Hashable, who: Any) -> None:
        self._waits.pop(who, None)
        if self._makers.get(key, _MISSING) == who:
            del self._makers[key]
        if key in self._made:
            self._making.pop(key, None)  # who waits there finds it made


def _file_name(name: str) -> str:
    """Return the file of a name: readable, and another one for each name."""
    plain = "".join(
        chr(byte) if (chr(byte).isalnum() and byte < 128) or byte in b"-_." else f"%{byte:02x}"
        for byte in name.encode("utf-8", "surrogateescape")
    )
    if len(plain) > _NAME_BYTES or plain[:1] in ("", "."):
        from hashlib import sha256

        rest = sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        plain = f"{plain[:_NAME_BYTES].replace('.', '_')}%{rest}"
    return f"{plain}.lock"


# -- decorators ----------------------------------------------------------------------------------------

#: The manager of decorators that name none. Made here: two that threads make at once would exclude nobody.
_SHARED = LockManager()


def read_lock(
    name: str | Callable[..., str], *, manager: LockManager | None = None, timeout: float = READ_TIMEOUT
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """
    Have each call of a function hold the read lock that its arguments name.

    ``name`` is a text in which ``{argument}`` stands for an argument's value, or a function of the arguments.
    Works on plain and on ``async`` functions; the errors are those of the lock.
    """
    return functools.partial(_decorated, name, manager, timeout, False)


def write_lock(
    name: str | Callable[..., str], *, manager: LockManager | None = None, timeout: float = WRITE_TIMEOUT
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Have each call of a function hold the write lock that its arguments name; see `read_lock`."""
    return functools.partial(_decorated, name, manager, timeout, True)


def _decorated(
    name: str | Callable[..., str],
    manager: LockManager | None,
    timeout: float,
    write: bool,
    function: Callable[..., Any],
) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"`{function.__qualname__}` yields: take the lock inside, where it is clear for how long"
        )
    named = _naming(name, function)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def held(*args: Any, **kwargs: Any) -> Any:
            lock = (manager or _SHARED).async_rw(named(*args, **kwargs))
            async with lock.write(timeout=timeout) if write else lock.read(timeout=timeout):
                return await function(*args, **kwargs)

    else:

        @functools.wraps(function)
        def held(*args: Any, **kwargs: Any) -> Any:
            lock = (manager or _SHARED).rw(named(*args, **kwargs))
            with lock.write(timeout=timeout) if write else lock.read(timeout=timeout):
                return _whole(function, function(*args, **kwargs))

    return held


def _whole(function: Callable[..., Any], result: _T) -> _T:
    """Refuse what is only begun: it would go on without the lock."""
    if inspect.iscoroutine(result):
        result.close()
    elif not inspect.isgenerator(result) and not inspect.isasyncgen(result):
        return result
    raise TypeError(
        f"`{function.__qualname__}` returns what is yet to run, without the lock: decorate what runs"
    )


def _naming(name: str | Callable[..., str], function: Callable[..., Any]) -> Callable[..., str]:
    if callable(name):
        return name
    signature = inspect.signature(function)

    def named(*args: Any, **kwargs: Any) -> str:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return name.format(**bound.arguments)

    return named
