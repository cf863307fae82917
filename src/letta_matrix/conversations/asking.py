"""Asking a runtime, as often as it takes, until a turn has an end."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, nullcontext
from weakref import WeakValueDictionary

import structlog

from letta_matrix.common import clock
from letta_matrix.common.backoff import Backoff
from letta_matrix.common.measures import TURN_BOUNDS, Calls
from letta_matrix.common.parts import part
from letta_matrix.common.tasks import Tasks
from letta_matrix.common.waiting import is_set
from letta_matrix.config import Conversations
from letta_matrix.conversations import notices
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.conversations.joining import Joining
from letta_matrix.conversations.journeys import Journeys, Stage
from letta_matrix.conversations.listening import Attention, End, Listener, Models, Run
from letta_matrix.conversations.prompts import Prompt, Prompts
from letta_matrix.conversations.reply import Notice, Reply
from letta_matrix.conversations.reply_text import ReplyText
from letta_matrix.conversations.watchdog import Bite
from letta_matrix.runtimes.faults import (
    AgentGone,
    ConversationGone,
    CredentialsRefused,
    RateLimited,
    RuntimeRefused,
    RuntimeUnavailable,
    TurnLost,
    fault_of,
)
from letta_matrix.runtimes.protocol import ABORT_GRACE, AgentRuntime, TurnRequest
from letta_matrix.store.agents import Agent
from letta_matrix.store.turns import Outcome, Turn, TurnAmended, TurnStatus, TurnStore

log = structlog.get_logger()

_PATIENCE = 3.0
"""Seconds a runtime may be away before the person is told."""

_LAST_WORD = ABORT_GRACE + 3.0
"""Seconds a runtime has to take that a turn is to stop, once nobody waits for that any more: it
may be a grace late though it has taken it at once."""

_QUIET = 10.0
"""Seconds without a word of a turn after which its runtime may hang."""

_PAUSES = Backoff(0.2, 10.0)


@part
class Asking:
    """Asks runtimes; `models` knows whose model fails, `calls` counts each try, by runtime.
    `tell_to_stop` stops what a runtime may do for a turn, and is False where that cannot be said
    for sure; `hangs` tells whether a runtime takes requests and answers none."""

    _settings: Conversations
    _turns: TurnStore
    _prompts: Prompts
    _approvals: Approvals
    _joining: Joining
    _tell_to_stop: Callable[[Turn, Agent], Awaitable[bool]]
    _journeys: Journeys
    _hangs: Callable[[str], bool]

    def __post_init__(self) -> None:
        self.models = Models()
        self.calls = Calls(fault_of, *TURN_BOUNDS)
        self._background = Tasks()
        self._conversing = WeakValueDictionary[tuple[str, str], asyncio.Lock]()

    async def close(self) -> None:
        """Let go of receipts and typing that are still on their way."""
        await self._background.cancel()

    async def ask(self, run: Run, runtime: AgentRuntime) -> End:
        """Ask the runtime, or follow what an earlier try has asked it, to the end."""
        asked_at = clock.now()

        def hangs() -> bool:
            # Listings may be all that hangs, and who waits for a person needs no answer.
            since = clock.now() - _QUIET
            is_quiet = asked_at <= since and not run.watchdog.ran_since(since)
            is_awaited = is_quiet and not self._approvals.waits(run.turn.turn_id)
            return is_awaited and self._hangs(runtime.name)

        async with run.delays.telling_silence(hangs):
            return await self._ask(run, runtime)

    async def _ask(self, run: Run, runtime: AgentRuntime) -> End:
        turn, reply, pauses = run.turn, run.reply, iter(_PAUSES)
        away: float | None = None
        moved = False
        await self._joining.complete(turn)
        prompt: Prompt | None = None
        while True:
            least, begun, resumed = 0.0, clock.now(), turn.runtime_state is not None
            try:
                prompt = prompt or await self._prompt(run, runtime)
                with self.calls.timed(runtime.name):
                    return await self._follow(run, prompt, runtime)
            except TurnAmended:
                for one in (turn, *run.joined):
                    await self._turns.reread(one)
                if turn.outcome is not None:
                    return await self.stopped(run)
                prompt = None
                continue
            except ConversationGone as error:
                if resumed:
                    gone = TurnLost(str(error), tools_started=True)
                    return await self._offer(turn, gone, reply)
                if moved:
                    return _refused(reply, error)
                moved = True
                log.warning("conversation gone", turn=turn.turn_id, reason=str(error))
                await self._turns.forget_conversation(turn)
                run.again, prompt = True, None
            except RuntimeUnavailable as error:
                log.debug("runtime unavailable", runtime=runtime.name, reason=str(error))
                now = clock.now()
                if away is None or (run.watchdog.ran_since(begun) and now - begun > _PATIENCE):
                    away, pauses = now, iter(_PAUSES)
                if now - away > _PATIENCE:
                    await run.delays.tell(error)
                least = error.retry_after if isinstance(error, RateLimited) else 0.0
            except RuntimeRefused as error:
                return _refused(reply, error)
            except TurnLost as lost:
                log.warning("turn lost by its runtime", turn=turn.turn_id, reason=str(lost))
                if turn.outcome is not None:
                    return await self.stopped(run)
                if lost.tools_started or turn.asked:
                    return await self._offer(turn, lost, reply)
                await self._turns.ask_again(turn, lost.fresh_conversation)
                prompt = None
            if await is_set(run.cancelled, max(next(pauses), least)):
                return await self.stopped(run)

    async def _prompt(self, run: Run, runtime: AgentRuntime) -> Prompt:
        """What the runtime is asked: the turn's message, and those that belong to it."""
        run.joined = await self._joining.of(run.turn, again=run.again)
        run.reply.events.also = [one.event_id for one in run.joined]
        run.asked_of = run.amended()
        prompt = await self._prompts.build(
            run.turn, run.agent, runtime.capabilities, joined=run.joined
        )
        # Where several talk, or several questions wait, an answer says which it is to.
        crowded = self._joining.is_crowded(run.turn, run.joined)
        run.reply.events.replies |= prompt.several or crowded
        for number, note in enumerate(prompt.notes):
            await run.reply.beside.notify(f"note {number}", note)
        return prompt

    async def _offer(self, turn: Turn, lost: TurnLost, reply: Reply) -> End:
        old, fresh = turn.conversation_id, lost.fresh_conversation
        if old is not None and fresh is not None:
            await self._turns.conversations.replace(turn.place, old, fresh)
        text = notices.lost(str(lost), tools_started=lost.tools_started)
        return End(reply.text, Notice(text, offer=True), Outcome.FAILED)

    async def _follow(self, run: Run, prompt: Prompt, runtime: AgentRuntime) -> End:
        turn = run.turn
        conversation_id = await self._conversation(turn, runtime)
        request = TurnRequest(
            turn.agent_id, conversation_id, turn.message_id, prompt.text, prompt.images
        )
        async with self._alone(turn, runtime):
            return await self._told(run, prompt, runtime, request)

    def _alone(self, turn: Turn, runtime: AgentRuntime) -> asyncio.Lock | nullcontext[None]:
        """What turns of one conversation go through one by one: several places may share one."""
        if not runtime.capabilities.conversations:
            return nullcontext()
        key = (turn.agent_id, turn.conversation_id or "")
        return self._conversing.setdefault(key, asyncio.Lock())

    async def _told(
        self, run: Run, prompt: Prompt, runtime: AgentRuntime, request: TurnRequest
    ) -> End:
        turn, reply = run.turn, run.reply
        if run.cancelled.is_set():
            return await self.stopped(run)

        async def save(state: Mapping[str, object]) -> None:
            if turn.status is TurnStatus.QUEUED and run.amended() != run.asked_of:
                raise TurnAmended
            await self._turns.run(turn, state, run.joined)

        if turn.runtime_state is None:
            self._approvals.begun_anew(turn)
        attention = Attention(reply, turn.room_id, turn.event_id, self._background)
        text = ReplyText(prompt.header, self._settings.envelope)
        self._journeys.reached(turn.turn_id, Stage.ASKED)
        listener = Listener(
            *(request, runtime, run, text, attention),
            *(self._approvals, self.models, self._journeys),
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
            return await self.stopped(run)
        # The person is told in any case; a runtime that cannot even cancel is left alone.
        await self._tell_to_stop(turn, run.agent)
        return self._bitten(run.watchdog.bite, reply)

    async def stopped(self, run: Run) -> End:
        """The end of a turn that was cancelled and did not end by itself."""
        told = await self._is_told(run)
        if run.turn.outcome == Outcome.WITHDRAWN:
            return End("", None, Outcome.WITHDRAWN)
        return End(run.reply.text, Notice(notices.STOPPED if told else notices.UNREACHED))

    async def _is_told(self, run: Run) -> bool:
        """Whether the runtime has taken it that the turn is to stop."""
        if (telling := run.telling) is None:
            return await self._tell_to_stop(run.turn, run.agent)
        await asyncio.wait({telling}, timeout=_LAST_WORD)
        # What goes wrong there is seen by who has cancelled the turn.
        has_failed = not telling.done() or telling.cancelled() or telling.exception() is not None
        return not has_failed and telling.result()

    def _bitten(self, bite: Bite, reply: Reply) -> End:
        if bite is Bite.SILENT:
            text = notices.silent(round(self._settings.idle_timeout / 60, 1))
        else:
            text = notices.too_long(round(self._settings.turn_timeout / 60, 1))
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


def _title(turn: Turn) -> str:
    return f"Matrix {turn.room_id}" + (f" thread {turn.thread_id}" if turn.thread_id else "")


def _refused(reply: Reply, error: RuntimeRefused) -> End:
    match error:
        case CredentialsRefused():
            text = notices.credentials(str(error))
        case AgentGone():
            text = notices.GONE
        case _:
            text = notices.refused(str(error))
    return End(reply.text, Notice(text), Outcome.FAILED)
