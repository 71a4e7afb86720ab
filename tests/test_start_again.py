"""A start finds its server also where only its name, or only its folder, leads there."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support import Devsup, free_port, server_argv


def test_a_name_alone_finds_the_server_that_runs_under_it(devsup: Devsup) -> None:
    """The command was given once; whoever asks for the name again means that server."""
    port = free_port()
    first = devsup("start", "api", "--json", "--", *server_argv("web", "--port", port)).data
    again = devsup("start", "api", "--json").data
    assert again["reused"]
    assert again["server"]["pid"] == first["server"]["pid"]
    assert devsup("stop", "api", "--json").code == 0
    assert devsup("start", "api", "--json").error["code"] == "not_found"


def test_one_app_is_one_server_from_the_folder_above_too(devsup: Devsup, temporary: Path) -> None:
    """Without a repository the folder above is another project, and its app is the same all the same."""
    outer = temporary / "outer"
    app = outer / "site"
    binary = app / "node_modules" / ".bin" / "next"
    binary.parent.mkdir(parents=True)
    (app / "package.json").write_text(
        json.dumps({"scripts": {"dev": "next dev"}, "dependencies": {"next": "16"}})
    )
    code = " ".join(f"'{word}'" for word in server_argv("next_like"))
    binary.write_text(f'#!/bin/sh\nshift\nexec {code} "$@"\n')
    binary.chmod(0o755)
    (app / "app").mkdir()
    port = free_port()
    first = devsup("start", "web", "--port", port, "--json", cwd=app).data
    again = devsup("start", "web", "--port", port, "--json", cwd=outer).data
    assert first["server"]["project"] == str(app)
    assert again["reused"]
    assert again["server"]["pid"] == first["server"]["pid"]
    assert devsup("stop", f":{port}", "--json", cwd=outer).code == 0
