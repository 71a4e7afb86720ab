"""
No secret leaves devsup: what looks like one in a command, a URL or a text is shown as `***`.

Called on everything that goes to a caller. Nearly no answer holds a secret: `suspicious` tells that by a few
searches over the whole of it, and the regular expressions are compiled when the first text needs them.

Pure functions but for `learn`: its literal secrets are per process and only added. Any thread may call them.
"""

from __future__ import annotations

from devsup.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from re import Pattern
    from typing import Any

__all__ = [
    "MASK",
    "brief",
    "command",
    "cut",
    "learn",
    "quoted",
    "secret_name",
    "shown",
    "suspicious",
    "text",
    "title",
    "typed",
    "value",
]

MASK = "***"

#: Characters of a command line in a message.
_BRIEF = 80

#: Names of flags and variables that hold secrets contain one of these, written without `-` and `_`.
_NAMES = (
    "token",
    "secret",
    "passw",
    "passphrase",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "credential",
    "authorization",
)

#: One of these is part of every such name, however it is written.
_SIGNS = ("token", "secret", "pass", "key", "credential", "authorization")

#: How the keys of well-known services begin; what follows is the secret.
_PREFIXES = (
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "sk-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xapp-",
    "npm_",
    "pypi-",
    "hf_",
    "AKIA",
    "AIza",
    "eyJ",
)

#: What looks like such a key by its beginning, and is a name where this does not follow: `sk-SK.json`,
#: `npm_config_registry`, `hf_hub_download`, `pypi-attestations`.
_FOLLOWED = {
    "sk-": r"(?=[\w-]{9})",
    "npm_": "(?=[A-Za-z0-9]{20})",
    "hf_": "(?=[A-Za-z0-9]{20})",
    "pypi-": r"(?=[\w-]{20})",
    "eyJ": r"(?=[\w-]+\.)",
}

#: Schemes whose addresses have no `@` but that before the host, where they have one.
_STORES = r"rediss?|valkeys?|unix|postgres(?:ql)?|mysql|mariadb|mongodb|amqps?"

#: Shorter values are words such as `true`, `8080` or `dev`: to hide them would garble the text around them.
_LITERAL_MIN = 6

#: Words that follow a flag's name in a sentence about it.
_COMPLAINTS = (
    r"(?:is|are|was|has|must|may|can|cannot|should|needs?|requires?|expects?|takes?|missing|required|option|flag"
    r"|argument|value|to|for|from|in|on|or|and|not|with|without|instead)\b"
)

#: What a shell reads as it stands (as `shlex` has it, which the hot lane does not load).
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")

#: Flags of a shell that stand before its `-c`, in one word with it.
_SHELL_FLAGS = frozenset("ceiluvx")

_literals: set[str] = set()
_patterns: dict[str, Pattern[str]] = {}


def secret_name(name: str) -> bool:
    """Tell whether a flag or variable of this name holds a secret."""
    bare = name.lower().replace("-", "").replace("_", "").replace(".", "")
    last_word = name.lower().replace("-", "_").rpartition("_")[2]
    return any(part in bare for part in _NAMES) or last_word == "pass" or bare == "key"


def learn(environment: dict[str, str]) -> None:
    """Hide, from here on, the values of those of these variables that hold secrets wherever they turn up."""
    for name, content in environment.items():
        if len(content) >= _LITERAL_MIN and (secret_name(name) or text(content) != content):
            # A key of several lines turns up line by line, in a log.
            lines = map(str.strip, content.splitlines())
            _literals.update((content, *(line for line in lines if len(line) >= _LITERAL_MIN)))


def suspicious(content: str) -> bool:
    """Tell whether ``content``, a text or a line of JSON, may hold a secret at all; False is certain."""
    return (
        ("://" in content and "@" in content)
        or _names_a_secret(content)
        or "earer " in content
        or any(prefix in content for prefix in _PREFIXES)
        or any(literal in content or not _same_in_json(literal) for literal in tuple(_literals))
    )


def text(content: str) -> str:
    """Return ``content`` with credentials in URLs, values of secret names and well-known keys masked."""
    content = _without_literals(content)
    if "://" in content and "@" in content:
        content = _pattern("url").sub(rf"\1\2{MASK}@", content)
    if _names_a_secret(content):
        if "=" in content or ":" in content:
            content = _pattern("assignment").sub(rf"\1{MASK}", content)
        if "-" in content:
            content = _pattern("flag").sub(rf"\1{MASK}", content)
    if "earer " in content or "asic " in content:
        content = _pattern("bearer").sub(rf"\1{MASK}", content)
    if any(prefix in content for prefix in _PREFIXES):
        content = _pattern("key").sub(rf"\1{MASK}", content)
    return content


def cut(content: str, most: int) -> str:
    """Return ``content`` in ``most`` characters; masked before it is cut, or half a secret would stay."""
    if len(content) > most:
        content = text(content)
    return content if len(content) <= most else f"{content[: most - 1]}…" if most > 0 else ""


def command(argv: Sequence[Any]) -> list[Any]:
    """Return a command line with the values of its secret flags and variables masked."""
    shown: list[Any] = []
    before = ""
    for word in argv:
        if not isinstance(word, str):
            shown.append(value(word))
            continue
        name, equals, _ = word.partition("=")
        if before[:1] == "-" and "=" not in before and secret_name(before) and word[:1] != "-":
            shown.append(MASK)
        elif equals and not _takes_a_script(before) and secret_name(name):
            shown.append(f"{name}={MASK}")
        else:
            shown.append(text(word))
        before = word
    return shown


