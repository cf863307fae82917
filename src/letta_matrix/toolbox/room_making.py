"""The tool that makes a room, once."""

import asyncio
from typing import Any, NotRequired

from mautrix.errors import MatrixRequestError
from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.json_fields import mapping
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.errors import refusal
from letta_matrix.toolbox.membership import Membership
from letta_matrix.toolbox.naming import OptionalRoom, Words
from letta_matrix.toolbox.results import cut
from letta_matrix.toolbox.spaces import link, space_of
from letta_matrix.toolbox.tool import Caller, Line, Result, UserRef, WriteParams, tool
from letta_matrix.toolbox.writing import marker_of

_AT_ONCE = 8
_SECONDS = 120.0
"""A call may take so long: all who are invited come one by one."""

_TOOL = "matrix_create_room"


class CreateRoom(WriteParams):
    name: Line = Field(max_length=255, description="the room's name")
    topic: Words = Field("", max_length=1_000, description="what it is for")
    is_public: bool = Field(False, description="anybody may join; else by invitation only")
    invite: list[UserRef] = Field(
        default_factory=list[str], max_length=20, description="Matrix user ids to invite"
    )
    in_space: OptionalRoom = Field(
        "", description="id, alias or exact name of a space to add it to"
    )


class NotInvited(TypedDict):
    user_id: str
    reason: str


class Created(TypedDict):
    """`note` tells why it does not stand in the space."""

    room_id: str
    invited: NotRequired[list[str]]
    not_invited: NotRequired[list[NotInvited]]
    space_id: NotRequired[str]
    note: NotRequired[str]


class RoomMaking:
    """Makes rooms that the caller is the creator of."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    @tool(_TOOL, "Create a room", Scope.ROOMS, Created, seconds=_SECONDS)
    async def create_room(self, caller: Caller, params: CreateRoom) -> Result:
        """Create a Matrix room, invite people and agents to it, put it into a space."""
        if caller.principal.rooms is not None:
            raise ToolError(
                "Your token is limited to its rooms, so you cannot create others.", Fault.FORBIDDEN
            )
        space_id = await space_of(caller, params.in_space) if params.in_space else ""
        room_id = await _made(caller) if caller.again else None
        room_id = room_id or await _make(caller, params)
        invited, refused = await self._invite(caller, room_id, params.invite)
        await self._membership.entered(caller.intent, room_id)
        result: dict[str, object] = {"room_id": room_id}
        result |= {"invited": invited} if invited else {}
        result |= {"not_invited": refused} if refused else {}
        return result | (await _put_into(caller, space_id, room_id) if space_id else {})

    async def _invite(
        self, caller: Caller, room_id: str, user_ids: list[str]
    ) -> tuple[list[str], list[NotInvited]]:
        """Who could be invited, and who could not and why: the room stands without them."""
        # Side by side: whose server does not answer keeps nobody else waiting.
        gate = asyncio.Semaphore(_AT_ONCE)

        async def why_not(user_id: str) -> str:
            async with gate:
                try:
                    await self._membership.invite(caller, room_id, user_id)
                except (ToolError, MatrixRequestError) as error:
                    return str(error) if isinstance(error, ToolError) else refusal(error)
            return ""

        wanted = [one for one in dict.fromkeys(user_ids) if one != caller.user_id]
        told = [*zip(wanted, await asyncio.gather(*map(why_not, wanted)), strict=True)]
        refused: list[NotInvited] = [
            {"user_id": user_id, "reason": cut(why, 100)} for user_id, why in told if why
        ]
        return [user_id for user_id, why in told if not why], refused


async def _make(caller: Caller, params: CreateRoom) -> str:
    """Matrix has no transaction ids for new rooms: the room itself carries ours."""

    async def recover() -> dict[str, str] | None:
        found = await _made(caller)
        return {"room_id": found} if found else None

    content: dict[str, Any] = {
        "name": params.name,
        "preset": "public_chat" if params.is_public else "private_chat",
        "visibility": "private",
        "creation_content": {MARKER: marker_of(caller, _TOOL, caller.txn(_TOOL))},
    }
    content |= {"topic": params.topic} if params.topic else {}
    return await caller.intent.create_room(content, recover=recover)


async def _made(caller: Caller) -> str | None:
    """The room that an earlier try of this call has made."""
    txn, gate = caller.txn(_TOOL), asyncio.Semaphore(_AT_ONCE)

    async def is_it(room_id: str) -> bool:
        async with gate:
            create = await caller.intent.state(room_id, "m.room.create")
        return mapping(create.get(MARKER)).get("txn") == txn

    room_ids = await caller.intent.joined_rooms()
    found = await asyncio.gather(*map(is_it, room_ids))
    return next((room for room, fits in zip(room_ids, found, strict=True) if fits), None)


async def _put_into(caller: Caller, space_id: str, room_id: str) -> dict[str, object]:
    try:
        await link(caller.intent, space_id, room_id)
    except MatrixRequestError as error:
        return {"note": f"It does not stand in the space: {cut(refusal(error), 200)}."}
    return {"space_id": space_id}
