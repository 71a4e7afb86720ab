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


def internal(error: BaseException, call: Call | None = None) -> InternalError:
    """Return the error that a caller sees for ``error``, after its traceback has been written to a file."""
    what = masking.text(f"{type(error).__name__}: {error}".strip().rstrip(":"))
    path = _write(error, call)
    where = f"a report lies at `{path}`" if path else "a report could not be written"
    return InternalError(
        f"a bug in devsup: {what}; {where}",
        hint="`devsup list` shows what runs now",
        details={"report": path, "exception": type(error).__name__},
    )


def _write(error: BaseException, call: Call | None) -> str | None:
    shown = (
        f"{call.verb} {masking.value(call.options)}" if call is not None else masking.command(sys.argv[1:])
    )
    text = "".join(
        [
            f"devsup {__version__}, Python {sys.version.split()[0]}, {sys.platform}\n",
            f"call: {shown}\n\n",
            *(masking.text(part) for part in traceback.format_exception(error)),
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


def _home_folder() -> str:
    from devsup.paths import ensure_home, find_home

    home = find_home()
    ensure_home(home)
    return home.reports


def _temporary_folder() -> str:
    return tempfile.mkdtemp(prefix="devsup-report-")
