"""What a project's configuration may say, what a wrong one is told, and that nobody pays for it twice."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from devsup import masking
from devsup.apps import configured, naming
from devsup.apps.presets import KINDS
from devsup.config import Config, cache, dotenv, lines, values
from devsup.errors import ConfigInvalid
from devsup.paths import Home
from tests.apps_layouts import lay

FULL = """\
project = "shop"

[defaults]
idle_timeout = "15m"
env = {LOG_LEVEL = "debug", RETRIES = 3, COLOUR = false}
ready = {timeout = "90s"}

[apps.web]
kind = "next"
dir = "apps/web"
command = "npm run dev -- --turbo"
port = 3000
host = "127.0.0.1"
env = {LOG_LEVEL = "info"}
env_file = [".env", ".env.local"]
ready = {http = "/health", status = 200, log = "compiled", timeout = "2m", owner = "any"}
stop = {signal = "SIGINT", grace = "10s", keep = ["code"]}
restart = "on-failure"
ttl = "1h30m"
depends_on = ["api"]
health = {interval = 30, restart = true}

[apps.api]
command = ["go", "run", "."]
port = "auto"
"""


def loaded(folder: Path, text: str, name: str = "devsup.toml", home: Home | None = None) -> Config:
    """Return what a configuration says that holds ``text``."""
    lay(folder, {name: text})
    config = configured.load(os.path.realpath(folder), home)
    assert config is not None
    return config


def test_every_key_is_read_and_durations_are_seconds(temporary: Path) -> None:
    config = loaded(temporary, FULL)
    assert (config.project, list(config.apps)) == ("shop", ["web", "api"])
    web = config.settings("web")
    assert web["env"] == {"LOG_LEVEL": "info", "RETRIES": "3", "COLOUR": "false"}
    assert web["ready"] == {
        "http": "/health",
        "status": 200,
        "log": "compiled",
        "timeout": 120.0,
        "owner": "any",
    }
    assert web["stop"] == {"signal": "SIGINT", "grace": 10.0, "keep": ["code"]}
    assert (web["idle_timeout"], web["ttl"], web["restart"]) == (900.0, 5400.0, "on-failure")
    assert web["command"] == ["npm", "run", "dev", "--", "--turbo"]
    assert config.settings("api")["ready"] == {"timeout": 90.0}
    assert config.settings(None) == {}
    assert (config.line("apps.web.stop.signal"), config.line("apps.web.nope")) == (17, 8)


def test_the_three_files_say_the_same(temporary: Path) -> None:
    settings = {"apps": {"web": {"port": 3001, "command": "x"}}}
    table = '[apps.web]\nport = 3001\ncommand = "x"\n'
    texts = {
        "devsup.toml": table,
        "pyproject.toml": '[project]\nname = "a"\n' + table.replace("[apps", "[tool.devsup.apps"),
        "package.json": json.dumps({"name": "a", "devsup": settings}),
    }
    for name, text in texts.items():
        config = loaded(temporary / name, text, name)
        assert config.apps == {"web": {"port": 3001, "command": ["x"]}}, name
        assert config.file == str(temporary / name / name)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"devsup.toml": ""},
        {"devsup.toml": "# nothing yet\n"},
        {
            "pyproject.toml": '[project]\nname = "devsup"\n',
            "package.json": '{"dependencies": {"devsup": "1"}}',
        },
        {"package.json": "{broken devsup"},
    ],
)
def test_most_projects_have_no_configuration(temporary: Path, tree: dict[str, str]) -> None:
    lay(temporary, dict(tree))
    assert configured.load(str(temporary)) is None


def test_two_files_that_configure_are_one_too_many(temporary: Path) -> None:
    """Which of them holds would depend on who looks."""
    lay(temporary, {"package.json": '{\n"devsup": {"project": "b"}}'})
    with pytest.raises(ConfigInvalid) as caught:
        loaded(temporary, 'project = "a"')
    assert "`devsup.toml` beside it" in caught.value.message
    assert caught.value.details["file"].endswith("package.json")
    assert caught.value.details["line"] == 2


# -- wrong files ---------------------------------------------------------------------------------------

WRONG: dict[str, tuple[str, str | None, int, str, str | None]] = {
    # what is wrong: (file, key, line, what the message says, what was probably meant)
    "a misspelt key": ("[apps.web]\nprot = 3000\n", "apps.web.prot", 2, "unknown key `prot`", "port"),
    "a kind by another name": ('[apps.web]\n\nkind = "nextjs"\n', "apps.web.kind", 3, '`"nextjs"`', "next"),
    "a port in quotes": ('[apps.web]\nport = "3000"\n', "apps.web.port", 2, '1 to 65535, "auto"', "3000"),
    "a port too high": ("[apps.web]\nport = 70000\n", "apps.web.port", 2, "`70000` cannot be", None),
    "a table of the wrong name": ("[app.web]\nport = 1\n", "app", 1, "unknown key `app`", "apps"),
    "a table without its name": ("[web]\nport = 1\n", "web", 1, "unknown key `web`", "[apps.web]"),
    "no TOML": ('[apps.web]\ncommand = "npm\n', None, 2, "not valid TOML: ", None),
    "a size that is too small": (
        "[defaults]\nlog_limit = 1000\n",
        "defaults.log_limit",
        2,
        "a number of bytes from 65536 on",
        None,
    ),
    "a duration in words": ('[defaults]\nttl = "5 minutes"\n', "defaults.ttl", 2, '"15m"', None),
    "a word of a list": (
        '[apps.web]\nrestart = "allways"\n',
        "apps.web.restart",
        2,
        "`on-failure`",
        "always",
    ),
    "a signal without SIG": (
        '[apps.web]\nstop = {signal = "INT"}\n',
        "apps.web.stop.signal",
        2,
        "`SIGINT`",
        "SIGINT",
    ),
    "a circle": (
        '[apps.a]\ndepends_on = ["b"]\n[apps.b]\ndepends_on = ["a"]\n',
        "apps.b.depends_on",
        4,
        "a -> b -> a is a circle",
        None,
    ),
    "a path of a URL": (
        '[apps.web]\nready = {http = "ok"}\n',
        "apps.web.ready.http",
        2,
        "begins with `/`",
        "/ok",
    ),
    "a name with a line end": (
        '[fleet]\nname = "web\\n"\n',
        "fleet.name",
        2,
        r'`"web\n"` cannot be',
        None,
    ),
    "a name with a blank": ('[apps."My App"]\nport = 1\n', "apps.My App", 1, "cannot be a name", "my-app"),
    "text for a table": ('[apps]\nweb = "next dev"\n', "apps.web", 2, "is no table", "[apps.web]"),
    "an open quote": (
        '[apps.web]\ncommand = "a \'b"\n',
        "apps.web.command",
        2,
        "a quote is not closed",
        None,
    ),
    "no regular expression": (
        '[apps.a]\nready.log = "("\n',
        "apps.a.ready.log",
        2,
        "regular expression",
        None,
    ),
    "a contradiction": (
        '[apps.a]\nready = {tcp = true, http = "/"}\n',
        "apps.a.ready.tcp",
        2,
        "asks for no HTTP answer",
        None,
    ),
    "a value of a variable": (
        "[apps.a]\nenv = {A = [1]}\n",
        "apps.a.env",
        2,
        "`A` can be no list and no table",
        None,
    ),
    "a password in a file": (
        '[fleet]\nurl = "redis://:hunter2@db:6379"\n',
        "fleet.url",
        2,
        "a password does not belong into a file",
        "$REDIS_URL",
    ),
    "no address of Redis": ('[fleet]\nurl = "http://x"\n', "fleet.url", 2, "no address of Redis", None),
    "a variable that is none": ('[fleet]\nurl = "$A-B"\n', "fleet.url", 2, "no name of a variable", None),
    "a time too short": ('[fleet]\nttl = "500ms"\n', "fleet.ttl", 2, '"1s" to "24h"', None),
    "a misspelt key of a fleet": ("[fleet]\nonlost = 1\n", "fleet.onlost", 2, "in `[fleet]`", "on_lost"),
    "a word about leases": ('[fleet]\non_lost = "end"\n', "fleet.on_lost", 2, "`keep`, `stop`", None),
    "exclusive, but where": ("[apps.a]\nexclusive = true\n", "apps.a.exclusive", 2, "`fleet`", None),
    "exclusive for all": ('[defaults]\nexclusive = "fleet"\n', "defaults.exclusive", 2, "unknown key", None),
    "two at once": ("[apps.a]\nprot = 1\nttl = []\n", "apps.a.prot", 2, "also wrong: line 3", "port"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_told_where_and_what_else(temporary: Path, name: str) -> None:
    text, key, line, said, meant = WRONG[name]
    with pytest.raises(ConfigInvalid) as caught:
        loaded(temporary, text)
    error = caught.value
    file = str(temporary / "devsup.toml")
    assert set(error.details) == {"file", "key", "line", "allowed"}
    assert (error.details["file"], error.details["key"], error.details["line"]) == (file, key, line)
    assert error.message.startswith(f"`{file}`, line {line}: ")
    assert said in error.message
    assert all(isinstance(one, str) for one in error.details["allowed"])
    assert error.hint is not None
    assert f"correct line {line} of `{file}`" in error.hint
    assert (f"did you mean `{meant}`?" in error.hint) if meant else ("did you mean" not in error.hint)


@pytest.mark.parametrize("text", ['[apps.a]\nenv = "TOKEN=hunter2"', '[apps.a.env]\n"A=B" = "hunter2"'])
def test_no_error_shows_the_value_of_a_variable(temporary: Path, text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        loaded(temporary, text)
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint} {caught.value.details}"


@pytest.mark.parametrize(
    "text",
    [
        '[apps.a]\nhost = "https://a-rather-long-name-of-somebody:hunter2-and-more-than-that@db.local/"',
        '[apps.a]\ncommand = ["srv", "--a-flag-that-is-long", "--token", "hunter2-and-more-than-that", 5]',
    ],
)
def test_no_error_shows_half_of_a_secret(temporary: Path, text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        loaded(temporary, text)
    assert "hun" not in masking.text(caught.value.message)


def test_a_file_that_cannot_be_read_says_so(temporary: Path) -> None:
    (temporary / "devsup.toml").write_bytes(b"project = '\xff'")
    with pytest.raises(ConfigInvalid, match="line 1: not valid UTF-8"):
        configured.load(str(temporary))


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("pyproject.toml", "[tool.devsup.apps.web]\nport = 3000\n[project]\nname =\n", 4),
        ("package.json", '{\n"devsup": {"apps": {"web": {"port": 3000}}},\n', 3),
    ],
)
def test_a_broken_file_with_a_section_is_not_passed_over(
    temporary: Path, name: str, text: str, line: int
) -> None:
    """What is detected would run, on another port, and nobody would be told."""
    lay(temporary, {name: text})
    with pytest.raises(ConfigInvalid, match=f"line {line}: not valid ") as caught:
        configured.load(str(temporary))
    assert caught.value.details["line"] == line
    lay(temporary, {name: text.replace("devsup", "another")})
    assert configured.load(str(temporary)) is None


def test_what_is_no_file_is_not_passed_over(temporary: Path) -> None:
    path = temporary / "devsup.toml"
    path.symlink_to(temporary / "nowhere")
    with pytest.raises(ConfigInvalid, match="a link to a file that is not there"):
        configured.load(str(temporary))
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigInvalid, match="no regular file"):
        configured.load(str(temporary))
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(ConfigInvalid, match="no regular file"):
        configured.load(str(temporary))


def test_a_long_chain_of_dependencies_is_no_bug(temporary: Path) -> None:
    apps = [f'[apps.a{number}]\ndepends_on = ["a{number + 1}"]\n' for number in range(1500)]
    config = loaded(temporary, "".join([*apps, "[apps.a1500]\nport = 1\n"]))
    assert len(config.apps) == 1501
    with pytest.raises(ConfigInvalid, match="is a circle"):
        loaded(temporary, "".join([*apps, '[apps.a1500]\ndepends_on = ["a0"]\n']))


def test_names_are_those_of_apps() -> None:
    """The pattern in the schema and the check of names on the command line are one rule."""
    import re

    for name in ("web", "a_b-c", "3d", "4711", "-a", "A", "a" * 63, "a" * 64, "", "a b", "_x", "9"):
        assert naming.is_name(name) == (re.match(values.NAME, name) is not None), name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("npm run dev", ["npm", "run", "dev"]),
        ("run 'two words' --x=1", ["run", "two words", "--x=1"]),
        ("A=1 run", ["sh", "-c", "A=1 run"]),
        ("build && run", ["sh", "-c", "build && run"]),
        ('run "$PORT"', ["sh", "-c", 'run "$PORT"']),
    ],
)
def test_a_command_needs_a_shell_only_where_it_uses_one(text: str, words: list[str]) -> None:
    assert values.command(text) == words


def test_the_lines_of_keys_are_found_in_any_way_of_writing_toml() -> None:
    text = (
        '# a = 1\n"quoted key" = """\nx = 1\n"quoted""""\nlist = [\n  {a = "]"}, # }\n  2,\n]\n'
        "[ one . 'two' ]\nthree.four = {five = '}', six = [1]}\r\n[[many]]\nx = 1979-05-27T07:32:00Z\n"
    )
    found = lines.in_toml(text)
    assert {key: found[key] for key in ("quoted key", "list", "list.a", "one.two", "many.x")} == {
        "quoted key": 2,
        "list": 5,
        "list.a": 6,
        "one.two": 9,
        "many.x": 12,
    }
    assert found["one.two.three.four.six"] == 10
    assert "x" not in found


@pytest.mark.parametrize(
    "text", ["", "[", "a", "a =", 'a = "', "a = {b", "a = [1", "]", "\0", "[a.", "a = '''"]
)
def test_broken_toml_never_breaks_the_search(text: str) -> None:
    assert isinstance(lines.in_toml(text), dict)
    assert isinstance(lines.in_json(text), dict)


def test_the_lines_of_keys_are_found_in_json() -> None:
    found = lines.in_json('{"a": [1, {"b": "}"}],\n "devsup": {"apps": {\n"w\\u0065b": {"port":\n3}}}}')
    assert found == {
        "a": 1,
        "a.b": 1,
        "devsup": 2,
        "devsup.apps": 2,
        "devsup.apps.web": 3,
        "devsup.apps.web.port": 3,
    }


# -- env_file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=1\nB = two words \n", {"A": "1", "B": "two words"}),
        ("export A=1\r\n# B=2\n\n", {"A": "1"}),
        (
            "A='x # y' # z\nB=\"x # y\"\nC=x # y\nD=x#y\nE=#x",
            {"A": "x # y", "B": "x # y", "C": "x", "D": "x#y", "E": ""},
        ),
        ('A="one\\ntwo \\"q\\" \\\\ \\x"\nB=\'\\n\'', {"A": 'one\ntwo "q" \\ \\x', "B": "\\n"}),
        ('KEY="-----BEGIN\nabc\n-----END"\nB=2', {"KEY": "-----BEGIN\nabc\n-----END", "B": "2"}),
        ("A=\nA.B-C=$HOME ${X}", {"A": "", "A.B-C": "$HOME ${X}"}),
        ("A=1\nA=2", {"A": "2"}),
        ("\ufeffA=a=b", {"A": "a=b"}),
    ],
)
def test_a_dotenv_file_says(text: str, found: dict[str, str]) -> None:
    assert dotenv.parse(text) == found


@pytest.mark.parametrize(
    ("text", "line"), [("A=1\nsecret", 2), ("A='x", 1), ("\n\n=x", 3), ("1A=x", 1), ("A='x' y", 1)]
)
def test_a_line_that_is_none_is_named_and_not_shown(text: str, line: int) -> None:
    with pytest.raises(dotenv.Unreadable) as caught:
        dotenv.parse(text)
    assert caught.value.line == line
    assert "secret" not in str(caught.value)


# -- the cache -----------------------------------------------------------------------------------------


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often a file is really checked."""
    from devsup.config import check

    counted: list[int] = []
    real = check.check

    def count(*args: Any) -> Any:
        counted.append(1)
        return real(*args)

    monkeypatch.setattr(check, "check", count)
    return counted


