"""First words, corrections, withdrawals, belonging messages and questions, on a real homeserver."""

import asyncio
import secrets
from collections.abc import Generator, Iterable
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import Json, Person, Room, World, new_agent
from tests.scripts import DONE, held, obey
from tests.waiting import DEADLINE, eventually

from letta_matrix.matrix.content import CURSOR
from letta_matrix.runtimes.memory import Answer
from letta_matrix.runtimes.protocol import ApprovalRequested, TextDelta, TurnEvent, TurnRequest


@pytest.fixture
async def released(world: World, room: Room) -> asyncio.Event:
    """The agent is busy with "work" until this is set."""
    event = asyncio.Event()

    def busy(request: TurnRequest) -> Iterable[TurnEvent | float]:
        return held(event) if "work" in request.text else obey(request)

    world.runtime.script = busy
    return event


async def begun(ann: Person, room: Room) -> Json:
    """The agent's answer to "work", which grows."""
    await ann.send(room.room_id, "work")

    async def growing() -> list[Json]:
        return [said for said in await ann.said(room) if said["live"]]

    return (await ann.watch(room.room_id, growing))[-1]


async def edit(person: Person, room_id: str, target: str, body: str) -> str:
    new: Json = {"msgtype": "m.text", "body": body}
    relation = {"rel_type": "m.replace", "event_id": target}
    content = {**new, "body": f"* {body}", "m.new_content": new, "m.relates_to": relation}
    return await person.send_content(room_id, content)


async def redact(person: Person, room_id: str, target: str) -> None:
    path = f"/rooms/{quote(room_id)}/redact/{quote(target)}/{secrets.token_hex(4)}"
    status, answer = await person.call("PUT", path, {})
    assert status == 200, answer


async def test_first_words_in_a_new_room_are_answered_in_order(world: World, ann: Person) -> None:
    met = await world.meet()
    for _ in range(3):
        room_id = await ann.create_room(met.ghost, is_direct=True, preset="trusted_private_chat")
        for text in ("one", "two", "three"):
            await ann.send(room_id, text)
        place = Room(met.agent, room_id, met.ghost)
        assert await ann.answers(place, 3) == ["echo: one", "echo: two", "echo: three"]
    assert len(world.asked(met)) == 9


async def test_mentions_in_a_new_group_are_answered(world: World, ann: Person, bob: Person) -> None:
    first, second = await world.meet(), await world.meet(new_agent("Bert"))
    ghosts = first.ghost, second.ghost
    for _ in range(2):
        room_id = await ann.create_room(*ghosts, bob.user_id)
        await ann.mention(room_id, "hello you two", *ghosts)
        # In a thread or not: the first to come was alone with her for a moment.
        for met in (first, second):
            (answer,) = await ann.answers(Room(met.agent, room_id, met.ghost), 1)
            assert answer.endswith("hello you two")
    assert [len(world.asked(met)) for met in (first, second)] == [2, 2]


async def test_what_was_said_before_the_invite_is_not_for_the_agent(
    world: World, ann: Person
) -> None:
    met = await world.meet()
    room_id = await ann.create_room()
    await ann.send(room_id, "before")
    path = f"/rooms/{quote(room_id)}/invite"
    await ann.call("POST", path, {"user_id": met.ghost})
    await ann.send(room_id, "after")
    assert await ann.answers(Room(met.agent, room_id, met.ghost), 1) == ["echo: after"]
    assert [one.text for one in world.asked(met)] == ["after"]


async def test_waiting_questions_are_corrected_and_withdrawn(
    world: World, ann: Person, room: Room, released: asyncio.Event
) -> None:
    await begun(ann, room)
    wrong, secret = await ann.send(room.room_id, "delete A"), await ann.send(room.room_id, "secret")
    await edit(ann, room.room_id, wrong, "delete B")
    await redact(ann, room.room_id, secret)
    last = await ann.send(room.room_id, "last")
    # Sent is not arrived: what the agent was asked before its correction came stays asked.
    unfinished = world.bridge.app.dispatcher.queues.unfinished
    await eventually(lambda: any(turn.event_id == last for turn in unfinished()))
    released.set()
    answers = await ann.answers(room, 3)
    assert answers[1:] == ["echo: delete B", "echo: last"]
    assert [one.text for one in world.asked(room)] == ["work", "delete B", "last"]


async def test_a_redacted_question_stops_its_answer(
    world: World, ann: Person, room: Room, released: asyncio.Event
) -> None:
    await begun(ann, room)
    (question,) = world.asked(room)
    await redact(ann, room.room_id, question.message_id)
    # Idle, although the rest of its words was never given.
    await world.idle(room.room_id)
    (said,) = await ann.answers(room, 1)
    assert CURSOR not in said


