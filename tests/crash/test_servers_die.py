"""SIGKILL for the keeper, the App Server and Synapse in mid-turn, and where a question waits."""

import os
import signal
from pathlib import Path

import pytest
from tests.crash.bridges import Bridges, Room, pid_of
from tests.crash.checks import (
    Task,
    Words,
    asked,
    assert_answered_once,
    assert_done_once,
    assert_goes_on,
    growth,
    pending,
    tell_and_die,
)
from tests.waiting import eventually

from letta_matrix.matrix.reactions import ALLOW, ASK_AGAIN


async def _begun(bridges: Bridges, words: Words) -> tuple[Room, str]:
    """A new thread, a message in it, and a reply that has begun to grow."""
    room = await bridges.new_thread()
    event_id = await bridges.say(room, words.text)
    await growth(bridges, room, words)
    return room, event_id


def _kill_keeper(bridges: Bridges) -> None:
    pid = bridges.keeper.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def test_the_keeper(bridges: Bridges) -> None:
    words = Words.held()
    await bridges.start()
    room, event_id = await _begun(bridges, words)
    _kill_keeper(bridges)
    bridges.steps.finish(words.text)
    await assert_answered_once(bridges, room, (event_id, words), asked=2)
    await assert_goes_on(bridges, room, (event_id, words), asked=2)


async def test_the_keeper_and_the_bridge(bridges: Bridges) -> None:
    words = Words.held()
    await bridges.start()
    room, event_id = await _begun(bridges, words)
    _kill_keeper(bridges)
    await bridges.kill()
    await bridges.start()
    bridges.steps.finish(words.text)
    await assert_goes_on(bridges, room, (event_id, words), asked=2)


async def test_the_app_server(bridges: Bridges, tmp_path: Path) -> None:
    """What is allowed just after that in another thread runs nothing."""
    words, task = Words.held(), Task.new(tmp_path)
    asking, task_id, question = await pending(bridges, task)
    room, event_id = await _begun(bridges, words)
    bridges.letta.kill()
    await bridges.person.react(asking.room_id, question, ALLOW)
    bridges.steps.finish(words.text)
    await bridges.letta.restart()
    await assert_goes_on(bridges, room, (event_id, words), asked=2)
    await bridges.settled(asking, task_id)
    (notice,) = await bridges.replies(asking)
    assert ASK_AGAIN in notice.text
    assert task.runs == 0


async def test_the_app_server_and_the_bridge(bridges: Bridges, tmp_path: Path) -> None:
    """Where no tool has started it is asked anew; what is answered to the old question runs
    nothing."""
    words, task = Words.held(), Task.new(tmp_path)
    asking, task_id, question = await pending(bridges, task)
    room, event_id = await _begun(bridges, words)
    bridges.letta.kill()
    bridges.steps.finish(words.text)
    await bridges.kill()
    await bridges.letta.restart()
    await bridges.start()
    await assert_goes_on(bridges, room, (event_id, words), asked=2)
    again = await asked(bridges, asking, 2)
    reaction = await bridges.person.react(asking.room_id, question, ALLOW)
    await bridges.settled(asking.thread(""), reaction)
    assert task.runs == 0
    await bridges.person.react(asking.room_id, again, ALLOW)
    await bridges.settled(asking, task_id)
    assert task.runs == 1
    ended, answered = await bridges.questions(asking)
    assert "ask again below" in ended.text
    assert answered.text.startswith(ALLOW)
    (reply,) = await bridges.replies(asking)
    assert ASK_AGAIN not in reply.text


async def test_the_app_server_while_a_tool_runs(bridges: Bridges, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    command = (
        f"if [ -e {mark} ]; then echo done; else touch {mark}; timeout 20 tail -f /dev/null; fi"
    )
    await bridges.write_config(permission_mode="unrestricted")
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await bridges.say(room, f"tool:Bash:{command}")

    await eventually(mark.exists, what="the tool runs")
    bridges.letta.kill()
    await bridges.letta.restart()
    await bridges.settled(room, event_id)
    (offer,) = await bridges.replies(room)
    assert offer.kind == "m.notice"
    assert ASK_AGAIN in offer.text
    assert bridges.count(str(mark)) == 1

    reaction = await bridges.person.react(room.room_id, offer.event_id, ASK_AGAIN)
    await bridges.settled(room, event_id, reaction)
    _, reply = await bridges.replies(room)
    assert reply.kind == "m.text"
    assert reply.text.startswith("tool said:")
    assert "done" in reply.text
    assert reply.answers == reaction
    assert bridges.count(str(mark)) == 2


async def test_synapse(bridges: Bridges, tmp_path: Path) -> None:
    """Just before it hears a question, asked in another thread."""
    words, task = Words.held(), Task.new(tmp_path)
    await bridges.start()
    asking = await bridges.new_thread()
    room, event_id = await _begun(bridges, words)
    homeserver = bridges.homeserver
    bridges.set_trap("question frozen, not sent", task.text, pid_of(homeserver.server))
    task_id = await bridges.say(asking, task.text)
    await bridges.sprung()
    homeserver.kill()
    bridges.steps.finish(words.text)
    await homeserver.server.start()
    await assert_goes_on(bridges, room, (event_id, words))
    question = await asked(bridges, asking)
    await bridges.person.react(asking.room_id, question, ALLOW)
    await assert_done_once(bridges, asking, task_id, task)


async def test_synapse_just_after_it_took_a_message(bridges: Bridges) -> None:
    """It is answered without another event to wake the homeserver."""
    words = Words.quick()
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await bridges.say(room, words.text)
    bridges.homeserver.kill()
    await bridges.homeserver.server.start()
    await assert_answered_once(bridges, room, (event_id, words))
    await assert_goes_on(bridges, room, (event_id, words))


@pytest.mark.parametrize(
    "point",
    ["first message sent, not confirmed", "end sent, not recorded"],
)
async def test_synapse_and_the_bridge(bridges: Bridges, point: str) -> None:
    """A restarted Synapse has forgotten every transaction id."""
    words = Words.held()
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await tell_and_die(bridges, room, words, point)
    bridges.steps.finish(words.text)
    bridges.homeserver.kill()
    await bridges.homeserver.server.start()
    await bridges.start()
    await assert_goes_on(bridges, room, (event_id, words))
