"""
The tools that a client sees, and the command that each of them is.

What comes in is checked here; what a tool answers is the answer of its command, word for word. Constants and
pure functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from devsup.cli import contract
from devsup.cli.grammar import VERBS
from devsup.cli.lane import Call
from devsup.cli.mcp import brief
from devsup.errors import UsageError
from devsup.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TOOLS", "Arguments", "Tool", "call", "parse"]

#: Bytes of a log in one answer, unless the caller asks for more: an agent pays for each.
LOG_BYTES = 16_000


class Arguments(BaseModel):
    """What every tool takes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    project: Annotated[
        str | None,
        Field(description="Folder in the project, within the client's roots. Default: the first root."),
    ] = None


class _Targeted(Arguments):
    target: Annotated[str, Field(description="App (`web`), session, pid or `:port`.")]


class _Start(Arguments):
    app: Annotated[
        str | None,
        Field(description="App of the project (`web`, `mobile`, ...), or a name for `command`."),
    ] = None
    command: Annotated[
        list[str] | None,
        Field(
            min_length=1,
            description='What to run instead of the app\'s own script: a list, ["npm", "run", "dev"].',
        ),
    ] = None
    port: Annotated[
        int | Literal["auto"] | None,
        Field(description="Port to serve on; `auto` picks a free one, the same every time."),
    ] = None
    timeout: Annotated[
        float | None,
        Field(ge=0, le=600, description="Seconds to wait until it answers (45, or as configured)."),
    ] = None
    wait: Annotated[bool, Field(description="Whether to wait until it answers.")] = True
    env: Annotated[
        dict[Annotated[str, Field(pattern="^[^=]+$")], str], Field(description="Variables for the server.")
    ] = {}


class _Ending(Arguments):
    grace: Annotated[
        float | None,
        Field(ge=0, le=600, description="Seconds from SIGTERM to SIGKILL (the app's own, else 5)."),
    ] = None
    take_over: Annotated[bool, Field(description="Also what belongs to another owner (an agent, say).")] = (
        False
    )


class _Stop(_Targeted, _Ending):
    pass


class _List(Arguments):
    ended: Annotated[bool, Field(description="Ended servers, too.")] = False
    fleet: Annotated[bool, Field(description="Those of all hosts of the fleet.")] = False


class _Logs(_Targeted):
    errors: Annotated[bool, Field(description="Only what went wrong, each error once.")] = False
    grep: Annotated[str | None, Field(description="Only lines that match this regular expression.")] = None
    since: Annotated[str | None, Field(description="What came since then: `10m`, `14:30`.")] = None
    lines: Annotated[int | None, Field(ge=0, description="The last so many lines.")] = None
    after: Annotated[
        str | None, Field(description="What came after this cursor: the `next_cursor` of an answer.")
    ] = None
    max_bytes: Annotated[int, Field(ge=0, le=1_000_000, description="At most so many bytes.")] = LOG_BYTES
    wait: Annotated[
        float | None, Field(ge=0, le=600, description="Wait up to so many seconds for something new.")
    ] = None


class _Check(_Targeted):
    path: Annotated[str, Field(description="Path to ask it for; 500 or more is broken.")] = "/"
    after: Annotated[
        str | None, Field(description="Count errors after this cursor: the `next_cursor` of an answer.")
    ] = None
    timeout: Annotated[float, Field(ge=0, le=600, description="Seconds for all of it.")] = 20.0


class Tool(Record):
    """One tool: the command it is, and how arguments become that command's options."""

    name: str
    title: str
    description: str
    verb: str
    arguments: type[Arguments]
    options: Callable[[Any], dict[str, Any]]

    @property
    def effect(self) -> str:
        """Return what it may do at most: that of its command."""
        return contract.EFFECTS[self.verb]

    @property
    def input_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the arguments."""
        schema = self.arguments.model_json_schema()
        schema.pop("title", None)
        schema.pop("description", None)
        for one in schema["properties"].values():
            one.pop("title", None)
        schema["properties"] = {name: brief.optional(one) for name, one in schema["properties"].items()}
        return schema

    @property
    def output_schema(self) -> dict[str, Any]:
        """Return a JSON Schema of the answer, errors included: the short form of the command's."""
        return brief.brief(contract.schema(self.verb))


