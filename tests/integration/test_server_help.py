"""What an admin's credentials are good for: rooms and accounts of the original integration."""

import json
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import (
    DATABASE,
    Json,
    Person,
    World,
    bridge_on,
    config_on,
    lay_database,
    new_agent,
)
from tests.integration.people import Room
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.app.bridge import Bridge
from letta_matrix.common.identifiers import user_id
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.database import Database, database_url


@dataclass
class Boss:
    """An admin of the homeserver."""

    person: Person

    @property
    def settings(self) -> Json:
        return {
            "admin_username": self.person.user_id,
            "admin_password": self.person.password,
        }


@pytest.fixture(scope="module")
async def boss(homeserver: Homeserver) -> Boss:
    who, token, password = await homeserver.register(f"boss_{secrets.token_hex(3)}", admin=True)
    return Boss(Person(homeserver.http, homeserver.url, who, token, password=password))


@dataclass
class Original:
    """What the original integration has left behind: an agent's account, and its room."""

    homeserver: Homeserver
    boss: Person
    info: AgentInfo

    def __post_init__(self) -> None:
        self.user_id = user_id(self.info.agent_id, "localhost")
        token = self.homeserver.as_token
        self.ghost = Person(
            self.boss.http, self.homeserver.url, self.user_id, token, as_user=self.user_id
        )

    async def make(self) -> str:
        """Its room, made by the boss, with nobody of the new bridge in it."""
        body = {"type": "m.login.application_service", "username": self.user_id[1:].split(":")[0]}
        status, _ = await self.ghost.call("POST", "/register", body)
        assert status == 200
        levels = {"invite": 50}
        asked = {
            "preset": "private_chat",
            "room_version": "10",
            "power_level_content_override": levels,
        }
        status, made = await self.boss.call("POST", "/createRoom", asked)
        assert status == 200
        return str(made["room_id"])

    async def enter(self, room_id: str) -> None:
        invited = await self.boss.call(
            "POST", f"/rooms/{quote(room_id)}/invite", {"user_id": self.user_id}
        )
        joined = await self.ghost.call("POST", f"/rooms/{quote(room_id)}/join", {})
        assert (invited[0], joined[0]) == (200, 200)


async def adopt(homeserver: Homeserver, directory: Path, info: AgentInfo, room_id: str) -> None:
    """As `import-mappings` does."""
    await lay_database(homeserver, directory)
    database = Database(database_url(f"sqlite:///{directory / DATABASE}", directory))
    await database.open()
    known = AgentDirectory(database)
    user = user_id(info.agent_id, "localhost")
    await known.reserve([Agent(info.agent_id, "memory", info.name, user, room_id=room_id)])
    await database.close()


@asynccontextmanager
async def bridge(
    homeserver: Homeserver, directory: Path, person: Person, info: AgentInfo, /, **sections: Any
) -> AsyncGenerator[World]:
    runtime = MemoryRuntime()
    runtime.add(info)
    async with bridge_on(homeserver, directory, person, runtime, **sections) as world:
        yield world


@pytest.mark.parametrize("is_in", [True, False], ids=["without power", "not in it"])
async def test_a_room_that_others_made_becomes_its_agents(
    homeserver: Homeserver, boss: Boss, ann: Person, tmp_path: Path, *, is_in: bool
) -> None:
    old = Original(homeserver, boss.person, new_agent())
    room_id = await old.make()
    if is_in:
        await old.enter(room_id)
    await adopt(homeserver, tmp_path, old.info, room_id)
    for _ in range(2):
        async with bridge(homeserver, tmp_path, ann, old.info, homeserver=boss.settings) as world:
            await ann.call("POST", f"/rooms/{quote(room_id)}/join", {})
            assert await ann.members(room_id) == {
                boss.person.user_id: "join",
                **dict.fromkeys((old.user_id, world.config.bot_user_id, ann.user_id), "join"),
            }
            await talks(world, Room(old.info, room_id, old.user_id))
    sessions = (await boss.person.get("/devices"))["devices"]
    assert [one["device_id"] for one in sessions].count("letta-matrix") == 1


