"""Turns: what agents are at, and stopping them."""

from typing import Annotated, Literal

from fastapi import Path, Query
from pydantic import Field

from letta_matrix.access.principal import Principal, Scope
from letta_matrix.client import types
from letta_matrix.doors.rest.calling import IdempotencyKey, do
from letta_matrix.doors.rest.examples import TURN_ID
from letta_matrix.doors.rest.following import pending, text_so_far
from letta_matrix.doors.rest.problems import Problem, may
from letta_matrix.doors.rest.routing import After, Answer, Limit, router_for, told
from letta_matrix.doors.rest.security import Admin, Api, Holder
from letta_matrix.doors.rest.services import Services
from letta_matrix.store.turns import Turn
from letta_matrix.toolbox.results import cut

router = router_for("turns")

_LONGEST_TEXT = 10_000


class TurnDetails(types.Turn):
    text: Annotated[str, Field(description="what the agent has said so far, cut if it is long")]
    waiting_for_approval: Annotated[list[str], Field(description="the keys of what it waits for")]


class TurnPage(Answer):
    turns: list[types.Turn]
    next: str | None = Field(description="`after` of the next page")


class TurnCancelled(Answer):
    turn_id: str
    cancelled: bool


TurnId = Annotated[str, Path(max_length=100, examples=[TURN_ID])]


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
    seen = [told(types.Turn, turn) for turn in turns[:limit] if holder.may_act_in(turn.room_id)]
    return TurnPage(turns=seen, next=more)


@router.get("/turns/{turn_id}", responses=may("not-found"))
async def get_turn(holder: Holder, api: Api, turn_id: TurnId) -> TurnDetails:
    """Show a turn, also one that is over, and what its agent has said.

    Without the scope `admin` a token sees those that answer what it has said itself.
    """
    turn = await _known(api, holder, turn_id)
    return told(
        TurnDetails,
        turn,
        text=cut(await text_so_far(api, turn), _LONGEST_TEXT),
        waiting_for_approval=[approval.key for approval in await pending(api, turn_id)],
    )


@router.post("/turns/{turn_id}/cancel", responses=may("not-found", "conflict"))
async def cancel_turn(
    holder: Admin, api: Api, turn_id: TurnId, key: IdempotencyKey = ""
) -> TurnCancelled:
    """Stop a turn that runs or waits; the agent keeps what it has said."""
    await do(api, holder, "turns.cancel", {"turn_id": turn_id}, key)
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
