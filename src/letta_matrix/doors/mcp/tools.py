"""The toolbox as MCP tools (MCP specification, server/tools)."""

from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolRequestParams, PaginatedRequestParams

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Principal
from letta_matrix.doors.mcp.caller import principal_of, toolset_of
from letta_matrix.doors.mcp.results import COMPLETE, call_result, error_result
from letta_matrix.operations.toolbox.registry import Toolbox
from letta_matrix.operations.toolbox.results import cut
from letta_matrix.operations.toolbox.tool import Progress, Tool, no_progress

Context = ServerRequestContext[Any, Any]


class Tools:
    """Lists and calls the tools that the token of a request is for."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox
        self._described: dict[str, dict[str, Any]] = {}

    async def list(self, ctx: Context, params: PaginatedRequestParams) -> dict[str, Any]:
        """`tools/list`, on one page."""
        if params.cursor is not None:
            raise MCPError(INVALID_PARAMS, "There is one page only; call without `cursor`.")
        tools = self._toolbox.shown_to(principal_of(ctx), toolset_of(ctx))
        return {**COMPLETE, "tools": [self._description(tool) for tool in tools]}

    async def call(self, ctx: Context, params: CallToolRequestParams) -> dict[str, Any]:
        """`tools/call`. A tool that is not there is an error of the protocol; what a tool refuses
        is for the model to read."""
        principal, arguments = principal_of(ctx), params.arguments or {}
        try:
            result = await self._toolbox.call(
                principal, params.name, arguments, door="mcp", progress=_progress(ctx)
            )
        except ToolError as error:
            if error.fault is Fault.UNKNOWN_TOOL and params.name != self._toolbox.others.name:
                raise self._unknown(principal, params.name) from error
            return error_result(error)
        return call_result(result)

    def input_schema(self, name: str) -> dict[str, Any] | None:
        """The JSON Schema of a tool's arguments, None for no tool."""
        others = self._toolbox.others
        tool = others if name == others.name else self._toolbox.tools.get(name)
        return None if tool is None else tool.parameters

    def _description(self, tool: Tool[Any]) -> dict[str, Any]:
        if tool.name not in self._described:
            self._described[tool.name] = _described(tool)
        return self._described[tool.name]

    def _unknown(self, principal: Principal, name: str) -> MCPError:
        shown = cut(name, 100).encode("utf-8", "replace").decode()
        known = [tool.name for tool in self._toolbox.tools_for(principal)]
        return MCPError(INVALID_PARAMS, f"Unknown tool: {shown}", {"tools": known})


def _described(tool: Tool[Any]) -> dict[str, Any]:
    annotations: dict[str, Any] = {"title": tool.title, "readOnlyHint": tool.read_only}
    if not tool.read_only:
        annotations |= {
            "destructiveHint": tool.destructive,
            # With a `transaction_id` every call is; the hint is about calls without one.
            "idempotentHint": tool.idempotent,
        }
    return {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": tool.parameters,
        "outputSchema": tool.results,
        # Other people, and what they write, are the open world.
        "annotations": {**annotations, "openWorldHint": True},
    }


def _progress(ctx: Context) -> Progress:
    meta = ctx.meta
    if meta is None or meta.get("progress_token") is None:
        return no_progress
    return ctx.session.report_progress
