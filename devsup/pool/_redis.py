"""
The stores of many machines: Redis, by redis-py, for threads and for tasks.

Each request is one script, sent again where its answer did not come: all of them may be done twice.
"""

from __future__ import annotations

import asyncio
import os
from hashlib import sha1

from redis.exceptions import AuthenticationError, NoScriptError, RedisError

from devsup.pool._core import is_name
from devsup.pool._scripts import NAMES, SCRIPTS, arguments, keys, read
from devsup.redis import client, failures
from devsup.redis.address import parse
from devsup.redis.resp import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import Any

    from devsup.pool._core import Answer, Request

__all__ = ["AsyncRedisStore", "RedisStore", "names"]

#: The name by which Redis knows a script that it has run before.
_HASHES = {name: sha1(text.encode()).hexdigest() for name, text in SCRIPTS.items()}


def names(url: str) -> list[str]:
    """Return the names of all pools in the Redis at ``url``."""
    with client.sync(url) as connected:
        try:
            found = connected.smembers(NAMES)
        except (RedisError, OSError) as error:
            raise client.translate(error, url) from error
    return sorted(name for name in map(str, found) if is_name(name))  # others may have put anything there


class _Commands:
    """What is sent for one pool."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self._keys = keys(name)

    def _arguments(self, request: Request) -> tuple[Any, ...]:
        """Return what follows the text of a script or its hash."""
        return (len(self._keys), *self._keys, *arguments(request))

    def _read(self, answer: Any) -> Answer:
        try:
            return read(answer)
        except (IndexError, TypeError, ValueError):
            cause = f"its key `{self._keys[0]}` holds what devsup has not written"
            raise failures.failed(parse(self.url), cause) from None


class _Refused(Exception):
    """A password that is wrong now is so a moment later, though redis-py takes it for a lost connection."""

    def __init__(self, error: AuthenticationError) -> None:
        super().__init__(error)
        self.error = error


class RedisStore(_Commands):
    """One pool in Redis; any number of threads, processes and hosts may use it at once."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(name, url)
        self._begin()

    def _begin(self) -> None:
        # Connections of our own, one for each thread that is in a call: what redis-py does around a command
        # takes twice as long as the command.
        self._pool = client.sync(self.url, retries=0).connection_pool
        self._retry = client.retry()
        self._idle: list[Any] = []
        self._process = os.getpid()

    def call(self, request: Request) -> Answer:
        """Do what is asked for, in one step inside Redis; a define is two, which may both be repeated."""
        if self._process != os.getpid():
            self._begin()  # the parent's connections are the parent's
        operation, rest = request[0], self._arguments(request)
        try:
            if operation == "define":
                self._send("SADD", NAMES, self.name)
            try:
                answer = self._send("EVALSHA", _HASHES[operation], *rest)
            except NoScriptError:
                answer = self._send("EVAL", SCRIPTS[operation], *rest)
        except _Refused as refused:
            raise client.translate(refused.error, self.url) from refused.error
        except (RedisError, OSError) as error:
            raise client.translate(error, self.url) from error
        return self._read(answer)

    def _send(self, *command: Any) -> Any:
        packed = [encode(map(str, command))]  # redis-py takes three times as long for that
        try:
            connection: Any = self._idle.pop()
        except IndexError:
            connection = self._pool.make_connection()
        try:
            return self._retry.call_with_retry(
                lambda: self._exchange(connection, packed), lambda _: connection.disconnect()
            )
        except RedisError:
            raise
        except BaseException:
            connection.disconnect()  # a Ctrl-C may have left an answer in it
            raise
        finally:
            self._idle.append(connection)

    @staticmethod
    def _exchange(connection: Any, packed: list[bytes]) -> Any:
        try:
            connection.send_packed_command(packed)
            return connection.read_response()
        except AuthenticationError as error:
            raise _Refused(error) from error

    def close(self) -> None:
        """Close the connections; the next call opens another one."""
        while self._idle:
            self._idle.pop().disconnect()


class AsyncRedisStore(_Commands):
    """The same for tasks, of any event loop."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__(name, url)
        client.asynchronous(url)  # what is wrong with the address is said at once
        #: The client of each loop, and what closes it.
        self._clients: dict[asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[None]]] = {}

    async def call(self, request: Request) -> Answer:
        """Do what is asked for; see `RedisStore.call`."""
        connected = await self._connected()
        operation, rest = request[0], self._arguments(request)
        try:
            if operation == "define":
                await connected.execute_command("SADD", NAMES, self.name)
            try:
                answer = await connected.execute_command("EVALSHA", _HASHES[operation], *rest)
            except NoScriptError:
                answer = await connected.execute_command("EVAL", SCRIPTS[operation], *rest)
        except (RedisError, OSError) as error:
            raise client.translate(error, self.url) from error
        return self._read(answer)

    async def _connected(self) -> Any:
        loop = asyncio.get_running_loop()
        found = self._clients.get(loop)
        if found is None:
            connected = client.asynchronous(self.url)
            found = self._clients[loop] = connected, self._keep(loop, connected)
            await anext(found[1])  # from here on the loop knows it, and closes it at its end
        return found[0]

    async def _keep(self, loop: asyncio.AbstractEventLoop, connected: Any) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._clients.pop(loop, None)
            await connected.aclose()

    async def aclose(self) -> None:
        """Close the connections of this event loop; the next call opens another one."""
        found = self._clients.get(asyncio.get_running_loop())
        if found is not None:
            await found[1].aclose()
