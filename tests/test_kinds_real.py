"""
Every other kind for real: started, asked, edited, stopped, met by a taken port and a broken file.

`make test-kinds` installs what is needed, runs this, and writes what it saw to docs/kinds.md.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devsup.apps.commands import plan
from tests.kinds_support import KINDS, Case, Seen, lay_kind, missing, write_table
from tests.real_support import LONG, PATIENCE, Real, by_hand, refused, serves
from tests.support import ROOT, fetch, free_port, is_listening, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Devsup, StandIn

pytestmark = [pytest.mark.kinds, pytest.mark.timeout(PATIENCE)]

BY_NAME = {case.name: case for case in KINDS}
ALL = pytest.mark.parametrize("case", KINDS, ids=[case.name for case in KINDS])

#: Tools that ask home; nothing of what is tried here depends on it.
QUIET = {
    "ASTRO_TELEMETRY_DISABLED": "1",
    "NG_CLI_ANALYTICS": "false",
    "NUXT_TELEMETRY_DISABLED": "1",
    "STORYBOOK_DISABLE_TELEMETRY": "1",
}


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """Give the folder of the copies, which the tests share: copying packages takes seconds."""
    above = ROOT / ".test-apps"  # inside the tree: only on one file system can files be linked
    above.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="k-", dir=above))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Seen]]:
    """Collect what is seen; it is written down only for `make test-kinds`."""
    found: dict[str, Seen] = {}
    yield found
    if os.environ.get("DEVSUP_KINDS_TABLE"):
        write_table(found, KINDS)


@pytest.fixture
def cells(case: Case, seen: dict[str, Seen]) -> dict[str, str]:
    """Give the row of this kind, or skip the test where it is not installed."""
    if (why := missing(case)) is not None:
        pytest.skip(why)
    return seen.setdefault(case.name, Seen()).cells


@pytest.fixture
def real(
    case: Case,
    cells: dict[str, str],
    base: Path,
    devsup: Devsup,
    home: Path,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Real:
    """Give the project of the kind, fresh."""
    del cells
    monkeypatch.setenv("TMPDIR", str(temporary))
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    return Real(devsup, home, _laid(case.name, base))


def _laid(name: str, base: Path) -> Path:
    folder = lay_kind(name, base / name)
    (folder / "devsup.toml").touch()
    return folder


@ALL
def test_from_start_to_stop(case: Case, real: Real, cells: dict[str, str]) -> None:
    port = free_port()
    answer = real.try_start(case.app, port=port)
    server = answer.data["server"]
    assert (server["state"], server["kind"], server["app"]) == ("ready", case.kind, case.app)
    assert (server["port"], answer.data["reused"], answer.notes) == (port, False, [])
    began = time.monotonic()
    status, text = fetch(f"{server['url']}{case.path}", timeout=LONG)
    took = time.monotonic() - began
    assert (status, case.said in text) == (200, True), text[:500]
    cells["ready"] = f"{answer.data['waited_ms'] / 1000:.1f} s"
    cells["first answer"] = f"{took:.2f} s"
    cells["processes"] = str(len(real.members(case.app)))

    (listed,) = real.listed()
    assert (listed["pid"], listed["state"], listed["url"]) == (server["pid"], "ready", server["url"])
    again = real.try_start(case.app).data
    assert (again["reused"], again["server"]["pid"]) == (True, server["pid"])

    if case.edit is not None:
        source = (real.folder / case.edit).read_text()
        real.put(case.edit, source.replace(case.said, "devsup-edited"))
        wait_until(lambda: _said(server["url"]) == "devsup-edited", LONG, pause=0.1)
        assert real.find(case.app)["pid"] == server["pid"]
        wait_until(lambda: real.find(case.app)["state"] == "ready", LONG, pause=0.1)

    result = real.stop(case.app)
    assert (result["outcome"], result["signals"], result["escalated"]) == ("stopped", ["SIGTERM"], False)
    assert (result["survivors"], result["left_running"], result["port_free"]) == ([], [], True)
    real.nothing_is_left(port)
    ended = result["server"]
    how = f"exit {ended['exit_code']}" if ended["signal"] is None else f"signal {ended['signal']}"
    cells["stopped by"] = f"SIGTERM, {result['ms'] / 1000:.1f} s, {how}"


def _said(url: object) -> str:
    try:
        _, text = fetch(str(url), timeout=LONG)
    except OSError:
        return ""  # between two of its processes
    return "devsup-edited" if "devsup-edited" in text else text


@ALL
def test_a_taken_port(case: Case, real: Real, cells: dict[str, str], stand_in: StandIn) -> None:
    """It is seen before; a server that is started all the same must not pass for one that serves."""
    port = free_port()
    stranger = stand_in("web", "--port", port)
    wait_until(lambda: is_listening(port), 20)
    error = refused(real.try_start(case.app, port=port), "port_taken", 4)
    assert error["details"]["holder"]["pid"] == stranger.pid
    real.nothing_was_started()

    made = plan(str(real.folder), str(real.folder), app=case.app, port=port)
    log = real.folder.parent / f"{case.name}.log"
    log.unlink(missing_ok=True)
    with by_hand(made.command, real.folder, log, env=made.env) as child:
        if case.moves:
            found = wait_until(lambda: _moved(log, port), LONG, pause=0.1)
            cells["port taken"] = f"moves to {'the next' if found == port + 1 else 'another'}"
            assert child.poll() is None
        else:
            code = child.wait(LONG)
            assert code != 0
            text = log.read_text(errors="replace")
            causes = [said for pattern, said in made.probe["failures"] if re.search(pattern, text)]
            assert causes[0] == "the port is already in use", text
            cells["port taken"] = f"ends, exit {code}"
    assert stranger.poll() is None


def _moved(log: Path, port: int) -> int | None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    ports = {int(found) for found in re.findall(r"Local:?\s+http://localhost:(\d+)", text)} - {port}
    return min(ports, default=None)


@ALL
def test_a_broken_file(case: Case, real: Real, cells: dict[str, str]) -> None:
    """Why it does not come up is said by the start itself, and nothing stays behind."""
    file, text = case.broken
    path = real.folder / file
    if text:
        path.write_text(text)
    else:
        path.unlink()
    port = free_port()
    waits = case.name == "uvicorn"
    answer = real.try_start(case.app, port=port, flags=["--timeout", 10] if waits else [])
    error = refused(answer, *(("not_ready", 6) if waits else ("exited_early", 5)))
    assert error["details"]["cause"] == case.cause, error["details"]["log_tail"]
    assert case.cause in error["message"]
    if waits:
        real.stop(case.app)
        cells["broken"] = f"waits: {case.cause}"
    else:
        cells["broken"] = f"exit {error['details']['exit_code']}: {case.cause}"
    real.nothing_stays(port)


# -- together ----------------------------------------------------------------------------------------------


@pytest.fixture
def shop(base: Path, devsup: Devsup, home: Path, monkeypatch: pytest.MonkeyPatch) -> Real:
    """Give a project with Vite, Storybook beside it, Astro and FastAPI."""
    for name in ("vite", "storybook", "astro", "fastapi"):
        if (why := missing(BY_NAME[name])) is not None:
            pytest.skip(why)
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    root = base / "shop"
    root.mkdir(exist_ok=True)
    (root / "devsup.toml").touch()
    lay_kind("vite", root / "apps" / "admin")
    lay_kind("storybook", root / "apps" / "ui")
    lay_kind("astro", root / "apps" / "docs")
    lay_kind("fastapi", root / "services" / "orders")
    return Real(devsup, home, root)


def test_several_kinds_in_one_project(shop: Real) -> None:
    """Each by its predictable name; one stop ends them all."""
    ports = {}
    for app, kind, path in (
        ("admin", "vite", "/"),
        ("docs", "astro", "/"),
        ("storybook", "storybook", "/index.json"),
        ("api", "fastapi", "/"),
    ):
        server = shop.start(app, port=free_port())
        assert (server["kind"], server["state"]) == (kind, "ready")
        ports[app] = server["port"]
        serves(server["url"], path)
    assert {one["app"] for one in shop.listed()} == set(ports)
    results = shop.devsup("stop", "--all", "--json").data["results"]
    assert [(one["outcome"], one["escalated"], one["port_free"]) for one in results] == [
        ("stopped", False, True)
    ] * 4
    shop.nothing_is_left(*ports.values())


@pytest.mark.parametrize(
    "words",
    [
        "uvicorn main:app",
        "python -m uvicorn main:app --reload",
        ".venv/bin/python -m uvicorn main:app",
        "uv run --no-sync uvicorn main:app --reload",
        "uv run --no-sync python -m uvicorn main:app",
    ],
)
def test_the_ways_to_run_a_python_server(
    words: str, base: Path, devsup: Devsup, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With reloader or without, directly or by a tool that runs it: known, told its port, ended whole."""
    if (why := missing(BY_NAME["fastapi"])) is not None:
        pytest.skip(why)
    real = Real(devsup, home, _laid("fastapi", base))
    monkeypatch.setenv("PATH", f"{real.folder}/.venv/bin:{os.environ['PATH']}")
    port = free_port()
    server = real.start("api", *words.split(), port=port)
    assert (server["kind"], server["port"]) == ("uvicorn", port)
    assert "devsup-kind-fastapi" in serves(server["url"])
    result = real.stop("api")
    assert (result["outcome"], result["escalated"], result["survivors"]) == ("stopped", False, [])
    real.nothing_is_left(port)
