"""What was done through the doors: the audit log."""

from typing import Annotated, Any

from fastapi import Query
from pydantic import ConfigDict, Field

from letta_matrix.api.routing import Answer, Limit, router_for
from letta_matrix.api.security import Admin, Api
from letta_matrix.store.audit import AuditEntry

router = router_for("audit")

_EXAMPLE: dict[str, Any] = {
    "seq": 42,
    "at": 1790000000.0,
    "principal": "token:a1b2c3d4e5f6",
    "user_id": "@letta:example.org",
    "door": "api",
    "action": "matrix_send_message",
    "transaction_id": None,
    "room_id": "!abc:example.org",
    "event_id": "$1a2b3c",
    "outcome": "ok",
}


class Noted(Answer):
    """Who did what, as whom, where, and how it ended. `at` is a Unix time in seconds."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    seq: int
    at: float
    principal: str = Field(description="`token:ID`, `agent:ID`, `user:ID` ...")
    user_id: str = Field(description="the Matrix user it was done as")
    door: str = Field(description="`api`, `mcp`, `agent`, `chat` or `cli`")
    action: str = Field(description="the tool, or what else was done")
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
        entries=[_told(entry) for entry in shown],
        next=shown[-1].seq if len(found) > limit else None,
    )


def _told(entry: AuditEntry) -> Noted:
    return Noted(
        seq=entry.seq,
        at=entry.at,
        principal=entry.principal,
        user_id=entry.user_id,
        door=entry.door,
        action=entry.tool,
        transaction_id=entry.transaction_id,
        room_id=entry.room_id,
        event_id=entry.event_id,
        outcome=entry.outcome,
    )
