"""`devsup check`, and the parts of a log that one asks for: real servers, broken and mended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from devsup import Supervisor, logtimes
from devsup.logs import files
from devsup.supervisor import reading
from tests.serving import LINUX_ONLY, Servers, process, script
from tests.support import devsup_argv, free_port, server_argv, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from devsup.models import LogPage
    from tests.support import Answer, Devsup

#: Answers 200 to `/`; what lies in the file `trouble` makes it answer otherwise, and print.
SERVER = r"""
import http.server, os, sys, time
from stand_in import wanted_port
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        trouble = open("trouble").read() if os.path.exists("trouble") else ""
        if trouble == "hang":
            time.sleep(60)
        if trouble == "cut":
            self.connection.close()
            return
        status = 500 if trouble else 200
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "http://192.0.2.1/")
        else:
            self.send_response(status)
        self.end_headers()
        self.wfile.write(b"x" * 100000)
        if trouble:
            print(f"{trouble}\n GET {self.path} {status} in 5ms", flush=True)
    def log_message(self, *_):
        pass
print("TOKEN=abcdefgh12345 https://user:secret99@example.test/", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", wanted_port()), Handler).serve_forever()
"""
BROKEN = "⨯ ./app/page.jsx:6:1\nError: Unexpected token\n\n"


@pytest.fixture
def servers(devsup: Devsup, home: Path, project: Path) -> Servers:
    return Servers(devsup, home, project)


@pytest.fixture
def web(servers: Servers) -> dict[str, Any]:
    return servers.start("web", *script(servers.project, "app", SERVER), port=free_port())


def trouble(servers: Servers, text: str | None) -> None:
    path = servers.project / "trouble"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


def check(servers: Servers, *flags: object) -> tuple[int, dict[str, Any], dict[str, Any] | None]:
    answer = servers.devsup("check", "web", *flags, "--json")
    return answer.code, answer.json["data"], answer.json["error"]


def test_an_edit_that_breaks_and_one_that_mends(servers: Servers, web: dict[str, Any]) -> None:
    """The whole episode of an agent, with the size of each answer."""
    code, data, error = check(servers)
    assert (code, data["verdict"], data["listening"], data["new_errors"], error) == (0, "ok", True, [], None)
    assert (data["http"]["path"], data["http"]["status"]) == ("/", 200)
    trouble(servers, BROKEN)
    code, data, error = check(servers, "--after", data["next_cursor"])
    assert error is not None
    assert (code, data["verdict"], error["code"]) == (14, "broken", "unhealthy")
    places = [
        (one["kind"], one["file"], one["line"], one["column"], one["message"]) for one in data["new_errors"]
    ]
    assert places == [
        ("compile", "app/page.jsx", 6, 1, "Unexpected token"),
        ("request", None, None, None, "GET / 500"),
    ]
    assert len(str(data)) < 2500
    trouble(servers, None)
    mended = servers.devsup(*error["hint"].split()[1:], "--json")  # the hint, as it stands
    assert (mended.code, mended.data["verdict"], mended.data["new_errors"]) == (0, "ok", [])
    whole = servers.devsup("check", "web", "--json")  # without a cursor all since the start counts
    code, data = whole.code, whole.json["data"]
    assert (code, data["verdict"], len(data["new_errors"])) == (14, "broken", 2)
    assert "2 errors since its start" in whole.error["message"]
    assert [note for note in whole.json["notes"] if "mended ones too" in note]
    assert servers.devsup(*whole.error["hint"].split()[1:], "--json").code == 0
    plain = servers.devsup("check", "web")
    assert plain.out.splitlines()[0].startswith("dev_server_web broken: GET / 200 in ")
    assert "  compile: app/page.jsx:6:1: Unexpected token" in plain.out
    assert web["pid"] == data["server"]["pid"]
    servers.stop("web")


def test_an_error_that_answers_nothing_is_broken_too(servers: Servers, web: dict[str, Any]) -> None:
    trouble(servers, "cut")
    code, data, _ = check(servers)
    assert (code, data["verdict"], data["http"]["status"]) == (14, "broken", None)
    trouble(servers, "hang")
    began = time.monotonic()
    code, data, _ = check(servers, "--timeout", "2")
    assert (code, data["verdict"], data["http"]["status"]) == (14, "broken", None)
    assert 50 <= data["http"]["ms"] < 5000
    assert time.monotonic() - began < 20
    trouble(servers, None)
    code, data, _ = check(servers, "--path", "/moved")  # followed nowhere: this machine is all it asks
    assert (code, data["http"]["status"]) == (0, 302)
    assert web["port"]
    servers.stop("web")


def test_what_does_not_listen_is_down(servers: Servers, web: dict[str, Any]) -> None:
    trouble(servers, BROKEN)
    check(servers)
    servers.stop("web")
    code, data, error = check(servers)
    assert error is not None
    assert (code, data["verdict"], data["listening"], data["http"]) == (14, "down", False, None)
    assert [one["kind"] for one in data["new_errors"]] == ["compile", "request"]  # it may be why
    assert error["hint"] == "devsup restart web"
    trouble(servers, None)
    assert servers.devsup(*error["hint"].split()[1:], "--json").code == 0
    code, data, _ = check(servers)
    assert (code, data["verdict"]) == (0, "ok")
    process(servers.find("web")["pid"]).send_signal(signal.SIGKILL)
    servers.state_becomes("web", "crashed")
    code, data, _ = check(servers)
    assert (code, data["verdict"], data["server"]["state"]) == (14, "down", "crashed")
    assert servers.devsup("check", "nope", "--json").code == 3
    assert web["log"]
    servers.devsup("stop", "web")


def test_what_speaks_no_http_is_judged_by_its_socket_and_its_log(servers: Servers) -> None:
    (servers.project / "devsup.toml").write_text(
        f"[apps.db]\ncommand = {server_argv('silent')}\nport = {free_port()}\nready = {{tcp = true}}\n"
    )
    servers.devsup("start", "db", "--json")
    for flags, verdict, asked in (((), "ok", False), (("--path", "/x", "--timeout", "0.5"), "broken", True)):
        data = servers.devsup("check", "db", *flags, "--json").json["data"]
        assert (data["verdict"], data["listening"], data["http"] is not None) == (verdict, True, asked)
    servers.devsup("start", "worker", "--json", "--", "sh", "-c", f"printf '{BROKEN}'; exec sleep 600")
    data = servers.devsup("check", "worker", "--json").json["data"]
    assert (data["verdict"], data["listening"], data["http"]) == ("broken", False, None)
    well = servers.devsup("check", "worker", "--after", data["next_cursor"])
    assert (well.code, well.out.splitlines()[0]) == (0, "dev_server_worker ok: running, no errors")
    servers.devsup("stop", "--all")


def test_a_server_without_a_log_is_judged_by_its_answer(servers: Servers, web: dict[str, Any]) -> None:
    os.unlink(web["log"])
    answer = servers.devsup("check", "web", "--json")
    assert (answer.code, answer.data["verdict"], answer.data["new_errors"]) == (0, "ok", [])
    assert answer.json["notes"] == ["no log of it is there: only its answer was looked at"]
    trouble(servers, BROKEN)
    assert check(servers)[0] == 14
    servers.stop("web")


@pytest.mark.parametrize("path", ["", "no-slash", "/a b", "/\n", "http://192.0.2.1/"])
def test_only_a_path_of_the_server_is_asked_for(servers: Servers, web: dict[str, Any], path: str) -> None:
    answer = servers.devsup("check", "web", "--path", path, "--json")
    assert answer.code == 2
    assert web["port"]
    servers.stop("web")


def test_a_server_with_a_certificate_of_its_own_is_asked_too(servers: Servers) -> None:
    server = servers.start("web", *server_argv("tls_web"), port=free_port())
    assert server["url"].startswith("https://")
    code, data, _ = check(servers)
    assert (code, data["http"]["status"]) == (0, 200)
    servers.stop("web")


# -- parts of a log ------------------------------------------------------------------------------------


def logs_of(servers: Servers, *flags: object) -> Answer:
    return servers.devsup("logs", "web", *flags)


def test_a_log_shows_what_is_asked_for(servers: Servers) -> None:
    lines = "".join(f"line {number}\\n" for number in range(500))
    code = f'print("{lines}", end="", flush=True)\n{SERVER}'
    server = servers.start("web", *script(servers.project, "app", code), port=free_port())
    text = logs_of(servers, "--grep", "line .*99$").out
    assert text == "line 99\nline 199\nline 299\nline 399\nline 499\n"
    assert logs_of(servers, "--grep", "^line", "-n", "2").out == "line 498\nline 499\n"
    first = logs_of(
        servers, "--grep", "^line", "--after", f"{server['generation']}:0", "-n", "2", "--json"
    ).data
    assert (first["text"], first["truncated"]) == ("line 0\nline 1\n", False)
    more = logs_of(
        servers, "--grep", "^line", "--after", first["next_cursor"], "--max-bytes", "15", "--json"
    ).data
    assert more["text"] == "line 2\nline 3\n"
    assert logs_of(servers, "--grep", "nothing", "--wait", "0.1", "--json").data["text"] == ""
    assert logs_of(servers, "--grep", "(").code == 2
    assert logs_of(servers, "--grep", "x", "--errors").code == 2
    # Secrets: masked, unless somebody asks.
    assert "secret99" not in logs_of(servers).out
    assert "abcdefgh12345" not in logs_of(servers, "--json").out
    raw = logs_of(servers, "--raw", "-n", "1").out
    assert raw == "TOKEN=abcdefgh12345 https://user:secret99@example.test/\n"
    assert "secret99" in logs_of(servers, "--raw", "--json").out
    servers.stop("web")


def test_waiting_for_an_error(servers: Servers, web: dict[str, Any], devsup: Devsup) -> None:
    """`--errors --wait` sleeps over what is no error."""
    log = web["log"]
    waiting = subprocess.Popen(
        devsup_argv("logs", "web", "--errors", "--wait", "30", "--json"),
        cwd=servers.project,
        stdout=subprocess.PIPE,
        text=True,
    )
    with open(log, "a", encoding="utf-8") as out:
        print(" GET / 200 in 5ms", file=out, flush=True)
        print(" GET /boom 500 in 5ms", file=out, flush=True)
    said, _ = waiting.communicate(timeout=30)
    assert '"message":"GET /boom 500"' in said
    assert devsup("logs", "web", "--errors").out == "request: GET /boom 500\n"
    servers.stop("web")


@LINUX_ONLY
def test_what_came_since_a_moment(servers: Servers, web: dict[str, Any]) -> None:
    """Servers print no times: the guard notes when the log had which size."""
    log = web["log"]
    times = f"{log}.times"
    wait_until(lambda: (logtimes.offset_at(log, time.time() + 1) or 0) > 0, 20)
    noted = logtimes.offset_at(log, time.time() + 1) or 0
    logtimes.note(log, noted, time.time() - 3600)
    with open(log, "a", encoding="utf-8") as out:
        print("late", file=out)
    wait_until(lambda: (logtimes.offset_at(log, time.time() + 1) or 0) > noted, 20)
    assert logs_of(servers, "--since", "1d").out.endswith("late\n")
    got = logs_of(servers, "--since", "2000-01-01T00:00:00Z", "--grep", "late", "--json")
    assert (got.data["text"], got.json["notes"]) == ("late\n", [])
    assert logs_of(servers, "--since", "0s").out == ""
    for bad in (("--since", "soon"), ("--since", "1h", "--after", "1:0")):
        assert logs_of(servers, *bad).code == 2
    servers.stop("web")
    os.unlink(times)
    got = logs_of(servers, "--since", "1h", "--json")
    assert got.data["text"]
    assert re.search("nobody noted", " ".join(got.json["notes"]))


@pytest.mark.parametrize("wanted", [{"grep": "nothing"}, {"errors": True}])
def test_a_wait_beside_a_prompt_hardly_looks(
    servers: Servers, home: Path, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
) -> None:
    """A line that does not go on is something new for a text, and nothing for who looks for whole ones."""
    server = servers.start("web", *script(servers.project, "app", SERVER), port=free_port())
    with open(server["log"], "a", encoding="utf-8") as out:
        out.write("name? ")
    looks, page = [], reading._page

    def counted(*args: Any, **more: Any) -> LogPage:
        looks.append(1)
        return page(*args, **more)

    monkeypatch.setattr(files, "QUIET", 0.0)
    monkeypatch.setattr(reading, "_page", counted)
    got = Supervisor(str(servers.project), str(home)).logs("web", wait=0.5, **wanted)
    assert (got.text, got.errors or []) == ("", [])
    assert len(looks) <= 10
    servers.stop("web")


def test_times_stay_few(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    assert logtimes.offset_at(log, 0) is None
    for number in range(6000):
        logtimes.note(log, number * 10, 1000.0 + number)
    assert os.stat(f"{log}.times").st_size <= 64 * 1024
    assert [logtimes.offset_at(log, when) for when in (999, 6999.5, 1e9)] == [0, 59990, 59990]
    assert logtimes.offset_at(log, 6500.2) == 55000


def test_several_logs_side_by_side(servers: Servers, web: dict[str, Any]) -> None:
    """Each line says whose it is; the follower ends with the last of them."""
    servers.start("api", *script(servers.project, "app", SERVER), port=free_port())
    refused = servers.devsup("logs", "web", "api", "--json")
    assert (refused.code, refused.json["error"]["hint"]) == (2, "devsup logs -f web api")
    follower = subprocess.Popen(
        devsup_argv("logs", "-f", "web", "api", "--grep", "^marked"),
        cwd=servers.project,
        stdout=subprocess.PIPE,
        text=True,
    )
    for name in ("web", "api"):
        with open(servers.find(name)["log"], "a", encoding="utf-8") as out:
            print(f"marked {name}", file=out, flush=True)
    assert follower.stdout is not None
    lines = {follower.stdout.readline() for _ in range(2)}
    assert lines == {"web | marked web\n", "api | marked api\n"}
    servers.stop("web")
    servers.stop("api")
    assert follower.communicate(timeout=30)[0] == ""
    assert follower.returncode == 0
    assert web["session"] == "dev_server_web"


def test_answers_of_one_server_are_about_a_kilobyte(servers: Servers, web: dict[str, Any]) -> None:
    """An agent reads every byte: beyond the paths and the command an answer has less than a thousand."""
    spent = len(web["project"]) + len(web["cwd"]) + len(web["log"]) + sum(map(len, web["command"]))
    again = servers.devsup(*servers.start_args("web", *web["command"], port=web["port"]))
    status, stop = servers.devsup("status", "web", "--json"), servers.devsup("stop", "web", "--json")
    for answer in (again, status, stop):
        assert answer.code == 0
        assert len(answer.out.encode()) - 2 * spent < 1000, answer.args
