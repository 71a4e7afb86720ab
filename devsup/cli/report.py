"""
What a bug leaves behind: a report in the state folder, and an answer that says where it lies.

Never raises; where the state folder is the trouble, the system's folder for temporary files has the report.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback

from devsup import __version__, masking
from devsup.errors import InternalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.cli.lane import Call

__all__ = ["internal"]

#: Values up to this length (`1`, `dev`) are in every text by chance.
_WORD = 3


def internal(error: BaseException, call: Call | None = None) -> InternalError:
    """Return the error that a caller sees for ``error``, after its traceback has been written to a file."""
    what = _without_values(f"{type(error).__name__}: {error}".strip().rstrip(":"), call)
    path = _write(error, call)
    where = f"a report lies at `{path}`" if path else "a report could not be written"
    return InternalError(
        f"a bug in devsup: {what}; {where}",
        hint="devsup list",
        details={"report": path, "exception": type(error).__name__},
    )


def _write(error: BaseException, call: Call | None) -> str | None:
    shown = f"{call.verb} {masking.value(call.options)}" if call is not None else _arguments(sys.argv[1:])
    text = "".join(
        [
            f"devsup {__version__}, Python {sys.version.split()[0]}, {sys.platform}\n",
            f"call: {shown}\n\n",
            *(_without_values(part, call) for part in traceback.format_exception(error)),
        ]
    )
    name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}.txt"
    for folder_of in (_home_folder, _temporary_folder):
        try:
            path = os.path.join(folder_of(), name)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except Exception:
            continue  # the state folder may be the very thing that is broken
        return path
    return None


def _arguments(argv: list[str]) -> list[str]:
    """Return the words of a call that could not be parsed, masked; of `--env` only the names."""
    shown: list[str] = []
    before = ""
    for word in masking.command(argv):
        # A text without `=` may be a secret that somebody forgot to name.
        if before == "--env":
            name, equals, _ = word.partition("=")
            shown.append(f"{name}={masking.MASK}" if equals else masking.MASK)
        elif word.startswith("--env="):
            name, equals, _ = word.removeprefix("--env=").partition("=")
            shown.append(f"--env={name}={masking.MASK}" if equals else f"--env={masking.MASK}")
        else:
            shown.append(word)
        before = word
    return shown


def _without_values(text: str, call: Call | None) -> str:
    """Return ``text`` masked; a value of `--env` does not leave, whatever its name is."""
    text = masking.text(text)
    for pair in (call.options.get("env") if call is not None else None) or ():
        content = pair.partition("=")[2]
        if len(content) > _WORD:
            text = text.replace(content, masking.MASK)
    return text


def _home_folder() -> str:
    from devsup.paths import ensure_home, find_home

    home = find_home()
    ensure_home(home)
    return home.reports


def _temporary_folder() -> str:
    return tempfile.mkdtemp(prefix="devsup-report-")
