"""Tools about who is in a room: join, leave, invite, kick, ban."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal, NotRequired

from mautrix.errors import MatrixRequestError
from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.toolbox.membership import Membership, membership_of
from letta_matrix.toolbox.naming import (
    Words,
    check_permitted,
    find_room,
    living_room,
    not_in,
    replaced,
    room_of,
    successor_of,
)
from letta_matrix.toolbox.results import UNTRUSTED, cut
from letta_matrix.toolbox.tool import Caller, Result, RoomRef, UserRef, WriteParams, tool
from letta_matrix.toolbox.writing import ROOM

_NAME = 200
_JOINING = 45.0
"""Seconds that another server has to let somebody in: a large room takes half a minute."""
_IN_IT = ("join", "invite", "knock")


class JoinRoom(WriteParams):
    room_id_or_alias: RoomRef = Field(description="room id (!...) or alias (#...)")


class LeaveRoom(WriteParams):
    room_id: RoomRef = Field(description=ROOM)


class AboutUser(WriteParams):
    room_id: RoomRef = Field(description=ROOM)
    user_id: UserRef = Field(description="Matrix user id (@name:server)")
    reason: Words = Field("", max_length=500, description="shown to them and to the room")


class Joined(TypedDict):
    """`successor` is the room that has replaced this one."""

    untrusted: str
    room_id: str
    name: NotRequired[str]
    successor: NotRequired[str]
    note: NotRequired[str]


class MembershipResult(TypedDict):
    """What `user_id` is to the room now."""

    room_id: str
    user_id: str
    membership: Literal["join", "invite", "leave", "ban"]


_REMOVAL = {"destructive": True, "idempotent": True}


class Guests:
    """Lets the caller come and go, and others with it."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    @tool("matrix_join_room", "Join a room", Scope.ROOMS, Joined, idempotent=True)
    async def join(self, caller: Caller, params: JoinRoom) -> Result:
        """Join a Matrix room that you are invited to, or that is open to everybody."""
        ref, intent = params.room_id_or_alias, caller.intent
        if ref[0] not in "!#":
            raise ToolError(f"{ref} is no room id (!...) and no alias (#name:server).")
        room_id = await find_room(caller, ref)
        check_permitted(caller, ref, room_id)
        if await caller.refuses(intent, room_id):
            raise not_in(caller, ref)
        try:
            async with intent.asking(ref, _JOINING):
                await intent.join(room_id, via=ref.partition(":")[2] if ref[0] == "#" else "")
        except MatrixRequestError as error:
            raise _not_joined(caller, ref, error) from error
        await self._membership.entered(intent, room_id)
        name, successor = await intent.room_name(room_id), await successor_of(intent, room_id)
        result: dict[str, object] = {**UNTRUSTED, "room_id": room_id}
        result |= {"name": cut(name, _NAME)} if name else {}
        result |= {"successor": successor} if successor else {}
        return result | ({} if successor is None else {"note": replaced(ref, successor)})

    @tool("matrix_leave", "Leave a room", Scope.ROOMS, MembershipResult, idempotent=True)
    async def leave(self, caller: Caller, params: LeaveRoom) -> Result:
        """Leave a Matrix room, or decline an invitation to it."""
        async with room_of(caller, params.room_id) as room_id:
            await self._membership.check_may_go(caller.intent, room_id, caller.user_id)
            await caller.intent.leave(room_id)
        await self._membership.left(caller.intent, room_id)
        return _told(room_id, caller.user_id, "leave")

    @tool("matrix_invite", "Invite somebody", Scope.ROOMS, MembershipResult, idempotent=True)
    async def invite(self, caller: Caller, params: AboutUser) -> Result:
        """Invite a person or an agent to a Matrix room you are in; agents come at once."""
        async with living_room(caller, params.room_id) as room_id:
            membership = await self._membership.invite(
                caller, room_id, params.user_id, params.reason
            )
        return _told(room_id, params.user_id, membership)

    @tool("matrix_kick", "Kick somebody", Scope.ROOMS, MembershipResult, **_REMOVAL)
    async def kick(self, caller: Caller, params: AboutUser) -> Result:
        """Remove somebody from a room."""
        async with self._removing(caller, params) as room_id:
            membership = await membership_of(caller.intent, room_id, params.user_id)
            if membership in _IN_IT:
                await caller.intent.kick(room_id, params.user_id, params.reason)
            elif not caller.again:
                raise ToolError(f"{params.user_id} is not in {params.room_id}.", Fault.NOT_FOUND)
        return _told(room_id, params.user_id, "leave")

    @tool("matrix_ban", "Ban somebody", Scope.ROOMS, MembershipResult, **_REMOVAL)
    async def ban(self, caller: Caller, params: AboutUser) -> Result:
        """Remove somebody for good."""
        async with self._removing(caller, params) as room_id:
            if await membership_of(caller.intent, room_id, params.user_id) != "ban":
                await caller.intent.ban(room_id, params.user_id, params.reason)
        return _told(room_id, params.user_id, "ban")

    @tool("matrix_unban", "Lift a ban", Scope.ROOMS, MembershipResult, idempotent=True)
    async def unban(self, caller: Caller, params: AboutUser) -> Result:
        """Let somebody whom a Matrix room has banned be invited to it again."""
        async with living_room(caller, params.room_id) as room_id:
            self._membership.check_may_open(caller, room_id, params.user_id)
            if await membership_of(caller.intent, room_id, params.user_id) == "ban":
                await caller.intent.unban(room_id, params.user_id, params.reason)
            elif not caller.again:
                text = f"{params.user_id} is not banned from {params.room_id}."
                raise ToolError(text, Fault.NOT_FOUND)
        return _told(room_id, params.user_id, "leave")

    @asynccontextmanager
    async def _removing(self, caller: Caller, params: AboutUser) -> AsyncGenerator[str]:
        if params.user_id == caller.user_id:
            raise ToolError("That is you; matrix_leave leaves a room.")
        async with living_room(caller, params.room_id) as room_id:
            await self._membership.check_may_go(caller.intent, room_id, params.user_id)
            yield room_id


def _told(room_id: str, user_id: str, membership: str) -> Result:
    return {"room_id": room_id, "user_id": user_id, "membership": membership}


def _not_joined(caller: Caller, ref: str, error: MatrixRequestError) -> Exception:
    if error.http_status == 403:
        return ToolError(
            f"You may not join {ref}: ask somebody there to invite {caller.user_id}.",
            Fault.FORBIDDEN,
        )
    if error.http_status in (400, 404):
        return ToolError(f"There is no room {ref} that can be joined.", Fault.NOT_FOUND)
    return error
