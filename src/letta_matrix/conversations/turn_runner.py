"""Runs one turn from wherever it stands to its end: ask or follow, show, freeze, deliver."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from letta_matrix.common.measures import Calls
from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.conversations import notices
from letta_matrix.conversations.activity import Activity
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.conversations.asking import Asking
from letta_matrix.conversations.joining import Joining
from letta_matrix.conversations.journeys import Journeys
from letta_matrix.conversations.late_edits import LateEdits
from letta_matrix.conversations.listening import RETRIED, End, Models, Run
from letta_matrix.conversations.portal_gate import Passage, PortalGate
from letta_matrix.conversations.prompts import Prompts
from letta_matrix.conversations.readable import files_of
from letta_matrix.conversations.reply import Notice, Reply
from letta_matrix.conversations.room_turns import unreadable
from letta_matrix.conversations.speakers import Speaker
from letta_matrix.conversations.voices import Voices
from letta_matrix.conversations.watchdog import Watchdog
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.runtimes.faults import RuntimeFault, RuntimeUnavailable
from letta_matrix.runtimes.protocol import AgentRuntime, TurnRequest
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Outcome, Turn, TurnKind, TurnStatus, TurnStore

log = structlog.get_logger()

_TOLD_INSTEAD = {Passage.SPENT: notices.CONTACT_SPENT, Passage.GONE: notices.PORTAL_GONE}

_QUIET_ENDS = (Notice(notices.STOPPED), Notice(notices.UNHEARD))
"""What is left unsaid where the message was deleted: it would stand below nothing."""

_FAREWELL = 1.0
"""Seconds that a request has at the end of the bridge; after that it is one that was cut off."""
_STOP_GRACE = 3.0
"""Seconds a cancelled turn has to end by itself."""


class Tools(Protocol):
    """The tools of ours that agents call while they work."""

    def waits(self, agent_id: str, conversation_id: str) -> bool:
        """Whether a call from a conversation waits for a person or another agent."""
        ...

    async def ended(self, turn_id: str) -> None:
        """The turn is over, perhaps without the results of its calls."""
        ...


@part
class TurnRunner:
    """Takes messages for agents to their end. One runner serves all conversations."""

    _config: Config
    _homeserver: Homeserver
    _runtimes: Mapping[str, AgentRuntime]
    _directory: AgentDirectory
    _rooms: Rooms
    _turns: TurnStore
    _outbox: Outbox
    _prompts: Prompts
    _approvals: Approvals
    _tools: Tools
    _joining: Joining
    _speaker: Speaker
    _gate: PortalGate
    _voices: Voices
    _journeys: Journeys
    _hangs: Callable[[str], bool]

    def __post_init__(self) -> None:
        self._settings, self._portals = self._config.conversations, self._speaker.portals
        self._asking = Asking(
            self._settings,
            self._turns,
            self._prompts,
            self._approvals,
            self._joining,
            self._tell_to_stop,
            self._journeys,
            self._hangs,
        )
        bot_user_id = self._config.bot_user_id
        self.late_edits = LateEdits(self._homeserver, bot_user_id, self._outbox)
        self._running: dict[str, Run] = {}
        self._replies: dict[str, Reply] = {}

    @property
    def calls(self) -> Calls:
        """What runtimes were asked: one for each try of a turn, by the runtime's name."""
        return self._asking.calls

    @property
    def models(self) -> Models:
        """Whose model fails."""
        return self._asking.models

    async def close(self) -> None:
        """Let go of what is still on its way beside the turns."""
        await self._asking.close()
        await self.late_edits.close()

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Answer a turn exactly once. `recovered`: an earlier try may have got somewhere."""
        agent = self._directory.get(turn.agent_id)
        if agent is None:
            await self._approvals.ended(turn)
            await self._turns.finish(turn, Outcome.DROPPED)
            return
        reply = await self._reply(turn, agent, recovered=recovered)
        self._replies[turn.turn_id] = reply
        try:
            if turn.status is not TurnStatus.REPLYING:
                # What it reads there it reads as who is there.
                here = self._portals.voice(agent, turn.room_id)
                await self._answer(turn, here, reply, recovered=recovered)
            await self._speaker.deliver(turn, reply)
        except asyncio.CancelledError:
            # Whoever goes on with it looks for what was under way.
            await reply.stop(_FAREWELL)
            raise
        finally:
            del self._replies[turn.turn_id]
            await reply.stop()
        await self._forget(turn)

    async def give_up(self, turn: Turn) -> None:
        """End a turn that cannot be run, with a word to the person."""
        agent = self._directory.get(turn.agent_id)
        if agent is not None:
            reply = await self._reply(turn, agent, recovered=True, adopts=False)
            if turn.status is not TurnStatus.REPLYING:
                await self._tell_to_stop(turn, agent)
                await self._approvals.ended(turn, reply)
                await reply.freeze("", Notice(notices.BROKEN), Outcome.FAILED)
                self._journeys.came_to(turn.turn_id, str(Outcome.FAILED))
            await self._speaker.deliver(turn, reply)
        else:
            await self._approvals.ended(turn)
            await self._turns.finish(turn, Outcome.FAILED)
        await self._forget(turn)

    async def cancel(self, turn: Turn, outcome: Outcome = Outcome.STOPPED) -> bool:
        """Stop a turn that runs, or that waits for its place; False if its end is settled.

        With WITHDRAWN nothing more is said of it, not even what is under way.
        """
        reply = self._replies.get(turn.turn_id) if outcome is Outcome.WITHDRAWN else None
        if reply is not None:
            reply.withdraw()
        if turn.outcome == Outcome.WITHDRAWN:
            outcome = Outcome.WITHDRAWN
        if turn.status is TurnStatus.DONE or (
            turn.status is TurnStatus.REPLYING and outcome is not Outcome.WITHDRAWN
        ):
            return False
        # Stored first: whatever dies now, the turn does not go on.
        await self._turns.stop(turn, outcome)
        if (run := self._running.get(turn.turn_id)) is not None:
            run.cancelled.set()
            run.watchdog.stop(_STOP_GRACE)
            run.telling = asyncio.create_task(self._tell_to_stop(turn, run.agent))
            await run.telling
        return True

    async def _to_be_replaced(self, turn_id: str, by: Turn) -> list[OutboxEntry]:
        """The newest answer to what is asked anew; nothing of one that failed."""
        revised = await self._turns.get(turn_id)
        if revised is None or revised.outcome == Outcome.FAILED:
            return []
        for one in [*await self._turns.revising(turn_id)][::-1]:
            entries = await self._outbox.of_turn(one.turn_id) if one.seq < by.seq else []
            if any(entry.kind is OutboxKind.MESSAGE for entry in entries):
                return entries
        return await self._outbox.of_turn(turn_id)

    async def _reply(
        self, turn: Turn, agent: Agent, *, recovered: bool, adopts: bool = True
    ) -> Reply:
        entries = await self._speaker.left_of(turn, recovered=recovered)
        reply = self._speaker.of_agent(turn, agent, entries)
        if turn.outcome == Outcome.WITHDRAWN:
            reply.withdraw()
        elif turn.revises is not None and not entries and adopts:
            await reply.adopt(await self._to_be_replaced(turn.revises, turn))
        return reply

    async def _answer(self, turn: Turn, agent: Agent, reply: Reply, *, recovered: bool) -> None:
        activity = Activity(reply, self._shows_tools(turn), timed=not recovered)
        watchdog = Watchdog(
            self._settings.idle_timeout,
            self._settings.turn_timeout,
            lambda: self._approvals.waits(turn.turn_id),
            lambda: self._tools.waits(turn.agent_id, turn.conversation_id or ""),
        )
        run = self._running[turn.turn_id] = Run(
            turn, agent, reply, watchdog, activity, again=recovered
        )
        try:
            end = await self._end(run)
            if turn.outcome == Outcome.WITHDRAWN:
                end = End("", None, Outcome.WITHDRAWN)
            elif end.notice in _QUIET_ENDS and await self._is_deleted(turn):
                end = End(end.text, None, end.outcome)
            await activity.finish()
            await run.delays.end()
            reply.beside.rewrite_at_end(OutboxKind.OFFER, RETRIED, notices.WAS_RETRIED)
            await self._approvals.ended(turn, reply, recovered=recovered)
            await self._tools.ended(turn.turn_id)
            reply.events.mentionable = await self._mentionable(turn, agent)
            if end.text and self._gate.is_silent(turn):
                end = End("", Notice(notices.WITHHELD), Outcome.DROPPED)
            await reply.freeze(end.text, end.notice, end.outcome)
            self._journeys.came_to(turn.turn_id, str(end.outcome))
        finally:
            del self._running[turn.turn_id]
            activity.close()
            await run.delays.stop()

    async def _is_deleted(self, turn: Turn) -> bool:
        """Whether whoever asked has deleted all that was asked."""
        return turn.kind is TurnKind.MESSAGE and not await self._turns.what_is_left(turn)

    async def _mentionable(self, turn: Turn, agent: Agent) -> set[str]:
        if not self._settings.agent_mentions or self._is_of_network(turn):
            return set()
        members = await self._prompts.roster.members(turn.room_id, agent.user_id)
        return set(members) - {agent.user_id}

    def _is_of_network(self, turn: Turn) -> bool:
        return self._portals.bridge_at(turn.room_id, turn.sender) is not None

    def _shows_tools(self, turn: Turn) -> bool:
        if self._is_of_network(turn):
            return False
        here = self._rooms.settings(turn.agent_id, turn.room_id).tool_activity
        return self._settings.tool_activity if here is None else here

    async def _end(self, run: Run) -> End:
        turn = run.turn
        if run.agent.status is AgentStatus.REMOVED:
            return End("", Notice(notices.GONE), Outcome.FAILED)
        if turn.outcome in (Outcome.STOPPED, Outcome.WITHDRAWN):
            self._points_back(run)
            return await self._asking.stopped(run)
        if turn.revises and await self._turns.answered_meanwhile(turn):
            return End("", None, Outcome.DROPPED)
        if await self._is_silenced(run):
            return End("", None, Outcome.FAILED)
        is_told = turn.prompt is not None or bool(files_of(turn.attachment))
        # One that asks anew may have others than its own message to ask about.
        if not is_told and not (turn.revises and await self._turns.what_is_left(turn)):
            return await self._not_read(run)
        is_fresh = turn.status is TurnStatus.QUEUED and turn.asked == 0
        age = self._homeserver.clock.now() - turn.sent_at
        if is_fresh and age > self._settings.max_event_age:
            self._points_back(run)
            hours = round(self._settings.max_event_age / 3600, 1)
            return End("", Notice(notices.expired(hours)), Outcome.EXPIRED)
        if is_fresh:
            passage = await self._gate.passage(turn, run.cancelled)
            if passage is not Passage.OPEN:
                told = _TOLD_INSTEAD.get(passage)
                return End("", Notice(told) if told else None, Outcome.DROPPED)
        runtime = self._runtimes.get(run.agent.runtime)
        if runtime is None:
            reason = f"the runtime {run.agent.runtime!r} is no longer configured"
            return End("", Notice(notices.refused(reason)), Outcome.FAILED)
        return await self._asking.ask(run, runtime)

    def _points_back(self, run: Run) -> None:
        """What was never asked gets its word together with others: each says which it is about."""
        run.reply.events.replies |= run.turn.status is TurnStatus.QUEUED

    async def _not_read(self, run: Run) -> End:
        """The end of a turn whose message has nothing for its agent."""
        turn = run.turn
        if turn.attachment is not None:
            return End("", Notice(notices.UNUSABLE), Outcome.FAILED)
        is_of_network = self._is_of_network(turn)
        if await self._turns.told_unreadable(turn, at_entry=not is_of_network):
            return End("", None, Outcome.DROPPED)
        text = unreadable(run.agent, turn.room_id, self._config.homeserver.domain)
        text = notices.PORTAL_UNREADABLE if is_of_network else text
        return End("", Notice(text), Outcome.FAILED)

    async def _is_silenced(self, run: Run) -> bool:
        """Whether no answer could be sent; whoever asked has been told then."""
        # What the runtime works on already is followed: it may be heard again by then. Nobody on
        # another network is told in the homeserver's words.
        is_talk = self._is_of_network(run.turn)
        if is_talk or run.turn.status is not TurnStatus.QUEUED:
            return False
        return await self._voices.is_silenced(run.turn, run.agent.user_id)

    async def _tell_to_stop(self, turn: Turn, agent: Agent) -> bool:
        """Stop what the runtime may do for a turn; False if that cannot be said for sure."""
        runtime = self._runtimes.get(agent.runtime)
        if runtime is None or turn.conversation_id is None or turn.status is TurnStatus.QUEUED:
            return True
        try:
            await runtime.cancel_turn(turn.agent_id, turn.conversation_id)
        except RuntimeUnavailable as error:
            log.warning("a runtime could not be told to stop", reason=str(error))
            return False
        except RuntimeFault as error:
            log.info("nothing could be stopped", turn=turn.turn_id, reason=str(error))
        return True

    async def _forget(self, turn: Turn) -> None:
        agent = self._directory.get(turn.agent_id)
        runtime = self._runtimes.get(agent.runtime) if agent is not None else None
        if runtime is not None and turn.conversation_id is not None:
            request = TurnRequest(turn.agent_id, turn.conversation_id, turn.message_id, "")
            await runtime.finish_turn(request)
