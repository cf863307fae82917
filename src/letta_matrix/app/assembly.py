"""Builds the parts of a bridge and connects them; `bridge.py` starts and stops them."""

from collections.abc import Callable, Mapping
from typing import Any

from letta_matrix.agents.doubts import Doubts
from letta_matrix.agents.home import Home
from letta_matrix.agents.losses import Losses
from letta_matrix.agents.remembered import Remembered
from letta_matrix.app.listings import Listings
from letta_matrix.app.stores import Stores
from letta_matrix.common.vitals import Vitals
from letta_matrix.config import Config
from letta_matrix.conversations import notices
from letta_matrix.conversations.admission import Admission
from letta_matrix.conversations.answers import Answers
from letta_matrix.conversations.approval_question import ApprovalSight
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.conversations.catch_up import CatchUp
from letta_matrix.conversations.contact_words import ContactWords
from letta_matrix.conversations.context import Contexts
from letta_matrix.conversations.dispatcher import Dispatcher
from letta_matrix.conversations.invitations import Invitations
from letta_matrix.conversations.joining import Joining
from letta_matrix.conversations.loops import Loops
from letta_matrix.conversations.portal_gate import PortalGate
from letta_matrix.conversations.prompts import Prompts
from letta_matrix.conversations.refusals import Pauses, Refusals
from letta_matrix.conversations.room_moves import RoomMoves
from letta_matrix.conversations.room_turns import RoomTurns
from letta_matrix.conversations.routing import Router
from letta_matrix.conversations.speakers import Speaker
from letta_matrix.conversations.surroundings import Surroundings
from letta_matrix.conversations.turn_queues import Runner
from letta_matrix.conversations.turn_runner import TurnRunner
from letta_matrix.conversations.voices import Voices
from letta_matrix.conversations.withdrawals import Withdrawals
from letta_matrix.doors.chat.runner import CommandRunner
from letta_matrix.doors.chat.services import CommandServices
from letta_matrix.matrix.arrivals import Arrivals
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.matrix.route import route_to
from letta_matrix.operations.given import Given
from letta_matrix.operations.registry import operations_with
from letta_matrix.portals.lookout import Lookout
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.runtimes.protocol import AgentRuntime
from letta_matrix.store.audit import AuditEntry
from letta_matrix.store.places import Place
from letta_matrix.store.turns import Turn, TurnKind
from letta_matrix.toolbox.registry import Toolbox


