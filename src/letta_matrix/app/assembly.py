"""What the bridge is made of: every part, in the order in which they need each other.

`bridge.py` opens the ports around it and runs it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from letta_matrix.access.mirror import AuditMirror
from letta_matrix.access.route import homeserver_of
from letta_matrix.agents.doubts import Doubts
from letta_matrix.agents.home import Home
from letta_matrix.agents.losses import Losses
from letta_matrix.agents.provisioner import Provisioner
from letta_matrix.agents.remembered import Remembered
from letta_matrix.agents.server_help import server_help
from letta_matrix.app.listings import Listings
from letta_matrix.app.phone_line import PhoneLine
from letta_matrix.app.seat import Seat
from letta_matrix.app.stores import Stores
from letta_matrix.app.sweep import Sweep
from letta_matrix.app.troubles import Troubles
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
from letta_matrix.conversations.gap import RestoreGap, UnlessAnswered
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
from letta_matrix.conversations.undelivered import Undelivered
from letta_matrix.conversations.voices import Voices
from letta_matrix.conversations.withdrawals import Withdrawals
from letta_matrix.doors.chat.runner import CommandRunner
from letta_matrix.doors.chat.services import CommandServices
from letta_matrix.matrix.event_bus import EventBus
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.server_clock import ServerClock
from letta_matrix.operations.given import Given
from letta_matrix.operations.registry import operations_with
from letta_matrix.operations.runtimes_told import RuntimesTold
from letta_matrix.operations.toolbox.ledger import Mirror
from letta_matrix.operations.toolbox.registry import Toolbox
from letta_matrix.portals.day_budget import DayBudget
from letta_matrix.portals.lookout import Lookout
from letta_matrix.portals.opt_outs import OptOuts
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.portals.takeovers import Takeovers
from letta_matrix.runtimes.protocol import AgentRuntime
from letta_matrix.store.agents import Agent
from letta_matrix.store.amendments import Amended
from letta_matrix.store.turns import Turn, TurnKind


class App:
    """Everything between the homeserver and the runtimes. Nothing runs, and nothing may be asked,
    before `stores` are open. Each part is given those above it that it needs; what it has to tell
    one below it goes through a method of this class."""

    def __init__(
        self, config: Config, runtimes: Mapping[str, AgentRuntime], seat: Seat | None = None
    ) -> None:
        self.config = config
        self.runtimes = runtimes
        self.vitals = Vitals()
        self.seat = seat

        # The database, and the homeserver, by whose clock messages are dated.
        clock = ServerClock()
        fence = None if seat is None else seat.fence()
        stores = self.stores = Stores(config, clock, fence)
        directory, rooms, conversations = stores.directory, stores.rooms, stores.conversations
        turns, outbox, audit = stores.turns, stores.outbox, stores.audit
        known = (directory, rooms)
        sure = None if fence is None else fence.sure
        homeserver = self.homeserver = homeserver_of(config, clock, self._refused, sure)
        bot = self.bot = homeserver.acting_as(config.bot_user_id)
        self.mirror = AuditMirror(room, bot) if (room := config.access.audit_room) else None
        tell: Mirror = self.mirror or (lambda _: None)

        # Agents: their ghosts and rooms, and what is remembered of them.
        losses = self.losses = Losses(audit, tell)
        home = self.home = Home(config, bot, stores.meta, losses, directory)
        self.remembered = Remembered(
            config, bot, *known, conversations, home, losses, self._room_known, self._changed
        )
        self.doubts = Doubts(bot.user_id, *known, home, self.remembered)
        helped = server_help(config, homeserver, stores.passwords)
        provisioner = self.provisioner = Provisioner(
            config, homeserver, directory, home, self.remembered, helped, self._room_known
        )

        # Rooms of other networks.
        portals = self.portals = PortalPolicy(config.bridges, stores.portals, *known, clock.now)
        self.takeovers = Takeovers(portals, bot.user_id)
        self.opt_outs = OptOuts(portals, rooms)
        budget = DayBudget(portals, turns, stores.sent, clock.now)
        line = self.phone_line = PhoneLine(config, stores, homeserver, portals, budget, sure)
        lookout = self.lookout = Lookout(portals, homeserver, rooms, conversations)

        # Whom a message is for, what is told of it, who may approve, and how it is answered.
        router = self.router = Router(config, *known, conversations, portals)
        surroundings = self.surroundings = Surroundings(router, bot, *known, outbox, turns)
        contexts = Contexts(config, homeserver, rooms, turns)
        prompts = self.prompts = Prompts(config, homeserver, directory, contexts)
        sight = ApprovalSight(homeserver, directory, outbox)
        approvals = self.approvals = Approvals(config, stores.approvals, sight, prompts.roster)
        voices = self.voices = Voices(homeserver, *known, prompts.roster)
        speaker = self.speaker = Speaker(config, homeserver, *known, turns, outbox, voices, portals)
        self.troubles = Troubles(provisioner, self.remembered, voices)

        # What agents, programs and people can do, once for all doors; who waits for events.
        event_bus = self.event_bus = EventBus()
        operations = operations_with(self._given())
        abroad = line.tools()
        further = [*(one.as_tool() for one in operations if one.mcp), *abroad]
        operations = [*operations, *abroad]
        tables = (*known, conversations, turns, outbox, audit)
        toolbox = self.toolbox = Toolbox(
            config,
            homeserver,
            *tables,
            operations,
            further,
            event_bus,
            self._entered,
            tell,
            router.portals.is_portal,
        )

        # From events to turns; who runs which kind of turn is said below.
        runners: dict[TurnKind, Runner] = {}
        asked = (outbox, turns, stores.approvals, approvals.approvers)
        dispatcher = self.dispatcher = Dispatcher(
            router,
            Answers(router, *asked, directory, prompts.roster, stores.inbox),
            Loops(config),
            stores.inbox,
            turns,
            rooms,
            runners,
            takes=toolbox.questions.match,
            arrived=self._arrived,
            room_changed=self._room_changed,
            amended=self._amended,
            queued=self._queued,
            refers=surroundings.of,
            learn=self._learn,
        )
        queues, opened = dispatcher.queues, dispatcher.room_known

        # Turns, each to its end.
        window, age = config.conversations.join_messages, config.conversations.max_event_age
        self.joining = Joining(turns, queues, window, clock.now, portals.joins_within)
        told = (turns, outbox, prompts, approvals, toolbox, self.joining, speaker)
        runner = self.turn_runner = TurnRunner(
            config,
            homeserver,
            runtimes,
            *known,
            *told,
            PortalGate(portals, budget, clock.now),
            voices,
            queues.journeys,
            self._hangs,
        )
        self.moves = RoomMoves(
            config, homeserver, *known, conversations, opened, home.take_out, provisioner.changed
        )
        self.room_turns = RoomTurns(
            config, homeserver, *known, turns, self.moves, opened, router.portals.is_portal
        )
        self.invitations = Invitations(
            homeserver,
            rooms,
            turns,
            router.may_invite,
            dispatcher,
            outbox,
            age,
            bot.user_id,
            self.room_turns.entered,
            lookout.look,
        )
        self.withdrawals = Withdrawals(
            homeserver,
            directory,
            bot.user_id,
            turns,
            outbox,
            approvals,
            self.turn_runner,
            dispatcher,
        )
        self.undelivered = Undelivered(speaker, homeserver, *known, outbox)
        answering: dict[TurnKind, Runner] = {
            TurnKind.UNDELIVERED: self.undelivered,
            TurnKind.MESSAGE: runner,
            TurnKind.SPEECH: runner,
            TurnKind.COMMAND: CommandRunner(homeserver, self._command_services()),
            TurnKind.KEYWORD: ContactWords(speaker, directory, self.cancel),
            TurnKind.REFUSED: Refusals(speaker, notices.OVER_BUDGET),
            TurnKind.LOOPED: Refusals(speaker, notices.LOOP),
        }
        gap = RestoreGap(bot, *known, stores.meta, outbox), turns, approvals
        unclear = Refusals(speaker, notices.UNCLEAR)
        runners |= {kind: UnlessAnswered(one, unclear, *gap) for kind, one in answering.items()}
        runners |= {
            TurnKind.INVITE: self.invitations,
            TurnKind.REDACTION: self.withdrawals,
            TurnKind.PAUSED: Pauses(homeserver, directory, turns),
            TurnKind.ROOM: self.room_turns,
        }

        # What is looked for again and again: agents, words unasked, messages never pushed.
        self.listings = Listings(
            config, stores, runtimes, homeserver, provisioner.changed, queues.start
        )
        lines = [one.line for one in config.bridges if one.line is not None]
        self.catch_up = CatchUp(bot, *known, turns, stores.meta, dispatcher, age, lines)
        self.sweep = Sweep(self.catch_up, surroundings, lookout, home, provisioner)

    def _given(self) -> Given:
        stores = self.stores
        return Given(
            bot_user_id=self.config.bot_user_id,
            homeserver=self.homeserver,
            directory=stores.directory,
            runtimes=self.runtimes,
            rooms=stores.rooms,
            conversations=stores.conversations,
            turns=stores.turns,
            history=stores.history,
            outbox=stores.outbox,
            approvals=self.approvals,
            policy=self.portals,
            tokens=stores.tokens,
            audit=stores.audit,
            meta=stores.meta,
            event_bus=self.event_bus,
            admission=Admission(self.config, self.homeserver),
            sync=self._sync,
            archive=self.home.archive,
            cancel=self.cancel,
            unfinished=self._unfinished,
            trouble_of=self.troubles.of,
            provisioning=self.phone_line.provisioning,
        )

    def _command_services(self) -> CommandServices:
        stores = self.stores
        return CommandServices(
            config=self.config,
            directory=stores.directory,
            runtimes=RuntimesTold(self.runtimes),
            turns=stores.turns,
            conversations=stores.conversations,
            rooms=stores.rooms,
            approvals=self.approvals,
            toolbox=self.toolbox,
            vitals=self.vitals,
            replicas=lambda: self.seat.replicas if self.seat else [],
            trouble_of=self.troubles.of,
            waiting=self.dispatcher.queues.waiting_at,
            roster=self.prompts.roster,
            speaker=self.speaker,
        )

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

    async def cancel(self, matches: Callable[[Turn], bool]) -> int:
        """Stop the messages' turns that match; how many did."""
        turns = [turn for turn in self._unfinished() if turn.kind is TurnKind.MESSAGE]
        return sum([await self.turn_runner.cancel(turn) for turn in turns if matches(turn)])

    def _unfinished(self) -> list[Turn]:
        return self.dispatcher.queues.unfinished()

    def _hangs(self, runtime: str) -> bool:
        return self.listings.hangs(runtime)

    def _refused(self, room_id: str) -> None:
        self.doubts.refused(room_id)

    async def _changed(self, agents: list[Agent]) -> None:
        await self.provisioner.changed(agents)

    async def _room_known(self, room_id: str) -> None:
        await self.dispatcher.room_known(room_id)

    async def _entered(self, intent: Intent, room_id: str, event_id: str) -> None:
        await self.room_turns.entered_by_tool(intent, room_id, event_id)

    async def _sync(self) -> dict[str, str]:
        return await self.listings.sync()

    def _amended(self, amended: Amended) -> None:
        self.withdrawals.amended(amended)

    def _queued(self, turn: Turn) -> None:
        self.joining.queued(turn)
        self.approvals.queued(turn)

    def _room_changed(self, room_id: str) -> None:
        self.prompts.roster.forget(room_id)
        self.surroundings.changed(room_id)

    async def _learn(self, event: Mapping[str, Any]) -> None:
        await self.lookout.heard(event)
        await self.takeovers.heard(event)
        await self.opt_outs.heard(event)

    def _arrived(self, event: Mapping[str, Any]) -> None:
        self.home.accounts.heard(event)
        self.surroundings.heard(event)
        self.voices.changed(event)
        self.undelivered.heard(event)
        self.doubts.heard(event)
        self.turn_runner.late_edits.heard(event)
        self.event_bus.publish(event)
