"""Pages of a log: nothing missed, nothing twice, whatever the writer and the pruning do meanwhile."""

from __future__ import annotations

import os
import re
import threading
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devsup import logs
from devsup.errors import NotFound, RegistryUnusable, UsageError
from devsup.logs import files, grep
from tests.support import Spawn, hear, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devsup.models import LogPage


@pytest.fixture
def log(temporary: Path) -> Path:
    """Give the log of generation 3, empty."""
    path = temporary / "dev_server_web.3.log"
    path.touch()
    return path


@pytest.fixture
def never_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no pause of a busy machine pass for a prompt."""
    monkeypatch.setattr(files, "QUIET", float("inf"))


def page(
    log: Path,
    after: str | None = None,
    *,
    ended: bool = False,
    lines: int | None = None,
    max_bytes: int | None = None,
    older: Callable[[int], str | None] = lambda _: None,
) -> LogPage:
    return logs.page(
        str(log), generation=3, ended=ended, older=older, after=after, lines=lines, max_bytes=max_bytes
    )


def pages(log: Path, after: str, *, max_bytes: int) -> Iterator[LogPage]:
    """Read an ended log to its end."""
    while True:
        got = page(log, after, ended=True, max_bytes=max_bytes)
        yield got
        if got.ended:
            return
        assert got.next_cursor != after
        after = got.next_cursor


# --- cursors


@given(st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1))
def test_a_cursor_says_what_it_was_made_of(generation: int, offset: int) -> None:
    assert logs.parse_cursor(logs.format_cursor(generation, offset)) == (generation, offset)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "1",
        "1:",
        ":1",
        "-1:0",
        "1:-1",
        "1:0\n",
        " 1:0",
        "1_0:0",
        "a:b",
        "1:2:3",
        "\u0661:\u0662",
        "1:" + "9" * 19,
    ],
)
def test_anything_else_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        logs.parse_cursor(text)


# --- the first page: the end of the log


def test_the_first_page_is_the_last_lines(log: Path) -> None:
    log.write_text("".join(f"line {number}\n" for number in range(1000)))
    got = page(log)
    assert got.text.splitlines() == [f"line {number}" for number in range(900, 1000)]
    assert (got.next_cursor, got.truncated, got.reset, got.generation, got.ended) == (
        f"3:{log.stat().st_size}", False, False, 3, False,
    )  # fmt: skip
    assert page(log, lines=2).text == "line 998\nline 999\n"
    assert page(log, lines=0).text == ""
    assert page(log, lines=5000).text == log.read_text()


def test_a_tail_is_cut_in_front_at_a_newline(log: Path) -> None:
    log.write_text("first line\nsecond line\nthird line\n")
    got = page(log, max_bytes=15)
    assert (got.text, got.truncated) == ("third line\n", True)
    assert page(log, max_bytes=11) == got
    got = page(log, max_bytes=34)
    assert (got.text, got.truncated) == (log.read_text(), False)


def test_a_tail_of_one_very_long_line_is_cut_between_characters(log: Path) -> None:
    log.write_text("✓" * 100_000 + "\n")
    got = page(log, max_bytes=10)
    assert (got.text, got.truncated) == ("✓✓✓\n", True)
    log.write_text("✓" * 1_000_000)
    got = page(log, max_bytes=10)
    assert (got.text, got.truncated) == ("✓✓✓", True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.sampled_from(["a\n", "\n", "é✓\n", "x\ry\n", "long " * 30 + "\n", "\x1b[31mred\x1b[0m\n", "part"])
    ),
    st.integers(0, 9),
    st.integers(1, 300),
)
def test_a_tail_is_the_end_of_the_whole(log: Path, parts: list[str], lines: int, max_bytes: int) -> None:
    log.write_text("".join(parts), newline="")
    whole = logs.clean(log.read_bytes())
    got = page(log, ended=True, lines=lines, max_bytes=max_bytes)
    assert whole.endswith(got.text)
    assert len(got.text.encode()) <= max_bytes
    expected = "".join(whole.splitlines(keepends=True)[-lines:]) if lines else ""
    assert got.truncated == (len(expected.encode()) > max_bytes)
    assert got.truncated or got.text == expected
    assert got.ended


def test_a_tail_of_a_huge_log_is_read_from_its_end(log: Path) -> None:
    """Two gigabytes (a sparse file) cost neither memory nor time; the holes read as NULs and say nothing."""
    with log.open("r+b") as file:
        file.write(b"first\n")
        file.seek(2 << 30)
        file.write(b"\nlast\n")
    tracemalloc.start()
    before = time.monotonic()
    got = page(log, lines=1)
    assert (got.text, got.next_cursor) == ("last\n", f"3:{(2 << 30) + 6}")
    assert page(log, lines=50).truncated
    assert logs.tail_text(str(log), lines=1) == "last\n"
    assert page(log, "3:0").text == "first\n"
    assert time.monotonic() - before < 10
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_a_first_page_goes_on_where_it_ended(log: Path) -> None:
    log.write_bytes(b"one\ntwo\nth")
    got = page(log)
    assert (got.text, got.next_cursor) == ("one\ntwo\n", "3:8")
    with log.open("ab") as file:
        file.write(b"ree\r\n")
    assert page(log, got.next_cursor).text == "three\n"


# --- pages by cursor


def test_a_page_ends_at_a_newline_within_its_bounds(log: Path) -> None:
    log.write_text("one\ntwo\nthree\n")
    assert page(log, "3:0", max_bytes=9).text == "one\ntwo\n"
    assert page(log, "3:0", lines=1).text == "one\n"
    assert page(log, "3:8", max_bytes=3).text == "thr"
    assert page(log, "3:14").text == ""


@pytest.mark.usefixtures("never_stalled")
def test_an_unfinished_line_waits_for_its_end_or_the_servers(log: Path) -> None:
    log.write_bytes(b"done\n10%\r20%")
    got = page(log, "3:0")
    assert got.text == "done\n"
    assert not got.ended
    got = page(log, got.next_cursor, ended=True)
    assert (got.text, got.ended) == ("20%", True)


def test_a_prompt_is_shown_when_nothing_follows_it(log: Path) -> None:
    """A server that asks a question writes no newline, and its caller must be able to see the question."""
    log.write_bytes(b"old\nUse port 3001 instead? ")
    os.utime(log, (time.time() - 60, time.time() - 60))
    assert page(log).text == "old\nUse port 3001 instead? "
    got = page(log, "3:0")
    assert got.text == "old\nUse port 3001 instead? "
    with log.open("ab") as file:
        file.write(b"yes\n")
    assert page(log, got.next_cursor).text == "yes\n"


def test_ended_is_only_said_at_the_end(log: Path) -> None:
    log.write_text("one\ntwo\n")
    assert not page(log, "3:0", ended=True, lines=1).ended
    assert page(log, "3:4", ended=True).ended
    assert page(log, "3:8", ended=True).ended


def test_megabytes_of_progress_are_one_line(log: Path) -> None:
    log.write_bytes(
        b"start\n" + b"".join(b"\r\x1b[2K%d of 300000" % n for n in range(300_000)) + b"\nready\n"
    )
    assert "".join(got.text for got in pages(log, "3:0", max_bytes=100)) == "start\n299999 of 300000\nready\n"
    assert page(log, lines=2).text == "299999 of 300000\nready\n"


def test_a_page_full_of_colours_is_not_almost_empty(log: Path) -> None:
    log.write_bytes(b"\x1b[38;2;100;100;100mx\x1b[39m\x1b[22m\n" * 4000)
    assert len(page(log, "3:0", max_bytes=1000).text) >= 700


@pytest.mark.parametrize("bound", [{"max_bytes": 0}, {"max_bytes": -1}, {"lines": -1}])
def test_a_bound_below_its_least_is_a_usage_error(log: Path, bound: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        page(log, **bound)  # type: ignore[arg-type]  # the keys are those of `page`
    for offset in (None, 0):
        with pytest.raises(UsageError):
            matching(log, offset, **bound)


def matching(
    log: Path, offset: int | None, lines: int | None = None, max_bytes: int | None = None
) -> LogPage:
    return grep.page(
        str(log), offset, re.compile("x"), generation=3, ended=True, lines=lines, max_bytes=max_bytes
    )


def test_matching_lines_keep_to_their_bounds(log: Path) -> None:
    log.write_text("x é\n" * 3 + "x" + "é" * 100 + "\n")
    got = matching(log, 0, lines=0)
    assert (got.text, got.next_cursor, got.ended) == ("", "3:0", False)
    assert matching(log, 0, max_bytes=10).text == "x é\nx é\n"
    assert matching(log, None, max_bytes=100).text == "x" + "é" * 49
    assert matching(log, None, max_bytes=300).text == log.read_text()


WRITER = """
import os, random, sys
path, seed = sys.argv[1], int(sys.argv[2])
chance = random.Random(seed)
words = [b"ready\\n", b"10%\\r", b"\\r\\n", "✓ ".encode(), "🚀".encode(), b"\\x1b[31m", b"\\x1b]8;;http://h\\x1b\\\\",
         b"\\0", b"\\xff", b"x" * 4200, b"y" * 300 + b"\\n", b"\\n"]
