"""People talk to agents: on a real homeserver, with agents that do what they are told."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Iterator
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import (
    Json,
    Person,
    Room,
    World,
    bridge_on,
    new_person,
)
from tests.scripts import obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.conversations import notices
from letta_matrix.matrix.content import CURSOR
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import (
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnLost,
    TurnRequest,
)

DONE = TurnFinished(StopReason.END_TURN)


@pytest.fixture(scope="module")
async def ann(homeserver: Homeserver) -> Person:
    return await new_person(homeserver)


@pytest.fixture(scope="module")
async def world(
    homeserver: Homeserver, ann: Person, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[World]:
    directory = tmp_path_factory.mktemp("bridge")
    runtime = MemoryRuntime(script=obey)
    blocked = {"permissions": {"@troll:localhost": "block"}}
    async with bridge_on(homeserver, directory, ann, runtime, **blocked) as running:
        yield running


@pytest.fixture
async def room(world: World) -> AsyncGenerator[Room]:
    """A room with an agent of this test's own."""
    met = await world.meet()
    yield met
    world.runtime.available = True
    world.runtime.script = obey


async def syncing(person: Person, room_id: str, seconds: float) -> tuple[list[list[str]], set[str]]:
    """What a client sees for a while: who types (each change) and whose receipts are there."""
    since = (await person.get("/sync", timeout="0"))["next_batch"]
    typing, readers, end = list[list[str]](), set[str](), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        answer = await person.get("/sync", since=since, timeout=str(int(left * 1000)))
        since = answer["next_batch"]
        room: Json = answer.get("rooms", {}).get("join", {}).get(room_id, {})
        for event in room.get("ephemeral", {}).get("events", []):
            if event["type"] == "m.typing":
                typing.append(event["content"]["user_ids"])
            elif event["type"] == "m.receipt":
                for receipt in event["content"].values():
                    readers |= set(receipt.get("m.read", {}))
    return typing, readers


async def test_an_agent_answers_as_itself(world: World, ann: Person, room: Room) -> None:
    event_id = await ann.send(room.room_id, "hello **there**")
    assert await ann.answers(room, 1) == ["echo: hello **there**"]
    (said,) = await ann.said_by(room.room_id, room.ghost)
    marker = said["content"]["org.letta.matrix"]
    assert "<strong>there</strong>" in said["content"]["formatted_body"]
    assert (marker["agent_id"], marker["in_reply_to"]) == (room.agent.agent_id, event_id)
    assert said["edits"] == 0
    asked = [one for one in world.runtime.asked if one.agent_id == room.agent.agent_id]
    assert [(one.message_id, one.text) for one in asked] == [(event_id, "hello **there**")]


async def test_messages_for_a_busy_agent_are_answered_one_by_one_in_order(
    ann: Person, room: Room
) -> None:
    await ann.send(room.room_id, "slow 1 first")
    for number in range(6):
        await ann.send(room.room_id, f"m{number}")
    expected = ["echo: slow 1 first", *(f"echo: m{number}" for number in range(6))]
    assert await ann.answers(room, 7) == expected


async def test_slow_agents_delay_nobody_else(world: World, ann: Person, room: Room) -> None:
    slow_one, slow_two = await world.meet(), await world.meet()
    await ann.send(slow_one.room_id, "slow 5")
    await ann.send(slow_two.room_id, "stream 50 0.1")
    started = time.monotonic()
    await ann.send(room.room_id, "quick")
    assert await ann.answers(room, 1) == ["echo: quick"]
    assert time.monotonic() - started < 3
    assert await ann.answers(slow_one, 1) == ["echo: slow 5"]
    assert (await ann.answers(slow_two, 1))[0].endswith("word49")


async def test_a_reply_grows_in_one_message(world: World, ann: Person, room: Room) -> None:
    await ann.send(room.room_id, "stream 20 0.1")

    async def probe() -> list[Json]:
        return await ann.said_by(room.room_id, room.ghost)

    (growing,) = await eventually(probe, bool)
    assert growing["live"]
    assert growing["content"]["body"].endswith(CURSOR)
    words = [f"word{number}" for number in range(20)]
    assert await ann.answers(room, 1) == [" ".join(words)]
    (said,) = await probe()
    assert CURSOR not in str(said)
    # Two seconds at an interval of 0.3 s, the last edit, and some room for a slow machine.
    assert 2 <= said["edits"] <= 9


