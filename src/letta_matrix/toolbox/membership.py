"""Who of us is in which room: joining and leaving by tool."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.config import Config
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.identifiers import is_ours, persons
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.rooms import Rooms
from letta_matrix.toolbox.agent_tools import known_to
from letta_matrix.toolbox.tool import Caller

log = structlog.get_logger()


Entered = Callable[[Intent, str, str], Awaitable[None]]
"""Hears of who has come into which room, and by which event."""


async def nobody_hears(intent: Intent, room_id: str, event_id: str) -> None:
    """For a toolbox without a dispatcher."""


class Membership:
    """Brings our users into rooms and out of them, with what the bridge has to know of it.

    Whoever of us comes into a room by a tool is a member there, as if a person had invited it.
    `on_entered` hears of who has come into which room so, and by which event.
    """

    def __init__(
        self,
        config: Config,
        homeserver: Homeserver,
        directory: AgentDirectory,
        rooms: Rooms,
        on_entered: Entered = nobody_hears,
    ) -> None:
        self._config = config
        self._bot_user_id = config.bot_user_id
        self._homeserver = homeserver
        self._directory = directory
        self._rooms = rooms
        self.on_entered = on_entered

    async def entered(self, intent: Intent, room_id: str) -> None:
        """One of our users is in a room now."""
        if self._is_home(intent.user_id, room_id):
            return
        if intent.user_id in self._rooms.ours_in(room_id):
            return

        async def people() -> set[str]:
            return persons(await intent.joined_members(room_id), self._bot_user_id)

        learning = self._rooms.learn(room_id, people)
        _, (event_id, since) = await asyncio.gather(learning, _joined_by(intent, room_id))
        is_direct = len(self._rooms.people_in(room_id) or ()) <= 1
        await self._rooms.joined(room_id, intent.user_id, direct=is_direct, since=since)
        log.info("room joined", user=intent.user_id, room=room_id)
        await self.on_entered(intent, room_id, event_id)

    async def left(self, intent: Intent, room_id: str) -> None:
        """One of our users is not in a room any more."""
        await self._rooms.left(room_id, intent.user_id)

    async def invite(self, caller: Caller, room_id: str, user_id: str, reason: str = "") -> str:
        """Invite somebody; their membership then: `invite`, or `join` for who was in already.
        One of us comes at once, as it does when a person invites it."""
        self._check_guest(caller, room_id, user_id)
        self.check_may_open(caller, room_id, user_id)
        membership = await membership_of(caller.intent, room_id, user_id)
        if membership == "join":
            return membership
        if membership != "invite":
            await caller.intent.invite(room_id, user_id, reason)
        if not is_ours(user_id, self._bot_user_id):
            return "invite"
        guest = self._homeserver.acting_as(user_id)
        await guest.join(room_id)
        await self.entered(guest, room_id)
        return "join"

    async def check_may_go(self, intent: Intent, room_id: str, user_id: str) -> None:
        """Raises ToolError where the bridge needs one of our users in a room."""
        if why := await self._why_needed(intent, room_id, user_id):
            raise ToolError(f"{user_id} has to stay in {room_id}: {why}.", Fault.FORBIDDEN)

    def check_may_open(self, caller: Caller, room_id: str, user_id: str) -> None:
        """Raises ToolError where it is an agent's own room and the caller may not let `user_id`
        do more there: who comes in is the admins' and the room members' affair, whatever the
        agent was talked into."""
        if not self._is_admins_affair(caller, room_id):
            return
        config = self._config
        if is_ours(user_id, self._bot_user_id) or user_id in config.agents.room_members:
            return
        if config.role_of(user_id) != "admin":
            raise ToolError(
                "This is an agent's own room: only an admin, or somebody of `room_members`, opens "
                f"it to others. Ask one of them to invite {user_id}, or use another room.",
                Fault.FORBIDDEN,
            )

    def check_may_change(self, caller: Caller, room_id: str) -> None:
        """Raises ToolError where it is an agent's own room, whose settings are the admins'."""
        if not self._is_admins_affair(caller, room_id):
            return
        speaker = caller.speaker
        if is_ours(speaker, self._bot_user_id) or self._config.role_of(speaker) != "admin":
            raise ToolError(
                "This is an agent's own room: its name, topic and avatar are the admins' affair.",
                Fault.FORBIDDEN,
            )

    async def check_keeps_power(self, intent: Intent, room_id: str, user_id: str) -> None:
        """Raises ToolError where the bridge needs the power of one of our users in a room."""
        if why := await self._why_needed(intent, room_id, user_id):
            raise ToolError(f"{user_id} needs its power in {room_id}: {why}.", Fault.FORBIDDEN)

    async def _why_needed(self, intent: Intent, room_id: str, user_id: str) -> str:
        """Why a user must be in a room as it is, "" where it need not."""
        if self._is_home(user_id, room_id):
            return "it is an agent's own room"
        if user_id == self._bot_user_id and await self._is_bridges(intent, room_id):
            return "the bridge works with it"
        return ""

    def _is_admins_affair(self, caller: Caller, room_id: str) -> bool:
        """Whether it is an agent's own room, and the caller no admin."""
        is_own = self._directory.by_room(room_id) is not None
        return is_own and Scope.ADMIN not in caller.principal.scopes

    def _is_home(self, user_id: str, room_id: str) -> bool:
        """Whether it is an agent's own room, in which that agent and the bot always are."""
        host = self._directory.by_room(room_id)
        return host is not None and user_id in (host.user_id, self._bot_user_id)

    async def _is_bridges(self, intent: Intent, room_id: str) -> bool:
        """Whether a room is the space or the control room, known by aliases only we can give."""
        if room_id not in await intent.joined_rooms():
            # Whoever is only invited may not read its state, and declines what is not ours.
            return False
        alias = (await intent.state(room_id, "m.room.canonical_alias")).get("alias")
        return isinstance(alias, str) and is_ours(f"@{alias[1:]}", self._bot_user_id)

    def _check_guest(self, caller: Caller, room_id: str, user_id: str) -> None:
        if user_id == self._bot_user_id or not is_ours(user_id, self._bot_user_id):
            return
        agent, host = self._directory.by_user(user_id), self._directory.by_room(room_id)
        if agent is None or agent not in known_to(caller, self._directory):
            raise ToolError(f"There is no agent {user_id}.", Fault.NOT_FOUND)
        if host is not None and host is not agent and caller.agent_id:
            # What is said there is for its agent and its people alone, who may decide otherwise.
            raise ToolError(
                "Only people invite agents into another agent's own room; use message_agent.",
                Fault.FORBIDDEN,
            )


async def membership_of(intent: Intent, room_id: str, user_id: str) -> str:
    """A user's `membership` in a room (spec: m.room.member), "" if there is none."""
    member = await intent.state(room_id, "m.room.member", user_id)
    return str(member.get("membership") or "")


async def _joined_by(intent: Intent, room_id: str) -> tuple[str, float]:
    """The event by which `intent` has just come into a room, and when (Unix time): by the
    homeserver's clock, which also tells when messages were sent."""
    wanted = {"types": ["m.room.member"], "senders": [intent.user_id]}
    page = await intent.messages(room_id, limit=1, filters=wanted)
    event = page.events[0] if page.events else {}
    joined_at = Event(event).sent_at or intent.homeserver.clock.now()
    return str(event.get("event_id", "")), joined_at
