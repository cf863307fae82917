"""Runs one turn from wherever it stands to its end: ask or follow, show, freeze, deliver."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog

from letta_matrix.config import Conversations as ConversationsConfig
from letta_matrix.conversations import notices
from letta_matrix.conversations.attention import Attention
from letta_matrix.conversations.reply import Notice, Reply
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.runtimes.protocol import (
    AgentRuntime,
    ApprovalRequested,
    ConversationGone,
    RuntimeFault,
    RuntimeRefused,
    RuntimeUnavailable,
    StopReason,
    TextDelta,
    TextEnded,
    TurnEvent,
    TurnFinished,
    TurnLost,
    TurnRequest,
    TurnStarted,
)
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.turns import Outcome, Turn, TurnStatus, TurnStore

log = structlog.get_logger()

_PATIENCE = 3.0
"""Seconds a runtime may be away before the person is told."""

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0


@dataclass(slots=True)
class _ReplyText:
    """The text of a turn: its assistant messages in order, as paragraphs."""

    parts: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, delta: TextDelta) -> str:
        self.parts[delta.part_id] = self.parts.get(delta.part_id, "") + delta.text
        return "\n\n".join(text for part in self.parts.values() if (text := part.strip("\n")))


@dataclass(frozen=True, slots=True)
class _End:
    """How a turn ends: the text of its reply, a notice, and what it counts as."""

    text: str
    notice: Notice | None = None
    outcome: Outcome = Outcome.ANSWERED


class TurnRunner:
    """Takes turns to their end. One runner serves all conversations; it holds no turn's state."""

    def __init__(
        self,
        config: ConversationsConfig,
        homeserver: Homeserver,
        runtimes: Mapping[str, AgentRuntime],
        directory: AgentDirectory,
        turns: TurnStore,
        outbox: Outbox,
    ) -> None:
        self._config = config
        self._homeserver = homeserver
        self._runtimes = runtimes
        self._directory = directory
        self._turns = turns
        self._outbox = outbox
        self._background: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Let go of receipts and typing that are still on their way."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Answer a turn exactly once. `recovered`: an earlier try may have got somewhere."""
        agent = self._directory.get(turn.agent_id)
        if agent is None or agent.status is AgentStatus.REMOVED:
            await self._turns.finish(turn, Outcome.DROPPED)
            await self._forget(turn)
            return
        intent = Intent(self._homeserver, agent.user_id)
        entries = await self._outbox.of_turn(turn.turn_id) if recovered else None
        reply = Reply(turn, intent, self._outbox, self._config.edit_interval, entries)
        try:
            if turn.status is not TurnStatus.REPLYING:
                end = await self._end(turn, agent, reply)
                await reply.freeze(end.text, end.notice, end.outcome)
            await self._deliver(turn, reply)
        finally:
            await reply.stop()
        await self._forget(turn)

    async def give_up(self, turn: Turn) -> None:
        """End a turn that cannot be run, with a word to the person."""
        agent = self._directory.get(turn.agent_id)
        if agent is not None:
            intent = Intent(self._homeserver, agent.user_id)
            entries = await self._outbox.of_turn(turn.turn_id)
            reply = Reply(turn, intent, self._outbox, self._config.edit_interval, entries)
            if turn.status is not TurnStatus.REPLYING:
                await reply.freeze("", Notice(notices.BROKEN), Outcome.FAILED)
            await self._deliver(turn, reply)
        else:
            await self._turns.finish(turn, Outcome.FAILED)
        await self._forget(turn)

    async def _deliver(self, turn: Turn, reply: Reply) -> None:
        sent = await reply.deliver()
        await self._turns.finish(turn, Outcome.FAILED if reply.refused else None, sent)

    async def _end(self, turn: Turn, agent: Agent, reply: Reply) -> _End:
        if turn.prompt is None:
            return _End("", Notice(notices.UNREADABLE), Outcome.FAILED)
        age = time.time() - turn.sent_at
        if (
            turn.status is TurnStatus.QUEUED
            and turn.asked == 0
            and age > self._config.max_event_age
        ):
            hours = round(self._config.max_event_age / 3600, 1)
            return _End("", Notice(notices.expired(hours)), Outcome.EXPIRED)
        runtime = self._runtimes.get(agent.runtime)
        if runtime is None:
            reason = f"the runtime {agent.runtime!r} is no longer configured"
            return _End("", Notice(notices.refused(reason)), Outcome.FAILED)
        return await self._ask(turn, runtime, reply)

    async def _ask(self, turn: Turn, runtime: AgentRuntime, reply: Reply) -> _End:
        pause, clock = _FIRST_PAUSE, _Clock(self._config.turn_timeout)
        away: float | None = None
        moved = False
        while True:
            try:
                return await self._follow(turn, turn.prompt or "", runtime, reply, clock)
            except ConversationGone as error:
                if moved:
                    return _End(reply.text, Notice(notices.refused(str(error))), Outcome.FAILED)
                moved = True
                log.warning("conversation gone", turn=turn.turn_id, reason=str(error))
                await self._turns.forget_conversation(turn)
            except RuntimeUnavailable as error:
                log.debug("runtime unavailable", runtime=runtime.name, reason=str(error))
                if away is None or clock.ran_since(away):
                    away, pause = time.monotonic(), _FIRST_PAUSE
                if time.monotonic() - away > _PATIENCE:
                    await reply.notify("unavailable", notices.UNAVAILABLE)
            except RuntimeRefused as error:
                return _End(reply.text, Notice(notices.refused(str(error))), Outcome.FAILED)
            except TurnLost as lost:
                log.warning("turn lost by its runtime", turn=turn.turn_id, reason=str(lost))
                if lost.tools_started or turn.asked:
                    return await self._offer(turn, lost, reply)
                await self._turns.ask_again(turn, lost.fresh_conversation)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _offer(self, turn: Turn, lost: TurnLost, reply: Reply) -> _End:
        if lost.fresh_conversation is not None:
            fresh = lost.fresh_conversation
            await self._turns.set_conversation(turn.agent_id, turn.room_id, fresh)
        text = notices.lost(str(lost), tools_started=lost.tools_started)
        return _End(reply.text, Notice(text, offer=True), Outcome.FAILED)

    async def _follow(
        self, turn: Turn, prompt: str, runtime: AgentRuntime, reply: Reply, clock: "_Clock"
    ) -> _End:
        conversation_id = await self._conversation(turn, runtime)
        request = TurnRequest(turn.agent_id, conversation_id, turn.message_id, prompt)

        async def save(state: Mapping[str, object]) -> None:
            await self._turns.run(turn, state)

        attention = Attention(reply.intent, turn.room_id, turn.event_id, self._background)
        try:
            async with (
                clock.running(),
                aclosing(runtime.run_turn(request, turn.runtime_state, save)) as events,
            ):
                return await self._listen(events, request, runtime, reply, attention, clock)
        except _SilentError:
            notice = notices.silent(round(self._config.idle_timeout / 60, 1))
        except TimeoutError:
            notice = notices.too_long(round(self._config.turn_timeout / 60, 1))
        finally:
            attention.end()
        # The person is told in any case; a runtime that cannot even cancel is left alone.
        with contextlib.suppress(RuntimeFault):
            await runtime.cancel_turn(request.agent_id, request.conversation_id)
        return _End(reply.text, Notice(notice), Outcome.FAILED)

    async def _listen(
        self,
        events: AsyncGenerator[TurnEvent],
        request: TurnRequest,
        runtime: AgentRuntime,
        reply: Reply,
        attention: Attention,
        clock: "_Clock",
    ) -> _End:
        text = _ReplyText()
        while (event := await _next(events, self._config.idle_timeout)) is not None:
            clock.heard()
            match event:
                case TextDelta():
                    attention.end()
                    reply.show(text.add(event))
                case TextEnded():
                    reply.text_ended()
                case TurnStarted(run_id=run_id):
                    attention.begin()
                    reply.ran(run_id)
                case ApprovalRequested():
                    await self._deny(event, request, runtime, reply)
                case TurnFinished():
                    return _finished(event, reply.text)
                case _:
                    pass
        raise RuntimeUnavailable("the runtime's stream ended before the turn did")

    async def _deny(
        self,
        asked: ApprovalRequested,
        request: TurnRequest,
        runtime: AgentRuntime,
        reply: Reply,
    ) -> None:
        denial = notices.approval_denied(asked.tool)
        # Refused means that it is no longer pending, which is as good as denied.
        with contextlib.suppress(RuntimeRefused):
            await runtime.answer_approval(request, asked.approval_id, allow=False, message=denial)
        await reply.notify(f"approval {asked.approval_id}", denial)

    async def _conversation(self, turn: Turn, runtime: AgentRuntime) -> str:
        if turn.conversation_id is None:
            known = await self._turns.conversation(turn.agent_id, turn.room_id)
            if known is None:
                known = await runtime.create_conversation(turn.agent_id, f"Matrix {turn.room_id}")
                await self._turns.set_conversation(turn.agent_id, turn.room_id, known)
            turn.conversation_id = known
        return turn.conversation_id

    async def _forget(self, turn: Turn) -> None:
        agent = self._directory.get(turn.agent_id)
        runtime = self._runtimes.get(agent.runtime) if agent is not None else None
        if runtime is not None and turn.conversation_id is not None and turn.prompt is not None:
            await runtime.finish_turn(
                TurnRequest(turn.agent_id, turn.conversation_id, turn.message_id, turn.prompt)
            )


class _Clock:
    """What is left of the time a turn may take, counted only while it runs."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._heard = 0.0

    def heard(self) -> None:
        """The runtime works on the turn now."""
        self._heard = time.monotonic()

    def ran_since(self, moment: float) -> bool:
        """Whether the runtime was heard of after `moment` (monotonic)."""
        return self._heard > moment

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Raises TimeoutError when the time is used up."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._left):
                yield
        finally:
            self._left -= time.monotonic() - started


class _SilentError(Exception):
    """Nothing came from the runtime for too long."""


async def _next(events: AsyncGenerator[TurnEvent], idle_timeout: float) -> TurnEvent | None:
    idle = asyncio.timeout(idle_timeout)
    try:
        async with idle:
            return await anext(events, None)
    except TimeoutError:
        if idle.expired():
            raise _SilentError from None
        raise


def _finished(event: TurnFinished, text: str) -> _End:
    if event.stop_reason is StopReason.ERROR:
        return _End(text, Notice(notices.failed(event.error)), Outcome.FAILED)
    if event.stop_reason is StopReason.CANCELLED:
        return _End(text, Notice(notices.STOPPED))
    return _End(text, None if text.strip() else Notice(notices.NO_WORDS))