raw = b"".join(chance.choices(words, k=3000))
log = os.open(path, os.O_WRONLY | os.O_APPEND)
print("ready", flush=True)
sys.stdin.readline()
while raw:
    size = chance.choice((1, 2, 3, 7, 100, 4096, 20000))
    os.write(log, raw[:size])
    raw = raw[size:]
"""


@pytest.mark.usefixtures("never_stalled")
@pytest.mark.parametrize("max_bytes", [1, 7, 500, 65536])
def test_a_reader_beside_a_writer_misses_nothing_and_sees_nothing_twice(
    spawn: Spawn, log: Path, max_bytes: int
) -> None:
    """The sum of the pages is the cleaned whole, though it was read while it grew."""
    writer = spawn(WRITER, log, max_bytes)
    assert hear(writer) == "ready\n"
    say(writer)
    after, texts, ended = "3:0", [], False
    # Every character a page of its own is slow: those readers see the first part of it.
    for _ in range(4000):
        over = writer.poll() is not None
        got = page(log, after, ended=over, max_bytes=max_bytes)
        assert not got.reset
        assert not got.truncated
        texts.append(got.text)
        if got.ended:
            ended = True
            break
        if got.next_cursor == after:
            logs.wait_for_more(
                str(log),
                logs.parse_cursor(after)[1],
                deadline=time.monotonic() + 5,
                ended=lambda: writer.poll() is not None,
            )
        after = got.next_cursor
    assert writer.wait(20) == 0
    if not ended:
        assert max_bytes < 500
        texts += [got.text for got in pages(log, after, max_bytes=10_000)]
    assert "".join(texts) == logs.clean(log.read_bytes())


# --- generations, loss, damage


@pytest.fixture
def older(temporary: Path) -> Callable[[int], str | None]:
    def find(generation: int) -> str | None:
        path = temporary / f"dev_server_web.{generation}.log"
        return str(path) if path.exists() else None

    return find


def test_a_cursor_of_an_older_generation_gets_its_rest_first(
    temporary: Path, log: Path, older: Callable[[int], str | None]
) -> None:
    (temporary / "dev_server_web.1.log").write_text("one\nlast words")
    (temporary / "dev_server_web.2.log").write_text("two\n")
    log.write_text("three\n")
    after, seen = "1:4", []
    for _ in range(4):
        got = page(log, after, older=older)
        seen.append((got.text, got.generation, got.reset, got.next_cursor))
        after = got.next_cursor
    assert seen == [
        ("last words", 1, False, "1:14"),
        ("two\n", 2, True, "2:4"),
        ("three\n", 3, True, "3:6"),
        ("", 3, False, "3:6"),
    ]
    assert [page(log, "1:14", older=older).generation, page(log, "1:99", older=older).generation] == [2, 2]


def test_what_was_pruned_is_passed_over(
    temporary: Path, log: Path, older: Callable[[int], str | None]
) -> None:
    log.write_text("three\n")
    (temporary / "dev_server_web.1.log").write_text("one\n")
    got = page(log, "1:4", older=older)
    assert (got.text, got.generation, got.reset) == ("three\n", 3, True)
    got = page(log, "1:0", older=lambda _: str(temporary / "vanished.log"))
    assert (got.text, got.generation, got.reset) == ("three\n", 3, True)


@pytest.mark.parametrize("after", ["3:99", "4:0", "2:0", "0:0", "3:999999999999999999"])
def test_a_cursor_of_nothing_begins_anew(log: Path, after: str) -> None:
    log.write_text("one\ntwo\n")
    got = page(log, after)
    assert (got.text, got.reset, got.truncated, got.next_cursor) == ("one\ntwo\n", True, False, "3:8")
    assert not page(log, got.next_cursor).reset


def test_a_reader_that_lags_behind_goes_on_at_the_oldest_whole_line(log: Path) -> None:
    """Offsets count what was written, not what is left of it."""
    log.write_text("tail of a line\nnext\nlast\n")
    Path(f"{log}.base").write_text("4096 4096 0 \n")
    got = page(log, "3:100", lines=1)
    assert (got.text, got.truncated, got.reset, got.next_cursor) == ("next\n", True, False, "3:4116")
    got = page(log, got.next_cursor)
    assert (got.text, got.truncated, got.next_cursor) == ("last\n", False, "3:4121")
    got = page(log)
    assert (got.text, got.truncated, got.next_cursor) == ("next\nlast\n", True, "3:4121")


def test_a_page_read_while_bytes_were_cut_off_is_read_again(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forced race: between opening the log and reading it, its front goes."""
    log.write_text("one\ntwo\nthree\n")
    read = files.LogFile.read

    def cut_then_read(moment: files.LogFile, offset: int, count: int) -> bytes:
        if log.stat().st_size == 14:
            Path(f"{log}.base").write_text("4 4 0 \n")
            log.write_text("two\nthree\n")
        return read(moment, offset, count)

    monkeypatch.setattr(files.LogFile, "read", cut_then_read)
    got = page(log, "3:4")
    assert (got.text, got.truncated, got.next_cursor) == ("two\nthree\n", False, "3:14")


