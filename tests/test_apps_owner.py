"""Who started a server: told by what agents set in their shells."""

from __future__ import annotations

import os

import pytest

from devsup.apps import owner
from devsup.errors import UsageError
from tests.registry_child import make_row


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"DEVSUP_OWNER": "ci", "CLAUDECODE": "1"}, "ci"),
        ({"AI_AGENT": "some-agent/1.2", "CLAUDECODE": "1"}, "some-agent/1.2"),
        ({"AGENT": "amp"}, "amp"),
        ({"CLAUDECODE": "1"}, "claude-code"),
        ({"CLAUDE_CODE": "1"}, "claude-code"),
        ({"GEMINI_CLI": "1"}, "gemini-cli"),
        ({"CODEX_SANDBOX": "seatbelt"}, "codex"),
        ({"CODEX_CI": "1"}, "codex"),
        ({"CODEX_THREAD_ID": "x"}, "codex"),
        ({"CURSOR_AGENT": "1"}, "cursor"),
        ({"OPENCODE_CLIENT": "cli"}, "opencode"),
        ({"AUGMENT_AGENT": "1"}, "augment"),
        ({"ANTIGRAVITY_AGENT": "1"}, "antigravity"),
        ({"DEVSUP_OWNER": "  ", "GEMINI_CLI": "1"}, "gemini-cli"),
        ({"DEVSUP_OWNER": "a\n\x1b[31mb\0"}, "a[31mb"),
        ({"DEVSUP_OWNER": "x" * 100}, "x" * 64),
        ({"CLAUDECODE": ""}, "script"),
        ({"CI": "1"}, "script"),
    ],
)
def test_the_environment_tells(environ: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _fd: False)
    assert owner.detect(environ) == name


def test_a_terminal_is_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 2)
    assert owner.detect({}) == "terminal"


@pytest.mark.parametrize(
    ("owner_", "environ", "tty", "may"),
    [
        ("claude-code", {"CLAUDECODE": "1"}, False, True),
        ("claude-code", {"GEMINI_CLI": "1"}, False, False),
        ("claude-code", {}, False, False),
        ("claude-code", {}, True, True),
        # An agent on a terminal of its own is no person.
        ("claude-code", {"GEMINI_CLI": "1"}, True, False),
        # A name that a person has given himself makes no agent of him.
        ("claude-code", {"DEVSUP_OWNER": "me"}, True, True),
        ("ci", {"DEVSUP_OWNER": "ci"}, False, True),
        ("ci", {"DEVSUP_OWNER": "me"}, False, False),
        # Whoever these were, it cannot be told from who asks now.
        ("terminal", {}, False, True),
        ("script", {"CLAUDECODE": "1"}, False, True),
        (None, {}, False, True),
    ],
)
def test_only_a_named_owner_keeps_others_out(
    owner_: str | None, environ: dict[str, str], tty: bool, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "isatty", lambda _fd: tty)
    refusal = owner.anothers(make_row(owner=owner_), environ)
    assert (refusal is None) is may
    if refusal is not None:
        assert (refusal.code, refusal.exit_code, refusal.details) == ("other_owner", 12, {"owner": owner_})
        assert owner_ is not None
        assert owner_ in refusal.message


def test_an_owner_s_name_is_something_to_print() -> None:
    assert owner.clean(" a\n\x1b[31mb ") == "a[31mb"
    with pytest.raises(UsageError, match="an empty owner"):
        owner.clean(" \n")


def test_closed_descriptors_are_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(fd: int) -> bool:
        raise OSError(9, "Bad file descriptor", str(fd))

    monkeypatch.setattr(os, "isatty", closed)
    assert owner.detect({}) == "script"