def quoted(word: str) -> str:
    """Return ``word`` as a shell reads it; what is masked stays as readable as it is."""
    if word and _PLAIN.issuperset(word.replace(MASK, "")):
        return word
    return "'" + word.replace("'", "'\"'\"'") + "'"


def shown(argv: Sequence[str]) -> str:
    """Return a command line for a sentence: masked, and quoted as a shell reads it."""
    return " ".join(map(quoted, command(argv)))


def title(argv: Sequence[str]) -> str:
    """Return what a process says of itself, masked: its command line, or the one text that it put there."""
    return text(argv[0]) if len(argv) == 1 else shown(argv)


def brief(command: str | None) -> str:
    """Return a command line, masked before, as a sentence can bear it: short, and on one line."""
    line = " ".join((command or "unknown").split())
    return line if len(line) <= _BRIEF else f"{line[: _BRIEF - 1]}…"


def typed(argv: Sequence[str]) -> str | None:
    """Return a command line that can be typed as it stands; None where that would show a secret."""
    words = list(argv)
    if command(words) != words or not all(word.isprintable() for word in words):
        return None
    return shown(words)


def value(content: Any, key: str = "") -> Any:
    """Return ``content``, a record or JSON value, as plain JSON values with every text in it masked."""
    if isinstance(content, str):
        return text(content)
    if isinstance(content, Record):
        content = content.asdict()
    if key == "env" and isinstance(content, list | tuple):
        return [f"{str(pair).partition('=')[0]}={MASK}" for pair in content]
    if isinstance(content, dict):
        if key == "env":
            return dict.fromkeys(content, MASK)
        return {name: value(inner, name) for name, inner in content.items()}
    if isinstance(content, list | tuple):
        return command(content) if key == "command" else [value(inner) for inner in content]
    return content


def _without_literals(content: str) -> str:
    """Mask every learned secret, also where one is a part of another or begins inside it."""
    spans = []
    for literal in tuple(_literals):  # another thread may add to them
        start = content.find(literal)
        while start >= 0:
            spans.append((start, start + len(literal)))
            start = content.find(literal, start + 1)
    if not spans:
        return content
    masked, end = "", 0
    for start, stop in sorted(spans):
        if start >= end:
            masked += content[end:start] + MASK
        end = max(end, stop)
    return masked + content[end:]


def _takes_a_script(flag: str) -> bool:
    """Tell whether what follows ``flag`` is a text of its own: that of `sh -c`, `bash -lc`."""
    return flag[:1] == "-" and flag[-1:] == "c" and _SHELL_FLAGS.issuperset(flag[1:])


def _same_in_json(literal: str) -> bool:
    return literal.isascii() and literal.isprintable() and '"' not in literal and "\\" not in literal


def _names_a_secret(content: str) -> bool:
    """Tell whether a secret's name may be in ``content``; False is certain."""
    lower = content.lower()
    return any(sign in lower for sign in _SIGNS)


def _pattern(name: str) -> Pattern[str]:
    if name not in _patterns:
        import re

        _patterns[name] = re.compile(_sources()[name])
    return _patterns[name]


def _sources() -> dict[str, str]:
    names = (
        r"token|secret|passw|passphrase|credential|authorization|(?<![A-Za-z])pass(?=[=\"'\s])"
        r"|(?:api|access|private|signing|encryption|master)[-_]?key|(?<![\w.-])key(?==)"
    )
    prefixes = (f"{prefix}{_FOLLOWED.get(prefix, '')}" for prefix in _PREFIXES)
    # Each is searched for from few places, or not far: a minified line is one word of a million letters.
    return {
        # Greedy up to the last `@` of the authority: a password may contain one. In that of a database people
        # also forget to escape a `/`.
        "url": (
            rf"((?i:{_STORES})(?:\+\w{{1,20}})?://(?!/))[^\s\"'<>]{{1,300}}@"
            r"|([A-Za-z][A-Za-z0-9+.-]{0,30}://)[^\s/?#\"'<>]+@"
        ),
        # `NAME=value`, `"name": "value"` and `'name': 'value'`, also within a text in JSON; not `token: x`,
        # which is how parsers speak of syntax errors.
        "assignment": (
            rf"(?i)((?<![\w.-])[\w.-]*(?:{names})[\w.-]{{0,99}}(?:=\\*[\"']?|\\*[\"']\s*:\s*\\*[\"']))(?!\*\*\*)"
            r"(?:(?<=\\[\"'])[^\"'\\\n]+|(?<=\")(?:[^\"\\\n]|\\.)+|(?<=')(?:[^'\\\n]|\\.)+|[^\s\"'&,;]+)"
        ),
        # `--token value`, also as two words of a list; not `--token is missing`, which a program complains.
        "flag": (
            rf"(?i)((?<![\w-])--?[\w-]*(?:{names})[\w-]{{0,99}}(?:\s+|[\"'],\s*(?=[\"'])))(?!\*\*\*|{_COMPLAINTS})"
            r"(?:'[^'\n]*'|\"(?:[^\"\\\n]|\\.)*\"|[^\s\"'`-][^\s\"'`]*)"
        ),
        "bearer": r"([Bb]earer |(?i:authorization)[\"']?\s?:\s?[\"']?[Bb]asic )[\w.~+/=-]{6,}",
        "key": rf"(?<![A-Za-z0-9])({'|'.join(prefixes)})[A-Za-z0-9_.-]{{6,}}",
    }
