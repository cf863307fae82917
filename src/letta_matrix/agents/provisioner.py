"""Reconciles agents with the homeserver: ghost, name, avatar, room, members, space.

Each step is idempotent and remembered in `Agent.applied`, so a run with nothing
to change sends nothing, and a run that was cut short goes on where it stopped.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError, MForbidden, MRoomInUse

from letta_matrix.agents.home import Home
from letta_matrix.agents.remembered import Remembered
from letta_matrix.agents.room_access import access_content, change_access, wanted_access
from letta_matrix.config import Config
from letta_matrix.matrix.avatars import avatar_png
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.errors import ServerSilent, refusal
from letta_matrix.matrix.events import mapping
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.identifiers import room_alias
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.store.agents import ENCRYPTED, Agent, AgentDirectory, AgentStatus
from letta_matrix.store.database import StoreUnavailable

log = structlog.get_logger()

_REMOVED = (
    "I was removed from Letta, so I no longer answer here. If I come back, we go on in this room."
)
_BACK = "I am back."
_DOUBTFUL = (403, 404)
_LONGEST_PAUSE = 300.0
_LONGEST_NAME = 255
"""Characters of a display name or a room name: Synapse takes no longer display name than 256."""


class Provisioner:
    """Runs the steps for agents that changed, a few at a time.

    `on_room` hears of each agent's room once in the life of this object, and again if it failed.
    """

    def __init__(
        self,
        config: Config,
        homeserver: Homeserver,
        directory: AgentDirectory,
        home: Home,
        remembered: Remembered,
        default_room_version: int,
        on_room: Callable[[str], Awaitable[None]],
    ) -> None:
        self._config = config
        self._homeserver = homeserver
        self._directory = directory
        self._home = home
        self._remembered = remembered
        self._room_version = default_room_version
        self._on_room = on_room
        self._slots = asyncio.Semaphore(config.agents.provision_concurrency)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._told_rooms: set[str] = set()
        self.trouble: dict[str, str] = {}

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    @property
    def working(self) -> bool:
        """As `busy`, without the agents that wait after a failure."""
        return bool(self._tasks.keys() - self.trouble.keys())

    async def request(self, agents: list[Agent]) -> None:
        """Reconcile these agents soon; one already being reconciled is looked at again."""
        for agent in agents:
            if agent.agent_id in self._tasks:
                self._again.add(agent.agent_id)
            else:
                task = asyncio.create_task(self._run(agent.agent_id))
                self._tasks[agent.agent_id] = task

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, agent_id: str) -> None:
        pause = 1.0
        try:
            while True:
                self._again.discard(agent_id)
                async with self._slots:
                    done = await self._attempt(agent_id)
                if done and agent_id not in self._again:
                    return
                if not done:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)
        finally:
            del self._tasks[agent_id]

    async def _attempt(self, agent_id: str) -> bool:
        try:
            await self.reconcile(agent_id)
        except MatrixRequestError as error:
            if error.http_status in _DOUBTFUL:
                self._remembered.refused(agent_id)
            reason = refusal(error)
        except (HomeserverUnavailable, StoreUnavailable) as error:
            reason = str(error)
        except Exception as error:
            log.error("setting up an agent failed", agent=agent_id, exc_info=error)
            reason = f"{type(error).__name__}: {error}"
        else:
            self.trouble.pop(agent_id, None)
            return True
        if self.trouble.get(agent_id) != reason:
            log.warning("agent cannot be set up yet", agent=agent_id, reason=reason)
        self.trouble[agent_id] = reason
        return False

    async def reconcile(self, agent_id: str) -> None:
        """Bring one agent to its desired state, as the directory has it at the beginning.

        Raises MatrixRequestError, HomeserverUnavailable or StoreUnavailable; what was done by
        then stays done.
        """
        await self._remembered.verify(agent_id)
        agent = self._now(agent_id)
        ghost = Intent(self._homeserver, agent.user_id)
        if agent.status is AgentStatus.REMOVED:
            await self._announce(agent, ghost)
            return
        name = agent.name[:_LONGEST_NAME]
        await self._step(agent, "registered", True, ghost.register)
        await _all(
            self._step(agent, "displayname", name, lambda: ghost.set_displayname(name)),
            self._avatar(agent, ghost),
        )
        room_id = agent.room_id or await self._make_room(agent, ghost)
        await self._remembered.settled(agent_id)
        await self._tell_of_room(room_id)
        await self._settle_room(agent, ghost, room_id)
        await self._announce(agent, ghost)

    def _now(self, agent_id: str) -> Agent:
        """The directory's agent: a step replaces it, so an older one tells nothing of `applied`."""
        agent = self._directory.get(agent_id)
        if agent is None:
            raise LookupError(f"{agent_id} has no row")
        return agent

    async def _tell_of_room(self, room_id: str) -> None:
        if room_id not in self._told_rooms:
            await self._on_room(room_id)
            self._told_rooms.add(room_id)

    async def _settle_room(self, agent: Agent, ghost: Intent, room_id: str) -> None:
        bot = Intent(self._homeserver, self._config.bot_user_id)
        name, topic = self._room_name(agent), self._room_topic(agent)
        members = sorted(self._config.agents.room_members)
        access = wanted_access(self._config)
        applied = self._now(agent.agent_id).applied
        before = mapping(applied.get("access"))
        await _all(
            self._step(
                agent, "access", access, lambda: change_access(ghost, room_id, access, before)
            ),
            self._step(agent, "bot_joined", True, lambda: self._bring(bot, ghost, room_id)),
            self._step(
                agent,
                "space",
                self._home.space_id,
                lambda: self._home.take_in(room_id, applied.get("space")),
            ),
            self._step(
                agent,
                "room_name",
                name,
                lambda: ghost.set_state(room_id, "m.room.name", {"name": name}),
            ),
            self._step(
                agent,
                "room_topic",
                topic,
                lambda: ghost.set_state(room_id, "m.room.topic", {"topic": topic}),
            ),
            self._step(
                agent, "members", members, lambda: self._invite(agent, ghost, room_id, members)
            ),
        )

    async def _bring(self, bot: Intent, ghost: Intent, room_id: str) -> None:
        try:
            await bot.join(room_id)
        except MForbidden:
            # A room of before our time, to which nobody invited it.
            await ghost.invite(room_id, bot.user_id)
            await bot.join(room_id)

    async def _step(
        self, agent: Agent, key: str, value: object, action: Callable[[], Awaitable[object]]
    ) -> None:
        if self._now(agent.agent_id).applied.get(key) != value:
            await action()
            await self._applied(agent, {key: value})

    async def _applied(self, agent: Agent, values: Mapping[str, object], **fields: Any) -> None:
        def edited(one: Agent) -> Agent:
            return replace(one, applied={**one.applied, **values}, **fields)

        await self._directory.change([agent.agent_id], edited)

    async def _avatar(self, agent: Agent, ghost: Intent) -> None:
        if "avatar" in self._now(agent.agent_id).applied:
            return
        image = avatar_png(agent.agent_id)
        mxc = await ghost.upload(image, "image/png", "avatar.png")
        await ghost.set_avatar(mxc)
        await self._applied(agent, {"avatar": mxc})

    async def _make_room(self, agent: Agent, ghost: Intent) -> str:
        members = sorted(self._config.agents.room_members)
        access = wanted_access(self._config)
        content = self._room_content(agent, members, access)
        try:
            room_id = await ghost.create_room(content)
            applied: dict[str, object] = {
                "room_name": content["name"],
                "room_topic": content["topic"],
                "members": members,
                "access": access,
            }
        except MRoomInUse:
            room_id, applied = await self._adopt(agent, ghost), {}
        if (await ghost.state(room_id, "m.room.encryption")).get("algorithm"):
            log.warning("an agent's room is encrypted from the start", agent=agent.agent_id)
            applied[ENCRYPTED] = True
        await self._applied(agent, applied, room_id=room_id)
        return room_id

    async def _adopt(self, agent: Agent, ghost: Intent) -> str:
        # The alias is derived from the agent id alone: whoever holds it is this agent's room.
        alias = room_alias(agent.agent_id, self._config.homeserver.domain)
        room_id = await ghost.resolve_alias(alias)
        if room_id is None:
            raise HomeserverUnavailable(f"{alias} is taken but leads nowhere yet")
        await ghost.join(room_id)
        log.info("room adopted", agent=agent.agent_id, room=room_id)
        return room_id

    async def _invite(self, agent: Agent, ghost: Intent, room_id: str, members: list[str]) -> None:
        present = await ghost.members(room_id)
        for person in members:
            if person in present:
                continue
            try:
                await ghost.invite(room_id, person)
            except ServerSilent:
                raise  # tried again, as for whatever does not answer
            except MatrixRequestError as error:
                log.warning(
                    "cannot invite", agent=agent.agent_id, person=person, reason=refusal(error)
                )

    async def _announce(self, agent: Agent, ghost: Intent) -> None:
        now = self._now(agent.agent_id)
        before = now.applied.get("announced", str(AgentStatus.ACTIVE))
        if before == str(agent.status) or now.room_id is None:
            return
        raw_count = now.applied.get("announcements", 0)
        count = (raw_count if isinstance(raw_count, int) else 0) + 1
        text = _REMOVED if agent.status is AgentStatus.REMOVED else _BACK
        transaction = txn_id(agent.agent_id, "announcement", count)
        marker = {"agent_id": agent.agent_id, "txn": transaction}
        content = {"msgtype": "m.notice", "body": text, "m.mentions": {}, MARKER: marker}
        await ghost.send(
            now.room_id, "m.room.message", content, transaction, give_up_after=60, look_first=True
        )
        await self._applied(agent, {"announced": str(agent.status), "announcements": count})

    def _room_name(self, agent: Agent) -> str:
        return self._config.agents.room_name.replace("{name}", agent.name)[:_LONGEST_NAME]

    def _room_topic(self, agent: Agent) -> str:
        topic = self._config.agents.room_topic.replace("{name}", agent.name)
        return topic.replace("{description}", agent.description)[:1000]

    def _room_content(
        self, agent: Agent, members: list[str], access: Mapping[str, Any]
    ) -> dict[str, Any]:
        localpart = room_alias(agent.agent_id, "")[1:-1]
        parent = {"via": [self._config.homeserver.domain], "canonical": True}
        avatar = self._now(agent.agent_id).applied.get("avatar", "")
        # Since room version 12 creators stand above all power levels and may not be listed.
        ours = [agent.user_id, self._config.bot_user_id] if self._room_version < 12 else []
        access_part = access_content(access, ours)
        content: dict[str, Any] = {
            "name": self._room_name(agent),
            "topic": self._room_topic(agent),
            "room_alias_name": localpart,
            "preset": "private_chat",
            "invite": [self._config.bot_user_id, *members],
            "power_level_content_override": access_part["power_level_content_override"],
            "initial_state": [
                {
                    "type": "m.space.parent",
                    "state_key": self._home.space_id,
                    "content": parent,
                },
                {"type": "m.room.avatar", "content": {"url": avatar}},
                *access_part["initial_state"],
            ],
        }
        if self._config.agents.room_version is not None:
            content["room_version"] = str(self._room_version)
        if self._room_version >= 12:
            content["creation_content"] = {"additional_creators": [self._config.bot_user_id]}
        return content


async def _all(*steps: Awaitable[None]) -> None:
    """Do all the steps, whatever becomes of one; then raise the first one's error."""
    for outcome in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
