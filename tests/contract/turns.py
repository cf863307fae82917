"""Turns as the bridge runs them, and what else the contract's tests do."""

import asyncio
import json
import secrets
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from tests.contract.places import Place
from tests.waiting import Clock, deadline, eventually

from letta_matrix.runtimes.faults import RuntimeUnavailable
from letta_matrix.runtimes.protocol import (
    AgentRuntime,
    ApprovalRequested,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnRequest,
    TurnState,
)
from letta_matrix.runtimes.speech import Said, Speech

T = TypeVar("T")


@dataclass
class Turn:
    """A turn as the bridge runs it: its request, what it saved, what it brought last."""

    request: TurnRequest
    state: TurnState | None = None
    events: list[TurnEvent] = field(default_factory=list[TurnEvent])

    def start(self, runtime: AgentRuntime) -> "asyncio.Task[Turn]":
        """Run or follow it in a task."""
        self.events = []
        return asyncio.create_task(self.run(runtime))

    async def run(self, runtime: AgentRuntime, words: int = 0) -> "Turn":
        """Run or follow it to its end, or until `words` pieces of text have come."""
        self.events = []
        async with aclosing(runtime.run_turn(self.request, self.state, self.save)) as events:
            async for event in events:
                self.events.append(event)
                if words and len(self.of(TextDelta)) == words:
                    break
        return self

    async def has_said(self, words: int) -> None:
        """Wait until a run of it has brought so many pieces of text."""
        await eventually(lambda: len(self.of(TextDelta)) >= words)

    async def ask_approval(self, runtime: AgentRuntime) -> ApprovalRequested:
        """Run or follow it until it asks for an approval."""
        async with aclosing(runtime.run_turn(self.request, self.state, self.save)) as events:
            async for event in events:
                if isinstance(event, ApprovalRequested):
                    return event
        raise AssertionError("no approval was asked for")

    async def save(self, state: TurnState) -> None:
        self.state = json.loads(json.dumps(dict(state)))

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.of(TextDelta)).strip()

    @property
    def end(self) -> TurnFinished:
        last = self.events[-1]
        assert isinstance(last, TurnFinished)
        return last


async def new_turn(
    place: Place, runtime: AgentRuntime, text: str = "hello", conversation_id: str = ""
) -> Turn:
    """A turn in a conversation of its own; its text is followed by a word said nowhere else."""
    conversation_id = conversation_id or await runtime.create_conversation(place.agent_id, "a room")
    message_id = f"${secrets.token_hex(8)}:localhost"
    text = f"{text} {secrets.token_hex(6)}"
    return Turn(TurnRequest(place.agent_id, conversation_id, message_id, text))


def need(runtime: AgentRuntime, capability: str) -> None:
    if not getattr(runtime.capabilities, capability):
        pytest.skip(f"{runtime.name} says that it cannot: {capability}")


def counting(words: int) -> str:
    return " ".join(f"word{number}" for number in range(1, words + 1))


async def run_in_silence(turn: Turn, place: Place, runtime: AgentRuntime, clock: Clock) -> None:
    """Run a turn of which the server may say nothing any more."""
    running = turn.start(runtime)

    def look() -> bool:
        if place.is_silent(runtime):
            clock.advance(0.5)
        return running.done()

    await eventually(look)
    await running


async def until_run(turn: Turn, runtime: AgentRuntime) -> None:
    """Follow a turn as the bridge does: again and again while the runtime is unavailable."""

    async def has_run() -> bool:
        with suppress(RuntimeUnavailable):
            await turn.run(runtime)
            return True
        return False

    await eventually(has_run)


async def all_said(runtime: AgentRuntime, agent_id: str) -> list[Speech]:
    """What an agent ever said by itself, in as many looks as that takes."""
    said = await runtime.said_since(agent_id, "")
    speeches = [*said.speeches]
    async with deadline():
        while (after := await runtime.said_since(agent_id, said.cursor)).cursor != said.cursor:
            said = after
            speeches += said.speeches
    return speeches


async def heard(runtime: AgentRuntime, agent_id: str, cursor: str) -> Said:
    """The first speeches after a cursor."""
    said = Said((), cursor)

    async def look() -> Said:
        nonlocal said
        said = await runtime.said_since(agent_id, said.cursor)
        return said

    return await eventually(look, lambda said: said.speeches)
