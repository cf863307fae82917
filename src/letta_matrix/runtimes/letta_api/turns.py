"""One turn on a Letta API: the runs it takes, and the approvals between them."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING

import structlog

from letta_matrix.common import clock
from letta_matrix.common.json_fields import Json, string_of
from letta_matrix.common.parts import part
from letta_matrix.runtimes.faults import (
    RateLimited,
    RuntimeBusy,
    RuntimeRefused,
    RuntimeUnavailable,
    TurnLost,
)
from letta_matrix.runtimes.letta_api.calls import Call
from letta_matrix.runtimes.letta_api.errors import NotReached, NotStreamable
from letta_matrix.runtimes.letta_api.history import messages_since, used_tools
from letta_matrix.runtimes.letta_api.progress import Progress, answer_of
from letta_matrix.runtimes.letta_api.reader import ASKS, ENDED, TurnReader
from letta_matrix.runtimes.letta_api.sse import StreamEvent
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    SaveTurnState,
    TurnEvent,
    TurnRequest,
    TurnStarted,
    TurnState,
)

if TYPE_CHECKING:
    from letta_matrix.runtimes.letta_api.client import Client

CANCEL_GRACE = 2.0
"""Seconds that a cancelled run has to report its end."""
ASKED_LONG_AGO = 3600.0
"""Seconds after which the server may have forgotten a prompt's `otid`, and would take the same
prompt as a new one."""
_NOT_TAKEN = (NotReached, RuntimeBusy, RateLimited)
_log = structlog.get_logger()

Events = AsyncGenerator[TurnEvent]


@part
class Turn:
    """One run of one turn; made anew for each try."""

    _client: "Client"
    request: TurnRequest
    _state: TurnState | None
    _save_state: SaveTurnState
    _counters: Counter[str]

    def __post_init__(self) -> None:
        self._reader = TurnReader(self._counters, self._client.secrets)
        self._progress = Progress() if self._state is None else Progress.load(self._state)
        self._asked_before = self._resumed = self._progress.asked_at is not None
        self._begun = False
        self._waiting: set[str] = set()
        self._all_answered = asyncio.Event()
        self._deadline: float | None = None
        self._timer: asyncio.Timeout | None = None

    @property
    def resumed(self) -> bool:
        """Whether the server may have taken its message, as far as is known from before."""
        return self._resumed or bool(self._progress.runs)

    @property
    def blocked(self) -> bool:
        """Whether it failed because a tool call in the conversation waits for an answer."""
        return self._reader.blocked and len(self._progress.runs) == 1

    @property
    def runs(self) -> list[str]:
        """The ids of its runs as far as they are known."""
        return self._progress.runs

    async def follow(self) -> Events:
        """The turn's events from its beginning; asks only for what was not asked yet."""
        step = 0
        while True:
            self._reader.begin_run()
            async with aclosing(self._run(step)) as events:
                async for event in events:
                    yield event
            if self._reader.stop_reason != ASKS or not self._reader.approvals:
                break
            for call in await self._undecided(step):
                yield ApprovalRequested(call.call_id, call.name, call.fields, call_id=call.call_id)
            while self._waiting:
                await self._all_answered.wait()
            for event in self._allowed(step):
                yield event
            step += 1
        cancelled = self._progress.cancelled
        yield self._reader.end(self._progress.runs[-1], cancelled=cancelled)

    async def answer(self, approval_id: str, *, allow: bool, message: str) -> None:
        """Take a person's answer, durably; it goes out when every pending call has one."""
        if self._progress.cancelled:
            raise RuntimeRefused("the turn has been cancelled")
        if any(approval_id in step for step in self._progress.answers):
            raise RuntimeRefused("this approval has been answered")
        if approval_id not in self._waiting:
            raise RuntimeUnavailable("the turn does not wait for this approval yet")
        await self._take({approval_id: answer_of(allow=allow, message=message)})
        if self._progress.cancelled:
            raise RuntimeRefused("the turn has been cancelled")

    async def cancel(self) -> None:
        """Deny what waits, so that the conversation is free, and stop what comes of that."""
        self._progress.cancelled = True
        denial = answer_of(allow=False, message="The person cancelled the turn.")
        await self._take(dict.fromkeys(self._waiting, denial))

    def end_within(self, seconds: float) -> None:
        """Let the run being read end in time, or count as cancelled."""
        self._deadline = clock.now() + seconds
        if self._timer is not None:
            self._timer.reschedule(self._deadline)

    async def _take(self, answers: dict[str, Json]) -> None:
        taken = self._progress.answers[-1] if self._waiting else {}
        taken |= answers
        self._progress.tools |= any(answer["approve"] for answer in answers.values())
        try:
            await self._save()
        except BaseException:
            for call_id in [key for key, answer in answers.items() if taken.get(key) is answer]:
                del taken[call_id]
            raise
        self._waiting -= answers.keys()
        if not self._waiting:
            self._all_answered.set()

    async def _save(self) -> None:
        await self._save_state(self._progress.as_state())

    async def _run(self, step: int) -> Events:
        """One run to its end: known by its id, or to be asked for."""
        if step >= len(self._progress.runs) and self._asked_before:
            await self._look_up(step)
        known = step < len(self._progress.runs)
        fresh = False
        if known:
            if self._progress.cancelled:
                await self._client.cancel(self.request.conversation_id)
            source = self._client.follow(self._progress.runs[step])
        else:
            fresh = self._progress.asked_at is None
            if fresh:
                self._progress.asked_at = time.time()
                await self._save()
            message = self._progress.message(self.request, step)
            source = self._client.send(self.request.conversation_id, message)
        self._asked_before = self._asked_before and known
        try:
            async with aclosing(self._read(source, step)) as events:
                async for event in events:
                    yield event
        except NotStreamable as error:
            if not known:
                raise RuntimeRefused(str(error)) from None
        except RuntimeUnavailable as error:
            if fresh and isinstance(error, _NOT_TAKEN) and not self._progress.runs:
                self._progress.asked_at = None
                await self._save()
            if not self._reader.stop_reason:
                raise
        if step >= len(self._progress.runs):
            raise RuntimeUnavailable("the Letta API's stream ended before it named its run")
        if not self._reader.stop_reason:
            for event in await self._settle(step):
                yield event

    async def _look_up(self, step: int) -> None:
        """Find the run of a message that may have been sent, in the conversation's history.

        The server knows an `otid` again for some hours only; what is stored it keeps.
        """
        asked_at = self._progress.asked_at or 0.0
        history = messages_since(self._client, self.request.conversation_id, asked_at)
        async with aclosing(history):
            async for message in history:
                run_id = string_of(message, "run_id")
                if run_id and self._progress.is_sent(self.request, step, message):
                    await self._know(run_id, step)
                    return
        # An answer can be sent again: the server takes none to a call that does not wait.
        if step == 0 and time.time() - asked_at > ASKED_LONG_AGO:
            raise TurnLost(
                "the Letta API may have got the message and keeps nothing of it",
                tools_started=True,
            )

    async def _read(self, source: AsyncGenerator[StreamEvent], step: int) -> Events:
        pings = 0
        async with aclosing(source):
            while (event := await self._next(source)) is not None:
                run_id = string_of(event.data, "run_id")
                if run_id and step >= len(self._progress.runs):
                    await self._know(run_id, step)
                if not self._begun and self._progress.runs:
                    self._begun = True
                    yield TurnStarted(self._progress.runs[0])
                if event.name == "error":
                    self._reader.fail(event.data)
                    return
                pings = pings + 1 if event.data.get("message_type") == "ping" else 0
                if pings > 1 and step < len(self._progress.runs) and await self._has_ended(step):
                    return
                if event.name:
                    continue
                for turn_event in self._reader.read(event.data):
                    if self._reader.tools_started and not self._progress.tools:
                        self._progress.tools = True
                        await self._save()
                    yield turn_event

    async def _next(self, source: AsyncGenerator[StreamEvent]) -> StreamEvent | None:
        try:
            async with asyncio.timeout_at(self._deadline) as self._timer:
                return await anext(source, None)
        except TimeoutError:
            return None
        finally:
            self._timer = None

    async def _know(self, run_id: str, step: int) -> None:
        self._progress.runs.append(run_id)
        await self._save()
        if self._progress.cancelled and await self._client.cancel(self.request.conversation_id):
            self.end_within(CANCEL_GRACE)

    async def _has_ended(self, step: int) -> bool:
        """Whether a run is over whose stream says nothing: the server may have lost that."""
        run = await self._client.run(self._progress.runs[step])
        return run is None or str(run.get("status")) in ENDED

    async def _settle(self, step: int) -> list[TurnEvent]:
        """Learn how a run ended whose stream did not tell, and what it said meanwhile."""
        run_id = self._progress.runs[step]
        run = await self._client.run(run_id)
        if run is None:
            raise await self._lost(run_id)
        status = str(run.get("status"))
        if status not in ENDED:
            if self._progress.cancelled:
                self._reader.stop_reason = "cancelled"
                return []
            raise RuntimeUnavailable("the Letta API's stream ended before its run did")
        events: list[TurnEvent] = [] if self._begun else [TurnStarted(self._progress.runs[0])]
        self._begun = True
        events += self._reader.complete(await self._client.run_messages(run_id))
        self._reader.stop_reason = string_of(run, "stop_reason") or ENDED[status]
        if not self._reader.error:
            self._reader.fail(run.get("metadata"))
        return events

    async def _lost(self, run_id: str) -> TurnLost:
        _log.warning("run unknown to its server", message=self.request.message_id)
        place, since = self.request.conversation_id, self._progress.asked_at or 0.0
        tools = self._progress.tools or await used_tools(self._client, place, run_id, since)
        return TurnLost("the Letta API no longer knows the run", tools_started=tools)

    async def _undecided(self, step: int) -> list[Call]:
        """The calls of a run that wait for an approval nobody has answered yet."""
        answers = self._progress.answers
        if step == len(answers):
            answers.append({})
        calls = self._reader.approvals
        self._waiting = calls.keys() - answers[step].keys()
        self._all_answered.clear()
        if self._waiting and self._progress.cancelled:
            await self.cancel()
        return [call for call_id, call in calls.items() if call_id in self._waiting]

    def _allowed(self, step: int) -> Iterator[TurnEvent]:
        """The start of each call that was allowed."""
        answers = self._progress.answers[step]
        for call_id in self._reader.approvals:
            if answers[call_id].get("approve"):
                yield from self._reader.start(call_id)
