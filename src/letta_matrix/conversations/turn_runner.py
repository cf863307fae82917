"""Runs one turn from wherever it stands to its end: ask or follow, show, freeze, deliver."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from letta_matrix import clock
from letta_matrix.config import Config
from letta_matrix.conversations import notices
from letta_matrix.conversations.activity import Activity
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.conversations.attention import Attention
from letta_matrix.conversations.encryption import unreadable
from letta_matrix.conversations.listening import End, Listener
from letta_matrix.conversations.prompts import Prompt, Prompts
from letta_matrix.conversations.reply import Notice, Reply
from letta_matrix.conversations.reply_text import ReplyText
from letta_matrix.conversations.voices import Voices
from letta_matrix.conversations.watchdog import Bite, Watchdog
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.runtimes.protocol import (
    AgentGone,
    AgentRuntime,
    ConversationGone,
    CredentialsRefused,
    RateLimited,
    RuntimeBusy,
    RuntimeFault,
    RuntimeRefused,
    RuntimeUnavailable,
    TurnLost,
    TurnRequest,
)
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Outcome, Turn, TurnStatus, TurnStore
from letta_matrix.waiting import is_set

log = structlog.get_logger()

_PATIENCE = 3.0
"""Seconds a runtime may be away before the person is told."""

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_STOP_GRACE = 3.0
"""Seconds a cancelled turn has to end by itself."""


@dataclass(slots=True)
class _Run:
    """A turn that is being run in this process."""

    turn: Turn
    agent: Agent
    reply: Reply
    watchdog: Watchdog
    activity: Activity
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    told: bool = True


class Tools(Protocol):
    """The tools of ours that agents call while they work."""

    def waits(self, agent_id: str, conversation_id: str) -> bool:
        """Whether a call from a conversation waits for a person or another agent."""
        ...

    async def ended(self, turn_id: str) -> None:
        """The turn is over, perhaps without the results of its calls."""
        ...


class TurnRunner:
    """Takes messages for agents to their end. One runner serves all conversations."""

    def __init__(
        self,
        config: Config,
        homeserver: Homeserver,
        runtimes: Mapping[str, AgentRuntime],
        directory: AgentDirectory,
        rooms: Rooms,
        turns: TurnStore,
        outbox: Outbox,
        prompts: Prompts,
        approvals: Approvals,
        tools: Tools,
        voices: Voices | None = None,
    ) -> None:
        self._config = config.conversations
        self._domain = config.homeserver.domain
        self._homeserver = homeserver
        self._runtimes = runtimes
        self._directory = directory
        self._rooms = rooms
        self._turns = turns
        self._outbox = outbox
        self._prompts = prompts
        self._approvals = approvals
        self._tools = tools
        self._voices = voices
        self._running: dict[str, _Run] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Let go of receipts and typing that are still on their way."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Answer a turn exactly once. `recovered`: an earlier try may have got somewhere."""
        agent = self._directory.get(turn.agent_id)
        if agent is None:
            await self._approvals.ended(turn)
            await self._turns.finish(turn, Outcome.DROPPED)
            return
        reply = await self._reply(turn, agent, recovered=recovered)
        try:
            if turn.status is not TurnStatus.REPLYING:
                await self._answer(turn, agent, reply, recovered=recovered)
            await self._deliver(turn, reply)
        finally:
            await reply.stop()
        await self._forget(turn)

    async def give_up(self, turn: Turn) -> None:
        """End a turn that cannot be run, with a word to the person."""
        agent = self._directory.get(turn.agent_id)
        if agent is not None:
            reply = await self._reply(turn, agent, recovered=True)
            if turn.status is not TurnStatus.REPLYING:
                await self._tell_to_stop(turn, agent)
                await self._approvals.ended(turn, reply)
                await reply.freeze("", Notice(notices.BROKEN), Outcome.FAILED)
            await self._deliver(turn, reply)
        else:
            await self._approvals.ended(turn)
            await self._turns.finish(turn, Outcome.FAILED)
        await self._forget(turn)

    async def cancel(self, turn: Turn) -> bool:
        """Stop a turn that runs, or that waits for its place; False if its end is settled."""
        if turn.status in (TurnStatus.REPLYING, TurnStatus.DONE):
            return False
        # Stored first: whatever dies now, the turn does not go on.
        await self._turns.stop(turn)
        if (run := self._running.get(turn.turn_id)) is not None:
            run.cancelled.set()
            run.watchdog.stop(_STOP_GRACE)
            run.told = await self._tell_to_stop(turn, run.agent)
        return True

    async def _reply(self, turn: Turn, agent: Agent, *, recovered: bool) -> Reply:
        intent = Intent(self._homeserver, agent.user_id)
        # What is frozen from the start, or was before a crash, stands in the outbox.
        owed = recovered or turn.status is TurnStatus.REPLYING
        entries = await self._outbox.of_turn(turn.turn_id) if owed else None
        return Reply(turn, intent, self._outbox, self._config.edit_interval, entries)

    async def _deliver(self, turn: Turn, reply: Reply) -> None:
        sent = await reply.deliver()
        if reply.refused and self._voices is not None:
            await self._voices.refused(turn)
        await self._turns.finish(turn, Outcome.FAILED if reply.refused else None, sent)

    async def _answer(self, turn: Turn, agent: Agent, reply: Reply, *, recovered: bool) -> None:
        activity = Activity(reply, self._shows_tools(turn), timed=not recovered)
        watchdog = Watchdog(
            self._config.idle_timeout,
            self._config.turn_timeout,
            lambda: self._approvals.waits(turn.turn_id),
            lambda: self._tools.waits(turn.agent_id, turn.conversation_id or ""),
        )
        run = self._running[turn.turn_id] = _Run(turn, agent, reply, watchdog, activity)
        try:
            end = await self._end(run)
            await activity.finish()
            await self._approvals.ended(turn, reply, recovered=recovered)
            await self._tools.ended(turn.turn_id)
            reply.mentionable = await self._mentionable(turn, agent)
            await reply.freeze(end.text, end.notice, end.outcome)
        finally:
            del self._running[turn.turn_id]
            activity.close()

    async def _mentionable(self, turn: Turn, agent: Agent) -> set[str]:
        if not self._config.agent_mentions:
            return set()
        members = await self._prompts.roster.members(turn.room_id, agent.user_id)
        return set(members) - {agent.user_id}

    def _shows_tools(self, turn: Turn) -> bool:
        here = self._rooms.settings(turn.agent_id, turn.room_id).tool_activity
        return self._config.tool_activity if here is None else here

    async def _end(self, run: _Run) -> End:
        turn = run.turn
        if run.agent.status is AgentStatus.REMOVED:
            return End("", Notice(notices.GONE), Outcome.FAILED)
        if turn.outcome == Outcome.STOPPED:
            return await self._stopped(run)
        if await self._is_muted(run):
            return End("", None, Outcome.FAILED)
        if turn.prompt is None and turn.attachment is None:
            if await self._turns.told_unreadable(turn):
                return End("", None, Outcome.DROPPED)
            told = unreadable(run.agent, turn.room_id, self._domain)
            return End("", Notice(told), Outcome.FAILED)
        if self._is_expired(turn):
            hours = round(self._config.max_event_age / 3600, 1)
            return End("", Notice(notices.expired(hours)), Outcome.EXPIRED)
        runtime = self._runtimes.get(run.agent.runtime)
        if runtime is None:
            reason = f"the runtime {run.agent.runtime!r} is no longer configured"
            return End("", Notice(notices.refused(reason)), Outcome.FAILED)
        prompt = await self._prompts.build(turn, run.agent, runtime.capabilities)
        for number, note in enumerate(prompt.notes):
            await run.reply.notify(f"note {number}", note)
        return await self._ask(run, prompt, runtime)

    async def _is_muted(self, run: _Run) -> bool:
        """Whether no answer could be sent; whoever asked has been told then."""
        turn, agent = run.turn, run.agent
        # What the runtime works on already is followed: it may be heard again by then.
        if self._voices is None or turn.status is not TurnStatus.QUEUED:
            return False
        mute = await self._voices.mute(turn.room_id, agent.user_id)
        if mute is not None:
            await self._voices.tell(turn, agent, mute)
        return mute is not None

    def _is_expired(self, turn: Turn) -> bool:
        fresh = turn.status is TurnStatus.QUEUED and turn.asked == 0
        return fresh and time.time() - turn.sent_at > self._config.max_event_age

    async def _ask(self, run: _Run, prompt: Prompt, runtime: AgentRuntime) -> End:
        turn, reply, pause = run.turn, run.reply, _FIRST_PAUSE
        away: float | None = None
        moved = False
        while True:
            least, begun, resumed = 0.0, clock.now(), turn.runtime_state is not None
            try:
                return await self._follow(run, prompt, runtime)
            except ConversationGone as error:
                if resumed:
                    gone = TurnLost(str(error), tools_started=True)
                    return await self._offer(turn, gone, reply)
                if moved:
                    return _refused(reply, error)
                moved = True
                log.warning("conversation gone", turn=turn.turn_id, reason=str(error))
                await self._turns.forget_conversation(turn)
            except RuntimeUnavailable as error:
                log.debug("runtime unavailable", runtime=runtime.name, reason=str(error))
                now = clock.now()
                if away is None or (run.watchdog.ran_since(begun) and now - begun > _PATIENCE):
                    away, pause = now, _FIRST_PAUSE
                if now - away > _PATIENCE:
                    await reply.notify(*_waiting(error))
                least = error.retry_after if isinstance(error, RateLimited) else 0.0
            except RuntimeRefused as error:
                return _refused(reply, error)
            except TurnLost as lost:
                log.warning("turn lost by its runtime", turn=turn.turn_id, reason=str(lost))
                if lost.tools_started or turn.asked:
                    return await self._offer(turn, lost, reply)
                await self._turns.ask_again(turn, lost.fresh_conversation)
            if await is_set(run.cancelled, max(pause, least)):
                return await self._stopped(run)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _offer(self, turn: Turn, lost: TurnLost, reply: Reply) -> End:
        old, fresh = turn.conversation_id, lost.fresh_conversation
        if old is not None and fresh is not None:
            await self._turns.conversations.replace(turn.place, old, fresh)
        text = notices.lost(str(lost), tools_started=lost.tools_started)
        return End(reply.text, Notice(text, offer=True), Outcome.FAILED)

    async def _follow(self, run: _Run, prompt: Prompt, runtime: AgentRuntime) -> End:
        turn, reply = run.turn, run.reply
        conversation_id = await self._conversation(turn, runtime)
        request = TurnRequest(
            turn.agent_id, conversation_id, turn.message_id, prompt.text, prompt.images
        )
        if run.cancelled.is_set():
            return await self._stopped(run)

        async def save(state: Mapping[str, object]) -> None:
            await self._turns.run(turn, state)

        attention = Attention(reply.intent, turn.room_id, turn.event_id, self._background)
        text = ReplyText(prompt.header, self._config.envelope)
        listener = Listener(
            request, runtime, reply, text, attention, run.activity, self._approvals, run.watchdog
        )
        try:
            async with (
                run.watchdog.running(),
                aclosing(runtime.run_turn(request, turn.runtime_state, save)) as events,
            ):
                return await listener.listen(events)
        except TimeoutError:
            if run.watchdog.bite is None:
                raise
        finally:
            attention.end()
        if run.watchdog.bite is Bite.CANCELLED:
            return await self._stopped(run)
        # The person is told in any case; a runtime that cannot even cancel is left alone.
        await self._tell_to_stop(turn, run.agent)
        return self._bitten(run.watchdog.bite, reply)

    async def _stopped(self, run: _Run) -> End:
        """The end of a turn that was cancelled and did not end by itself."""
        told = run.told if run.cancelled.is_set() else await self._tell_to_stop(run.turn, run.agent)
        return End(run.reply.text, Notice(notices.STOPPED if told else notices.UNREACHED))

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

    def _bitten(self, bite: Bite, reply: Reply) -> End:
        if bite is Bite.SILENT:
            text = notices.silent(round(self._config.idle_timeout / 60, 1))
        else:
            text = notices.too_long(round(self._config.turn_timeout / 60, 1))
        return End(reply.text, Notice(text), Outcome.FAILED)

    async def _conversation(self, turn: Turn, runtime: AgentRuntime) -> str:
        if turn.conversation_id is None:
            conversations = self._turns.conversations
            known = conversations.current(turn.place)
            if known is None:
                known = await runtime.create_conversation(turn.agent_id, _title(turn))
                await conversations.begin(turn.place, known, turn.prompt or "")
            turn.conversation_id = known
        return turn.conversation_id

    async def _forget(self, turn: Turn) -> None:
        agent = self._directory.get(turn.agent_id)
        runtime = self._runtimes.get(agent.runtime) if agent is not None else None
        if runtime is not None and turn.conversation_id is not None:
            request = TurnRequest(turn.agent_id, turn.conversation_id, turn.message_id, "")
            await runtime.finish_turn(request)


def _title(turn: Turn) -> str:
    return f"Matrix {turn.room_id}" + (f" thread {turn.thread_id}" if turn.thread_id else "")


def _waiting(error: RuntimeUnavailable) -> tuple[str, str]:
    """The key and the text of the notice that says why an answer takes longer."""
    match error:
        case RuntimeBusy():
            return "busy", notices.BUSY
        case RateLimited():
            return "rate limited", notices.RATE_LIMITED
        case _:
            return "unavailable", notices.UNAVAILABLE


def _refused(reply: Reply, error: RuntimeRefused) -> End:
    match error:
        case CredentialsRefused():
            text = notices.credentials(str(error))
        case AgentGone():
            text = notices.GONE
        case _:
            text = notices.refused(str(error))
    return End(reply.text, Notice(text), Outcome.FAILED)
