"""The tool that finds and calls those that are not shown."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import ToolError
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.operations.toolbox.tool import Caller, Params, Result, Tool, made, tool

OTHERS = "matrix_other_tools"

_MOST = 5
"""Tools that are told with their arguments."""
_WORD = re.compile(r"[a-z0-9]+")


class FindOthers(Params):
    find: str = Field("", max_length=200, description="words for what you want to do")
    name: str = Field("", description="the tool to call")
    arguments: dict[str, Any] = Field(default_factory=dict[str, Any], description="its arguments")


class FoundTool(TypedDict):
    name: str
    description: str
    parameters: NotRequired[dict[str, Any]]


def called_by(name: str, arguments: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
    """The tool that is meant by a call, and its arguments: what a call of OTHERS names, else what
    is called itself. Raises ToolError."""
    if name != OTHERS or not arguments.get("name"):
        return name, arguments
    astray = sorted(set(arguments) - set(FindOthers.model_fields))
    if astray:
        # A `transaction_id` that was passed over would let things happen twice.
        raise ToolError(f"`{astray[0]}` belongs into `arguments`, among those of the other tool.")
    given: Any = arguments.get("arguments") or {}
    if isinstance(given, str):
        # As models write what is in an object, now and then.
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            given = None
    if arguments["name"] == OTHERS or not isinstance(given, dict):
        raise ToolError("`name` should be another tool, and `arguments` an object with its own.")
    return str(arguments["name"]), given  # pyright: ignore[reportUnknownVariableType]


def others_tool(tools_for: Callable[[Principal], Sequence[Tool[Any]]]) -> Tool[FindOthers]:
    """The tool; `tools_for` gives what somebody may call."""

    @tool(OTHERS, "Other tools", Scope.READ, dict[str, Any], destructive=True, seconds=None)
    async def find(caller: Caller, params: FindOthers) -> Result:
        """Everything else on Matrix: threads, search, unread, members, profiles, edit, redact,
        polls, images, voice, downloads, rooms, invitations, agents, waiting. `find` gives the tools
        that fit, with their arguments; `name` and `arguments` call one."""
        tools = tools_for(caller.principal)
        best = _best(tools, params.find)
        if not best:
            return {
                "tools": [_told(tool) for tool in tools],
                "note": "`find` words of one to get its arguments.",
            }
        return {
            "tools": [{**_told(tool), "parameters": tool.offered} for tool in best],
            "note": "Call one with `name` and `arguments`.",
        }

    return made(find)


def _told(tool: Tool[Any]) -> FoundTool:
    return {"name": tool.name, "description": tool.description}


def _best(tools: Sequence[Tool[Any]], wanted: str) -> list[Tool[Any]]:
    """The tools that the words are about, those first that rare words are about; none without
    words."""
    weights = [0.0] * len(tools)
    for word in set(_WORD.findall(wanted.casefold())):
        found = [_weight(tool, word) for tool in tools]
        common = sum(map(bool, found)) or 1
        weights = [sofar + one / common for sofar, one in zip(weights, found, strict=True)]
    best = sorted(range(len(tools)), key=lambda number: -weights[number])
    return [tools[number] for number in best[:_MOST] if weights[number] > 0]


def _weight(tool: Tool[Any], word: str) -> int:
    named = _WORD.findall(f"{tool.name} {tool.title}".casefold())
    about = _WORD.findall(f"{tool.description} {' '.join(tool.offered['properties'])}".casefold())
    return 3 * _is_among(word, named) + _is_among(word, about)


def _is_among(word: str, others: Sequence[str]) -> bool:
    """Whether a word, or another form of it, is one of others."""
    return any(word == one or _alike(*sorted((word, one), key=len)) for one in others)


def _alike(shorter: str, longer: str) -> bool:
    return len(shorter) > 3 and longer.startswith(shorter[:5])
