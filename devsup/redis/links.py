"""
Connections of redis-py on which each call has its own deadline, and no command is sent twice.

Commands go out together and their answers come back together, within a time that each call says, the making
of a connection included. What `client` gives tries again by itself; here the caller has to know whether a
command may have been done. Whatever goes wrong is `FleetUnreachable`, in words; `refusal` tells what Redis
itself refused from what was not heard.

A connection serves one call at a time and is kept for the next. `link` gives one `Link` per process and
address, for any thread; a fork's child makes its own. `async_link` gives one `AsyncLink` per running loop and
address; it is closed when the loop shuts its asynchronous generators down, as `asyncio.run` does.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
import weakref
from typing import TYPE_CHECKING, Any

from devsup.redis import client, failures, lookup
from devsup.redis.resp import ErrorReply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from devsup.errors import FleetUnreachable
    from devsup.redis.address import Address

    Command = tuple[str | int | float, ...]

__all__ = ["AsyncLink", "Link", "async_link", "link", "refusal"]

#: Connections that are kept for the next call, per link.
_KEPT = 16


def _new(address: Address, library: Any) -> Any:
    """Return a connection that is not yet made, of ``library``: `redis` or `redis.asyncio`."""
    options = client.connection_options(address) | {"socket_timeout": None}
    # It does not say what it is: two round trips less. The words for that have changed in redis-py.
    from redis import connection

    quiet = ("driver_info",) if hasattr(connection, "DriverInfo") else ("lib_name", "lib_version")
    return client.connection_class(library, options)(**options | dict.fromkeys(quiet))


def _await_name(address: Address, end: float) -> None:
    """
    Wait until the host's name is found, at most until ``end``.

    redis-py asks for it once more and cannot be told for how long; but who has just answered does so again.
    """
    if address.path is not None or lookup.known(address.host, address.port):
        return
    asked = lookup.Lookup(address.host, address.port)
    try:
        poll = select.poll()
        poll.register(asked.fd, select.POLLIN)
        poll.poll(max(0.0, end - time.monotonic()) * 1e3)
        if not asked.is_done():
            raise TimeoutError
        if asked.error is not None:
            raise asked.error
    finally:
        asked.close()


def _failed(error: Exception, address: Address, within: float) -> FleetUnreachable:
    cause = client.cause_of(error)
    if isinstance(cause, TimeoutError) and cause.errno is None:
        cause = TimeoutError(f"no answer within {within:.1f} s")
    return failures.failed(address, cause)


def refusal(error: FleetUnreachable) -> str:
    """Return the code with which Redis refused the command (``OOM``, ...); "" where no answer came."""
    return ErrorReply(error.details.get("reply", "")).code


def _checked(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


# -- blocking --------------------------------------------------------------------------------------------


class Link:
    """Connections to one Redis, made as they are needed. Safe from any thread, none waits for another."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._idle: list[Any] = []
        self._library = client.package()

    def call(self, *commands: Command, within: float) -> list[Any]:
        """
        Send ``commands`` as one and return their answers; all that takes ``within`` seconds at most.

        :raises FleetUnreachable: no answer came, or one is a refusal; what was sent may have been done
        """
        end = time.monotonic() + within
        connection, answers = None, None
        try:
            connection = self._connection(end)
            answers = self._answers(connection, commands, end)
            return _checked(answers)
        except (OSError, self._library.RedisError) as error:
            raise _failed(error, self.address, within) from None
        finally:
            if connection is not None:
                if answers is not None and len(self._idle) < _KEPT:
                    self._idle.append(connection)
                else:  # who knows what would still come
                    connection.disconnect()

    def _connection(self, end: float) -> Any:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break  # another thread was faster
            try:
                if not connection.can_read(0):
                    return connection
            except (OSError, self._library.RedisError):
                pass  # Redis has closed it, or was restarted
            connection.disconnect()
        _await_name(self.address, end)
        return _new(self.address, self._library)

    def _answers(self, connection: Any, commands: tuple[Command, ...], end: float) -> list[Any]:
        # What comes within one answer is waited for by these: a Redis that stops amid its words is rare.
        connection.socket_timeout = connection.socket_connect_timeout = max(0.001, end - time.monotonic())
        connection.connect()
        connection.send_packed_command(connection.pack_commands(commands))
        answers: list[Any] = []
        for _ in commands:
            if not connection.can_read(max(0.0, end - time.monotonic())):
                raise TimeoutError
            try:
                answers.append(connection.read_response(disconnect_on_error=True))
            except self._library.ResponseError as error:
                answers.append(error)
        return answers

    def close(self) -> None:
        """Close what is idle; a call that is under way, or comes later, makes its own."""
        while self._idle:
            self._idle.pop().disconnect()


