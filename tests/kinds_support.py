"""
The smallest projects of the kinds beyond Next.js and Expo, and the table of what was seen of them.

`make test-kinds` installs their tools where it can. For one test at a time.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import ROOT, link_file

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FIXTURES", "KINDS", "Case", "Seen", "lay_kind", "missing", "write_table"]

FIXTURES = ROOT / "tests" / "fixtures" / "kinds"
#: One environment for all Python kinds: a project's `.venv` is a link to it.
VENV = FIXTURES / ".venv"
TABLE = ROOT / "docs" / "kinds.md"
BEGIN, END = "<!-- written by `make test-kinds` -->\n", "<!-- to here -->\n"


@dataclass(frozen=True)
class Case:
    """
    A kind as it is tried: the fixture's folder ``name``, and the app that is found in it.

    ``packages`` are those whose versions the table shows. ``broken`` is a file with what makes the server end
    at once, and ``cause`` what devsup says then. ``moves``: started on a taken port it takes another one.
    ``edit`` is a word of a file with which a Python server reloads.
    """

    name: str
    kind: str
    app: str
    packages: tuple[str, ...]
    broken: tuple[str, str]
    cause: str
    path: str = "/"
    text: str = ""
    python: bool = False
    moves: bool = False
    edit: str | None = None

    @property
    def said(self) -> str:
        """What its page says."""
        return self.text or f"devsup-kind-{self.name}"


THROW = 'throw new Error("boom");\n'
NO_MODULE = "a module cannot be found: a package is not installed, or a path is wrong"

KINDS = (
    Case("vite", "vite", "web", ("vite",), ("vite.config.js", THROW), "vite.config fails to load"),
    Case(
        "sveltekit",
        "sveltekit",
        "web",
        ("@sveltejs/kit", "vite"),
        ("svelte.config.js", THROW),
        "svelte.config.js fails to load",
    ),
    Case(
        "react-router",
        "react-router",
        "web",
        ("@react-router/dev", "vite"),
        ("app/routes.js", THROW),
        "app/routes cannot be used",
    ),
    Case(
        "remix",
        "react-router",
        "web",
        ("@remix-run/dev", "vite"),
        ("app/root.jsx", ""),
        "there is no `app/root` module",
    ),
    Case(
        "astro",
        "astro",
        "web",
        ("astro",),
        ("astro.config.mjs", THROW),
        "astro.config fails to load",
        moves=True,
    ),
    Case(
        "nuxt", "nuxt", "web", ("nuxt",), ("nuxt.config.ts", THROW), "nuxt.config fails to load", moves=True
    ),
    Case(
        "angular", "angular", "web", ("@angular/cli",), ("angular.json", "{\n"), "angular.json cannot be used"
    ),
    Case(
        "webpack",
        "webpack",
        "web",
        ("webpack-dev-server", "webpack"),
        ("webpack.config.js", THROW),
        "webpack.config fails to load",
    ),
    Case(
        "storybook",
        "storybook",
        "storybook",
        ("storybook",),
        (".storybook/main.js", THROW),
        ".storybook/main fails to load",
        path="/index.json",
        text="Button",
    ),
    Case(
        "django",
        "django",
        "api",
        ("django",),
        ("site_settings.py", "DEBUG = False\nSECRET_KEY = 'x'\n"),
        "ALLOWED_HOSTS is empty while DEBUG is off",
        python=True,
        edit="site_settings.py",
    ),
    Case(
        "flask",
        "flask",
        "api",
        ("flask",),
        ("app.py", "import gone\n\nFlask(gone)\n"),
        NO_MODULE,
        python=True,
        edit="app.py",
    ),
    Case(
        "fastapi",
        "fastapi",
        "api",
        ("fastapi", "fastapi-cli", "uvicorn"),
        ("main.py", "import gone\n\nFastAPI(gone)\n"),
        NO_MODULE,
        python=True,
        edit="main.py",
    ),
    Case(
        "uvicorn",
        "uvicorn",
        "api",
        ("uvicorn", "starlette"),
        # With `--reload` it waits for a better file: the start is not ready, and says why.
        ("main.py", "import gone\n\napp = Starlette(gone)\n"),
        NO_MODULE,
        python=True,
        edit="main.py",
    ),
)


@dataclass
class Seen:
    """What a run has seen of one kind, as cells of the table."""

    cells: dict[str, str] = field(default_factory=dict)


def missing(case: Case) -> str | None:
    """Return why ``case`` cannot be tried here, or None."""
    marker = VENV / ".installed" if case.python else FIXTURES / case.name / "node_modules" / ".installed"
    if not case.python and shutil.which("node") is None:
        return "Node.js is not installed"
    return None if marker.exists() else "not installed (`make test-kinds`)"


def lay_kind(name: str, folder: Path) -> Path:
    """
    Write the project of a kind anew into ``folder``, its installed packages linked file by file.

    What its tools have built there before goes, so that each test has a cold start.
    """
    source = FIXTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.name in {"node_modules", ".venv"}:
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    generated = shutil.ignore_patterns(
        "node_modules", ".nuxt", ".svelte-kit", ".astro", ".react-router", ".angular"
    )
    shutil.copytree(source, folder, ignore=generated, dirs_exist_ok=True)
    if (source / "node_modules").exists() and not (folder / "node_modules").exists():
        shutil.copytree(
            source / "node_modules", folder / "node_modules", symlinks=True, copy_function=link_file
        )
    if not (source / "package.json").exists() and not (folder / ".venv").exists():
        (folder / ".venv").symlink_to(VENV)
    return folder


def versions(case: Case) -> str:
    """Return the installed versions of the packages of a kind."""
    found = []
    for package in case.packages:
        if case.python:
            code = f"from importlib.metadata import version; print(version({package!r}))"
            out = subprocess.run(
                [str(VENV / "bin" / "python"), "-c", code], check=True, capture_output=True, text=True
            )
            found.append(f"{package} {out.stdout.strip()}")
        else:
            manifest = FIXTURES / case.name / "node_modules" / package / "package.json"
            found.append(f"{package} {json.loads(manifest.read_text())['version']}")
    return ", ".join(found)


COLUMNS = ("ready", "first answer", "processes", "stopped by", "port taken", "broken")


def write_table(seen: dict[str, Seen], cases: Sequence[Case]) -> None:
    """
    Write what was seen into docs/kinds.md.

    A kind that was not run, or that fell short, keeps its row while that tells of the versions installed;
    else the row says why there is none.
    """
    text = TABLE.read_text()
    before, _, rest = text.partition(BEGIN)
    kept, _, after = rest.partition(END)
    node = ""
    if shutil.which("node"):
        node = subprocess.run(
            ["node", "--version"], check=True, capture_output=True, text=True
        ).stdout.strip()
    lines = [
        f"{platform.system()}, Python {platform.python_version()}, Node.js {node or 'none'}.",
        "",
        f"| tried | versions | {' | '.join(COLUMNS)} |",
        f"|---|---|{'---|' * len(COLUMNS)}",
    ]
    for case in cases:
        why = missing(case)
        if why is not None:
            lines.append(f"| {case.name} | {why} |{' |' * len(COLUMNS)}")
            continue
        begin = f"| {case.name} | {versions(case)} |"
        cells = seen[case.name].cells if case.name in seen else {}
        old = next((line for line in kept.splitlines() if line.startswith(begin)), None)
        if set(COLUMNS) <= cells.keys() or old is None:
            old = f"{begin} {' | '.join(cells.get(column, 'not seen') for column in COLUMNS)} |"
        lines.append(old)
    TABLE.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + after)