def test_a_vanished_log_is_not_found(log: Path) -> None:
    log.unlink()
    for after in (None, "3:0"):
        with pytest.raises(NotFound):
            page(log, after)
    assert logs.tail_text(str(log)) == ""
    assert logs.last_line(str(log), 80) == ""


def _folder(log: Path) -> None:
    log.mkdir()


def _fifo(log: Path) -> None:
    os.mkfifo(log)


def _loop(log: Path) -> None:
    log.symlink_to(log)


@pytest.mark.parametrize("put", [_folder, _fifo, _loop])
def test_something_else_in_its_place_is_an_error_at_once(log: Path, put: Callable[[Path], None]) -> None:
    log.unlink()
    put(log)
    with pytest.raises(RegistryUnusable) as caught:
        page(log)
    assert caught.value.hint
    assert logs.tail_text(str(log)) == ""


def test_a_log_that_cannot_be_opened_says_why(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RegistryUnusable, match="Permission denied"):
        page(log)


def test_no_descriptor_is_left_open(log: Path) -> None:
    log.write_text("one\n")
    before = os.listdir("/dev/fd")
    page(log)
    page(log, "3:0")
    logs.wait_for_more(str(log), 4, deadline=time.monotonic(), ended=lambda: False)
    assert len(os.listdir("/dev/fd")) == len(before)


