"""One replica is lost in mid-answer: another finishes the same message."""

import asyncio
import signal

from tests.crash.checks import Words, assert_goes_on, growth
from tests.replicas.twins import Twins
from tests.waiting import eventually


async def test_killed_in_mid_answer(twins: Twins) -> None:
    words, active, other = Words.held(), await twins.active(), await twins.other()
    room = await twins.new_room()
    event_id = await twins.say(room, words.text)
    await growth(twins, room, words)
    await active.end(signal.SIGKILL)
    await twins.acts(other)
    twins.steps.finish(words.text)
    await assert_goes_on(twins, room, (event_id, words))


async def test_stopped_for_a_while_in_mid_answer(twins: Twins) -> None:
    words, active, other = Words.held(), await twins.active(), await twins.other()
    room = await twins.new_room()
    event_id = await twins.say(room, words.text)
    await growth(twins, room, words)
    active.send(signal.SIGSTOP)
    await twins.acts(other)
    await growth(twins, room, words, 3)
    active.send(signal.SIGCONT)
    await twins.settled_states()
    twins.steps.finish(words.text)
    await assert_goes_on(twins, room, (event_id, words))
    assert await twins.active() is other


async def test_cut_off_from_the_database_in_mid_answer(twins: Twins) -> None:
    words, active, other = Words.held(), await twins.active(), await twins.other()
    room = await twins.new_room()
    event_id = await twins.say(room, words.text)
    await growth(twins, room, words)
    active.way.part()
    await twins.acts(other)
    twins.steps.finish(words.text)
    await twins.settled(room, event_id)
    await active.way.mend()
    await twins.settled_states()
    await assert_goes_on(twins, room, (event_id, words))


async def test_told_to_end_in_mid_answer(twins: Twins) -> None:
    words, active, other = Words.held(), await twins.active(), await twins.other()
    room = await twins.new_room()
    event_id = await twins.say(room, words.text)
    await growth(twins, room, words)
    assert await active.end() == 0
    await twins.acts(other)
    twins.steps.finish(words.text)
    await assert_goes_on(twins, room, (event_id, words))


async def test_the_database_stands_still_for_all_in_mid_answer(twins: Twins) -> None:
    words, postgres, active = Words.held(), twins.postgres, await twins.active()
    assert postgres is not None

    async def is_unsure() -> bool:
        return (await active.health()).get("ready") is False

    room = await twins.new_room()
    event_id = await twins.say(room, words.text)
    await growth(twins, room, words)
    postgres.stand_still()
    try:
        await eventually(is_unsure, what="its lease is over")
    finally:
        postgres.go_on()
    await twins.settled_states()
    twins.steps.finish(words.text)
    await assert_goes_on(twins, room, (event_id, words))


async def test_a_transaction_comes_to_both_at_once(twins: Twins) -> None:
    words = Words.quick()
    room = await twins.new_room()
    event_id = await twins.say(room, words.text)
    event = await twins.person.event(room.room_id, event_id)
    await asyncio.gather(*(twins.deliver("at-both", event) for _ in range(4)))
    await assert_goes_on(twins, room, (event_id, words))
