"""The tools for Matrix, and the operations, with what they take and where they appear."""

from collections.abc import Iterator, Sequence
from typing import Any

from docsite.arguments import arguments
from docsite.markdown import code, page, sentence, table
from docsite.program import operations, program

TITLE = "Tools"
_SCOPES = ("read", "write", "rooms", "agents")

Tool = Any


def text() -> str:
    """The page."""
    toolbox, every = program().toolbox, operations()
    by_operations = {one.called for one in every if one.mcp}
    tools = [one for name, one in toolbox.tools.items() if name not in by_operations]
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
        *_tools(tools, {one.name for one in program().phone_line.tools()}),
        "## All others",
        *_one(toolbox.others, ["shown wherever some tools are not"]),
        "## Operations",
        "What operators do with the bridge itself, and people in rooms. No agent is offered these. "
        "In the last three columns is where each appears.",
        _table_of(every),
        "Those with a tool are for MCP clients whose token has the scope `admin`; `?toolset=all` "
        "lists them, and `matrix_other_tools` finds them. The [commands](commands.md) that are not "
        "named here do the same by a way of their own.",
        *_operations(every),
    )


def _tools(tools: Sequence[Tool], abroad: set[str]) -> Iterator[str]:
    few, usual = ({one.name for one in program(it).toolbox.specs()} for it in ("few", "usual"))
    for scope in _SCOPES:
        yield f"## Scope `{scope}`"
        for one in tools:
            if one.scope != scope:
                continue
            least = "few" if one.name in few else "usual" if one.name in usual else "all"
            marks = [f"set `{least}`"]
            marks += ["`destructive`: cannot be undone"] if one.destructive else []
            where = "where a phone line or another network is configured"
            marks += [where] if one.name in abroad else []
            yield from _one(one, marks)


def _one(tool: Tool, marks: Sequence[str]) -> Iterator[str]:
    yield f"### `{tool.name}`"
    yield sentence(tool.description)
    yield f"*{'; '.join(marks)}*".replace("*set", "*Set").replace("*shown", "*Shown")
    if taken := arguments(tool.parameters):
        yield taken


def _table_of(operations: Sequence[Tool]) -> str:
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


def _operations(operations: Sequence[Tool]) -> Iterator[str]:
    for one in operations:
        yield f"### `{one.name}`"
        yield sentence(one.description)
        if taken := arguments(one.parameters):
            yield taken


def _anchor(name: str) -> str:
    return name.replace(".", "")
