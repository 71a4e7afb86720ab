"""A log within its limit, in each of the three ways, on filesystems that need each; no cursor ever lies."""

from __future__ import annotations

import itertools
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devsup import bounds, logs
from devsup.errors import Busy, RegistryUnusable, UsageError
from devsup.guard import bounding
from devsup.logs import files as log_files
from devsup.logs.scan import Scan
from devsup.system import CAPABILITIES, files
from tests.serving import Servers, process, script
from tests.support import Spawn, free_port, hear, say, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devsup.models import LogPage
    from tests.support import Devsup

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="two of the three ways are Linux's")


@pytest.fixture
def servers(devsup: Devsup, home: Path, project: Path) -> Servers:
    return Servers(devsup, home, project)


LIMIT = 256 * 1024
#: Bytes of a line of `numbered`.
WIDTH = 36

#: Where each way is what the filesystem needs; `here/...` takes the better calls away.
PLACES = {
    "ext4": "collapse",
    "xfs": "collapse",
    "overlay": "collapse",
    "tmpfs": "punch",
    "ramfs": "copy",
    "here/punch": "punch",
    "here/copy": "copy",
}
LACKS = {"here/punch": "collapse_range", "here/copy": "collapse_range,punch_hole"}


@contextmanager
def mounted(kind: str, base: Path) -> Iterator[Path]:
    """Mount a fresh filesystem of this kind below ``base``; skip the test where that is not allowed."""
    place = base / "mounted"
    place.mkdir()
    argv = ["mount", "-t", kind, kind, str(place)]
    if kind in ("ext4", "xfs"):
        image = base / "image"
        with image.open("wb") as file:
            file.truncate(320 * 2**20)
        argv = ["mount", "-o", "loop", str(image), str(place)]
        commands = [[f"mkfs.{kind}", "-q", str(image)], argv]
    elif kind == "overlay":
        for name in ("lower", "upper", "work"):
            (base / name).mkdir()
        layers = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
        commands = [["mount", "-t", "overlay", "overlay", "-o", layers, str(place)]]
    else:
        commands = [argv]
    for command in commands:
        if shutil.which(command[0]) is None:
            pytest.skip(f"no {command[0]} here")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"{' '.join(command)}: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a test takes away."""
    yield
    monkeypatch.undo()
    CAPABILITIES.forget()


def take_away(monkeypatch: pytest.MonkeyPatch, names: str) -> None:
    monkeypatch.setenv("DEVSUP_WITHOUT", names)
    CAPABILITIES.forget()


@pytest.fixture(params=PLACES)
def place(
    request: pytest.FixtureRequest, temporary: Path, monkeypatch: pytest.MonkeyPatch, lacking: None
) -> Iterator[tuple[Path, str]]:
    """Give a folder and the way in which a log is bounded there."""
    del lacking
    name = request.param
    if name in LACKS:
        take_away(monkeypatch, LACKS[name])
        yield temporary, PLACES[name]
        return
    if os.geteuid() != 0:
        pytest.skip("only root mounts filesystems")
    with mounted(name, temporary) as folder:
        if name == "overlay" and not collapses(temporary):
            pytest.skip("what lies below the overlay is no ext4 or xfs")
        yield folder, PLACES[name]


def collapses(folder: Path) -> bool:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x" * 16384)
        file.flush()
        return files.collapse_front(file.fileno(), 4096)


def numbered(first: int, last: int) -> bytes:
    return b"".join(b"line %07d of the log of a server\n" % number for number in range(first, last))


def append(log: Path, data: bytes) -> None:
    with log.open("ab") as out:
        out.write(data)


def page(log: Path, after: str | None = None, **options: int) -> LogPage:
    return logs.page(str(log), generation=1, ended=False, older=lambda _: None, after=after, **options)


def rest(log: Path, after: str) -> tuple[str, str, bool]:
    """Read on from a cursor to the end; return the text, the last cursor, and whether any was missing."""
    texts: list[str] = []
    missing = False
    while True:
        got = page(log, after)
        missing = missing or got.truncated
        if not got.text and got.next_cursor == after:
            return "".join(texts), after, missing
        texts.append(got.text)
        after = got.next_cursor


