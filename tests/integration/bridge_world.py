"""A bridge on the real homeserver with in-memory agents."""

import itertools
import json
import secrets
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.integration.people import Json, Person, Room
from tests.servers import Homeserver, free_port
from tests.waiting import eventually

from letta_matrix.app.bridge import Bridge
from letta_matrix.common.identifiers import room_alias, user_id
from letta_matrix.config import Config
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo, TurnRequest
from letta_matrix.store.database import Database, database_url
from letta_matrix.store.turns import Turn

DATABASE = "letta-matrix.db"
_numbers = itertools.count(1)


def new_agent(name: str = "Ada", description: str = "") -> AgentInfo:
    """An agent that no other test has."""
    return AgentInfo(f"agent-{secrets.token_hex(6)}", name, description)


@dataclass
class World:
    """A running bridge with its runtime."""

    homeserver: Homeserver
    config: Config
    bridge: Bridge
    runtime: MemoryRuntime
    person: Person
    others: tuple[MemoryRuntime, ...] = ()

    def as_user(self, who: str) -> Person:
        """Somebody of our namespace, seen through the application service's token."""
        token = self.homeserver.as_token
        return Person(self.person.http, self.homeserver.url, who, token, as_user=who)

    @property
    def bot(self) -> Person:
        return self.as_user(self.config.bot_user_id)

    async def health(self) -> Json:
        url = f"http://127.0.0.1:{self.config.api.port}/health"
        async with self.person.http.get(url) as response:
            return await response.json()

    async def ready(self) -> None:
        await eventually(self.health, lambda health: health["ready"])

    def asked(self, room: Room) -> list[TurnRequest]:
        """What has reached the agent of a room."""
        return [one for one in self.runtime.asked if one.agent_id == room.agent.agent_id]

    async def idle(self, room_id: str = "") -> None:
        """Wait until nothing that has arrived is still to be answered, in one room if it is
        named: others may have been left in the midst of something."""
        unfinished = self.bridge.app.dispatcher.queues.unfinished

        def left() -> list[Turn]:
            return [one for one in unfinished() if room_id in ("", one.room_id)]

        await eventually(left, lambda turns: not turns, what="idle")

    async def meet(self, agent: AgentInfo | None = None) -> Room:
        """Add an agent to the runtime and wait until the person is in its room."""
        agent = agent or new_agent()
        self.runtime.add(agent)
        return await self.find(agent)

    async def find(self, agent: AgentInfo) -> Room:
        def is_made() -> bool:
            known = self.bridge.app.stores.directory.get(agent.agent_id)
            return known is not None and known.room_id is not None

        await eventually(is_made, what="the agent's room")
        return await room_of(agent, self.person)


def troubles_in(health: Json) -> list[str]:
    """What is wrong, beside accounts: as agents that this bridge does not know, other tests on its
    homeserver have sent what it may be told only now."""
    checks = [one for one in health["checks"] if one["name"] != "accounts"]
    return [one["says"] for one in checks if one["state"] == "trouble"]


async def room_of(agent: AgentInfo, person: Person) -> Room:
    """An agent's room, once a bridge has made it and the person is in it."""
    domain = person.user_id.partition(":")[2]
    alias = room_alias(agent.agent_id, domain)

    async def resolve() -> str:
        _, answer = await person.call("GET", f"/directory/room/{quote(alias)}")
        return str(answer.get("room_id", ""))

    room_id = await person.watch("", resolve, what="the agent's room")
    me = f"/rooms/{quote(room_id)}/state/m.room.member/{quote(person.user_id)}"

    async def joined() -> bool:
        _, answer = await person.call("GET", me)
        return answer.get("membership") == "join"

    await person.watch("", joined, what="the person is in the agent's room")
    return Room(agent, room_id, user_id(agent.agent_id, domain))


async def new_person(homeserver: Homeserver, name: str = "ann") -> Person:
    """A fresh account."""
    localpart = f"{name}{next(_numbers)}_{secrets.token_hex(3)}"
    who, token, password = await homeserver.register(localpart)
    person = Person(homeserver.http, homeserver.url, who, token, password=password)
    # From here on it is told what is new, which is little to tell.
    await person.happening()
    return person


def settings_on(homeserver: Homeserver, person: Person, /, **sections: Any) -> Json:
    """What `config.yaml` says on the real homeserver; `sections` change keys of single sections,
    lists as a whole."""
    values: Json = homeserver.config.model_dump(mode="json")
    values["appservice"] |= {
        "as_token": homeserver.as_token,
        "hs_token": homeserver.hs_token,
    }
    values["agents"] |= {"poll_interval": 0.1, "room_members": [person.user_id]}
    # Nothing depends on how many messages fit into a minute here.
    values["conversations"] |= {"edit_interval": 0.3, "person_per_minute": 0}
    values["permissions"] = {homeserver.server_name: "user", person.user_id: "admin"}
    values["api"] |= {"port": free_port()}
    values["mcp"] |= {"port": free_port(), "websocket_port": free_port()}
    for name, section in sections.items():
        values[name] = section if isinstance(section, list) else {**(values[name] or {}), **section}
    return values


def config_on(
    homeserver: Homeserver, directory: Path, person: Person, /, **sections: Any
) -> Config:
    """See `settings_on`; relative paths start at `directory`."""
    values = settings_on(homeserver, person, **sections)
    return Config.model_validate({**values, "directory": directory})


async def lay_database(homeserver: Homeserver, directory: Path) -> None:
    """Put an empty database where there is none, of which each bridge would make its own."""
    empty = homeserver.synapse.directory.with_name("empty.db")
    if not empty.exists():
        database = Database(database_url(f"sqlite:///{empty}", empty.parent))
        await database.open()
        await database.close()
    if not (directory / DATABASE).exists():
        shutil.copy(empty, directory / DATABASE)


@asynccontextmanager
async def bridge_on(
    homeserver: Homeserver,
    directory: Path,
    person: Person,
    runtime: MemoryRuntime,
    /,
    *others: MemoryRuntime,
    **sections: Any,
) -> AsyncGenerator[World]:
    """A bridge, ready; its database is `directory`'s, unless a section names another."""
    if "database" not in sections:
        await lay_database(homeserver, directory)
    config = config_on(homeserver, directory, person, **sections)
    bridge = Bridge(config, [runtime, *others])
    await bridge.start()
    try:
        world = World(homeserver, config, bridge, runtime, person, others)
        await world.ready()
        yield world
    finally:
        await bridge.close()


async def deliver(
    world: World,
    events: Any,
    txn_id: str = "",
    token: str | None = None,
    path: str = "/_matrix/app/v1/transactions/",
) -> tuple[int, Json]:
    """A transaction as the homeserver, or somebody who pretends to be it, would bring it."""
    token = world.homeserver.hs_token if token is None else token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"http://127.0.0.1:{world.homeserver.appservice_port}{path}"
    url += txn_id or secrets.token_hex(8)
    body = json.dumps({"events": events})
    async with world.person.http.put(url, data=body, headers=headers) as response:
        return response.status, await response.json()


def event_in(room: Room, sender: str, body: Any = "x", **fields: Any) -> Json:
    return {
        "type": "m.room.message",
        "event_id": f"${secrets.token_hex(8)}",
        "room_id": room.room_id,
        "sender": sender,
        "origin_server_ts": int(time.time() * 1000),
        "content": {"msgtype": "m.text", "body": body},
        **fields,
    }
