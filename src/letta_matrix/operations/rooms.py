"""How agents behave in rooms."""

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.parts import part
from letta_matrix.operations.operation import operation
from letta_matrix.operations.toolbox.agent_tools import AGENT
from letta_matrix.operations.toolbox.tool import Caller, Line, Result, WriteParams
from letta_matrix.store.rooms import Rooms


class SetRoom(WriteParams):
    agent_id: Line = Field(max_length=255, description=AGENT)
    paused: bool | None = Field(None, description="whether it leaves messages unanswered")
    tool_activity: bool | None = Field(None, description="whether its use of tools is shown")


class RoomSet(TypedDict):
    agent_id: str
    room_id: str


@part
class RoomOperations:
    """Changes the settings of agents in the room where somebody asks for it."""

    _rooms: Rooms

    @operation("rooms.set", Scope.ADMIN, RoomSet)
    async def set_room(self, caller: Caller, params: SetRoom) -> Result:
        """Change how an agent behaves here; what is not given stays as it is."""
        if caller.place is None:
            raise ToolError("Say it in the room that is meant.")
        room_id = caller.place.room_id
        changes = params.model_dump(include={"paused", "tool_activity"}, exclude_none=True)
        await self._rooms.change_settings(params.agent_id, room_id, **changes)
        return {"agent_id": params.agent_id, "room_id": room_id}
