"""Who asks? A name to show beside a server; nothing ever behaves differently because of it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["detect"]

#: Variables whose value names the agent, in the order of trust.
NAMING = ("DEVSUP_OWNER", "AI_AGENT", "AGENT")

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


def detect(environ: Mapping[str, str]) -> str | None:
    """Return the caller's name: from the environment, else `terminal` or `script`."""
    for variable in NAMING:
        if name := _clean(environ.get(variable, "")):
            return name
    for variable, agent in AGENTS.items():
        if environ.get(variable):
            return agent
    return "terminal" if any(_isatty(fd) for fd in (0, 2)) else "script"


def _clean(text: str) -> str:
    # The name is printed on terminals and stored: no escape sequence, no line end, no page of text.
    return "".join(letter for letter in text if letter.isprintable()).strip()[:MAX_LENGTH]


def _isatty(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False
