"""What a turn's events become in its room: text, tools in use, questions."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common import clock
from letta_matrix.common.parts import part
from letta_matrix.common.tasks import Tasks
from letta_matrix.common.waiting import is_set
from letta_matrix.conversations import notices
from letta_matrix.conversations.activity import Activity
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.conversations.delays import Delays
from letta_matrix.conversations.journeys import Journeys, Stage
from letta_matrix.conversations.reply import Notice, Reply
from letta_matrix.conversations.reply_text import ReplyText
from letta_matrix.conversations.watchdog import Watchdog
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.runtimes.faults import RuntimeUnavailable
from letta_matrix.runtimes.protocol import (
    AgentRuntime,
    ApprovalRequested,
    ImagesDropped,
    ModelRetried,
    StopReason,
    TextDelta,
    TextEnded,
    ToolReturned,
    ToolStarted,
    TurnEvent,
    TurnFinished,
    TurnRequest,
    TurnStarted,
)
from letta_matrix.store.agents import Agent
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.outbox import OutboxKind
from letta_matrix.store.turns import Outcome, Turn

log = structlog.get_logger()

_FAILS_FOR = 900.0
"""Seconds after which a failure that nobody has met again is told no more."""

_DELAY = 0.25
"""Seconds before anything is shown: words that are there by then say it better, and the
homeserver is spared three requests. Longer where it is slow."""

_TYPING_MS = 30_000
_REFRESH = 20.0

RETRIED = "retried"
"""The key of the word that says that the model failed and is asked again."""


@part
class Attention:
    """Shows one event as read and the agent as typing, from `begin()` to `end()`, where the
    `reply` lets it.

    Neither waits nor fails; what is under way is kept in `background` until it has tidied up.
    """

    _reply: Reply
    _room_id: str
    _event_id: str
    _background: Tasks

    def __post_init__(self) -> None:
        self._over = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        if self._timer is None and self._reply.shows_attention:
            delay = _DELAY * self._reply.intent.homeserver.pacer.stretch
            self._timer = asyncio.get_running_loop().call_later(delay, self._show)

    def end(self) -> None:
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()

    def _show(self) -> None:
        # Each by itself: where one is refused the other is shown.
        receipt = partial(self._reply.intent.read_receipt, self._room_id, self._event_id)
        for showing in (receipt, self._type):
            self._background.start(self._quietly(showing))

    async def _quietly(self, showing: Callable[[], Awaitable[None]]) -> None:
        try:
            await showing()
        except (MatrixRequestError, HomeserverUnavailable, StoreUnavailable) as error:
            log.debug("receipt or typing not shown", room=self._room_id, reason=str(error))
        except Exception as error:
            log.error("showing receipt or typing failed", room=self._room_id, exc_info=error)

    async def _type(self) -> None:
        while not self._over.is_set():
            await self._reply.intent.typing(self._room_id, _TYPING_MS)
            await is_set(self._over, _REFRESH)
        await self._reply.intent.typing(self._room_id, 0)


class Models:
    """Remembers of each agent whether its model failed last."""

    def __init__(self) -> None:
        # Why, in a line, and when.
        self._failures: dict[str, tuple[str, float]] = {}
        self.failures = 0
        """How often one has failed."""

    def failed(self, agent_id: str, reason: str) -> None:
        """An agent's model failed, whether or not it is asked again."""
        self._failures[agent_id] = reason, clock.now()
        self.failures += 1

    def answered(self, agent_id: str) -> None:
        """It has answered."""
        self._failures.pop(agent_id, None)

    @property
    def failing(self) -> dict[str, str]:
        """Why models failed in the last quarter of an hour, by agent id, the latest last."""
        latest_last = sorted(self._failures.items(), key=lambda one: one[1][1])
        return {who: why for who, (why, at) in latest_last if clock.now() - at < _FAILS_FOR}


@dataclass(frozen=True, slots=True)
class End:
    """How a turn ends: the text of its reply, a notice, and what it counts as."""

    text: str
    notice: Notice | None = None
    outcome: Outcome = Outcome.ANSWERED


