"""The tools that write, on a real homeserver: what people see of each, and who may do what."""

import asyncio
import base64
import io
import json
import secrets
import wave
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from tests.integration.bridge_world import Json
from tests.integration.toolbox.toolbox_bench import Bench
from tests.waiting import within

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import Agent

POLL = "org.matrix.msc3381.poll"


@pytest.fixture(scope="module")
async def room(bench: Bench, ada: Agent) -> str:
    """A room of the person's that the agent is in; each test looks at its own events."""
    return await bench.room(ada)


def image(kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> str:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def sound(seconds: float) -> str:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(8000)
        wav.writeframes(b"\0\0" * int(8000 * seconds))
    return base64.b64encode(file.getvalue()).decode()


async def refused(bench: Bench, agent: Agent | None, tool: str, /, **arguments: Any) -> Fault:
    with pytest.raises(ToolError) as caught:
        await bench.call_as(agent, tool, **arguments)
    return caught.value.fault


async def content_of(bench: Bench, room_id: str, event_id: str) -> Json:
    path = f"/rooms/{quote(room_id)}/event/{quote(event_id)}"
    return (await bench.ann.call("GET", path))[1]["content"]


async def test_a_reply_quotes_and_stays_in_the_thread(bench: Bench, ada: Agent, room: str) -> None:
    asked = await bench.ann.send(room, "well?")
    told = await bench.call_as(ada, "matrix_reply", room_id=room, event_id=asked, message="yes")
    relation = (await content_of(bench, room, told["event_id"]))["m.relates_to"]
    assert relation == {"m.in_reply_to": {"event_id": asked}}
    in_thread = {"rel_type": "m.thread", "event_id": asked}
    content = {"msgtype": "m.text", "body": "there", "m.relates_to": in_thread}
    there = await bench.ann.send_content(room, content)
    told = await bench.call_as(ada, "matrix_reply", room_id=room, event_id=there, message="yes")
    relation = (await content_of(bench, room, told["event_id"]))["m.relates_to"]
    assert relation == {
        **in_thread,
        "is_falling_back": False,
        "m.in_reply_to": {"event_id": there},
    }


async def test_own_messages_are_edited_and_others_are_not(
    bench: Bench, ada: Agent, room: str
) -> None:
    sent = await bench.call_as(ada, "matrix_send_message", room_id=room, message="teh")
    arguments: Json = {"room_id": room, "event_id": sent["event_id"], "message": "**the**"}
    first = await bench.call_as(ada, "matrix_edit_message", transaction_id="e1", **arguments)
    assert (
        await bench.call_as(ada, "matrix_edit_message", transaction_id="e1", **arguments) == first
    )
    # By the id of an edit, as models do.
    arguments |= {"event_id": first["edit_event_id"], "message": "the end"}
    assert (await bench.call_as(ada, "matrix_edit_message", **arguments))["event_id"] == (
        sent["event_id"]
    )
    replaces = {"rel_type": "m.replace", "event_id": sent["event_id"]}
    edits = [
        e["content"]["m.new_content"]
        for e in await bench.ann.timeline(room, "m.room.message")
        if e["content"].get("m.relates_to") == replaces
    ]
    assert [edit["body"] for edit in edits] == ["**the**", "the end"]
    assert edits[0]["formatted_body"] == "<strong>the</strong>"
    arguments = {"room_id": room, "message": "x"}
    said = await bench.ann.send(room, "mine")
    assert await refused(bench, ada, "matrix_edit_message", event_id=said, **arguments) is (
        Fault.FORBIDDEN
    )
    arguments |= {"event_id": sent["event_id"], "message": "long " * 6_000}
    assert await refused(bench, ada, "matrix_edit_message", **arguments) is Fault.TOO_LARGE


async def test_what_is_removed_is_gone_and_power_decides(
    bench: Bench, ada: Agent, room: str
) -> None:
    sent = await bench.call_as(ada, "matrix_send_message", room_id=room, message="oops")
    arguments: Json = {"room_id": room, "event_id": sent["event_id"], "reason": "typo"}
    told = await bench.call_as(ada, "matrix_redact", **arguments)
    assert await bench.call_as(ada, "matrix_redact", **arguments) == told
    assert await content_of(bench, room, sent["event_id"]) == {}
    arguments = {"room_id": room, "event_id": sent["event_id"], "message": "again"}
    assert await refused(bench, ada, "matrix_edit_message", **arguments) is Fault.NOT_FOUND
    said = await bench.ann.send(room, "mine")
    assert await refused(bench, ada, "matrix_redact", room_id=room, event_id=said) is (
        Fault.FORBIDDEN
    )
    own = str(ada.room_id)  # which the agent made, and has power in
    said = await bench.ann.send(own, "rude")
    await bench.call_as(ada, "matrix_redact", room_id=own, event_id=said)
    assert await content_of(bench, own, said) == {}


async def test_others_see_typing_and_receipts_unless_private(
    bench: Bench, ada: Agent, room: str
) -> None:
    first = await bench.ann.send(room, "one")
    second = await bench.ann.send(room, "two")
    await bench.call_as(ada, "matrix_set_typing", room_id=room)
    marked = await bench.call_as(ada, "matrix_mark_read", room_id=room, event_id=first)
    assert marked["event_id"] == first
    told = await bench.call_as(ada, "matrix_mark_read", room_id=room, private=True)
    assert told["event_id"] == second
    here = json.dumps({"room": {"rooms": [room]}})
    synced = await bench.ann.get("/sync", timeout="0", filter=here)
    ephemeral = synced["rooms"]["join"][room]["ephemeral"]["events"]
    shown = {event["type"]: event["content"] for event in ephemeral}
    assert shown["m.typing"] == {"user_ids": [ada.user_id]}
    assert ada.user_id in shown["m.receipt"][first]["m.read"]
    assert second not in shown["m.receipt"]
    stopped = await bench.call_as(ada, "matrix_set_typing", room_id=room, typing=False)
    assert stopped == {"room_id": room, "typing": False}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
async def test_an_image_is_shown_in_its_size_with_its_caption(
    bench: Bench, ada: Agent, room: str, kind: str
) -> None:
    told = await bench.call_as(
        ada,
        "matrix_send_image",
        room_id=room,
        name="../cat",
        content_base64=image(kind),
        caption="a *cat*",
    )
    assert (told["width"], told["height"]) == (40, 30)
    content = await content_of(bench, room, told["event_id"])
    suffix = {"JPEG": "jpg"}.get(kind, kind.lower())
    assert (content["msgtype"], content["filename"]) == ("m.image", f"cat.{suffix}")
    assert (content["body"], content["formatted_body"]) == ("a *cat*", "a <em>cat</em>")
    assert content["info"]["mimetype"] == f"image/{kind.lower()}"
    assert (content["info"]["w"], content["info"]["h"]) == (40, 30)
    again = await bench.call_as(ada, "matrix_send_image", room_id=room, mxc=content["url"])
    copy = await content_of(bench, room, again["event_id"])
    assert (copy["url"], copy["info"]) == (content["url"], content["info"])


async def test_a_token_for_some_rooms_brings_no_file_in_from_elsewhere(
    bench: Bench, ada: Agent, room: str
) -> None:
    url = await Intent(bench.client, ada.user_id).upload(b"secret", "text/plain", "elsewhere.txt")
    arguments: Json = {"room_id": room, "name": "here.txt", "mxc": url}
    with pytest.raises(ToolError, match="some rooms alone") as refusal:
        await bench.call_as(ada, "matrix_upload_file", rooms={room}, **arguments)
    assert refusal.value.fault is Fault.FORBIDDEN
    await bench.call_as(ada, "matrix_upload_file", **arguments)


async def test_a_voice_message_plays_as_one(bench: Bench, ada: Agent, room: str) -> None:
    told = await bench.call_as(ada, "matrix_send_voice", room_id=room, content_base64=sound(1.5))
    assert told["duration_seconds"] == 1.5
    content = await content_of(bench, room, told["event_id"])
    assert content["msgtype"] == "m.audio"
    assert content["org.matrix.msc3245.voice"] == {}
    assert content["org.matrix.msc1767.audio"]["duration"] == content["info"]["duration"] == 1500


@pytest.mark.parametrize(
    ("tool", "arguments", "fault"),
    [
        ("matrix_send_image", {"content_base64": "YWJj"}, Fault.INVALID),
        ("matrix_send_image", {"mxc": "https://example.org/cat.png"}, Fault.INVALID),
        ("matrix_send_image", {"mxc": "mxc://localhost/../../etc"}, Fault.INVALID),
        ("matrix_upload_file", {"name": "x", "mxc": "mxc://localhost/none"}, Fault.NOT_FOUND),
        ("matrix_send_image", {}, Fault.INVALID),
        ("matrix_send_voice", {"content_base64": image()}, Fault.INVALID),
        ("matrix_send_voice", {"content_base64": "SUQzAAAA"}, Fault.INVALID),
        ("matrix_close_poll", {"event_id": "$none"}, Fault.NOT_FOUND),
        ("matrix_reply", {"event_id": "$none", "message": "x"}, Fault.NOT_FOUND),
        ("matrix_redact", {"event_id": "$none"}, Fault.NOT_FOUND),
        ("matrix_mark_read", {"event_id": "$none"}, Fault.NOT_FOUND),
    ],
)
async def test_what_cannot_be_done_is_told_and_nothing_sent(
    bench: Bench, ada: Agent, room: str, tool: str, arguments: Json, fault: Fault
) -> None:
    before = len(await bench.ann.timeline(room))
    assert await refused(bench, ada, tool, room_id=room, **arguments) is fault
    assert len(await bench.ann.timeline(room)) == before


async def test_a_poll_is_voted_on_and_closed(bench: Bench, ada: Agent, room: str) -> None:
    arguments: Json = {"room_id": room, "question": "Lunch?", "options": ["Soup", "Cake"]}
    made = await bench.call_as(ada, "matrix_create_poll", **arguments)
    content = await content_of(bench, room, made["event_id"])
    assert content["org.matrix.msc1767.text"] == "Lunch?\n1. Soup\n2. Cake"
    ids = [answer["id"] for answer in content[f"{POLL}.start"]["answers"]]
    relation = {"rel_type": "m.reference", "event_id": made["event_id"]}

    async def vote(*chosen: str) -> None:
        body = {"m.relates_to": relation, f"{POLL}.response": {"answers": chosen}}
        await bench.ann.send_content(room, body, f"{POLL}.response")

    await vote(ids[0])
    await vote(ids[1], ids[0])  # one too many: the first counts
    where: Json = {"room_id": room, "event_id": made["event_id"]}
    standing = await bench.call_as(ada, "matrix_read_poll", **where)
    assert (standing["voters"], standing["closed"]) == (1, False)
    assert [option["votes"] for option in standing["options"]] == [0, 1]
    closed = await bench.call_as(ada, "matrix_close_poll", **where)
    assert await bench.call_as(ada, "matrix_close_poll", **where) == closed
    await vote(ids[0])
    standing = await bench.call_as(ada, "matrix_read_poll", **where)
    assert [option["votes"] for option in standing["options"]] == [0, 1]
    assert standing["closed"]
    assert await refused(bench, None, "matrix_close_poll", **where) is Fault.FORBIDDEN


CALLS: dict[str, Json] = {
    "matrix_send_message": {"message": "hi"},
    "matrix_reply": {"event_id": "?", "message": "hi"},
    "matrix_reply_in_thread": {"event_id": "?", "message": "hi"},
    "matrix_edit_message": {"event_id": "own", "message": "hi"},
    "matrix_redact": {"event_id": "own"},
    "matrix_react": {"event_id": "?", "key": "👍"},
    "matrix_upload_file": {"name": "a.txt", "content": "a"},
    "matrix_send_image": {"content_base64": image()},
    "matrix_send_voice": {"content_base64": sound(1)},
    "matrix_create_poll": {"question": "?", "options": ["a", "b"]},
}


@pytest.mark.parametrize("tool", sorted(CALLS))
async def test_a_call_killed_before_it_was_noted_writes_once(
    bench: Bench, ada: Agent, room: str, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = await bench.ann.send(room, "said")
    own = await bench.call_as(ada, "matrix_send_message", room_id=room, message="own")
    ids = {"?": said, "own": own["event_id"]}
    arguments: Json = {"room_id": room, **CALLS[tool], "transaction_id": secrets.token_hex(4)}
    if "event_id" in arguments:
        arguments["event_id"] = ids[arguments["event_id"]]
    killed = asyncio.Event()

    async def end(*_: object, **__: object) -> None:
        killed.set()

    # What a kill between the write and the store leaves behind.
    with monkeypatch.context() as patch:
        patch.setattr(bench.toolbox.ledger._store, "end", end)
        await bench.call_as(ada, tool, **arguments)
        await within(killed.wait())
    before = await bench.ann.timeline(room)
    bench.restart()
    told = await bench.call_as(ada, tool, **arguments)
    assert told == await bench.call_as(ada, tool, **arguments)
    after = await bench.ann.timeline(room)
    assert [e["event_id"] for e in after] == [e["event_id"] for e in before]
    changed = {**arguments, "room_id": str(ada.room_id)}
    assert await refused(bench, ada, tool, **changed) is Fault.CONFLICT


async def test_the_bot_writes_as_itself(bench: Bench) -> None:
    bot = Intent(bench.client, bench.config.bot_user_id)
    made = await bench.room(invite=[bot.user_id])
    await bot.join(made)
    told = await bench.call_as(None, "matrix_send_message", room_id=made, message="hi")
    content = await content_of(bench, made, told["event_id"])
    assert content[MARKER]["agent_id"] == ""
    assert await bench.ann.bodies(made, bot.user_id) == ["hi"]
