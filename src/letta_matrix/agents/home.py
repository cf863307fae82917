"""The rooms of the bridge itself: the space that holds the agents' rooms, and a control room."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError, MRoomInUse

from letta_matrix.agents.room_access import ADMIN, wanted_access
from letta_matrix.config import Config
from letta_matrix.matrix.avatars import avatar_png
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.events import mapping
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.meta import Meta

log = structlog.get_logger()

SPACE_ALIAS = "letta_agents"
CONTROL_EVENT = "org.letta.matrix.wake"


class Home:
    """Makes the bot, the space and the control room exist, once; ids are kept in the database."""

    def __init__(self, config: Config, bot: Intent, meta: Meta) -> None:
        self._config = config
        self._bot = bot
        self._meta = meta
        self.space_id = ""
        self.control_room_id = ""

    async def ensure(self) -> None:
        """Bring it all into being; nothing is sent when it is there already.

        Raises MatrixRequestError or HomeserverUnavailable.
        """
        if await self._meta.get("bot") != self._config.appservice.bot_displayname:
            await self._bot.register()
            await self._bot.set_displayname(self._config.appservice.bot_displayname)
            await self._meta.set("bot", self._config.appservice.bot_displayname)
        self.control_room_id = await self._room("control_room", self._control_room())
        self.space_id = await self._room("space", self._space())
        await self._invite_people()

    async def adorn(self) -> None:
        """Give the space a picture, and its admins power there. Nothing depends on that."""
        try:
            await self._empower_admins()
            await self._show_avatar()
        except (MatrixRequestError, HomeserverUnavailable) as error:
            log.warning("the space is not as it should be", reason=str(error))

    async def take_out(self, room_id: str) -> None:
        """Let a room stand in the space no more. Raises as `ensure` does."""
        await self._bot.set_state(self.space_id, "m.space.child", {}, room_id)

    async def archive(self, agent: Agent, directory: AgentDirectory) -> None:
        """Let an agent's room stand in the space no more, until the agent is back. Raises as
        `ensure` does."""

        def taken_out(one: Agent) -> Agent:
            applied = {key: value for key, value in one.applied.items() if key != "space"}
            return replace(one, applied=applied)

        if agent.room_id is not None:
            await self.take_out(agent.room_id)
            await directory.change([agent.agent_id], taken_out)

    async def wake(self, txn_id: str) -> None:
        """Make the homeserver look at its queue for us (FACTS 2: after a ping alone it may not)."""
        content = {"wake": txn_id}
        await self._bot.send(self.control_room_id, CONTROL_EVENT, content, txn_id, give_up_after=30)

    async def _room(self, key: str, content: Mapping[str, Any]) -> str:
        known = await self._meta.get(key)
        if known is not None:
            return known
        room_id = await self._create(content)
        await self._meta.set(key, room_id)
        return room_id

    async def _create(self, content: Mapping[str, Any]) -> str:
        try:
            return await self._bot.create_room(content)
        except MRoomInUse:
            alias = f"#{content['room_alias_name']}:{self._config.homeserver.domain}"
            room_id = await self._bot.resolve_alias(alias)
            if room_id is None:
                raise
            return room_id

    async def _invite_people(self) -> None:
        wanted = ",".join(sorted(self._config.agents.room_members))
        if await self._meta.get("space_members") == wanted:
            return
        present = await self._bot.members(self.space_id)
        for person in self._config.agents.room_members:
            if person in present:
                continue
            try:
                await self._bot.invite(self.space_id, person)
            except MatrixRequestError as error:
                log.warning("cannot invite to the space", person=person, reason=refusal(error))
        await self._meta.set("space_members", wanted)

    async def _show_avatar(self) -> None:
        """Give the space a picture, unless it has one."""
        if await self._meta.get("space_avatar") is not None:
            return
        known = (await self._bot.state(self.space_id, "m.room.avatar")).get("url")
        if not known:
            known = await self._bot.upload(avatar_png(SPACE_ALIAS), "image/png", "avatar.png")
            await self._bot.set_state(self.space_id, "m.room.avatar", {"url": known})
        await self._meta.set("space_avatar", str(known))

    async def _empower_admins(self) -> None:
        """Let the admins that are named one by one tidy the space. Whom people of it gave power
        keep it."""
        people = wanted_access(self._config)["people"]
        admins = sorted(person for person, level in people.items() if level == ADMIN)
        if await self._meta.get("space_admins") == (wanted := ",".join(admins)):
            return
        levels = await self._bot.state(self.space_id, "m.room.power_levels")
        users = {**mapping(levels.get("users")), **dict.fromkeys(admins, ADMIN)}
        if users != levels.get("users"):
            content = {**levels, "users": users}
            await self._bot.set_state(self.space_id, "m.room.power_levels", content)
        await self._meta.set("space_admins", wanted)

    def _space(self) -> dict[str, Any]:
        return {
            "name": self._config.agents.space_name,
            "topic": "Every Letta agent has a room here.",
            "room_alias_name": SPACE_ALIAS,
            "preset": "private_chat",
            "creation_content": {"type": "m.space"},
            "invite": self._config.agents.room_members,
        }

    def _control_room(self) -> dict[str, Any]:
        return {
            "name": "letta-matrix control",
            "room_alias_name": "letta_control",
            "preset": "private_chat",
        }
