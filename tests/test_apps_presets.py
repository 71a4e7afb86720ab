"""The data of each kind: what its servers say when they fail, and what they say when they do not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from devsup import system
from devsup.apps import commands, processes, scripts
from devsup.apps.presets import KINDS, SERVERS, Kind
from tests.support import ROOT

BUSY = "the port is already in use"
MISSING = "a module cannot be found: a package is not installed, or a path is wrong"
NOT_THERE = "a program that the command needs is not installed"
RESERVED = ROOT / "examples/web/node_modules/next/dist/lib/helpers/get-reserved-port.js"

# (kind, what it printed, cause)
FAILURES: list[tuple[str, str, str]] = [
    ("next", " ⨯ Failed to start server\nError: listen EADDRINUSE: address already in use :::3000", BUSY),
    (
        "next",
        "⨯ Failed to start server\nError: listen EACCES: permission denied 0.0.0.0:80",
        "the port may not be used: permission denied",
    ),
    (
        "next",
        "✓ Ready in 1s\n⨯ Another next dev server is already running.",
        "another Next.js dev server runs in this folder",
    ),
    (
        "next",
        "⨯ Unable to acquire lock at /x/.next/dev/lock, is another instance of next dev running?",
        "another Next.js dev server runs in this folder",
    ),
    (
        "next",
        "✓ Ready in 9ms\n⨯ Failed to load next.config.mjs, see more info here https://x",
        "next.config fails to load",
    ),
    (
        "next",
        "Error: > Couldn't find any `pages` or `app` directory. Please create one",
        "there is no `app` or `pages` folder",
    ),
    ("next", 'Bad port: "6000" is reserved for x11', "Next.js refuses this port"),
    (
        "next",
        'You are using Node.js 16.1.0. For Next.js, Node.js version ">=20.9.0" is required.',
        "this version of Node.js is too old for this Next.js",
    ),
    ("next", "⨯ Failed to start server\nError: whatever", "Next.js could not start its server"),
    ("next", "> web@1.0.0 dev\n> next dev\n\nsh: 1: next: not found\n", NOT_THERE),
    ("expo", "sh: line 1: expo: command not found", NOT_THERE),
    (
        "expo",
        "Input is required, but 'npx expo' is in non-interactive mode.\n› Skipping dev server",
        BUSY,
    ),
    (
        "expo",
        "Error: GetEnv.NoBoolean:  is not a boolean.",
        "a variable of the environment (`CI`, `EXPO_...`) is neither true nor false",
    ),
    ("expo", "JsonFileError: Error parsing JSON: {\n├─ File: /x/app.json", "app.json is not valid JSON"),
    (
        "expo",
        "ConfigError: The expected package.json path: /x/package.json does not exist",
        "the app's config (app.json, app.config) cannot be used",
    ),
    ("expo", "Error: boom\n    at Object.<anonymous> (/x/metro.config.js:3:7)", "metro.config fails to load"),
    (
        "expo",
        "unknown or unexpected option: --nope",
        "the command has an option that its program does not know",
    ),
    ("metro", "Error: listen EADDRINUSE: address already in use :::8081", BUSY),
    (
        "metro",
        "⚠️ react-native depends on @react-native-community/cli for cli commands.",
        "`@react-native-community/cli` is not installed",
    ),
    ("command", "OSError: [Errno 98] Address already in use", BUSY),
    ("command", "Error: Port 5173 is already in use", BUSY),
    ("command", "bash: nope: command not found", NOT_THERE),
    ("command", "zsh: command not found: nope", NOT_THERE),
    ("command", "/bin/sh: 1: nope: not found", NOT_THERE),
    ("command", "/usr/bin/env: 'nope': No such file or directory", NOT_THERE),
    ("command", 'npm error Missing script: "nope"', "package.json has no such script"),
    ("command", 'error Command "nope" not found.', "package.json has no such script"),
    ("command", " ERR_PNPM_NO_SCRIPT  Missing script: nope", "package.json has no such script"),
    (
        "command",
        "Error: Cannot find module 'express'",
        "a module cannot be found: a package is not installed, or a path is wrong",
    ),
    (
        "command",
        "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'x' imported from /y",
        "a module cannot be found: a package is not installed, or a path is wrong",
    ),
    (
        "command",
        "Error: ENOSPC: System limit for number of file watchers reached, watch '/x'",
        "the system's limit on watched files is reached (fs.inotify.max_user_watches)",
    ),
    (
        "command",
        "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
        "Node.js ran out of memory",
    ),
    (
        "command",
        "Error: EACCES: permission denied, open '/x'",
        "a file or port may not be used: permission denied",
    ),
    ("next", "error: unknown option '--nope'", "the command has an option that its program does not know"),
]

FAILURES += [
    ("vite", "error when starting dev server:\nError: Port 5173 is already in use\n    at x", BUSY),
    (
        "vite",
        "failed to load config from /x/vite.config.js\nerror when starting",
        "vite.config fails to load",
    ),
    (
        "sveltekit",
        "Error: boom\n    at file:///x/svelte.config.js?ts=1795982294242:1:7",
        "svelte.config.js fails to load",
    ),
    (
        "react-router",
        'Error: Could not find a root route module in the app directory as "app/root.tsx"',
        "there is no `app/root` module",
    ),
    ("react-router", 'Error: Missing "root" route file in /x/app', "there is no `app/root` module"),
    ("astro", "[config] Astro found issue(s) with your configuration:", "astro.config cannot be used"),
    ("astro", "boom\n  Stack trace:\n    at /x/astro.config.mjs:1:18", "astro.config fails to load"),
    ("nuxt", " ERROR  ParseError: Unexpected token\n /x/nuxt.config.ts:1:16", "nuxt.config fails to load"),
    (
        "react-router",
        'Error: Route config in "routes.js" is invalid.\n\nError: boom',
        "app/routes cannot be used",
    ),
    ("angular", "Port 4200 is already in use. Use '--port' to specify a different port.", BUSY),
    (
        "angular",
        "Workspace config file cannot be loaded: /x/angular.json\nUnknown format",
        "angular.json cannot be used",
    ),
    (
        "angular",
        "Error: This command is not available when running the Angular CLI outside a workspace.",
        "there is no angular.json",
    ),
    (
        "angular",
        "Application bundle generation failed. [5.504 seconds] - 2026-11-29T19:59:08.488Z",
        "the app cannot be built: its port opens when that is corrected",
    ),
    ("webpack", "[webpack-cli] Failed to load '/x/webpack.config.js' config", "webpack.config fails to load"),
    (
        "webpack",
        "[webpack-cli] Invalid configuration object. Webpack has been initialized",
        "webpack.config has an option that is not known",
    ),
    ("webpack", "    at Server.start {\n  code: 'EADDRINUSE',\n  errno: -98", BUSY),
    ("storybook", "■  Port 6006 is not available. Exiting because --exact-port was\n│  provided.", BUSY),
    (
        "storybook",
        "■  SB_CORE-SERVER_0006 (MainFileMissingError): No configuration files\n│  have been found",
        "there is no `.storybook/main`",
    ),
    (
        "storybook",
        "■  SB_CORE-SERVER_0007 (MainFileEvaluationError): Storybook couldn't",
        ".storybook/main fails to load",
    ),
    ("django", "System check identified no issues (0 silenced).\nError: That port is already in use.", BUSY),
    (
        "django",
        "CommandError: You must set settings.ALLOWED_HOSTS if DEBUG is False.",
        "ALLOWED_HOSTS is empty while DEBUG is off",
    ),
    (
        "django",
        "django.core.exceptions.ImproperlyConfigured: The SECRET_KEY setting must not be empty.",
        "the settings of Django cannot be used",
    ),
    (
        "django",
        "Traceback (most recent call last):\nSyntaxError: '(' was never closed",
        "a file is not valid Python",
    ),
    ("django", "/usr/bin/python3: No module named django", MISSING),
    ("flask", "Address already in use\nPort 5000 is in use by another program. Either identify", BUSY),
    (
        "flask",
        "Error: Could not locate a Flask application. Use the 'flask --app' option",
        "no Flask app is where it is looked for (`--app`, FLASK_APP)",
    ),
    (
        "flask",
        "Error: While importing 'app', an ImportError was raised:\n\nModuleNotFoundError: No x",
        MISSING,
    ),
    (
        "fastapi",
        "    Could not find a default file to run, please provide an explicit path",
        "no FastAPI app is where it is looked for",
    ),
    ("fastapi", "│ ❱ 1 import gone │\nModuleNotFoundError: No module named 'gone'", MISSING),
    ("uvicorn", "ERROR:    [Errno 98] Address already in use", BUSY),
    (
        "uvicorn",
        'ERROR:    Error loading ASGI app. Could not import module "main".',
        "the app cannot be loaded from where the command says",
    ),
    (
        "uvicorn",
        "ERROR:    Traceback (most recent call last):\nboom\n\nERROR:    Application startup failed.",
        "the app failed in its own start-up",
    ),
    (
        "uvicorn",
        "    raise ValueError\nValueError: boom",
        "a Python exception ended it: the end of the log has it",
    ),
]

#: What servers print when all is well, or when only the page is broken.
HEALTHY: list[tuple[str, str]] = [
    (
        "next",
        "▲ Next.js 16.4.5 (Turbopack)\n✓ Ready in 285ms\n✓ Running next.config.mjs took 18ms",
    ),
    (
        "next",
        "   ▲ Next.js 15.5.28\n\n ✓ Starting...\n ✓ Ready in 661ms\n ✓ Compiled / in 2.7s",
    ),
    ("next", "ready - started server on 0.0.0.0:3000, url: http://localhost:3000"),
    ("next", "⨯ Error: boom\n    at Page (app/page.jsx:1:53)\n GET / 500 in 292ms"),
    ("next", "⚠ Found a change in next.config.mjs. Restarting the server to apply the changes..."),
    ("next", "> web@1.0.0 dev\n> next dev\n\nnpm warn deprecated x@1: not found useful"),
    (
        "expo",
        "Starting project at /x\nStarting Metro Bundler\n\nWaiting on http://localhost:8081\n",
    ),
    ("expo", 'iOS Bundling failed 479ms index.js (1 module)\nUnable to resolve "x" from "App.js"'),
    ("metro", "Welcome to Metro v0.83\nmetro.config.js was read"),
    ("command", "INFO:     Uvicorn running on http://127.0.0.1:8000"),
    ("uvicorn", "INFO:     Uvicorn running on http://127.0.0.1:8000 (Press CTRL+C to quit)"),
    ("vite", "  VITE v8.4.0  ready in 1103 ms\n\n  ➜  Local:   http://localhost:5173/"),
    (
        "angular",
        "Application bundle generation complete. [6.818 seconds]\n  ➜  Local:   http://localhost:4200/",
    ),
    ("nuxt", "●  Nuxt 4.4.2 (with Nitro 2.13.6, Vite 7.3.8)\n  ➜ Local:    http://localhost:3000/"),
    ("django", "System check identified no issues (0 silenced).\nNot Found: /favicon.ico"),
    ("flask", " * Debugger is active!\n * Running on http://127.0.0.1:5000"),
    ("command", "GET /missing 404\n/favicon.ico: not found in 3ms"),
]


def cause(kind: str, log: str) -> str | None:
    for pattern, said in commands.probe(KINDS[kind], None)["failures"]:
        if re.search(pattern, log):
            return str(said)
    return None


@pytest.mark.parametrize(("kind", "log", "said"), FAILURES)
def test_a_failure_has_its_cause(kind: str, log: str, said: str) -> None:
    assert cause(kind, log) == said


@pytest.mark.parametrize(("kind", "log"), HEALTHY)
def test_a_healthy_log_has_none(kind: str, log: str) -> None:
    assert cause(kind, log) is None


def test_every_kind_is_complete() -> None:
    """The guard reads these: a typo would be a server that never becomes ready."""
    assert {kind.name for kind in SERVERS} == {
        *("next", "expo", "metro", "vite", "astro", "nuxt", "sveltekit", "react-router", "storybook"),
        *("angular", "webpack", "django", "flask", "fastapi", "uvicorn"),
    }
    for kind in SERVERS:
        assert KINDS[kind.name] is kind
        assert kind.role, "its only app in a project has this name"
        assert kind.dependencies
        assert kind.default_port not in {None, *kind.reserved_ports}
        assert kind.port_env or kind.port_by_flag or kind.port_is_argument, "else it cannot be told its port"
        assert kind.port_flags or kind.port_is_argument
        assert kind.http
        assert all(path.startswith("/") for path in kind.http)
        assert kind.failures
        for pattern, said in kind.failures:
            re.compile(pattern)
            assert said
        assert not (kind.strict and not kind.port_by_flag), "they go behind the flag"
        if kind.python:
            assert kind.entries
        else:
            assert kind.marks
        if kind.refines:
            assert KINDS[kind.refines].programs == kind.programs
            assert SERVERS.index(kind) < SERVERS.index(KINDS[kind.refines])


@pytest.mark.parametrize("kind", SERVERS, ids=[kind.name for kind in SERVERS])
def test_the_words_that_run_a_kind_are_recognised_as_it(kind: Kind) -> None:
    """What devsup itself starts is what it would take it for if somebody typed it."""
    words = ["main:app" if word == "{entry}" else word for word in kind.words if word]
    call = scripts.call_in(" ".join(words))
    assert call is not None
    assert call.kind.name == (kind.refines or kind.name)


@pytest.mark.parametrize("kind", SERVERS, ids=[kind.name for kind in SERVERS])
def test_a_process_is_called_by_the_kind_whose_program_it_runs(
    monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    for program in kind.programs:
        monkeypatch.setattr(system, "cmdline", lambda _pid, name=program: ["node", f"/x/bin/{name}"])
        assert processes.kind_of(1) == (kind.refines or kind.name)


@pytest.mark.real
def test_the_refused_ports_are_those_of_the_installed_next() -> None:
    listed = re.findall(r"^ +(\d+): '([^']+)'", RESERVED.read_text(), re.MULTILINE)
    assert {int(port): name for port, name in listed} == KINDS["next"].reserved_ports


def test_a_plan_loads_no_slow_module(temporary: Path) -> None:
    """Each costs milliseconds of every single start."""
    (temporary / "package.json").write_text('{"scripts": {"dev": "next dev"}, "workspaces": ["a/*"]}')
    code = (
        "import sys, json\n"
        "from devsup.apps import commands, project\n"
        "root = project.find_project('.')\n"
        "commands.plan(root, root, environ={'CI': '1'})\n"
        "commands.plan(root, root, command=['sleep', '1'], environ={})\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=temporary,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    slow = {
        *("typing", "pathlib", "dataclasses", "subprocess", "shlex", "shutil", "tempfile", "logging", "glob"),
        *("fnmatch", "socket", "contextlib", "pydantic", "typer", "rich", "psutil", "hashlib", "ctypes"),
    }
    assert slow.isdisjoint(json.loads(done.stdout))
