"""SIGKILL in turns by the App Server's OpenAI API: a repeated request joins the same turn."""

import secrets
from collections.abc import AsyncGenerator

import pytest
from tests.crash.bridges import Bridges
from tests.crash.checks import Words, assert_goes_on

_POINTS = [
    "turn's state saved, input not sent",
    "first message sent, not confirmed",
    "some words later",
    "turn finished, before the end is frozen",
    "end sent, not recorded",
]


@pytest.fixture
async def bridges(openai_house: Bridges) -> AsyncGenerator[Bridges]:
    yield openai_house
    await openai_house.unset_trap()


@pytest.mark.parametrize("point", _POINTS)
async def test_killed_in_a_turn(bridges: Bridges, point: str) -> None:
    words = Words.slow(15)
    await bridges.start()
    # This API names agents by their names alone.
    name = f"Ada {secrets.token_hex(3)}"
    await bridges.new_agent(name)
    room = await bridges.room_of(name)
    bridges.set_trap(point, words.text)
    event_id = await bridges.person.send(room.room_id, words.text)
    await bridges.dead(point)

    await bridges.start()
    await assert_goes_on(bridges, room, (event_id, words))
