"""What was done through the doors: the audit log."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from letta_matrix.doors.rest.routing import Answer, Limit, router_for
from letta_matrix.doors.rest.security import Admin, Api

router = router_for("audit")


class Noted(Answer):
    """Who did what, as whom, where, and how it ended. `at` is a Unix time in seconds."""

    seq: int
    at: float
    principal: str = Field(description="`token:ID`, `agent:ID`, `user:ID` ...")
    user_id: str = Field(description="the Matrix user it was done as")
    door: str = Field(description="`api`, `mcp`, `agent`, `chat` or `cli`")
    action: str = Field(validation_alias="tool", description="the tool, or what else was done")
    transaction_id: str | None
    room_id: str | None
    event_id: str | None
    outcome: str | None = Field(description="`ok`, or the kind of problem; null: not known")


class AuditPage(Answer):
    entries: list[Noted]
    next: int | None = Field(description="`after` of the next request; null: no more follow")


@router.get("/audit")
async def list_audit(
    api: Api,
    _: Admin,
    limit: Limit = 50,
    after: Annotated[
        int | None, Query(ge=1, lt=2**63, description="`next` of an earlier answer, to go on")
    ] = None,
) -> AuditPage:
    """List what was changed through the API, the MCP server, by agents and by commands, the newest
    first."""
    found = await api.audit.newest(limit + 1, before=after)
    shown = found[:limit]
    return AuditPage(
        entries=[Noted.model_validate(entry, from_attributes=True) for entry in shown],
        next=shown[-1].seq if len(found) > limit else None,
    )