# --- waiting


def waited(
    log: Path, offset: int, seconds: float = 30, *, ended: Callable[[], bool] = lambda: False
) -> float:
    before = time.monotonic()
    logs.wait_for_more(str(log), offset, deadline=before + seconds, ended=ended)
    return time.monotonic() - before


def test_a_wait_ends_with_what_is_there_with_the_server_and_at_the_deadline(log: Path) -> None:
    log.write_text("one\n")
    assert waited(log, 0) < 5
    assert waited(log, 9) < 5  # beyond the end: the page will be a reset
    assert waited(log, 4, ended=lambda: True) < 5
    assert 0.2 <= waited(log, 4, 0.2) < 5
    assert waited(log, 4, -1) < 5


@pytest.mark.usefixtures("never_stalled")
def test_a_wait_is_over_only_when_a_page_has_something_new(log: Path) -> None:
    """A line that grows, or progress that is drawn over, would give an empty page."""
    log.write_bytes(b"one\n10%\r20%\r30")
    assert waited(log, 4, 0.3) >= 0.3
    with log.open("ab") as file:
        file.write(b"%\n")
    assert waited(log, 4) < 5
    assert page(log, "3:4").text == "30%\n"


def test_a_wait_sees_a_log_appear_and_a_line_come(log: Path) -> None:
    log.unlink()
    ends = threading.Event()

    def wait() -> None:
        waited(log, 0)
        ends.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert not ends.wait(0.1)
    log.write_text("one\n")
    assert ends.wait(10)
    waiter.join()


