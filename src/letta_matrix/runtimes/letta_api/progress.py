"""How far a turn on a Letta API has come, as it is saved, and what is sent for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from letta_matrix.common.json_fields import Json, as_list, as_texts, mapping
from letta_matrix.runtimes.letta_api.history import ANSWER
from letta_matrix.runtimes.letta_json import content_of
from letta_matrix.runtimes.protocol import TurnRequest, TurnState


@dataclass(slots=True)
class Progress:
    """What is saved of a turn.

    `runs[0]` answers the prompt and `runs[n]` the approvals in `answers[n - 1]`, by tool call
    id; a run that is missing at the end may have been asked for. `tools`: one has started.
    `asked_at` is when the prompt may first have been sent, in seconds since the epoch: None if
    it surely was not, 0 if nobody knows.
    """

    runs: list[str] = field(default_factory=list[str])
    answers: list[dict[str, Json]] = field(default_factory=list[dict[str, Json]])
    tools: bool = False
    cancelled: bool = False
    asked_at: float | None = None

    @classmethod
    def load(cls, state: TurnState) -> "Progress":
        answers = as_list(state.get("answers"))
        asked_at = state.get("asked_at", 0.0)
        return cls(
            as_texts(state.get("runs")),
            [{call: mapping(answer) for call, answer in step.items()} for step in answers],
            state.get("tools") is True,
            state.get("cancelled") is True,
            asked_at if isinstance(asked_at, float) or asked_at is None else 0.0,
        )

    def as_state(self) -> TurnState:
        answers = [dict(step) for step in self.answers]
        return {
            "runs": list(self.runs),
            "answers": answers,
            "tools": self.tools,
            "cancelled": self.cancelled,
            "asked_at": self.asked_at,
        }

    def message(self, request: TurnRequest, step: int) -> Json:
        """What is sent for a step: the prompt, or the answers to what the run before asked."""
        if step == 0:
            return {"role": "user", "content": content_of(request), "otid": _otid(request, 0)}
        return approval_of(self.answers[step - 1], _otid(request, step))

    def is_sent(self, request: TurnRequest, step: int, stored: Json) -> bool:
        """Whether a stored message is that of a step; approvals are stored without otid."""
        if stored.get("otid") == _otid(request, step):
            return True
        if step == 0 or stored.get("message_type") != ANSWER:
            return False
        answered = (item.get("tool_call_id") for item in as_list(stored.get("approvals")))
        return any(call_id in self.answers[step - 1] for call_id in answered)


def answer_of(*, allow: bool, message: str) -> Json:
    """A person's answer, as the API takes it; `message` goes with a denial."""
    return {"approve": allow} if allow else {"approve": False, "reason": message or "denied"}


def approval_of(answers: Mapping[str, Json], otid: str) -> Json:
    """The message that answers all the tool calls that wait, by their ids."""
    approvals = [
        {"type": "approval", "tool_call_id": call_id, **answer}
        for call_id, answer in answers.items()
    ]
    return {"type": "approval", "approvals": approvals, "otid": otid}


def _otid(request: TurnRequest, step: int) -> str:
    # The server knows an `otid` again in every conversation, of whichever agent.
    otid = f"{request.message_id}/{request.agent_id}"
    return f"{otid}:{step}" if step else otid
