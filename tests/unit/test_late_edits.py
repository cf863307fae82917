"""An edit that comes after the last one of its message, as the system still held it when a bridge
was cut off, is taken back; nothing else is."""

import asyncio
from collections.abc import Iterator

import pytest
from tests.builders import message
from tests.fake_homeserver import FakeHomeserver, Json
from tests.scripts import DONE, until
from tests.stage import Stage
from tests.waiting import Clock, eventually, settled

from letta_matrix.matrix.content import CURSOR, LIVE, MARKER, edit_content
from letta_matrix.runtimes.protocol import TextDelta, TurnEvent, TurnRequest

ROOM, GHOST = "!1:test", "@agent_1:test"


@pytest.fixture
async def answer(stage: Stage, fake: FakeHomeserver) -> list[Json]:
    """What an agent has said to the end, as the homeserver has it: a message and its last edit."""
    is_shown = asyncio.Event()

    def count(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        yield TextDelta("0", "One, ")
        yield from until(is_shown)
        yield TextDelta("0", "two, three.")
        yield DONE

    stage.runtime.script = count
    await stage.admit(message("count"))
    await eventually(lambda: fake.messages(ROOM))
    is_shown.set()
    await stage.idle()
    said = fake.messages(ROOM)
    assert fake.bodies(ROOM) == ["One, two, three."]
    assert len(said) > 1
    return said


async def come_late(stage: Stage, fake: FakeHomeserver, answer: list[Json]) -> Json:
    """An interim edit is taken by the homeserver, though another process has sent the last one."""
    marker = {**answer[0]["content"][MARKER], "txn": "late"}
    target = answer[0]["event_id"]
    content = edit_content("One, ", target_event_id=target, marker=marker, live=True)
    ghost = stage.parts.homeserver.acting_as(GHOST)
    await ghost.send_interim(ROOM, "m.room.message", content, "late")
    assert fake.bodies(ROOM) == [f"One,{CURSOR}"]
    return fake.messages(ROOM)[-1]


async def test_it_is_taken_back(
    stage: Stage, fake: FakeHomeserver, answer: list[Json], clock: Clock
) -> None:
    late = await come_late(stage, fake, answer)
    await stage.admit(*answer, late)
    await clock.until(lambda: fake.bodies(ROOM) == ["One, two, three."])
    last = fake.messages(ROOM)[-1]["content"]
    assert LIVE not in last["m.new_content"]
    txns = [event["content"][MARKER]["txn"] for event in fake.messages(ROOM)]
    assert len(txns) == len(set(txns))
    # It comes by, too, and so may all of them once more.
    count = len(fake.messages(ROOM))
    await stage.admit(fake.messages(ROOM)[-1], late)
    clock.advance(10)
    await settled()
    assert len(fake.messages(ROOM)) == count


async def test_one_that_comes_in_time_is_none(
    stage: Stage, fake: FakeHomeserver, answer: list[Json], clock: Clock
) -> None:
    asked = len(fake.requests)
    await stage.admit(*answer)
    clock.advance(10)
    await settled()
    assert len(fake.requests) == asked


async def test_what_is_not_shown_like_that_stays(
    stage: Stage, fake: FakeHomeserver, answer: list[Json], clock: Clock
) -> None:
    """The homeserver decides which version is the newest."""
    late = await come_late(stage, fake, answer)
    fake.events[ROOM].remove(late)
    count = len(fake.messages(ROOM))
    await stage.admit(*answer, late)
    clock.advance(10)
    await clock.until(lambda: fake.matching("GET .*/event/"))
    await settled()
    assert len(fake.messages(ROOM)) == count


async def test_nobody_else_sets_it_off(
    stage: Stage, fake: FakeHomeserver, answer: list[Json], clock: Clock
) -> None:
    late = await come_late(stage, fake, answer)
    await stage.admit(*answer, {**late, "sender": "@eve:test"})
    asked = len(fake.requests)
    clock.advance(10)
    await settled()
    assert len(fake.requests) == asked
