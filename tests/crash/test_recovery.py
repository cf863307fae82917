"""More than one crash, more than one message, more than one process."""

import asyncio
import os
import signal

import pytest
from tests.crash.bridges import Bridges
from tests.crash.checks import Words, assert_answered_once, assert_goes_on, growth

from letta_matrix.matrix.content import CURSOR

_TWICE = [
    ("input sent", "first message frozen, not sent"),
    ("first message sent, not confirmed", "end sent, not recorded"),
    ("some words later", "turn finished, before the end is frozen"),
    ("end frozen, not sent", "end recorded, not committed"),
]


@pytest.mark.parametrize(("first", "second"), _TWICE)
async def test_killed_again_during_recovery(bridges: Bridges, first: str, second: str) -> None:
    words = Words.slow(12)
    await bridges.start()
    room = await bridges.new_room()
    bridges.set_trap(first, words.text)
    event_id = await bridges.person.send(room.room_id, words.text)
    await bridges.dead(first)
    await bridges.run_until_dead(second)

    await bridges.start()
    await assert_goes_on(bridges, room, (event_id, words))


async def test_killed_over_and_over_in_one_long_reply(bridges: Bridges) -> None:
    words = Words.slow(60)
    await bridges.start()
    room = await bridges.new_room()
    event_id = await bridges.person.send(room.room_id, words.text)
    kills, edits = 0, 0
    while kills < 3:
        await growth(bridges, room, edits + 1)
        await bridges.kill()
        (reply,) = await bridges.replies(room)
        if not reply.live:
            break  # a busy machine: the bridge took too long to come back
        assert words.answer.startswith(reply.text.removesuffix(CURSOR).strip())
        kills, edits = kills + 1, reply.edits
        await bridges.start()
    else:
        await bridges.kill()
    assert kills > 0
    await bridges.start()
    await assert_goes_on(bridges, room, (event_id, words))


@pytest.mark.parametrize(
    ("point", "told"),
    [
        ("admitted, before the 200", 0),
        ("some words later", 0),
        ("end sent, not recorded", 0),
        ("end recorded, turn kept by the runtime", 0),
        ("input sent", 2),
        ("first message sent, not confirmed", 3),
    ],
)
async def test_killed_while_messages_wait(bridges: Bridges, point: str, told: int) -> None:
    words = [Words.slow(12), Words.quick(), Words.slow(5), Words.quick()]
    await bridges.start()
    room = await bridges.new_room()
    bridges.set_trap(point, words[told].text)
    sent = [(await bridges.person.send(room.room_id, said.text), said) for said in words]
    await bridges.dead(point)

    await bridges.start()
    await assert_goes_on(bridges, room, *sent)


async def test_messages_sent_while_the_bridge_was_down(bridges: Bridges) -> None:
    await bridges.start()
    room = await bridges.new_room()
    await bridges.stop()
    words = [Words.quick() for _ in range(25)]
    sent = [(await bridges.person.send(room.room_id, said.text), said) for said in words]

    await bridges.start()
    await assert_answered_once(bridges, room, *sent)


async def test_stopped_in_mid_turn(bridges: Bridges) -> None:
    words = Words.slow(30)
    await bridges.start()
    room = await bridges.new_room()
    event_id = await bridges.person.send(room.room_id, words.text)
    await growth(bridges, room, 1)
    pid = bridges.pid
    os.kill(pid, signal.SIGTERM)
    assert await bridges.ended() == 0

    await bridges.start()
    await assert_goes_on(bridges, room, (event_id, words))


async def test_a_transaction_delivered_again(bridges: Bridges) -> None:
    words, later = Words.slow(10), Words.quick()
    await bridges.start()
    room = await bridges.new_room()
    event_id = await bridges.person.send(room.room_id, words.text)
    await growth(bridges, room, 0)
    event = await bridges.person.event(room.room_id, event_id)
    (txn_id,) = bridges.rows("SELECT txn_id FROM transactions ORDER BY received_at DESC LIMIT 1")[0]
    await bridges.deliver(txn_id, event)
    await bridges.deliver("another-transaction", event, event)
    await bridges.settled(room, event_id)
    await bridges.deliver("a-third-transaction", event)
    await bridges.kill()

    await bridges.start()
    await bridges.deliver(txn_id, event)
    later_id = await bridges.person.send(room.room_id, later.text)
    later_event = await bridges.person.event(room.room_id, later_id)
    await asyncio.gather(
        bridges.deliver("at-once-1", event, later_event),
        bridges.deliver("at-once-2", later_event, event),
    )
    await assert_goes_on(bridges, room, (event_id, words), (later_id, later))
