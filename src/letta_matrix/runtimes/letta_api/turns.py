"""One turn on a Letta API: the runs it takes, and the approvals between them."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

import structlog

from letta_matrix.runtimes.json_fields import Json, as_dict, as_list
from letta_matrix.runtimes.letta_api.errors import NotStreamable, reason_of
from letta_matrix.runtimes.letta_api.progress import Progress, answer_of, content_of
from letta_matrix.runtimes.letta_api.reader import TurnReader
from letta_matrix.runtimes.letta_api.sse import StreamEvent
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    RuntimeRefused,
    RuntimeUnavailable,
    SaveTurnState,
    StopReason,
    TurnEvent,
    TurnFinished,
    TurnLost,
    TurnRequest,
    TurnStarted,
    TurnState,
)

if TYPE_CHECKING:
    from letta_matrix.runtimes.letta_api.client import Client

CANCEL_GRACE = 2.0
"""Seconds that a cancelled run has to report its end."""
ASKS = "requires_approval"
ENDED = {"completed": "end_turn", "cancelled": "cancelled", "failed": "error"}
"""How a run can have ended, and the stop reason that this is where it names none."""
_TOOL_KINDS = ("tool_call_message", "tool_return_message", "approval_request_message")
_WELL = ("end_turn", "tool_rule")
_ERRORS = {
    ASKS: "the agent asked for an approval of nothing that could be shown",
    "error": "the run failed",
    "llm_api_error": "the model provider failed",
    "invalid_llm_response": "the model gave an answer that made no sense",
    "invalid_tool_call": "the model called a tool wrongly",
    "no_tool_call": "the model called no tool though it had to",
    "max_steps": "the agent reached its limit of steps",
    "max_tokens_exceeded": "the model's answer reached its limit of length",
    "insufficient_credits": "the Letta account is out of credits",
    "context_window_overflow_in_system_prompt": "the agent's memory no longer fits its model",
}
_log = structlog.get_logger()

Events = AsyncGenerator[TurnEvent]


class Turn:
    """One run of one turn; made anew for each try."""

    def __init__(
        self,
        client: "Client",
        request: TurnRequest,
        state: TurnState | None,
        save: SaveTurnState,
        counters: Counter[str],
    ) -> None:
        self.request = request
        self._client = client
        self._save_state = save
        self._reader = TurnReader(counters)
        self._progress = Progress.load(state or {})
        self._asked_before = state is not None
        self._begun = False
        self._waiting: set[str] = set()
        self._all_answered = asyncio.Event()
        self._deadline: float | None = None
        self._timer: asyncio.Timeout | None = None

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
            async with aclosing(self._decide(step)) as events:
                async for event in events:
                    yield event
            step += 1
        yield self._finished()

    async def answer(self, approval_id: str, *, allow: bool, message: str) -> None:
        """Take a person's answer, durably; it goes out when every pending call has one."""
        answered = any(approval_id in step for step in self._progress.answers)
        if approval_id not in self._waiting:
            if answered:
                raise RuntimeRefused("this approval has been answered")
            raise RuntimeUnavailable("the turn does not wait for this approval yet")
        await self._take({approval_id: answer_of(allow=allow, message=message)})

    async def cancel(self) -> None:
        """Deny what waits, so that the conversation is free, and stop what comes of that."""
        self._progress.cancelled = True
        denial = answer_of(allow=False, message="The person cancelled the turn.")
        await self._take(dict.fromkeys(self._waiting, denial))

    def end_within(self, seconds: float) -> None:
        """Let the run being read end in time, or count as cancelled."""
        self._deadline = asyncio.get_running_loop().time() + seconds
        if self._timer is not None:
            self._timer.reschedule(self._deadline)

    async def _take(self, answers: dict[str, Json]) -> None:
        if self._waiting:
            self._progress.answers[-1] |= answers
        self._progress.tools |= any(answer["approve"] for answer in answers.values())
        await self._save()
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
        if known:
            if self._progress.cancelled:
                await self._client.cancel(self.request.conversation_id)
            source = self._client.follow(self._progress.runs[step])
        else:
            if step == 0:
                await self._save()
            source = self._client.send(self.request.conversation_id, self._message(step))
        self._asked_before = self._asked_before and known
        try:
            async with aclosing(self._read(source, step)) as events:
                async for event in events:
                    yield event
        except NotStreamable as error:
            if not known:
                raise RuntimeRefused(str(error)) from None
        except RuntimeUnavailable:
            if not self._reader.stop_reason:
                raise
        if step >= len(self._progress.runs):
            raise RuntimeUnavailable("the Letta API's stream ended before it named its run")
        if not self._reader.stop_reason:
            async with aclosing(self._settle(step)) as events:
                async for event in events:
                    yield event

    async def _look_up(self, step: int) -> None:
        """Find the run of a message that may have been sent, in the conversation's history.

        The server knows an `otid` again for some hours only; what is stored it keeps.
        """
        for message in await self._client.conversation_messages(self.request.conversation_id):
            run_id = message.get("run_id")
            if isinstance(run_id, str) and run_id and self._is_sent(message, step):
                await self._know(run_id, step)
                return

    def _is_sent(self, message: Json, step: int) -> bool:
        """Whether a stored message is the one of this step; approvals are stored without otid."""
        if message.get("otid") == self._otid(step):
            return True
        if step == 0 or message.get("message_type") != "approval_response_message":
            return False
        answered = (item.get("tool_call_id") for item in as_list(message.get("approvals")))
        return any(call_id in self._progress.answers[step - 1] for call_id in answered)

    async def _read(self, source: AsyncGenerator[StreamEvent], step: int) -> Events:
        pings = 0
        async with aclosing(source):
            while (event := await self._next(source)) is not None:
                run_id = event.data.get("run_id")
                if isinstance(run_id, str) and run_id and step >= len(self._progress.runs):
                    await self._know(run_id, step)
                if not self._begun and self._progress.runs:
                    self._begun = True
                    yield TurnStarted(self._progress.runs[0])
                if event.name == "error":
                    self._reader.error = reason_of(event.data)
                    return
                pings = pings + 1 if event.data.get("message_type") == "ping" else 0
                if pings > 1 and await self._has_ended(step):
                    return
                if event.name:
                    continue
                async with aclosing(self._shown(event.data)) as shown:
                    async for turn_event in shown:
                        yield turn_event

    async def _shown(self, data: Json) -> Events:
        for event in self._reader.read(data):
            if self._reader.tools_started and not self._progress.tools:
                self._progress.tools = True
                await self._save()
            yield event

    async def _next(self, source: AsyncGenerator[StreamEvent]) -> StreamEvent | None:
        try:
            async with asyncio.timeout_at(self._deadline) as self._timer:
                return await anext(source, None)
        except TimeoutError:
            return None
        finally:
            self._timer = None

    async def _know(self, run_id: str, step: int) -> None:
        if step < len(self._progress.runs):
            return
        self._progress.runs.append(run_id)
        await self._save()
        if self._progress.cancelled and await self._client.cancel(self.request.conversation_id):
            self.end_within(CANCEL_GRACE)

    async def _has_ended(self, step: int) -> bool:
        """Whether a run is over whose stream says nothing: the server may have lost that."""
        if step >= len(self._progress.runs):
            return False
        run = await self._client.run(self._progress.runs[step])
        return run is None or str(run.get("status")) in ENDED

    async def _settle(self, step: int) -> Events:
        """Learn how a run ended whose stream did not tell, and what it said meanwhile."""
        runs = self._progress.runs
        run = await self._client.run(runs[step])
        if run is None:
            raise await self._lost(runs[step])
        status = str(run.get("status"))
        if status not in ENDED:
            if self._progress.cancelled:
                self._reader.stop_reason = "cancelled"
                return
            raise RuntimeUnavailable("the Letta API's stream ended before its run did")
        if not self._begun:
            self._begun = True
            yield TurnStarted(runs[0])
        for event in self._reader.complete(await self._client.run_messages(runs[step])):
            yield event
        reason = run.get("stop_reason")
        told = isinstance(reason, str) and reason
        self._reader.stop_reason = str(reason) if told else ENDED[status]
        self._reader.error = self._reader.error or reason_of(as_dict(run.get("metadata")))

    async def _lost(self, run_id: str) -> TurnLost:
        _log.warning("run unknown to its server", turn=self.request.message_id)
        tools = self._progress.tools or await self._used_tools(run_id)
        return TurnLost("the Letta API no longer knows the run", tools_started=tools)

    async def _used_tools(self, run_id: str) -> bool:
        """Whether a run may have used tools, by what its conversation keeps of it."""
        try:
            history = await self._client.conversation_messages(self.request.conversation_id)
        except RuntimeRefused:
            return True
        kinds = [item.get("message_type") for item in history if item.get("run_id") == run_id]
        return any(kind in _TOOL_KINDS for kind in kinds)

    async def _decide(self, step: int) -> Events:
        """Report what waits for an approval until everything is answered."""
        answers = self._progress.answers
        if step == len(answers):
            answers.append({})
        calls = self._reader.approvals
        self._waiting = calls.keys() - answers[step].keys()
        self._all_answered.clear()
        if self._waiting and self._progress.cancelled:
            await self.cancel()
        for call in [calls[call_id] for call_id in calls if call_id in self._waiting]:
            yield ApprovalRequested(call.call_id, call.name, call.fields)
        while self._waiting:
            await self._all_answered.wait()
        for call_id in [key for key in calls if answers[step][key].get("approve")]:
            for event in self._reader.start(call_id):
                yield event

    def _otid(self, step: int) -> str:
        message_id = self.request.message_id
        return f"{message_id}:{step}" if step else message_id

    def _message(self, step: int) -> Json:
        if step == 0:
            return {"role": "user", "content": content_of(self.request), "otid": self._otid(0)}
        approvals = [
            {"type": "approval", "tool_call_id": call_id, **answer}
            for call_id, answer in self._progress.answers[step - 1].items()
        ]
        return {"type": "approval", "approvals": approvals, "otid": self._otid(step)}

    def _finished(self) -> TurnFinished:
        reason = self._reader.stop_reason
        run_id = self._progress.runs[-1]
        if reason == "cancelled" or self._progress.cancelled:
            return TurnFinished(StopReason.CANCELLED, run_id=run_id)
        if reason in _WELL:
            return TurnFinished(StopReason.END_TURN, run_id=run_id)
        line = self._reader.error or _ERRORS.get(reason) or f"the run stopped: {reason[:40]}"
        return TurnFinished(StopReason.ERROR, line, run_id)
