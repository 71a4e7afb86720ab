"""
What a command answers: one envelope, one exit status, data on stdout and talk on stderr.

Everything a caller gets to see passes through `show`, masked. One answer at a time, from the main thread.
"""

from __future__ import annotations

import os
import sys

from devsup import compactjson, filenames, masking
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TextIO

    from devsup.errors import DevsupError

__all__ = ["LINED", "SCHEMA_VERSION", "Answer", "document", "show", "write"]

SCHEMA_VERSION = 1
#: What goes well is told without an envelope, one line of JSON for each thing.
LINED = frozenset({"events"})


class Answer(Record):
    """The outcome of one command; ``data`` (a record or JSON value) may stand beside an error."""

    verb: str
    data: Any = None
    error: DevsupError | None = None
    notes: Sequence[str] = ()
    #: Whether servers of several projects may be in it: each is shown with its own then.
    everywhere: bool = False
    #: Whether secrets in what a server has printed are shown: somebody asked for that.
    raw: bool = False
    #: Which of several servers it is about, where their pages come one after another.
    label: str | None = None

    @property
    def exit_code(self) -> int:
        """Return the exit status, by the table in `devsup.errors`."""
        return 0 if self.error is None else self.error.exit_code


def document(answer: Answer, *, ascii_only: bool = False) -> str:
    """Return the JSON envelope of ``answer`` on one line, secrets masked."""
    error, data = answer.error, answer.data
    if answer.verb in LINED and error is None:
        return "\n".join(_line(one.asdict(), ascii_only=ascii_only) for one in data.events)
    notes = list(answer.notes)
    if isinstance(data, Record):
        data = data.asdict()
    if isinstance(data, dict) and "notes" in data:
        own = data["notes"]
        data = {name: value for name, value in data.items() if name != "notes"}
        notes = [*own, *(note for note in notes if note not in own)]
    envelope = {
        "schema_version": SCHEMA_VERSION,
        "ok": error is None,
        "data": data,
        "error": error
        and {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "retryable": error.retryable,
            "details": error.details,
        },
        "notes": notes,
    }

    looked_at = None
    if answer.verb == "list" and error is None:
        # Only the commands can hold a secret, and most of a hundred have the same words; a blank after each,
        # since it may be the next word that is one.
        words = {word for server in answer.data.servers for word in server.command}
        looked_at = "".join(f"{word} " for word in words)
    if answer.raw and error is None:
        looked_at = ""
    return _line(envelope, ascii_only=ascii_only, looked_at=looked_at)


def _line(value: dict[str, Any], *, ascii_only: bool, looked_at: str | None = None) -> str:
    """Return ``value`` as one line of JSON, secrets masked; ``looked_at`` is where these can be in it."""

    def dump(value: Any) -> str:
        # A lone surrogate (a path that is no UTF-8) stays one: `write` escapes it the way JSON does.
        return compactjson.dumps(value, ascii_only=ascii_only, default=_plain)

    text = dump(value)
    text = (
        dump(masking.value(value)) if masking.suspicious(text if looked_at is None else looked_at) else text
    )
    # Programs read the answer as UTF-8, whatever the locale of this process.
    return text if filenames.SAME else dump(filenames.portable_all(compactjson.loads(text)))


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.asdict()
    if isinstance(value, tuple | set | frozenset):
        return sorted(value) if not isinstance(value, tuple) else list(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def show(answer: Answer, *, as_json: bool) -> int:
    """Write ``answer`` where callers without a terminal look for it and return its exit status."""
    if as_json:
        encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
        text = document(answer, ascii_only=encoding != "utf8")
        return write(f"{text}\n" if text else "") or answer.exit_code
    from devsup.cli import plain

    failed = write(plain.render(answer))
    write(plain.talk(answer), sys.stderr)
    return failed or answer.exit_code


def write(text: str, stream: TextIO | None = None) -> int:
    """
    Write ``text`` to stdout and return 0, or 1 where it could not be delivered.

    A reader that has gone away (`devsup list | head -1`) is not a failure of the command.
    """
    stream = sys.stdout if stream is None else stream
    if stream is None or not text:  # no stream at all: `devsup ... >&-`
        return 0
    try:
        stream.flush()
        descriptor = stream.fileno()
    except (OSError, ValueError):
        descriptor = None  # somebody replaced the stream by one in memory
    try:
        if descriptor is None:
            stream.write(text)
        else:
            _write_all(descriptor, text.encode(stream.encoding, "backslashreplace"))
    except BrokenPipeError:
        _silence(stream)
        raise
    except OSError as error:
        if stream is not sys.stderr:
            write(f"error: the answer could not be written: {error.strerror}\n", sys.stderr)
        return 1
    return 0


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # a caller that shares its pipe made it non-blocking; it is full for now
            import select

            select.select([], [descriptor], [])


def _silence(stream: TextIO) -> None:
    """Let what else is written go nowhere, so that the interpreter's last flush says nothing."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass  # a stream without a descriptor has nothing to flush later
