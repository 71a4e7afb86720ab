"""
A tool for an agent framework on ``devsup.aio``: one function that a model calls, its commands validated.

Run ``python examples/agent_tool.py`` for an episode without a model. What a framework needs is
`DevServerTool`: its ``name``, ``description`` and ``parameters`` (a JSON Schema) for the model, and
``execute``, which never raises for what the model has done wrong: it answers with what to do instead.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Any

from devsup import DevsupError
from devsup.aio import Supervisor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

#: Programs that a model may run as a server. What is not here is refused before anything is spawned.
PROGRAMS = frozenset(
    {"bun", "bunx", "expo", "next", "node", "npm", "npx", "pnpm", "python", "python3", "vite", "yarn"}
)
#: How a word begins that has them run any text as code: a program that may do everything is no restriction.
#: The text may be attached (`-cpass`, `--eval=1`), and other letters may come before (`-Bc`, `-pe`).
EVALUATES = re.compile(r"-[bBdEiIOPqsSuvx]*c|-[ip]*[ep]|--(call|eval|print)(=|$)")
#: A page of a log that a model can afford.
LOG_BYTES = 4_000


class Refused(Exception):
    """The model asked for something that it may not do; the text says what it may."""


def validate(command: object, *, programs: frozenset[str] = PROGRAMS) -> list[str]:
    """
    Return ``command`` as the list that will be executed.

    A list is never seen by a shell, so nothing in it is quoted, expanded or chained.

    :raises Refused: it is a text, empty, or runs what a model may not run
    """
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise Refused('`command` is a list of words, for example ["npm", "run", "dev"]')
    words = [str(word) for word in command]
    if any("\0" in word or "\n" in word for word in words):
        raise Refused("a word of `command` has a line end in it")
    program = os.path.basename(words[0])
    if words[0] != program or program not in programs:
        raise Refused(f"`{words[0]}` may not be run; what may: {', '.join(sorted(programs))}")
    if any(map(EVALUATES.match, words[1:])):
        raise Refused("code on the command line is not allowed: put it into a file of the project")
    return words


class DevServerTool:
    """Start, watch and stop the development servers of one workspace."""

    name = "dev_server"
    description = (
        "Start, watch and stop development servers. `start` returns when the server answers, and gives back "
        "the one that already runs. After an edit use `check` with the `cursor` of the last answer."
    )
    parameters: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "action": {"enum": ["start", "stop", "restart", "list", "check", "logs"]},
            "app": {"type": "string", "description": "App of the project (`web`), or a name for `command`."},
            "command": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "cursor": {"type": "string", "description": "For `check` and `logs`: that of the last answer."},
        },
        "required": ["action"],
        "additionalProperties": False,
    }

    def __init__(self, workspace: str, *, owner: str = "agent", timeout: float = 45.0) -> None:
        # Nothing outside of the workspace is started, shown or stopped, whatever the model names.
        self._devsup = Supervisor(workspace, within=[workspace])
        self._owner = owner
        self._timeout = timeout

    async def execute(self, action: str, **given: Any) -> dict[str, Any]:
        """Do what the model asks for and return what it is to read, mistakes included."""
        try:
            actions: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
                "start": self._start,
                "stop": self._stop,
                "restart": self._restart,
                "list": self._list,
                "check": self._check,
                "logs": self._logs,
            }
            work = actions.get(action)
            if work is None:
                raise Refused(f"no action `{action}`")
            unknown = given.keys() - self.parameters["properties"].keys()
            if unknown:
                raise Refused(f"unknown: {', '.join(sorted(unknown))}")
            return {"ok": True, **await work(**given)}
        except (Refused, TypeError) as error:
            return {"ok": False, "error": str(error)}
        except DevsupError as error:
            tail = error.details.get("log_tail")
            return {
                "ok": False,
                "error": error.message,
                "code": error.code,
                "hint": error.hint,
                **({"log": tail} if tail else {}),
            }

    async def _start(self, app: str | None = None, command: Sequence[str] | None = None) -> dict[str, Any]:
        words = None if command is None else validate(command)
        result = await self._devsup.start_server(
            app,
            command=words,
            port=None if words is None else "auto",
            timeout=self._timeout,
            owner=self._owner,
        )
        return {"app": result.server.app, "url": result.server.url, "reused": result.reused}

    async def _stop(self, app: str) -> dict[str, Any]:
        # The model is not the caller of this process's environment: what it may end is decided here.
        result = await self._devsup.stop_server(app, take_over=await self._is_ours(app))
        if result.error is not None:
            raise Refused(result.message or result.error)
        return {"outcome": result.outcome.value, "port_free": result.port_free}

    async def _is_ours(self, app: str) -> bool:
        servers = (await self._devsup.list_servers()).servers
        return any(one.owner == self._owner for one in servers if app in (one.app, one.session))

    async def _restart(self, app: str) -> dict[str, Any]:
        result = await self._devsup.restart_server(
            app, timeout=self._timeout, take_over=await self._is_ours(app)
        )
        return {"app": result.server.app, "url": result.server.url}

    async def _list(self) -> dict[str, Any]:
        found = (await self._devsup.list_servers()).servers
        return {"servers": [{"app": one.app, "state": one.state.value, "url": one.url} for one in found]}

    async def _check(self, app: str, cursor: str | None = None) -> dict[str, Any]:
        seen = await self._devsup.check_server(app, after=cursor)
        errors = [
            {"where": f"{one.file}:{one.line}" if one.file else None, "message": one.message}
            for one in seen.new_errors
        ]
        return {"verdict": seen.verdict, "http": seen.http, "errors": errors, "cursor": seen.next_cursor}

    async def _logs(self, app: str, cursor: str | None = None) -> dict[str, Any]:
        page = await self._devsup.get_server_logs(app, after=cursor, max_bytes=LOG_BYTES)
        return {"text": page.text, "cursor": page.next_cursor, "ended": page.ended}


#: What the model in the episode has written.
SERVER = """
import http.server, os
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(os.environ["PORT"]), bind="127.0.0.1")
"""


async def episode(workspace: str) -> None:
    """Do what a model might do."""
    tool = DevServerTool(workspace)
    for call in (
        {"action": "start", "app": "site", "command": "python3 server.py &"},
        {"action": "start", "app": "site", "command": ["rm", "-rf", "/"]},
        {"action": "start", "app": "site", "command": ["python3", "-u", "server.py"]},
        {"action": "start", "app": "site", "command": ["python3", "-u", "server.py"]},
        {"action": "list"},
        {"action": "check", "app": "site"},
        {"action": "logs", "app": "site"},
        {"action": "stop", "app": "site"},
    ):
        print(call, "->", await tool.execute(**call))


if __name__ == "__main__":
    with open("server.py", "w", encoding="utf-8") as program:
        program.write(SERVER)
    asyncio.run(episode(os.getcwd()))