async def test_a_redacted_answer_grows_no_more(
    world: World, ann: Person, room: Room, released: asyncio.Event
) -> None:
    growing = await begun(ann, room)
    await redact(ann, room.room_id, growing["event_id"])
    # Idle, although the rest of its words was never given.
    await world.idle(room.room_id)
    timeline = await ann.timeline(room.room_id, "m.room.message")
    assert "word19" not in str(timeline)
    await ann.send(room.room_id, "still there?")
    assert (await ann.answers(room, 1))[-1] == "echo: still there?"


async def test_an_edited_question_is_asked_anew_by_a_tap(
    world: World, ann: Person, room: Room
) -> None:
    question = await ann.send(room.room_id, "one")
    assert await ann.answers(room, 1) == ["echo: one"]

    async def reacted() -> list[str]:
        there = await ann.timeline(room.room_id, "m.reaction")
        return [one["sender"] for one in there if one["content"]]

    async def answered() -> list[str]:
        return await ann.bodies(room.room_id, room.ghost)

    for number, text in enumerate(("two", "three"), 1):
        await edit(ann, room.room_id, question, text)
        await ann.watch(room.room_id, reacted, [room.ghost].__eq__)
        assert len(world.asked(room)) == number
        await ann.react(room.room_id, question, "🔁")
        await ann.watch(room.room_id, answered, [f"echo: {text}"].__eq__)


async def test_a_mention_added_by_an_edit_is_heard(world: World, ann: Person, bob: Person) -> None:
    met = await world.meet()
    room_id = await ann.create_room(met.ghost)
    await ann.bring(room_id, bob)
    first = await ann.mention(room_id, "are you here?", met.ghost)
    await ann.replies(Room(met.agent, room_id, met.ghost), 1, first)
    said = await ann.send(room_id, "and this?")
    new: Json = {"msgtype": "m.text", "body": "and this, Ada?"}
    new["m.mentions"] = {"user_ids": [met.ghost]}
    relation = {"rel_type": "m.replace", "event_id": said}
    content = {**new, "m.new_content": new, "m.relates_to": relation}
    await ann.send_content(room_id, content)
    (answer,) = await ann.replies(Room(met.agent, room_id, met.ghost), 1, said)
    assert answer.endswith("and this, Ada?")


async def test_files_and_the_words_about_them_are_one_question(
    world: World, ann: Person, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is the homeserver that dates them, and a second may lie between any two: the words end the
    # wait for them, however long it might be.
    monkeypatch.setattr(world.bridge.app.joining, "_window", DEADLINE)
    status, uploaded = await ann.call("POST", "/../../media/v3/upload", b"milk", filename="a.txt")
    assert status == 200
    file: Json = {"msgtype": "m.file", "url": uploaded["content_uri"]}
    for name in ("a.txt", "b.txt"):
        await ann.send_content(room.room_id, file | {"body": name, "filename": name})
    await ann.send(room.room_id, "what is in these?")
    (answer,) = await ann.answers(room, 1)
    (asked,) = world.asked(room)
    assert answer.startswith("echo: ")
    assert asked.text.count("milk") == 2
    assert "what is in these?" in asked.text


def ask_first(request: TurnRequest) -> Generator[TurnEvent | float, Answer | None]:
    """Says that it will look, asks, and says what came of it."""
    yield TextDelta("0", "I will look.")
    call = ApprovalRequested(f"call {request.message_id}", "Bash", {"command": "ls"}, False)
    answer = (yield call) or Answer(False)
    yield TextDelta("0", "\n\nThere it is." if answer.allow else "\n\nThen not.")
    yield DONE


async def test_questions_notify_and_are_answered_in_words(
    world: World, ann: Person, room: Room
) -> None:
    """As a phone has it: by the homeserver's own push rules."""
    world.runtime.script = ask_first
    seen: list[Json] = []

    async def waiting() -> list[Json]:
        said = await ann.said(room)
        return [one for one in said if one["content"]["body"].startswith("May I run")]

    for number, word in enumerate(("yes", "No!", "👍🏽")):
        await ann.send(room.room_id, f"look {number}")
        (question,) = await ann.watch(room.room_id, waiting)
        await ann.send(room.room_id, word)
        said = await ann.replies(room, 2 * (number + 1))
        assert said[-1] == ("Then not." if word == "No!" else "There it is.")
        seen.append(question)
    told = (await ann.get("/notifications", limit="50"))["notifications"]
    notified = {one["event"]["event_id"] for one in told}
    assert {one["event_id"] for one in seen} <= notified
    assert len(seen) == len({one["event_id"] for one in seen}) == 3
    # What follows a question stands below it.
    order = [event["event_id"] for event in await ann.timeline(room.room_id, "m.room.message")]
    answers = [one for one in await ann.said(room) if not one["beside"]]
    for number, question in enumerate(seen):
        before, after = answers[2 * number], answers[2 * number + 1]
        places = [order.index(one["event_id"]) for one in (before, question, after)]
        assert places == sorted(places)
