"""What an agent says unasked, on a real App Server, appears in its room: once, and marked."""

import asyncio
import secrets
import signal

import pytest
from tests.integration.bridge_world import Json, Person, Room, room_of
from tests.integration.letta_world import LettaWorld
from tests.waiting import eventually

from letta_matrix.conversations.speech import UNASKED
from letta_matrix.matrix.content import MARKER

QUIET = 1.5
"""Seconds in which speech would have been heard several times over."""


async def others_say(
    world: LettaWorld, agent_id: str, *texts: str, conversation_id: str = ""
) -> None:
    """Let another client talk with an agent, in a conversation of its own unless one is given."""
    async with world.client(agent_id) as client:
        if not conversation_id:
            made = await client.ask("conversation_create", body={"agent_id": agent_id})
            conversation_id = made["conversation"]["id"]
        for text in texts:
            assert await client.say(text, conversation_id) == f"echo: {text}"


async def conversation_at(world: LettaWorld, room: Room, thread: str = "") -> str:
    """The App Server's conversation of a room or a thread."""
    async with world.client(room.agent.agent_id) as client:
        query = {"agent_id": room.agent.agent_id, "limit": 50}
        listed = (await client.ask("conversation_list", query=query))["conversations"]
    title = f"Matrix {room.room_id}" + (f" thread {thread}" if thread else "")
    (found,) = [one for one in listed if one["summary"] == title]
    return str(found["id"])


async def unasked(person: Person, room: Room) -> list[Json]:
    said = await person.said_by(room.room_id, room.ghost)
    return [one for one in said if one["content"]["body"].startswith(UNASKED)]


async def bodies(person: Person, room: Room) -> list[str]:
    return [one["content"]["body"] for one in await unasked(person, room)]


def word() -> str:
    return f"hello {secrets.token_hex(4)}"


async def test_what_others_prompt_appears_once_and_marked(
    world: LettaWorld, ann: Person, room: Room
) -> None:
    first, second = word(), word()
    await others_say(world, room.agent.agent_id, first, second)
    expected = [f"{UNASKED}echo: {first}", f"{UNASKED}echo: {second}"]

    async def heard() -> list[str]:
        return await bodies(ann, room)

    await eventually(heard, lambda all_: len(all_) == 2)
    await asyncio.sleep(QUIET)
    assert await heard() == expected
    marker = (await unasked(ann, room))[0]["content"][MARKER]
    assert marker["agent_id"] == room.agent.agent_id
    assert "in_reply_to" not in marker
    assert len(world.asked(first)) == 1


async def test_turns_from_matrix_are_not_told_again(
    world: LettaWorld, ann: Person, room: Room
) -> None:
    await ann.send(room.room_id, "one")
    await ann.replies(room, 1)
    root = (await ann.said_by(room.room_id, room.ghost))[0]["event_id"]
    await ann.say_in_thread(room.room_id, root, "two")
    await ann.send(room.room_id, "tool:matrix_whoami:{}")
    await ann.replies(room, 2)
    await ann.send(room.room_id, "slow:20")
    await ann.replies(room, 3)
    text = word()
    await others_say(world, room.agent.agent_id, text)

    async def heard() -> list[str]:
        return await bodies(ann, room)

    await eventually(heard, bool)
    await world.restart()
    await asyncio.sleep(QUIET)
    assert await heard() == [f"{UNASKED}echo: {text}"]


async def test_it_stands_where_its_conversation_goes_on(
    world: LettaWorld, ann: Person, room: Room
) -> None:
    root = await ann.send(room.room_id, "a root")
    await ann.replies(room, 1)
    await ann.say_in_thread(room.room_id, root, "in the thread")
    await ann.replies(room, 1, root)
    text = word()
    there = await conversation_at(world, room, root)
    await others_say(world, room.agent.agent_id, text, conversation_id=there)

    async def heard() -> list[Json]:
        return await unasked(ann, room)

    (said,) = await eventually(heard, bool)
    assert (said["thread"], said["content"]["body"]) == (root, f"{UNASKED}echo: {text}")


async def test_schedules_are_heard_in_the_room(world: LettaWorld, ann: Person, room: Room) -> None:
    await ann.send(room.room_id, "remind me")
    await ann.replies(room, 1)
    here = await conversation_at(world, room)
    async with world.client(room.agent.agent_id) as client:
        scope = await client.start(here)
        mark = len(client.frames)
        task = {"name": "n", "description": "d", "cron": "0 0 1 1 *", "recurring": True}
        made = await client.ask("cron_add", **scope, **task, prompt="water the plants")
        await client.ask("cron_trigger", task_id=made["task"]["id"])
        await client.end(scope, mark)
        await client.ask("cron_delete", task_id=made["task"]["id"])

    async def heard() -> list[str]:
        return await bodies(ann, room)

    (said,) = await eventually(heard, bool)
    assert said.endswith("water the plants")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_what_was_said_while_the_bridge_was_down_is_told(
    world: LettaWorld, ann: Person, room: Room, number: signal.Signals
) -> None:
    await ann.send(room.room_id, "before")
    await ann.replies(room, 1)
    texts = [word(), word()]
    world.process.end(number)
    await others_say(world, room.agent.agent_id, *texts)
    await ann.send(room.room_id, "meanwhile")
    await world.start()

    async def heard() -> list[str]:
        return await bodies(ann, room)

    await eventually(heard, lambda all_: len(all_) == 2)
    await asyncio.sleep(QUIET)
    assert await heard() == [f"{UNASKED}echo: {text}" for text in texts]
    answered = [one for one in await ann.replies(room, 4) if not one.startswith(UNASKED)]
    assert answered == ["echo: before", "echo: meanwhile"]


async def test_a_turn_that_outlived_the_bridge_is_no_speech(
    world: LettaWorld, ann: Person, room: Room
) -> None:
    await ann.send(room.room_id, "slow:15")

    async def growing() -> list[Json]:
        return [one for one in await ann.said_by(room.room_id, room.ghost) if one["live"]]

    await eventually(growing, bool)
    world.kill()
    await asyncio.sleep(2)
    await world.start()
    (answer,) = await ann.replies(room, 1)
    assert len(answer.split()) == 15
    await asyncio.sleep(QUIET)
    assert await unasked(ann, room) == []


async def test_what_an_agent_said_before_it_was_known_is_not_told(
    world: LettaWorld, ann: Person
) -> None:
    world.stop()
    agent = await world.make_agent()
    await others_say(world, agent.agent_id, word())
    await world.start()
    room = await room_of(agent, ann)
    await asyncio.sleep(QUIET)
    text = word()
    await others_say(world, agent.agent_id, text)

    async def heard() -> list[str]:
        return await bodies(ann, room)

    assert await eventually(heard, bool) == [f"{UNASKED}echo: {text}"]


async def test_where_it_is_not_wanted_nothing_is_told(
    world: LettaWorld, ann: Person, room: Room
) -> None:
    world.settings["runtimes"][0]["speech"] = False
    await world.restart()
    await others_say(world, room.agent.agent_id, word())
    await asyncio.sleep(QUIET)
    assert await unasked(ann, room) == []
