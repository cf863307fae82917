"""Each thread is a conversation of its own: on a real App Server, seen by its model."""

import re

from tests.integration.bridge_world import Person, Room
from tests.integration.letta_rooms.acts import HELD, growing, held, tell, word
from tests.integration.letta_world import LettaWorld

from letta_matrix.conversations import notices


async def test_an_answer_stands_in_its_thread(ann: Person, room: Room) -> None:
    await tell(ann, room, "a root")
    (root,) = await ann.said(room)
    asked = await ann.say_in_thread(room.room_id, root["event_id"], "in here")
    assert await ann.replies(room, 1, root["event_id"]) == ["echo: in here"]
    (reply,) = [one for one in await ann.said(room) if one["thread"] == root["event_id"]]
    # How it grew, if it did, stands behind it.
    (first,) = [e for e in await ann.timeline(room.room_id) if e["event_id"] == reply["event_id"]]
    assert first["content"]["m.relates_to"] == {
        "rel_type": "m.thread",
        "event_id": root["event_id"],
        "is_falling_back": True,
        "m.in_reply_to": {"event_id": asked},
    }
    assert len(await ann.replies(room, 1)) == 1


async def test_threads_run_side_by_side(world: LettaWorld, ann: Person, own: Room) -> None:
    slow, quick, work = await ann.begin_thread(own), await ann.begin_thread(own), held()
    await ann.say(slow, work)
    await growing(ann, slow)
    assert await tell(ann, quick, "quick") == "echo: quick"
    assert await tell(ann, own, "in the main timeline") == "echo: in the main timeline"
    await growing(ann, slow)
    world.model.steps.finish(work)
    assert await ann.replies(slow, 1) == [HELD]


async def test_each_thread_remembers_only_what_was_said_in_it(
    world: LettaWorld, ann: Person, own: Room
) -> None:
    places = [await ann.begin_thread(own), await ann.begin_thread(own), own]
    secret = {place: word("the code is") for place in places}

    async def remembered(place: Room) -> list[str]:
        question = word("what is the code?")
        await tell(ann, place, question)
        seen = "\n".join(world.in_view(question))
        return [code for code in secret.values() if code in seen]

    for place in places:
        await tell(ann, place, secret[place])
    for place in places:
        assert await remembered(place) == [secret[place]]
    assert "new conversation" in await tell(ann, places[0], "!new")
    assert [await remembered(place) for place in places] == [[], *([secret[p]] for p in places[1:])]


async def test_an_old_conversation_is_returned_to_and_goes_on_in_a_thread(
    world: LettaWorld, ann: Person, room: Room
) -> None:
    first, second = word("first topic"), word("second topic")

    async def seen(place: Room) -> list[str]:
        question = word("where were we?")
        await tell(ann, place, question)
        view = world.in_view(question)
        return [topic for topic in (first, second) if topic in view]

    await tell(ann, room, first)
    await tell(ann, room, "!new")
    await tell(ann, room, second)
    listed = await tell(ann, room, "!conversations")
    assert re.search(rf"1\. .*{first}.*\n2\. .*{second}.*current", listed), listed
    assert first in await tell(ann, room, "!conversations 1")
    assert await seen(room) == [first]
    thread = await ann.begin_thread(room)
    assert "no longer there" in await tell(ann, thread, "!conversations 1")
    assert await seen(thread) == [first]
    assert await seen(room) == []


async def test_a_stop_in_a_thread_stops_nothing_else(
    world: LettaWorld, ann: Person, own: Room
) -> None:
    thread, work = await ann.begin_thread(own), held()
    before = len(await ann.replies(own, 0))
    for place in (thread, own):
        await ann.say(place, work)
        await growing(ann, place)
    await ann.say(thread, "!cancel")
    assert await ann.replies(thread, 2) == ["word1", notices.STOPPED]
    await growing(ann, own)
    world.model.steps.finish(work)
    assert (await ann.replies(own, before + 1))[before:] == [HELD]
