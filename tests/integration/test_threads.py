"""Each thread is a conversation of its own: on a real App Server, seen by its model."""

import re
import secrets
import time

from tests.integration.bridge_world import Json, Person, Room
from tests.integration.letta_world import LettaWorld
from tests.waiting import eventually

from letta_matrix.conversations import notices


def word(said: str) -> str:
    """Something that is said in no other test."""
    return f"{said} {secrets.token_hex(4)}"


async def tell(person: Person, room: Room, text: str, thread: str = "") -> str:
    """Say something and wait for the answer, which stands where the message does."""
    before = len(await person.replies(room, 0, thread))
    if thread:
        await person.say_in_thread(room.room_id, thread, text)
    else:
        await person.send(room.room_id, text)
    return (await person.replies(room, before + 1, thread))[before]


async def begin(person: Person, room: Room) -> str:
    """The root of a thread below a message of the agent's; nothing is said in it yet."""
    await tell(person, room, word("a root"))
    return str((await person.said_by(room.room_id, room.ghost))[-1]["event_id"])


async def test_an_answer_stands_in_its_thread(ann: Person, room: Room) -> None:
    root = await begin(ann, room)
    asked = await ann.say_in_thread(room.room_id, root, "in here")
    assert await ann.replies(room, 1, root) == ["echo: in here"]
    last = [e for e in await ann.timeline(room.room_id) if e["sender"] == room.ghost][-1]
    assert last["content"]["m.relates_to"] == {
        "rel_type": "m.thread",
        "event_id": root,
        "is_falling_back": True,
        "m.in_reply_to": {"event_id": asked},
    }
    assert len(await ann.replies(room, 1)) == 1


async def test_threads_run_side_by_side(ann: Person, room: Room) -> None:
    slow, quick = await begin(ann, room), await begin(ann, room)
    await tell(ann, room, "warm", slow)
    await tell(ann, room, "warm", quick)
    await ann.say_in_thread(room.room_id, slow, "slow:60")

    async def growing() -> list[Json]:
        said = await ann.said_by(room.room_id, room.ghost)
        return [one for one in said if one["thread"] == slow and one["live"]]

    await eventually(growing, bool)
    started = time.monotonic()
    assert await tell(ann, room, "quick", quick) == "echo: quick"
    assert await tell(ann, room, "in the main timeline") == "echo: in the main timeline"
    assert time.monotonic() - started < 5
    assert await growing()
    (_, answer) = await ann.replies(room, 2, slow)
    assert len(answer.split()) == 60


async def test_each_thread_remembers_only_what_was_said_in_it(
    world: LettaWorld, ann: Person, room: Room
) -> None:
    places = [await begin(ann, room), await begin(ann, room), ""]
    secret = {place: word("the code is") for place in places}
    for place in places:
        await tell(ann, room, secret[place], place)
    for place in places:
        question = word("what is the code?")
        await tell(ann, room, question, place)
        seen = world.in_view(question)
        assert [code for code in secret.values() if code in seen] == [secret[place]]


async def test_a_new_conversation_is_new_only_in_its_thread(
    world: LettaWorld, ann: Person, room: Room
) -> None:
    one, other = await begin(ann, room), await begin(ann, room)
    secret = {place: word("remember") for place in (one, other, "")}
    for place, text in secret.items():
        await tell(ann, room, text, place)
    answer = await tell(ann, room, "!new", one)
    assert "new conversation" in answer
    for place, text in secret.items():
        question = word("what was it?")
        await tell(ann, room, question, place)
        assert (text in world.in_view(question)) == (place != one)


async def test_an_old_conversation_is_returned_to(
    world: LettaWorld, ann: Person, room: Room
) -> None:
    first, second = word("first topic"), word("second topic")
    await tell(ann, room, first)
    await tell(ann, room, "!new")
    await tell(ann, room, second)
    listed = await tell(ann, room, "!conversations")
    assert re.search(rf"1\. .*{first}.*\n2\. .*{second}.*current", listed), listed
    assert first in await tell(ann, room, "!conversations 1")
    question = word("where were we?")
    await tell(ann, room, question)
    assert first in world.in_view(question)
    assert second not in world.in_view(question)


async def test_a_conversation_goes_on_in_a_thread(
    world: LettaWorld, ann: Person, room: Room
) -> None:
    root = await begin(ann, room)
    topic = word("a topic of the room")
    await tell(ann, room, topic)
    assert "no longer there" in await tell(ann, room, "!conversations 1", root)
    question = word("in the thread")
    await tell(ann, room, question, root)
    assert topic in world.in_view(question)
    question = word("in the room")
    await tell(ann, room, question)
    assert topic not in world.in_view(question)


async def test_a_killed_bridge_ends_the_answers_in_their_threads(
    world: LettaWorld, ann: Person, room: Room
) -> None:
    roots = [await begin(ann, room), await begin(ann, room)]
    for root in roots:
        await tell(ann, room, word("remember"), root)
        await ann.say_in_thread(room.room_id, root, f"slow:30 {root}")

    async def growing() -> set[str]:
        said = await ann.said_by(room.room_id, room.ghost)
        return {one["thread"] for one in said if one["live"]}

    await eventually(growing, lambda live: len(live) == 2)
    world.kill()
    await world.start()
    for root in roots:
        _, answer = await ann.replies(room, 2, root)
        assert answer.split() == [f"word{number}" for number in range(1, 31)]
        assert len(world.asked(f"slow:30 {root}")) == 1
        question = word("what was it?")
        await tell(ann, room, question, root)
        assert len([text for text in world.in_view(question) if "remember" in text]) == 1
    assert len(await ann.replies(room, 2)) == 2


async def test_a_stop_in_a_thread_stops_nothing_else(ann: Person, room: Room) -> None:
    root = await begin(ann, room)
    await tell(ann, room, "warm", root)
    await ann.say_in_thread(room.room_id, root, "slow:100")
    await ann.send(room.room_id, "slow:30")

    async def growing() -> set[str]:
        said = await ann.said_by(room.room_id, room.ghost)
        return {one["thread"] for one in said if one["live"]}

    await eventually(growing, lambda live: len(live) == 2)
    await ann.say_in_thread(room.room_id, root, "!cancel")
    _, kept, stopped = await ann.replies(room, 3, root)
    assert kept.startswith("word1 ")
    assert stopped == notices.STOPPED
    assert len((await ann.replies(room, 2))[1].split()) == 30