@dataclass(slots=True)
class Run:
    """A turn that is being run in this process, and those that are asked with it."""

    turn: Turn
    agent: Agent
    reply: Reply
    watchdog: Watchdog
    activity: Activity
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    telling: asyncio.Task[bool] | None = None
    joined: list[Turn] = field(default_factory=list[Turn])
    again: bool = False
    delays: Delays = field(init=False)
    asked_of: list[float | None] = field(default_factory=list[float | None])

    def __post_init__(self) -> None:
        self.delays = Delays(self.reply)

    def amended(self) -> list[float | None]:
        """When each of the messages was last edited or redacted."""
        return [one.amended_at for one in (self.turn, *self.joined)]


@dataclass(frozen=True, slots=True)
class Listener:
    """Shows what comes of asking once for a run."""

    request: TurnRequest
    runtime: AgentRuntime
    run: Run
    text: ReplyText
    attention: Attention
    approvals: Approvals
    models: Models
    journeys: Journeys

    async def listen(self, events: AsyncGenerator[TurnEvent]) -> End:
        """Follow the events to the last. Raises RuntimeUnavailable if that is missing."""
        async for event in events:
            self.run.watchdog.heard()
            if self.run.delays.are_told:
                self.run.delays.take_back()
            if isinstance(event, TurnFinished):
                self._learn(event)
                return finished(event, self.text.end(), sure=self.runtime.capabilities.cancel)
            await self._show(event)
        raise RuntimeUnavailable("the runtime's stream ended before the turn did")

    async def _show(self, event: TurnEvent) -> None:
        reply, agent_id = self.run.reply, self.request.agent_id
        turn_id, watcher = self.run.turn.turn_id, self.journeys.watcher
        match event:
            case TextDelta():
                self.models.answered(agent_id)
                self.journeys.reached(turn_id, Stage.FIRST_TEXT)
                if reply.grows:
                    self.attention.end()
                reply.show(self.text.add(event))
            case TextEnded():
                reply.show(self.text.end())
                reply.text_ended()
            case TurnStarted(run_id=run_id, anew=anew):
                if anew:
                    self.approvals.begun_anew(self.run.turn)
                self.attention.begin()
                reply.ran(run_id)
            case ApprovalRequested():
                self.attention.end()
                # Nothing of what was said before the question is held back behind it.
                reply.show(self.text.end())
                await self.approvals.requested(event, self.request, self.runtime, reply)
            case ToolStarted():
                watcher.used(turn_id, event.call_id, event.name)
                self.run.activity.started(event)
            case ToolReturned():
                watcher.used_up(turn_id, event.call_id, ok=event.ok)
                self._returned(event)
            case ModelRetried(reason=reason):
                self.models.failed(agent_id, reason)
                await reply.beside.post(OutboxKind.OFFER, RETRIED, notices.retried(reason))
            case ImagesDropped(reason=reason):
                await reply.beside.notify("images", notices.not_shown(reason))
            case _:
                pass

    def _returned(self, event: ToolReturned) -> None:
        activity, asked = self.run.activity, self.approvals.of_turn(self.run.turn.turn_id)
        tool = activity.tool_of(event.call_id)
        if any(question.has_denied(event, tool) for question in asked):
            activity.denied(event)
        else:
            activity.returned(event)

    def _learn(self, event: TurnFinished) -> None:
        """What the end of a turn says about the agent's model."""
        if event.stop_reason is StopReason.ERROR:
            self.models.failed(self.request.agent_id, event.error)
        elif event.stop_reason is not StopReason.CANCELLED:
            self.models.answered(self.request.agent_id)


def finished(event: TurnFinished, text: str, *, sure: bool = True) -> End:
    """The end that a turn's last event stands for; `sure`: a cancelled turn does not go on."""
    if event.stop_reason is StopReason.ERROR:
        return End(text, Notice(notices.failed(event.error), offer=True), Outcome.FAILED)
    if event.stop_reason is StopReason.CANCELLED:
        return End(text, Notice(notices.STOPPED if sure else notices.UNHEARD))
    return End(text, None if text.strip() else Notice(notices.NO_WORDS))
