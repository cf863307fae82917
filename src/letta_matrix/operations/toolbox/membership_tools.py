"""Tools about who is in a room: join, leave, invite, kick, ban."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal, NotRequired

from mautrix.errors import MatrixRequestError
from pydantic import Field

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.identifiers import is_ours
from letta_matrix.matrix.intent import Intent
from letta_matrix.operations.toolbox.arguments import RoomRef, RoomWriteParams, Words
from letta_matrix.operations.toolbox.naming import (
    living_room,
    permitted_room,
    replaced,
    room_of,
    successor_of,
)
from letta_matrix.operations.toolbox.results import UNTRUSTED, OfRoom, Untrusted, cut, filled
from letta_matrix.operations.toolbox.tool import Caller, Result, UserRef, WriteParams, tool

_NAME = 200
_JOINING = 45.0
"""Seconds that another server has to let somebody in: a large room takes half a minute."""
_IN_IT = ("join", "invite", "knock")


class JoinRoom(WriteParams):
    room_id_or_alias: RoomRef = Field(description="room id (!...) or alias (#...)")


class AboutUser(RoomWriteParams):
    user_id: UserRef = Field(description="Matrix user id (@name:server)")
    reason: Words = Field("", max_length=500, description="shown to them and to the room")


class Joined(OfRoom, Untrusted):
    """`successor` is the room that has replaced this one."""

    name: NotRequired[str]
    successor: NotRequired[str]
    note: NotRequired[str]


class MembershipResult(OfRoom):
    """What `user_id` is to the room now."""

    user_id: str
    membership: Literal["join", "invite", "leave", "ban"]


_REMOVAL = {"destructive": True, "idempotent": True}


@tool("matrix_join_room", "Join a room", Scope.ROOMS, Joined, idempotent=True)
async def join(caller: Caller, params: JoinRoom) -> Result:
    """Join a Matrix room that you are invited to, or that is open to everybody."""
    ref, intent = params.room_id_or_alias, caller.intent
    if ref[0] not in "!#":
        raise ToolError(f"{ref} is no room id (!...) and no alias (#name:server).")
    room_id = await permitted_room(caller, ref)
    try:
        async with intent.asking(ref, _JOINING):
            await intent.join(room_id, via=ref.partition(":")[2] if ref[0] == "#" else "")
    except MatrixRequestError as error:
        raise _not_joined(caller, ref, error) from error
    await caller.house.membership.entered(intent, room_id)
    name, successor = await intent.room_name(room_id), await successor_of(intent, room_id)
    note = None if successor is None else replaced(ref, successor)
    told = filled(room_id=room_id, name=cut(name, _NAME), successor=successor, note=note)
    return {**UNTRUSTED, **told}


@tool("matrix_leave", "Leave a room", Scope.ROOMS, MembershipResult, idempotent=True)
async def leave(caller: Caller, params: RoomWriteParams) -> Result:
    """Leave a Matrix room, or decline an invitation to it."""
    async with room_of(caller, params.room_id) as room_id:
        await _check_may_go(caller, room_id, caller.user_id)
        await caller.intent.leave(room_id)
    await caller.house.membership.left(caller.intent, room_id)
    return _told(room_id, caller.user_id, "leave")


@tool("matrix_invite", "Invite somebody", Scope.ROOMS, MembershipResult, idempotent=True)
async def invite(caller: Caller, params: AboutUser) -> Result:
    """Invite a person or an agent to a Matrix room you are in; agents come at once."""
    async with living_room(caller, params.room_id) as room_id:
        membership = await invite_to(caller, room_id, params.user_id, params.reason)
    return _told(room_id, params.user_id, membership)


@tool("matrix_kick", "Kick somebody", Scope.ROOMS, MembershipResult, **_REMOVAL)
async def kick(caller: Caller, params: AboutUser) -> Result:
    """Remove somebody from a room."""
    async with _removing(caller, params) as room_id:
        if await _membership_of(caller.intent, room_id, params.user_id) in _IN_IT:
            await caller.intent.kick(room_id, params.user_id, params.reason)
        elif not caller.again:
            raise ToolError(f"{params.user_id} is not in {params.room_id}.", Fault.NOT_FOUND)
    return _told(room_id, params.user_id, "leave")


@tool("matrix_ban", "Ban somebody", Scope.ROOMS, MembershipResult, **_REMOVAL)
async def ban(caller: Caller, params: AboutUser) -> Result:
    """Remove somebody for good."""
    async with _removing(caller, params) as room_id:
        if await _membership_of(caller.intent, room_id, params.user_id) != "ban":
            await caller.intent.ban(room_id, params.user_id, params.reason)
    return _told(room_id, params.user_id, "ban")


@tool("matrix_unban", "Lift a ban", Scope.ROOMS, MembershipResult, idempotent=True)
async def unban(caller: Caller, params: AboutUser) -> Result:
    """Let somebody whom a Matrix room has banned be invited to it again."""
    async with living_room(caller, params.room_id) as room_id:
        check_may_open(caller, room_id, params.user_id)
        if await _membership_of(caller.intent, room_id, params.user_id) == "ban":
            await caller.intent.unban(room_id, params.user_id, params.reason)
        elif not caller.again:
            text = f"{params.user_id} is not banned from {params.room_id}."
            raise ToolError(text, Fault.NOT_FOUND)
    return _told(room_id, params.user_id, "leave")


async def invite_to(caller: Caller, room_id: str, user_id: str, reason: str = "") -> str:
    """Invite somebody; their membership then: `invite`, or `join` for who was in already.
    One of us comes at once, as it does when a person invites it."""
    house = caller.house
    _check_guest(caller, room_id, user_id)
    check_may_open(caller, room_id, user_id)
    membership = await _membership_of(caller.intent, room_id, user_id)
    if membership == "join":
        return membership
    if membership != "invite":
        await caller.intent.invite(room_id, user_id, reason)
    if not is_ours(user_id, house.config.bot_user_id):
        return "invite"
    guest = house.homeserver.acting_as(user_id)
    await guest.join(room_id)
    await house.membership.entered(guest, room_id)
    return "join"


def check_may_open(caller: Caller, room_id: str, user_id: str) -> None:
    """Raises ToolError where it is an agent's own room and the caller may not let `user_id` do
    more there: who comes in is the admins' and the room members' affair, whatever the agent was
    talked into."""
    config = caller.house.config
    if not is_admins_affair(caller, room_id) or is_ours(user_id, config.bot_user_id):
        return
    if user_id not in config.agents.room_members and config.role_of(user_id) != "admin":
        raise ToolError(
            "This is an agent's own room: only an admin, or somebody of `room_members`, opens it "
            f"to others. Ask one of them to invite {user_id}, or use another room.",
            Fault.FORBIDDEN,
        )


def is_admins_affair(caller: Caller, room_id: str) -> bool:
    """Whether it is an agent's own room, and the caller no admin."""
    is_own = caller.house.directory.by_room(room_id) is not None
    return is_own and Scope.ADMIN not in caller.principal.scopes