def test_a_wait_for_a_stalled_prompt_is_over(log: Path) -> None:
    log.write_bytes(b"sure? ")
    assert waited(log, 0) < 10
    assert page(log, "3:0").text == "sure? "


def test_a_wait_costs_little(log: Path) -> None:
    log.write_text("one\n")
    before = time.process_time()
    waited(log, 4, 1)
    assert time.process_time() - before < 0.2


# --- short tails


def test_the_tail_for_a_message_shows_the_log_as_it_stands(log: Path) -> None:
    log.write_bytes("\n".join(f"line {n}" for n in range(50)).encode() + b"\n\x1b[31mError: 10%\r20%\x1b")
    assert logs.tail_text(str(log), lines=2) == "line 49\n20%"
    assert len(logs.tail_text(str(log)).splitlines()) == 20
    log.write_bytes(b"x" * 10_000_000)
    assert logs.tail_text(str(log)) == "x" * 4096


def test_the_last_line_is_the_last_that_says_something(log: Path) -> None:
    log.write_bytes(b"Starting...\n10%\r 20% \r\n\n  \n")
    assert logs.last_line(str(log), 80) == "20%"
    log.write_text("Compiling the page ✓✓✓")
    assert logs.last_line(str(log), 10) == "Compiling…"
    assert logs.last_line(str(log), 0) == ""
    log.write_text("")
    assert logs.last_line(str(log), 80) == ""


def test_no_half_of_a_secret_is_left_where_a_tail_is_cut(log: Path) -> None:
    """Both are masked by whoever shows them, who cannot know what stood behind the cut."""
    log.write_text("cannot connect: postgres://me:hunter2@db.local/app is refused")
    assert not any("hun" in logs.last_line(str(log), most) for most in range(61))
    log.write_text(f"{'x' * 9000} API_TOKEN=hunter2-is-the-word {'y' * 4082}")
    assert "word" not in logs.tail_text(str(log))
    log.write_text(f"API_TOKEN=hunter2 {'é' * 4000}\nlast")
    assert logs.tail_text(str(log)) == "last"


# --- pruning


def test_the_last_generations_stay(temporary: Path) -> None:
    folder = temporary / "logs"
    folder.mkdir()
    names = [f"web.{number}.log" for number in (1, 2, 9, 10, 11, 12)]
    others = ["web.guard.log", "web.x.1.log", "web2.1.log", "aweb.1.log", "web.1.log.gz", "w-b.1.log"]
    for name in names + others:
        (folder / name).touch()
    (folder / "web.0.log").mkdir()
    named = folder / "web.2.log"
    deleted = logs.prune(str(folder), "web", keep_paths=[f"{folder}/../logs/web.2.log"])
    assert sorted(os.path.basename(path) for path in deleted) == ["web.1.log", "web.9.log"]
    assert sorted(os.listdir(folder)) == sorted([*names[3:], *others, named.name, "web.0.log"])
    assert logs.prune(str(folder), "web", keep_paths=[str(named)]) == []


def test_pruning_nothing_is_fine(temporary: Path) -> None:
    assert logs.prune(str(temporary / "nowhere"), "web") == []
    (temporary / "web.1.log").touch()
    assert logs.prune(str(temporary), "web", keep=0) == [str(temporary / "web.1.log")]


PRUNER = """
import sys
from devsup import logs
print("ready", flush=True)
sys.stdin.readline()
logs.prune(sys.argv[1], "web")
"""


def test_many_prune_at_once(spawn: Spawn, temporary: Path) -> None:
    for number in range(200):
        (temporary / f"web.{number}.log").touch()
    pruners = [spawn(PRUNER, temporary) for _ in range(4)]
    assert [hear(pruner) for pruner in pruners] == ["ready\n"] * 4
    for pruner in pruners:
        say(pruner)
    assert [pruner.wait(20) for pruner in pruners] == [0] * 4
    assert sorted(temporary.glob("web.*")) == [temporary / f"web.{number}.log" for number in (197, 198, 199)]
