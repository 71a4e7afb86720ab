"""
Who asks? A name to show beside a server, and to keep callers from stopping each other's servers by mistake.

It never changes what a command prints. A server of a *named* owner (an agent, or what `--owner` or
`DEVSUP_OWNER` says) is its own: who is not that owner and no person stops it only with `--take-over`. One
that was started from a terminal or by a script without a name is anybody's: two such callers cannot be told
apart, and the script that cleans up after another must not be locked out.
"""

from __future__ import annotations

import os

from devsup.errors import OtherOwner, UsageError
from devsup.owners import ANYBODY, SCRIPT, TERMINAL, is_anothers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from devsup.models import Row

__all__ = ["ANYBODY", "NAMED", "anothers", "clean", "detect", "is_interactive", "printable"]

#: What a caller says of itself.
NAMED = "DEVSUP_OWNER"

#: Variables whose value names the agent, in the order of trust.
NAMING = ("AI_AGENT", "AGENT")

#: Variables that agents set in the shells they run.
AGENTS = {
    "CLAUDECODE": "claude-code",
    "CLAUDE_CODE": "claude-code",
    "GEMINI_CLI": "gemini-cli",
    "CODEX_SANDBOX": "codex",
    "CODEX_CI": "codex",
    "CODEX_THREAD_ID": "codex",
    "CURSOR_AGENT": "cursor",
    "CURSOR_TRACE_ID": "cursor",
    "OPENCODE_CLIENT": "opencode",
    "AUGMENT_AGENT": "augment",
    "ANTIGRAVITY_AGENT": "antigravity",
}

MAX_LENGTH = 64


def detect(environ: Mapping[str, str]) -> str:
    """Return the caller's name: what it says, its agent's, else `terminal` or `script`."""
    said = printable(environ.get(NAMED, ""))
    return said or _agent(environ) or (TERMINAL if _at_terminal() else SCRIPT)


def clean(name: str) -> str:
    """
    Return an owner's name as it is stored and compared.

    :raises UsageError: nothing is left of it
    """
    text = printable(name)
    if not text:
        raise UsageError("an empty owner", hint="name one after `--owner`")
    return text


def is_interactive(environ: Mapping[str, str]) -> bool:
    """
    Tell whether a person asks: at a terminal, and no agent has set its variables.

    Agents get terminals too, and a person who looks at two servers at once knows whose they are.
    """
    return _agent(environ) is None and _at_terminal()


def anothers(row: Row, environ: Mapping[str, str]) -> OtherOwner | None:
    """Return the error of a caller who would stop somebody else's server; None where it may."""
    if not is_anothers(row.owner, detect(environ)) or is_interactive(environ):
        return None
    return OtherOwner(f"`{row.session}` belongs to `{row.owner}`", details={"owner": row.owner})


def _agent(environ: Mapping[str, str]) -> str | None:
    for variable in NAMING:
        if name := printable(environ.get(variable, "")):
            return name
    return next((agent for variable, agent in AGENTS.items() if environ.get(variable)), None)


def printable(text: str) -> str:
    """Return what of ``text`` may be a name: it is printed on terminals and stored."""
    return "".join(letter for letter in text if letter.isprintable()).strip()[:MAX_LENGTH]


def _at_terminal() -> bool:
    return any(_isatty(fd) for fd in (0, 2))


def _isatty(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False
