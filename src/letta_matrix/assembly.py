"""Builds the parts of a bridge and connects them; `bridge.py` starts and stops them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from letta_matrix.agents.discovery import Discovery
from letta_matrix.agents.home import Home
from letta_matrix.config import (
    AppServerRuntime,
    Config,
    LettaApiRuntime,
    OpenAICompatibleRuntime,
    Runtime,
)
from letta_matrix.conversations import notices
from letta_matrix.conversations.admission import Admission
from letta_matrix.conversations.answers import Answers
from letta_matrix.conversations.approval_sight import ApprovalSight
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.conversations.catch_up import CatchUp
from letta_matrix.conversations.commands.runner import CommandRunner
from letta_matrix.conversations.commands.services import CommandServices
from letta_matrix.conversations.dispatcher import Dispatcher, Runner
from letta_matrix.conversations.encryption import Encryption
from letta_matrix.conversations.invitations import Invitations
from letta_matrix.conversations.loops import Loops
from letta_matrix.conversations.prompts import Prompts
from letta_matrix.conversations.queues import budget_of
from letta_matrix.conversations.refusals import Refusals
from letta_matrix.conversations.room_moves import RoomMoves
from letta_matrix.conversations.room_turns import RoomTurns
from letta_matrix.conversations.routing import Router
from letta_matrix.conversations.speech import SpeechWatch
from letta_matrix.conversations.turn_runner import TurnRunner
from letta_matrix.conversations.voices import Voices
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo, AgentRuntime, RuntimeFault
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.approvals import ApprovalStore
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import Database, database_url
from letta_matrix.store.inbox import Inbox
from letta_matrix.store.meta import Meta
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.places import Place
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.speech import SpeechStore
from letta_matrix.store.tokens import TokenStore
from letta_matrix.store.turns import Turn, TurnKind, TurnStore
from letta_matrix.toolbox.registry import Toolbox

_CROWD = 0.2
"""Seconds in which more people may join a room before it is looked at."""


class Stores:
    """The database's tables."""

    def __init__(self, config: Config) -> None:
        url = database_url(config.database.url, config.directory)
        self.database = Database(url)
        self.directory = AgentDirectory(self.database)
        self.conversations = ConversationStore(self.database)
        self.turns = TurnStore(self.database, self.conversations)
        self.inbox = Inbox(self.database, budget_of(config))
        self.outbox = Outbox(self.database)
        self.approvals = ApprovalStore(self.database)
        self.rooms = Rooms(self.database)
        self.speech = SpeechStore(self.database)
        self.meta = Meta(self.database)
        self.tokens = TokenStore(self.database, Database(url))
        self.audit = AuditStore(self.database)

    async def open(self) -> None:
        """Open the database and load what is held in memory. Raises StoreError."""
        await self.database.open()
        await self.directory.load()
        await self.conversations.load()
        await self.rooms.load()
        await self.speech.load()

    @property
    def trouble(self) -> str:
        """What is wrong with the database, "" for nothing."""
        return self.database.trouble or self.tokens.trouble

    async def close(self) -> None:
        await self.tokens.close()
        await self.database.close()


