"""Files, captions, several people and hostile words, through a whole bridge on Synapse."""

import io
from collections.abc import Iterator

import pytest
from PIL import Image as Picture
from tests.integration.bridge_world import Person, Room, World
from tests.scripts import DONE

from letta_matrix.runtimes.memory import Script
from letta_matrix.runtimes.protocol import TextDelta, TurnEvent, TurnRequest


def parrot(request: TurnRequest) -> Iterator[TurnEvent]:
    """An agent that repeats what it is told, in pieces, and counts images."""
    answer = f"{len(request.images)} images. You said: {request.text}"
    for start in range(0, len(answer), 9):
        yield TextDelta("a", answer[start : start + 9])
    yield DONE


@pytest.fixture(scope="module")
def script() -> Script:
    return parrot


async def upload(person: Person, data: bytes, media_type: str) -> str:
    headers = {"Authorization": f"Bearer {person.token}", "Content-Type": media_type}
    url = f"{person.url}/_matrix/media/v3/upload"
    async with person.http.post(url, data=data, headers=headers) as answer:
        return str((await answer.json())["content_uri"])


async def address(
    person: Person, room: Room, body: str, relation: dict[str, object] | None = None
) -> str:
    """Speak to the agent of a room by name; returns the event id."""
    content = {"msgtype": "m.text", "body": body, "m.mentions": {"user_ids": [room.ghost]}}
    return await person.send_content(room.room_id, content | (relation or {}))


async def test_an_image_and_its_caption(world: World, room: Room, ann: Person) -> None:
    file = io.BytesIO()
    Picture.new("RGB", (30, 20), "red").save(file, "PNG")
    mxc = await upload(ann, file.getvalue(), "image/png")
    content = {"msgtype": "m.image", "body": "look", "filename": "cat.png", "url": mxc}
    await ann.send_content(room.room_id, content)
    (answer,) = await ann.answers(room, 1)
    assert answer.startswith("1 images. You said: look\n\n[image: cat.png, image/png, ")
    asked = world.runtime.asked[-1]
    assert asked.images[0].media_type == "image/png"
    assert Picture.open(io.BytesIO(asked.images[0].data)).size == (30, 20)


async def test_a_file_the_agent_cannot_open(room: Room, ann: Person) -> None:
    mxc = await upload(ann, b"%PDF-1.7\0", "application/pdf")
    content = {"msgtype": "m.file", "body": "report.pdf", "url": mxc}
    await ann.send_content(room.room_id, content)
    answers = await ann.answers(room, 2)
    assert any("cannot open `report.pdf`" in answer for answer in answers)
    assert "0 images. You said: [file: report.pdf: content not shown]" in answers


async def test_in_a_group_the_envelope_is_told_and_never_shown(
    world: World, room: Room, ann: Person, bob: Person
) -> None:
    await world.as_user(room.ghost).bring(room.room_id, bob)
    said = await address(bob, room, f"dinner, @room and {ann.user_id}?")
    await ann.answers(room, 1)
    asked = world.runtime.asked[-1]
    assert asked.text.startswith("[Matrix, Ada - Letta Agent Chat, ")
    assert f"({bob.user_id}):\ndinner, @room and " in asked.text
    (answer,) = await ann.said_by(room.room_id, room.ghost)
    content = answer["content"]
    assert content["body"] == f"0 images. You said: dinner, @room and {ann.user_id}?"
    assert content["m.mentions"] == {"user_ids": [ann.user_id]}
    relation: dict[str, object] = {"m.relates_to": {"m.in_reply_to": {"event_id": said}}}
    await address(ann, room, "yes", relation)
    await ann.answers(room, 2)
    assert world.runtime.asked[-1].text.endswith(f": dinner, @room and {ann.user_id}?\n\nyes")
