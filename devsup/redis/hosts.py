"""
What hosts that share a Redis tell each other: what this one is called, and what may be shown of a stranger's
text. Pure functions of the environment and of texts.
"""

from __future__ import annotations

import os

from devsup.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HOST", "host", "printable"]

#: The variable that says what this host is called.
HOST = "DEVSUP_HOST"
_LONGEST = 63
#: Letters of a text that are shown.
_SHOWN = 200


def host(environ: Mapping[str, str]) -> str:
    """
    Return what this host is called.

    :raises UsageError: the variable holds what can be no name
    """
    told = environ.get(HOST, "").strip()
    if told:
        if len(told) > _LONGEST or not all(letter.isprintable() and letter not in " /" for letter in told):
            raise UsageError(
                f"{HOST} cannot be a name: a text without blanks and `/`, at most {_LONGEST} letters",
                hint=f"unset {HOST}",
            )
        return told
    named = "".join(letter for letter in os.uname().nodename if letter.isprintable() and letter not in " /")
    return named or "localhost"


def printable(text: str) -> str:
    """Return what of ``text``, which comes from another machine, may be shown on a terminal."""
    return "".join(letter for letter in text[:_SHOWN] if letter.isprintable())
