"""Approvals: what agents may not do unasked, and the answers to it."""

from typing import Annotated, Literal

from fastapi import Path, Query

from letta_matrix.access.principal import Principal, Scope
from letta_matrix.client import types
from letta_matrix.doors.rest.calling import IdempotencyKey, do
from letta_matrix.doors.rest.problems import Problem, may
from letta_matrix.doors.rest.routing import Answer, Limit, WriteBody, router_for, told
from letta_matrix.doors.rest.security import Admin, Api, Holder
from letta_matrix.operations.approvals import Verdict

router = router_for("approvals")


class ApprovalList(Answer):
    approvals: list[types.Approval]


class Decision(WriteBody, Verdict):
    """An answer to an approval."""


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
    shown = [told(types.Approval, one) for one in found if holder.may_act_in(one.room_id)]
    return ApprovalList(approvals=shown[:limit])


@router.post("/approvals/{key}", responses=may("not-found", "conflict"))
async def answer_approval(
    holder: Admin,
    api: Api,
    key: Annotated[str, Path(max_length=100, examples=["9f2c41d07ab3"])],
    body: Decision,
    once: IdempotencyKey = "",
) -> types.Approval:
    """Allow or deny what an agent waits for. The room shows that it was done with a token."""
    await do(api, holder, "approvals.answer", {"key": key, **body.model_dump()}, once)
    answered = await api.approval_store.get(key)
    if answered is None:
        raise Problem("not-found", f"There is no approval {key!r} any more.")
    return told(types.Approval, answered)


def _own(holder: Principal, agent_id: str) -> str:
    if not holder.scopes & {Scope.READ, Scope.AGENTS}:
        raise Problem("forbidden", "This needs a token with the scope `read` or `agents`.")
    if agent_id not in ("", holder.agent_id):
        raise Problem("forbidden", f"Your token acts as {holder.agent_id} and sees its own alone.")
    return holder.agent_id
