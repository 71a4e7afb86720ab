"""
What a Python project says of itself: its dependencies, who installs them, where its app is made.

Read from words alone: a TOML parser would cost every start 11 ms. Three looks at names per folder, and files
are opened only where one of these is there.
"""

from __future__ import annotations

import os

from devsup.apps.project import PYTHON_FILES, upward
from devsup.records import Record
from devsup.smallfile import contents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devsup.apps.presets import Kind

__all__ = [
    "INTERPRETERS",
    "Project",
    "entry_of",
    "environment_of",
    "install_words",
    "manager_of",
    "read",
    "runner",
]

#: Lock files, and the tool that runs a program in the environment they describe.
LOCK_FILES = (("uv.lock", "uv"), ("poetry.lock", "poetry"), ("pdm.lock", "pdm"), ("Pipfile.lock", "pipenv"))

#: Folders of virtual environments, in the order in which they are looked for.
ENVIRONMENTS = (".venv", "venv")

INTERPRETERS = frozenset(("python", "python3", *(f"python3.{minor}" for minor in range(8, 20))))

_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


class Project(Record):
    """A folder with a Python project. ``files`` are those of `PYTHON_FILES` that it has."""

    dir: str
    files: tuple[str, ...]
    dependencies: frozenset[str]


def read(folder: str) -> Project | None:
    """Return what the Python project in ``folder`` says; None where there is none."""
    # Not `exists`: where nothing is, which is nearly everywhere, it raises inside, at three times the price.
    files = tuple([name for name in PYTHON_FILES if os.access(f"{folder}/{name}", os.F_OK)])
    if not files:
        return None
    found: set[str] = set()
    if "requirements.txt" in files:
        for line in _text(f"{folder}/requirements.txt").splitlines():
            found |= _requirement(line.strip())
    if "pyproject.toml" in files:
        for line in _text(f"{folder}/pyproject.toml").splitlines():
            found |= _of_toml(line)
    if "manage.py" in files and "django" in _text(f"{folder}/manage.py"):
        found.add("django")
    return Project(dir=folder, files=files, dependencies=frozenset(found))


def entry_of(folder: str, kind: Kind) -> str | None:
    """
    Return where the app of ``kind`` in ``folder`` is made, like `main:app`; None where it is in no file.

    That of a kind without constructors is the file itself.
    """
    for file in kind.entries:
        if not kind.constructors:
            if os.path.exists(f"{folder}/{file}"):
                return file
            continue
        text = _text(f"{folder}/{file}")
        if not any(call in text for call in kind.constructors):
            continue
        return f"{file[:-3].replace('/', '.')}:{_variable(text, kind)}"
    return None


def environment_of(folder: str, project: str) -> str | None:
    """Return the virtual environment of ``folder``, its own or one above it in the project."""
    for above in upward(folder, project):
        for name in ENVIRONMENTS:
            path = os.path.join(above, name)
            if os.path.exists(f"{path}/bin/python"):
                return path
    return None


def manager_of(folder: str, project: str) -> tuple[str, str]:
    """Return who installs the packages of ``folder``, and where: by the nearest lock file, else pip."""
    for above in upward(folder, project):
        for name, manager in LOCK_FILES:
            if os.path.exists(os.path.join(above, name)):
                return manager, above
    return "pip", folder


def runner(manager: str) -> list[str]:
    """Return the words that run a program in the environment that ``manager`` keeps somewhere."""
    return [manager, "run"] if manager != "pip" else []


def install_words(folder: str, manager: str, environment: str | None) -> list[str]:
    """Return the command that installs the packages of ``folder``."""
    if manager == "uv":
        return ["uv", "sync"]
    if manager != "pip":
        return [manager, "install"]
    what = ["-r", "requirements.txt"] if os.path.exists(f"{folder}/requirements.txt") else ["-e", "."]
    pip = f"{os.path.relpath(environment, folder) if environment else '.venv'}/bin/pip"
    return [pip, "install", *what]


def _text(path: str) -> str:
    try:
        return (contents(path) or b"").decode(errors="replace")
    except OSError:
        return ""


def _requirement(text: str) -> set[str]:
    """Return the name of a requirement, also with its extras: `fastapi[standard]`."""
    end = next((index for index, letter in enumerate(text) if letter.lower() not in _NAME), len(text))
    name = text[:end].lower().replace("_", "-")
    if not name or name[0] in "-.":
        return set()
    if text[end : end + 1] != "[":
        return {name}
    extras = text[end + 1 :].partition("]")[0]
    return {name, *(f"{name}[{extra.strip().lower()}]" for extra in extras.split(","))}


def _of_toml(line: str) -> set[str]:
    """Return what a line may list: `"fastapi[standard]>=1", "flask"` or, in Poetry's way, `flask = "^3"`."""
    key, equals, rest = line.partition("=")
    found: set[str] = set()
    if equals and key.strip() and _NAME.issuperset(key.strip().lower()):
        found |= _requirement(key.strip())
        name = key.strip().lower()
        extras = rest.partition("extras")[2].partition("[")[2].partition("]")[0]
        found |= {f"{name}[{extra}]" for extra in _quoted(extras)}
    for text in _quoted(line):
        found |= _requirement(text)
    return found


def _quoted(line: str) -> list[str]:
    return line.replace("'", '"').split('"')[1::2]


def _variable(text: str, kind: Kind) -> str:
    """Return the name at the left of a constructor's call, else `app`."""
    for line in text.splitlines():
        name, equals, call = line.partition("=")
        name = name.partition(":")[0].strip()
        if (
            equals
            and name.isidentifier()
            and line[0] == name[0]
            and any(one in call for one in kind.constructors)
        ):
            return name
    return "app"