def aged(path: Path) -> Path:
    """Wait until a change of ``path`` would be seen by its times."""
    while time.time_ns() - path.stat().st_ctime_ns < 40_000_000:
        time.sleep(0.01)
    return path


def test_a_file_is_checked_once_until_it_changes(temporary: Path, home: Path, checks: list[int]) -> None:
    place, project = Home(str(home)), temporary / "p"
    file = lay(project, {"devsup.toml": "[apps.a]\nport = 3001\n"}) / "devsup.toml"
    aged(file)
    first = configured.load(str(project), place)
    assert configured.load(str(project), place) == first
    assert len(checks) == 1
    before = file.stat()
    file.write_text("[apps.a]\nport = 3002\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # the same size, the same date
    changed = configured.load(str(project), place)
    assert changed is not None
    assert changed.apps["a"]["port"] == 3002
    stored = Path(place.config(str(project)))
    assert (stored.stat().st_mode & 0o777, stored.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_file_without_a_section_is_remembered_as_one(
    temporary: Path, home: Path, checks: list[int]
) -> None:
    file = lay(temporary / "p", {"pyproject.toml": '[project]\nname = "devsup"\n'}) / "pyproject.toml"
    aged(file)
    for _ in range(3):
        assert configured.load(str(file.parent), Home(str(home))) is None
    assert len(checks) == 1


def test_a_file_that_has_just_changed_is_not_remembered(
    temporary: Path, home: Path, checks: list[int]
) -> None:
    """Its next change may come within the same tick of the clock, and nothing would tell."""
    file = temporary / "p" / "devsup.toml"
    for port in (3001, 3002, 3003):
        config = loaded(file.parent, f"[apps.a]\nport = {port}\n", home=Home(str(home)))
        assert config.apps["a"]["port"] == port
    assert len(checks) == 3


@pytest.mark.parametrize("damage", ["", "x", "00000000\n{}", None, "cut", "flip", "folder", "link"])
def test_a_damaged_cache_is_as_good_as_none(temporary: Path, home: Path, damage: str | None) -> None:
    place, project = Home(str(home)), temporary / "p"
    file = lay(project, {"devsup.toml": "[apps.a]\nport = 3001\n"}) / "devsup.toml"
    aged(file)
    first = configured.load(str(project), place)
    stored = Path(place.config(str(project)))
    text = stored.read_text()
    if damage == "cut":
        stored.write_text(text[:-10])
    elif damage == "flip":
        stored.write_text(text.replace("3001", "3009"))
    elif damage == "folder":
        stored.unlink()
        stored.mkdir()
    elif damage == "link":
        stored.rename(temporary / "elsewhere")
        stored.symlink_to(temporary / "elsewhere")
    elif damage is None:
        stored.unlink()
    else:
        stored.write_text(damage)
    assert configured.load(str(project), place) == first


@pytest.mark.parametrize("call", ["mkdir", "open", "write", "rename"])
def test_a_home_that_cannot_be_written_is_no_obstacle(
    temporary: Path, home: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    aged(lay(temporary / "p", {"devsup.toml": "[apps.a]\nport = 3001\n"}) / "devsup.toml")
    real = getattr(os, call)

    def refuse(*args: Any) -> Any:
        if call == "open" and not args[1] & os.O_CREAT:
            return real(*args)
        raise OSError(errno.EROFS, "read-only file system")

    monkeypatch.setattr(os, call, refuse)
    assert configured.load(str(temporary / "p"), Home(str(home))) is not None
    monkeypatch.undo()
    assert not [path for path in home.rglob("*.json") if path.is_file()]


def test_a_state_folder_that_is_not_there_is_not_made(temporary: Path) -> None:
    aged(lay(temporary / "p", {"devsup.toml": "[apps.a]\nport = 3001\n"}) / "devsup.toml")
    assert configured.load(str(temporary / "p"), Home(str(temporary / "none"))) is not None
    assert not (temporary / "none").exists()


def test_an_older_devsup_s_cache_is_not_read(
    temporary: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, project = Home(str(home)), temporary / "p"
    aged(lay(project, {"devsup.toml": "[apps.a]\nport = 3001\n"}) / "devsup.toml")
    monkeypatch.setattr(cache, "SCHEMA", 0)
    configured.load(str(project), place)
    old = Path(place.config(str(project))).read_text()
    monkeypatch.undo()
    configured.load(str(project), place)
    assert Path(place.config(str(project))).read_text() != old
    assert set(KINDS) >= {"next", "expo", "command"}