async def test_all_streams_keep_to_one_budget(ann: Person, world: World) -> None:
    pacer = world.bridge._parts.homeserver.pacer
    rate, pacer._edits_per_second = pacer._edits_per_second, 2.0
    rooms = [await world.meet() for _ in range(4)]
    for one in rooms:
        await ann.send(one.room_id, "stream 30 0.1")
    for one in rooms:
        assert (await ann.answers(one, 1))[0].endswith("word29")
    pacer._edits_per_second = rate
    edits = [said["edits"] for one in rooms for said in await ann.said_by(one.room_id, one.ghost)]
    # About four seconds at two a second, two to begin with, and the final one of each.
    assert sum(edits) <= 4 * 2 + 2 + 4 + 3


async def test_typing_and_receipts_while_a_slow_agent_works(ann: Person, room: Room) -> None:
    watching = asyncio.create_task(syncing(ann, room.room_id, 4.0))
    await asyncio.sleep(0.2)
    await ann.send(room.room_id, "slow 1.5")
    typing, readers = await watching
    assert [room.ghost] in typing
    assert typing[-1] == []
    assert room.ghost in readers


async def test_no_typing_for_an_answer_that_is_there_at_once(
    ann: Person, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The delay counts until the turn ends; a machine under load needs more of it.
    monkeypatch.setattr("letta_matrix.conversations.attention._DELAY", 1.0)
    watching = asyncio.create_task(syncing(ann, room.room_id, 2.0))
    await asyncio.sleep(0.2)
    await ann.send(room.room_id, "quick")
    typing, readers = await watching
    assert typing == []
    assert room.ghost not in readers
    assert await ann.answers(room, 1) == ["echo: quick"]


async def test_a_runtime_that_is_down_is_said_once_and_answered_later(
    world: World, ann: Person, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.conversations.turn_runner._PATIENCE", 0.5)
    world.runtime.available = False
    await ann.send(room.room_id, "one")
    assert await ann.answers(room, 1) == [notices.UNAVAILABLE]
    await ann.send(room.room_id, "two")
    await asyncio.sleep(1.5)
    assert len(await ann.bodies(room.room_id, room.ghost)) == 1
    world.runtime.available = True
    assert await ann.answers(room, 3) == [notices.UNAVAILABLE, "echo: one", "echo: two"]
    notice = (await ann.said_by(room.room_id, room.ghost))[0]
    assert notice["content"]["msgtype"] == "m.notice"


async def test_an_agents_own_error_is_told(ann: Person, room: Room) -> None:
    await ann.send(room.room_id, "fail the model is out of credit")
    texts = await ann.answers(room, 2)
    assert texts == ["I was about to", notices.failed("the model is out of credit")]


async def test_an_agent_without_words(ann: Person, room: Room) -> None:
    await ann.send(room.room_id, "nothing")
    assert await ann.answers(room, 1) == [notices.NO_WORDS]


async def test_traces_are_no_part_of_the_reply(ann: Person, room: Room) -> None:
    await ann.send(room.room_id, "tools")
    assert await ann.replies(room, 1) == ["Let me look.\n\nFound it."]


async def test_what_is_encrypted_is_said_not_to_be_readable(
    world: World, ann: Person, room: Room
) -> None:
    asked = len(world.runtime.asked)
    secret = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x"}
    await ann.send_content(room.room_id, secret, "m.room.encrypted")
    assert await ann.answers(room, 1) == [notices.UNREADABLE]
    assert len(world.runtime.asked) == asked


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            {"msgtype": "m.image", "body": "cat.png", "url": "mxc://localhost/x"},
            "[image: cat.png: could not be read: the homeserver does not have it]",
        ),
        (
            {"msgtype": "m.audio", "body": "voice.ogg"},
            "[audio: voice.ogg: could not be read: the message does not say where]",
        ),
    ],
)
async def test_a_file_that_is_not_there_is_described_and_said(
    ann: Person, room: Room, content: Json, told: str
) -> None:
    await ann.send_content(room.room_id, content)
    note, answer = await ann.answers(room, 2)
    assert note.startswith(f"`{content['body']}` could not be read: ")
    assert answer == f"echo: {told}"


