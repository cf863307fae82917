"""SIGKILL while a command is carried out: it takes effect once, and is answered once."""

import secrets

import pytest
from tests.crash.bridges import Bridges
from tests.crash.checks import Words, growth
from tests.stub_model import MODEL_ID

from letta_matrix.conversations import notices

_CREATING = ["before the agent is created", "agent created, not answered", "end frozen, not sent"]


@pytest.mark.parametrize("point", _CREATING)
async def test_killed_while_creating_an_agent(bridges: Bridges, point: str) -> None:
    name = f"Made {secrets.token_hex(4)}"
    await bridges.start()
    room = await bridges.new_thread()
    bridges.set_trap(point, name)
    line = f'!create "{name}" --model openai-compatible/{MODEL_ID}'
    event_id = await bridges.say(room, line)
    await bridges.dead(point)

    await bridges.start()
    await bridges.settled(room, event_id)
    listed = await bridges.listed()
    made = [agent_id for agent_id, known in listed.items() if known == name]
    bridges.agents += made
    assert len(made) == 1
    (answer,) = await bridges.replies(room)
    assert name in answer.text
    assert made[0] in answer.text
    assert answer.answers == event_id
    assert bridges.unsettled(room) == []


@pytest.mark.parametrize("point", ["command begins", "turn cancelled"])
async def test_killed_while_cancelling(bridges: Bridges, point: str) -> None:
    words = Words.held()
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await bridges.say(room, words.text)
    await growth(bridges, room, words)
    bridges.set_trap(point, "!cancel")
    command = await bridges.say(room, "!cancel")
    await bridges.dead(point)

    await bridges.start()
    await bridges.settled(room, event_id, command)
    reply, notice = await bridges.replies(room)
    assert words.answer.startswith(reply.text)
    assert reply.text != words.answer, "it was not stopped"
    assert not reply.live
    assert notice.text == notices.STOPPED
    assert {reply.answers, notice.answers} == {event_id}
    assert bridges.count(words.text) == 1
