"""SIGKILL at every step between a transaction's arrival and the recorded final edit."""

import pytest
from tests.crash.bridges import Bridges
from tests.crash.checks import Words, assert_answered_once, assert_goes_on, tell_and_die
from tests.crash.points import TURN_POINTS


@pytest.mark.parametrize("point", TURN_POINTS)
async def test_killed_at(bridges: Bridges, point: str) -> None:
    words = Words.held()
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await tell_and_die(bridges, room, words, point)

    await bridges.start()
    bridges.steps.finish(words.text)
    await assert_answered_once(bridges, room, (event_id, words))
    await assert_goes_on(bridges, room, (event_id, words))
