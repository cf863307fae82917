"""Agents get rooms of their own on a real homeserver, keep them, and nothing is done twice."""

import asyncio
from dataclasses import replace
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import Person, Room, World, new_agent
from tests.waiting import eventually

from letta_matrix.agents.provisioner import _BACK, _REMOVED
from letta_matrix.common.identifiers import user_id
from letta_matrix.runtimes.protocol import AgentInfo

ODD_NAMES = {
    "300": "N" * 300,
    "70000": "x" * 70_000,
    "empty": "",
    "blank": " ",
    "newline": "\n",
    "markup": "@room <b>bold</b> ]]>",
    "bidi": "\u202eevil",
    "surrogate": "half \ud83d",
}


@pytest.fixture(scope="module")
async def ada(world: World) -> Room:
    """The room of an agent as it was made."""
    made = await world.meet(new_agent("Ada Lovelace"))
    await world.ready()
    return made


async def displayname(person: Person, user_id: str) -> str:
    profile = await person.get(f"/profile/{quote(user_id)}")
    return str(profile.get("displayname"))


async def test_an_agent_gets_all_it_needs(world: World, ann: Person, ada: Room) -> None:
    room = ada
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
    assert await ann.members(room.room_id) == {room.ghost: "join", bot: "join", ann.user_id: "join"}


async def test_the_powers_in_an_agents_room(world: World, ann: Person, ada: Room) -> None:
    create = await ann.state(ada.room_id, "m.room.create")
    assert create["room_version"] == "12"
    assert create["additional_creators"] == [world.config.bot_user_id]
    powers = (await ann.state(ada.room_id, "m.room.power_levels"))["users"]
    assert powers == {ann.user_id: 100}


async def test_agents_rooms_are_in_the_space(ann: Person, ada: Room) -> None:
    answer = await ann.get(f"/directory/room/{quote('#letta_agents:localhost')}")
    space = answer["room_id"]
    assert (await ann.state(space, "m.room.create"))["type"] == "m.space"
    assert (await ann.state(space, "m.space.child", ada.room_id))["via"] == ["localhost"]
    parent = await ann.state(ada.room_id, "m.space.parent", space)
    assert parent == {"via": ["localhost"], "canonical": True}
    assert (await ann.members(space))[ann.user_id] == "join"


async def test_a_private_room_of_before_our_time_is_adopted(world: World, ann: Person) -> None:
    agent = new_agent()
    ghost = world.as_user(user_id(agent.agent_id, "localhost"))
    localpart = ghost.user_id[1:].partition(":")[0]
    account = {"type": "m.login.application_service", "username": localpart}
    account |= {"inhibit_login": True}
    await replace(ghost, as_user="").call("POST", "/register", account)
    wanted = {"preset": "private_chat", "room_alias_name": localpart}
    _, made = await ghost.call("POST", "/createRoom", wanted)
    room = await world.meet(agent)
    await world.ready()
    assert room.room_id == made["room_id"]
    assert (await ann.members(room.room_id))[world.config.bot_user_id] == "join"
    assert world.bridge.app.troubles.of(agent.agent_id) == ""


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


async def test_agents_with_odd_names_get_their_rooms(world: World, ann: Person) -> None:
    agents = [AgentInfo(new_agent().agent_id, name, name) for name in ODD_NAMES.values()]
    rooms = await asyncio.gather(*map(world.meet, agents))
    for room in rooms:
        await ann.send(room.room_id, "who are you?")
    for case, room in zip(ODD_NAMES, rooms, strict=True):
        assert await ann.answers(room, 1) == ["echo: who are you?"], case
        assert world.bridge.app.troubles.of(room.agent.agent_id) == "", case


async def test_a_removed_agent_says_so_is_silent_and_comes_back(
    world: World, ann: Person, ada: Room, room: Room
) -> None:
    await ann.send(room.room_id, "one")
    assert await ann.answers(room, 1) == ["echo: one"]
    world.runtime.remove(room.agent.agent_id)
    assert await ann.answers(room, 2) == ["echo: one", _REMOVED]
    await ann.send(room.room_id, "anybody?")
    # The homeserver brings one after the other: what is heard now was asked before.
    await ann.send(ada.room_id, "who else?")
    assert await ann.answers(ada, 1) == ["echo: who else?"]
    world.runtime.add(room.agent)
    assert await ann.answers(room, 3) == ["echo: one", _REMOVED, _BACK]
    await ann.send(room.room_id, "two")
    assert await ann.answers(room, 4) == ["echo: one", _REMOVED, _BACK, "echo: two"]
    assert (await world.find(room.agent)).room_id == room.room_id
