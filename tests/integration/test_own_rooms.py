"""An agent's own room is opened by admins and its members, not by whom it was opened to, nor by the
agent, whatever it was talked into."""

import secrets
from dataclasses import replace
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import Person, Room, World, new_person

from letta_matrix.common.tools import ToolCall


@pytest.fixture(scope="module")
async def eve(world: World) -> Person:
    """An account of the homeserver that nobody has to do with."""
    return await new_person(world.homeserver, "eve")


async def test_who_comes_later_reads_nothing_of_before(
    ann: Person, bob: Person, room: Room
) -> None:
    before = await ann.say(room, "our secret")
    await ann.bring(room.room_id, bob)
    after = await ann.say(room, "hello bob")
    seen = [event["event_id"] for event in await bob.timeline(room.room_id, "m.room.message")]
    assert after in seen
    assert before not in seen
    path = f"/rooms/{quote(room.room_id)}/event/{quote(before)}"
    assert (await bob.call("GET", path))[0] == 404


async def test_guests_bring_no_others(ann: Person, bob: Person, eve: Person, room: Room) -> None:
    await ann.bring(room.room_id, bob)
    path, wanted = f"/rooms/{quote(room.room_id)}/invite", {"user_id": eve.user_id}
    assert (await bob.call("POST", path, wanted))[0] == 403
    assert (await ann.call("POST", path, wanted))[0] == 200


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("matrix_invite", {}), ("matrix_unban", {})],
)
async def test_an_agent_lets_nobody_in(
    world: World, eve: Person, room: Room, tool: str, arguments: dict[str, int]
) -> None:
    about = {"room_id": room.room_id, "user_id": eve.user_id, **arguments}
    call = ToolCall(room.agent.agent_id, "", "call_0", tool, about, secrets.token_hex(8))
    result = await world.bridge.app.toolbox.handler("memory")(call)
    assert not result.ok
    assert "an agent's own room" in result.text


async def test_a_room_of_before_is_closed_too(world: World, ann: Person, room: Room) -> None:
    path = f"/rooms/{quote(room.room_id)}/state"
    levels = await ann.state(room.room_id, "m.room.power_levels")
    opened = {**levels, "invite": 0, "users": {ann.user_id: 100}}
    await ann.call("PUT", f"{path}/m.room.history_visibility", {"history_visibility": "shared"})
    assert (await ann.call("PUT", f"{path}/m.room.power_levels", opened))[0] == 200
    directory = world.bridge.app.stores.directory
    agent = directory.get(room.agent.agent_id)
    assert agent is not None
    applied = {key: value for key, value in agent.applied.items() if key != "access"}
    await directory.change([agent.agent_id], lambda one: replace(one, applied=applied))
    provisioner = world.bridge.app.provisioner
    assert provisioner is not None
    await provisioner.request([agent])
    await world.ready()
    now = await ann.state(room.room_id, "m.room.power_levels")
    assert (now["invite"], now["users"][ann.user_id]) == (10, 100)
    history = await ann.state(room.room_id, "m.room.history_visibility")
    assert history == {"history_visibility": "invited"}
