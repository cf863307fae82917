"""Stopping what agents are at."""

from collections.abc import Callable
from enum import StrEnum

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.parts import part
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.given import Cancel
from letta_matrix.operations.operation import is_admin, operation
from letta_matrix.operations.toolbox.tool import Caller, Params, Result, WriteParams
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.places import Place
from letta_matrix.store.turns import Turn, TurnStore

TURN_ID = "turn-0b3f2f64d7a14f5a9c2b7d10"
"""What the id of a turn looks like."""


class OneTurn(Params):
    turn_id: str = Field(max_length=100, examples=[TURN_ID])


class CancelTurn(OneTurn, WriteParams):
    """Which one is to stop."""


class StopHere(WriteParams):
    event_id: str = Field(
        "", max_length=255, description="only what is about a message here, or its answer"
    )


class TurnCancelled(TypedDict):
    turn_id: str
    room_id: str
    cancelled: bool


class Stopped(TypedDict):
    room_id: str
    event_id: str  # the message that is meant, "" for all here
    stopped: int


class Unstopped(StrEnum):
    """Why nothing is stopped: the `detail` of the refusal."""

    IDLE = "idle"
    OTHERS = "others"  # asked for it


@part
class TurnOperations:
    """Stops turns: people their own ones, in the room they say it in; admins all."""

    _directory: AgentDirectory
    _turns: TurnStore
    _outbox: Outbox
    _cancel: Cancel

    @operation(
        "turns.cancel", Scope.ADMIN, TurnCancelled, rest="POST /turns/{turn_id}/cancel", mcp=True
    )
    async def cancel_turn(self, caller: Caller, params: CancelTurn) -> Result:
        """Stop a turn that runs or waits; the agent keeps what it has said."""
        turn = await self._turns.get(params.turn_id)
        if turn is None or not caller.principal.may_act_in(turn.room_id):
            raise ToolError(f"There is no turn {code(params.turn_id)}.", Fault.NOT_FOUND)
        await self._stopped(caller, lambda other: other.turn_id == turn.turn_id)
        return {"turn_id": turn.turn_id, "room_id": turn.room_id, "cancelled": True}

    @operation("turns.stop", Scope.ADMIN, Stopped, people=True)
    async def stop(self, caller: Caller, params: StopHere) -> Result:
        """Stop what runs or waits where a person says so: what is about a message, or all."""
        if (here := caller.place) is None:
            raise ToolError("Say which turn is meant.")
        meant = await self._meant(here, params.event_id)
        stopped = await self._stopped(caller, meant)
        return {"room_id": here.room_id, "event_id": params.event_id, "stopped": stopped}

    async def _stopped(self, caller: Caller, meant: Callable[[Turn], bool]) -> int:
        """How many were stopped. Raises ToolError for none."""
        admin, others = is_admin(caller), set[str]()

        def may(turn: Turn) -> bool:
            if not meant(turn):
                return False
            if admin or turn.sender == caller.speaker:
                return True
            others.add(turn.turn_id)
            return False

        stopped = await self._cancel(may)
        if not stopped and others:
            text = "Others asked for that: they can stop it, or an admin."
            raise ToolError(text, Fault.FORBIDDEN, detail=Unstopped.OTHERS)
        if not stopped:
            text = "There is nothing to stop: the turn is over, or no agent's."
            raise ToolError(text, Fault.CONFLICT, detail=Unstopped.IDLE)
        return stopped

    async def _meant(self, here: Place, event_id: str) -> Callable[[Turn], bool]:
        """Which turns: those about a message, or all that are at a place."""
        if event_id:
            return await self._about(here.room_id, event_id)
        # In rooms of others every answer has a thread of its own: outside of them all count.
        every = self._directory.by_room(here.room_id) is None and not here.thread_id
        return lambda turn: _is_at(turn, here, every_thread=every)

    async def _about(self, room_id: str, event_id: str) -> Callable[[Turn], bool]:
        """Which turns an event, a message or the reply to it, stands for: with those that ask it
        anew."""
        answered, asked = (
            await self._outbox.turn_of(event_id),
            await self._turns.prompted_by(event_id),
        )
        ids = {turn.turn_id for turn in (answered, *asked) if turn is not None}
        return lambda turn: turn.room_id == room_id and bool(ids & {turn.turn_id, turn.revises})


def _is_at(turn: Turn, place: Place, *, every_thread: bool) -> bool:
    here = every_thread or turn.thread_id == place.thread_id
    return here and turn.room_id == place.room_id and place.agent_id in ("", turn.agent_id)
