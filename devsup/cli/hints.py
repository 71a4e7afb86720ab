"""
Hints that run as they stand: words quoted, and meant for the folder that the call was about.

Pure functions.
"""

from __future__ import annotations

from devsup.masking import quoted, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

__all__ = ["folder_of", "located", "start"]

_OURS = "devsup "


def located(hint: str | None, folder: str | None) -> str | None:
    """
    Return ``hint`` with its devsup commands as they are to be typed by a caller who named ``folder``.

    A hint that begins with a folder of its own keeps it.
    """
    if hint is None or folder is None or hint.startswith(f"{_OURS}-C "):
        return hint
    there = f"{_OURS}-C {quoted(folder)} "
    if hint.startswith(_OURS):
        hint = there + hint[len(_OURS) :]
    return hint.replace(f"`{_OURS}", f"`{there}")


def folder_of(argv: Sequence[str]) -> str | None:
    """Return what `-C` says in a call that could not be parsed."""
    words = list(argv[: argv.index("--")] if "--" in argv else argv)
    folder = None
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word in ("-C", "--directory"):
            folder = following or None
        elif word.startswith("--directory="):
            folder = word.partition("=")[2] or None
        elif word.startswith("-C") and len(word) > 2:
            folder = word[2:]
    return folder


def start(options: Mapping[str, Any], *changed: str) -> str:
    """Return a start with these options, its port replaced by ``changed``, as it can be typed again."""
    words = ["devsup", "start", *([options["app"]] if options["app"] else []), *changed]
    words += ["--", *options["command"]] if options["command"] else []
    line = None if options["env"] else typed(words)
    return line or f"make the same call again with `{' '.join(changed)}`"
