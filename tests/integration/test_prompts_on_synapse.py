"""Prompts from a real homeserver: files up and down again, members, names, quotes."""

import io
import itertools
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image as Picture
from tests.integration.bridge_world import DATABASE, Person, config_on, lay_database
from tests.servers import Homeserver

from letta_matrix.common.identifiers import user_id
from letta_matrix.conversations.prompts import Prompt, Prompts
from letta_matrix.matrix.homeserver import Homeserver as HomeserverClient
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.media import MediaFault, download
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.runtimes.protocol import Capabilities
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.database import Database, database_url
from letta_matrix.store.turns import Turn


@dataclass
class Kitchen:
    """A room of an agent with one person in it."""

    prompts: Prompts
    client: HomeserverClient
    agent: Agent
    room_id: str
    ann: Person

    async def prompt(self, words: str | None = "hello", **fields: Any) -> Prompt:
        turn = Turn("t", self.agent.agent_id, self.room_id, "$1", self.ann.user_id, 0.0, words)
        for name, value in fields.items():
            setattr(turn, name, value)
        return await self.prompts.build(turn, self.agent, Capabilities())

    async def upload(self, data: bytes, media_type: str) -> str:
        headers = {"Authorization": f"Bearer {self.ann.token}", "Content-Type": media_type}
        url = f"{self.ann.url}/_matrix/media/v3/upload"
        async with self.ann.http.post(url, data=data, headers=headers) as answer:
            return str((await answer.json())["content_uri"])


@pytest.fixture
async def kitchen(homeserver: Homeserver, ann: Person, tmp_path: Path) -> AsyncGenerator[Kitchen]:
    config = config_on(homeserver, tmp_path, ann)
    client = HomeserverClient(homeserver.url, homeserver.as_token, Pacer(edits_per_second=100))
    await lay_database(homeserver, tmp_path)
    database = Database(database_url(f"sqlite:///{tmp_path / DATABASE}", tmp_path))
    await database.open()
    directory = AgentDirectory(database)
    await directory.load()
    agent_id = f"agent-{secrets.token_hex(6)}"
    agent = Agent(agent_id, "memory", "Ada", user_id(agent_id, "localhost"))
    await directory.reserve([agent])
    ghost = Intent(client, agent.user_id)
    await ghost.register()
    room_id = await ghost.create_room({"name": "Kitchen", "invite": [ann.user_id]})
    await ann.call("POST", f"/rooms/{quote(room_id)}/join")
    yield Kitchen(Prompts(config, client, directory), client, agent, room_id, ann)
    await client.close()
    await database.close()


async def test_an_image_comes_down_as_it_went_up(kitchen: Kitchen) -> None:
    file = io.BytesIO()
    Picture.new("RGB", (3000, 1000), "teal").save(file, "JPEG")
    mxc = await kitchen.upload(file.getvalue(), "image/jpeg")
    prompt = await kitchen.prompt(
        "look!", attachment={"msgtype": "m.image", "body": "a.jpg", "url": mxc}
    )
    (image,) = prompt.images
    assert (image.name, image.media_type) == ("a.jpg", "image/jpeg")
    assert Picture.open(io.BytesIO(image.data)).size == (1568, 523)
    assert prompt.text.startswith("look!\n\n[image: a.jpg, image/jpeg, ")
    assert prompt.notes == ()


async def test_a_text_file_and_its_limit(kitchen: Kitchen) -> None:
    mxc = await kitchen.upload("zeile eins: äöü\n".encode() * 20_000, "text/plain")
    content = {"msgtype": "m.file", "body": "a.txt", "url": mxc}
    prompt = await kitchen.prompt(None, attachment=content)
    assert prompt.text.startswith("[file: a.txt]\n```\nzeile eins: äöü\n")
    assert "zeile eins" in prompt.text[-120:]
    (note,) = prompt.notes
    assert "the first 100 kB only" in note


