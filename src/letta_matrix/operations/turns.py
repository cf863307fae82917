"""Stopping what agents are at."""

from collections.abc import Awaitable, Callable
from enum import StrEnum

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.matrix.verbatim import inline_code as code
from letta_matrix.operations.operation import is_admin, operation
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.places import Place
from letta_matrix.store.turns import Turn, TurnStore
from letta_matrix.toolbox.tool import Caller, Result, WriteParams

Cancel = Callable[[Callable[[Turn], bool]], Awaitable[int]]
"""Stops the running and waiting turns that match, and tells how many those were."""


class CancelTurns(WriteParams):
    turn_id: str = Field("", max_length=100, description="this turn alone")
    event_id: str = Field(
        "", max_length=255, description="or those about a message here, or its answer"
    )


class Cancelled(TypedDict):
    room_id: str
    event_id: str  # the message that is meant, "" for all here
    stopped: int


class Unstopped(StrEnum):
    """Why nothing is stopped: the `detail` of the refusal."""

    IDLE = "idle"
    OTHERS = "others"  # asked for it


class TurnOperations:
    """Stops turns: people their own ones, in the room they say it in; admins all."""

    def __init__(
        self, directory: AgentDirectory, turns: TurnStore, outbox: Outbox, cancel: Cancel
    ) -> None:
        self._directory = directory
        self._turns = turns
        self._outbox = outbox
        self._cancel = cancel

    @operation("turns.cancel", None, Cancelled)
    async def _stop(self, caller: Caller, params: CancelTurns) -> Result:
        """Stop what runs or waits: one turn, those about a message, or all here."""
        admin, others = is_admin(caller), set[str]()
        room_id, event_id, meant = await self._meant(caller, params)

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
        return {"room_id": room_id, "event_id": event_id, "stopped": stopped}

    async def _meant(
        self, caller: Caller, params: CancelTurns
    ) -> tuple[str, str, Callable[[Turn], bool]]:
        """In which room, about which message, and which turns of it. Raises ToolError."""
        if params.turn_id:
            turn = await self._turns.get(params.turn_id)
            if turn is None or not caller.principal.may_act_in(turn.room_id):
                text = f"There is no turn {code(params.turn_id)}."
                raise ToolError(text, Fault.NOT_FOUND)
            return turn.room_id, turn.event_id, lambda other: other.turn_id == turn.turn_id
        if (here := caller.place) is None:
            raise ToolError("Say which turn is meant.")
        if params.event_id:
            about = await self._about(here.room_id, params.event_id)
            return here.room_id, params.event_id, about
        # In rooms of others every answer has a thread of its own: outside of them all count.
        every = self._directory.by_room(here.room_id) is None and not here.thread_id
        return here.room_id, "", lambda turn: _is_at(turn, here, every_thread=every)

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
