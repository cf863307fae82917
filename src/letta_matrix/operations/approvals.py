"""Answering what agents may not do unasked."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.operation import is_admin, operation
from letta_matrix.store.approvals import Approval, ApprovalStatus
from letta_matrix.toolbox.tool import Caller, Params, Result, WriteParams

_STATUS = {
    "allow": ApprovalStatus.ALLOWED,
    "always": ApprovalStatus.ALWAYS,
    "deny": ApprovalStatus.DENIED,
}
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


class Verdict(Params):
    decision: Literal["allow", "always", "deny"] = Field(
        description="`always` holds from then on for this very call of the agent, whenever an "
        "admin asks for it; `deny` takes that back"
    )
    reason: Annotated[str, AfterValidator(clean_text)] = Field(
        "", max_length=LONGEST_REASON, description="told to the agent with a denial"
    )


class AnswerApproval(Verdict, WriteParams):
    key: str = Field(max_length=100)


class Answered(TypedDict):
    room_id: str
    tool: str
    outcome: str  # in words


class ApprovalOperations:
    """Answers approvals, for programs and for people in rooms."""

    def __init__(self, approvals: Approvals) -> None:
        self._approvals = approvals
        self._store = approvals.store

    @operation("approvals.answer", None, Answered)
    async def _answer(self, caller: Caller, params: AnswerApproval) -> Result:
        """Allow or deny what an agent waits for."""
        status, by = _STATUS[params.decision], caller.speaker or caller.principal.key
        approval = await self._known(caller, params.key, status)
        if status is ApprovalStatus.ALWAYS and not approval.always:
            text = f"{code(approval.tool)} cannot be allowed for good; use `allow`."
            raise ToolError(text, Fault.CONFLICT)
        try:
            answered = await self._approvals.answer(approval, status, by=by, reason=params.reason)
        except HomeserverUnavailable as error:
            raise ToolError(_UNSEEN, Fault.UNAVAILABLE) from error
        settled = await self._store.get(params.key) or approval
        mine = caller.again and (settled.status, settled.decided_by) == (status, by)
        if not answered and not mine:
            lapsed = settled.reason if settled.status is ApprovalStatus.LAPSED else ""
            late = lapsed or _OUTCOMES.get(settled.status, "its time is up")
            text = f"{code(approval.tool)} cannot be answered any more: {late}."
            raise ToolError(text, Fault.CONFLICT)
        return {"room_id": approval.room_id, "tool": approval.tool, "outcome": _OUTCOMES[status]}

    async def _known(self, caller: Caller, key: str, status: ApprovalStatus) -> Approval:
        """An approval that the caller may answer so. Raises ToolError."""
        if caller.agent_id:
            text = "A token that acts as an agent cannot answer for people."
            raise ToolError(text, Fault.FORBIDDEN)
        is_admin(caller)
        approval = await self._store.get(key)
        if approval is None or not caller.principal.may_act_in(approval.room_id):
            raise ToolError(f"There is no approval {code(key)}.", Fault.NOT_FOUND)
        approvers, where = self._approvals.approvers, caller.place.room_id if caller.place else ""
        if caller.speaker and not approvers.may_answer(
            approval, status, by=caller.speaker, room_id=where
        ):
            who = approvers.who_may(approval)
            text = f"{code(approval.tool)} is for {who} to allow or deny."
            raise ToolError(text, Fault.FORBIDDEN)
        return approval
