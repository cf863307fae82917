"""Agents get rooms of their own on a real homeserver, keep them, and nothing is done twice."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import (
    Person,
    World,
    bridge_on,
    new_agent,
    new_person,
)
from tests.scripts import obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.agents.provisioner import _BACK, _REMOVED
from letta_matrix.matrix.identifiers import user_id
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo

QUICK_REMOVAL = {"agents": {"removal_grace": 0.3, "removal_listings": 3}}


@pytest.fixture(scope="module")
async def ann(homeserver: Homeserver) -> Person:
    return await new_person(homeserver)


@pytest.fixture(scope="module")
async def world(
    homeserver: Homeserver, ann: Person, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[World]:
    directory = tmp_path_factory.mktemp("agents")
    runtime = MemoryRuntime(script=obey)
    async with bridge_on(homeserver, directory, ann, runtime, **QUICK_REMOVAL) as running:
        yield running


async def displayname(person: Person, user_id: str) -> str:
    profile = await person.get(f"/profile/{quote(user_id)}")
    return str(profile.get("displayname"))


async def members(person: Person, room_id: str) -> dict[str, str]:
    answer = await person.get(f"/rooms/{quote(room_id)}/members")
    return {e["state_key"]: e["content"]["membership"] for e in answer["chunk"]}


async def test_an_agent_gets_all_it_needs(world: World, ann: Person) -> None:
    room = await world.meet(new_agent("Ada Lovelace"))
    await world.ready()
    profile = await ann.get(f"/profile/{quote(room.ghost)}")
    assert profile["displayname"] == "Ada Lovelace"
    media = profile["avatar_url"].removeprefix("mxc://")
    url = f"{ann.url}/_matrix/client/v1/media/download/{media}"
    async with ann.http.get(url, headers={"Authorization": f"Bearer {ann.token}"}) as response:
        assert response.status == 200
        assert response.content_type == "image/png"
    name = await ann.state(room.room_id, "m.room.name")
    topic = await ann.state(room.room_id, "m.room.topic")
    assert name["name"] == "Ada Lovelace - Letta Agent Chat"
    assert "Ada Lovelace" in topic["topic"]
    alias = await ann.state(room.room_id, "m.room.canonical_alias")
    assert alias["alias"] == f"#{room.ghost[1:]}"
    assert (await ann.state(room.room_id, "m.room.avatar"))["url"] == profile["avatar_url"]
    bot = world.config.bot_user_id
    joined = await members(ann, room.room_id)
    assert joined == {room.ghost: "join", bot: "join", ann.user_id: "join"}


async def test_the_powers_in_an_agents_room(world: World, ann: Person) -> None:
    room = await world.meet()
    create = await ann.state(room.room_id, "m.room.create")
    assert create["room_version"] == "12"
    assert create["additional_creators"] == [world.config.bot_user_id]
    powers = (await ann.state(room.room_id, "m.room.power_levels"))["users"]
    assert powers == {ann.user_id: 100}


async def test_agents_rooms_are_in_the_space(world: World, ann: Person) -> None:
    room = await world.meet()
    await world.ready()
    answer = await ann.get(f"/directory/room/{quote('#letta_agents:localhost')}")
    space = answer["room_id"]
    assert (await ann.state(space, "m.room.create"))["type"] == "m.space"
    assert (await ann.state(space, "m.space.child", room.room_id))["via"] == ["localhost"]
    parent = await ann.state(room.room_id, "m.space.parent", space)
    assert parent == {"via": ["localhost"], "canonical": True}
    assert (await members(ann, space))[ann.user_id] == "join"


async def test_a_private_room_of_before_our_time_is_adopted(world: World, ann: Person) -> None:
    agent = new_agent()
    ghost = world.as_user(user_id(agent.agent_id, "localhost"))
    localpart = ghost.user_id[1:].partition(":")[0]
    account = {"type": "m.login.application_service", "username": localpart}
    await replace(ghost, as_user="").call("POST", "/register", account)
    wanted = {"preset": "private_chat", "room_alias_name": localpart}
    _, made = await ghost.call("POST", "/createRoom", wanted)
    room = await world.meet(agent)
    await world.ready()
    assert room.room_id == made["room_id"]
    assert (await members(ann, room.room_id))[world.config.bot_user_id] == "join"
    assert (await world.health())["agents_in_trouble"] == 0


async def test_the_first_words_in_a_new_room_are_answered(world: World, ann: Person) -> None:
    room = await world.meet()
    await ann.send(room.room_id, "first words")
    assert await ann.answers(room, 1) == ["echo: first words"]


async def test_a_rename_is_followed_and_identity_stays(world: World, ann: Person) -> None:
    room = await world.meet(new_agent("Before"))
    await world.runtime.rename_agent(room.agent.agent_id, "After")

    async def names() -> tuple[str, str, str]:
        name = await ann.state(room.room_id, "m.room.name")
        topic = await ann.state(room.room_id, "m.room.topic")
        return await displayname(ann, room.ghost), name["name"], topic["topic"]

    await eventually(names, lambda all_: all("After" in one for one in all_))
    assert (await world.find(room.agent)).room_id == room.room_id
    await ann.send(room.room_id, "still you?")
    assert await ann.answers(room, 1) == ["echo: still you?"]


@pytest.mark.parametrize(
    "name",
    ["N" * 300, "x" * 70_000, "", " ", "\n", "@room <b>bold</b> ]]>", "\u202eevil", "half \ud83d"],
    ids=["300", "70000", "empty", "blank", "newline", "markup", "bidi", "surrogate"],
)
async def test_agents_with_odd_names_get_their_rooms(world: World, ann: Person, name: str) -> None:
    room = await world.meet(AgentInfo(new_agent().agent_id, name, name))
    await ann.send(room.room_id, "who are you?")
    assert await ann.answers(room, 1) == ["echo: who are you?"]
    health = await world.health()
    assert health["agents_in_trouble"] == 0


async def test_a_removed_agent_says_so_is_silent_and_comes_back(world: World, ann: Person) -> None:
    room = await world.meet()
    await ann.send(room.room_id, "one")
    assert await ann.answers(room, 1) == ["echo: one"]
    world.runtime.remove(room.agent.agent_id)
    assert await ann.answers(room, 2) == ["echo: one", _REMOVED]
    await ann.send(room.room_id, "anybody?")
    await asyncio.sleep(1)
    assert await ann.bodies(room.room_id, room.ghost) == ["echo: one", _REMOVED]
    world.runtime.add(room.agent)
    assert await ann.answers(room, 3) == ["echo: one", _REMOVED, _BACK]
    await ann.send(room.room_id, "two")
    assert (await ann.answers(room, 4))[3:] == ["echo: two"]
    assert (await world.find(room.agent)).room_id == room.room_id
