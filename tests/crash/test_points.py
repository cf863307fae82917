"""SIGKILL at every step between a transaction's arrival and the recorded final edit."""

import pytest
from tests.crash.bridges import Bridges
from tests.crash.checks import Words, assert_answered_once, assert_goes_on
from tests.crash.points import TURN_POINTS

_NEEDS_TIME = {"before an interim edit", "after an interim edit", "some words later"}


def _words(point: str) -> Words:
    return Words.slow(15) if point in _NEEDS_TIME else Words.quick()


@pytest.mark.parametrize("point", TURN_POINTS)
async def test_killed_at(bridges: Bridges, point: str) -> None:
    words = _words(point)
    await bridges.start()
    room = await bridges.new_room()
    bridges.set_trap(point, words.text)
    event_id = await bridges.person.send(room.room_id, words.text)
    await bridges.dead(point)

    await bridges.start()
    await assert_answered_once(bridges, room, (event_id, words))
    await assert_goes_on(bridges, room, (event_id, words))
