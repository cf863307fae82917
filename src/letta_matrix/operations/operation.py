"""What operators and people do: declared as tools are, but offered to no agent."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from letta_matrix.access.principal import Scope
from letta_matrix.operations.runtimes_told import telling_faults
from letta_matrix.operations.toolbox.tool import LONGEST_WAIT, Caller, P, Result, Run, Tool, tool
from letta_matrix.operations.typed import Typed


@dataclass(frozen=True)
class Operation(Tool[P]):
    """An operation, and where it appears.

    `rest` is its method and path below `/api/v1`, such as `POST /agents/sync`: what is no part of
    the path comes in the query, or in the body of what changes something. It answers with
    `status`, and with its result, or with that of the operation it `shows`. If it is for `mcp`,
    MCP clients with the scope `admin` find it among the tools. Both call it as its function is
    called.
    """

    rest: str = ""
    status: int = 200
    shows: str = ""
    mcp: bool = False
    typed: Typed | None = None

    async def carry_out(self, caller: Caller, params: P) -> Result:
        with telling_faults():
            return await self.run(caller, params)

    @property
    def called(self) -> str:
        """Its name in the API's document, and as a tool."""
        return str(getattr(self.run, "__name__", self.name))

    def as_tool(self) -> Tool[P]:
        """The same by the name that programs call it by: noted and done once as by any door."""
        title = self.called.replace("_", " ").capitalize()
        return replace(self, name=self.called, title=title, noted_as=self.name)


def operation(
    name: str, scope: Scope | None, result: type[Any], *, rest: str = "", **where: Any
) -> Callable[[Run], Run]:
    """Declares a method or function as an operation; `rest` and `where` are further fields of
    `Operation`, which say where it appears. What the API has as GET changes nothing."""
    where = {"read_only": rest.startswith("GET "), "rest": rest, **where}
    # Runtimes have limits of their own, and may be slow.
    return tool(name, name, scope, result, kind=Operation, seconds=LONGEST_WAIT, **where)


def is_admin(caller: Caller) -> bool:
    """Whether a caller may do for everybody what people may do for themselves."""
    return Scope.ADMIN in caller.principal.scopes
