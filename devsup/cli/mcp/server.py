"""
One client, over standard input and output: each call of a tool runs a command in a thread of its own.

The event loop only moves messages. A call that the client cancels is left as Ctrl-C leaves a command: what
has begun goes on, and the registry says so. When the client goes, so does this process, at once, and servers
go on.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.to_thread
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from devsup import __version__, logs, masking
from devsup.apps import owner as owners
from devsup.cli import answer, handlers
from devsup.cli.answer import Answer
from devsup.cli.mcp import tools
from devsup.cli.mcp.roots import Roots
from devsup.errors import DevsupError
from devsup.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mcp.server.context import ServerRequestContext
    from mcp.server.session import ServerSession

    from devsup.models import CheckResult, LogPage
    from devsup.supervisor.waiting import Progress

__all__ = ["serve"]

#: Calls that may run side by side: one client, with as many starts and waits for logs as it likes.
CALLS = 100
#: Seconds that a client may take to name its roots.
ROOTS_TIMEOUT = 10.0
#: Seconds after which a start that has nothing new to tell tells it again.
TELL_EVERY = 1.0

INSTRUCTIONS = """\
Start, watch and stop development servers. Never run a dev server in a shell (`npm run dev &`) and never end
one by `pkill` or `lsof | xargs kill`: call start_server, which gives back the one that runs, and stop_server.
After an edit call check_server with the last `next_cursor` as `after`: it tells whether the edit broke the
server, and where. An error's `hint` says what to do next."""


def serve(folder: str) -> None:
    """Serve the client on stdin and stdout until it leaves; ``folder`` is allowed where it names no roots."""
    gc.enable()  # this one may live for days
    # Nothing is to be cleaned up, and a thread that reads stdin cannot be told: the plain end is right.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    try:
        anyio.run(_Connection(folder).run)
    except* (BrokenPipeError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # the client has gone in the middle of an answer


class _Connection:
    """What is known of the client. Lives in the event loop; the threads of calls get only what they need."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._roots: Roots | None = None
        #: How often the client has said that its roots have changed: an answer from before is not kept.
        self._changes = 0
        self._calls = anyio.CapacityLimiter(CALLS)

    async def run(self) -> None:
        server: Server[Any] = Server(
            "devsup",
            version=__version__,
            title="devsup",
            instructions=INSTRUCTIONS,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        server.add_notification_handler(
            "notifications/roots/list_changed", types.NotificationParams, self._roots_changed
        )
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())

    async def _list(self, _context: Any, _params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_shown(tool) for tool in tools.TOOLS.values()])

    async def _call(
        self, context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        tool = tools.TOOLS.get(params.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, f"no tool `{params.name}`")
        roots = await self._allowed(context, params)
        if isinstance(roots, types.InputRequiredResult):
            return roots
        _call_us_by(context.session)
        try:
            arguments = tools.parse(tool, params.arguments)
            folder = roots.resolve(arguments.project)
        except DevsupError as error:
            return _result(Answer(tool.verb, error=error))
        command = tools.call(tool, arguments, directory=None if folder == self._folder else folder)
        listener = _Listener(context.session)
        work = functools.partial(
            handlers.run, command, listener, lambda: _Supervisor(folder, roots.folders, listener.rest)
        )
        try:
            return _result(await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._calls))
        finally:
            listener.cancelled.set()

    async def _allowed(
        self, context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> Roots | types.InputRequiredResult:
        capabilities = context.session.client_capabilities
        if capabilities is None or capabilities.roots is None:
            return Roots([self._folder])
        if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            # There a server asks nothing: it answers with its question, and the client calls again.
            named = (params.input_responses or {}).get("roots")
            if not isinstance(named, types.ListRootsResult):
                return types.InputRequiredResult(input_requests={"roots": types.ListRootsRequest()})
            return self._named(named)
        if self._roots is not None:
            return self._roots
        asked_at = self._changes
        try:
            named = await context.session.send_request(
                types.ListRootsRequest(), types.ListRootsResult, request_read_timeout_seconds=ROOTS_TIMEOUT
            )
        except MCPError:
            return Roots([self._folder])  # it has none to name after all
        roots = self._named(named)
        if asked_at == self._changes:
            self._roots = roots
        return roots

    def _named(self, result: types.ListRootsResult) -> Roots:
        return Roots.named([str(root.uri) for root in result.roots], otherwise=self._folder)

    async def _roots_changed(self, _context: Any, _params: Any) -> None:
        self._changes += 1
        self._roots = None


def _call_us_by(session: ServerSession) -> None:
    """Have what is started belong to the client, unless the environment already says whose it is."""
    client = session.client_params
    if client is not None and owners.detect(os.environ) in owners.ANYBODY:
        name = owners.printable(client.client_info.name)
        if name:
            os.environ[owners.NAMED] = name


class _Supervisor(Supervisor):
    """One whose reading calls end where nobody waits for them any more: no thread is kept by them."""

    def __init__(self, folder: str, within: Sequence[str], rest: Callable[[float], None]) -> None:
        super().__init__(folder, within=within)
        self._rest = rest

    def logs(self, *given: Any, **named: Any) -> LogPage:
        return super().logs(*given, **named, rest=self._rest)

    def check(self, *given: Any, **named: Any) -> CheckResult:
        return super().check(*given, **named, rest=self._rest)


class _Listener:
    """Tells the client what a start waits for; called in the thread of that call, as is `rest`."""

    def __init__(self, session: ServerSession) -> None:
        self.cancelled = threading.Event()
        self._session = session
        self._count = 0
        self._said = ""
        self._next = 0.0

    def rest(self, seconds: float) -> None:
        """Wait so long, or end the call as Ctrl-C would, as soon as nobody waits for it any more."""
        if self.cancelled.wait(seconds):
            raise KeyboardInterrupt

    def __call__(self, progress: Progress) -> None:
        """Report ``progress``, or end the call as Ctrl-C would, where nobody waits for it any more."""
        if self.cancelled.is_set():
            raise KeyboardInterrupt
        line = logs.last_line(progress.log, 200) if progress.log is not None else ""
        text = masking.text(": ".join(filter(None, (progress.text, line))))
        now = time.monotonic()
        if text == self._said and now < self._next:
            return
        self._said, self._next = text, now + TELL_EVERY
        self._count += 1
        try:
            anyio.from_thread.run(self._session.report_progress, self._count, None, text)
        except Exception:
            raise KeyboardInterrupt from None  # the connection is no more


def _shown(tool: tools.Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema,
        output_schema=tool.output_schema,
        annotations=types.ToolAnnotations(
            title=tool.title,
            read_only_hint=tool.effect == "read",
            destructive_hint=tool.effect == "destructive",
            idempotent_hint=True,  # a second call finds it done
            open_world_hint=False,
        ),
    )


def _result(found: Answer) -> types.CallToolResult:
    text = answer.document(found)
    return types.CallToolResult(
        content=[types.TextContent(text=text)],
        structured_content=json.loads(text),
        is_error=found.error is not None,
    )
