"""An agent's own room is replaced by an admin, and direct chats are named, on a real homeserver."""

from pathlib import Path
from urllib.parse import quote

from tests.integration.bridge_world import Json, Person, bridge_on, new_agent
from tests.scripts import obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.agents.room_origin import is_from_us
from letta_matrix.common.identifiers import room_alias
from letta_matrix.conversations import notices
from letta_matrix.runtimes.memory import MemoryRuntime


async def test_an_own_room_moves_with_all_that_belongs_to_it(
    homeserver: Homeserver, ann: Person, tmp_path: Path
) -> None:
    agents: Json = {"agents": {"room_version": 10, "room_members": [ann.user_id]}}
    async with bridge_on(homeserver, tmp_path, ann, MemoryRuntime(script=obey), **agents) as world:
        room = await world.meet(new_agent("Mover"))
        create = await ann.state(room.room_id, "m.room.create")
        assert create["room_version"] == "10"
        await ann.send(room.room_id, "remember")
        await ann.answers(room, 1)
        path, version = f"/rooms/{quote(room.room_id)}/upgrade", {"new_version": "11"}
        status, answer = await ann.call("POST", path, version)
        assert status == 200, answer
        new = str(answer["replacement_room"])
        assert (await ann.answers(room, 2))[1] == notices.LEFT_BEHIND
        invited = await ann.call("POST", f"/rooms/{quote(new)}/invite", {"user_id": room.ghost})
        assert invited[0] == 200
        directory = world.bridge.app.stores.directory

        def lives_in() -> str | None:
            agent = directory.get(room.agent.agent_id)
            return agent.room_id if agent is not None else None

        await eventually(lives_in, lambda room_id: room_id == new)
        await ann.send(new, "do you?")
        said = await ann.watch(new, lambda: ann.bodies(new, room.ghost), bool)
        assert said == ["echo: do you?"]
        first, second = world.asked(room)
        assert first.conversation_id == second.conversation_id
        alias = room_alias(room.agent.agent_id, "localhost")
        assert (await ann.get(f"/directory/room/{quote(alias)}"))["room_id"] == new
        await world.ready()
        bot = world.config.bot_user_id
        await ann.watch(new, lambda: ann.members(new), lambda found: found.get(bot) == "join")
        space = quote(world.bridge.app.home.space_id)

        async def child(room_id: str) -> Json:
            _, told = await ann.call("GET", f"/rooms/{space}/state/m.space.child/{quote(room_id)}")
            return told

        assert await child(room.room_id) == {}
        await eventually(lambda: child(new), lambda told: "via" in told)
        # The database is lost, and who replaced the room no admin any more.
        strangers = world.config.model_copy(update={"permissions": {}})
        assert strangers.role_of(ann.user_id) != "admin"
        ghost = world.bridge.app.homeserver.acting_as(room.ghost)
        assert await is_from_us(ghost, new, strangers)


async def test_direct_chats_are_named_beside_others(homeserver: Homeserver, ann: Person) -> None:
    path = f"/user/{quote(ann.user_id)}/account_data/m.direct"
    synapse = homeserver.synapse
    for rooms in ({"@agent_1:localhost": "!1"}, {"@agent_2:localhost": "!2"}):
        await synapse.mark_direct(homeserver.http, ann.token, ann.user_id, rooms)
    expected = {"@agent_1:localhost": ["!1"], "@agent_2:localhost": ["!2"]}
    assert await ann.get(path) == expected