class Parts:
    """Everything between the homeserver and the runtimes.

    `troubles` and `trouble_of` (by agent id) tell operators what is wrong.
    """

    def __init__(
        self,
        config: Config,
        stores: Stores,
        runtimes: Mapping[str, AgentRuntime],
        troubles: Callable[[], list[str]],
        trouble_of: Callable[[str], str],
    ) -> None:
        self._config = config
        self.stores = stores
        self.runtimes = runtimes
        self.homeserver = Homeserver(
            config.homeserver.url,
            config.appservice.as_token.get_secret_value(),
            Pacer(config.conversations.edits_per_second),
        )
        self.bot = Intent(self.homeserver, config.bot_user_id)
        self.home = Home(config, self.bot, stores.meta)
        self.prompts = Prompts(config, self.homeserver, stores.directory)
        self.router = Router(config, stores.directory, stores.rooms, stores.conversations)
        sight = ApprovalSight(self.homeserver, stores.directory, stores.outbox)
        self.approvals = Approvals(config, stores.approvals, sight)
        self.toolbox = self._toolbox()
        self.admission = Admission(config, self.homeserver)
        roster = self.prompts.roster
        self.voices = Voices(self.homeserver, stores.directory, stores.rooms, roster)
        self.turn_runner = self._turn_runner()
        self.moves = RoomMoves(
            config,
            self.homeserver,
            stores.directory,
            stores.rooms,
            stores.conversations,
            self._room_known,
            self.home.take_out,
        )
        self.room_turns = RoomTurns(
            self.homeserver,
            stores.directory,
            stores.rooms,
            stores.turns,
            Encryption(config, stores.directory),
            self.moves,
        )
        self.invitations = Invitations(
            self.homeserver,
            stores.rooms,
            stores.turns,
            self.router.may_speak,
            self._room_known,
            self.room_turns.entered,
        )
        self._background: set[asyncio.Task[None]] = set()
        self._looking: dict[str, bool] = {}
        self.dispatcher = self._dispatcher(troubles, trouble_of)
        self.toolbox.membership.on_room = self._room_known
        self.catch_up = CatchUp(
            self.bot,
            stores.directory,
            stores.rooms,
            stores.turns,
            stores.meta,
            self.dispatcher,
            config.conversations.max_event_age,
        )
        self.discoveries: list[Discovery] = []
        self.watches = {entry.name: self._watch(entry) for entry in config.runtimes}

    def offer_tools(self) -> None:
        """Let the agents of every runtime call our tools."""
        for name, runtime in self.runtimes.items():
            runtime.offer_tools(self.toolbox.specs(), self.toolbox.handler(name))

    def discover(self, on_change: Callable[[list[Agent]], Awaitable[None]]) -> list[Discovery]:
        """One discovery for each runtime; `on_change` gets the agents that changed."""
        self.discoveries = [
            Discovery(
                runtime,
                self.stores.directory,
                self._config.agents,
                self._config.homeserver.domain,
                on_change,
                self._listed(name),
            )
            for name, runtime in self.runtimes.items()
        ]
        return self.discoveries

    async def close(self) -> None:
        """Let go of what runs; unfinished turns go on at the next start."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.dispatcher.close()
        await self.turn_runner.close()
        await self.approvals.close()
        await self.toolbox.close()

    def _turn_runner(self) -> TurnRunner:
        stores = self.stores
        return TurnRunner(
            self._config,
            self.homeserver,
            self.runtimes,
            stores.directory,
            stores.rooms,
            stores.turns,
            stores.outbox,
            self.prompts,
            self.approvals,
            self.toolbox,
            self.voices,
        )

    def _dispatcher(
        self, troubles: Callable[[], list[str]], trouble_of: Callable[[str], str]
    ) -> Dispatcher:
        stores = self.stores
        answers = Answers(self.router, stores.outbox, stores.turns, stores.approvals)
        services = self._services(troubles, trouble_of)
        runners: dict[TurnKind, Runner] = {
            TurnKind.MESSAGE: self.turn_runner,
            TurnKind.SPEECH: self.turn_runner,
            TurnKind.COMMAND: CommandRunner(self.homeserver, services),
            TurnKind.INVITE: self.invitations,
            TurnKind.REFUSED: Refusals(self.homeserver, services),
            TurnKind.LOOPED: Refusals(self.homeserver, services, notices.LOOP),
            TurnKind.ROOM: self.room_turns,
        }
        return Dispatcher(
            self.router,
            answers,
            stores.inbox,
            stores.turns,
            stores.rooms,
            runners,
            takes=self.toolbox.questions.match,
            arrived=self._arrived,
            room_changed=self._room_changed,
            loops=Loops(self._config),
        )

    def _services(
        self, troubles: Callable[[], list[str]], trouble_of: Callable[[str], str]
    ) -> CommandServices:
        stores = self.stores
        return CommandServices(
            config=self._config,
            directory=stores.directory,
            runtimes=self.runtimes,
            turns=stores.turns,
            conversations=stores.conversations,
            rooms=stores.rooms,
            outbox=stores.outbox,
            approvals=self.approvals,
            cancel=self.cancel,
            sync=self.sync,
            troubles=troubles,
            trouble_of=trouble_of,
            waiting=self._waiting,
            admission=self.admission,
            archive=self.archive,
        )

    def _toolbox(self) -> Toolbox:
        stores = self.stores
        return Toolbox(
            self._config,
            self.homeserver,
            stores.directory,
            stores.rooms,
            stores.conversations,
            stores.turns,
            stores.outbox,
            stores.audit,
        )

    def _watch(self, settings: Runtime) -> SpeechWatch | None:
        runtime = self.runtimes.get(settings.name)
        if runtime is None or not settings.speech or not runtime.capabilities.speech:
            return None
        stores = self.stores
        return SpeechWatch(
            runtime,
            settings.speech_interval,
            stores.directory,
            stores.speech,
            stores.turns,
            stores.outbox,
            self.homeserver,
            self.dispatcher.start,
        )

    def _listed(self, name: str) -> Callable[[list[AgentInfo]], Awaitable[None]]:
        watch = self.watches.get(name)

        async def listed(listing: list[AgentInfo]) -> None:
            if watch is not None:
                await watch.listed(listing)

        return listed

    def _arrived(self, event: Mapping[str, Any]) -> None:
        self.voices.changed(event)
        self.toolbox.arrivals.publish(event)

    def _room_changed(self, room_id: str) -> None:
        self.prompts.roster.forget(room_id)
        if not self.stores.rooms.ours_in(room_id):
            return
        looking = room_id in self._looking
        self._looking[room_id] = True
        if looking:
            return
        task = asyncio.create_task(self._look_again(room_id))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _look_again(self, room_id: str) -> None:
        # People come in crowds: one look at the first, and one after all the others.
        try:
            while self._looking[room_id]:
                self._looking[room_id] = False
                await self.invitations.look_again(room_id)
                await asyncio.sleep(_CROWD)
        finally:
            del self._looking[room_id]

    async def _room_known(self, room_id: str) -> None:
        await self.dispatcher.room_known(room_id)

    async def cancel(self, matches: Callable[[Turn], bool]) -> int:
        """Stop the messages' turns that match; how many did."""
        turns = [turn for turn in self.dispatcher.unfinished() if turn.kind is TurnKind.MESSAGE]
        return sum([await self.turn_runner.cancel(turn) for turn in turns if matches(turn)])

    async def sync(self) -> dict[str, str]:
        """List every runtime's agents now; each runtime's trouble, "" for none."""

        async def fault_of(discovery: Discovery) -> str:
            try:
                await discovery.poll()
            except RuntimeFault as fault:
                return str(fault) or type(fault).__name__
            return ""

        faults = await asyncio.gather(*map(fault_of, self.discoveries))
        return dict(zip(self.runtimes, faults, strict=False))

    async def archive(self, agent: Agent) -> None:
        """Let an agent's room stand in the space no more, until the agent is back."""

        def taken_out(one: Agent) -> Agent:
            applied = {key: value for key, value in one.applied.items() if key != "space"}
            return replace(one, applied=applied)

        if agent.room_id is not None:
            await self.home.take_out(agent.room_id)
            await self.stores.directory.change([agent.agent_id], taken_out)

    def _waiting(self, place: Place) -> int:
        return sum(
            turn.place == place and turn.kind is TurnKind.MESSAGE
            for turn in self.dispatcher.unfinished()
        )


def make_runtime(settings: Runtime, config: Config) -> AgentRuntime:
    """The adapter for a runtime's settings; what it needs is imported only now."""
    match settings:
        case AppServerRuntime():
            from letta_matrix.runtimes.app_server import AppServer

            return AppServer(settings, config.path(settings.keeper_socket))
        case LettaApiRuntime():
            from letta_matrix.runtimes.letta_api import LettaApi

            return LettaApi(settings)
        case OpenAICompatibleRuntime():
            from letta_matrix.runtimes.openai_compatible import OpenAICompatible

            return OpenAICompatible(settings)
        case _:
            return MemoryRuntime(settings.name, settings.agents)