def used(log: Path) -> int:
    """Return the bytes that a log holds on disk (xfs also reserves room for more, for a while)."""
    kept = Path(bounds.before(str(log)))
    with log.open("rb") as file:
        held = log.stat().st_size - files.front_hole(file.fileno())
    return held + (kept.stat().st_size if kept.exists() else 0)


def test_a_log_stays_within_its_limit_and_its_cursors_go_on(place: tuple[Path, str]) -> None:
    """A reader that keeps up misses nothing and sees nothing twice; one that lags is told so."""
    folder, way = place
    log = folder / "web.1.log"
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    kept_up, written, cuts = "1:0", b"", 0
    texts: list[str] = []
    for number in range(60):
        block = numbered(number * 500, number * 500 + 500)
        os.write(out, block)
        written += block
        text, kept_up, missing = rest(log, kept_up)
        texts.append(text)
        assert not missing
        cuts += bounds.bound(str(log), LIMIT)
        assert used(log) <= LIMIT
    os.close(out)
    assert cuts >= 4
    assert "".join(texts).encode() == written
    assert kept_up == f"1:{len(written)}"
    late, at, missing = rest(log, "1:5")
    assert missing
    assert at == kept_up
    assert len(late) > LIMIT // 10
    assert written.endswith(late.encode())
    assert late.startswith("line ")
    # What a cursor in the middle meant, it means still.
    inside = f"1:{len(written) - len(late.encode()) + WIDTH * 7}"
    assert (
        page(log, inside).text == late.encode()[WIDTH * 7 :][: len(page(log, inside).text.encode())].decode()
    )
    tail = page(log, lines=3)
    assert (tail.text.encode(), tail.next_cursor) == (written[-3 * WIDTH :], kept_up)
    raw = log.read_bytes()
    assert (raw[:1] == b"\0") == (way == "punch")
    if way != "punch":  # `cat` and `grep` still work
        assert re.fullmatch(rb"[^\n]*\n(line \d{7} of the log of a server\n)*", raw)
    assert Path(f"{log}.before").exists() == (way == "copy")


WAYS = {"collapse": "", "punch": "collapse_range", "copy": "collapse_range,punch_hole"}


@pytest.fixture(params=WAYS)
def way(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, temporary: Path, lacking: None
) -> str:
    """Have logs bounded in one way, here."""
    del lacking
    if request.param == "collapse" and not collapses(temporary):
        pytest.skip("this filesystem cannot collapse ranges")
    take_away(monkeypatch, WAYS[request.param])
    return str(request.param)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 60_000), st.integers(0, 255)),
        st.tuples(st.just("cut"), st.sampled_from([64 * 1024, 128 * 1024]), st.just(0)),
        st.tuples(st.just("read"), st.integers(1, 70_000), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_pages_are_exactly_the_bytes_whatever_is_appended_and_cut(
    way: str, steps: list[tuple[str, int, int]]
) -> None:
    """Each page is what was written at its cursor; only where it says so anything is missing."""
    del way
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as folder:
        log = Path(folder, "web.1.log")
        log.touch()
        written, cursor = bytearray(), 0
        with log.open("ab", buffering=0) as out:
            for what, number, seed in [*steps, ("read", 10**6, 0)]:
                if what == "append":
                    width = 3 + seed % 90
                    block = b"".join(
                        b"%0*x\n" % (width, position)
                        for position in range(len(written), len(written) + number, width + 1)
                    )
                    out.write(block)
                    written += block
                elif what == "cut":
                    bounds.bound(str(log), number)
                else:
                    got = page(log, f"1:{cursor}", max_bytes=number)
                    after = int(got.next_cursor.partition(":")[2])
                    text = got.text.encode()
                    assert text == bytes(written[after - len(text) : after])
                    assert not got.reset
                    if not got.truncated:
                        assert after - len(text) == cursor
                    cursor = after
        assert page(log, lines=1).next_cursor == f"1:{len(written)}"


WRITER = """
import os, sys
out = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
block, number = 2000, 0
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    data = b"".join(b"line %07d of the log of a server\\n" % (number + one) for one in range(block))
    number += block
    left = memoryview(data)
    while left:
        left = left[os.write(out, left):]
print("done", flush=True)
"""


def test_readers_and_cutters_race_a_writer_at_full_speed(way: str, temporary: Path, spawn: Spawn) -> None:
    """The natural race: readers get whole lines in their order; cutters never cut twice."""
    log = temporary / "web.1.log"
    log.touch()
    writer = spawn(WRITER, log, 900)
    assert hear(writer) == "ready\n"
    over, failures = threading.Event(), []

    def cut() -> None:
        while not over.is_set():
            bounds.bound(str(log), 8 * LIMIT)
            over.wait(0.002)

    def read() -> None:
        cursor, last = "1:0", -1
        try:
            while True:
                ended = over.is_set()
                got = page(log, cursor, max_bytes=200_000)
                numbers = [int(text) for text in re.findall(r"line (\d{7}) of", got.text)]
                lines = got.text.splitlines()
                if way == "copy":  # it may lose bytes in the moment of emptying, and nobody counts them
                    assert len(numbers) >= len(lines) - 3, (lines[:1], lines[-1:])
                    assert all(after > one for one, after in itertools.pairwise(numbers))
                else:
                    assert len(numbers) == len(lines), (lines[:1], lines[-1:])
                    assert all(after == one + 1 for one, after in itertools.pairwise(numbers))
                    assert not numbers or numbers[0] == last + 1 or got.truncated, (last, numbers[0])
                if numbers:
                    assert numbers[0] > last
                    last = numbers[-1]
                cursor = got.next_cursor
                if ended and not numbers:
                    return
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=job) for job in (cut, cut, read, read)]
    for thread in threads:
        thread.start()
    say(writer, "go\n")
    try:
        assert hear(writer) == "done\n"
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    assert failures == []


