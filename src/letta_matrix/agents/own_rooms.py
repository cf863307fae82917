"""Making agents' own rooms: with all that belongs to one, or, where that is refused, without."""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError, MForbidden, MRoomInUse

from letta_matrix.agents.home import Home
from letta_matrix.agents.room_access import access_content, wanted_access
from letta_matrix.agents.room_origin import turned_away
from letta_matrix.common.identifiers import room_alias
from letta_matrix.common.json_fields import as_texts
from letta_matrix.config import Config
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.errors import is_refusal, refused_request
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import Agent

log = structlog.get_logger()

LONGEST_NAME = 255
"""Characters of a display name or a room name: Synapse takes no longer display name than 256."""

SERVICE = "io.element.functional_members"
"""State that tells clients who is no part of the talk (MSC4171): a person, an agent and the bot
are a chat of two, with the agent's face."""

_MEMBERS = "service_members"
_LONGEST_TOPIC = 1000


class OwnRooms:
    """Makes an agent's room, or finds the one that an earlier try has made."""

    def __init__(self, config: Config, home: Home) -> None:
        self._config = config
        self._home = home
        self._version = config.agents.room_version
        self._asking = asyncio.Lock()

    def name(self, agent: Agent) -> str:
        return self._config.agents.room_name.replace("{name}", agent.name)[:LONGEST_NAME]

    def topic(self, agent: Agent) -> str:
        topic = self._config.agents.room_topic.replace("{name}", agent.name)
        return topic.replace("{description}", agent.description)[:_LONGEST_TOPIC]

    async def make(self, agent: Agent, ghost: Intent) -> tuple[str, dict[str, object]]:
        """The room's id, and what of `Agent.applied` holds there already. `agent` is as the
        directory has it now. Raises MatrixRequestError or HomeserverUnavailable."""
        members = sorted(self._config.agents.room_members)
        access = wanted_access(self._config)
        version = await self._room_version(ghost)
        content = self._whole(agent, members, access, version)
        try:
            room_id = await ghost.create_room(content)
        except MRoomInUse:
            if (adopted := await self._adopt(agent, ghost)) is not None:
                return adopted, {}
            room_id = await ghost.create_room(content)
        except MatrixRequestError as error:
            if not is_refusal(error):
                raise
            reason = refused_request(error)
            log.warning("a room is refused as it should be", agent=agent.agent_id, reason=reason)
            return await self._make_bare(agent, ghost, version)
        applied: dict[str, object] = {
            "room_name": content["name"],
            "room_topic": content["topic"],
            "service": self._config.bot_user_id,
            "members": members,
            "access": access,
            "power": True,
        }
        return room_id, applied | ({} if picture_of(agent) else {"room_avatar": ""})

    async def _room_version(self, ghost: Intent) -> int:
        """Asked once, however many agents are new."""
        async with self._asking:
            if self._version is None:
                self._version = await ghost.default_room_version()
            return self._version

    async def _make_bare(
        self, agent: Agent, ghost: Intent, version: int
    ) -> tuple[str, dict[str, object]]:
        """What was refused may be an alias, a guest, a piece of state: all that comes later, each
        by itself. The room may be there, as making one is not atomic (Synapse)."""
        is_taken = await ghost.resolve_alias(self._alias(agent)) is not None
        if is_taken and (adopted := await self._adopt(agent, ghost)) is not None:
            return adopted, {}
        creation = self._foundation({MARKER: {"agent_id": agent.agent_id}}, version)
        room_id = await _made_by(ghost, agent) or await ghost.create_room(
            {"preset": "private_chat", **creation}
        )
        return room_id, {"alias": "", "room_avatar": "", "power": True}

    async def _adopt(self, agent: Agent, ghost: Intent) -> str | None:
        """The room that the alias leads to, None for one of somebody else."""
        alias = self._alias(agent)
        room_id = await ghost.resolve_alias(alias)
        if room_id is None:
            raise HomeserverUnavailable(f"{alias} is taken but leads nowhere yet")
        await ghost.join(room_id)
        if await turned_away(ghost, room_id, alias, self._config):
            return None
        log.info("room adopted", agent=agent.agent_id, room=room_id)
        return room_id

    def _alias(self, agent: Agent) -> str:
        return room_alias(agent.agent_id, self._config.homeserver.domain)

    def _whole(
        self, agent: Agent, members: list[str], access: Mapping[str, Any], version: int
    ) -> dict[str, Any]:
        # Since room version 12 creators stand above all power levels and may not be listed.
        ours = [agent.user_id, self._config.bot_user_id] if version < 12 else []
        access_part = access_content(access, ours)
        return {
            "name": self.name(agent),
            "topic": self.topic(agent),
            "room_alias_name": room_alias(agent.agent_id, "")[1:-1],
            "preset": "private_chat",
            "invite": [self._config.bot_user_id, *members],
            "power_level_content_override": access_part["power_level_content_override"],
            "initial_state": [*self._looks(agent), *access_part["initial_state"]],
            **self._foundation({}, version),
        }

    def _looks(self, agent: Agent) -> list[dict[str, Any]]:
        """What shows it as a chat with the agent; its place in the space and its picture, where
        there are any."""
        service = service_content(self._config.bot_user_id)
        looks: list[dict[str, Any]] = [{"type": SERVICE, "content": service}]
        if space_id := self._home.space_id:
            parent = {"via": [self._config.homeserver.domain], "canonical": True}
            looks.append({"type": "m.space.parent", "state_key": space_id, "content": parent})
        if picture := picture_of(agent):
            looks.append({"type": "m.room.avatar", "content": {"url": picture}})
        return looks

    def _foundation(self, creation: dict[str, Any], version: int) -> dict[str, Any]:
        """The part that cannot be changed later; `creation` stands in `m.room.create`."""
        content: dict[str, Any] = {}
        if self._config.agents.room_version is not None:
            content["room_version"] = str(version)
        if version >= 12:
            creation = {**creation, "additional_creators": [self._config.bot_user_id]}
        return content | ({"creation_content": creation} if creation else {})


