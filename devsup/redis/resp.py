"""
The language of Redis, RESP3 and the older RESP2: commands to bytes, bytes to replies.

Pure. The bytes may come in any pieces; a `Parser` keeps what is unfinished and looks at none of it twice but
the line it stands in. Texts are `str`: UTF-8, with what is none kept by surrogates.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PENDING", "ErrorReply", "Parser", "ProtocolError", "Push", "encode", "mapping", "scored"]

#: A line (a number, a status, an error) is never longer; what is, is no Redis.
_LINE_LIMIT = 65_536
#: No size of a text takes more bytes.
_SIZE_LIMIT = 32
#: The largest text that Redis knows.
_TEXT_LIMIT = 512 * 1024 * 1024
#: Consumed bytes that may wait at the front of the buffer until they are cut off.
_SLACK = 65_536


class _Pending:
    """The type of `PENDING`."""

    def __repr__(self) -> str:
        return "PENDING"


#: What `Parser.get` returns while the next reply is not whole.
PENDING = _Pending()


class ProtocolError(Exception):
    """These bytes are no RESP; the message shows how they begin."""


class ErrorReply(str):
    """What Redis answers to a command that it refuses, such as ``READONLY You can't write against ...``."""

    __slots__ = ()

    @property
    def code(self) -> str:
        """
        The first word: ``ERR``, ``OOM``, ``WRONGPASS``, ``NOPERM`` ...

        Redis 6 wraps an error inside a script in its own; this is then the inner one's.
        """
        text = str(self)
        if text.startswith("ERR Error running script"):
            inner = text.rpartition("@user_script:")[2].partition(": ")[2].removeprefix("-")
            first = inner.partition(" ")[0]
            return first if first.isupper() else "ERR"
        return text.partition(" ")[0]


class Push(list[object]):
    """What comes without being a reply: ``["message", channel, text]``, ``["subscribe", channel, 1]``."""

    __slots__ = ()

    @property
    def kind(self) -> object:
        """The first element: what sort of message it is."""
        return self[0] if self else ""


def encode(args: Iterable[str | bytes | int]) -> bytes:
    """Return one command with its arguments as Redis reads it."""
    parts, count = [b""], 0
    for one in args:
        if isinstance(one, int):
            data = b"%d" % one
        else:
            data = one.encode("utf-8", "surrogateescape") if isinstance(one, str) else one
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
        count += 1
    parts[0] = b"*%d\r\n" % count
    return b"".join(parts)


class _Open:
    """A list, map or the like of which ``left`` elements have not come yet."""

    __slots__ = ("items", "kind", "left")

    def __init__(self, kind: int, left: int) -> None:
        self.kind = kind
        self.left = left
        self.items: list[object] = []


