"""People talk to agents: on a real homeserver, with agents that do what they are told."""

import asyncio
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from tests.integration.bridge_world import Json, Person, Room, World
from tests.scripts import DONE, held, obey
from tests.waiting import eventually

from letta_matrix.conversations import notices
from letta_matrix.matrix.content import CURSOR, MARKER
from letta_matrix.runtimes.faults import TurnLost
from letta_matrix.runtimes.protocol import TextDelta, TurnEvent, TurnRequest

WORDS = " ".join(f"word{number}" for number in range(20))


async def test_an_agent_answers_as_itself(world: World, ann: Person, room: Room) -> None:
    event_id = await ann.send(room.room_id, "hello **there**")
    assert await ann.answers(room, 1) == ["echo: hello **there**"]
    (said,) = await ann.said(room)
    marker = said["content"][MARKER]
    assert "<strong>there</strong>" in said["content"]["formatted_body"]
    assert (marker["agent_id"], marker["in_reply_to"]) == (room.agent.agent_id, event_id)
    assert said["edits"] == 0
    (asked,) = world.asked(room)
    assert (asked.message_id, asked.text) == (event_id, "hello **there**")


async def test_a_busy_agent_answers_in_order_and_delays_nobody_else(
    world: World, ann: Person, room: Room
) -> None:
    released = asyncio.Event()

    def busy(request: TurnRequest) -> Iterable[TurnEvent | float]:
        return held(released) if request.text == "work" else obey(request)

    world.runtime.script = busy
    other = await world.meet()
    await ann.send(room.room_id, "work")
    for number in range(6):
        await ann.send(room.room_id, f"m{number}")
    await ann.send(other.room_id, "quick")
    assert await ann.answers(other, 1) == ["echo: quick"]
    assert [said["live"] for said in await ann.said(room)] in ([], [True])
    released.set()
    assert await ann.answers(room, 7) == [WORDS, *(f"echo: m{number}" for number in range(6))]


