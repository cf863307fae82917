"""Somebody on the homeserver, driven by plain client-server calls.

People have an account and a token; agents are ghosts of the application service.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp

Json = dict[str, Any]
_txn_ids = itertools.count()


@dataclass
class MatrixUser:
    """An account and the few calls the tests need of it."""

    http: aiohttp.ClientSession
    homeserver_url: str
    user_id: str
    token: str
    password: str = ""
    impersonated: bool = False
    localpart: str = field(init=False)

    def __post_init__(self) -> None:
        self.localpart = self.user_id[1:].partition(":")[0]

    async def call(self, method: str, path: str, body: object = None) -> Json:
        """A call below `/_matrix/client`; raises on an error status."""
        headers = {"Authorization": f"Bearer {self.token}"}
        url = self._url(f"client{path}")
        async with self.http.request(
            method, url, json=body, headers=headers, raise_for_status=True
        ) as answer:
            return await answer.json()

    def _url(self, path: str) -> str:
        acting = f"{'&' if '?' in path else '?'}user_id={quote(self.user_id)}"
        return f"{self.homeserver_url}/_matrix/{path}{acting if self.impersonated else ''}"

    async def login_token(self) -> str:
        return (await self.call("POST", "/v1/login/get_token", {}))["login_token"]

    async def set_name(self, name: str) -> None:
        await self.call(
            "PUT", f"/v3/profile/{quote(self.user_id)}/displayname", {"displayname": name}
        )

    async def upload(self, data: bytes, content_type: str) -> str:
        """The uploaded file's mxc:// address."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        async with self.http.post(
            self._url("media/v3/upload"), data=data, headers=headers, raise_for_status=True
        ) as answer:
            return (await answer.json())["content_uri"]

    async def set_avatar(self, mxc: str) -> None:
        await self.call("PUT", f"/v3/profile/{quote(self.user_id)}/avatar_url", {"avatar_url": mxc})

    async def create_room(self, name: str, invite: list[str], **more: object) -> str:
        body = {"name": name, "invite": invite, "preset": "private_chat", **more}
        return (await self.call("POST", "/v3/createRoom", body))["room_id"]

    async def join(self, room: str) -> None:
        await self.call("POST", f"/v3/join/{quote(room)}", {})

    async def state(self, room: str, kind: str, content: Json, key: str = "") -> None:
        await self.call("PUT", f"/v3/rooms/{quote(room)}/state/{kind}/{quote(key)}", content)

    async def send(self, room: str, content: Json, kind: str = "m.room.message") -> str:
        """The new event's id."""
        path = f"/v3/rooms/{quote(room)}/send/{kind}/t{next(_txn_ids)}"
        return (await self.call("PUT", path, content))["event_id"]

    async def say(self, room: str, body: str, html: str | None = None, **more: object) -> str:
        return await self.send(room, message(body, html, **more))

    async def edit(
        self, room: str, event: str, body: str, html: str | None = None, **more: object
    ) -> None:
        new = message(body, html, **more)
        relation = {"rel_type": "m.replace", "event_id": event}
        await self.send(room, {**new, "m.new_content": new, "m.relates_to": relation})

    async def react(self, room: str, event: str, key: str) -> str:
        relation = {"rel_type": "m.annotation", "event_id": event, "key": key}
        return await self.send(room, {"m.relates_to": relation}, "m.reaction")

    async def redact(self, room: str, event: str) -> None:
        await self.call(
            "PUT", f"/v3/rooms/{quote(room)}/redact/{quote(event)}/t{next(_txn_ids)}", {}
        )

    async def typing(self, room: str, writes: bool) -> None:
        path = f"/v3/rooms/{quote(room)}/typing/{quote(self.user_id)}"
        await self.call("PUT", path, {"typing": writes, "timeout": 20000})

    async def mark_read(self, room: str, event: str) -> None:
        path = f"/v3/rooms/{quote(room)}/read_markers"
        await self.call("POST", path, {"m.fully_read": event, "m.read": event})

    async def event(self, room: str, event: str) -> Json:
        return await self.call("GET", f"/v3/rooms/{quote(room)}/event/{quote(event)}")

    async def messages(self, room: str) -> list[Json]:
        """The newest messages of a room, newest first."""
        answer = await self.call("GET", f"/v3/rooms/{quote(room)}/messages?dir=b&limit=50")
        return [event for event in answer["chunk"] if event["type"] == "m.room.message"]


def message(body: str, html: str | None = None, **more: object) -> Json:
    """A text message's content."""
    content: Json = {"msgtype": "m.text", "body": body, **more}
    if html is not None:
        content |= {"format": "org.matrix.custom.html", "formatted_body": html}
    return content