async def test_what_the_homeserver_does_not_have(kitchen: Kitchen) -> None:
    content = {"msgtype": "m.file", "body": "a.txt", "url": "mxc://localhost/nothing"}
    prompt = await kitchen.prompt(attachment=content)
    assert prompt.text == (
        "hello\n\n[file: a.txt: could not be read: the homeserver does not have it]"
    )


async def test_downloads_stop_at_their_limit(kitchen: Kitchen) -> None:
    mxc = await kitchen.upload(b"x" * 300_000, "application/octet-stream")
    ghost = kitchen.agent.user_id
    assert await download(kitchen.client, ghost, mxc, 300_000) == b"x" * 300_000
    assert await download(kitchen.client, ghost, mxc, 10, cut=True) == b"x" * 10
    with pytest.raises(MediaFault, match="larger than 300 kB"):
        await download(kitchen.client, ghost, mxc, 299_999)


async def test_who_is_speaking(kitchen: Kitchen, bob: Person) -> None:
    assert await kitchen.prompt() == Prompt("hello")
    ghost = Intent(kitchen.client, kitchen.agent.user_id)
    await ghost.invite(kitchen.room_id, bob.user_id)
    path = f"/rooms/{quote(kitchen.room_id)}"
    await bob.call("POST", f"{path}/join")
    named = {"membership": "join", "displayname": "Bob] x"}
    await bob.call("PUT", f"{path}/state/m.room.member/{quote(bob.user_id)}", named)
    assert await kitchen.prompt() == Prompt("hello")
    kitchen.prompts.roster.forget(kitchen.room_id)
    said = await bob.send(kitchen.room_id, "dinner?")
    prompt = await kitchen.prompt("yes", reply_to=said, sender=bob.user_id)
    assert prompt.text == (
        f"[Matrix, Kitchen, 1970-01-01 00:00 UTC] Bob› x ({bob.user_id}):\n> Bob› x: dinner?\n\nyes"
    )


async def test_the_last_version_of_a_message_is_quoted(kitchen: Kitchen) -> None:
    said = await kitchen.ann.send(kitchen.room_id, "diner?")
    new = {"msgtype": "m.text", "body": "dinner?"}
    relation = {"rel_type": "m.replace", "event_id": said}
    edit = {"msgtype": "m.text", "body": "* dinner?", "m.new_content": new}
    await kitchen.ann.send_content(kitchen.room_id, edit | {"m.relates_to": relation})
    prompt = await kitchen.prompt("yes", reply_to=said)
    assert prompt.header.endswith(": dinner?\n\n")
    assert (await kitchen.prompt("yes", reply_to="$unknown")).text == "yes"


async def test_a_later_guest_quotes_what_they_could_read(kitchen: Kitchen, bob: Person) -> None:
    ghost = Intent(kitchen.client, kitchen.agent.user_id)
    path, number = f"/rooms/{quote(kitchen.room_id)}", itertools.count()

    async def say(words: str) -> str:
        content = {"msgtype": "m.text", "body": words}
        _, answer = await kitchen.ann.call(
            "PUT", f"{path}/send/m.room.message/{next(number)}", content
        )
        return str(answer["event_id"])

    async def quoted(event_id: str, person: Person) -> str:
        kitchen.prompts.roster.forget(kitchen.room_id)
        prompt = await kitchen.prompt(reply_to=event_id, sender=person.user_id)
        return prompt.header

    invited = {"history_visibility": "invited"}
    await ghost.set_state(kitchen.room_id, "m.room.history_visibility", invited)
    secret = await say("the code is 4711")
    await ghost.invite(kitchen.room_id, bob.user_id)
    await bob.call("POST", f"{path}/join")
    later = await say("welcome")
    for name in ("B", "Bo"):
        named = {"membership": "join", "displayname": name}
        await bob.call("PUT", f"{path}/state/m.room.member/{quote(bob.user_id)}", named)
    assert "4711" in await quoted(secret, kitchen.ann)
    assert "4711" not in await quoted(secret, bob)
    assert "welcome" in await quoted(later, bob)
    shared = {"history_visibility": "shared"}
    await ghost.set_state(kitchen.room_id, "m.room.history_visibility", shared)
    assert "4711" in await quoted(secret, bob)
