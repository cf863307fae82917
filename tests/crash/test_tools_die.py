"""SIGKILL while an agent acts on Matrix, or speaks without being asked."""

import json
import secrets

import pytest
from tests.crash.bridges import Bridges
from tests.crash.checks import Words
from tests.waiting import eventually

from letta_matrix.conversations.speech import UNASKED


@pytest.mark.parametrize("point", ["tool called", "tool's message sent"])
async def test_killed_while_a_tool_sends_a_message(bridges: Bridges, point: str) -> None:
    message = f"the tool says {secrets.token_hex(6)}"
    await bridges.start()
    room = await bridges.new_thread()
    arguments = json.dumps({"room_id": room.room_id, "message": message})
    text = f"tool:matrix_send_message:{arguments}"
    bridges.set_trap(point, message)
    event_id = await bridges.say(room, text)
    await bridges.dead(point)

    await bridges.start()
    await bridges.settled(room, event_id)
    said = await bridges.replies(room.thread(""))
    assert [one.text for one in said].count(message) == 1
    (reply,) = await bridges.replies(room)
    assert reply.answers == event_id
    assert reply.text.startswith("tool said:"), reply.text
    assert "event_id" in reply.text
    assert bridges.count(message) == 1


@pytest.mark.parametrize(
    "point", ["speech not committed", "speech stored, not sent", "speech sent, not confirmed"]
)
async def test_killed_while_telling_what_was_said_unasked(bridges: Bridges, point: str) -> None:
    words = Words.quick()
    await bridges.start()
    room = await bridges.common_room()
    before = len(await bridges.replies(room))

    def is_listened_to() -> bool:
        return bool(bridges.rows("SELECT 1 FROM speech WHERE agent_id = ?", room.agent_id))

    await eventually(is_listened_to, what="what it says from now on is told")
    bridges.set_trap(point)
    await bridges.tell_elsewhere(room.agent_id, words.text)
    await bridges.dead(point)

    await bridges.start()

    async def is_told() -> bool:
        return len(await bridges.replies(room)) > before

    await bridges.person.watch(room.room_id, is_told, what="what was said is told")
    later = Words.quick()
    event_id = await bridges.say(room, later.text)
    await bridges.settled(room, event_id)
    told, answer = (await bridges.replies(room))[before:]
    assert told.text == UNASKED + words.answer
    assert answer.text == later.answer
    assert bridges.count(words.text) == 1
