"""What does a script of a `package.json` run? Read from its words alone: no shell is parsed."""

from __future__ import annotations

from devsup.apps.presets import SERVERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.apps.manifest import Package
    from devsup.apps.presets import Kind

__all__ = ["appendable", "delegates", "has_hooks", "kind_of", "plain_words", "server_in"]

#: Signs between words that end a command or quote one; for finding a program they are spaces.
SHELL = "\"'`;&|()<>{}\\\n\t"
_TO_SPACES = {ord(sign): " " for sign in SHELL}

#: What a word of a script may consist of, so that the shell would pass it on unchanged.
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-")

#: Words by which a script runs those of other packages: what it names is served from another folder.
DELEGATING = frozenset(
    (
        "cd",
        "turbo",
        "nx",
        "lerna",
        "moon",
        "rush",
        "workspace",
        "workspaces",
        "foreach",
        "--filter",
        "-F",
        "--workspace",
        "-w",
        "--workspaces",
        "-ws",
        "-r",
        "--recursive",
        "--prefix",
        "--cwd",
        "-C",
        "--dir",
    )
)

#: How deep a script that runs another script is followed.
MAX_DEPTH = 4


def plain_words(text: str) -> list[str]:
    """Return the words of a script that needs no shell; empty if it does, or sets a variable first."""
    words = text.split()
    if not words or "=" in words[0] or any(not PLAIN.issuperset(word) for word in words):
        return []
    return words


def delegates(text: str) -> bool:
    """Tell whether a script runs something in other folders."""
    return any(word.partition("=")[0] in DELEGATING for word in text.translate(_TO_SPACES).split())


def server_in(text: str) -> tuple[Kind, str] | None:
    """Return the kind of dev server that a script's text runs and what follows it, or None."""
    words = text.translate(_TO_SPACES).split()
    for kind in SERVERS:
        for index, word in enumerate(words):
            subcommands = kind.programs.get(word.rpartition("/")[2])
            if subcommands is None:
                continue
            following = words[index + 1] if index + 1 < len(words) else ""
            if following in subcommands:
                return kind, text.rpartition(following)[2] if following else ""
            # A bare `next -p 3001` is `next dev`; a bare word elsewhere (`echo next`) is not a command.
            if "" in subcommands and index == 0 and (not following or following.startswith("-")):
                return kind, text.partition(word)[2]
    return None


def appendable(text: str) -> bool:
    """Tell whether arguments added to the end of a script reach the dev server in it."""
    found = server_in(text)
    return found is not None and not any(sign in found[1] for sign in SHELL + "$#")


def kind_of(package: Package, script: str) -> str:
    """Return the name of the kind that ``script`` runs, following scripts that only run another one."""
    text = package.scripts.get(script, "")
    for _ in range(MAX_DEPTH):
        if delegates(text):
            break
        if (found := server_in(text)) is not None:
            return found[0].name
        words = text.split()
        if len(words) > 1 and words[0] in ("npm", "pnpm", "yarn", "bun"):
            words = words[2:] if words[1] == "run" else words[1:]
            text = package.scripts.get(words[0], "") if len(words) == 1 else ""
        else:
            break
    return "command"


def has_hooks(package: Package, script: str) -> bool:
    """Tell whether the package manager would run something before or after ``script``."""
    return f"pre{script}" in package.scripts or f"post{script}" in package.scripts