_links: dict[Address, Link] = {}


def link(address: Address) -> Link:
    """
    Return the link of this process to ``address``.

    :raises MissingDependencies: redis-py is not installed
    """
    return _links.get(address) or _links.setdefault(address, Link(address))


# -- asyncio ---------------------------------------------------------------------------------------------


class AsyncLink:
    """What `Link` is, for the tasks of one loop; a call may be cancelled at any moment."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._idle: list[Any] = []
        self._closed = False
        self._library = client.package()

    async def call(self, *commands: Command, within: float) -> list[Any]:
        """
        Send ``commands`` as one and return their answers; all that takes ``within`` seconds at most.

        :raises FleetUnreachable: no answer came, or one is a refusal; what was sent may have been done
        """
        connection, answers = None, None
        try:
            async with asyncio.timeout(within):
                connection = await self._connection()
                answers = await self._answers(connection, commands)
            return _checked(answers)
        except (OSError, self._library.RedisError) as error:
            raise _failed(error, self.address, within) from None
        finally:
            if connection is not None:
                if answers is not None and not self._closed and len(self._idle) < _KEPT:
                    self._idle.append(connection)
                else:
                    await connection.disconnect(nowait=True)  # which never suspends

    async def _connection(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if not await self._is_stale(connection):
                return connection
            await connection.disconnect(nowait=True)
        import redis.asyncio

        return _new(self.address, redis.asyncio)

    async def _is_stale(self, connection: Any) -> bool:
        look = getattr(connection, "can_read", None) or connection.can_read_destructive
        try:
            return bool(await look())
        except (OSError, self._library.RedisError):
            return True

    async def _answers(self, connection: Any, commands: tuple[Command, ...]) -> list[Any]:
        await connection.connect()
        await connection.send_packed_command(connection.pack_commands(commands))
        answers: list[Any] = []
        for _ in commands:
            try:
                answers.append(await connection.read_response())
            except self._library.ResponseError as error:
                answers.append(error)
        return answers

    async def close(self) -> None:
        """Close what is idle; calls that are under way close theirs."""
        self._closed = True
        while self._idle:
            await self._idle.pop().disconnect()


class _OfLoop:
    """The links of one loop, and what closes them."""

    def __init__(self) -> None:
        self.links: dict[Address, AsyncLink] = {}
        self.keeper: AsyncIterator[None] | None = self._keep()

    async def _keep(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self.keeper = None  # it knows the loop, and would keep it for ever
            for one in self.links.values():
                await one.close()


_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = weakref.WeakKeyDictionary()


async def async_link(address: Address) -> AsyncLink:
    """
    Return the link of the running loop to ``address``.

    :raises MissingDependencies: redis-py is not installed
    """
    loop = asyncio.get_running_loop()
    of_loop = _loops.get(loop)
    if of_loop is None:
        of_loop = _loops[loop] = _OfLoop()
        assert of_loop.keeper is not None
        await anext(of_loop.keeper)  # from here on the loop knows it, and closes it at its end
    return of_loop.links.get(address) or of_loop.links.setdefault(address, AsyncLink(address))


_of_parent: list[_OfLoop] = []


def _in_child() -> None:
    # The parent goes on using its connections; closing ours here does not end them there.
    _links.clear()
    # Those of a loop are not even closed: that would take them out of the `epoll` that both have.
    _of_parent.extend(_loops.values())
    _loops.clear()


os.register_at_fork(after_in_child=_in_child)
