"""SIGKILL in turns by the App Server's OpenAI API: a repeated request joins the same turn."""

from collections.abc import AsyncGenerator

import pytest
from tests.crash.bridges import Bridges
from tests.crash.checks import Words, assert_goes_on, tell_and_die

_POINTS = [
    "turn's state saved, input not sent",
    "in an interim edit",
    "end frozen, not committed",
]


@pytest.fixture
async def bridges(openai_house: Bridges) -> AsyncGenerator[Bridges]:
    yield openai_house
    await openai_house.unset_trap()


@pytest.mark.parametrize("point", _POINTS)
async def test_killed_in_a_turn(bridges: Bridges, point: str) -> None:
    words = Words.held()
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await tell_and_die(bridges, room, words, point)

    await bridges.start()
    bridges.steps.finish(words.text)
    await assert_goes_on(bridges, room, (event_id, words))
