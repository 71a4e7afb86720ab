"""
How Python and its servers print errors: a traceback, whose end says what and whose last own frame says where.

Seen of Python 3.11 with uvicorn and FastAPI, Flask and Django. Of errors that cause each other the last one
counts: it is what the server has answered with.
"""

from __future__ import annotations

import re

from devsup.logs.errors.fault import COMPILE, METHODS, REQUEST, RUNTIME, Fault, tidy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["begins", "goes_on", "read"]

_BEGIN = re.compile(r"^(?P<margin>[\s|+]*)(?:Exception Group )?Traceback \(most recent call last\):")
_FRAME = re.compile(r'^\s+File "(?P<file>[^"]+)", line (?P<line>\d+)')
_FOREIGN = re.compile(r"/(?:site|dist)-packages/|^<|/lib/python3|/multiprocessing/|/importlib/")
_END = re.compile(r"^[A-Za-z_][\w.]*(?::\s|$)")
_AND = ("The above exception was", "During handling of the above")
_REQUEST = re.compile(rf'"(?P<what>(?:{METHODS}) \S+) HTTP/[\d.]+" (?P<status>5\d\d)\b')
_UNREADABLE = ("SyntaxError", "IndentationError", "TabError")


def begins(line: str) -> bool:
    """Tell whether an error begins here."""
    return bool(_BEGIN.match(line) or _REQUEST.search(line))


def goes_on(line: str, lines: Sequence[str]) -> bool:
    """Tell whether ``line`` belongs to the error that has these ``lines`` so far."""
    found = _BEGIN.match(lines[0])
    if found is None:
        return False
    margin = len(found["margin"])
    inside, before = line[margin:], lines[-1][margin:]
    if inside[:1] in (" ", "\t"):
        return True
    if _END.match(before) and before[:9] != "Traceback":
        return not inside  # the message is out; an empty line may lead to the next of a chain
    if not before:
        return inside.startswith((*_AND, "Traceback ")) or not inside
    return bool(_END.match(inside) or not inside or inside.startswith("Traceback "))


def read(lines: Sequence[str]) -> Fault | None:
    """Return what they say; None where that is no error after all."""
    found = _BEGIN.match(lines[0])
    if found is None:
        request = _REQUEST.search(lines[0])
        return Fault(REQUEST, f"{tidy(request['what'])} {request['status']}") if request else None
    inner = [line[len(found["margin"]) :] for line in lines]
    last = max(number for number, line in enumerate(inner) if "Traceback (most recent" in line)
    end = next((line for line in inner[last + 1 :] if _END.match(line)), None)
    if end is None:
        return None
    kind = COMPILE if end.startswith(_UNREADABLE) else RUNTIME
    frames = [frame for line in inner[last:] if (frame := _FRAME.match(line)) is not None]
    own = [frame for frame in frames if not _FOREIGN.search(frame["file"])] or frames
    if not own:
        return Fault(kind, tidy(end))
    return Fault(kind, tidy(end), own[-1]["file"], int(own[-1]["line"]))
