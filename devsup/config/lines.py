"""
Where does each key of a file stand? The parsers of the standard library do not say.

For files that those parsers have read without complaint; of anything else it finds what it can. Pure
functions; keys are joined by dots, lines count from 1.
"""

from __future__ import annotations

from json.decoder import scanstring  # type: ignore[attr-defined] # public, though typeshed has no line for it

__all__ = ["in_json", "in_toml"]

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def in_toml(text: str) -> dict[str, int]:
    """Return the line of each key and table of a TOML document."""
    scanner = _Toml(text)
    try:
        scanner.document()
    except (IndexError, ValueError):
        pass
    return scanner.lines


def in_json(text: str) -> dict[str, int]:
    """Return the line of each key of a JSON document."""
    scanner = _Json(text)
    try:
        scanner.value("")
    except (IndexError, ValueError):
        pass
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[str, int] = {}

    def found(self, key: str, at: int) -> None:
        self.lines.setdefault(key, self.text.count("\n", 0, at) + 1)

    def skip(self, signs: str) -> str:
        """Go on to the first sign that is not in ``signs`` and return it, "" at the end."""
        while self.at < len(self.text) and self.text[self.at] in signs:
            self.at += 1
        return self.text[self.at] if self.at < len(self.text) else ""


class _Toml(_Scanner):
    def document(self) -> None:
        table = ""
        while sign := self.space():
            if sign == "[":
                start = self.at
                self.skip("[ \t")
                table = self.key("", start)
                self.skip("] \t")
            else:
                self.pair(table)

    def space(self, signs: str = " \t\r\n") -> str:
        """Skip blanks and comments; return the next sign."""
        while self.skip(signs) == "#":
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end
        return self.text[self.at] if self.at < len(self.text) else ""

    def more(self, closing: str) -> bool:
        """Skip to the next element; tell whether there is one before ``closing``."""
        sign = self.space(" \t\r\n,")
        if not sign:
            raise ValueError("no end")
        return sign != closing

    def key(self, table: str, start: int | None = None) -> str:
        """Read a dotted key below ``table``; each part of it is found."""
        while True:
            sign = self.skip(" \t")
            began = self.at if start is None else start
            if sign in "\"'":
                end = self.string()
                part = self.text[self.at + 1 : end - 1]
                self.at = end
            else:
                end = self.at
                while self.text[end] in _BARE:
                    end += 1
                if end == self.at:
                    raise ValueError("no key")
                part = self.text[self.at : end]
                self.at = end
            table = f"{table}.{part}" if table else part
            self.found(table, began)
            if self.skip(" \t") != ".":
                return table
            self.at += 1

    def pair(self, table: str) -> None:
        key = self.key(table)
        if self.skip(" \t") != "=":
            raise ValueError("no value")
        self.at += 1
        self.value(key)

    def value(self, key: str) -> None:
        sign = self.skip(" \t")
        if sign in ('"', "'"):
            self.at = self.string()
        elif sign == "[":
            self.at += 1
            while self.more("]"):
                self.value(key)
            self.at += 1
        elif sign == "{":
            self.at += 1
            while self.more("}"):
                self.pair(key)
            self.at += 1
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}#\n":
                self.at += 1

    def string(self) -> int:
        """Return where the string that begins here ends."""
        sign = self.text[self.at]
        quote = sign * 3 if self.text.startswith(sign * 3, self.at) else sign
        end = self.at + len(quote)
        while not self.text.startswith(quote, end):
            if end >= len(self.text):
                raise ValueError("no end")
            end += 2 if self.text[end] == "\\" and sign == '"' else 1
        end += len(quote)
        while len(quote) == 3 and self.text.startswith(sign, end):
            end += 1  # a quote of the text itself before the three that end it
        return end


class _Json(_Scanner):
    def value(self, key: str) -> None:
        sign = self.skip(" \t\r\n")
        if sign == '"':
            _, self.at = scanstring(self.text, self.at + 1)
        elif sign == "{":
            self.at += 1
            while self.skip(" \t\r\n,") != "}":
                began = self.at
                name, self.at = scanstring(self.text, self.at + 1)
                below = f"{key}.{name}" if key else name
                self.found(below, began)
                self.skip(" \t\r\n:")
                self.value(below)
            self.at += 1
        elif sign == "[":
            self.at += 1
            while self.skip(" \t\r\n,") != "]":
                self.value(key)
            self.at += 1
        else:
            while self.text[self.at] not in ",]} \t\r\n":
                self.at += 1
