"""The kinds beyond Next.js and Expo: what is found, how it is called, how it is run and told its port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devsup.apps import naming, python, scripts
from devsup.apps.checks import validate
from devsup.apps.commands import same_command
from devsup.apps.detect import choose, find_apps
from devsup.apps.manifest import Package
from devsup.apps.presets import KINDS
from devsup.errors import Ambiguous, MissingDependencies
from tests.apps_layouts import ENVIRON, EXPO, NEXT, Tree, lay, package, plan_of

if TYPE_CHECKING:
    from pathlib import Path

    from devsup.apps.commands import Plan

BIN = "node_modules/.bin"
VITE = package("vite", dev="vite")
STORYBOOK = {"storybook": "storybook dev -p 6006"}
FASTAPI: Tree = {
    "pyproject.toml": '[project]\ndependencies = [\n  "fastapi[standard]>=0.100",\n]\n',
    "main.py": "from fastapi import FastAPI\n\napp = FastAPI()\n",
}
DJANGO: Tree = {"manage.py": "from django.core.management import execute_from_command_line\n"}
FLASK: Tree = {"requirements.txt": "# web\nFlask==3.1\n", "app.py": "app = Flask(__name__)\n"}
UVICORN: Tree = {
    "requirements.txt": "fastapi\nuvicorn>=0.30\n",
    "app/main.py": "from fastapi import FastAPI\n\nserver: FastAPI = FastAPI(title='x')\n",
}
VENV: Tree = {
    f".venv/bin/{name}": "#!/bin/sh\n" for name in ("python", "flask", "fastapi", "uvicorn", "django-admin")
}


def below(folder: str, tree: Tree) -> Tree:
    return {f"{folder}/{name}": content for name, content in tree.items()}


def shown(found: Plan, root: Path) -> str:
    return " ".join(found.command).replace(f"{root}/", "")


# -- what a script runs -------------------------------------------------------------------------------------

SCRIPTS: list[tuple[str, str]] = [
    ("vite", "vite"),
    ("vite --host", "vite"),
    ("vite .", "vite"),
    ("vite dev", "vite"),
    ("tsc -b && vite", "vite"),
    ("vite && echo done", "vite"),
    ("NODE_ENV=development vite", "vite"),
    ("cross-env A=1 B=2 vite --open", "vite"),
    ("dotenv -e .env.local -- vite", "vite"),
    ("npx vite", "vite"),
    ("bunx --bun vite", "vite"),
    ('concurrently "vite" "tsc -w"', "vite"),
    ("vite build", "command"),
    ("vite preview", "command"),
    ("vite build --watch", "command"),
    ("echo vite", "command"),
    ("vitest", "command"),
    ("npm install vite", "command"),
    ("astro dev", "astro"),
    ("astro build", "command"),
    ("nuxt dev", "nuxt"),
    ("nuxi dev --host", "nuxt"),
    ("nuxt build", "command"),
    ("react-router dev", "react-router"),
    ("remix vite:dev", "react-router"),
    ("react-router build", "command"),
    ("storybook dev -p 6006", "storybook"),
    ("storybook build", "command"),
    ("ng serve", "angular"),
    ("ng build", "command"),
    ("webpack serve --mode development", "webpack"),
    ("webpack-dev-server --hot", "webpack"),
    ("webpack --watch", "command"),
    ("python manage.py runserver", "django"),
    ("python3 backend/manage.py runserver 8001", "django"),
    ("python manage.py migrate", "command"),
    ("flask --version", "command"),
    ("flask run --debug", "flask"),
    ("fastapi dev app/main.py", "fastapi"),
    ("fastapi run", "command"),
    ("uvicorn main:app --reload", "uvicorn"),
    ("uv run uvicorn --reload pkg.main:create_app --factory", "uvicorn"),
    ("pip install uvicorn && node .", "command"),
    ("uvicorn --help", "command"),
]


@pytest.mark.parametrize(("text", "kind"), SCRIPTS)
def test_a_script_runs(text: str, kind: str) -> None:
    one = Package(
        dir="/", name=None, scripts={"dev": text}, dependencies=frozenset(), manager=None, workspaces=None
    )
    assert scripts.kind_of(one, "dev").name == kind


# -- what is found, and its name ----------------------------------------------------------------------------

LAYOUTS: dict[str, tuple[Tree, set[tuple[str, str, str]]]] = {
    "vite": ({"package.json": VITE}, {(".", "web", "vite")}),
    "vite without a script": (
        {"package.json": package("vite"), "index.html": ""},
        {(".", "web", "vite")},
    ),
    "a library that is built by vite": (
        {"package.json": package("vite", dev="vite build --watch"), "index.html": ""},
        {(".", "shop", "command")},
    ),
    "vite behind a server of one's own": (
        {"package.json": package("vite", dev="node server.js"), "index.html": ""},
        {(".", "shop", "command")},
    ),
    "sveltekit is not plain vite": (
        {"package.json": package("@sveltejs/kit", "vite", dev="vite dev")},
        {(".", "web", "sveltekit")},
    ),
    "astro": ({"package.json": package("astro", "vite", dev="astro dev")}, {(".", "web", "astro")}),
    "nuxt": ({"package.json": package("nuxt", dev="nuxt dev")}, {(".", "web", "nuxt")}),
    "react router": (
        {"package.json": package("@react-router/dev", "vite", dev="react-router dev")},
        {(".", "web", "react-router")},
    ),
    "angular": ({"package.json": package("@angular/cli", start="ng serve")}, {(".", "web", "angular")}),
    "storybook alone": (
        {"package.json": package("storybook", **STORYBOOK)},
        {(".", "storybook", "storybook")},
    ),
    "storybook as the script of a library": (
        {"package.json": package("storybook", dev="storybook dev -p 6006")},
        {(".", "storybook", "storybook")},
    ),
    "storybook beside an app": (
        {"package.json": package("vite", "storybook", dev="vite", **STORYBOOK)},
        {(".", "web", "vite"), (".", "storybook", "storybook")},
    ),
    "storybook without a script": (
        {"package.json": package("next", "storybook", dev="next dev"), ".storybook/main.js": ""},
        {(".", "web", "next"), (".", "storybook", "storybook")},
    ),
    "a package of storybook's": (
        {"package.json": package("storybook", dev="tsup --watch")},
        {(".", "shop", "command")},
    ),
    "two storybooks": (
        {
            "ui/package.json": package("storybook", **STORYBOOK),
            "web/package.json": package("next", "storybook", dev="next dev", **STORYBOOK),
        },
        {("ui", "ui", "storybook"), ("web", "web", "next"), ("web", "web-storybook", "storybook")},
    ),
    "next keeps the name": (
        {"site/package.json": NEXT, "admin/package.json": VITE},
        {("site", "web", "next"), ("admin", "admin", "vite")},
    ),
    "two of another kind": (
        {"site/package.json": VITE, "admin/package.json": package("astro", dev="astro dev")},
        {("site", "site", "vite"), ("admin", "admin", "astro")},
    ),
    "two next and a vite": (
        {"a/package.json": NEXT, "b/package.json": NEXT, "c/package.json": VITE},
        {("a", "a", "next"), ("b", "b", "next"), ("c", "c", "vite")},
    ),
    "two servers in one package": (
        {"package.json": package("next", "expo", dev="next dev", start="expo start")},
        {(".", "web", "next"), (".", "mobile", "expo")},
    ),
    "fastapi": (FASTAPI, {(".", "api", "fastapi")}),
    "django": (DJANGO, {(".", "api", "django")}),
    "flask": (FLASK, {(".", "api", "flask")}),
    "uvicorn": (UVICORN, {(".", "api", "uvicorn")}),
    "poetry": (
        {"pyproject.toml": "[tool.poetry.dependencies]\nflask = '^3'\n", "wsgi.py": "app = create_app()\n"},
        {(".", "api", "flask")},
    ),
    "poetry with extras": (
        {
            "pyproject.toml": '[tool.poetry.dependencies]\nfastapi = {extras = ["standard"]}\n',
            "app/main.py": "api = FastAPI()\n",
        },
        {(".", "api", "fastapi")},
    ),
    "a python library": ({"pyproject.toml": 'dependencies = ["flask"]\n', "lib.py": "Flask(1)"}, set()),
    "a python project of no kind": ({"pyproject.toml": 'dependencies = ["rich"]\n', "main.py": ""}, set()),
    "django with a vite of its own": (
        {**DJANGO, "package.json": VITE},
        {(".", "web", "vite"), (".", "api", "django")},
    ),
    "django that a script runs": (
        {**DJANGO, "package.json": package(dev="python manage.py runserver")},
        {(".", "api", "django")},
    ),
    "a monorepo of many kinds": (
        {
            "package.json": package(workspaces=["apps/*"]),
            "apps/site/package.json": NEXT,
            "apps/phone/package.json": EXPO,
            "apps/admin/package.json": package("vite", "storybook", dev="vite", **STORYBOOK),
            "apps/docs/package.json": package("astro", dev="astro dev"),
            **below("services/orders", FASTAPI),
        },
        {
            ("apps/site", "web", "next"),
            ("apps/phone", "mobile", "expo"),
            ("apps/admin", "admin", "vite"),
            ("apps/admin", "storybook", "storybook"),
            ("apps/docs", "docs", "astro"),
            ("services/orders", "api", "fastapi"),
        },
    ),
    "two python services": (
        {**below("orders", FASTAPI), **below("users", FLASK)},
        {("orders", "orders", "fastapi"), ("users", "users", "flask")},
    ),
}


@pytest.mark.parametrize(("tree", "found"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_project_has_these_apps(temporary: Path, tree: Tree, found: set[tuple[str, str, str]]) -> None:
    """The same from everywhere: a name is a session."""
    root = lay(temporary / "shop", tree)
    for folder in {".", *(folder for folder, _, _ in found)}:
        apps = find_apps(str(root), str(root / folder))
        assert {(naming.label(str(root), app.dir), app.name, app.kind) for app in apps} == found


def test_a_broken_neighbour_that_only_uses_vite_renames_nothing(temporary: Path) -> None:
    broken = '{"devDependencies": {"vite": "8"} "scripts": {"build": "vite build"}}'
    root = lay(temporary, {"site/package.json": VITE, "lib/package.json": broken})
    assert [app.name for app in find_apps(str(root), str(root))] == ["web"]
    lay(root, {"lib/package.json": broken.replace("build", "dev")})
    assert [app.name for app in find_apps(str(root), str(root))] == ["site"]


# -- which one is meant -------------------------------------------------------------------------------------


def test_storybook_is_meant_by_its_name_only(temporary: Path) -> None:
    root = lay(
        temporary, {"site/package.json": package("vite", "storybook", dev="vite", **STORYBOOK), "other": None}
    )
    for folder in (".", "site", "other"):
        assert choose(str(root), str(root / folder)).kind == "vite"
        assert choose(str(root), str(root / folder), "storybook").kind == "storybook"


def test_of_two_apps_in_one_folder_one_must_be_named(temporary: Path) -> None:
    root = lay(temporary, {**DJANGO, "package.json": VITE})
    with pytest.raises(Ambiguous) as caught:
        choose(str(root), str(root))
    assert caught.value.message == "which app? Here are `web` (.) and `api` (.)"
    assert choose(str(root), str(root), "api").kind == "django"


def test_web_means_next_where_there_are_several(temporary: Path) -> None:
    root = lay(temporary, {"a/package.json": NEXT, "b/package.json": NEXT, "c/package.json": VITE, "d": None})
    with pytest.raises(Ambiguous) as caught:
        choose(str(root), str(root / "d"), "web")
    assert caught.value.message == "`web` could be any of `a` (a) and `b` (b)"
    root = lay(temporary / "x", {"a/package.json": VITE, "b/package.json": VITE})
    with pytest.raises(Ambiguous):
        choose(str(root), str(root), "web")
    assert choose(str(root), str(root / "b"), "web").name == "b"


# -- how it is run ------------------------------------------------------------------------------------------

# (tree, port asked for, command)
RUNS: dict[str, tuple[Tree, object, str]] = {
    "vite": ({"package.json": VITE}, None, f"{BIN}/vite --port 5173 --strictPort"),
    "vite, another port": ({"package.json": VITE}, 4000, f"{BIN}/vite --port 4000 --strictPort"),
    "vite, its own port": (
        {"package.json": package("vite", dev="vite --port 3000 --host")},
        None,
        f"{BIN}/vite --port 3000 --strictPort --host",
    ),
    "vite, strict already": (
        {"package.json": package("vite", dev="vite --strictPort --port 3000")},
        None,
        f"{BIN}/vite --port 3000 --strictPort",
    ),
    "vite, in a chain": (
        {"package.json": package("vite", dev="tsc -b && vite")},
        None,
        "npm run dev -- --port 5173 --strictPort",
    ),
    "vite, in a chain with its own port": (
        {"package.json": package("vite", dev="tsc -b && vite --port 3000")},
        None,
        "npm run dev -- --port 3000 --strictPort",
    ),
    "vite, in a chain and strict": (
        {"package.json": package("vite", dev="tsc -b && vite --port 3000 --strictPort")},
        None,
        "npm run dev",
    ),
    "vite, beside another": (
        {"package.json": package("vite", dev='concurrently "vite" "tsc -w"')},
        None,
        "npm run dev",
    ),
    "vite, a build": (
        {"package.json": package("vite", dev="vite build --watch")},
        None,
        "npm run dev",
    ),
    "sveltekit": (
        {"package.json": package("@sveltejs/kit", dev="vite dev")},
        None,
        f"{BIN}/vite dev --port 5173 --strictPort",
    ),
    "react router": (
        {"package.json": package("@react-router/dev", dev="react-router dev")},
        None,
        f"{BIN}/react-router dev --port 5173 --strictPort",
    ),
    "remix": (
        {"package.json": package("@remix-run/dev", dev="remix vite:dev")},
        None,
        f"{BIN}/remix vite:dev --port 5173 --strictPort",
    ),
    "astro": ({"package.json": package("astro", dev="astro dev")}, None, f"{BIN}/astro dev --port 4321"),
    "astro, behind a variable": (
        {"package.json": package("astro", dev="A=1 astro dev")},
        None,
        "npm run dev -- --port 4321",
    ),
    "astro, behind a variable with its own port": (
        {"package.json": package("astro", dev="A=1 astro dev --port 3000")},
        None,
        "npm run dev",
    ),
    "nuxt": ({"package.json": package("nuxt", dev="nuxt dev")}, None, f"{BIN}/nuxt dev --port 3000"),
    "angular": ({"package.json": package("x", start="ng serve")}, None, f"{BIN}/ng serve --port 4200"),
    "webpack": (
        {"package.json": package("x", start="webpack serve --hot")},
        None,
        f"{BIN}/webpack serve --hot --port 8080",
    ),
    "storybook": (
        {"package.json": package("storybook", **STORYBOOK)},
        None,
        f"{BIN}/storybook dev --port 6006 --exact-port",
    ),
    "django": ({**DJANGO, **VENV}, None, ".venv/bin/python manage.py runserver 8000"),
    "django without an environment": (DJANGO, 8001, "python3 manage.py runserver 8001"),
    "django by uv": ({**DJANGO, "uv.lock": ""}, None, "uv run python3 manage.py runserver 8000"),
    "django, by a script": (
        {"package.json": package(dev="python manage.py runserver 0.0.0.0:8001")},
        None,
        "npm run dev",
    ),
    "django, by a script without a port": (
        {"package.json": package(dev="python manage.py runserver")},
        None,
        "npm run dev -- 8000",
    ),
    "flask": ({**FLASK, **VENV}, None, ".venv/bin/flask run --debug --port 5000"),
    "flask by poetry": ({**FLASK, "poetry.lock": ""}, None, "poetry run flask run --debug --port 5000"),
    "fastapi": ({**FASTAPI, **VENV}, 8080, ".venv/bin/fastapi dev --port 8080"),
    "fastapi by uv": ({**FASTAPI, "uv.lock": ""}, None, "uv run fastapi dev --port 8000"),
    "uvicorn": ({**UVICORN, **VENV}, None, ".venv/bin/uvicorn app.main:server --reload --port 8000"),
}


@pytest.mark.parametrize(("tree", "port", "command"), RUNS.values(), ids=RUNS)
def test_an_app_is_run_like_this(temporary: Path, tree: Tree, port: object, command: str) -> None:
    root = lay(temporary, tree)
    found = plan_of(root, port=port)
    assert shown(found, root) == command
    assert found.notes == []
    assert found.cwd == str(root)


def test_a_script_that_cannot_be_told_its_port_says_so(temporary: Path) -> None:
    root = lay(temporary, {"package.json": package("vite", dev='concurrently "vite" "tsc -w"')})
    found = plan_of(root, port=4000)
    assert (shown(found, root), found.port) == ("npm run dev", 5173)
    assert found.notes == ["the command cannot be told its port from here: `--port 4000` has no effect"]


@pytest.mark.parametrize(
    ("words", "kind", "command"),
    [
        ("manage.py runserver", "django", "manage.py runserver 8000"),
        ("python manage.py runserver", "django", ".venv/bin/python manage.py runserver 8000"),
        ("python3.11 -W e manage.py runserver", "django", ".venv/bin/python -W e manage.py runserver 8000"),
        ("python manage.py runserver 0:9000", "django", ".venv/bin/python manage.py runserver 0:9000"),
        ("python manage.py runserver -v 2", "django", ".venv/bin/python manage.py runserver -v 2 8000"),
        ("python manage.py migrate", "command", "python manage.py migrate"),
        (".venv/bin/python manage.py runserver", "django", ".venv/bin/python manage.py runserver 8000"),
        ("uv run manage.py runserver", "django", "uv run manage.py runserver 8000"),
        ("uv run -q python manage.py runserver", "django", "uv run -q python manage.py runserver 8000"),
        ("django-admin runserver", "django", ".venv/bin/django-admin runserver 8000"),
        ("flask run", "flask", ".venv/bin/flask run --port 5000"),
        ("python -m flask run -p 5001", "flask", ".venv/bin/python -m flask run --port 5001"),
        ("poetry run flask run", "flask", "poetry run flask run --port 5000"),
        ("fastapi dev app/main.py", "fastapi", ".venv/bin/fastapi dev app/main.py --port 8000"),
        ("fastapi run", "command", "fastapi run"),
        ("uvicorn main:app", "uvicorn", ".venv/bin/uvicorn main:app --port 8000"),
        ("python -m uvicorn main:app --port 9", "uvicorn", ".venv/bin/python -m uvicorn main:app --port 9"),
        ("uv run --with x -m uvicorn a:b", "uvicorn", "uv run --with x -m uvicorn a:b --port 8000"),
        ("uv run --script x.py", "command", "uv run --script x.py"),
        ("pipenv run uvicorn main:app", "uvicorn", "pipenv run uvicorn main:app --port 8000"),
        ("uvicorn --version", "command", "uvicorn --version"),
        ("python -m http.server 8000", "command", "python -m http.server 8000"),
        ("python -m", "command", "python -m"),
        ("uv run", "command", "uv run"),
        ("npx vite", "vite", f"{BIN}/vite --port 5173 --strictPort"),
        ("npx vite app", "command", "npx vite app"),
        ("npx vite ./app --port 1234 --strictPort", "vite", f"{BIN}/vite ./app --port 1234 --strictPort"),
        ("npx astro dev", "astro", f"{BIN}/astro dev --port 4321"),
        ("npx storybook dev -p 6007 --ci", "storybook", f"{BIN}/storybook dev --port 6007 --exact-port --ci"),
        ("npx ng serve admin", "angular", f"{BIN}/ng serve admin --port 4200"),
    ],
)  # fmt: skip
def test_a_typed_command_is(temporary: Path, words: str, kind: str, command: str) -> None:
    root = lay(temporary, {**VENV, "package.json": package(), "app": None})
    found = plan_of(root, ".", *words.split())
    assert (found.kind, shown(found, root)) == (kind, command)


def test_what_is_typed_is_the_app_where_it_is_its_command(temporary: Path) -> None:
    root = lay(temporary, {**DJANGO, **VENV})
    own = plan_of(root)
    typed = plan_of(root, ".", "python", "manage.py", "runserver", "9000")
    assert (typed.app, typed.session) == (own.app, own.session) == ("api", "dev_server_api")
    assert same_command("django", own.command, typed.command)
    other = plan_of(root, ".", "python", "manage.py", "runserver", "0.0.0.0:9000")
    assert other.port == 9000
    root = lay(temporary / "x", {"package.json": package("@sveltejs/kit", dev="vite dev")})
    own, typed = plan_of(root), plan_of(root, ".", "npx", "vite", "dev", "--port", "4000")
    assert (typed.app, typed.kind) == (own.app, own.kind) == ("web", "sveltekit")
    assert same_command("sveltekit", own.command, typed.command)


def test_a_python_app_runs_in_its_environment(temporary: Path) -> None:
    root = lay(temporary, {**VENV, **below("api", FASTAPI)})
    found = plan_of(root, environ={"PATH": "/bin", "VIRTUAL_ENV": "/other", "PYTHONUNBUFFERED": ""})
    assert shown(found, root) == ".venv/bin/fastapi dev --port 8000"
    assert found.env == {
        "BROWSER": "none",
        "PATH": f"{root}/.venv/bin:/bin",
        "VIRTUAL_ENV": f"{root}/.venv",
    }
    found = plan_of(root, environ={"PATH": "/bin"}, env={"VIRTUAL_ENV": "/mine"})
    assert found.env["VIRTUAL_ENV"] == "/mine"
    assert found.env["PYTHONUNBUFFERED"] == "1"
    lay(root, below("api", VENV))
    assert shown(plan_of(root), root) == "api/.venv/bin/fastapi dev --port 8000"


@pytest.mark.parametrize(
    ("tree", "program", "install"),
    [
        (FLASK, "flask", "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"),
        (FASTAPI, "fastapi", "python3 -m venv .venv && .venv/bin/pip install -e ."),
        ({**FLASK, ".venv/bin/python": ""}, "flask", ".venv/bin/pip install -r requirements.txt"),
        ({**FLASK, "uv.lock": "", ".venv/bin/python": ""}, "flask", "uv sync"),
        ({**FLASK, "poetry.lock": "", "venv/bin/python": ""}, "flask", "poetry install"),
    ],
)
def test_packages_that_are_not_installed(temporary: Path, tree: Tree, program: str, install: str) -> None:
    root = lay(temporary, tree)
    with pytest.raises(MissingDependencies) as caught:
        validate(plan_of(root, environ={"PATH": "/nowhere"}), {"PATH": "/nowhere"})
    assert caught.value.message.startswith(f"`{program}` is not installed for `{root}`")
    assert caught.value.hint == f"run `{install}` in {root}"


def test_the_port_of_a_kind_that_may_not_move_is_strict(temporary: Path) -> None:
    """Else the server that lost a race for its port would serve where nobody asked for it."""
    strict = {kind.name for kind in KINDS.values() if kind.strict}
    assert strict == {"vite", "sveltekit", "react-router", "storybook"}
    root = lay(temporary, {"package.json": VITE})
    found = plan_of(root, port="auto")
    assert found.with_port(12345).command[1:] == ["--port", "12345", "--strictPort"]


# -- Python projects ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("requirements.txt", "Flask\n", {"flask"}),
        ("requirements.txt", "x[a, B]==1 ; python_version > '3'\n", {"x", "x[a]", "x[b]"}),
        ("requirements.txt", "-r base.txt\n--index-url x\n# flask\n\ngit+https://x/y\n", {"git"}),
        ("pyproject.toml", 'dependencies = ["a>=1", \'flask\']\n', {"dependencies", "a", "flask"}),
        ("pyproject.toml", 'dependencies = [\n  "Django_Ninja~=1",\n]\n', {"dependencies", "django-ninja"}),
        ("pyproject.toml", "django = '>=5'\n", {"django"}),
        ("manage.py", "import django\n", {"django"}),
        ("manage.py", "print('mine')\n", set()),
    ],
)  # fmt: skip
def test_the_dependencies_of_a_python_project(temporary: Path, file: str, text: str, found: set[str]) -> None:
    lay(temporary, {file: text})
    project = python.read(str(temporary))
    assert project is not None
    assert project.dependencies == found


def test_files_that_no_editor_writes(temporary: Path) -> None:
    """A folder, a fifo's worth of nothing, bytes: none of them may end a `start` of something else."""
    lay(temporary, {"requirements.txt/x": "", "pyproject.toml": "", "web/package.json": VITE})
    (temporary / "pyproject.toml").write_bytes(b"\xff\xfe[[[=\"'\n" * 100)
    assert plan_of(temporary).kind == "vite"
    assert ENVIRON


def test_the_entry_of_an_app_is_where_it_is_made(temporary: Path) -> None:
    lay(temporary, {"main.py": "def make():\n    inner = FastAPI()\n", "app.py": "x = 1\nback = FastAPI()\n"})
    assert python.entry_of(str(temporary), KINDS["fastapi"]) == "main:app"
    (temporary / "main.py").unlink()
    assert python.entry_of(str(temporary), KINDS["fastapi"]) == "app:back"
    assert python.entry_of(str(temporary), KINDS["django"]) is None
