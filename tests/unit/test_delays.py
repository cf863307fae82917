"""What is told of a runtime that is away or hangs, and that it stands in no answer's way."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from tests.fake_homeserver import FakeHomeserver
from tests.scripts import DONE, until
from tests.stage import Stage
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.common.waiting import ended
from letta_matrix.conversations import notices
from letta_matrix.conversations.asking import _QUIET
from letta_matrix.conversations.delays import _AGAIN
from letta_matrix.runtimes.faults import RuntimeUnavailable
from letta_matrix.runtimes.protocol import (
    ModelRetried,
    ReasoningDelta,
    TextDelta,
    TurnEvent,
    TurnRequest,
)
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.turns import Turn, TurnStatus

ROOM = "!1:test"


@pytest.fixture
async def hung(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[asyncio.Event]:
    """A runtime whose listing, under way, is answered only once this is set."""
    answers = asyncio.Event()
    hold(stage, monkeypatch, "list_agents", answers)
    (discovery,) = stage.parts.listings.discoveries
    listing = asyncio.create_task(discovery.poll())
    yield answers
    await ended(listing)


def hold(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str, answers: asyncio.Event
) -> list[object]:
    """Let the runtime answer a kind of request only once `answers` is set; the requests."""
    asked, method = list[object](), getattr(stage.runtime, name)

    async def hanging(*args: Any) -> Any:
        asked.append(args)
        await answers.wait()
        return await method(*args)

    monkeypatch.setattr(stage.runtime, name, hanging)
    return asked


async def test_a_runtime_that_hangs_is_told_of_before_anything_fails(
    stage: Stage,
    fake: FakeHomeserver,
    clock: Clock,
    hung: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = hold(stage, monkeypatch, "create_conversation", hung)
    clock.stop()
    running = asyncio.create_task(stage.run("hello"))
    await eventually(lambda: asked)
    for _ in range(15):
        clock.advance(1)
        await settled(running)
    await eventually(lambda: fake.bodies(ROOM))
    later = clock.now() + 60
    await clock.until(lambda: clock.now() > later)
    assert fake.bodies(ROOM) == [notices.UNAVAILABLE]
    assert len(fake.messages(ROOM)) == 1
    hung.set()
    await clock.until(running.done)
    assert fake.bodies(ROOM) == [notices.WAS_AWAY, "echo: hello"]


async def test_a_runtime_that_lists_nobody_and_answers_is_not_away(
    stage: Stage, fake: FakeHomeserver, clock: Clock, hung: asyncio.Event
) -> None:
    def slow(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        for _ in range(8):
            yield 5.0
            yield ReasoningDelta("0", "Hm.")
        yield from (TextDelta("0", "So be it."), DONE)

    stage.runtime.script = slow
    clock.stop()
    running = asyncio.create_task(stage.run("hello"))
    # What takes a while before it is asked is no silence of its.
    await eventually(lambda: stage.runtime.asked)
    await clock.through(running)
    assert not hung.is_set()
    assert stage.parts.listings.hangs(stage.runtime.name)
    assert fake.bodies(ROOM) == ["So be it."]


async def test_a_turn_that_was_just_begun_is_not_late(
    stage: Stage,
    fake: FakeHomeserver,
    clock: Clock,
    hung: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold(stage, monkeypatch, "create_conversation", hung)
    clock.stop()
    await clock.until(lambda: stage.parts.listings.hangs(stage.runtime.name))
    asked = clock.now()
    running = asyncio.create_task(stage.run("hello"))
    await clock.until(lambda: fake.bodies(ROOM))
    assert clock.now() - asked >= _QUIET
    hung.set()
    await clock.until(running.done)
    assert fake.bodies(ROOM) == [notices.WAS_AWAY, "echo: hello"]


async def test_what_cannot_be_stored_now_is_told_later(
    stage: Stage,
    fake: FakeHomeserver,
    clock: Clock,
    hung: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold(stage, monkeypatch, "create_conversation", hung)
    clock.stop()
    with monkeypatch.context() as patched:
        refused = unstorable(patched, OutboxKind.NOTICE)
        running = asyncio.create_task(stage.run("hello"))
        await clock.until(lambda: refused)
    await clock.until(lambda: fake.bodies(ROOM) == [notices.UNAVAILABLE])
    hung.set()
    await clock.until(running.done)


async def test_what_was_not_told_takes_no_answer_with_it(
    stage: Stage,
    fake: FakeHomeserver,
    clock: Clock,
    hung: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold(stage, monkeypatch, "create_conversation", hung)
    clock.stop()
    refused = unstorable(monkeypatch, OutboxKind.NOTICE)
    running = asyncio.create_task(stage.run("hello"))
    await clock.until(lambda: refused)
    hung.set()
    await clock.until(running.done)
    await running
    assert fake.bodies(ROOM) == ["echo: hello"]


def unstorable(monkeypatch: pytest.MonkeyPatch, kind: OutboxKind) -> list[OutboxEntry]:
    """Nothing of a kind can be stored while a turn goes on; what was tried."""
    tried, freeze = list[OutboxEntry](), Outbox.freeze

    async def failing(self: Outbox, entries: list[OutboxEntry], **more: Any) -> None:
        if more.get("completes") is None and any(one.kind is kind for one in entries):
            tried.extend(entries)
            raise StoreUnavailable("on purpose")
        await freeze(self, entries, **more)

    monkeypatch.setattr(Outbox, "freeze", failing)
    return tried


async def away(stage: Stage, fake: FakeHomeserver, clock: Clock, turn: Turn) -> asyncio.Task[None]:
    """A turn whose runtime is away, which was told."""
    stage.runtime.available = False
    clock.stop()
    running = asyncio.create_task(stage.runner.run(turn, recovered=False))
    await clock.until(lambda: fake.bodies(ROOM) == [notices.UNAVAILABLE])
    return running


async def test_a_finished_answer_is_stored_while_the_homeserver_is_away(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    turn = await stage.turn("hello")
    running = await away(stage, fake, clock, turn)
    sent = len(fake.matching("PUT .*/send/"))
    answers, lasts = fake.hold("PUT .*/send/"), asyncio.Event()

    def slow(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        yield ReasoningDelta("0", "Hm.")
        yield from until(lasts)
        yield from (TextDelta("0", "So be it."), DONE)

    stage.runtime.script = slow
    stage.runtime.available = True
    await clock.until(lambda: len(fake.matching("PUT .*/send/")) > sent)
    lasts.set()
    # A step that lets the script go on, and no first words of a longer answer out.
    await clock.until(lambda: turn.status is TurnStatus.REPLYING, step=0.011)
    answers.set()
    await clock.until(running.done)
    await running
    assert fake.bodies(ROOM) == [notices.WAS_AWAY, "So be it."]


async def test_a_word_that_cannot_be_taken_back_now_asks_nothing_anew(
    stage: Stage, fake: FakeHomeserver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await away(stage, fake, clock, await stage.turn("hello"))
    unstorable(monkeypatch, OutboxKind.UPDATE)
    stage.runtime.available = True
    await clock.until(running.done)
    await running
    assert fake.bodies(ROOM) == [notices.WAS_AWAY, "echo: hello"]
    assert len(stage.runtime.asked) == 1


async def test_what_is_being_stored_as_a_turn_ends_is_known_to_its_end(
    stage: Stage, fake: FakeHomeserver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await away(stage, fake, clock, await stage.turn("hello"))
    stored, returns, freeze = asyncio.Event(), asyncio.Event(), Outbox.freeze

    async def slow(self: Outbox, entries: list[OutboxEntry], **more: Any) -> None:
        await freeze(self, entries, **more)
        if more.get("completes") is None and entries[0].kind is OutboxKind.UPDATE:
            stored.set()
            await returns.wait()

    monkeypatch.setattr(Outbox, "freeze", slow)
    stage.runtime.available = True
    await clock.until(stored.is_set)
    await settled(running)
    returns.set()
    await within(running)
    assert fake.bodies(ROOM) == [notices.WAS_AWAY, "echo: hello"]


async def test_an_outage_after_the_turn_went_on_is_told_anew(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    breaks, went_on = asyncio.Event(), list[float]()

    def twice(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        went_on.append(clock.now())
        yield ReasoningDelta("0", "Hm.")
        while not breaks.is_set():
            yield 1.0
            yield ReasoningDelta("0", "Hm.")
        if not stage.runtime.available:
            raise RuntimeUnavailable("gone again")
        yield from (TextDelta("0", "So be it."), DONE)

    stage.runtime.script = twice
    running = await away(stage, fake, clock, await stage.turn("hello"))
    stage.runtime.available = True
    await clock.until(lambda: fake.bodies(ROOM) == [notices.WAS_AWAY])
    stage.runtime.available = False
    breaks.set()
    await clock.until(lambda: len(fake.bodies(ROOM)) == 2)
    assert fake.bodies(ROOM) == [notices.WAS_AWAY, notices.UNAVAILABLE]
    assert clock.now() - went_on[0] >= _AGAIN
    stage.runtime.available = True
    await clock.until(running.done)
    await running
    assert fake.bodies(ROOM) == [notices.WAS_AWAY, notices.WAS_AWAY, "So be it."]


async def test_that_its_model_was_asked_again_holds_no_answer_up(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    lasts = asyncio.Event()

    def slow(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        yield ModelRetried("no credit")
        yield from until(lasts)
        yield from (TextDelta("0", "So be it."), DONE)

    stage.runtime.script = slow
    turn = await stage.turn("hello")
    clock.stop()
    running = asyncio.create_task(stage.runner.run(turn, recovered=False))
    await clock.until(lambda: fake.bodies(ROOM))
    answers = fake.hold("PUT .*/send/")
    lasts.set()
    await clock.until(lambda: turn.status is TurnStatus.REPLYING, step=0.011)
    answers.set()
    await clock.until(running.done)
    await running
    assert fake.bodies(ROOM) == [notices.WAS_RETRIED, "So be it."]
