"""Tools that change a room itself: name, topic, avatar, and what its members may do."""

import asyncio
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.identifiers import is_ours
from letta_matrix.matrix.intent import Intent
from letta_matrix.operations.toolbox.arguments import RoomWriteParams, Words
from letta_matrix.operations.toolbox.membership_tools import check_may_open, is_admins_affair
from letta_matrix.operations.toolbox.naming import living_room
from letta_matrix.operations.toolbox.power import HIGHEST, Powers
from letta_matrix.operations.toolbox.results import OfRoom
from letta_matrix.operations.toolbox.tool import Caller, Result, UserRef, tool


def _one_line(text: str | None) -> str | None:
    if text is not None and "\n" in text:
        raise ValueError("should be one line")
    return text


Name = Annotated[Words, Field(max_length=255), AfterValidator(_one_line)]
Topic = Annotated[Words, Field(max_length=1_000)]
Avatar = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True,
        max_length=255,
        pattern=r"^(mxc://[A-Za-z0-9.:\[\]-]+/[A-Za-z0-9_-]+)?$",
    ),
]


class SetRoom(RoomWriteParams):
    name: Name | None = Field(None, description='new name; "" for none')
    topic: Topic | None = Field(None, description='new topic; "" for none')
    avatar: Avatar | None = Field(None, description='mxc:// URI of an uploaded image; "" for none')


class SetPowerLevel(RoomWriteParams):
    user_id: UserRef = Field(description="Matrix user id (@name:server)")
    level: int = Field(
        ge=-HIGHEST, le=HIGHEST, description="0: member, 50: moderator, 100: administrator"
    )


class RoomSet(OfRoom):
    """`changed` are those of name, topic and avatar that were not so already."""

    changed: list[str]


class PowerSet(OfRoom):
    user_id: str
    level: int
    before: int


@tool("matrix_set_room", "Change a room", Scope.ROOMS, RoomSet, idempotent=True)
async def set_room(caller: Caller, params: SetRoom) -> Result:
    """Change the name, topic or avatar of a Matrix room; only what is given changes."""
    wanted = {
        "name": ("m.room.name", "name", params.name),
        "topic": ("m.room.topic", "topic", params.topic),
        "avatar": ("m.room.avatar", "url", params.avatar),
    }
    given = {name: one for name, one in wanted.items() if one[2] is not None}
    if not given:
        raise ToolError("Give a `name`, a `topic` or an `avatar`.")
    if params.avatar and caller.principal.rooms is not None:
        # In a room of its own it could be read, wherever it came from.
        raise ToolError(
            "Your token is for some rooms alone, and nothing tells which rooms an `mxc` is "
            "from; it cannot set an `avatar`.",
            Fault.FORBIDDEN,
        )
    changed: list[str] = []
    async with living_room(caller, params.room_id) as room_id:
        _check_may_change(caller, room_id)
        for name, (event_type, key, value) in given.items():
            if ((await caller.intent.state(room_id, event_type)).get(key) or "") != value:
                content = {key: value} if value or key != "url" else {}
                await caller.intent.set_state(room_id, event_type, content)
                changed.append(name)
    return {"room_id": room_id, "changed": changed}


@tool(
    "matrix_set_power_level",
    "Set a power level",
    Scope.ROOMS,
    PowerSet,
    destructive=True,
    idempotent=True,
)
async def set_power_level(caller: Caller, params: SetPowerLevel) -> Result:
    """Change what a member may do in a Matrix room: its power level."""
    intent, user_id, level = caller.intent, params.user_id, params.level
    async with living_room(caller, params.room_id) as room_id:
        check_may_open(caller, room_id, user_id)
        if why := await caller.house.membership.why_needed(intent, room_id, user_id):
            raise ToolError(f"{user_id} needs its power in {room_id}: {why}.", Fault.FORBIDDEN)
        async with caller.house.locks.setdefault(room_id, asyncio.Lock()):
            powers = await _powers(intent, room_id)
            before, content = powers.changed(caller.user_id, user_id, level)
            if before != level:
                await intent.set_state(room_id, "m.room.power_levels", content)
    return {"room_id": room_id, "user_id": user_id, "level": level, "before": before}


def _check_may_change(caller: Caller, room_id: str) -> None:
    """Raises ToolError where it is an agent's own room, whose settings are the admins'."""
    config, speaker = caller.house.config, caller.speaker
    by_admin = not is_ours(speaker, config.bot_user_id) and config.role_of(speaker) == "admin"
    if is_admins_affair(caller, room_id) and not by_admin:
        raise ToolError(
            "This is an agent's own room: its name, topic and avatar are the admins' affair.",
            Fault.FORBIDDEN,
        )


async def _powers(intent: Intent, room_id: str) -> Powers:
    levels, create = await asyncio.gather(
        intent.state(room_id, "m.room.power_levels"), intent.creation(room_id)
    )
    return Powers(levels, create)
