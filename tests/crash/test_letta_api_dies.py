"""SIGKILL in runs of a Letta API: the same run is followed to its end."""

import secrets
from collections.abc import AsyncGenerator

import pytest
from tests.crash.bridges import Bridges, Room
from tests.crash.checks import Words, asked, assert_goes_on, growth, tell_and_die
from tests.fake_letta_api import FakeLettaApi

from letta_matrix.matrix.reactions import ALLOW

_STREAMING = [
    "turn's state saved, input not sent",
    "Letta API's run not known",
    "end frozen, not committed",
]
_DECIDING = ["decision stored", "answer kept, not sent"]


@pytest.fixture
async def bridges(letta_house: Bridges) -> AsyncGenerator[Bridges]:
    yield letta_house
    await letta_house.unset_trap()


@pytest.mark.parametrize("point", _STREAMING)
async def test_killed_in_a_run(bridges: Bridges, point: str) -> None:
    words = Words.held()
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await tell_and_die(bridges, room, words, point)

    await bridges.start()
    bridges.steps.finish(words.text)
    await assert_goes_on(bridges, room, (event_id, words))


async def test_killed_over_and_over_in_one_run(bridges: Bridges) -> None:
    words = Words.held()
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await bridges.say(room, words.text)
    for edits in (1, 2):
        await growth(bridges, room, words, edits)
        await bridges.kill()
        await bridges.start()
    bridges.steps.finish(words.text)
    await assert_goes_on(bridges, room, (event_id, words))


def _command() -> str:
    return f"tool:Bash:echo ran {secrets.token_hex(6)}"


async def _told(bridges: Bridges, text: str) -> tuple[Room, str]:
    """A new thread, and a message in it."""
    await bridges.start()
    room = await bridges.new_thread()
    return room, await bridges.say(room, text)


async def _assert_done_once(
    bridges: Bridges, letta_api: FakeLettaApi, room: Room, event_id: str, text: str
) -> None:
    await bridges.settled(room, event_id)
    (question,) = await bridges.questions(room)
    assert question.text.startswith(ALLOW)
    (reply,) = await bridges.replies(room)
    assert reply.text == f"tool said: {text.removeprefix('tool:Bash:echo ')}"
    assert bridges.count(text) == 1
    (prompted,) = [
        conversation
        for conversation in letta_api.conversations.values()
        if any(str(one.get("otid")).startswith(f"{event_id}/") for one in conversation.messages)
    ]
    kinds = [message["message_type"] for message in prompted.messages]
    assert kinds.count("tool_return_message") == 1
    assert bridges.unsettled(room) == []


async def test_killed_while_asking(bridges: Bridges, letta_api: FakeLettaApi) -> None:
    text = _command()
    bridges.set_trap("question frozen, not committed", text)
    room, event_id = await _told(bridges, text)
    await bridges.dead("question frozen, not committed")

    await bridges.start()
    await bridges.person.react(room.room_id, await asked(bridges, room), ALLOW)
    await _assert_done_once(bridges, letta_api, room, event_id, text)


@pytest.mark.parametrize("point", _DECIDING)
async def test_killed_while_deciding(bridges: Bridges, letta_api: FakeLettaApi, point: str) -> None:
    text = _command()
    room, event_id = await _told(bridges, text)
    question = await asked(bridges, room)
    bridges.set_trap(point, ALLOW)
    await bridges.person.react(room.room_id, question, ALLOW)
    await bridges.dead(point)

    await bridges.start()
    await _assert_done_once(bridges, letta_api, room, event_id, text)