def _start(given: _Start) -> dict[str, Any]:
    return {
        "app": given.app,
        "command": given.command,
        "port": None if given.port is None else str(given.port),
        "timeout": given.timeout,
        "no_wait": not given.wait,
        "env": [f"{name}={value}" for name, value in given.env.items()] or None,
    }


def _ending(given: _Ending) -> dict[str, Any]:
    return given.model_dump(include={"grace", "take_over"})


def _logs(given: _Logs) -> dict[str, Any]:
    return {"targets": [given.target], **given.model_dump(exclude={"project", "target"})}


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            name="start_server",
            title="Start a development server",
            description=(
                "Start an app's development server, or find it running, and wait until it really answers. "
                "Safe to repeat: a server that runs is given back (`reused`). Use it instead of running "
                "`npm run dev` in a shell. On error `not_ready` it goes on starting: call again."
            ),
            verb="start",
            arguments=_Start,
            options=_start,
        ),
        Tool(
            name="stop_server",
            title="Stop a development server",
            description=(
                "End a server with all its processes and check that its port is free. Only ever ends what "
                "devsup started. Use it instead of `kill`, `pkill` or `lsof`."
            ),
            verb="stop",
            arguments=_Stop,
            options=lambda given: {"targets": [given.target], **_ending(given)},
        ),
        Tool(
            name="list_servers",
            title="List development servers",
            description="The servers of a project, with state, pid, port and url.",
            verb="list",
            arguments=_List,
            options=lambda given: {"all": given.ended, "fleet": given.fleet},
        ),
        Tool(
            name="get_server_logs",
            title="Read a server's log",
            description=(
                "A page of what a server has printed, also an ended one. Give `next_cursor` back as `after` "
                "to get only what is new; `wait` blocks for it instead of polling."
            ),
            verb="logs",
            arguments=_Logs,
            options=_logs,
        ),
        Tool(
            name="check_server",
            title="Did the last edit break it?",
            description=(
                "Whether a server listens, answers a path, and has printed new errors, each with file and "
                "line. Call it after an edit, with `after` from the last answer. On error `unhealthy` read "
                "`data`."
            ),
            verb="check",
            arguments=_Check,
            options=lambda given: given.model_dump(include={"target", "path", "after", "timeout"}),
        ),
        Tool(
            name="server_status",
            title="Look at one server",
            description="One server, also an ended one, with the processes of its tree.",
            verb="status",
            arguments=_Targeted,
            options=lambda given: {"target": given.target},
        ),
        Tool(
            name="cleanup",
            title="Stop every server of a project",
            description="End all servers of a project with all their processes; tell each failure by itself.",
            verb="stop",
            arguments=_Ending,
            options=lambda given: {"all": True, **_ending(given)},
        ),
    )
}


def call(tool: Tool, arguments: Arguments, *, directory: str | None) -> Call:
    """Return the command that a call of ``tool`` is; its hints are meant for ``directory``."""
    defaults: dict[str, Any] = VERBS[tool.verb][3]
    return Call(tool.verb, {**defaults, **tool.options(arguments), "json": True, "directory": directory})


def parse(tool: Tool, arguments: dict[str, Any] | None) -> Arguments:
    """
    Return the arguments of a call, checked.

    :raises UsageError: something is missing, unknown or of the wrong kind; says which
    """
    try:
        return tool.arguments.model_validate(arguments or {})
    except ValidationError as error:
        # The input itself may be a secret, so only its place is named.
        wrong = [
            f"`{_place(one['loc']) or tool.name}`: {one['msg'][:1].lower()}{one['msg'][1:]}"
            for one in error.errors(include_input=False, include_url=False)
        ]
        raise UsageError(
            "; ".join(dict.fromkeys(wrong)), hint=f"call `{tool.name}` with what its input schema names"
        ) from None


def _place(location: tuple[int | str, ...]) -> str:
    # A name that the caller made up is input, too.
    return ".".join(map(str, location[:-2] if location[-1:] == ("[key]",) else location))
