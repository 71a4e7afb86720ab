"""What went wrong, out of what real servers have printed; the logs lie in tests/fixtures/logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devsup import masking
from devsup.logs.errors import Collector, collect
from devsup.logs.errors.collect import TOOLS
from devsup.logs.scan import text_of
from tests.support import ROOT

if TYPE_CHECKING:
    from devsup.models import Finding, LogPage

LOGS = ROOT / "tests" / "fixtures" / "logs"
#: Where the servers ran that wrote them.
APP = "/home/me/app"
_NO_PLACE = (None, None, None)

#: Per log: kind, beginning of the message, file, line, column, how often it was printed. Next.js, Expo and
#: Vite say the same thing several times; each was broken in these ways one after the other.
EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    "next16": [
        ("compile", "Unexpected token. Did you mean `{'}'}`", "app/page.jsx", 6, 1, 2),
        ("compile", "Module not found: Can't resolve './nowhere'", "app/page.jsx", 1, 1, 3),
        ("compile", "Module not found: Can't resolve 'not-installed'", "app/page.jsx", 2, 1, 3),
        ("runtime", "TypeError: Cannot read properties of undefined", "app/page.jsx", 2, 16, 2),
        ("runtime", "Error [CartError]: the cart is empty", "app/page.jsx", 3, 9, 1),
        ("runtime", "Error: nobody caught me", "app/page.jsx", 3, 18, 1),
        ("runtime", "Error: late boom", "app/page.jsx", 2, 28, 3),
        ("compile", "You're importing a module that depends on `useState`", "app/page.jsx", 1, 10, 1),
        ("runtime", "Error: The default export is not a React Component", *_NO_PLACE, 2),
        ("runtime", "TypeError: Cannot read properties of null", "app/api/boom/route.js", 3, 37, 2),
        ("request", "GET /api/boom 500", *_NO_PLACE, 2),
        ("request", "GET /api/boom 503", *_NO_PLACE, 1),
        ("compile", "Invalid empty selector", "app/x.css", 3, 5, 1),
        ("compile", "Expression expected", "app/deep.jsx", 2, 13, 1),
        ("compile", "Module not found: Can't resolve './good'", "app/page.jsx", 2, 1, 3),
        ("runtime", "Error: logged only", "app/page.jsx", 3, 17, 1),
        ("runtime", "SyntaxError: Expected property name", "app/page.jsx", 2, 18, 1),
        ("request", "GET / 500", *_NO_PLACE, 12),
        ("compile", "Failed to load next.config.mjs: SyntaxError", "next.config.mjs", None, None, 1),
    ],
    "next15": [
        ("compile", "Unexpected token. Did you mean `{'}'}`", "app/page.jsx", 6, 1, 3),
        ("compile", "Module not found: Can't resolve './nowhere'", "app/page.jsx", 1, 1, 1),
        ("runtime", "TypeError: Cannot read properties of undefined", "app/page.jsx", 2, 16, 2),
        ("runtime", "Error [CartError]: the cart is empty", "app/page.jsx", 3, 9, 1),
        ("runtime", "Error: nobody caught me", "app/page.jsx", 3, 18, 3),
        ("runtime", "Error: late boom", "app/page.jsx", 2, 28, 3),
        ("compile", "You're importing a component that needs `useState`", "app/page.jsx", 1, 1, 1),
        ("runtime", "Error: The default export is not a React Component", *_NO_PLACE, 2),
        ("runtime", "TypeError: Cannot read properties of null", "app/api/boom/route.js", 3, 37, 2),
        ("request", "GET /api/boom 500", *_NO_PLACE, 2),
        ("request", "GET /api/boom 503", *_NO_PLACE, 1),
        ("compile", "Unexpected }", "app/x.css", 3, 5, 1),
        ("compile", "Expression expected", "app/deep.jsx", 2, 1, 1),
        ("compile", "Module not found: Can't resolve './good'", "app/page.jsx", 2, 1, 1),
        ("runtime", "Error: logged only", "app/page.jsx", 3, 17, 1),
        ("runtime", "SyntaxError: Expected property name", "app/page.jsx", 2, 18, 1),
        ("request", "GET / 500", *_NO_PLACE, 12),
        ("compile", "SyntaxError: Unexpected end of input", "next.config.mjs", 2, None, 1),
    ],
    "expo": [
        ("bundle", "SyntaxError: Unterminated JSX contents.", "App.js", 4, 11, 2),
        ("bundle", 'Unable to resolve "./nowhere" from "App.js"', "App.js", 2, 16, 1),
        ("bundle", 'Unable to resolve "expo-camera" from "App.js"', "App.js", 2, 25, 1),
        ("bundle", "SyntaxError: Unexpected token", "deep.js", 2, 19, 2),
    ],
    "expo-babel": [
        ("bundle", "Error: broken babel config", "babel.config.js", 1, 32, 1),
        ("bundle", "TypeError: Cannot read properties of undefined (reading 'transformFile')", *_NO_PLACE, 1),
    ],
    "vite": [
        ("compile", "Unexpected token. Did you mean `{'}'}`", "src/App.jsx", 5, 1, 3),
        ("compile", 'Failed to resolve import "./nowhere.js" from "src/App.jsx"', "src/App.jsx", 1, 14, 5),
        ("compile", 'Failed to resolve import "not-installed" from "src/App.jsx"', "src/App.jsx", 1, 14, 5),
        ("compile", "key must be a string at line 1 column 3", "src/data.json", None, None, 3),
        ("compile", "Expected `]` but found `EOF`", "vite.config.js", 2, 14, 1),
    ],
    "uvicorn": [
        ("request", "GET /boom 500", *_NO_PLACE, 2),
        ("runtime", "TypeError: object of type 'NoneType' has no len()", "main.py", 5, None, 2),
        ("request", "GET /chain 500", *_NO_PLACE, 1),
        ("runtime", "RuntimeError: no x: ", "main.py", 20, None, 1),
        ("request", "GET /bad 503", *_NO_PLACE, 1),
        ("compile", "SyntaxError: invalid syntax", "main.py", 4, None, 1),
        ("runtime", "ModuleNotFoundError: No module named 'not_installed_thing'", "main.py", 1, None, 1),
    ],
    "flask": [
        ("request", "GET /boom 500", *_NO_PLACE, 2),
        ("runtime", "ZeroDivisionError: division by zero", "flaskapp.py", 10, None, 2),
        ("compile", "SyntaxError: invalid syntax", "flaskapp.py", 3, None, 1),
    ],
    "django": [
        (
            "runtime",
            "AttributeError: 'WSGIRequest' object has no attribute 'nope'",
            "shop/urls.py",
            8,
            None,
            2,
        ),
        ("request", "GET /boom 500", *_NO_PLACE, 2),
        ("compile", "SyntaxError: closing parenthesis ']' does not match", "shop/urls.py", 2, None, 1),
    ],
}


def errors_in(path: Path, after: int | None = None, *, ended: bool = True) -> LogPage:
    return collect(str(path), after, generation=1, root=APP, ended=ended)


def found(page: LogPage) -> list[Finding]:
    assert page.errors is not None
    return page.errors


@pytest.mark.parametrize("name", EXPECTED)
def test_each_error_of_a_real_log_is_told_once(name: str) -> None:
    got = found(errors_in(LOGS / f"{name}.log"))
    assert [(one.kind, one.file, one.line, one.column, one.count) for one in got] == [
        (kind, *rest) for kind, _, *rest in EXPECTED[name]
    ]
    for one, (_, message, *_) in zip(got, EXPECTED[name], strict=True):
        assert one.message.startswith(message)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_cursors_of_an_error_lead_to_it(name: str) -> None:
    """From the last one on there is this error and none that was printed last before it."""
    path = LOGS / f"{name}.log"
    for one in found(errors_in(path)):
        at = int(one.last_cursor.partition(":")[2])
        first = found(errors_in(path, at))[0]
        again = [other for other in found(errors_in(path, at)) if other.message == one.message]
        assert min(int(other.first_cursor.partition(":")[2]) for other in again) == at, first
        assert [other.count for other in again if other.line == one.line and other.file == one.file] == [1]


def test_what_is_well_has_no_errors(tmp_path: Path) -> None:
    """Words that look like errors are none: a page of that name, a port in use elsewhere, a fixed build."""
    log = tmp_path / "log"
    log.write_text(
        "\u2713 Compiled in 5ms\n GET /error/500 200 in 5ms\n GET /nope 404 in 5ms\n"
        "iOS Bundled 74ms index.js (1 module)\n"
        "Error: this is only a sentence\nno frames follow\nTypeError: nor here\n"
        '127.0.0.1 - - "GET /TypeError: HTTP/1.1" 200 -\n[vite] (client) hmr update /src/Error.jsx\n'
        "0 errors, 0 failed\n"
    )
    assert found(errors_in(log)) == []


def test_an_error_whose_end_is_not_there_yet_is_for_the_next_call(tmp_path: Path) -> None:
    log = tmp_path / "log"
    whole = "⨯ ./app/page.jsx:6:1\n".encode()
    log.write_bytes(b"fine\n" + whole)
    got = errors_in(log, 0, ended=False)
    assert (got.errors, got.next_cursor) == ([], "1:5")
    log.write_bytes(b"fine\n" + whole + b"Error: Unexpected token\n GET / 500 in 5ms\n")
    got = errors_in(log, 5, ended=False)
    assert [(one.kind, one.message) for one in found(got)] == [
        ("compile", "Unexpected token"),
        ("request", "GET / 500"),
    ]
    assert got.next_cursor == f"1:{log.stat().st_size}"


def test_an_answer_holds_the_newest_errors_and_says_that_there_were_more(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f" GET /{number} 500 in 5ms\n" for number in range(100)))
    got = errors_in(log)
    assert [one.message for one in found(got)] == [f"GET /{number} 500" for number in range(70, 100)]
    assert got.truncated


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The documented forms of what was not run here.
        (
            "src/a.ts(3,5): error TS2322: Type 'x' is not assignable.\n",
            ("compile", "TS2322: Type 'x' is not assignable.", "src/a.ts", 3, 5),
        ),
        (
            (
                "[vite] Internal server error: Transform failed with 1 error:\n"
                '/home/me/app/src/a.ts:4:4: ERROR: Expected "}"\n  Plugin: vite:esbuild\n'
            ),
            ("compile", 'Expected "}"', "src/a.ts", 4, 4),
        ),
        (
            " ERROR  TypeError: undefined is not a function\n    at App (/home/me/app/App.js:3:9)\n",
            ("runtime", "TypeError: undefined is not a function", "App.js", 3, 9),
        ),
        (
            (
                "  + Exception Group Traceback (most recent call last):\n"
                '  |   File "/home/me/app/main.py", line 7, in go\n  |     raise error\n  | ValueError: no\n'
            ),
            ("runtime", "ValueError: no", "main.py", 7, None),
        ),
        (
            (
                "/home/me/app/server.js:3\nconst a = ;\n          ^\n\nSyntaxError: Unexpected token ';'\n"
                "    at wrapSafe (node:internal/modules/cjs/loader:1464:18)\n\nNode.js v20.20.2\n"
            ),
            ("compile", "SyntaxError: Unexpected token ';'", "server.js", 3, None),
        ),
    ],
)
def test_other_forms(tmp_path: Path, text: str, expected: tuple[Any, ...]) -> None:
    (tmp_path / "log").write_text(text)
    got = found(errors_in(tmp_path / "log"))
    assert [(one.kind, one.message, one.file, one.line, one.column) for one in got] == [expected]


ALL = b"".join((LOGS / f"{name}.log").read_bytes() for name in EXPECTED)
LINES = ALL.splitlines(keepends=True)


def summed(pages: list[list[Finding]]) -> dict[tuple[Any, ...], int]:
    sums: dict[tuple[Any, ...], int] = {}
    for page in pages:
        for one in page:
            key = (one.kind, one.message, one.file, one.line, one.column)
            sums[key] = sums.get(key, 0) + one.count
    return sums


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, len(LINES)), max_size=4))
def test_an_error_is_counted_once_however_often_one_looks_while_it_is_printed(cuts: list[int]) -> None:
    """The log grows by random steps; who comes back with the cursor of each has seen the same in the end."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        log.write_bytes(ALL)
        at, pages = 0, []
        whole = errors_in(log)
        for cut in [*sorted(cuts), len(LINES)]:
            log.write_bytes(b"".join(LINES[:cut]))
            got = errors_in(log, at, ended=cut == len(LINES))
            pages.append(found(got))
            at = int(got.next_cursor.partition(":")[2])
        sums = summed(pages)
        assert all(sums.get(key) == count for key, count in summed([found(whole)]).items())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([*LINES, b"\n", b"\xff\x00\n", b"x" * 5000 + b"\n", b"> 1 |\n", b"    at \n"]),
        max_size=60,
    )
)
def test_any_lines_in_any_order_are_read_alike_by_line_and_by_block(lines: list[bytes]) -> None:
    """No order of lines is an accident for a parser; what skips whole blocks skips nothing that matters."""
    by_line, by_block = Collector(1, APP), Collector(1, APP)
    at = 0
    for raw in lines:
        by_line.feed(text_of(raw), at)
        at += len(raw)
    by_block.feed_block(0, b"".join(lines))
    by_line.finish()
    by_block.finish()
    assert by_block.findings() == by_line.findings()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.text(max_size=100))
def test_no_tool_fails_on_any_text(first: str, second: str) -> None:
    for tool in TOOLS:
        for line in (
            first.replace("\n", ""),
            f"⨯ {first}",
            f"ERROR  {first}",
            f"Traceback (most recent call last):{first}",
        ):
            if tool.begins(line):
                tool.goes_on(second, [line])
                tool.read([line, second, first])


@pytest.mark.parametrize("length", range(330, 400, 7))
def test_a_message_that_is_cut_has_no_half_of_a_secret(length: int) -> None:
    """It is masked by whoever shows it, who cannot know what stood behind the cut."""
    collector = Collector(1, APP)
    collector.feed(f"Error: {'x' * length} postgres://me:hunter2-and-more@db.local/app {'y' * 40}", 0)
    collector.feed("    at run (/home/me/app/db.js:1:2)", 400)
    collector.finish()
    (found,), _ = collector.findings()
    assert found.message.startswith("Error: xxx")
    assert "hun" not in masking.text(found.message)