@asynccontextmanager
async def _removing(caller: Caller, params: AboutUser) -> AsyncGenerator[str]:
    if params.user_id == caller.user_id:
        raise ToolError("That is you; matrix_leave leaves a room.")
    async with living_room(caller, params.room_id) as room_id:
        await _check_may_go(caller, room_id, params.user_id)
        yield room_id


async def _check_may_go(caller: Caller, room_id: str, user_id: str) -> None:
    if why := await caller.house.membership.why_needed(caller.intent, room_id, user_id):
        raise ToolError(f"{user_id} has to stay in {room_id}: {why}.", Fault.FORBIDDEN)


def _check_guest(caller: Caller, room_id: str, user_id: str) -> None:
    directory, bot_user_id = caller.house.directory, caller.house.config.bot_user_id
    if user_id == bot_user_id or not is_ours(user_id, bot_user_id):
        return
    agent, host = directory.by_user(user_id), directory.by_room(room_id)
    if agent is None or agent not in caller.agents():
        raise ToolError(f"There is no agent {user_id}.", Fault.NOT_FOUND)
    if host is not None and host is not agent and caller.agent_id:
        # What is said there is for its agent and its people alone, who may decide otherwise.
        raise ToolError(
            "Only people invite agents into another agent's own room; use message_agent.",
            Fault.FORBIDDEN,
        )


async def _membership_of(intent: Intent, room_id: str, user_id: str) -> str:
    """A user's `membership` in a room (spec: m.room.member), "" if there is none."""
    member = await intent.state(room_id, "m.room.member", user_id)
    return str(member.get("membership") or "")


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