class Parser:
    """`feed` it what was received, then `get` replies until it says PENDING."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._open: list[_Open] = []

    def feed(self, data: bytes) -> None:
        """Take in the next bytes."""
        self._buffer += data

    def get(self) -> object:
        """
        Return the next whole reply, or PENDING.

        :raises ProtocolError: this is no RESP; nothing more can be read from the stream
        """
        while True:
            if self._open:
                self._take_texts(self._open[-1])
            value = self._next()
            if value is PENDING or not self._open:
                self._cut()
                return value
            while self._open:
                top = self._open[-1]
                top.items.append(value)
                top.left -= 1
                if top.left:
                    break
                self._open.pop()
                if top.kind == _ATTRIBUTE:
                    break  # it only describes the reply that follows
                value = _whole(top)
            else:
                self._cut()
                return value

    def _take_texts(self, top: _Open) -> None:
        """Take the texts that come next in ``top``, but its last element: as `_next` does, only faster."""
        buffer, at, left = self._buffer, self._at, top.left
        end = len(buffer)
        try:
            while left > 1 and at < end and buffer[at] == _BULK:
                start = buffer.find(b"\r\n", at, at + _SIZE_LIMIT) + 2
                if start < 2:
                    break
                stop = start + int(buffer[at + 1 : start - 2])
                if stop < start or stop + 2 > end:
                    break
                top.items.append(buffer[start:stop].decode("utf-8", "surrogateescape"))
                at, left = stop + 2, left - 1
        except ValueError:
            pass  # `_next` says what is wrong
        self._at, top.left = at, left

    def _next(self) -> object:
        """Return the next value that is not a list or the like; those are opened on the way."""
        buffer = self._buffer
        while True:
            start = self._at
            end = buffer.find(b"\r\n", start, start + _LINE_LIMIT)
            if end < 0:
                if len(buffer) - start >= _LINE_LIMIT or (
                    start < len(buffer) and buffer[start] not in _KINDS
                ):
                    raise self._nonsense()
                return PENDING
            kind, line, after = buffer[start], buffer[start + 1 : end], end + 2
            if kind == _SIMPLE:
                value: object = line.decode("utf-8", "surrogateescape")
            elif kind == _ERROR:
                value = ErrorReply(line.decode("utf-8", "surrogateescape"))
            elif kind == _TRUTH:
                value = line == b"t"
            elif kind == _NULL:
                value = None
            elif kind == _DOUBLE:
                value = self._float(line)
            elif kind in {_INTEGER, _BIG}:
                value = self._integer(line)
            elif kind in _TEXTS:
                size = self._integer(line)
                if size > _TEXT_LIMIT:
                    raise self._nonsense()
                if size >= 0:
                    stop = after + size
                    if len(buffer) < stop + 2:
                        return PENDING
                    value = _text(kind, buffer[after:stop])
                    after = stop + 2
                else:
                    value = None
            elif kind in _AGGREGATES:
                size = self._integer(line) * (2 if kind in {_MAP, _ATTRIBUTE} else 1)
                if size > 0:
                    self._open.append(_Open(kind, size))
                    self._at = after
                    continue
                self._at = after
                if kind == _ATTRIBUTE:
                    continue
                return None if size < 0 else _whole(_Open(kind, 0))
            else:
                raise self._nonsense()
            self._at = after
            return value

    def _integer(self, line: bytearray) -> int:
        try:
            return int(line)
        except ValueError:
            raise self._nonsense() from None

    def _float(self, line: bytearray) -> float:
        try:
            return float(line)
        except ValueError:
            raise self._nonsense() from None

    def _nonsense(self) -> ProtocolError:
        return ProtocolError(repr(bytes(self._buffer[self._at : self._at + 40]))[2:-1])

    def _cut(self) -> None:
        if self._at == len(self._buffer):
            self._buffer.clear()
            self._at = 0
        elif self._at > _SLACK:
            del self._buffer[: self._at]
            self._at = 0


_SIMPLE, _ERROR, _INTEGER, _BULK, _ARRAY = b"+-:$*"
_NULL, _TRUTH, _DOUBLE, _BIG, _BLOB_ERROR, _VERBATIM = b"_#,(!="
_MAP, _SET, _ATTRIBUTE, _PUSH = b"%~|>"
_TEXTS = frozenset((_BULK, _BLOB_ERROR, _VERBATIM))
_AGGREGATES = frozenset((_ARRAY, _MAP, _SET, _ATTRIBUTE, _PUSH))
_KINDS = frozenset(b"+-:$*_#,(!=%~|>")


def _text(kind: int, data: bytearray) -> str:
    text = data.decode("utf-8", "surrogateescape")
    if kind == _BULK:
        return text
    return ErrorReply(text) if kind == _BLOB_ERROR else text[4:]  # `txt:` says what sort of text it is


def _whole(one: _Open) -> object:
    if one.kind == _MAP:
        # Redis has texts and numbers for keys; a list, which RESP3 allows too, could be none here.
        keys = (repr(key) if isinstance(key, (list, dict)) else key for key in one.items[::2])
        return dict(zip(keys, one.items[1::2], strict=True))
    return Push(one.items) if one.kind == _PUSH else one.items


def mapping(reply: object) -> dict[str, str]:
    """Return what HGETALL answers as a dict: RESP3 has maps, RESP2 a list of names and values in turn."""
    if isinstance(reply, dict):
        return reply
    assert isinstance(reply, list), reply
    return dict(zip(reply[::2], reply[1::2], strict=True))


def scored(reply: object) -> dict[str, float]:
    """Return what ZRANGE ... WITHSCORES answers: RESP3 has pairs, RESP2 a list of both in turn."""
    assert isinstance(reply, list), reply
    if reply and isinstance(reply[0], list):
        return {member: float(score) for member, score in reply}
    return {member: float(score) for member, score in zip(reply[::2], reply[1::2], strict=True)}