async def test_silence_where_nobody_was_addressed(
    homeserver: Homeserver, world: World, ann: Person, room: Room
) -> None:
    troll = Person(ann.http, ann.url, *(await homeserver.register("troll"))[:2])
    path = f"/rooms/{quote(room.room_id)}/invite"
    assert (await ann.call("POST", path, {"user_id": troll.user_id}))[0] == 200
    assert (await troll.call("POST", f"/rooms/{quote(room.room_id)}/join"))[0] == 200
    await troll.send(room.room_id, "buy things")
    await ann.send(room.room_id, "I am a bot", msgtype="m.notice")
    first = await ann.send(room.room_id, "heard")
    edit = {"rel_type": "m.replace", "event_id": first}
    await ann.send_content(
        room.room_id, {"msgtype": "m.text", "body": "* edited", "m.relates_to": edit}
    )
    await ann.call("PUT", f"/rooms/{quote(room.room_id)}/state/m.room.topic/", {"topic": "New"})
    other = world.as_user((await world.meet()).ghost)
    await ann.call("POST", path, {"user_id": other.user_id})
    await other.call("POST", f"/rooms/{quote(room.room_id)}/join")
    await other.send(room.room_id, "I am another agent")
    await world.as_user(room.ghost).send(room.room_id, "words typed as the agent")
    await ann.send(room.room_id, "last")

    async def probe() -> list[str]:
        return await ann.bodies(room.room_id, room.ghost)

    said = await eventually(probe, lambda bodies: "echo: last" in bodies)
    assert said == ["echo: heard", "words typed as the agent", "echo: last"]


async def test_a_room_that_is_nobodys_is_silent(world: World, ann: Person, room: Room) -> None:
    invite = {"invite": [room.ghost, world.config.bot_user_id], "preset": "private_chat"}
    _, created = await ann.call("POST", "/createRoom", invite)
    room_id = created["room_id"]
    await world.as_user(room.ghost).call("POST", f"/rooms/{quote(room_id)}/join")
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

    def script(_request: object) -> list[TurnEvent | float]:
        half = len(text) // 2
        return [TextDelta("0", text[:half]), 1.0, TextDelta("0", text[half:]), DONE]

    world.runtime.script = script
    await ann.send(room.room_id, "tell me all")

    async def told() -> str:
        return " ".join(" ".join(await ann.bodies(room.room_id, room.ghost)).split())

    await eventually(told, lambda words: words == " ".join(text.split()))
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


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_replies_are_harmless(
    world: World, ann: Person, room: Room, text: str
) -> None:
    def script(_request: object) -> list[TurnEvent | float]:
        return [TextDelta("0", text), DONE]

    world.runtime.script = script
    await ann.send(room.room_id, "say it")
    await ann.answers(room, 1)
    world.runtime.script = obey
    await ann.send(room.room_id, "still there?")

    async def probe() -> list[str]:
        return await ann.bodies(room.room_id, room.ghost)

    bodies = await eventually(probe, lambda said: said[-1] == "echo: still there?")
    assert len(bodies) >= 2
    assert notices.BROKEN not in bodies
    html = str([s["content"].get("formatted_body") for s in await ann.said_by(*room_of(room))])
    assert HARM.search(html) is None
    mentions = [s["content"].get("m.mentions") for s in await ann.said_by(*room_of(room))]
    assert all(mention == {} for mention in mentions)


def room_of(room: Room) -> tuple[str, str]:
    return room.room_id, room.ghost


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
    shown = [e for e in await ann.timeline(room.room_id) if e["sender"] == room.ghost]
    for event in (shown[-2], shown[-1]):
        relation = {"rel_type": "m.annotation", "event_id": event["event_id"], "key": "🔁"}
        await ann.send_content(room.room_id, {"m.relates_to": relation}, "m.reaction")
    await ann.send(room.room_id, "more")
    assert (await ann.answers(room, 4))[2:] == ["echo: do it", "echo: more"]


async def test_a_turn_lost_before_any_tool_is_asked_again_by_itself(
    world: World, ann: Person, room: Room
) -> None:
    def lose_once(request: TurnRequest) -> Iterator[TurnEvent]:
        if request.message_id.endswith("#1"):
            yield TextDelta("0", "Here it is.")
            yield DONE
        else:
            raise TurnLost("the App Server restarted", tools_started=False)

    world.runtime.script = lose_once
    await ann.send(room.room_id, "do it")
    assert await ann.answers(room, 1) == ["Here it is."]