async def test_a_room_where_nobody_has_power_is_told_of(
    homeserver: Homeserver, boss: Boss, ann: Person, tmp_path: Path
) -> None:
    old = Original(homeserver, boss.person, new_agent())
    room_id = await old.make()
    await old.enter(room_id)
    await boss.person.call("POST", f"/rooms/{quote(room_id)}/leave", {})
    await adopt(homeserver, tmp_path, old.info, room_id)
    text = await told_of(homeserver, tmp_path, ann, old.info, boss.settings, "power in rooms")
    assert "letta-matrix forget AGENT --new-room" in text
    assert boss.person.password not in text


async def test_without_credentials_it_is_said_that_they_would_help(
    homeserver: Homeserver, boss: Boss, ann: Person, tmp_path: Path
) -> None:
    old = Original(homeserver, boss.person, new_agent())
    room_id = await old.make()
    await old.enter(room_id)
    await adopt(homeserver, tmp_path, old.info, room_id)
    text = await told_of(homeserver, tmp_path, ann, old.info, {}, "homeserver.admin_username")
    assert "M_FORBIDDEN" in text


async def test_agents_have_passwords_where_that_is_wanted(
    homeserver: Homeserver, boss: Boss, ann: Person, tmp_path: Path
) -> None:
    info = new_agent()
    name = user_id(info.agent_id, "localhost")[1:].partition(":")[0]
    wanted = {"agents": {"passwords": True, "room_members": [ann.user_id], "poll_interval": 0.1}}
    login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": name}}
    stored = list[str]()
    for more in ({}, {}, {"dev_mode": True}, {}):
        agents = {**wanted["agents"], **more}
        sections = {"homeserver": boss.settings, "agents": agents}
        async with bridge(homeserver, tmp_path, ann, info, **sections) as world:
            room = await world.find(info)
            password = await world.bridge.app.stores.passwords.of(info.agent_id)
            assert password is not None
            status, _ = await ann.call("POST", "/login", {**login, "password": password})
            assert status == 200
            stored.append(password)
            await talks(world, room)
    first, again, dev, last = stored
    assert (len(first), again, dev, len(last)) == (32, first, "password", 32)
    assert last != first


async def test_a_wrong_password_of_the_admin_keeps_nobody_from_talking(
    homeserver: Homeserver, boss: Boss, ann: Person, tmp_path: Path
) -> None:
    info = new_agent()
    sections: Json = {
        "homeserver": {**boss.settings, "admin_password": "another one"},
        "agents": {"passwords": True},
    }
    async with bridge(homeserver, tmp_path, ann, info, **sections) as world:
        await talks(world, await world.find(info))
        text = json.dumps(await world.health())
        assert "passwords of 1 agent: POST client/v3/login: the homeserver refused" in text
        assert "homeserver.admin_username" in text
        assert "another one" not in text


async def talks(world: World, room: Room) -> None:
    before = len(await world.person.bodies(room.room_id, room.ghost))
    await world.person.send(room.room_id, "hello")
    assert (await world.person.answers(room, before + 1))[-1] == "echo: hello"


async def told_of(
    homeserver: Homeserver, directory: Path, ann: Person, info: AgentInfo, admin: Json, what: str
) -> str:
    """What admins are told of a bridge that cannot set an agent up, once it tells `what`."""
    runtime = MemoryRuntime()
    runtime.add(info)
    config = config_on(homeserver, directory, ann, homeserver=admin)
    bridge = Bridge(config, [runtime])
    await bridge.start()
    try:
        world = World(homeserver, config, bridge, runtime, ann)

        async def health() -> str:
            # Why one agent is not set up is for admins alone.
            troubles = bridge.app.provisioner.trouble
            return json.dumps([await world.health(), troubles])

        return await eventually(health, lambda text: what in text)
    finally:
        await bridge.close()