def service_content(*user_ids: str) -> dict[str, object]:
    """The content of `SERVICE` in a room with these."""
    return {_MEMBERS: [*user_ids]}


async def show_service(ghost: Intent, room_id: str, bot_user_id: str) -> None:
    """Tell in a ghost's room that the bot is one of its service members; whom others have told of
    stays. Raises as `bring`."""
    told = as_texts((await ghost.state(room_id, SERVICE)).get(_MEMBERS))
    if bot_user_id not in told:
        await ghost.set_state(room_id, SERVICE, service_content(*told, bot_user_id))


async def bring(bot: Intent, ghost: Intent, room_id: str) -> None:
    """Have the bot in a room of a ghost's. Raises MatrixRequestError or HomeserverUnavailable."""
    try:
        await bot.join(room_id)
    except MForbidden:
        # A room of before our time, to which nobody invited it.
        await ghost.invite(room_id, bot.user_id)
        await bot.join(room_id)


async def point_alias(ghost: Intent, alias: str, room_id: str) -> None:
    """Give a room that was made without one its alias. Raises as `bring`."""
    await ghost.point_alias(alias, room_id)
    await ghost.set_state(room_id, "m.room.canonical_alias", {"alias": alias})


def picture_of(agent: Agent) -> str:
    """The `mxc://` URI of an agent's picture, "" as long as there is none."""
    return str(agent.applied.get("avatar") or agent.applied.get("picture") or "")


async def _made_by(ghost: Intent, agent: Agent) -> str | None:
    """The bare room that an earlier try has made."""
    for room_id in await ghost.joined_rooms():
        creation = await ghost.creation(room_id)
        marker = Event(creation).marker
        if creation.get("sender") == ghost.user_id and marker == {"agent_id": agent.agent_id}:
            return room_id
    return None
