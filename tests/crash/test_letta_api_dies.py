"""SIGKILL in runs of a Letta API: the same run is followed to its end."""

import secrets
from collections.abc import AsyncGenerator

import pytest
from tests.crash.bridges import Bridges, Room
from tests.crash.checks import Words, asked, assert_goes_on, growth
from tests.fake_letta_api import FakeLettaApi

from letta_matrix.conversations.approval_text import ALLOW

_STREAMING = [
    "turn's state saved, input not sent",
    "Letta API's run not known",
    "Letta API's run known",
    "some words later",
    "turn finished, before the end is frozen",
    "end sent, not recorded",
]
_ASKING = [
    "approval asked, not stored",
    "question sent, not confirmed",
    "question confirmed",
]
_DECIDING = ["decision stored", "answer kept, not sent"]


@pytest.fixture
async def bridges(letta_house: Bridges) -> AsyncGenerator[Bridges]:
    yield letta_house
    await letta_house.unset_trap()


async def _room(bridges: Bridges, letta_api: FakeLettaApi) -> Room:
    await bridges.start()
    return await bridges.room_of(letta_api.add_agent(f"Ada {secrets.token_hex(3)}"))


@pytest.mark.parametrize("point", _STREAMING)
async def test_killed_in_a_run(bridges: Bridges, letta_api: FakeLettaApi, point: str) -> None:
    words = Words.slow(15)
    room = await _room(bridges, letta_api)
    bridges.set_trap(point, words.text)
    event_id = await bridges.person.send(room.room_id, words.text)
    await bridges.dead(point)

    await bridges.start()
    await assert_goes_on(bridges, room, (event_id, words))


async def test_killed_over_and_over_in_one_run(bridges: Bridges, letta_api: FakeLettaApi) -> None:
    words = Words.slow(60)
    room = await _room(bridges, letta_api)
    event_id = await bridges.person.send(room.room_id, words.text)
    for edits in (1, 2):
        await growth(bridges, room, edits)
        await bridges.kill()
        await bridges.start()
    await assert_goes_on(bridges, room, (event_id, words))


def _command() -> str:
    return f"tool:Bash:echo ran {secrets.token_hex(6)}"


async def _assert_done_once(
    bridges: Bridges, letta_api: FakeLettaApi, room: Room, event_id: str, text: str
) -> None:
    await bridges.settled(room, event_id)
    (question,) = await bridges.questions(room)
    assert question.text.startswith(ALLOW)
    (reply,) = await bridges.replies(room)
    assert reply.text == f"tool said: {text.removeprefix('tool:Bash:echo ')}"
    assert bridges.count(text) == 1
    (conversation,) = [c for c in letta_api.conversations.values() if c.agent_id == room.agent_id]
    kinds = [message["message_type"] for message in conversation.messages]
    assert kinds.count("tool_return_message") == 1
    assert bridges.unsettled(room) == []


@pytest.mark.parametrize("point", _ASKING)
async def test_killed_while_asking(bridges: Bridges, letta_api: FakeLettaApi, point: str) -> None:
    text = _command()
    room = await _room(bridges, letta_api)
    bridges.set_trap(point, text)
    event_id = await bridges.person.send(room.room_id, text)
    await bridges.dead(point)

    await bridges.start()
    await bridges.person.react(room.room_id, await asked(bridges, room), ALLOW)
    await _assert_done_once(bridges, letta_api, room, event_id, text)


@pytest.mark.parametrize("point", _DECIDING)
async def test_killed_while_deciding(bridges: Bridges, letta_api: FakeLettaApi, point: str) -> None:
    text = _command()
    room = await _room(bridges, letta_api)
    event_id = await bridges.person.send(room.room_id, text)
    question = await asked(bridges, room)
    bridges.set_trap(point, ALLOW)
    await bridges.person.react(room.room_id, question, ALLOW)
    await bridges.dead(point)

    await bridges.start()
    await _assert_done_once(bridges, letta_api, room, event_id, text)


async def test_allowed_while_the_bridge_was_dead(bridges: Bridges, letta_api: FakeLettaApi) -> None:
    text = _command()
    room = await _room(bridges, letta_api)
    event_id = await bridges.person.send(room.room_id, text)
    question = await asked(bridges, room)
    await bridges.kill()
    await bridges.person.react(room.room_id, question, ALLOW)

    await bridges.start()
    await _assert_done_once(bridges, letta_api, room, event_id, text)
