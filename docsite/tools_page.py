"""The tools for Matrix, and the operations, with what they take and where they appear."""

from collections.abc import Iterator, Sequence
from typing import Any

from docsite.arguments import arguments
from docsite.markdown import code, page, sentence, table
from docsite.stand_ins import NOTHING_RUNS
from letta_matrix.access.principal import Scope
from letta_matrix.operations import registry
from letta_matrix.operations.operation import Operation
from letta_matrix.toolbox.asking import AskingPeople
from letta_matrix.toolbox.catalogue import every_tool
from letta_matrix.toolbox.others import others_tool
from letta_matrix.toolbox.portal_pictures import PortalPictures
from letta_matrix.toolbox.texting import Texting
from letta_matrix.toolbox.tool import Tool, tools_in
from letta_matrix.toolbox.toolsets import Toolset, shown

TITLE = "Tools"
_SCOPES = (Scope.READ, Scope.WRITE, Scope.ROOMS, Scope.AGENTS)


def text() -> str:
    """The page."""
    abroad = [*tools_in(Texting), *tools_in(PortalPictures)]
    tools = [*every_tool(AskingPeople(NOTHING_RUNS)).values(), *abroad]
    return page(
        TITLE,
        "What agents and programs can do on Matrix. An agent of an App Server has these as its "
        "own tools ([what agents can do](../how-to/agents-act.md)), a client of the "
        "[MCP server](../how-to/mcp.md) by a token, a program by `POST /api/v1/tools/{name}` of "
        "the [REST API](rest.md). What is done is the same, and counted and noted once.",
        "A *scope* is a group of tools, for tokens and for `conversations.tool_scopes`. A *set* "
        "says who sees a tool at once: `few`, `usual`, `all`, each with those of the one before "
        "([why](../how-to/mcp.md#how-many-tools)); any tool can be called. Each tool that changes "
        "something also takes `transaction_id`, a text of your own: a call that comes again with "
        "it does nothing more. Who calls by an agent's own tools need not give one.",
        *_tools(tools, {tool.name for tool in abroad}),
        "## All others",
        *_one(others_tool(lambda _: tools), ["shown wherever some tools are not"]),
        "## Operations",
        "What operators do with the bridge itself, and people in rooms. No agent is offered these. "
        "In the last three columns is where each appears.",
        _table_of(registry.every()),
        "Those with a tool are for MCP clients whose token has the scope `admin`; `?toolset=all` "
        "lists them, and `matrix_other_tools` finds them. The [commands](commands.md) that are not "
        "named here do the same by a way of their own.",
        *_operations(registry.every()),
    )


def _tools(tools: Sequence[Tool[Any]], abroad: set[str]) -> Iterator[str]:
    few, usual = ({one.name for one in shown(tools, it)} for it in (Toolset.FEW, Toolset.USUAL))
    for scope in _SCOPES:
        yield f"## Scope `{scope}`"
        for one in tools:
            if one.scope is not scope:
                continue
            least = "few" if one.name in few else "usual" if one.name in usual else "all"
            marks = [f"set `{least}`"]
            marks += ["`destructive`: cannot be undone"] if one.destructive else []
            where = "where a phone line or another network is configured"
            marks += [where] if one.name in abroad else []
            yield from _one(one, marks)


def _one(tool: Tool[Any], marks: Sequence[str]) -> Iterator[str]:
    yield f"### `{tool.name}`"
    yield sentence(tool.description)
    yield f"*{'; '.join(marks)}*".replace("*set", "*Set").replace("*shown", "*Shown")
    if taken := arguments(tool.parameters):
        yield taken


def _table_of(operations: Sequence[Operation[Any]]) -> str:
    rows = [
        (
            f"[`{one.name}`](#{_anchor(one.name)})",
            code(str(one.scope)) if one.scope else "told there",
            code(one.rest) if one.rest else "",
            code(one.called) if one.mcp else "",
            code(f"!{one.typed.name}") if one.typed else "",
        )
        for one in operations
    ]
    return table(("operation", "scope", "REST, below `/api/v1`", "MCP", "command"), rows)


def _operations(operations: Sequence[Operation[Any]]) -> Iterator[str]:
    for one in operations:
        yield f"### `{one.name}`"
        yield sentence(one.description)
        if taken := arguments(one.parameters):
            yield taken


def _anchor(name: str) -> str:
    return name.replace(".", "")
