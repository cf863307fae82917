"""People with Matrix clients, and a bridge on the real homeserver with in-memory agents."""

import itertools
import json
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from tests.servers import Homeserver, free_port
from tests.waiting import eventually

from letta_matrix.bridge import Bridge
from letta_matrix.config import Config
from letta_matrix.matrix.content import BESIDE, LIVE, MARKER, thread_relation
from letta_matrix.matrix.identifiers import room_alias, user_id
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo, AgentRuntime

Json = dict[str, Any]
T = TypeVar("T")
_numbers = itertools.count(1)


def new_agent(name: str = "Ada", description: str = "") -> AgentInfo:
    """An agent that no other test has."""
    return AgentInfo(f"agent-{secrets.token_hex(6)}", name, description)


@dataclass(frozen=True)
class Person:
    """Somebody with a Matrix client. As a ghost: `as_user` acts through the application service."""

    http: aiohttp.ClientSession
    url: str
    user_id: str
    token: str
    as_user: str = ""

    async def call(
        self, method: str, path: str, body: object = None, **query: str
    ) -> tuple[int, Json]:
        """A client-server API request; `path` begins after `/_matrix/client/v3`."""
        headers = {"Authorization": f"Bearer {self.token}"}
        query |= {"user_id": self.as_user} if self.as_user else {}
        data = body if isinstance(body, bytes) else json.dumps(body or {})
        url = f"{self.url}/_matrix/client/v3{path}"
        async with self.http.request(
            method, url, data=None if method == "GET" else data, headers=headers, params=query
        ) as response:
            return response.status, await response.json(content_type=None)

    async def get(self, path: str, **query: str) -> Json:
        status, answer = await self.call("GET", path, **query)
        assert status == 200, (path, answer)
        return answer

    async def send(
        self, room_id: str, body: str, event_type: str = "m.room.message", **content: object
    ) -> str:
        """Say something; returns the event id."""
        message = {"msgtype": "m.text", "body": body, **content}
        return await self.send_content(room_id, message, event_type)

    async def send_content(
        self, room_id: str, content: Mapping[str, object], event_type: str = "m.room.message"
    ) -> str:
        path = f"/rooms/{quote(room_id)}/send/{event_type}/{secrets.token_hex(8)}"
        status, answer = await self.call("PUT", path, content)
        assert status == 200, answer
        return str(answer["event_id"])

    async def say_in_thread(self, room_id: str, root: str, body: str) -> str:
        return await self._relate(room_id, body, thread_relation(root, root))

    async def reply(self, room_id: str, event_id: str, body: str) -> str:
        return await self._relate(room_id, body, {"m.in_reply_to": {"event_id": event_id}})

    async def mention(self, room_id: str, body: str, *user_ids: str) -> str:
        named = {"user_ids": list(user_ids)}
        content = {"msgtype": "m.text", "body": body, "m.mentions": named}
        return await self.send_content(room_id, content)

    async def react(self, room_id: str, event_id: str, key: str) -> str:
        relation = {"rel_type": "m.annotation", "event_id": event_id, "key": key}
        return await self.send_content(room_id, {"m.relates_to": relation}, "m.reaction")

    async def create_room(self, *invited: str, **content: object) -> str:
        """A room of this person's own; returns its id."""
        wanted = {"preset": "private_chat", "invite": list(invited), **content}
        status, answer = await self.call("POST", "/createRoom", wanted)
        assert status == 200, answer
        return str(answer["room_id"])

    async def bring(self, room_id: str, other: "Person") -> None:
        """Invite somebody, who comes."""
        path = f"/rooms/{quote(room_id)}"
        status, answer = await self.call("POST", f"{path}/invite", {"user_id": other.user_id})
        assert status == 200, answer
        status, answer = await other.call("POST", f"{path}/join")
        assert status == 200, answer

    async def members(self, room_id: str) -> dict[str, str]:
        """Membership by user id."""
        answer = await self.get(f"/rooms/{quote(room_id)}/members")
        return {e["state_key"]: e["content"]["membership"] for e in answer["chunk"]}

    async def reactions(self, room_id: str, event_id: str) -> dict[str, str]:
        """Who reacted to an event, by key."""
        path = f"/../v1/rooms/{quote(room_id)}/relations/{quote(event_id)}/m.annotation"
        events = (await self.get(path, limit="100"))["chunk"]
        return {e["content"]["m.relates_to"]["key"]: str(e["sender"]) for e in events}

    async def timeline(self, room_id: str) -> list[Json]:
        """The last 500 events of a room, oldest first."""
        answer = await self.get(f"/rooms/{quote(room_id)}/messages", dir="b", limit="500")
        return answer["chunk"][::-1]

    async def state(self, room_id: str, event_type: str, key: str = "") -> Json:
        return await self.get(f"/rooms/{quote(room_id)}/state/{event_type}/{quote(key)}")

    async def said_by(self, room_id: str, sender: str) -> list[Json]:
        """Somebody's messages, each in its last version; `edits` counts the versions after the
        first, `live` tells whether it still grows, `thread` is its root, `beside` what it is
        besides a reply."""
        shown: dict[str, Json] = {}
        for event in await self.timeline(room_id):
            content = event["content"]
            if event["type"] != "m.room.message" or event["sender"] != sender or not content:
                continue
            relation = content.get("m.relates_to", {})
            if relation.get("rel_type") == "m.replace":
                old = shown[relation["event_id"]]
                new = content["m.new_content"]
                old |= {"content": new, "edits": old["edits"] + 1, "live": LIVE in content}
            else:
                in_thread = relation.get("rel_type") == "m.thread"
                shown[event["event_id"]] = {
                    "content": content,
                    "edits": 0,
                    "live": LIVE in content,
                    "event_id": event["event_id"],
                    "thread": relation["event_id"] if in_thread else "",
                    "beside": content.get(MARKER, {}).get(BESIDE, ""),
                }
        return list(shown.values())

    async def bodies(self, room_id: str, sender: str) -> list[str]:
        return [said["content"]["body"] for said in await self.said_by(room_id, sender)]

    async def answers(self, room: "Room", count: int) -> list[str]:
        """The agent's messages once there are `count` complete ones."""

        async def probe() -> list[Json]:
            return await self.said_by(room.room_id, room.ghost)

        done = await eventually(
            probe, lambda all_: len(all_) >= count and not any(s["live"] for s in all_)
        )
        return [said["content"]["body"] for said in done]

    async def _relate(self, room_id: str, body: str, relation: Json) -> str:
        content = {"msgtype": "m.text", "body": body, "m.relates_to": relation}
        return await self.send_content(room_id, content)

    async def replies(self, room: "Room", count: int, thread: str = "") -> list[str]:
        """As `answers`, in one thread or outside of them, without what stands beside replies."""

        async def probe() -> list[Json]:
            said = await self.said_by(room.room_id, room.ghost)
            return [one for one in said if one["thread"] == thread and not one["beside"]]

        done = await eventually(
            probe, lambda all_: len(all_) >= count and not any(s["live"] for s in all_)
        )
        return [said["content"]["body"] for said in done]

    async def beside(self, room: "Room", kind: str) -> Json:
        """The last message of an agent that stands beside its replies, once there is one."""

        async def probe() -> list[Json]:
            said = await self.said_by(room.room_id, room.ghost)
            return [one for one in said if one["beside"] == kind]

        return (await eventually(probe))[-1]


