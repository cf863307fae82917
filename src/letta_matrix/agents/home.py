"""The rooms of the bridge itself: the space that holds the agents' rooms, and a control room."""

from collections.abc import Mapping
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.agents.decoration import BOTS_ACCOUNT, Decoration, NotAsWanted
from letta_matrix.agents.earlier_accounts import EarlierAccounts
from letta_matrix.agents.losses import Loss, Losses
from letta_matrix.agents.room_access import ADMIN, invite_all, uninvited, wanted_access
from letta_matrix.agents.room_origin import turned_away
from letta_matrix.agents.standing import Standing, leading_to, standing
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.matrix.avatars import avatar_png
from letta_matrix.matrix.errors import is_refusal
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import Agent, AgentDirectory, marked
from letta_matrix.store.forgetting import OF_THE_SPACE
from letta_matrix.store.meta import Meta

log = structlog.get_logger()

SPACE_ALIAS, CONTROL_ALIAS = "letta_agents", "letta_control"
CONTROL_EVENT = "org.letta.matrix.wake"


@part
class Home:
    """Makes the bot, the space and the control room exist, once; ids are kept in the database.
    `trouble` tells what operators should know of them, "" for nothing."""

    _config: Config
    _bot: Intent
    _meta: Meta
    _losses: Losses
    _directory: AgentDirectory

    def __post_init__(self) -> None:
        self.decoration = Decoration(self._directory, self._meta)
        self.accounts = EarlierAccounts(self._config, self._directory)
        self.space_id = ""
        self.control_room_id = ""
        self.trouble = ""

    @property
    def rooms(self) -> set[str]:
        """The space and the control room."""
        return {self.space_id, self.control_room_id} - {""}

    async def verify(self) -> set[str]:
        """Forget those of the bot's rooms that are gone; returns all rooms that it is in. Nothing
        is sent when they are there. Raises as `ensure` does."""
        await self._make_bot()
        joined = set(await self._bot.joined_rooms())
        self.trouble = ""
        control = await self._stands("control_room", CONTROL_ALIAS, joined)
        # Nobody else is in the control room, and nobody misses it.
        if control is not Standing.MEMBER:
            await self._forget("control_room", CONTROL_ALIAS)
        space = await self._stands("space", SPACE_ALIAS, joined)
        if space in (Standing.GONE, Standing.MOVED):
            await self._forget("space", SPACE_ALIAS)
            await self._meta.forget(*OF_THE_SPACE)
        elif space is Standing.OUT:
            self.trouble = (
                "the bot is not in the space of the agents any more, so that new rooms are missing "
                f"there: invite {self._bot.user_id} to it"
            )
        await self._make_bot()
        return joined

    async def ensure(self) -> None:
        """Bring it all into being; nothing is sent when it is there already.

        Raises MatrixRequestError or HomeserverUnavailable.
        """
        await self._make_bot()
        attempt = self.decoration.attempt
        # Without it Synapse is slow to tell what we missed, and no more than that.
        control = await attempt(
            "the control room", lambda: self._room("control_room", self._control_room())
        )
        space = await attempt("the space", lambda: self._room("space", self._space()))
        self.control_room_id, self.space_id = control or "", space or ""
        if self.space_id:
            people = ",".join(sorted(self._config.agents.room_members))
            await attempt("invitations to the space", self._invite_people, people)

    async def adorn(self) -> None:
        """Give the space a picture, and its admins power there. Raises HomeserverUnavailable."""
        if self.space_id:
            await self.decoration.attempt("power in the space", self._empower_admins)
            await self.decoration.attempt("the space's picture", self._show_avatar)

    async def decorate_again(self) -> bool:
        """Try again what is wanting, when it is time; whether the space is another one now."""
        if not self.decoration.is_own_due:
            return False
        before = self.space_id
        try:
            await self.ensure()
            await self.adorn()
        except (MatrixRequestError, HomeserverUnavailable) as error:
            log.info("not decorated anew", reason=str(error))
        return self.space_id != before

    async def take_in(self, room_id: str, before: object) -> None:
        """Let a room stand in the space, which takes the place of the one `before`. Raises as
        `ensure` does."""
        via = {"via": [self._config.homeserver.domain]}
        await self._bot.set_state(self.space_id, "m.space.child", via, room_id)
        if before is not None:
            parent = {**via, "canonical": True}
            await self._bot.set_state(room_id, "m.space.parent", parent, self.space_id)
            await self._bot.set_state(room_id, "m.space.parent", {}, str(before))

    async def take_out(self, room_id: str) -> None:
        """Let a room stand in the space no more. Raises as `ensure` does."""
        if self.space_id:
            await self._bot.set_state(self.space_id, "m.space.child", {}, room_id)

    async def archive(self, agent: Agent) -> None:
        """Let an agent's room stand in the space no more, until the agent is back. Raises as
        `ensure` does."""
        if agent.room_id is not None:
            await self.take_out(agent.room_id)
            await self._directory.change([agent.agent_id], lambda one: marked(one, space=None))

    async def wake(self, txn_id: str) -> bool:
        """Make the homeserver look at its queue for us, which after a ping alone it may not;
        whether there was a room to send that into. Raises as `ensure` does."""
        content = {"wake": txn_id}
        if room_id := self.control_room_id or self.space_id:
            await self._bot.send(room_id, CONTROL_EVENT, content, txn_id, give_up_after=30)
        return bool(room_id)

    async def _register(self) -> None:
        if await self._meta.get("bot_sole") is None:
            is_sole = await self.accounts.claim(self._bot, self._alias(CONTROL_ALIAS), wanted=True)
            await self._meta.set("bot_sole", "yes" if is_sole else "no")
        else:
            await self._bot.register()
        await self._meta.set("bot", "")

    async def _check_account(self) -> None:
        await self.accounts.check(self._bot)
        await self._meta.set("bot_sole", "yes")

    async def _show_name(self, name: str) -> None:
        await self._bot.set_displayname(name)
        await self._meta.set("bot", name)

    async def _make_bot(self) -> None:
        if await self._meta.get("bot") is None:
            await self._register()
        if await self._meta.get("bot_sole") == "no":
            await self.decoration.attempt(BOTS_ACCOUNT, self._check_account)
        name = self._config.appservice.bot_displayname
        if await self._meta.get("bot") != name:
            await self.decoration.attempt(
                "the bot's display name", lambda: self._show_name(name), name
            )

    async def _stands(self, key: str, localpart: str, joined: set[str]) -> Standing:
        """How the bot stands to one of its rooms; MEMBER of one that was never made."""
        room_id = await self._meta.get(key)
        if room_id is None:
            return Standing.MEMBER
        return await standing(self._bot, room_id, self._alias(localpart), joined)

    async def _forget(self, key: str, localpart: str) -> None:
        """A room of the bot is gone, and perhaps its account; its alias may be left."""
        await self._meta.forget("bot")
        room_id, alias = await self._meta.get(key), self._alias(localpart)
        log.warning("a room of the bot is gone", which=key, room=room_id)
        if await leading_to(self._bot, alias) == room_id:
            await self._bot.remove_alias(alias)
        await self._meta.set(f"{key}_before", str(room_id))
        await self._meta.forget(key)

    async def _room(self, key: str, content: Mapping[str, Any]) -> str:
        known = await self._meta.get(key)
        if known is not None:
            return known
        room_id, made = await self._create(content)
        if await self._meta.get(f"{key}_before") is not None:
            loss = Loss.ROOM_MADE if made else Loss.ROOM_FOUND
            await self._losses.note(loss, self._bot.user_id, room_id)
            await self._meta.forget(f"{key}_before")
        await self._meta.set(key, room_id)
        return room_id

    async def _create(self, content: Mapping[str, Any]) -> tuple[str, bool]:
        """A room of the bot, and whether it is a new one: its alias may lead to one already."""
        try:
            return await self._bot.create_room(content), True
        except MatrixRequestError as error:
            if not is_refusal(error):
                raise
            # It may be there all the same: making a room is not atomic (Synapse).
            alias = self._alias(content["room_alias_name"])
            room_id = await leading_to(self._bot, alias)
            if room_id is None:
                raise
        found = await standing(self._bot, room_id, alias, ())
        if found is Standing.GONE:
            await self._bot.remove_alias(alias)
        if found is Standing.GONE or (
            found is Standing.MEMBER and await turned_away(self._bot, room_id, alias, self._config)
        ):
            return await self._bot.create_room(content), True
        if found is Standing.OUT:
            log.warning("the bot is not let into its room", room=room_id, alias=alias)
        return room_id, False

    def _alias(self, localpart: str) -> str:
        return f"#{localpart}:{self._config.homeserver.domain}"

    async def _invite_people(self) -> None:
        wanted = set(self._config.agents.room_members)
        before = set((await self._meta.get("space_members") or "").split(",")) - {""}
        if before == wanted:
            return
        refused: dict[str, str] = {}
        if new := wanted - before:
            present = await self._bot.members(self.space_id)
            refused = await invite_all(self._bot, self.space_id, new - present)
        await self._meta.set("space_members", ",".join(sorted(wanted - refused.keys())))
        if refused:
            raise NotAsWanted(uninvited(refused))

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
            "room_alias_name": CONTROL_ALIAS,
            "preset": "private_chat",
        }
