"""What does a script of a `package.json` run? Read from its words alone: no shell is parsed."""

from __future__ import annotations

from devsup.apps.manifest import MANAGERS
from devsup.apps.ports import flag_at, number
from devsup.apps.presets import COMMAND, of_program, refined
from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.apps.manifest import Package
    from devsup.apps.presets import Kind

__all__ = ["Call", "call_in", "delegates", "has_hooks", "kind_of", "names_app", "plain_words", "port_in"]

#: Signs that end a command or quote a part of it; for finding a program they are spaces.
SHELL = "\"'`;&|()<>{}\\\n\t"
_TO_SPACES = {ord(sign): " " for sign in SHELL}

#: What a word may consist of, so that the shell would pass it on unchanged.
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-")

#: Programs that run the scripts of other packages: what they start serves from another folder.
DELEGATING = frozenset(("cd", "turbo", "nx", "lerna", "moon", "rush"))
#: Words by which a package manager does the same.
SELECTING = frozenset(
    (
        *("-w", "-ws", "--workspace", "--workspaces", "-r", "--recursive", "-F", "--filter"),
        *("--prefix", "--cwd", "-C", "--dir", "workspace", "workspaces", "foreach"),
    )
)

#: Programs that run the one named behind them and its arguments.
RUNNERS = frozenset(
    (
        *("npx", "bunx", "pnpx", "npm", "pnpm", "yarn", "bun", "exec", "dlx", "x"),
        *("env", "cross-env", "dotenv", "env-cmd", "exec", "time", "nice", "--"),
    )
)

#: How far a script that runs another script is followed.
MAX_DEPTH = 4


class Call(Record):
    """A dev server in a script: what stands before it, and its own arguments up to the end of its command."""

    kind: Kind
    before: str
    arguments: str
    #: Whether words added to the end of the script reach the server.
    last: bool


def plain_words(text: str) -> list[str]:
    """Return the words of a script that the shell would pass on as they are; empty if it would not."""
    words = text.split()
    return words if all(PLAIN.issuperset(word) for word in words) else []


def delegates(text: str) -> bool:
    """Tell whether a script runs something in other folders."""
    words = {word.partition("=")[0] for word in text.translate(_TO_SPACES).split()}
    if not words.isdisjoint(DELEGATING):
        return True
    return not words.isdisjoint(MANAGERS) and not words.isdisjoint(SELECTING)


def call_in(text: str) -> Call | None:
    """Return the dev server that a script starts, or None."""
    words = _words(text)
    best, lowest = None, 0
    for index, (word, start, end) in enumerate(words):
        known = of_program(word.rpartition("/")[2])
        if known is None or (best is not None and known[0] >= lowest):
            continue
        call = _call_at(known[1], text, words, index, (start, end))
        if call is not None:
            best, lowest = call, known[0]
    return best


def port_in(text: str, kind: Kind) -> int | None:
    """Return the port that a script says in plain digits: by its server's flag, else as `PORT=...`."""
    call = call_in(text)
    if call is not None:
        words = call.arguments.split()
        for index in range(len(words)):
            value, used = flag_at(words, index, kind)
            if used:
                return number(value)
    if kind.port_env is None:
        return None
    prefix = f"{kind.port_env}="
    for word, _, _ in _words(call.before if call is not None else text):
        if word.startswith(prefix):
            return number(word[len(prefix) :])
    return None


def kind_of(package: Package, script: str) -> Kind:
    """Return the kind that ``script`` runs, following scripts that only run another one of the package."""
    text = package.scripts.get(script, "")
    for _ in range(MAX_DEPTH):
        if delegates(text):
            break
        if (call := call_in(text)) is not None:
            return refined(call.kind, package.dependencies)
        words = text.split()
        if len(words) < 2 or words[0] not in MANAGERS:
            break
        words = words[2:] if words[1] == "run" else words[1:]
        text = package.scripts.get(words[0], "") if len(words) == 1 else ""
    return COMMAND


def names_app(arguments: list[str]) -> bool:
    """Tell whether one of the arguments is like `main:app`: an object in a Python module."""
    for word in arguments:
        module, colon, name = word.partition(":")
        if colon and module.replace(".", "").replace("_", "").isalnum() and name.replace("_", "").isalpha():
            return True
    return False


def has_hooks(package: Package, script: str) -> bool:
    """Tell whether the package manager would run something before or after ``script``."""
    return f"pre{script}" in package.scripts or f"post{script}" in package.scripts


def _words(text: str) -> list[tuple[str, int, int]]:
    """Return the words of a script with their places in it."""
    spaced = text.translate(_TO_SPACES)
    found = []
    end = 0
    for word in spaced.split():
        start = spaced.index(word, end)
        end = start + len(word)
        found.append((word, start, end))
    return found


def _call_at(
    kind: Kind, text: str, words: list[tuple[str, int, int]], index: int, place: tuple[int, int]
) -> Call | None:
    """Return the call of the program of ``kind`` at ``place``, unless it does something else there."""
    start, end = place
    subcommands = kind.programs[words[index][0].rpartition("/")[2]]
    following, _, after = words[index + 1] if index + 1 < len(words) else ("", end, end)
    if following and following in subcommands:
        return _call(kind, text, start, after)
    # `next -p 3001` is `next dev`; elsewhere than in front (`echo next`) the word may be anything.
    if "" in subcommands and _is_bare(text, words, index):
        return _call(kind, text, start, end)
    if ":" in subcommands:
        call = _call(kind, text, start, end)
        return call if names_app(call.arguments.split()) else None
    return None


def _is_bare(text: str, words: list[tuple[str, int, int]], index: int) -> bool:
    """Tell whether the program at ``index`` begins its command and has no subcommand."""
    _, start, end = words[index]
    if index + 1 < len(words):
        following, begin, _ = words[index + 1]
        if not text[end:begin].strip(" \t") and not (following[0] in "-.#" or "/" in following):
            return False
    for word, begin, stop in reversed(words[:index]):
        if text[stop:start].strip(" \t") or word in RUNNERS:
            return True
        if "=" not in word and word[0] != "-":
            return False
        start = begin
    return True


def _call(kind: Kind, text: str, start: int, after: int) -> Call:
    end = after
    while end < len(text) and text[end] not in SHELL:
        end += 1
    return Call(kind, text[:start], text[after:end], last=end == len(text) and "#" not in text[after:])
