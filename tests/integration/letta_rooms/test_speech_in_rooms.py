"""What an agent says unasked, on a real App Server, appears in its room: once, and marked."""

from tests.integration.bridge_world import Person, Room
from tests.integration.letta_rooms.acts import (
    HELD,
    growing,
    heard,
    held,
    others_say,
    tell,
    told,
    unasked,
    word,
)
from tests.integration.letta_world import LettaWorld

from letta_matrix.conversations.speech import UNASKED
from letta_matrix.matrix.content import MARKER


async def conversation_at(world: LettaWorld, room: Room, thread: str = "") -> str:
    """The App Server's conversation of a room or a thread."""
    async with world.client(room.agent.agent_id) as client:
        query = {"agent_id": room.agent.agent_id, "limit": 50}
        listed = (await client.ask("conversation_list", query=query))["conversations"]
    title = f"Matrix {room.room_id}" + (f" thread {thread}" if thread else "")
    (found,) = [one for one in listed if one["summary"] == title]
    return str(found["id"])


async def test_what_others_prompt_appears_once_and_marked(
    world: LettaWorld, ann: Person, room: Room
) -> None:
    first, second, last = word(), word(), word()
    await others_say(world, room.agent.agent_id, first, second)
    await heard(ann, room, second)
    # What was told twice would be told before this.
    await others_say(world, room.agent.agent_id, last)
    assert await heard(ann, room, last) == [f"echo: {text}" for text in (first, second, last)]
    said = (await unasked(ann, room))[0]["content"]
    assert said["body"] == f"{UNASKED}echo: {first}"
    assert said[MARKER]["agent_id"] == room.agent.agent_id
    assert "in_reply_to" not in said[MARKER]
    assert len(world.asked(first)) == 1


async def test_turns_from_matrix_are_not_told_again(
    world: LettaWorld, ann: Person, room: Room
) -> None:
    agent_id, work, during, last = room.agent.agent_id, held(), word(), word()
    thread = await ann.begin_thread(room)
    await tell(ann, room, "one")
    await tell(ann, thread, "two")
    await told(ann, room, "matrix_whoami")
    await ann.say(thread, work)
    await growing(ann, thread)
    await others_say(world, agent_id, during)
    await heard(ann, room, during)
    world.model.steps.finish(work)
    assert (await ann.replies(thread, 2))[1] == HELD
    await others_say(world, agent_id, last)
    assert await heard(ann, room, last) == [f"echo: {during}", f"echo: {last}"]


async def test_it_stands_where_its_conversation_goes_on(
    world: LettaWorld, ann: Person, own: Room, place: Room
) -> None:
    await tell(ann, own, "in the room")
    await tell(ann, place, "in the thread")
    text = word()
    there = await conversation_at(world, own, place.thread)
    await others_say(world, own.agent.agent_id, text, conversation_id=there)
    await heard(ann, own, text)
    said = (await unasked(ann, own))[-1]
    assert (said["thread"], said["content"]["body"]) == (place.thread, f"{UNASKED}echo: {text}")


async def test_schedules_are_heard_in_the_room(world: LettaWorld, ann: Person, own: Room) -> None:
    await tell(ann, own, "remind me")
    here, prompt = await conversation_at(world, own), word("water the plants")
    async with world.client(own.agent.agent_id) as client:
        scope = await client.start(here)
        mark = len(client.frames)
        task = {"name": "n", "description": "d", "cron": "0 0 1 1 *", "recurring": True}
        made = await client.ask("cron_add", **scope, **task, prompt=prompt)
        await client.ask("cron_trigger", task_id=made["task"]["id"])
        await client.end(scope, mark)
        await client.ask("cron_delete", task_id=made["task"]["id"])
    assert (await heard(ann, own, prompt))[-1].endswith(prompt)