class Parts:
    """Everything between the homeserver and the runtimes.

    `vitals` and `trouble_of` (by agent id) tell operators what is wrong.
    """

    def __init__(
        self,
        config: Config,
        stores: Stores,
        runtimes: Mapping[str, AgentRuntime],
        vitals: Vitals,
        trouble_of: Callable[[str], str],
    ) -> None:
        self._config = config
        self._vitals = vitals
        self.stores = stores
        self.runtimes = runtimes
        self.homeserver = Homeserver(
            config.homeserver.url,
            config.appservice.as_token.get_secret_value(),
            Pacer(config.conversations.edits_per_second),
            route_to(config),
        )
        stores.inbox.there = self.homeserver.clock.now
        stores.approvals.ahead = lambda: self.homeserver.clock.ahead
        self.bot = self.homeserver.acting_as(config.bot_user_id)
        losses = self.losses = Losses(stores.audit, self._audited)
        self.home = Home(config, self.bot, stores.meta, losses, stores.directory)
        self.remembered = Remembered(
            config,
            self.bot,
            stores.directory,
            stores.rooms,
            stores.conversations,
            self.home,
            losses,
            self._room_known,
        )
        self.doubts = Doubts(
            config.bot_user_id, stores.directory, stores.rooms, self.home, self.remembered
        )
        self.homeserver.retries.on_refusal = self.doubts.refused
        contexts = Contexts(config, self.homeserver, stores.rooms, stores.turns)
        self.prompts = Prompts(config, self.homeserver, stores.directory, contexts)
        known = (stores.directory, stores.rooms)
        self.portals = PortalPolicy(config.portals, stores.portals, *known)
        self.lookout = Lookout(self.portals, self.homeserver, stores.rooms, stores.conversations)
        self.router = Router(config, *known, stores.conversations, self.portals)
        self.surroundings = Surroundings(
            self.router, self.bot, stores.directory, stores.rooms, stores.outbox, stores.turns
        )
        sight = ApprovalSight(self.homeserver, stores.directory, stores.outbox)
        self.approvals = Approvals(config, stores.approvals, sight, self.prompts.roster)
        self.joining = Joining(
            stores.turns,
            lambda: self.dispatcher.queues,
            config.conversations.join_messages,
            self.homeserver.clock.now,
            self.portals.joins_within,
        )
        self.arrivals = Arrivals()
        self.toolbox = self._toolbox(trouble_of)
        roster = self.prompts.roster
        self.voices = Voices(self.homeserver, stores.directory, stores.rooms, roster)
        self.speaker = self._speaker()
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
            config,
            self.homeserver,
            stores.directory,
            stores.rooms,
            stores.turns,
            self.moves,
            self._room_known,
            self.router.portals.is_portal,
        )
        self.invitations = Invitations(
            self.homeserver,
            stores.rooms,
            stores.turns,
            self.router.may_invite,
            lambda: self.dispatcher,
            stores.outbox,
            config.conversations.max_event_age,
            config.bot_user_id,
            self.room_turns.entered,
            self.lookout.look,
        )
        self.withdrawals = self._withdrawals()
        self.dispatcher = self._dispatcher(trouble_of)
        self.toolbox.membership.on_entered = self.room_turns.entered_by_tool
        self.catch_up = CatchUp(
            self.bot,
            stores.directory,
            stores.rooms,
            stores.turns,
            stores.meta,
            self.dispatcher,
            config.conversations.max_event_age,
            [one.line for one in config.portals if one.line is not None],
        )
        start = self.dispatcher.queues.start
        self.listings = Listings(config, stores, runtimes, self.homeserver, start)

    def offer_tools(self) -> None:
        """Let the agents of every runtime call our tools."""
        for name, runtime in self.runtimes.items():
            runtime.offer_tools(self.toolbox.specs(), self.toolbox.handler(name))

    async def close(self) -> None:
        """Let go of what runs; unfinished turns go on at the next start."""
        await self.surroundings.close()
        await self.dispatcher.queues.close()
        await self.withdrawals.close()
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
            self.joining,
            self.speaker,
            PortalGate(self.portals, stores.turns, self.homeserver.clock.now),
            self.voices,
        )

    def _withdrawals(self) -> Withdrawals:
        stores = self.stores
        return Withdrawals(
            self.homeserver,
            stores.directory,
            self._config.bot_user_id,
            stores.turns,
            stores.outbox,
            self.approvals,
            self.turn_runner,
            lambda: self.dispatcher,
        )

    def _queued(self, turn: Turn) -> None:
        self.joining.queued(turn)
        self.approvals.queued(turn)

    def _dispatcher(self, trouble_of: Callable[[str], str]) -> Dispatcher:
        stores = self.stores
        known = (stores.outbox, stores.turns, stores.approvals, self.approvals.approvers)
        there = (stores.directory, self.prompts.roster)
        answers = Answers(self.router, *known, *there, stores.inbox)
        services = self._services(trouble_of)
        runners: dict[TurnKind, Runner] = {
            TurnKind.MESSAGE: self.turn_runner,
            TurnKind.SPEECH: self.turn_runner,
            TurnKind.COMMAND: CommandRunner(self.homeserver, services),
            TurnKind.INVITE: self.invitations,
            TurnKind.KEYWORD: ContactWords(self.speaker, stores.directory, self.cancel),
            TurnKind.REDACTION: self.withdrawals,
            TurnKind.REFUSED: Refusals(self.speaker, notices.OVER_BUDGET),
            TurnKind.LOOPED: Refusals(self.speaker, notices.LOOP),
            TurnKind.PAUSED: Pauses(self.homeserver, stores.directory, stores.turns),
            TurnKind.ROOM: self.room_turns,
        }
        return Dispatcher(
            self.router,
            answers,
            Loops(self._config),
            stores.inbox,
            stores.turns,
            stores.rooms,
            runners,
            takes=self.toolbox.questions.match,
            arrived=self._arrived,
            room_changed=self._room_changed,
            amended=self.withdrawals.amended,
            queued=self._queued,
            refers=self.surroundings.of,
            learn=self.lookout.heard,
        )

    def _services(self, trouble_of: Callable[[str], str]) -> CommandServices:
        stores = self.stores
        return CommandServices(
            config=self._config,
            directory=stores.directory,
            runtimes=self.runtimes,
            turns=stores.turns,
            conversations=stores.conversations,
            rooms=stores.rooms,
            approvals=self.approvals,
            toolbox=self.toolbox,
            vitals=self._vitals,
            trouble_of=trouble_of,
            waiting=self._waiting,
            roster=self.prompts.roster,
            speaker=self.speaker,
        )

    def _speaker(self) -> Speaker:
        stores = self.stores
        return Speaker(
            self._config,
            self.homeserver,
            stores.directory,
            stores.rooms,
            stores.turns,
            stores.outbox,
            self.voices,
            self.portals,
        )

    def _toolbox(self, trouble_of: Callable[[str], str]) -> Toolbox:
        stores, operations = self.stores, operations_with(self._given(trouble_of))
        return Toolbox(
            self._config,
            self.homeserver,
            stores.directory,
            stores.rooms,
            stores.conversations,
            stores.turns,
            stores.outbox,
            stores.audit,
            operations,
            further=[one.as_tool() for one in operations if one.mcp],
            arrivals=self.arrivals,
        )

    def _given(self, trouble_of: Callable[[str], str]) -> Given:
        stores = self.stores
        return Given(
            config=self._config,
            homeserver=self.homeserver,
            directory=stores.directory,
            runtimes=self.runtimes,
            rooms=stores.rooms,
            conversations=stores.conversations,
            turns=stores.turns,
            outbox=stores.outbox,
            approvals=self.approvals,
            policy=self.portals,
            tokens=stores.tokens,
            audit=stores.audit,
            meta=stores.meta,
            arrivals=self.arrivals,
            admission=Admission(self._config, self.homeserver),
            sync=self.sync,
            archive=lambda agent: self.home.archive(agent, stores.directory),
            cancel=self.cancel,
            unfinished=self._unfinished,
            trouble_of=trouble_of,
        )

    def _arrived(self, event: Mapping[str, Any]) -> None:
        self.home.accounts.heard(event)
        self.surroundings.heard(event)
        self.voices.changed(event)
        self.doubts.heard(event)
        self.arrivals.publish(event)

    def _audited(self, entry: AuditEntry) -> None:
        # Who is told of it is known when all is built.
        self.toolbox.ledger.mirror(entry)

    def _room_changed(self, room_id: str) -> None:
        self.prompts.roster.forget(room_id)
        self.surroundings.changed(room_id)

    async def _room_known(self, room_id: str) -> None:
        await self.dispatcher.room_known(room_id)

    def _unfinished(self) -> list[Turn]:
        return self.dispatcher.queues.unfinished()

    async def cancel(self, matches: Callable[[Turn], bool]) -> int:
        """Stop the messages' turns that match; how many did."""
        turns = [turn for turn in self._unfinished() if turn.kind is TurnKind.MESSAGE]
        return sum([await self.turn_runner.cancel(turn) for turn in turns if matches(turn)])

    async def sync(self) -> dict[str, str]:
        """See `Listings.sync`."""
        return await self.listings.sync()

    def _waiting(self, place: Place) -> int:
        return sum(
            turn.place == place and turn.kind is TurnKind.MESSAGE for turn in self._unfinished()
        )
