"""SIGKILL between an agent's question and what its tool did: the tool runs once, or never."""

from pathlib import Path

import pytest
from tests.crash.bridges import Bridges
from tests.crash.checks import Task, asked, assert_done_once, pending
from tests.crash.points import DECISION_POINTS, QUESTION_POINTS
from tests.deaf_appservice import DeafAppservice
from tests.waiting import eventually

from letta_matrix.matrix.reactions import ALLOW, DENY


@pytest.mark.parametrize("point", QUESTION_POINTS)
async def test_killed_while_asking(bridges: Bridges, tmp_path: Path, point: str) -> None:
    task = Task.new(tmp_path)
    await bridges.start()
    room = await bridges.new_thread()
    bridges.set_trap(point, task.text)
    event_id = await bridges.say(room, task.text)
    await bridges.dead(point)

    await bridges.start()
    question = await asked(bridges, room)
    assert task.runs == 0
    await bridges.person.react(room.room_id, question, ALLOW)
    await assert_done_once(bridges, room, event_id, task)


@pytest.mark.parametrize("point", DECISION_POINTS)
async def test_killed_while_deciding(bridges: Bridges, tmp_path: Path, point: str) -> None:
    task = Task.new(tmp_path)
    room, event_id, question = await pending(bridges, task)
    bridges.set_trap(point, ALLOW)
    await bridges.person.react(room.room_id, question, ALLOW)
    await bridges.dead(point)

    await bridges.start()
    await assert_done_once(bridges, room, event_id, task)


async def test_killed_while_denying(bridges: Bridges, tmp_path: Path) -> None:
    task = Task.new(tmp_path)
    room, event_id, question = await pending(bridges, task)
    bridges.set_trap("decision stored", DENY)
    await bridges.person.react(room.room_id, question, DENY)
    await bridges.dead("decision stored")

    await bridges.start()
    await bridges.settled(room, event_id)
    assert task.runs == 0
    (asked_once,) = await bridges.questions(room)
    assert asked_once.text.startswith(DENY)
    (reply,) = await bridges.replies(room)
    assert "Denied by" in reply.text


async def test_allowed_while_the_bridge_was_dead(bridges: Bridges, tmp_path: Path) -> None:
    task = Task.new(tmp_path)
    room, event_id, question = await pending(bridges, task)
    await bridges.kill()
    await bridges.person.react(room.room_id, question, ALLOW)
    assert task.runs == 0

    await bridges.start()
    await assert_done_once(bridges, room, event_id, task)


async def test_the_time_runs_out_while_the_bridge_is_dead(bridges: Bridges, tmp_path: Path) -> None:
    task = Task.new(tmp_path)
    room, event_id, question = await pending(bridges, task)
    await bridges.kill()
    bridges.age_question(question, 1800)
    await bridges.person.react(room.room_id, question, ALLOW)

    await bridges.start()
    await bridges.settled(room, event_id)
    assert task.runs == 0
    (expired,) = await bridges.questions(room)
    assert "nobody answered within 30 minutes" in expired.text
    (reply,) = await bridges.replies(room)
    assert "Denied: nobody answered" in reply.text


async def test_an_answer_that_never_arrived(bridges: Bridges, tmp_path: Path) -> None:
    """It is found in the room when the bridge looks for what it has missed."""
    task = Task.new(tmp_path)
    room, event_id, question = await pending(bridges, task)
    await bridges.kill()
    async with DeafAppservice(bridges.homeserver.appservice_port) as nobody:
        reaction = await bridges.person.react(room.room_id, question, ALLOW)

        async def is_lost() -> bool:
            return any(reaction in body for body in nobody.taken)

        await eventually(is_lost, what="the homeserver delivers the reaction")
    await bridges.start()
    await assert_done_once(bridges, room, event_id, task)
