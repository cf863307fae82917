"""Reconciles agents with the homeserver: ghost, name, avatar, room, members, space.

Each step is idempotent and remembered in `Agent.applied`, so a run with nothing
to change sends nothing, and a run that was cut short goes on where it stopped.
Without user, room and bot there is no talking; the rest is decoration, and holds up nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.agents.decoration import Action, NotAsWanted
from letta_matrix.agents.earlier_accounts import AccountTaken
from letta_matrix.agents.home import Home
from letta_matrix.agents.own_rooms import (
    LONGEST_NAME,
    OwnRooms,
    bring,
    picture_of,
    point_alias,
    show_service,
)
from letta_matrix.agents.remembered import Remembered
from letta_matrix.agents.room_access import change_access, invite_all, uninvited, wanted_access
from letta_matrix.agents.server_help import ADMIN_WANTED, ServerHelp
from letta_matrix.common.backoff import Backoff
from letta_matrix.common.identifiers import room_alias
from letta_matrix.common.json_fields import as_texts, mapping
from letta_matrix.common.parts import part
from letta_matrix.common.waiting import ended
from letta_matrix.config import Config
from letta_matrix.matrix.avatars import avatar_png
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.errors import refused_request
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.store.agents import (
    ENCRYPTED,
    ROOM_BEFORE,
    Agent,
    AgentDirectory,
    AgentStatus,
    marked,
)
from letta_matrix.store.database import StoreUnavailable

log = structlog.get_logger()

_REMOVED = (
    "I was removed from Letta, so I no longer answer here. If I come back, we go on in this room."
)
_BACK = "I am back."
_FORBIDDEN = 403
_DOUBTFUL = (_FORBIDDEN, 404)
_PAUSES = Backoff(1.0, longest=300.0)
_HEADSTART = 5.0
"""Seconds that a room waits for its agent's name and picture."""
_LOOK = 60.0
"""Seconds between looks for decoration that is to be tried again."""


