"""
Where a Redis is: a URL taken apart, and never shown with its password.

Pure, but that `parse` tells `devsup.masking` the password, so nothing this process shows holds it.
"""

from __future__ import annotations

import os

from devsup import masking
from devsup.errors import UsageError
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["DEFAULT_PORT", "Address", "parse"]

DEFAULT_PORT = 6379
#: Scheme -> whether it means TLS; None means a Unix socket.
_SCHEMES = {"redis": False, "rediss": True, "valkey": False, "valkeys": True, "unix": None}
_REQUIREMENTS = ("required", "optional", "none")
_SSL_OPTIONS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_PERCENT = "`/`, `?`, `#` and `%` in a user or password are written `%2F`, `%3F`, `%23` and `%25`"


class Address(Record):
    """
    One Redis: ``path`` is its Unix socket, or None where it is at ``host`` and ``port``.

    ``str`` and ``repr`` of it are masked. ``password`` is "" where only a user was named.
    """

    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str | None = None
    tls: bool = False
    user: str | None = None
    password: str | None = None
    db: int = 0
    #: ``required``, ``optional`` (as the server asks) or ``none``: whom to trust is then nobody's check.
    ssl_cert_reqs: str = "required"
    #: Files; None means the system's authorities, and no certificate of our own.
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True

    def __str__(self) -> str:
        secret = f":{masking.MASK}" if self.password else ""
        who = f"{self.user or ''}{secret}@" if self.user or secret else ""
        if self.path is not None:
            return f"unix://{who}{self.path}" + (f"?db={self.db}" if self.db else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        db = f"/{self.db}" if self.db else ""
        return f"{'rediss' if self.tls else 'redis'}://{who}{host}:{self.port}{db}"

    def __repr__(self) -> str:
        return f"<Address {self}>"


def parse(url: str) -> Address:
    """
    Return the address that ``url`` names.

    ``redis://[[USER]:PASSWORD@][HOST][:PORT][/DB]``, the same with ``rediss`` (TLS), ``valkey`` or
    ``valkeys``, or ``unix://[[USER]:PASSWORD@]/PATH[?db=DB]``. Options that redis-py reads are read alike:
    ``db``, ``username``, ``password``, ``ssl_cert_reqs``, ``ssl_ca_certs``, ``ssl_certfile``,
    ``ssl_keyfile``, ``ssl_check_hostname``; those of other clients mean nothing here and are passed over.

    :raises UsageError: it is none; the message never holds a part of it that may be secret
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _SCHEMES:
        raise _wrong("it begins with none of " + ", ".join(f"`{one}://`" for one in _SCHEMES))
    if "#" in rest or any(one <= " " or one == "\x7f" for one in rest):
        raise _wrong("it has a `#`, a space or a control character in it", hint=_PERCENT)
    rest, _, query = rest.partition("?")
    options = _options(query)
    # From the right: people forget to escape an `@` or `/` in a password, and a host has none.
    at = rest.rfind("@") if _SCHEMES[scheme] is not None else -1 if rest[:1] == "/" else rest.find("@/")
    login, rest = rest[: max(at, 0)], rest[at + 1 :]
    place, slash, path = rest.partition("/")
    user, colon, password = login.partition(":")
    named_user = options.get("username", _unquote(user)) or None
    secret = options.get("password", _unquote(password) if colon else None) or None
    if secret is not None:
        masking.learn({"REDIS_PASSWORD": secret})
    fields: dict[str, Any] = {
        "user": named_user,
        "password": "" if named_user and secret is None else secret,
    }
    if _SCHEMES[scheme] is None:
        if place or not path:
            raise _wrong("a socket's path is absolute: `unix:///path/to/redis.sock`", hint=_PERCENT)
        fields |= {"path": "/" + _unquote(path), "db": _db(options.get("db", ""))}
        return Address(**fields)
    if "/" in path.rstrip("/"):
        raise _wrong("there is more than a database number behind its host", hint=_PERCENT)
    host, port = _host(place)
    db = options.get("db", _unquote(path.rstrip("/")) if slash else "")
    fields |= {"host": host, "port": port, "db": _db(db)}
    if _SCHEMES[scheme]:
        fields |= {"tls": True, **_tls(options)}
    return Address(**fields)


def _wrong(why: str, *, hint: str | None = None) -> UsageError:
    usual = "such an address reads `redis://host:6379/0`, with `:PASSWORD@` before the host"
    return UsageError(f"the address of Redis cannot be read: {why}", hint=hint or usual)


def _options(query: str) -> dict[str, str]:
    pairs = (one.partition("=") for one in query.split("&") if one)
    return {_unquote(name): _unquote(value) for name, _, value in pairs}


def _unquote(text: str) -> str:
    """Undo %XX; what is no such escape stays as it is, and bytes that are no UTF-8 survive."""
    if "%" not in text:
        return text
    first, *others = os.fsencode(text).split(b"%")
    parts = [first]
    for one in others:
        try:
            parts.append(bytes.fromhex(one[:2].decode("ascii")) + one[2:] if len(one) > 1 else b"%" + one)
        except ValueError:
            parts.append(b"%" + one)
    return b"".join(parts).decode("utf-8", "surrogateescape")


def _host(place: str) -> tuple[str, int]:
    if place.startswith("["):
        host, bracket, port = place[1:].partition("]")
        if not bracket or (port and port[0] != ":"):
            raise _wrong("an IPv6 host stands alone in brackets: `[::1]:6379`", hint=_PERCENT)
        port = port[1:]
    else:
        host, _, port = place.partition(":")
    if not port:
        return _unquote(host) or "localhost", DEFAULT_PORT
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise _wrong("its port is no number from 1 to 65535", hint=_PERCENT)
    return _unquote(host) or "localhost", int(port)


def _db(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _wrong("its database is no number: `/0` is the first", hint=_PERCENT)
    return int(text)


def _tls(options: dict[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in options.items():
        # A misspelt one would leave somebody believing in a check that is not made, or the other way round.
        if name.startswith("ssl_") and name not in _SSL_OPTIONS:
            raise _wrong(f"it has an option `{name}` that devsup does not know")
        if name == "ssl_cert_reqs":
            if value.lower() not in _REQUIREMENTS:
                raise _wrong("`ssl_cert_reqs` is one of " + ", ".join(f"`{one}`" for one in _REQUIREMENTS))
            fields[name] = value.lower()
        elif name == "ssl_check_hostname":
            if value.lower() not in {"true", "false", "1", "0", "yes", "no"}:
                raise _wrong("`ssl_check_hostname` is `true` or `false`")
            fields[name] = value.lower() in {"true", "1", "yes"}
        elif name.startswith("ssl_"):
            fields[name] = value
    return fields