@dataclass(frozen=True)
class Room:
    """An agent's room and the agent's user."""

    agent: AgentInfo
    room_id: str
    ghost: str


@dataclass
class World:
    """A running bridge with its runtime."""

    homeserver: Homeserver
    config: Config
    bridge: Bridge
    runtime: MemoryRuntime
    person: Person
    ghosts: dict[str, Person] = field(default_factory=dict[str, Person])

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

    async def meet(self, agent: AgentInfo | None = None) -> Room:
        """Add an agent to the runtime and wait until the person is in its room."""
        agent = agent or new_agent()
        self.runtime.add(agent)
        return await self.find(agent)

    async def find(self, agent: AgentInfo) -> Room:
        return await room_of(agent, self.person)


async def room_of(agent: AgentInfo, person: Person) -> Room:
    """An agent's room, once a bridge has made it and the person is in it."""
    alias = room_alias(agent.agent_id, "localhost")

    async def resolve() -> str:
        _, answer = await person.call("GET", f"/directory/room/{quote(alias)}")
        return str(answer.get("room_id", ""))

    room_id = await eventually(resolve, bool)

    async def joined() -> list[str]:
        return (await person.get("/joined_rooms"))["joined_rooms"]

    await eventually(joined, lambda rooms: room_id in rooms)
    return Room(agent, room_id, user_id(agent.agent_id, "localhost"))


async def new_person(homeserver: Homeserver, name: str = "ann") -> Person:
    """A fresh account."""
    localpart = f"{name}{next(_numbers)}_{secrets.token_hex(3)}"
    who, token, _ = await homeserver.register(localpart)
    return Person(homeserver.http, homeserver.url, who, token)


def settings_on(homeserver: Homeserver, person: Person, **sections: Any) -> Json:
    """What `config.yaml` says on the real homeserver; `sections` change keys of single sections,
    lists as a whole."""
    values: Json = homeserver.config.model_dump(mode="json")
    values["appservice"] |= {
        "as_token": homeserver.as_token,
        "hs_token": homeserver.hs_token,
    }
    values["agents"] |= {"poll_interval": 0.1, "room_members": [person.user_id]}
    values["conversations"] |= {"edit_interval": 0.3}
    values["permissions"] = {"localhost": "user", person.user_id: "admin"}
    values["api"] |= {"port": free_port()}
    values["mcp"] |= {"port": free_port(), "websocket_port": free_port()}
    for name, section in sections.items():
        values[name] = section if isinstance(section, list) else {**values[name], **section}
    return values


def config_on(homeserver: Homeserver, directory: Path, person: Person, **sections: Any) -> Config:
    """See `settings_on`; relative paths start at `directory`."""
    values = settings_on(homeserver, person, **sections)
    return Config.model_validate({**values, "directory": directory})


@asynccontextmanager
async def bridge_on(
    homeserver: Homeserver,
    directory: Path,
    person: Person,
    runtime: MemoryRuntime,
    *others: AgentRuntime,
    **sections: Any,
) -> AsyncGenerator[World]:
    """A bridge, ready; its database is `directory`'s."""
    config = config_on(homeserver, directory, person, **sections)
    bridge = Bridge(config, [runtime, *others])
    await bridge.start()
    try:
        world = World(homeserver, config, bridge, runtime, person)
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
