"""Turns: what agents are at, and stopping them."""

from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import ConfigDict, Field

from letta_matrix.api.calling import IdempotencyKey, do
from letta_matrix.api.following import pending, text_so_far
from letta_matrix.api.problems import Problem, may
from letta_matrix.api.routing import After, Answer, Limit, router_for
from letta_matrix.api.security import Admin, Api, Holder
from letta_matrix.api.services import Services
from letta_matrix.store.turns import Turn, TurnKind, TurnStatus
from letta_matrix.toolbox.principal import Principal, Scope
from letta_matrix.toolbox.results import cut

router = router_for("turns")

_LONGEST_TEXT = 10_000
_EXAMPLE: dict[str, Any] = {
    "turn_id": "turn-0b3f2f64d7a14f5a9c2b7d10",
    "kind": "message",
    "agent_id": "agent-5b1f0c4e-2f0a-4b7e-9f0e-0a8f5b1d7c11",
    "room_id": "!QvR5cQmXhVJzbAtYkS:example.org",
    "thread_id": None,
    "event_id": "$KfSWbdoLZpBf9lhXd6Uv0pzR0KzLGtYtNtTQpx8l2wE",
    "sender": "@ann:example.org",
    "status": "running",
    "outcome": None,
    "sent_at": 1767225600.0,
}
_ID = _EXAMPLE["turn_id"]


class TurnSummary(Answer):
    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    turn_id: str
    kind: TurnKind
    agent_id: str = Field(description='"" for the bot')
    room_id: str
    thread_id: str | None
    event_id: str = Field(description="of the message that it answers")
    sender: str
    status: TurnStatus
    outcome: str | None = Field(description="how it ended; null as long as it goes on")
    sent_at: float


class TurnDetails(TurnSummary):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{**_EXAMPLE, "text": "Let me look.", "waiting_for_approval": []}]
        }
    )

    text: str = Field(description="what the agent has said so far, cut if it is long")
    waiting_for_approval: list[str] = Field(description="the keys of what it waits for")


class TurnPage(Answer):
    turns: list[TurnSummary]
    next: str | None = Field(description="`after` of the next page")


class TurnCancelled(Answer):
    model_config = ConfigDict(
        json_schema_extra={"examples": [dict[str, Any](turn_id=_ID, cancelled=True)]}
    )

    turn_id: str
    cancelled: bool


TurnId = Annotated[str, Path(max_length=100, examples=[_ID])]


@router.get("/turns")
async def list_turns(
    holder: Admin,
    api: Api,
    status: Annotated[
        Literal["unfinished", "all"],
        Query(description="those that run or wait, oldest first; or also older ones, newest first"),
    ] = "unfinished",
    limit: Limit = 50,
    after: After = None,
) -> TurnPage:
    """List the turns that run or wait, or the newest of all."""
    if status == "all":
        turns = await api.turns.newest(limit + 1, before=after)
    else:
        turns = await _unfinished(api, after)
    more = turns[limit - 1].turn_id if len(turns) > limit else None
    seen = [_summary(turn) for turn in turns[:limit] if holder.may_act_in(turn.room_id)]
    return TurnPage(turns=seen, next=more)


@router.get("/turns/{turn_id}", responses=may("not-found"))
async def get_turn(holder: Holder, api: Api, turn_id: TurnId) -> TurnDetails:
    """Show a turn, also one that is over, and what its agent has said.

    Without the scope `admin` a token sees those that answer what it has said itself.
    """
    turn = await _known(api, holder, turn_id)
    return TurnDetails(
        **_summary(turn).model_dump(),
        text=cut(await text_so_far(api, turn), _LONGEST_TEXT),
        waiting_for_approval=[approval.key for approval in await pending(api, turn_id)],
    )


@router.post("/turns/{turn_id}/cancel", responses=may("not-found", "conflict"))
async def cancel_turn(
    holder: Admin, api: Api, turn_id: TurnId, key: IdempotencyKey = ""
) -> TurnCancelled:
    """Stop a turn that runs or waits; the agent keeps what it has said."""
    result = await do(api, holder, "turns.cancel", {"turn_id": turn_id}, key)
    if not result["stopped"]:
        raise Problem("conflict", "There is nothing to stop: the turn is over, or no agent's.")
    return TurnCancelled(turn_id=turn_id, cancelled=True)


async def _unfinished(api: Services, after: str | None) -> list[Turn]:
    """Those that run or wait, from the one behind the turn `after` on, which may be over."""
    here = {turn.turn_id for turn in api.unfinished()}
    turns = [turn for turn in await api.turns.unfinished() if turn.turn_id in here]
    if not after:
        return turns
    last = await api.turns.get(after)
    if last is None:
        raise Problem("invalid-arguments", "`after` is none that an earlier answer gave.")
    return [turn for turn in turns if turn.seq > last.seq]


async def _known(api: Services, holder: Principal, turn_id: str) -> Turn:
    turn = await api.turns.get(turn_id)
    if turn is None or not _may_see(api, holder, turn):
        raise Problem("not-found", f"There is no turn {turn_id!r}.")
    return turn


def _may_see(api: Services, holder: Principal, turn: Turn) -> bool:
    if not holder.may_act_in(turn.room_id):
        return False
    agent = api.directory.get(holder.agent_id)
    own = agent.user_id if agent is not None else api.config.bot_user_id
    return Scope.ADMIN in holder.scopes or (Scope.AGENTS in holder.scopes and turn.sender == own)


def _summary(turn: Turn) -> TurnSummary:
    return TurnSummary(
        turn_id=turn.turn_id,
        kind=turn.kind,
        agent_id=turn.agent_id,
        room_id=turn.room_id,
        thread_id=turn.thread_id or None,
        event_id=turn.event_id,
        sender=turn.sender,
        status=turn.status,
        outcome=turn.outcome,
        sent_at=turn.sent_at,
    )
