"""Imports point down, and what must be light loads little."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import devsup
from devsup import errors, models
from devsup.cli import lane
from tests.support import ROOT, free_port, server_argv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import Devsup

PACKAGE = ROOT / "devsup"
#: As drawn at the top of the package, from the top down.
LAYERS = re.findall(r"\w+", re.findall(r"demo(?:.|\n)*records", devsup.__doc__ or "")[0])


def imports(node: ast.AST) -> Iterator[str]:
    """Give the modules of devsup that code below ``node`` imports when it runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue  # for a type checker, an arrow up costs nothing and breaks nothing
        if isinstance(child, ast.Import):
            yield from (name.name for name in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports hide their arrow"
            # `from devsup import x` is an import of `devsup.x`.
            yield from (f"{child.module}.{name.name}" for name in child.names)
        yield from imports(child)


def modules() -> list[tuple[str, Path]]:
    """Return every source of the package with its layer."""
    return [
        (path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path)
        for path in sorted(PACKAGE.rglob("*.py"))
    ]


def test_every_module_has_a_layer() -> None:
    assert {layer for layer, _ in modules()} - {"__init__"} == set(LAYERS)


def test_imports_point_down() -> None:
    """A module may import from its own layer or a lower one, and from the package its version alone."""
    for layer, path in modules():
        if layer == "__init__":
            continue
        for name in imports(ast.parse(path.read_text())):
            package, _, rest = name.partition(".")
            if package != "devsup" or rest == "__version__":
                continue
            target = rest.partition(".")[0]
            assert target in LAYERS, f"{path} imports {name}"
            assert LAYERS.index(layer) <= LAYERS.index(target), f"{path} imports {name}"


# -- weight --------------------------------------------------------------------------------------------

#: Prints what running ARGV has loaded beyond what the interpreter starts with.
LOADED = """
import sys
before = set(sys.modules)
from devsup.__main__ import main
code = main(sys.argv[1:])
print(*sorted(set(sys.modules) - before), file=sys.stderr)
raise SystemExit(code)
"""


def loaded(argv: list[str], cwd: Path) -> tuple[set[str], set[str]]:
    """Return which modules a call loads in a fresh interpreter: devsup's, and the public others."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *argv], capture_output=True, text=True, check=False, cwd=cwd
    )
    names = set(done.stderr.splitlines()[-1].split())
    own = {name for name in names if name.partition(".")[0] == "devsup"}
    assert "devsup.__main__" in own, done.stderr
    return own, {name.partition(".")[0] for name in names - own if not name.startswith("_")}


#: What a call may do without, by verb: each module counts where agents call dozens of times an hour.
WITHOUT = {
    "list": "apps.detect guard logs ports supervisor.start supervisor.stop shutdown",
    "status": "apps.detect guard logs supervisor.start supervisor.stop shutdown",
    "url": "apps.detect guard logs supervisor.start supervisor.stop shutdown",
    "logs": "apps.detect guard logs.errors logs.grep supervisor.start supervisor.stop shutdown",
    "wait": "apps.detect guard.loop logs supervisor.start supervisor.stop shutdown",
    "stop": "apps.detect supervisor.start logs",
    "start": "supervisor.stop shutdown",
    "restart": "supervisor.start",
    "version": "registry supervisor",
}

#: What a start may do without that finds its server, as most do.
FOUND = "bounds guard locks logs ports supervisor.making supervisor.preflight supervisor.ready tree"

#: What reads and checks a configuration; only for a file that has changed.
CHECKERS = {"devsup.config.check", "devsup.config.model", "devsup.config.values", "devsup.config.lines"}


def test_the_hot_lane_loads_what_its_list_allows(devsup: Devsup, project: Path) -> None:
    """Typer, Rich, pydantic and their like cost more than all that a plain call does."""
    start = ["start", "web", "--json", "--", *server_argv("web", "--port", free_port())]
    targeted = [[verb, "web"] for verb in ("status", "url", "logs", "wait", "restart", "stop")]
    for argv in (["list"], start, start, ["list"], ["version"], *targeted, ["stop", "nope"]):
        for flag in ([], ["--json"]):
            own, others = loaded([*flag, *argv], project)
            assert others <= (lane.ALLOWED if "--json" in flag + argv else lane.ALLOWED_FOR_TEXT), argv
            assert not {"devsup.cli.app", "devsup.cli.screen"} & own
            assert not {f"devsup.{name}" for name in WITHOUT[argv[0]].split()} & own, argv
    assert devsup("list", "--json").data["servers"] == []


def test_a_start_that_finds_its_server_loads_nothing_to_make_one(devsup: Devsup, project: Path) -> None:
    start = ["start", "web", "--json", "--", *server_argv("web", "--port", free_port())]
    assert "devsup.supervisor.making" in loaded(start, project)[0]
    own, _ = loaded(start, project)
    assert not {f"devsup.{name}" for name in FOUND.split()} & own
    assert devsup("stop", "web").code == 0


def test_a_configuration_is_paid_for_once(devsup: Devsup, project: Path) -> None:
    """The second call, and all that follow, load neither tomllib nor pydantic."""
    file = project / "devsup.toml"
    port = free_port()
    file.write_text(
        f'[apps.web]\ncommand = {json.dumps(server_argv("web"))}\nport = {port}\nttl = "1h"\nenv.A = "1"\n'
    )
    (project / "pyproject.toml").write_text('[project]\nname = "devsup-shop"\n')
    time.sleep(0.05)  # a file that has just changed is not remembered
    assert "devsup.config.check" in loaded(["start", "web", "--json"], project)[0]
    for argv in (
        ["start", "web"],
        ["start"],
        ["list"],
        ["status", "web"],
        ["restart", "web"],
        ["stop", "web"],
    ):
        own, others = loaded([*argv, "--json"], project)
        assert others <= lane.ALLOWED, argv
        assert not CHECKERS & own, argv
        if argv[0] in ("list", "status", "stop"):
            assert not {name for name in own if name.startswith("devsup.config")}, argv
    assert devsup("start", "web", "--json").code == 0
    file.write_text(file.read_text().replace("1h", "2h"))
    assert "devsup.config.check" in loaded(["start", "web", "--json"], project)[0]
    assert devsup("stop", "web").code == 0


#: What a guard may load: what runs beside every server for as long as that lives is counted in megabytes.
#: (`os` and what it needs are loaded by an interpreter that runs `site`, which a guard does not.)
GUARD = lane.ALLOWED | {"ctypes", "datetime", "genericpath", "os", "posixpath", "sqlite3", "stat", "struct"}


def test_a_guard_loads_little_and_everything_before_it_is_needed() -> None:
    code = (
        "import sys; before = set(sys.modules); sys.path.append(sys.argv[1]); "
        "import devsup.guard.beginning, devsup.guard.loop;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT)], capture_output=True, text=True, check=True
    )
    names = set(done.stdout.split())
    # Private modules differ between Pythons; what is public does not.
    others = {name.partition(".")[0] for name in names if not name.startswith("_")}
    assert others - {"devsup"} <= GUARD
    assert (
        not {f"devsup.{layer}" for layer in ("cli", "supervisor", "apps", "logs", "locks", "ports")} & names
    )


# -- the public names ----------------------------------------------------------------------------------


def test_the_package_costs_nothing_until_it_is_used() -> None:
    code = "import sys, devsup; print(*[name for name in sys.modules if name.startswith('devsup')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["devsup"]


def test_no_statement_has_numbered_parameters() -> None:
    """Python 3.12.0 to 3.12.3, which Ubuntu 24.04 has, warns of each (python/cpython#117995)."""
    numbered = re.compile(r"[ (]\?\d")
    for name, path in modules():
        texts = (
            node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)
        )
        found = [text for text in texts if isinstance(text, str) and numbered.search(text)]
        assert not found, (name, found)


def test_the_public_names_are_what_their_modules_define() -> None:
    for name in devsup.__all__:
        assert getattr(devsup, name) is not None
    assert devsup.Supervisor.__module__.startswith("devsup.supervisor")
    assert set(errors.__all__) <= set(devsup.__all__)
    assert devsup.Server is models.Server
    assert set(devsup.__all__) == set(dir(devsup))
    with pytest.raises(AttributeError, match="no `nope`"):
        devsup.nope  # noqa: B018 - the look itself is what is tested
