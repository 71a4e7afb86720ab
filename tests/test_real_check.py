"""An agent's episode on the real Next.js and Expo: start, break the build, check, mend, check, stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.real_support import PATIENCE, Copies, Real, copies, serves
from tests.support import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import Devsup

pytestmark = [pytest.mark.real, pytest.mark.timeout(PATIENCE)]

#: The smallest that shows a broken import: all of React Native would take a minute.
BUNDLE = "/App.bundle?platform=ios&dev=true&minify=false&shallow=true"


@pytest.fixture(scope="module")
def shared() -> Iterator[Copies]:
    with copies() as folders:
        yield folders


@pytest.fixture(autouse=True)
def temporary_files(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let caches that tools share between projects go with the test."""
    monkeypatch.setenv("TMPDIR", str(temporary))


def check(app: Real, name: str, *flags: object) -> tuple[int, dict[str, Any]]:
    """Return exit status and data; an answer an agent can afford."""
    answer = app.devsup("check", name, "--timeout", 90, *flags, "--json")
    assert len(answer.out) < 4096
    return answer.code, answer.json["data"]


@pytest.mark.parametrize(("folder", "column"), [("web", 13), ("next15", 1)])
def test_an_edit_of_a_page(shared: Copies, devsup: Devsup, home: Path, folder: str, column: int) -> None:
    app, name = Real(devsup, home, shared.renew(folder)), "web"
    port = free_port()
    server = app.start(name, port=port)
    code, data = check(app, name)
    assert (code, data["verdict"], data["new_errors"]) == (0, "ok", [])
    page = app.folder / "app" / "page.jsx"
    good = page.read_text()
    (app.folder / "app" / "deep.jsx").write_text(
        "export function Deep() {\n  const a = ;\n  return <b>x</b>;\n}\n"
    )
    page.write_text("import { Deep } from './deep';\nexport default function Page() { return <Deep />; }\n")
    code, data = check(app, name, "--after", data["next_cursor"])
    assert (code, data["verdict"], data["http"]["status"]) == (14, "broken", 500)
    errors = {(one["kind"], one["file"], one["line"], one["column"]): one for one in data["new_errors"]}
    assert errors["compile", "app/deep.jsx", 2, column]["message"] == "Expression expected"
    assert errors["request", None, None, None]["message"] == "GET / 500"
    shown = app.devsup("logs", name, "--errors").out
    assert f"compile: app/deep.jsx:2:{column}: Expression expected" in shown
    page.write_text(good)
    serves(server["url"])  # Next.js may answer once more with what it had
    code, data = check(app, name, "--after", data["next_cursor"])
    late = [one for one in data["new_errors"] if one["kind"] != "request"]
    if data["verdict"] != "ok":  # what a busy machine printed of the broken page while it was mended
        assert late == [] or {one["file"] for one in late} == {"app/deep.jsx"}
        code, data = check(app, name, "--after", data["next_cursor"])
    assert (code, data["verdict"], data["http"]["status"]) == (0, "ok", 200)
    app.stop(name)
    code, data = check(app, name)
    assert (code, data["verdict"]) == (14, "down")
    app.nothing_is_left(port)


def test_an_edit_of_an_expo_app(shared: Copies, devsup: Devsup, home: Path) -> None:
    """Metro builds when it is asked to: the path is that of the bundle."""
    app = Real(devsup, home, shared.renew("mobile"))
    port = free_port()
    app.start("mobile", port=port)
    code, data = check(app, "mobile", "--path", BUNDLE)
    assert (code, data["verdict"], data["http"]["status"]) == (0, "ok", 200)
    source = app.folder / "App.js"
    good = source.read_text()
    source.write_text("import x from './nowhere';\nexport default function App() { return x; }\n")
    for _ in range(20):  # Metro sees an edit when the file system has told it
        code, data = check(app, "mobile", "--path", BUNDLE, "--after", data["next_cursor"])
        if code:
            break
    assert (code, data["verdict"], data["http"]["status"]) == (14, "broken", 500)
    (error,) = data["new_errors"]
    assert (error["kind"], error["file"], error["line"]) == ("bundle", "App.js", 1)
    assert error["message"] == 'Unable to resolve "./nowhere" from "App.js"'
    source.write_text(good)
    for _ in range(20):
        code, data = check(app, "mobile", "--path", BUNDLE, "--after", data["next_cursor"])
        if not code:
            break
    assert (code, data["verdict"]) == (0, "ok")
    app.stop("mobile")
    app.nothing_is_left(port)
