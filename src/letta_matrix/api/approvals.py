"""Approvals: what agents may not do unasked, and the answers to it."""

from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import ConfigDict, Field

from letta_matrix.api.calling import IdempotencyKey, do
from letta_matrix.api.problems import Problem, may
from letta_matrix.api.routing import Answer, Limit, WriteBody, router_for
from letta_matrix.api.security import Admin, Api, Holder
from letta_matrix.operations.approvals import Verdict
from letta_matrix.store.approvals import Approval, ApprovalStatus
from letta_matrix.toolbox.principal import Principal, Scope

router = router_for("approvals")

_EXAMPLE: dict[str, Any] = {
    "key": "9f2c41d07ab3",
    "agent_id": "agent-5b1f0c4e-2f0a-4b7e-9f0e-0a8f5b1d7c11",
    "turn_id": "turn-0b3f2f64d7a14f5a9c2b7d10",
    "room_id": "!QvR5cQmXhVJzbAtYkS:example.org",
    "thread_id": None,
    "requester": "@ann:example.org",
    "tool": "Bash",
    "arguments": {"command": "make test"},
    "always": True,
    "status": "pending",
    "decided_by": None,
    "reason": None,
    "asked_at": 1767225600.0,
    "expires_at": 1767226500.0,
}


class ApprovalInfo(Answer):
    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    key: str
    agent_id: str
    turn_id: str
    room_id: str
    thread_id: str | None
    requester: str = Field(description="whose message the agent was at")
    tool: str
    arguments: dict[str, Any]
    always: bool = Field(description="it can be allowed for good")
    status: ApprovalStatus
    decided_by: str | None
    reason: str | None
    asked_at: float
    expires_at: float = Field(description="until when it can, or could, be answered")


class ApprovalList(Answer):
    approvals: list[ApprovalInfo]


class Decision(WriteBody, Verdict):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"decision": "deny", "reason": "Not on a Friday."}]},
    )


@router.get("/approvals")
async def list_approvals(
    holder: Holder,
    api: Api,
    agent_id: Annotated[str, Query(max_length=255, description="of one agent alone")] = "",
    status: Annotated[
        Literal["pending", "always"], Query(description="`always`: what is allowed for good")
    ] = "pending",
    limit: Limit = 200,
) -> ApprovalList:
    """List the approvals that wait for an answer, the first asked first; or what is allowed for
    good.

    A token that acts as an agent sees what that agent waits for, with the scope `read` or
    `agents`.
    """
    if holder.agent_id:
        agent_id = _own(holder, agent_id)
    elif Scope.ADMIN not in holder.scopes:
        raise Problem("forbidden", "This needs a token with the scope `admin`.")
    store = api.approval_store
    found = await (store.kept(agent_id) if status == "always" else store.pending(agent_id))
    shown = [_info(one) for one in found if holder.may_act_in(one.room_id)]
    return ApprovalList(approvals=shown[:limit])


@router.post("/approvals/{key}", responses=may("not-found", "conflict"))
async def answer_approval(
    holder: Admin,
    api: Api,
    key: Annotated[str, Path(max_length=100, examples=[_EXAMPLE["key"]])],
    body: Decision,
    once: IdempotencyKey = "",
) -> ApprovalInfo:
    """Allow or deny what an agent waits for. The room shows that it was done with a token."""
    await do(api, holder, "approvals.answer", {"key": key, **body.model_dump()}, once)
    answered = await api.approval_store.get(key)
    if answered is None:
        raise Problem("not-found", f"There is no approval {key!r} any more.")
    return _info(answered)


def _own(holder: Principal, agent_id: str) -> str:
    if not holder.scopes & {Scope.READ, Scope.AGENTS}:
        raise Problem("forbidden", "This needs a token with the scope `read` or `agents`.")
    if agent_id not in ("", holder.agent_id):
        raise Problem("forbidden", f"Your token acts as {holder.agent_id} and sees its own alone.")
    return holder.agent_id


def _info(approval: Approval) -> ApprovalInfo:
    return ApprovalInfo(
        key=approval.key,
        agent_id=approval.agent_id,
        turn_id=approval.turn_id,
        room_id=approval.room_id,
        thread_id=approval.thread_id or None,
        requester=approval.requester,
        tool=approval.tool,
        arguments=dict(approval.arguments),
        always=approval.always,
        status=approval.status,
        decided_by=approval.decided_by or None,
        reason=approval.reason or None,
        asked_at=approval.asked_at,
        expires_at=approval.expires_at,
    )
