"""Images and files that people send: what the model of a real App Server gets, and what they
are told of the rest."""

import base64
import io
import json
import os
import secrets
from collections.abc import AsyncGenerator

import pytest
from PIL import Image
from tests.integration.bridge_world import Json, Person, Room
from tests.integration.letta_world import LettaWorld
from tests.stub_model import MODEL_ID, ModelRequest


@pytest.fixture(scope="module")
async def vision(world: LettaWorld) -> AsyncGenerator[str]:
    """A model to which the App Server gives images."""
    fields = {"baseUrl": world.model.url, "apiKey": "stub-key"}
    provider = {"target": "local", "provider_id": "llama-cpp"}
    async with world.client() as client:
        assert (await client.ask("connect_provider", **provider, fields=fields))["success"]
        await client.ask("list_models", force=True)
        yield f"llama.cpp/{MODEL_ID}"
        await client.ask("disconnect_provider", **provider)


@pytest.fixture(scope="module")
async def own(world: LettaWorld, ann: Person, vision: str) -> Room:
    """The room of an agent with vision."""
    room = await world.meet()
    await ann.send(room.room_id, f"!model {vision}")
    (answer,) = await ann.replies(room, 1)
    assert vision in answer
    return room


def picture(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


async def send_file(person: Person, place: Room, data: bytes, name: str, **content: object) -> None:
    """Upload a file and send it into a thread, as clients do."""
    url = f"{person.url}/_matrix/media/v3/upload"
    headers = {"Authorization": f"Bearer {person.token}", "Content-Type": "text/plain"}
    async with person.http.post(url, data=data, headers=headers) as answer:
        assert answer.status == 200
        mxc = (await answer.json())["content_uri"]
    relation = {"rel_type": "m.thread", "event_id": place.thread}
    told: Json = {"msgtype": "m.file", "body": name, "filename": name, "url": mxc}
    info = {"size": len(data)}
    await person.send_content(
        place.room_id, {**told, "info": info, **content, "m.relates_to": relation}
    )


def images_of(request: ModelRequest) -> list[Image.Image]:
    """The images of the last message in a model request."""
    parts = request.body["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def name_of(extension: str) -> str:
    return f"file-{secrets.token_hex(4)}.{extension}"


async def test_an_image_reaches_the_model_as_an_image(
    world: LettaWorld, ann: Person, place: Room
) -> None:
    name, caption = name_of("png"), f"what is this? {secrets.token_hex(3)}"
    image = {"msgtype": "m.image", "body": caption}
    await send_file(ann, place, picture(40, 30), name, **image)
    (answer,) = await ann.replies(place, 1)
    assert answer.endswith("I see 1 image(s)")
    (request,) = world.asked(caption)
    assert name in request.text
    (seen,) = images_of(request)
    assert seen.size == (40, 30)
    assert seen.convert("RGB").getpixel((5, 5)) == (200, 30, 30)


async def test_a_large_image_is_made_smaller(world: LettaWorld, ann: Person, place: Room) -> None:
    name = name_of("png")
    await send_file(ann, place, picture(3000, 1500), name, msgtype="m.image")
    await ann.replies(place, 1)
    (request,) = world.asked(name)
    assert [image.size for image in images_of(request)] == [(1568, 784)]


async def test_a_text_file_arrives_as_text(world: LettaWorld, ann: Person, place: Room) -> None:
    name, text = name_of("py"), f"print('```ünïcode```')\n# {secrets.token_hex(4)}\n"
    await send_file(ann, place, text.encode(), name)
    (answer,) = await ann.replies(place, 1)
    (request,) = world.asked(name)
    assert text in f"{request.text}\n"
    assert f"{len(text.encode())} " in request.text
    assert answer.startswith("echo: ")
    assert not [one for one in await ann.said(place) if one["beside"]]


async def test_who_sends_an_image_to_a_model_without_vision_is_told(
    world: LettaWorld, ann: Person
) -> None:
    place = await ann.begin_thread(await world.meet())
    await send_file(ann, place, picture(20, 20), name_of("png"), msgtype="m.image")
    await ann.replies(place, 1)
    assert (await note_in(ann, place)).startswith("I did not see your picture: ")


async def test_a_long_text_file_is_cut_and_the_person_told(
    world: LettaWorld, ann: Person, place: Room
) -> None:
    name, text = name_of("log"), "".join(f"line {number}\n" for number in range(1_000))
    await send_file(ann, place, text.encode(), name)
    await ann.replies(place, 1)
    (request,) = world.asked(name)
    assert "line 100\n" in request.text
    assert "line 900" not in request.text
    assert "[cut: " in request.text
    assert "the rest is cut off" in await note_in(ann, place)


@pytest.mark.parametrize(
    ("msgtype", "data"),
    [("m.file", os.urandom(1_500)), ("m.image", b"\x89PNG\r\n\x1a\nbroken")],
    ids=["binary", "broken"],
)
async def test_what_cannot_be_read_is_described_and_the_person_told(
    world: LettaWorld, ann: Person, place: Room, msgtype: str, data: bytes
) -> None:
    name = name_of("dat")
    await send_file(ann, place, data, name, msgtype=msgtype)
    (answer,) = await ann.replies(place, 1)
    assert name in answer
    (request,) = world.asked(name)
    assert request.images == 0
    assert name in request.text
    assert len(request.text) < 300
    assert name in await note_in(ann, place)


async def note_in(person: Person, place: Room) -> str:
    """What the person is told beside the answer in a thread."""
    (note,) = [one for one in await person.said(place) if one["beside"] == "notice"]
    return str(note["content"]["body"])


async def test_an_encrypted_file_is_described(world: LettaWorld, ann: Person, place: Room) -> None:
    name = name_of("png")
    content: Json = {"msgtype": "m.image", "body": name, "file": {"url": "mxc://localhost/x"}}
    content["m.relates_to"] = {"rel_type": "m.thread", "event_id": place.thread}
    await ann.send_content(place.room_id, content)
    await ann.replies(place, 1)
    assert "encrypted" in world.asked(name)[-1].text
    assert "encrypted" in await note_in(ann, place)


async def test_a_file_asked_about_later_is_still_known(
    world: LettaWorld, ann: Person, place: Room
) -> None:
    name, code = name_of("txt"), secrets.token_hex(6)
    await send_file(ann, place, f"the code: {code}".encode(), name)
    await ann.replies(place, 1)
    question = f"which code? {secrets.token_hex(3)}"
    await ann.say(place, question)
    await ann.replies(place, 2)
    assert code in json.dumps(world.in_view(question))
