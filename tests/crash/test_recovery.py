"""More than one crash, more than one message, more than one process."""

import asyncio
import os
import signal

import pytest
from tests.crash.bridges import Bridges
from tests.crash.checks import Words, assert_answered_once, assert_goes_on, growth, tell_and_die
from tests.crash.points import ENDING_POINTS
from tests.waiting import eventually

from letta_matrix.matrix.content import CURSOR

_TWICE = [
    ("input sent", "first message frozen, not sent"),
    ("first message sent, not confirmed", "end sent, not recorded"),
    ("end frozen, not sent", "end sent, not recorded"),
]


@pytest.mark.parametrize(("first", "second"), _TWICE)
async def test_killed_again_during_recovery(bridges: Bridges, first: str, second: str) -> None:
    words = Words.held()
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await tell_and_die(bridges, room, words, first)
    if second in ENDING_POINTS:
        bridges.steps.finish(words.text)
    await bridges.run_until_dead(second)

    await bridges.start()
    bridges.steps.finish(words.text)
    await assert_goes_on(bridges, room, (event_id, words))


async def test_killed_over_and_over_in_one_long_reply(bridges: Bridges) -> None:
    words = Words.held()
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await bridges.say(room, words.text)
    for edits in (1, 2, 3):
        await growth(bridges, room, words, edits)
        await bridges.kill()
        (reply,) = await bridges.replies(room)
        assert reply.live
        assert words.answer.startswith(reply.text.removesuffix(CURSOR).strip())
        await bridges.start()
    bridges.steps.finish(words.text)
    await assert_goes_on(bridges, room, (event_id, words))


@pytest.mark.parametrize(
    "point", ["admitted, before the 200", "end sent, not recorded", "input sent"]
)
async def test_killed_while_messages_wait(bridges: Bridges, point: str) -> None:
    """The last point is in the second message's turn: the first one's has come further."""
    words = [Words.held(), Words.quick(), Words.quick(), Words.quick()]
    first = words[0].text
    await bridges.start()
    room = await bridges.new_thread()
    sent = [(await bridges.say(room, first), words[0])]
    await growth(bridges, room, words[0], 0)
    bridges.set_trap(point)
    sent += [(await bridges.say(room, said.text), said) for said in words[1:]]
    if point != "admitted, before the 200":
        await eventually(lambda: len(bridges.turns(room)) == len(words), what="they wait")
        bridges.steps.finish(first)
    await bridges.dead(point)

    await bridges.start()
    bridges.steps.finish(first)
    await assert_goes_on(bridges, room, *sent)


async def test_messages_sent_while_the_bridge_was_down(bridges: Bridges) -> None:
    await bridges.start()
    room = await bridges.new_thread()
    await bridges.stop()
    words = [Words.quick() for _ in range(4)]
    sent = [(await bridges.say(room, said.text), said) for said in words]

    await bridges.start()
    await assert_answered_once(bridges, room, *sent)


async def test_stopped_in_mid_turn(bridges: Bridges) -> None:
    words = Words.held()
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await bridges.say(room, words.text)
    await growth(bridges, room, words)
    os.kill(bridges.pid, signal.SIGTERM)
    assert await bridges.ended() == 0

    await bridges.start()
    bridges.steps.finish(words.text)
    await assert_goes_on(bridges, room, (event_id, words))


async def test_a_transaction_delivered_again(bridges: Bridges) -> None:
    words, later = Words.held(), Words.quick()
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await bridges.say(room, words.text)
    await growth(bridges, room, words, 0)
    event = await bridges.person.event(room.room_id, event_id)
    ((txn_id,),) = bridges.rows(
        "SELECT txn_id FROM transactions JOIN inbox USING (received_at) WHERE event_id = ?",
        event_id,
    )
    await bridges.deliver(txn_id, event)
    await bridges.deliver("another-transaction", event, event)
    bridges.steps.finish(words.text)
    await bridges.settled(room, event_id)
    await bridges.deliver("a-third-transaction", event)
    await bridges.kill()

    await bridges.start()
    await bridges.deliver(txn_id, event)
    later_id = await bridges.say(room, later.text)
    later_event = await bridges.person.event(room.room_id, later_id)
    await asyncio.gather(
        bridges.deliver("at-once-1", event, later_event),
        bridges.deliver("at-once-2", later_event, event),
    )
    await assert_goes_on(bridges, room, (event_id, words), (later_id, later))