def test_a_cut_while_a_page_is_read(way: str, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forced race: the bytes move between the reader's look at the marks and its read."""
    log = temporary / "web.1.log"
    data = numbered(0, 10_000)
    log.write_bytes(data)
    bytes_of = log_files.LogFile._bytes
    cut: list[bool] = []

    def cut_first(moment: log_files.LogFile, offset: int, count: int) -> bytes:
        if not cut:
            cut.append(bounds.bound(str(log), LIMIT))
        return bytes_of(moment, offset, count)

    monkeypatch.setattr(log_files.LogFile, "_bytes", cut_first)
    start = len(data) - WIDTH * 100
    got = page(log, f"1:{start}")
    assert (cut, got.text.encode(), got.truncated) == ([True], data[start:], False)
    cut.clear()
    append(log, numbered(10_000, 20_000))
    got = page(log, f"1:{start}")  # what it wants goes in the same moment
    assert (cut, got.truncated) == ([True], True)
    end = int(got.next_cursor.partition(":")[2])
    assert (data + numbered(10_000, 20_000))[:end].endswith(got.text.encode())
    del way


CRASHER = """
import os, sys
from devsup import bounds
from devsup.system import files
step, target = 0, int(sys.argv[2])
def crash(name, call):
    def wrapped(*args):
        global step
        step += 1
        if step == target:
            os._exit(73)
        done = call(*args)
        step += 1
        if step == target:
            os._exit(73)
        return done
    return wrapped
bounds._write = crash("write", bounds._write)
files.punch_front = crash("punch", files.punch_front)
files.collapse_front = crash("collapse", files.collapse_front)
os.ftruncate = crash("truncate", os.ftruncate)
os.rename = crash("rename", os.rename)
bounds.bound(sys.argv[1], 262144)
"""


def test_whoever_is_killed_amid_a_cut_leaves_cursors_that_hold(way: str, temporary: Path) -> None:
    """Killed before and after every step: the next reader finishes it, and each byte keeps its number."""
    data, more = numbered(0, 10_000), numbered(10_000, 10_100)
    crashes = 0
    for step in range(1, 60):
        log = temporary / f"web.{step}.log"
        log.write_bytes(data)
        argv = [sys.executable, "-c", CRASHER, str(log), str(step)]
        done = subprocess.run(argv, check=False, timeout=30)
        if done.returncode == 0:
            break
        assert done.returncode == 73
        crashes += 1
        emptied = way == "copy" and bounds.marks_of(str(log)).going  # what comes now may be lost with it
        if not emptied:
            with log.open("ab") as out:
                out.write(more)
        start = len(data) - WIDTH * 20
        got = page(log, f"1:{start}")
        assert got.text.encode() == data[start:] + (b"" if emptied else more), step
        assert not got.truncated
        bounds.bound(str(log), LIMIT)
        assert not bounds.marks_of(str(log)).going
        assert used(log) <= LIMIT + 4096
    assert crashes >= 6


def test_a_disk_that_takes_a_part_of_a_write_gets_the_rest(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, lacking: None
) -> None:
    """What a copy keeps is whole: a gap in it would hold up every reader whose cursor is there."""
    del lacking
    take_away(monkeypatch, WAYS["copy"])
    log, data, write = temporary / "web.1.log", numbered(0, 10_000), os.write
    log.write_bytes(data)
    monkeypatch.setattr(os, "write", lambda fd, part: write(fd, part[:1000]))
    assert bounds.bound(str(log), LIMIT)
    first = bounds.marks_of(str(log)).first
    assert Path(bounds.before(str(log))).read_bytes() == data[first:]


def test_a_cut_beyond_the_moment_that_a_reader_looks_at(temporary: Path) -> None:
    """The server has written so much since it was opened that nothing of that moment is left."""
    log = temporary / "web.1.log"
    log.write_bytes(numbered(0, 1000))
    with log_files.LogFile(str(log)) as moment:
        append(log, numbered(1000, 9000))
        # Readers have been told to let go, the first block is a hole already, and nothing has moved yet.
        Path(f"{log}.base").write_text(f"0 {2000 * WIDTH} 0 \n")
        with log.open("r+b") as file:
            file.write(bytes(4096))
        with pytest.raises(log_files.Passed):
            moment.read(0, 5000)
    assert page(log, "1:0").truncated


HOLDER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
print("inside", flush=True)
sys.stdin.readline()
os.rename(sys.argv[1] + ".next", sys.argv[1] + ".base")
"""


def test_a_reader_waits_for_a_cut_that_is_under_way(
    temporary: Path, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = temporary / "web.1.log"
    log.write_text("one\ntwo\n")
    Path(f"{log}.base").write_text("0 0 96 collapse\n")
    Path(f"{log}.next").write_text("96 96 0 \n")
    holder = spawn(HOLDER, log)
    assert hear(holder) == "inside\n"
    monkeypatch.setattr(bounds, "_PATIENCE", 0.05)
    with pytest.raises(Busy):
        page(log, "1:96")
    assert not bounds.bound(str(log), 4)  # and a second cutter leaves it alone
    monkeypatch.setattr(bounds, "_PATIENCE", 30.0)
    answers: list[LogPage] = []
    reader = threading.Thread(target=lambda: answers.append(page(log, "1:96")))
    reader.start()
    say(holder, "go\n")
    reader.join(30)
    assert [one.text for one in answers] == ["one\ntwo\n"]


def test_a_log_that_somebody_emptied_by_hand_is_read_on(way: str, temporary: Path) -> None:
    log = temporary / "web.1.log"
    log.write_bytes(numbered(0, 10_000))
    assert bounds.bound(str(log), LIMIT)
    os.truncate(log, 0)
    append(log, b"anew\nand more\n")
    base = bounds.marks_of(str(log)).base
    if way == "copy":
        assert page(log).text.endswith("anew\nand more\n")
    else:
        assert (page(log, f"1:{base}").text, page(log, lines=1).text) == (
            "anew\nand more\n",
            "and more\n",
        )


def test_who_looks_at_lines_sees_whole_ones_of_what_is_left(way: str, temporary: Path) -> None:
    """And hears that there were more: what a cut has left of a line is no line."""
    del way
    log = temporary / "web.1.log"
    log.write_bytes(numbered(0, 10_000))
    assert bounds.bound(str(log), LIMIT)
    for offset in (None, 0):
        scan = Scan(str(log), offset)
        lines = b"".join(raw for _, raw in scan.blocks()).splitlines(keepends=True)
        assert {len(line) for line in lines} == {WIDTH}
        assert scan.truncated


def test_marks_that_nobody_can_read_are_an_error_with_a_way_out(temporary: Path) -> None:
    """Never taken for "nothing is cut off": that would give bytes the wrong numbers."""
    log = temporary / "web.1.log"
    log.write_text("one\n")
    Path(f"{log}.base").write_text("what?")
    with pytest.raises(RegistryUnusable, match="damaged") as caught:
        page(log)
    assert caught.value.hint == f"remove {log}.base"


def test_old_logs_go_with_all_that_stands_beside_them(temporary: Path) -> None:
    for generation in range(1, 6):
        for end in ("", ".base", ".before"):
            (temporary / f"web.{generation}.log{end}").touch()
    logs.prune(str(temporary), "web", 3)
    assert (
        sorted(path.name.split(".")[1] for path in temporary.iterdir()) == ["3"] * 3 + ["4"] * 3 + ["5"] * 3
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", 20_000_000),
        ("20MB", 20_000_000),
        ("1g", 10**9),
        (" 100 k ", 100_000),
        ("65536", 65536),
        ("0", None),
    ],
)
def test_the_limit_is_a_size(text: str, size: int | None) -> None:
    assert bounds.limit_of({"DEVSUP_LOG_LIMIT": text}) == size


@pytest.mark.parametrize("text", ["-1", "x", "20 TB", "1", "1.5g", "9" * 13, "k"])
def test_another_limit_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="DEVSUP_LOG_LIMIT"):
        bounds.limit_of({"DEVSUP_LOG_LIMIT": text})


# -- when the guard looks ------------------------------------------------------------------------------


class Clock:
    """A clock that is moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("devsup.guard.bounding.time.monotonic", lambda: self.now)

    def pass_until_due(self, looks: bounding.Bounding) -> float:
        """Do the next look in its time; return how long that was in coming."""
        assert looks.due is not None
        passed, self.now = looks.due - self.now, looks.due
        looks.advance(set())
        return round(passed, 3)


def test_a_timer_doubles_from_one_second_to_sixty_where_the_kernel_does_not_tell(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, lacking: None
) -> None:
    del lacking
    take_away(monkeypatch, "inotify")
    clock, log = Clock(monkeypatch), temporary / "web.1.log"
    log.write_text("")
    looks = bounding.Bounding(str(log), {})
    assert looks.fd is None
    assert [clock.pass_until_due(looks) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    log.write_text("something\n")
    assert [clock.pass_until_due(looks) for _ in range(4)] == [60, 1, 2, 4]
    looks.close()


def _told_of(folder: Path) -> tuple[Path, bounding.Bounding, int]:
    """Return an empty log, who bounds it, and the descriptor that tells of a write."""
    log = folder / "web.1.log"
    log.write_text("")
    looks = bounding.Bounding(str(log), {})
    looks.look(0.0)
    if looks.fd is None:
        pytest.skip("no inotify here")
    return log, looks, looks.fd


def test_a_quiet_log_wakes_nobody_and_a_write_does_once(temporary: Path) -> None:
    log, looks, told = _told_of(temporary)
    for _ in range(100):
        append(log, b"something\n")
    assert select.select([told], [], [], 5)[0] == [told]
    looks.advance({told})
    assert looks.due is not None
    looks.advance({told})  # no two looks for one
    looks.finish()


def test_a_log_whose_server_is_to_end_is_bounded_all_the_same_if_it_does_not(temporary: Path) -> None:
    log, looks, told = _told_of(temporary)
    looks.rest()
    append(log, b"something\n")
    assert looks.fd != told
    assert looks.due is not None
    looks.look(looks.due)  # it has grown
    looks.look(looks.due)
    assert looks.fd == told
    append(log, b"something\n")
    assert select.select([told], [], [], 5)[0] == [told]
    looks.rest()
    looks.rest()
    looks.finish()


def test_a_log_that_grows_fast_is_looked_at_often(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, log = Clock(monkeypatch), temporary / "web.1.log"
    log.write_text("")
    looks = bounding.Bounding(str(log), {"DEVSUP_LOG_LIMIT": "20MB"})
    os.truncate(log, 10_000_000)  # in one second
    assert clock.pass_until_due(looks) == 1
    assert clock.pass_until_due(looks) == 0.25
    looks.close()
    assert bounding.Bounding(str(log), {"DEVSUP_LOG_LIMIT": "0"}).due is None
    assert bounding.Bounding(str(log), {"DEVSUP_LOG_LIMIT": "?"}).limit == bounds.DEFAULT_LIMIT
    for said, limit in ((70_000, 70_000), (0, None)):
        of_file = bounding.Bounding(str(log), {"DEVSUP_LOG_LIMIT": "1g"}, policy={"log_limit": said})
        assert of_file.limit == limit
        of_file.close()


# -- a whole server ------------------------------------------------------------------------------------

#: 25 MB a second: on a fast disk a server that does not rest writes all of it before any guard can look.
FLOOD = """
import os
import time
from stand_in import listen, obey, serve, wanted_port
obey()
listener = listen(wanted_port())
if os.fork() == 0:
    number = 0
    while not os.path.exists("flood"):
        os.stat(".")
    began = time.monotonic()
    while number < 3_000_000:
        time.sleep(max(0.0, began + number / 700_000 - time.monotonic()))
        data = b"".join(b"line %07d of the log of a server\\n" % (number + one) for one in range(2000))
        number += 2000
        left = memoryview(data)
        while left:
            left = left[os.write(1, left):]
    open("over", "w").close()
    os._exit(0)
serve(listener)
"""


@pytest.mark.parametrize("without", ["", "collapse_range,inotify", "collapse_range,punch_hole"])
def test_a_server_that_writes_without_end_fills_no_disk(servers: Servers, without: str) -> None:
    """A hundred MB; its guard keeps 4 of them, give or take what comes between two looks."""
    port = free_port()
    env = {"DEVSUP_LOG_LIMIT": "4MB", "DEVSUP_WITHOUT": without}
    server = servers.start("web", *script(servers.project, "flood", FLOOD), port=port, env=env)
    log = Path(server["log"])
    (servers.project / "flood").touch()
    most = 0

    def over() -> bool:
        nonlocal most
        most = max(most, used(log))
        return (servers.project / "over").exists()

    wait_until(over, 50)
    wait_until(lambda: used(log) <= 4_000_000, 10)
    # A busy machine lets a guard look late: what this asks is a bound, not how tight it is.
    assert most < 60_000_000
    got = servers.devsup("logs", "web", "--json", "-n", "2").data
    assert got["text"].splitlines()[-1].startswith("line ")
    if without != "collapse_range,punch_hole":
        assert got["next_cursor"] == f"{server['generation']}:{3_000_000 * WIDTH}"
    late = servers.devsup("logs", "web", "--json", "--after", f"{server['generation']}:0").data
    assert (late["truncated"], late["text"][:5]) == (True, "line ")
    servers.stop("web")
    servers.nothing_is_left(port)


@pytest.mark.leftovers_expected
def test_without_a_guard_the_next_command_keeps_the_limit(servers: Servers) -> None:
    port = free_port()
    env = {"DEVSUP_LOG_LIMIT": "1MB"}
    server = servers.start("web", *script(servers.project, "flood", FLOOD), port=port, env=env)
    process(server["guard_pid"]).kill()
    log = Path(server["log"])
    append(log, numbered(0, 100_000))
    got = servers.devsup("logs", "web", "-n", "1", "--json", env=env).data
    assert got["text"] == "line 0099999 of the log of a server\n"
    assert used(log) <= 1_000_000
    servers.stop("web")


def test_a_limit_that_is_none_starts_nothing(servers: Servers) -> None:
    answer = servers.devsup("start", "web", "--json", "--", "true", env={"DEVSUP_LOG_LIMIT": "plenty"})
    assert (answer.code, answer.error["code"]) == (2, "usage")
    assert servers.devsup("list", "--json").data["servers"] == []
