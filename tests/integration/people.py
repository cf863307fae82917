"""People with Matrix clients, and what they see in agents' rooms."""

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from tests.waiting import eventually

from letta_matrix.matrix.content import BESIDE, LIVE, MARKER, thread_relation
from letta_matrix.runtimes.protocol import AgentInfo

Json = dict[str, Any]
T = TypeVar("T")
_NOTHING: Json = {"types": []}


@dataclass(frozen=True)
class Person:
    """Somebody with a Matrix client. As a ghost: `as_user` acts through the application service."""

    http: aiohttp.ClientSession
    url: str
    user_id: str
    token: str
    as_user: str = ""
    password: str = field(default="", compare=False, repr=False)
    _synced: dict[str, str] = field(default_factory=dict[str, str], compare=False, repr=False)

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

    async def say(self, room: "Room", body: str) -> str:
        """Say something where the room is meant, which may be a thread of it."""
        if room.thread:
            return await self.say_in_thread(room.room_id, room.thread, body)
        return await self.send(room.room_id, body)

    async def begin_thread(self, room: "Room") -> "Room":
        """A thread of the room, below words that nobody answers."""
        # Events that are alike to the millisecond are one: their ids are their hashes.
        root = await self.send(room.room_id, f"root {secrets.token_hex(4)}", msgtype="m.notice")
        return replace(room, thread=root)

    async def say_in_thread(self, room_id: str, root: str, body: str) -> str:
        return await self._relate(room_id, body, thread_relation(root, root))

    async def reply(self, room_id: str, event_id: str, body: str, thread: str = "") -> str:
        relation: Json = {"m.in_reply_to": {"event_id": event_id}}
        if thread:
            relation |= {"rel_type": "m.thread", "event_id": thread, "is_falling_back": False}
        return await self._relate(room_id, body, relation)

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

    async def timeline(self, room_id: str, *types: str) -> list[Json]:
        """The last 500 events of a room, oldest first; of these types if any are given."""
        query = {"filter": json.dumps({"types": types})} if types else {}
        path = f"/rooms/{quote(room_id)}/messages"
        return (await self.get(path, dir="b", limit="500", **query))["chunk"][::-1]

    async def watch(
        self,
        room_id: str,
        probe: Callable[[], Awaitable[T]],
        accept: Callable[[T], object] = bool,
        what: str = "",
    ) -> T:
        """As `eventually`, but looking again only when something has happened in the room, in any
        room for "": the homeserver has better things to do than to be asked all the time."""

        async def look() -> T:
            found = await probe()
            if not accept(found):
                await self.happening(room_id)
            return found

        return await eventually(look, accept, what)

    async def happening(self, room_id: str = "") -> None:
        """Wait until something happens in a room, or might have."""
        room: Json = {"ephemeral": _NOTHING, "account_data": _NOTHING, "state": _NOTHING}
        room |= {"timeline": {"limit": 1}, **({"rooms": [room_id]} if room_id else {})}
        wanted = {"presence": _NOTHING, "account_data": _NOTHING, "room": room}
        query = {"filter": json.dumps(wanted), "timeout": "1000", **self._synced}
        self._synced["since"] = (await self.get("/sync", **query))["next_batch"]

    async def read_up_to(self, room_id: str) -> str:
        """The last event that this person's clients have shown as read."""
        path = f"/user/{quote(self.user_id)}/rooms/{quote(room_id)}/account_data/m.fully_read"
        return str((await self.get(path))["event_id"])

    async def state(self, room_id: str, event_type: str, key: str = "") -> Json:
        return await self.get(f"/rooms/{quote(room_id)}/state/{event_type}/{quote(key)}")

    async def said_by(self, room_id: str, sender: str) -> list[Json]:
        """Somebody's messages, each in its last version; `edits` counts the versions after the
        first, `live` tells whether it still grows, `thread` is its root, `beside` what it is
        besides a reply."""
        shown: dict[str, Json] = {}
        for event in await self.timeline(room_id, "m.room.message"):
            content = event["content"]
            if event["sender"] != sender or not content:
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

        return await self._complete(room, lambda: self.said_by(room.room_id, room.ghost), count)

    async def _complete(
        self, room: "Room", probe: Callable[[], Awaitable[list[Json]]], count: int
    ) -> list[str]:
        done = await self.watch(
            room.room_id,
            probe,
            lambda all_: len(all_) >= count and not any(s["live"] for s in all_),
            f"{count} answers",
        )
        return [said["content"]["body"] for said in done]

    async def _relate(self, room_id: str, body: str, relation: Json) -> str:
        content = {"msgtype": "m.text", "body": body, "m.relates_to": relation}
        return await self.send_content(room_id, content)

    async def replies(self, room: "Room", count: int, thread: str = "") -> list[str]:
        """As `answers`, in one thread or outside of them, without what stands beside replies."""
        place = thread or room.thread

        async def probe() -> list[Json]:
            said = await self.said_by(room.room_id, room.ghost)
            return [one for one in said if one["thread"] == place and not one["beside"]]

        return await self._complete(room, probe, count)

    async def beside(self, room: "Room", kind: str) -> Json:
        """The last message of an agent that stands beside its replies, once there is one; in the
        room's thread, if it has one."""

        async def probe() -> list[Json]:
            return [one for one in await self.said(room) if one["beside"] == kind]

        return (await self.watch(room.room_id, probe, what=kind))[-1]

    async def said(self, room: "Room") -> list[Json]:
        """What the agent has said in a room, or in the thread that is meant; see `said_by`."""
        said = await self.said_by(room.room_id, room.ghost)
        return [one for one in said if room.thread in ("", one["thread"])]


@dataclass(frozen=True)
class Room:
    """An agent's room, or a thread of it, and the agent's user."""

    agent: AgentInfo
    room_id: str
    ghost: str
    thread: str = ""
