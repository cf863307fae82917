"""What operators and people do: declared as tools are, but offered to no agent."""

from collections.abc import Callable
from typing import Any

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.toolbox.tool import LONGEST_WAIT, Caller, Run, tool


def operation(
    name: str, scope: Scope | None, result: type[Any], **hints: bool
) -> Callable[[Run], Run]:
    """Declares a method as an operation."""
    # Runtimes have limits of their own, and may be slow.
    return tool(name, name, scope, result, seconds=LONGEST_WAIT, **hints)


def is_admin(caller: Caller) -> bool:
    """Whether a caller may do for everybody what people may do for themselves. Raises ToolError
    for programs that may not."""
    admin = Scope.ADMIN in caller.principal.scopes
    if not admin and not caller.speaker:
        raise ToolError("This needs a token with the scope `admin`.", Fault.FORBIDDEN)
    return admin
