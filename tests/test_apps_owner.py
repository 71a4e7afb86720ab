"""Who started a server: told by what agents set in their shells."""

from __future__ import annotations

import os

import pytest

from devsup.apps import owner


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


def test_closed_descriptors_are_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(fd: int) -> bool:
        raise OSError(9, "Bad file descriptor", str(fd))

    monkeypatch.setattr(os, "isatty", closed)
    assert owner.detect({}) == "script"
