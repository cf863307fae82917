"""What is wrong with the arguments of a call, in words that help to mend it."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from letta_matrix.access.faults import ToolError
from letta_matrix.toolbox.results import cut
from letta_matrix.toolbox.tool import Params, Tool

_SHOWN = 5


def parse(tool: Tool[Any], arguments: Mapping[str, object]) -> Params:
    """The arguments, checked. Raises ToolError that names each field and what it should be."""
    try:
        return tool.params.model_validate(dict(arguments))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        told = [_fault(tool, fault) for fault in faults[:_SHOWN]]
        raise ToolError(f"Wrong arguments for {tool.name}: {'; '.join(told)}.") from error


def _fault(tool: Tool[Any], fault: Mapping[str, Any]) -> str:
    field = cut(".".join(str(part) for part in fault["loc"]), 60)
    if fault["type"] == "missing":
        return f"`{field}` is missing"
    if fault["type"] == "extra_forbidden":
        taken = ", ".join(tool.offered["properties"]) or "none"
        return f"there is no argument `{field}`, only: {taken}"
    said = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return f"`{field}` {said[:1].lower()}{said[1:]}"
