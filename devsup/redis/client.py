"""
redis-py, set up as devsup wants it: for the public pools and locks, which have time for its import.

A call ends: connecting and waiting for an answer have time-outs, and what fails on the way is tried again a
few times, later each time and never by all at once. So whatever is sent through these clients must be safe to
be done twice. No error of redis-py leaves devsup: `translate` makes one of ours of it, which names the server
without its password.
"""

from __future__ import annotations

import _socket
import os
import re

from devsup.errors import MissingDependencies, UsageError
from devsup.redis import failures
from devsup.redis.address import parse
from devsup.redis.resp import ErrorReply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    import redis
    import redis.asyncio
    from redis.retry import Retry

    from devsup.errors import DevsupError
    from devsup.redis.address import Address

__all__ = [
    "asynchronous",
    "cause_of",
    "connection_class",
    "connection_options",
    "package",
    "retry",
    "sync",
    "translate",
]

#: Seconds to connect, and to wait for an answer. A script takes microseconds; Redis rests for tens of
#: milliseconds when it forks, and the far side of the earth is 0.3 s away.
CONNECT_TIMEOUT = 2.0
ANSWER_TIMEOUT = 2.0
#: Each further try waits for a random part of twice as long as the one before. A Redis that refuses is given
#: up after one or two seconds, one that says nothing after ten or so.
RETRIES = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


def sync(url: str, *, retries: int = RETRIES) -> redis.Redis:
    """
    Return a client for any number of threads; it connects when it is used.

    :raises UsageError: it is no address of a Redis
    :raises MissingDependencies: redis-py is not installed
    """
    options, library = _options(url), package()
    pool = library.ConnectionPool(
        connection_class=connection_class(library, options), retry=retry(retries), **options
    )
    client: redis.Redis = library.Redis.from_pool(pool)
    return client


def asynchronous(url: str, *, retries: int = RETRIES) -> redis.asyncio.Redis:
    """
    Return a client for any number of tasks of one event loop; it connects when it is used.

    :raises UsageError, MissingDependencies: as `sync`
    """
    options = _options(url)
    package()
    import redis.asyncio as library
    from redis.asyncio.retry import Retry
    from redis.backoff import ExponentialWithJitterBackoff

    again = Retry(ExponentialWithJitterBackoff(_LONGEST_PAUSE, _FIRST_PAUSE), retries)
    kind = connection_class(library, options)
    return library.Redis.from_pool(library.ConnectionPool(connection_class=kind, retry=again, **options))


def retry(retries: int = RETRIES) -> Retry:
    """Return how often, and after which pauses, redis-py tries again what has failed."""
    package()
    from redis.backoff import ExponentialWithJitterBackoff
    from redis.retry import Retry

    return Retry(ExponentialWithJitterBackoff(_LONGEST_PAUSE, _FIRST_PAUSE), retries)


def package() -> ModuleType:
    """Return redis-py; raise `MissingDependencies` where it, or what it needs, is not installed."""
    try:
        import redis
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise MissingDependencies(
            "redis-py is not installed, without which a program cannot reach Redis",
            hint="pip install 'devsup[redis]'",
        ) from None
    except AttributeError:
        if _has_tls():
            raise
        # Version 8 means to do without, and fails on the types of its own arguments.
        raise MissingDependencies(
            "redis-py cannot be loaded by a Python without the module `ssl`", hint="use a Python that has it"
        ) from None
    return redis


def _has_tls() -> bool:
    try:
        import ssl  # noqa: F401 - only whether it can be
    except ImportError:
        return False
    return True


def connection_class(library: Any, options: dict[str, Any]) -> Any:
    """Return the class of ``library`` (`redis` or `redis.asyncio`) for connections with such options."""
    if "path" in options:
        return library.UnixDomainSocketConnection
    return library.SSLConnection if "ssl_cert_reqs" in options else library.Connection


def _options(url: str) -> dict[str, Any]:
    if not isinstance(url, str):
        raise UsageError(
            f"the address of Redis is a text, not {type(url).__name__}",
            hint="such an address reads `redis://host:6379/0`",
        )
    return connection_options(parse(url))


def connection_options(address: Address) -> dict[str, Any]:
    """
    Return an address as redis-py's connections want it: read by us, so that both clients read it alike.

    :raises FleetUnreachable: no host can have such a name
    """
    options: dict[str, Any] = {
        "db": address.db,
        "username": address.user,
        "password": address.password,
        "decode_responses": True,
        "encoding_errors": "surrogateescape",  # others may write what is no UTF-8
        "protocol": 2,  # read in half the time of version 3, which has nothing that is needed here
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": ANSWER_TIMEOUT,
    }
    if address.path is not None:
        del options["socket_connect_timeout"]
        return {**options, "path": address.path}
    try:
        address.host.encode("idna")  # as `getaddrinfo` does, whose error redis-py does not know
    except UnicodeError:
        cause = _socket.gaierror(_socket.EAI_NONAME, "no such name can be")
        raise failures.failed(address, cause) from None
    options |= {"host": address.host, "port": address.port}
    if address.tls:
        options |= {
            "ssl_cert_reqs": address.ssl_cert_reqs,
            "ssl_ca_certs": address.ssl_ca_certs,
            "ssl_certfile": address.ssl_certfile,
            "ssl_keyfile": address.ssl_keyfile,
            "ssl_check_hostname": address.ssl_check_hostname and address.ssl_cert_reqs != "none",
        }
    return options


#: What Redis says first, where redis-py has made a class of it and cut it off.
_CODES = {
    "AuthenticationError": "WRONGPASS",
    "AuthorizationError": "NOPERM",
    "NoPermissionError": "NOPERM",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "BusyLoadingError": "LOADING",
    "MasterDownError": "MASTERDOWN",
    "ClusterDownError": "CLUSTERDOWN",
    "ClusterCrossSlotError": "CROSSSLOT",
    "TryAgainError": "TRYAGAIN",
    "MovedError": "MOVED",
    "AskError": "ASK",
}


def translate(error: Exception, url: str) -> DevsupError:
    """Return what to raise for an error of redis-py or of the connection to ``url``."""
    return failures.failed(parse(url), cause_of(error))


def cause_of(error: Exception) -> str | OSError:
    """Return what is behind an error of redis-py: a refusal, an error of the system, or words."""
    kind, text = type(error).__name__, str(error)
    if kind in _CODES or kind == "ResponseError" or "max number of clients" in text:
        code = _CODES.get(kind, "")
        if "unauthenticated" in text:  # said of a command too long to be read from a stranger
            return ErrorReply(f"NOAUTH {text}")
        if kind == "AuthenticationError" and "required" in text.lower():
            code = "NOAUTH"
        if text.partition(" ")[0].isupper() or "without any password" in text:
            return ErrorReply(text)
        return ErrorReply(f"{code or 'ERR'} {text}")
    if kind == "TimeoutError":
        return TimeoutError(f"no answer within {ANSWER_TIMEOUT:g} s")
    cause: BaseException | None = error
    while cause is not None:
        # An error that the caller is just handling is at the end of the chain, too; redis-py repeats its own.
        if isinstance(cause, OSError) and cause.strerror and cause.strerror in text:
            return cause
        cause = cause.__cause__ or cause.__context__
    if number := re.search(r"\[Errno (\d+)\]", text):  # of several addresses, in asyncio
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if kind == "ConnectionError":
        return "it broke the connection off"
    return text.partition("\n")[0] or kind
