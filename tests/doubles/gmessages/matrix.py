"""The double as an application service: its registration, and what it does on the homeserver."""

import json
import secrets
from typing import Any
from urllib.parse import quote

import aiohttp

Json = dict[str, Any]

PREFIX = "gmessages"


class Refused(Exception):
    """The homeserver does not take what the double wants."""


def registration(port: int) -> Json:
    """What the homeserver reads of it."""
    return {
        "id": PREFIX,
        "url": f"http://127.0.0.1:{port}",
        "as_token": secrets.token_hex(32),
        "hs_token": secrets.token_hex(32),
        "rate_limited": False,
        "receive_ephemeral": True,
        "sender_localpart": f"{PREFIX}bot",
        "namespaces": {
            "users": [{"regex": f"@{PREFIX}_.*", "exclusive": True}],
            "aliases": [],
            "rooms": [],
        },
    }


class Matrix:
    """Calls the client-server API as one of its users."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str, domain: str) -> None:
        self._http, self._url, self._token = http, url, token
        self.domain = domain
        self.bot = f"@{PREFIX}bot:{domain}"

    def is_own(self, user_id: str) -> bool:
        return user_id == self.bot or user_id.startswith(f"@{PREFIX}_")

    async def call(self, method: str, path: str, body: Json | None = None, who: str = "") -> Json:
        """A request, its path after `/_matrix/client/v3`. Raises Refused."""
        headers = {"Authorization": f"Bearer {self._token}"}
        url, query = f"{self._url}/_matrix/client/v3{path}", {"user_id": who or self.bot}
        data = None if method == "GET" else json.dumps(body or {})
        async with self._http.request(
            method, url, data=data, headers=headers, params=query
        ) as response:
            answer: Json = await response.json()
            if response.status != 200 and answer.get("errcode") != "M_USER_IN_USE":
                raise Refused(f"{method} {path}: {answer}")
            return answer

    async def make_user(self, user_id: str, profile: Json) -> None:
        """A ghost, with what its profile says."""
        body = {
            "type": "m.login.application_service",
            "username": user_id[1:].partition(":")[0],
            "inhibit_login": True,
        }
        await self.call("POST", "/register", body)
        for key, value in profile.items():
            await self.call("PUT", f"/profile/{quote(user_id)}/{key}", {key: value}, user_id)

    async def say(self, room_id: str, content: Json, who: str = "", kind: str = "") -> str:
        """An event of the timeline; its id."""
        path = f"/rooms/{quote(room_id)}/send/{kind or 'm.room.message'}/{secrets.token_hex(8)}"
        return str((await self.call("PUT", path, content, who))["event_id"])

    async def upload(self, data: bytes, media_type: str) -> str:
        """A file; its address."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": media_type}
        url = f"{self._url}/_matrix/media/v3/upload"
        async with self._http.post(url, data=data, headers=headers) as response:
            return str((await response.json())["content_uri"])

    async def download(self, mxc: str) -> bytes:
        """What is behind an address, as the bot gets it. Raises Refused."""
        headers = {"Authorization": f"Bearer {self._token}"}
        url = f"{self._url}/_matrix/client/v1/media/download/{mxc.removeprefix('mxc://')}"
        async with self._http.get(url, headers=headers) as response:
            if response.status != 200:
                raise Refused(f"{mxc}: {response.status}")
            return await response.read()

    async def set_state(self, room_id: str, kind: str, key: str, content: Json) -> None:
        path = f"/rooms/{quote(room_id)}/state/{kind}/{quote(key, safe='')}"
        await self.call("PUT", path, content)

    async def members(self, room_id: str) -> list[str]:
        answer = await self.call("GET", f"/rooms/{quote(room_id)}/joined_members")
        return list(answer["joined"])

    async def act(self, room_id: str, what: str, who: str = "", **body: str) -> None:
        """Join, leave, kick or invite."""
        await self.call("POST", f"/rooms/{quote(room_id)}/{what}", dict(body), who)