@part
class Provisioner:
    """Runs the steps for agents that changed, a few at a time.

    `on_room` hears of each agent's room once in the life of this object, and again if it failed.
    """

    _config: Config
    _homeserver: Homeserver
    _directory: AgentDirectory
    _home: Home
    _remembered: Remembered
    _help: ServerHelp
    _on_room: Callable[[str], Awaitable[None]]

    def __post_init__(self) -> None:
        self._decoration = self._home.decoration
        self._rooms = OwnRooms(self._config, self._home)
        self._slots = asyncio.Semaphore(self._config.agents.provision_concurrency)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._unhurried: set[str] = set()
        self._told_rooms: set[str] = set()
        self.trouble: dict[str, str] = {}
        self.begun = False

    @property
    def busy(self) -> bool:
        """Whether agents are being set up; that some are decorated anew counts for nothing."""
        return bool(self._tasks.keys() - self._unhurried)

    @property
    def working(self) -> bool:
        """As `busy`, without the agents that wait after a failure."""
        return bool(self._tasks.keys() - self._unhurried - self.trouble.keys())

    async def begin(self) -> None:
        """Reconcile all agents: there is a homeserver."""
        self.begun = True
        await self.request(self._directory.all())

    async def changed(self, agents: list[Agent]) -> None:
        """As `request`, unless all of them will be taken up when it begins."""
        if self.begun:
            await self.request(agents)

    async def request(self, agents: list[Agent]) -> None:
        """Reconcile these agents soon; one already being reconciled is looked at again."""
        for agent in agents:
            self._unhurried.discard(agent.agent_id)
            if agent.agent_id in self._tasks:
                self._again.add(agent.agent_id)
            else:
                # What it says is not about the turn that may have asked for it.
                task = asyncio.create_task(self._run(agent.agent_id), context=Context())
                self._tasks[agent.agent_id] = task

    async def redecorate(self) -> None:
        """Try again, for ever and at long intervals, what agents do without."""
        while True:
            await asyncio.sleep(_LOOK)
            agents = self._directory.all()
            if not (await self._home.decorate_again()):
                agents = [agent for agent in agents if self._decoration.is_due(agent)]
            agents = [agent for agent in agents if agent.agent_id not in self._tasks]
            await self.request(agents)
            self._unhurried.update(agent.agent_id for agent in agents)

    async def close(self) -> None:
        await ended(*self._tasks.values())

    async def _run(self, agent_id: str) -> None:
        pauses = iter(_PAUSES)
        try:
            while True:
                self._again.discard(agent_id)
                async with self._slots:
                    done = await self._attempt(agent_id)
                if done and agent_id not in self._again:
                    return
                if not done:
                    await asyncio.sleep(next(pauses))
        finally:
            del self._tasks[agent_id]
            self._unhurried.discard(agent_id)

    async def _attempt(self, agent_id: str) -> bool:
        try:
            await self.reconcile(agent_id)
        except MatrixRequestError as error:
            if error.http_status in _DOUBTFUL:
                self._remembered.refused(agent_id)
            reason = refused_request(error)
            if error.http_status == _FORBIDDEN and not self._help.can_empower:
                reason += ADMIN_WANTED
        except (HomeserverUnavailable, StoreUnavailable, AccountTaken) as error:
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

        Raises MatrixRequestError, HomeserverUnavailable, AccountTaken or StoreUnavailable; what
        was done by then stays done.
        """
        await self._remembered.verify(agent_id)
        agent = self._directory.now(agent_id)
        ghost = self._homeserver.acting_as(agent.user_id)
        if agent.status is AgentStatus.REMOVED:
            await self._announce(agent, ghost)
            return
        await self._account(agent, ghost)
        looks = asyncio.create_task(self._dress(agent, ghost))
        try:
            # So that who is in the room sees its agent come with name and picture.
            await asyncio.wait({looks}, timeout=_HEADSTART)
            room_id = agent.room_id or await self._make_room(agent, ghost)
            await self._remembered.settled(agent_id)
            # Whom people have put out of its room is theirs to bring back.
            is_out = agent_id in self._remembered.troubles and agent.applied.get("bot_joined")
            if self._help.can_empower and not is_out:
                give = lambda: self._help.empower(ghost, room_id)  # noqa: E731
                await self._adorn(agent, "power", True, give)
            await self._tell_of_room(room_id)
            await self._settle_room(agent, ghost, room_id)
            await looks
        finally:
            await ended(looks)
        await self._show_picture(agent, ghost, room_id)
        await self._announce(agent, ghost)

    async def _dress(self, agent: Agent, ghost: Intent) -> None:
        name = agent.name[:LONGEST_NAME]
        await _all(
            self._adorn(agent, "displayname", name, lambda: ghost.set_displayname(name)),
            self._avatar(agent, ghost),
            self._password(agent),
        )

    async def _show_picture(self, agent: Agent, ghost: Intent, room_id: str) -> None:
        """In a room that was made before there was one."""
        now = self._directory.now(agent.agent_id)
        if "room_avatar" in now.applied and (picture := picture_of(now)):
            show = partial(ghost.set_state, room_id, "m.room.avatar", {"url": picture})
            await self._adorn(agent, "room_avatar", picture, show)

    async def _tell_of_room(self, room_id: str) -> None:
        if room_id not in self._told_rooms:
            await self._on_room(room_id)
            self._told_rooms.add(room_id)

    async def _settle_room(self, agent: Agent, ghost: Intent, room_id: str) -> None:
        space_id, bot = self._home.space_id, self._config.bot_user_id
        name, topic = self._rooms.name(agent), self._rooms.topic(agent)
        members = sorted(self._config.agents.room_members)
        access = wanted_access(self._config)
        applied = self._directory.now(agent.agent_id).applied
        adorn, state = partial(self._adorn, agent), partial(ghost.set_state, room_id)
        change = partial(change_access, ghost, room_id, access, mapping(applied.get("access")))
        steps = [
            adorn("access", access, change),
            self._bring_bot(agent, ghost, room_id),
            adorn("room_name", name, partial(state, "m.room.name", {"name": name})),
            adorn("room_topic", topic, partial(state, "m.room.topic", {"topic": topic})),
            adorn("members", members, partial(self._invite, agent, ghost, room_id, members)),
            adorn("service", bot, partial(show_service, ghost, room_id, bot)),
        ]
        if space_id:
            take_in = partial(self._home.take_in, room_id, applied.get("space"))
            steps.append(adorn("space", space_id, take_in))
        if "alias" in applied:
            point = partial(point_alias, ghost, self._alias(agent), room_id)
            steps.append(adorn("alias", room_id, point))
        await _all(*steps)

    async def _bring_bot(self, agent: Agent, ghost: Intent, room_id: str) -> None:
        if not self._directory.now(agent.agent_id).applied.get("bot_joined"):
            await bring(self._homeserver.acting_as(self._config.bot_user_id), ghost, room_id)
            await self._applied(agent, {"bot_joined": True})

    async def _applied(self, agent: Agent, values: Mapping[str, object], **fields: Any) -> None:
        await self._directory.change(
            [agent.agent_id], lambda one: replace(marked(one, **values), **fields)
        )

    async def _adorn(self, agent: Agent, key: str, value: object, action: Action) -> None:
        await self._decoration.put_on(agent.agent_id, key, value, action)

    async def _account(self, agent: Agent, ghost: Intent) -> None:
        """Let the ghost have its account, and tell of one that others use, too."""
        applied = self._directory.now(agent.agent_id).applied
        accounts = self._home.accounts
        if not applied.get("registered"):
            is_wanted = agent.room_id is not None or ROOM_BEFORE in applied
            is_sole = await accounts.claim(ghost, self._alias(agent), wanted=is_wanted)
            sole = {} if is_sole else {"sole": False}
            await self._applied(agent, {"registered": True, **sole})
        if "sole" in self._directory.now(agent.agent_id).applied:
            await self._adorn(agent, "sole", True, lambda: accounts.check(ghost))

    async def _password(self, agent: Agent) -> None:
        if kind := self._help.password_kind:
            give = lambda: self._help.give_password(agent)  # noqa: E731
            await self._adorn(agent, "password", kind, give)

    async def _avatar(self, agent: Agent, ghost: Intent) -> None:
        async def show() -> str:
            picture = picture_of(self._directory.now(agent.agent_id))
            if not picture:
                image = avatar_png(agent.agent_id)
                picture = await ghost.upload(
                    image, "image/png", "avatar.png", give_up_after=_HEADSTART
                )
                await self._applied(agent, {"picture": picture})
            await ghost.set_avatar(picture)
            return picture

        if "avatar" not in self._directory.now(agent.agent_id).applied:
            await self._adorn(agent, "avatar", True, show)

    def _alias(self, agent: Agent) -> str:
        return room_alias(agent.agent_id, self._config.homeserver.domain)

    async def _make_room(self, agent: Agent, ghost: Intent) -> str:
        room_id, applied = await self._rooms.make(self._directory.now(agent.agent_id), ghost)
        if (await ghost.state(room_id, "m.room.encryption")).get("algorithm"):
            log.warning("an agent's room is encrypted from the start", agent=agent.agent_id)
            applied[ENCRYPTED] = True
        await self._applied(agent, applied, room_id=room_id)
        return room_id

    async def _invite(self, agent: Agent, ghost: Intent, room_id: str, members: list[str]) -> None:
        """Invite those who are to be there; nobody a second time for another's sake."""
        invited = self._directory.now(agent.agent_id).applied.get("members")
        wanted = set(members).difference(as_texts(invited), await ghost.members(room_id))
        refused = await invite_all(ghost, room_id, wanted)
        if refused:
            await self._applied(agent, {"members": sorted(set(members) - refused.keys())})
            raise NotAsWanted(uninvited(refused))

    async def _announce(self, agent: Agent, ghost: Intent) -> None:
        now = self._directory.now(agent.agent_id)
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


async def _all(*steps: Awaitable[None]) -> None:
    """Do all the steps, whatever becomes of one; then raise the first one's error."""
    for outcome in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
