"""What was done through the doors: the audit log."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.principal import Scope
from letta_matrix.common.parts import part
from letta_matrix.operations.operation import operation
from letta_matrix.operations.pages import Limit, page_of
from letta_matrix.operations.toolbox.tool import Caller, Params, Result
from letta_matrix.operations.types import told
from letta_matrix.store.audit import AuditStore


class ListedAudit(Params):
    limit: Limit = 50
    after: int | None = Field(
        None, ge=1, lt=2**63, description="`next` of an earlier answer, to go on"
    )


class Noted(TypedDict):
    """Who did what, as whom, where, and how it ended. `at` is a Unix time in seconds."""

    seq: int
    at: float
    principal: Annotated[str, Field(description="`token:ID`, `agent:ID`, `user:ID` ...")]
    user_id: Annotated[str, Field(description="the Matrix user it was done as")]
    door: Annotated[str, Field(description="`api`, `mcp`, `agent`, `chat` or `cli`")]
    action: Annotated[str, Field(description="the tool, or what else was done")]
    transaction_id: str | None
    room_id: str | None
    event_id: str | None
    outcome: Annotated[
        str | None, Field(description="`ok`, or the kind of problem; null: not known")
    ]


class AuditPage(TypedDict):
    entries: list[Noted]
    next: Annotated[
        int | None, Field(description="`after` of the next request; null: no more follow")
    ]


@part
class AuditOperations:
    """Tells what is noted of calls that change something."""

    _audit: AuditStore

    @operation("audit.list", Scope.ADMIN, AuditPage, rest="GET /audit")
    async def list_audit(self, _: Caller, params: ListedAudit) -> Result:
        """List what was changed through the API, the MCP server, by agents and by commands, the
        newest first."""
        found = await self._audit.newest(params.limit + 1, before=params.after)
        shown, more = page_of(found, params.limit, lambda entry: entry.seq)
        return {"entries": [told(Noted, one, action=one.tool) for one in shown], "next": more}
