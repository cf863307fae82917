"""A homeserver that forbids names, pictures and whatever else decorates, and on which others had
our user ids before us: agents talk, and operators read what is wrong."""

import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from tests.integration import strict_rules
from tests.integration.bridge_world import Json, Person, Room, World, bridge_on, new_person
from tests.servers import Homeserver, homeserver_in
from tests.waiting import eventually

from letta_matrix.common.identifiers import user_id
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo

_SETTINGS: Json = {
    "enable_set_displayname": False,
    "enable_set_avatar_url": False,
    "enable_media_repo": False,
    "modules": [{"module": "strict_rules.StrictRules", "config": {}}],
}
_EARLIER = ("letta", "agent_taken", "agent_bob")
_TOKENS = dict[str, str]()


@pytest.fixture(scope="module")
async def strict(
    http: aiohttp.ClientSession, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Homeserver]:
    """Such a homeserver; `_EARLIER` have accounts with passwords, and are signed in."""
    server = homeserver_in(tmp_path_factory.mktemp("strict"), http)
    server.odd = _SETTINGS
    folder = server.synapse.directory
    folder.mkdir()
    shutil.copy(strict_rules.__file__, folder)
    try:
        await server.start_without_us()
        for localpart in _EARLIER:
            _, _TOKENS[localpart], _ = await server.register(localpart)
        server.stop()
        await server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
async def person(strict: Homeserver) -> Person:
    return await new_person(strict)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bridge")


@pytest.fixture(scope="module")
async def world(strict: Homeserver, person: Person, folder: Path) -> AsyncGenerator[World]:
    """A bridge on it, ready."""
    runtime = MemoryRuntime()
    runtime.add(_ADA)
    async with bridge_on(strict, folder, person, runtime) as world:
        yield world


_ADA = AgentInfo("agent-ada", "Ada")


async def enter(world: World, agent: AgentInfo) -> Room:
    """The room of an agent, which the person has to enter themselves here."""

    def made() -> str:
        known = world.bridge.app.stores.directory.get(agent.agent_id)
        return known.room_id or "" if known is not None else ""

    room_id = await eventually(made, what="the agent's room")
    path = f"/rooms/{quote(room_id)}/join"

    async def joins() -> bool:
        return (await world.person.call("POST", path))[0] == 200

    await eventually(joins, what="the person may come in")
    return Room(agent, room_id, user_id(agent.agent_id, "localhost"))


async def test_agents_talk_where_nothing_may_be_decorated(world: World, person: Person) -> None:
    room = await enter(world, _ADA)
    await person.send(room.room_id, "hello")
    assert await person.replies(room, 1) == ["echo: hello"]


async def test_what_is_refused_stands_in_health(world: World) -> None:
    health = await world.health()
    said = "\n".join(health["warnings"])
    # That others are signed in to the bot's account is more than a warning.
    (_,) = health["troubles"]
    for what in (
        "display names of 1 agent: PUT client/v3/profile/*/displayname: the homeserver refused: "
        "M_FORBIDDEN: Changing display name is disabled",
        "pictures of 1 agent: ",
        "room names of 1 agent: PUT client/v3/rooms/*/state/m.room.name: ",
        "the bot's display name",
    ):
        assert what in said
    assert (await world.health())["ready"]


async def test_an_earlier_bot_is_told_of(world: World, strict: Homeserver) -> None:
    (told,) = [one for one in (await world.health())["troubles"] if "the bot's account" in one]
    assert "2 sessions" in told
    assert "/_synapse/admin/v2/users/@letta:localhost" in told
    assert "appservice.bot_username" in told


async def test_what_is_advised_ends_it(world: World, strict: Homeserver) -> None:
    url = f"{strict.url}/_synapse/admin/v2/users/@letta:localhost"
    body = {"password": "A NEW RANDOM ONE", "logout_devices": True}
    headers = {"Authorization": f"Bearer {strict.admin_token}"}
    async with world.person.http.put(url, json=body, headers=headers) as response:
        assert response.status == 200
    old = Person(world.person.http, strict.url, "@letta:localhost", _TOKENS["letta"])
    assert (await old.call("GET", "/account/whoami"))[0] == 401
    # It does not raise that others are signed in.
    await world.bridge.app.home.accounts.check(world.bridge.app.bot)


async def test_nobodys_account_is_taken(world: World) -> None:
    world.runtime.add(AgentInfo("agent-taken", "Taken"))

    def trouble() -> str:
        return world.bridge.app.troubles.of("agent-taken")

    told = await eventually(trouble, what="the trouble of the agent")
    assert "@agent_taken:localhost was there before the bridge" in told
    assert "2 sessions" in told
    assert "logout_devices" in told


async def test_a_person_in_our_namespace_is_told_of(
    world: World, person: Person, strict: Homeserver
) -> None:
    room = await enter(world, _ADA)
    bob = Person(person.http, strict.url, "@agent_bob:localhost", _TOKENS["agent_bob"])
    await person.bring(room.room_id, bob)
    await bob.send(room.room_id, "anybody there?")

    def told() -> str:
        trouble = world.bridge.app.vitals.of("accounts")
        return "" if trouble is None else trouble.who

    who = await eventually(told, lambda who: "@agent_bob:localhost" in who)
    assert "account with another name" in who
    # Whoever asks without a token learns that there is somebody.
    health = str(await world.health())
    assert "an account with a user id that belongs to the bridge" in health
    assert "@agent_bob" not in health
