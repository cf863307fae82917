"""Checks what the database remembers of the homeserver against what is there.

Rooms are purged; a homeserver is set up afresh, put back from a backup, or has another name. To
find that out little is asked and nothing is written: at each connect the bot's list of its rooms,
and of an agent in doubt its own list, its room and its alias. What is gone (see `standing`) is
forgotten here; the provisioner finds it by its alias or makes it anew.
"""

import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

import structlog
from mautrix.errors import MForbidden

from letta_matrix.agents.home import Home
from letta_matrix.agents.losses import Loss, Losses
from letta_matrix.agents.standing import Standing, leading_to, membership, put_out_by, standing
from letta_matrix.common.identifiers import persons, room_alias
from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import (
    DOUBTED,
    NEW_ROOM,
    ROOM_BEFORE,
    Agent,
    AgentDirectory,
    AgentStatus,
    homeless,
    marked,
    without_account,
)
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.rooms import Rooms

log = structlog.get_logger()

_REPLACED = "We go on in another room."


async def _nothing(_: Any) -> None:
    """Where nobody is interested."""


@part
class Remembered:
    """Verifies rooms, accounts and memberships of the bot and of agents that are in doubt.

    `on_doubt` gets agents that are to be reconciled, which verifies them; `on_room` hears of rooms
    that become known. `troubles` tells, by agent id, who is not in its own room any more, by the
    doing of others.
    """

    _config: Config
    _bot: Intent
    _directory: AgentDirectory
    _rooms: Rooms
    _conversations: ConversationStore
    _home: Home
    _losses: Losses
    _on_room: Callable[[str], Awaitable[None]] = _nothing
    on_doubt: Callable[[list[Agent]], Awaitable[None]] = _nothing

    def __post_init__(self) -> None:
        self._domain = self._config.homeserver.domain
        self.troubles: dict[str, str] = {}
        self._doubted: set[str] = set()
        self._with_bot: Collection[str] = ()

    async def check(self) -> None:
        """To be called at each connect: the bot and its rooms are there afterwards. Raises
        MatrixRequestError, HomeserverUnavailable or StoreUnavailable."""
        space = self._home.space_id
        self._with_bot = await self._home.verify()
        await self._follow_new_name()
        await self._verify_memberships(self._bot, self._with_bot)
        # Before any agent's room is made, which names the space.
        await self._home.ensure()
        if space not in ("", self._home.space_id):
            await self.on_doubt(self._directory.all())
        await self.doubt(
            agent
            for agent in self._directory.all()
            if agent.applied.get(DOUBTED)
            or (agent.applied.get("bot_joined") and agent.room_id not in self._with_bot)
        )

    async def doubt(self, agents: Iterable[Agent]) -> None:
        """Let agents be verified, and set right if need be."""
        found = list(agents)
        self._doubted.update(agent.agent_id for agent in found)
        if found:
            await self.on_doubt(found)

    def refused(self, agent_id: str) -> None:
        """The homeserver refused something to an agent: it is in doubt, and is to be verified when
        it is reconciled again."""
        self._doubted.add(agent_id)

    async def verify(self, agent_id: str) -> None:
        """Check an agent if it is in doubt: what is gone of it is not remembered afterwards.
        Raises as `check` does; then it stays in doubt."""
        agent = self._directory.now(agent_id)
        if agent_id not in self._doubted and not agent.applied.get(DOUBTED):
            return
        ghost = self._bot.acting_as(agent.user_id)
        joined = await self._rooms_of(agent, ghost)
        if agent.room_id is not None:
            await self._verify_room(agent, ghost, joined)
        else:
            await self._verify_alias(agent, ghost, joined)
        await self._verify_memberships(ghost, joined)
        await self._find_memberships(self._directory.now(agent_id), ghost, joined)
        await self._free_alias(self._directory.now(agent_id), ghost)
        await self._mark(agent_id, **{DOUBTED: None})
        self._doubted.discard(agent_id)

    async def settled(self, agent_id: str) -> None:
        """An agent has a room of its own: what was talked about in the one before goes on there.
        Raises as `check` does."""
        agent = self._directory.now(agent_id)
        before = agent.applied.get(ROOM_BEFORE)
        if before is None or agent.room_id is None:
            return
        if before not in ("", agent.room_id):
            await self._conversations.move(agent_id, str(before), agent.room_id)
            await self._rooms.move_settings(agent_id, str(before), agent.room_id)
            await self._leave_behind(agent, str(before))
        if before != agent.room_id:
            loss = Loss.ROOM_MADE if "room_name" in agent.applied else Loss.ROOM_FOUND
            await self._losses.note(loss, agent.user_id, agent.room_id)
        await self._mark(agent_id, **{ROOM_BEFORE: None, NEW_ROOM: None})

    async def _mark(self, agent_id: str, **marks: object) -> None:
        """Change marks in `applied`, if they are others there; None takes one away."""
        applied = self._directory.now(agent_id).applied
        if any(applied.get(name) != mark for name, mark in marks.items()):
            await self._directory.change([agent_id], lambda one: marked(one, **marks))

    async def _rooms_of(self, agent: Agent, ghost: Intent) -> Collection[str]:
        """The rooms that an agent is in. Its account is made if it is gone."""
        try:
            return set(await ghost.joined_rooms())
        except MForbidden as error:
            refused = error
        # First: a new account that we are killed beside has no name and no picture.
        await self._directory.change([agent.agent_id], without_account)
        if agent.status is AgentStatus.REMOVED:
            return ()
        if await self._home.accounts.make(ghost) is False:
            # It is there, and may do nothing.
            raise refused
        await self._losses.note(Loss.ACCOUNT_MADE, agent.user_id)
        return set(await ghost.joined_rooms())

    async def _verify_room(self, agent: Agent, ghost: Intent, joined: Collection[str]) -> None:
        room_id, agent_id = str(agent.room_id), agent.agent_id
        found = await standing(ghost, room_id, self._alias(agent), joined)
        before = self.troubles.pop(agent_id, None)
        if found in (Standing.GONE, Standing.MOVED):
            log.warning("an agent's room is gone", agent=agent_id, room=room_id, now=found.name)
            # Its alias may be left.
            marks = {NEW_ROOM: room_id}
            await self._directory.change([agent_id], lambda one: homeless(one, **marks))
        elif found is Standing.OUT:
            by = await put_out_by(ghost, room_id)
            how = f" (removed by {by})" if by else ""
            trouble = f"it is not in its room {room_id} any more{how}: invite {ghost.user_id} there"
            if trouble != before:
                log.warning("an agent is not in its room", agent=agent_id, room=room_id, by=by)
            self.troubles[agent_id] = trouble
        elif await self._misses_bot(agent, ghost, room_id):
            await self._mark(agent_id, bot_joined=None)

    async def _verify_alias(self, agent: Agent, ghost: Intent, joined: Collection[str]) -> None:
        """Do not look for a room behind an alias that outlived it."""
        alias = self._alias(agent)
        leads_to = await leading_to(ghost, alias)
        if leads_to is None or NEW_ROOM in agent.applied:
            return
        if await standing(ghost, leads_to, alias, joined) is Standing.GONE:
            await self._mark(agent.agent_id, **{NEW_ROOM: leads_to})

    async def _misses_bot(self, agent: Agent, ghost: Intent, room_id: str) -> bool:
        """Whether the bot never came into an agent's room; whom people have removed stays out."""
        if not agent.applied.get("bot_joined") or room_id in self._with_bot:
            return False
        return (await membership(ghost, room_id, self._bot.user_id))[0] in ("", "invite")

    async def _verify_memberships(self, user: Intent, joined: Collection[str]) -> None:
        """Forget rooms that one of us was in by invitation and is not; `joined` are those that it
        is in."""
        for room_id in self._rooms.rooms_of(user.user_id):
            if room_id not in joined:
                await self._rooms.left(room_id, user.user_id)
                await self._losses.note(Loss.MEMBERSHIP_FORGOTTEN, user.user_id, room_id)

    async def _find_memberships(self, agent: Agent, ghost: Intent, joined: Collection[str]) -> None:
        """Learn of rooms that an agent is in and we know nothing of: our database may be old."""
        own = (agent.room_id, agent.applied.get(ROOM_BEFORE))
        unknown = set(joined).difference(self._rooms.rooms_of(ghost.user_id), own)
        if unknown and agent.room_id is None:
            unknown.discard(await leading_to(ghost, self._alias(agent)) or "")
        for room_id in unknown:
            people = persons(await ghost.joined_members(room_id), self._bot.user_id)
            since, direct = time.time(), len(people) <= 1
            await self._rooms.joined(room_id, ghost.user_id, direct=direct, since=since)
            await self._losses.note(Loss.MEMBERSHIP_FOUND, ghost.user_id, room_id)
            await self._on_room(room_id)

    async def _free_alias(self, agent: Agent, ghost: Intent) -> None:
        """Let the alias not lead to the room that an operator wants to be left."""
        left = agent.applied.get(NEW_ROOM)
        if left is None:
            return
        leads_to = await leading_to(ghost, self._alias(agent))
        if left == "":
            # Kept first, or the next try would take the new room for the old one.
            left = leads_to or "none"
            await self._mark(agent.agent_id, **{NEW_ROOM: left})
        if leads_to == left:
            await ghost.remove_alias(self._alias(agent))

    async def _leave_behind(self, agent: Agent, room_id: str) -> None:
        """Of a room that is still there, and the agent's own no more."""
        ghost = self._bot.acting_as(agent.user_id)
        if room_id not in await ghost.joined_rooms():
            return
        await self._rooms.joined(room_id, agent.user_id, direct=False, since=time.time())
        replaced = {"body": _REPLACED, "replacement_room": agent.room_id}
        try:
            await ghost.set_state(room_id, "m.room.tombstone", replaced)
            await self._home.take_out(room_id)
        except MForbidden as error:
            log.warning("a room that was left says nothing of it", room=room_id, reason=str(error))

    async def _follow_new_name(self) -> None:
        """Agents of a homeserver that had another name get accounts at this one, which has just
        answered to its name."""

        def renamed(one: Agent) -> Agent:
            localpart = one.user_id.partition(":")[0]
            afresh = homeless(without_account(one), **{DOUBTED: True})
            return replace(afresh, user_id=f"{localpart}:{self._domain}")

        old = [
            one for one in self._directory.all() if one.user_id.partition(":")[2] != self._domain
        ]
        if not old:
            return
        log.warning("the homeserver has another name now", name=self._domain, agents=len(old))
        await self._directory.change([one.agent_id for one in old], renamed)
        for one in old:
            for room_id in self._rooms.rooms_of(one.user_id):
                await self._rooms.left(room_id, one.user_id)
            await self._losses.note(Loss.ACCOUNT_RENAMED, self._directory.now(one.agent_id).user_id)

    def _alias(self, agent: Agent) -> str:
        return room_alias(agent.agent_id, self._domain)