async def test_a_reply_grows_in_one_message(world: World, ann: Person, room: Room) -> None:
    released = asyncio.Event()

    def grow(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        return held(released)

    world.runtime.script = grow
    await ann.send(room.room_id, "go on")

    async def probe() -> list[Json]:
        return await ann.said(room)

    (growing,) = await ann.watch(room.room_id, probe)
    assert growing["live"]
    # Its first event is what notifies: words, and no cursor.
    assert growing["content"]["body"] == "word0"
    released.set()
    assert await ann.answers(room, 1) == [WORDS]
    (said,) = await probe()
    assert CURSOR not in str(said)
    # What was there by the time of an edit comes with that one.
    assert said["edits"] in (1, 2)
    for event in await ann.timeline(room.room_id, "m.room.message"):
        version = event["content"].get("m.new_content", event["content"])
        assert version.get("formatted_body") or event["sender"] != room.ghost, "Element stumbles"


async def test_typing_and_receipts_while_a_slow_agent_works(
    world: World, ann: Person, room: Room
) -> None:
    released = asyncio.Event()

    def think(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        while not released.is_set():
            yield 0.01
        yield from (TextDelta("0", "Well."), DONE)

    world.runtime.script = think
    wanted: Json = {"room": {"rooms": [room.room_id]}, "presence": {"types": []}}
    query = {"filter": json.dumps(wanted), "timeout": "0"}
    typing, readers = list[list[str]](), set[str]()

    async def look() -> tuple[list[list[str]], set[str]]:
        answer = await ann.get("/sync", **query)
        query.update(since=answer["next_batch"], timeout="1000")
        here: Json = answer.get("rooms", {}).get("join", {}).get(room.room_id, {})
        for event in here.get("ephemeral", {}).get("events", []):
            if event["type"] == "m.typing":
                typing.append(event["content"]["user_ids"])
            elif event["type"] == "m.receipt":
                for receipt in event["content"].values():
                    readers.update(receipt.get("m.read", {}))
        return typing, readers

    await look()
    await ann.send(room.room_id, "think")
    await eventually(look, lambda _: [room.ghost] in typing and room.ghost in readers)
    assert await ann.said(room) == []
    released.set()
    await eventually(look, lambda _: typing[-1] == [])
    assert await ann.answers(room, 1) == ["Well."]


async def test_what_cannot_be_read_is_described_and_said(
    world: World, ann: Person, room: Room
) -> None:
    secret = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x"}
    await ann.send_content(room.room_id, secret, "m.room.encrypted")
    assert await ann.answers(room, 1) == [notices.UNREADABLE]
    image = {"msgtype": "m.image", "body": "cat.png", "url": "mxc://localhost/x"}
    await ann.send_content(room.room_id, image)
    # One after the other: what is sent at once is asked at once.
    await ann.answers(room, 3)
    await ann.send_content(room.room_id, {"msgtype": "m.audio", "body": "voice.ogg"})
    _, image_note, image_answer, audio_note, audio_answer = await ann.answers(room, 5)
    assert image_note.startswith("`cat.png` could not be read: ")
    told = "could not be read: the homeserver does not have it"
    assert image_answer == f"echo: [image: cat.png: {told}]"
    assert audio_note.startswith("`voice.ogg` could not be read: ")
    told = "could not be read: the message does not say where"
    assert audio_answer == f"echo: [audio: voice.ogg: {told}]"
    assert len(world.asked(room)) == 2


async def test_silence_where_nobody_was_addressed(
    world: World, ann: Person, troll: Person, room: Room
) -> None:
    await ann.bring(room.room_id, troll)
    await troll.send(room.room_id, "buy things")
    await ann.send(room.room_id, "I am a bot", msgtype="m.notice")
    first = await ann.send(room.room_id, "heard")
    edit = {"rel_type": "m.replace", "event_id": first}
    await ann.send_content(
        room.room_id, {"msgtype": "m.text", "body": "* edited", "m.relates_to": edit}
    )
    await ann.call("PUT", f"/rooms/{quote(room.room_id)}/state/m.room.topic/", {"topic": "New"})
    other = world.as_user((await world.meet()).ghost)
    await ann.bring(room.room_id, other)
    await other.send(room.room_id, "I am another agent")
    await world.as_user(room.ghost).send(room.room_id, "words typed as the agent")
    last = await ann.send(room.room_id, "last")

    async def said() -> list[Json]:
        return await ann.said(room)

    def is_over(all_: list[Json]) -> bool:
        return any(one["content"].get(MARKER, {}).get("in_reply_to") == last for one in all_)

    all_ = await ann.watch(room.room_id, said, is_over)
    bodies = [one["content"]["body"] for one in all_]
    assert bodies == ["echo: heard", "words typed as the agent", "echo: last"]


async def test_a_room_that_is_nobodys_is_silent(world: World, ann: Person, room: Room) -> None:
    other = await world.meet()
    room_id = await ann.create_room(room.ghost, other.ghost)
    rooms = world.bridge.app.stores.rooms
    await eventually(lambda: len(rooms.ours_in(room_id)) == 2, what="both join")
    await ann.send(room_id, "is anybody here?")
    await ann.send(room.room_id, "and here?")
    assert await ann.answers(room, 1) == ["echo: and here?"]
    assert [e for e in await ann.timeline(room_id) if e["sender"] == room.ghost][1:] == []
    assert all(request.text != "is anybody here?" for request in world.runtime.asked)


async def test_a_very_long_answer_comes_in_parts_in_order(
    world: World, ann: Person, room: Room
) -> None:
    text = "\n\n".join(f"Paragraph {number}. " + "words " * 60 for number in range(540))
    assert len(text) > 200_000
    half = len(text) // 2
    released = asyncio.Event()

    def script(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        yield TextDelta("0", text[:half])
        while not released.is_set():
            yield 0.01
        yield from (TextDelta("0", text[half:]), DONE)

    world.runtime.script = script
    await ann.send(room.room_id, "tell me all")

    async def bodies() -> list[str]:
        return await ann.bodies(room.room_id, room.ghost)

    await ann.watch(room.room_id, bodies)
    released.set()

    def is_all(parts: list[str]) -> bool:
        return " ".join(" ".join(parts).split()) == " ".join(text.split())

    await ann.watch(room.room_id, bodies, is_all, "all of it")
    assert len(await ann.answers(room, 4)) > 4


HARM = re.compile(r"<script|<[^>]*\b(?:on\w+|src)\s*=|<[^>]*javascript:", re.IGNORECASE)

HOSTILE = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)> <b>bold</b>",
    "surrogate": "half \ud83d of a smile",
    "controls": "bell \x07 null \x00 escape \x1b[31m",
    "bidi": "\u202egnp.exe",
    "nested": "> " * 5_000 + "deep",
    "brackets": "[" * 20_000,
    "stars": "*" * 20_000 + " " + "_" * 20_000,
    "table": "|a" * 3_000 + "|\n" + "|-" * 3_000 + "|\n",
    "fence": "```" + "x" * 70_000,
    "one line": "x" * 150_000,
    "zalgo": "e" + "\u0301" * 50_000,
    "emoji": "👨‍👩‍👧‍👦" * 5_000,
    "everyone": "@room @everyone https://matrix.to/#/@admin:localhost",
    "entities": "&lt;script&gt; &#0; &#xD800; &nbsp;",
}


async def test_hostile_replies_are_harmless(world: World, ann: Person, room: Room) -> None:
    def say(request: TurnRequest) -> Iterable[TurnEvent | float]:
        return [TextDelta("0", HOSTILE[request.text]), DONE]

    world.runtime.script = say
    asked = {await ann.send(room.room_id, name): name for name in HOSTILE}
    await eventually(lambda: len(world.asked(room)) == len(HOSTILE))
    await world.idle(room.room_id)
    said = await ann.said(room)
    answered = {asked[one["content"][MARKER]["in_reply_to"]] for one in said if not one["live"]}
    assert answered == set(HOSTILE)
    assert notices.BROKEN not in [one["content"]["body"] for one in said]
    for one in said:
        assert HARM.search(str(one["content"].get("formatted_body"))) is None
        assert one["content"].get("m.mentions") == {}


async def test_a_lost_turn_is_offered_and_asked_again(
    world: World, ann: Person, room: Room
) -> None:
    def lose(_request: object) -> Iterator[TurnEvent]:
        yield TextDelta("0", "And then")
        raise TurnLost("the App Server restarted", tools_started=True)

    world.runtime.script = lose
    await ann.send(room.room_id, "do it")
    texts = await ann.answers(room, 2)
    assert texts == ["And then", notices.lost("the App Server restarted", tools_started=True)]
    world.runtime.script = obey
    for event in await ann.said(room):
        await ann.react(room.room_id, event["event_id"], "🔁")
    await ann.send(room.room_id, "more")
    assert (await ann.answers(room, 4))[2:] == ["echo: do it", "echo: more"]
