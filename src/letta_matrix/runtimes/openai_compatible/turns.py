"""One turn at an endpoint: asked once, read from its stream, told again from its saved end."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar, cast

import openai
from openai.types.chat import ChatCompletionChunk

from letta_matrix.common.lenient_json import whole_text
from letta_matrix.common.waiting import unless
from letta_matrix.runtimes.error_lines import foreign
from letta_matrix.runtimes.faults import (
    CredentialsRefused,
    RuntimeRefused,
    RuntimeUnavailable,
    TurnLost,
)
from letta_matrix.runtimes.openai_compatible.endpoint import UNREADABLE, Endpoint
from letta_matrix.runtimes.openai_compatible.faults import is_page, was_not_taken
from letta_matrix.runtimes.protocol import (
    ImagesDropped,
    ReasoningDelta,
    SaveTurnState,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnRequest,
    TurnStarted,
    TurnState,
)

T = TypeVar("T")
Stream = openai.AsyncStream[ChatCompletionChunk]

_TEXT = "text"
_REASONING = "reasoning"
_NO_IMAGES = (400, 413, 415, 422)
"""How endpoints refuse messages with images; the same message without them may be taken."""
_MOST_KEPT = 1_000_000
"""Characters of an answer: twice of what a reply shows."""
_BLIND = (
    "an App Server leaves images out without a word where its model cannot see; "
    "use it as a runtime of `type: app_server`"
)


class Stopped(Exception):
    """The turn was cancelled, or the runtime closed."""


@dataclass(slots=True)
class Turn:
    """A turn that is run or followed now; setting `stop` ends that with Stopped.

    The saved state is `{"asked": false}`, `{"asked": true, "kept": whether a repeated request
    joins the turn}` with `Endpoint.place`, or the end of the turn: `{"text", "stop_reason",
    "error"}`.
    """

    endpoint: Endpoint
    request: TurnRequest
    save: SaveTurnState
    stop: asyncio.Event
    finish: str = ""
    _resumed: bool = False
    _text: list[str] = field(default_factory=list[str])
    _kept: int = 0

    async def run(self, state: TurnState | None) -> AsyncGenerator[TurnEvent]:
        """The turn's events to its end; see `AgentRuntime.run_turn`."""
        state = state or {}
        if "stop_reason" in state:
            for event in _told_again(state):
                yield event
            return
        await self._unless_stopped(self.endpoint.learn())
        self._resumed = bool(state.get("asked"))
        if self._resumed:
            await self._check_kept(state)
        else:
            kept = bool(self.endpoint.keeps_turns)
            await self.save({"asked": True, "kept": kept, **await self.endpoint.place()})
        try:
            async with aclosing(self._ask()) as events:
                async for event in events:
                    yield event
        except openai.APIConnectionError as error:
            self.endpoint.note(error)
            raise self.endpoint.unavailable(error) from None
        except openai.APIError as error:
            yield await self.end(StopReason.ERROR, self.endpoint.reason(error))
        except UNREADABLE:
            self.endpoint.counters["malformed chunk"] += 1
            yield await self.end(StopReason.ERROR, "the endpoint sent something unreadable")

    async def end(self, stop_reason: StopReason, error: str = "") -> TurnFinished:
        """Save how the turn ended, so that no later try asks again."""
        text = "".join(self._text)
        await self.save({"text": text, "stop_reason": stop_reason.value, "error": error})
        return TurnFinished(stop_reason, error)

    async def _check_kept(self, state: TurnState) -> None:
        if not (state.get("kept") and await self.endpoint.still_knows(state)):
            raise _lost("the endpoint cannot say what became of the message")

    async def _ask(self) -> AsyncGenerator[TurnEvent]:
        stream, dropped = await self._open()
        async with stream:
            yield TurnStarted()
            if dropped:
                yield ImagesDropped(dropped)
            chunks = aiter(stream)
            while (chunk := await self._unless_stopped(anext(chunks, None))) is not None:
                for event in self._read(chunk):
                    yield event
        if not self.finish:
            yield await self.end(StopReason.ERROR, "the endpoint's answer broke off")
        elif self.finish == "content_filter":
            yield await self.end(StopReason.ERROR, "the endpoint's content filter stopped it")
        else:
            yield await self.end(StopReason.END_TURN)

    async def _open(self) -> tuple[Stream, str]:
        """The answer's stream, and why it goes without the message's images, if it does."""
        blind = self.request.images and self.endpoint.keeps_turns
        dropped = _BLIND if blind else ""
        while True:
            images = bool(self.request.images) and not dropped
            try:
                ask = self.endpoint.ask(self.request, images=images)
                stream = await self._unless_stopped(ask)
                if "html" in stream.response.headers.get("content-type", ""):
                    await self._meet_page(stream)
                return stream, dropped
            except openai.APIStatusError as error:
                if images and error.status_code in _NO_IMAGES and not is_page(error):
                    dropped = self.endpoint.reason(error)
                    continue
                await self._refuse(error)
            except openai.APIConnectionError as error:
                await self._forget_if_unsent(error)
                raise

    async def _meet_page(self, stream: Stream) -> NoReturn:
        """A proxy answers in the endpoint's place, which has got nothing."""
        await stream.close()
        if not self._resumed:
            await self.save({"asked": False})
        response = stream.response
        raise foreign(self.endpoint.name, response.status_code, response.headers)

    async def _refuse(self, error: openai.APIStatusError) -> NoReturn:
        fault = self.endpoint.fault(error)
        if isinstance(fault, RuntimeRefused) and error.status_code >= 500:
            raise error
        await self._forget_if_unsent(error)
        if self._resumed and isinstance(fault, CredentialsRefused):
            raise RuntimeUnavailable(str(fault))
        if self._resumed and isinstance(fault, RuntimeRefused):
            raise _lost(str(fault))
        raise fault from None

    async def _forget_if_unsent(
        self, error: openai.APIStatusError | openai.APIConnectionError
    ) -> None:
        # What became of an earlier request is another matter than that of this one.
        if not self._resumed and was_not_taken(error):
            await self.save({"asked": False})

    def _read(self, chunk: ChatCompletionChunk) -> Iterator[TurnEvent]:
        """A chunk's events; the client checks no types, so any field may be anything."""
        choices: object = getattr(chunk, "choices", None)
        if not isinstance(choices, list):
            self.endpoint.counters["malformed chunk"] += 1
            return
        for choice in cast("list[object]", choices)[:1]:
            delta = getattr(choice, "delta", None)
            if thought := _words(delta, "reasoning_content") or _words(delta, "reasoning"):
                yield ReasoningDelta(_REASONING, thought)
            if text := _words(delta, "content"):
                self._keep(text)
                yield TextDelta(_TEXT, text)
            self.finish = _words(choice, "finish_reason") or self.finish

    def _keep(self, text: str) -> None:
        if kept := text[: _MOST_KEPT - self._kept]:
            self._text.append(kept)
            self._kept += len(kept)

    async def _unless_stopped(self, work: Awaitable[T]) -> T:
        done = await unless(self.stop, work)
        if done is None or self.stop.is_set():
            raise Stopped
        return done.result()


def _words(holder: object, name: str) -> str:
    value = getattr(holder, name, None)
    return whole_text(value) if isinstance(value, str) else ""


def _lost(reason: str) -> TurnLost:
    # What an agent did with its tools does not show in a chat completion.
    return TurnLost(reason, tools_started=True)


def _told_again(state: TurnState) -> Iterator[TurnEvent]:
    yield TurnStarted()
    if text := str(state.get("text") or ""):
        yield TextDelta(_TEXT, text)
    yield TurnFinished(StopReason(str(state["stop_reason"])), str(state.get("error") or ""))
