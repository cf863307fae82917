"""Answering what agents may not do unasked."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.parts import part
from letta_matrix.conversations.approval_text import in_full, warnings
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.matrix.verbatim import visible
from letta_matrix.operations.operation import operation
from letta_matrix.operations.pages import Limit
from letta_matrix.operations.toolbox.tool import Caller, Params, Result, WriteParams
from letta_matrix.operations.types import Approval as ApprovalTold
from letta_matrix.operations.types import ShownText, told
from letta_matrix.store.approvals import Approval, ApprovalStatus, ApprovalStore

STATUS = {
    "allow": ApprovalStatus.ALLOWED,
    "always": ApprovalStatus.ALWAYS,
    "deny": ApprovalStatus.DENIED,
}
"""What becomes of an approval, by the decision."""

_OUTCOMES = {
    ApprovalStatus.ALLOWED: "allowed",
    ApprovalStatus.ALWAYS: "allowed for good",
    ApprovalStatus.DENIED: "denied",
    ApprovalStatus.EXPIRED: "denied, as nobody answered in time",
    ApprovalStatus.LAPSED: "no longer needed: its turn has ended",
}
_UNSEEN = "The homeserver does not show the question now, so nothing was answered; try again."


LONGEST_REASON = 500
"""Characters."""


class ListedApprovals(Params):
    agent_id: str = Field("", max_length=255, description="of one agent alone")
    status: Literal["pending", "always"] = Field(
        "pending", description="`always`: what is allowed for good"
    )
    limit: Limit = 200


class OneApproval(Params):
    key: str = Field(max_length=100, examples=["9f2c41d07ab3"])


class Decision(OneApproval, WriteParams):
    """An answer to an approval."""

    decision: Literal["allow", "always", "deny"] = Field(
        description="`always` holds from then on for this very call of the agent, whenever an "
        "admin asks for it; `deny` takes that back"
    )
    reason: Annotated[str, AfterValidator(clean_text)] = Field(
        "", max_length=LONGEST_REASON, description="told to the agent with a denial"
    )


class ApprovalList(TypedDict):
    approvals: list[ApprovalTold]


class Answered(TypedDict):
    room_id: str
    tool: str
    outcome: str  # in words


@part
class ApprovalOperations:
    """Tells of approvals, and answers them, for programs and for people in rooms."""

    _approvals: Approvals

    @property
    def _store(self) -> ApprovalStore:
        return self._approvals.store

    @operation("approvals.list", None, ApprovalList, rest="GET /approvals")
    async def list_approvals(self, caller: Caller, params: ListedApprovals) -> Result:
        """List the approvals that wait for an answer, the first asked first; or what is allowed for
        good.

        A token that acts as an agent sees what that agent waits for, with the scope `read` or
        `agents`.
        """
        agent_id = _visible_to(caller, params.agent_id)
        found = self._store.kept if params.status == "always" else self._store.pending
        asked = [
            approval_told(one)
            for one in await found(agent_id)
            if caller.principal.may_act_in(one.room_id)
        ]
        return {"approvals": asked[: params.limit]}

    @operation("approvals.get", Scope.ADMIN, ApprovalTold, rest="GET /approvals/{key}")
    async def get_approval(self, caller: Caller, params: OneApproval) -> ApprovalTold:
        """Show an approval, also one that was answered."""
        return approval_told(await self._known(caller, params.key))

    @operation(
        "approvals.answer",
        Scope.ADMIN,
        Answered,
        people=True,
        rest="POST /approvals/{key}",
        shows="approvals.get",
    )
    async def answer_approval(self, caller: Caller, params: Decision) -> Result:
        """Allow or deny what an agent waits for. The room shows that it was done with a token."""
        status, by = STATUS[params.decision], caller.speaker or caller.principal.key
        approval = await self._answerable(caller, params.key, status)
        if status is ApprovalStatus.ALWAYS and not approval.always:
            text = f"{code(approval.tool)} cannot be allowed for good; use `allow`."
            raise ToolError(text, Fault.CONFLICT)
        try:
            answered = await self._approvals.answer(approval, status, by=by, reason=params.reason)
        except HomeserverUnavailable as error:
            raise ToolError(_UNSEEN, Fault.UNAVAILABLE) from error
        if not answered:
            settled = await self._store.get(params.key) or approval
            if not caller.again or (settled.status, settled.decided_by) != (status, by):
                lapsed = settled.reason if settled.status is ApprovalStatus.LAPSED else ""
                late = lapsed or _OUTCOMES.get(settled.status, "its time is up")
                text = f"{code(approval.tool)} cannot be answered any more: {late}."
                raise ToolError(text, Fault.CONFLICT)
        return {"room_id": approval.room_id, "tool": approval.tool, "outcome": _OUTCOMES[status]}

    async def _answerable(self, caller: Caller, key: str, status: ApprovalStatus) -> Approval:
        """An approval that the caller may answer so. Raises ToolError."""
        if caller.agent_id:
            text = "A token that acts as an agent cannot answer for people."
            raise ToolError(text, Fault.FORBIDDEN)
        approval = await self._known(caller, key)
        approvers, where = self._approvals.approvers, caller.place.room_id if caller.place else ""
        if caller.speaker and not approvers.may_answer(
            approval, status, by=caller.speaker, room_id=where
        ):
            who = approvers.who_may(approval)
            text = f"{code(approval.tool)} is for {who} to allow or deny."
            raise ToolError(text, Fault.FORBIDDEN)
        return approval

    async def _known(self, caller: Caller, key: str) -> Approval:
        approval = await self._store.get(key)
        if approval is None or not caller.principal.may_act_in(approval.room_id):
            raise ToolError(f"There is no approval {code(key)}.", Fault.NOT_FOUND)
        return approval


def approval_told(approval: Approval) -> ApprovalTold:
    """With what its question in the room shows, for pages that ask the same."""
    return told(
        ApprovalTold,
        approval,
        shown_tool=visible(approval.tool),
        shown=[ShownText(name=name, text=text) for name, text in in_full(approval)],
        warnings=list(warnings(approval)),
    )


def _visible_to(caller: Caller, agent_id: str) -> str:
    """Whose approvals a caller is told of, "" for all. Raises ToolError."""
    holder, own = caller.principal, caller.agent_id
    needed = {Scope.READ, Scope.AGENTS} if own else {Scope.ADMIN}
    if not holder.scopes & needed:
        which = "`read` or `agents`" if own else "`admin`"
        raise ToolError(f"This needs a token with the scope {which}.", Fault.FORBIDDEN)
    if own and agent_id not in ("", own):
        text = f"Your token acts as {own} and sees its own alone."
        raise ToolError(text, Fault.FORBIDDEN)
    return own or agent_id
