"""Agents' rooms made by bare calls: exactly the requests that letta-matrix's provisioner sends."""

import asyncio
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote

import aiohttp
from PIL import Image

from bench.homeserver import FLOOR_PREFIX, Homeserver
from bench.scene import Scene
from letta_matrix.stack.synapse import SERVER_NAME

_SERVICE = "io.element.functional_members"
"""MSC4171."""
_VIA = {"via": [SERVER_NAME]}
_WHO_SEES = "m.room.history_visibility"


@dataclass
class BareAgents:
    """Ghosts of the echo appservice, each with a room, all in a space."""

    homeserver: Homeserver
    http: aiohttp.ClientSession
    person: str
    rooms: list[str] = field(default_factory=list[str])
    _space: str = ""

    async def prepare(self) -> None:
        """Register the bot and make the space, as letta-matrix does before its first agent."""
        bot = self.homeserver.floor.bot
        await self._register(bot)
        space = {
            "name": "Floor",
            "preset": "private_chat",
            "creation_content": {"type": "m.space"},
            "invite": [self.person],
        }
        made = await self._call("POST", "v3/createRoom", space, as_user=_user(bot))
        self._space = str(made["room_id"])

    async def make(self, numbers: Iterable[int], concurrency: int) -> None:
        """Make agents, `concurrency` at once."""
        slots = asyncio.Semaphore(concurrency)

        async def one(number: int) -> str:
            async with slots:
                return await self._make(f"{FLOOR_PREFIX}{number:08d}_0000", f"Floor {number}")

        self.rooms += await asyncio.gather(*[one(number) for number in numbers])

    async def _make(self, localpart: str, name: str) -> str:
        ghost, bot = _user(localpart), _user(self.homeserver.floor.bot)
        await self._register(localpart)
        profile = f"v3/profile/{quote(ghost)}"
        _, avatar = await asyncio.gather(
            self._call("PUT", f"{profile}/displayname", {"displayname": name}, as_user=ghost),
            self._avatar(ghost, profile),
        )
        content = self._room(localpart, name, avatar)
        made = await self._call("POST", "v3/createRoom", content, as_user=ghost)
        room = str(made["room_id"])
        await self._call("GET", f"v3/rooms/{quote(room)}/state/m.room.encryption", as_user=ghost)
        child = f"v3/rooms/{quote(self._space)}/state/m.space.child/{quote(room)}"
        await asyncio.gather(
            self._call("POST", f"v3/rooms/{quote(room)}/join", {}, as_user=bot),
            self._call("PUT", child, _VIA, as_user=bot),
        )
        return room

    async def _avatar(self, ghost: str, profile: str) -> str:
        uploaded = await self._call("POST", "upload", _picture(), as_user=ghost)
        mxc = str(uploaded["content_uri"])
        await self._call("PUT", f"{profile}/avatar_url", {"avatar_url": mxc}, as_user=ghost)
        return mxc

    async def _register(self, localpart: str) -> None:
        kind = "m.login.application_service"
        body = {"type": kind, "username": localpart, "inhibit_login": True}
        await self._call("POST", "v3/register", body)

    def _room(self, localpart: str, name: str, avatar: str) -> dict[str, Any]:
        parent = {**_VIA, "canonical": True}
        bot = _user(self.homeserver.floor.bot)
        return {
            "name": f"{name} - Letta Agent Chat",
            "topic": f"{name} is a Letta agent. Write here and it answers.",
            "room_alias_name": localpart,
            "preset": "private_chat",
            "invite": [bot, self.person],
            "power_level_content_override": {"invite": 10, "users": {self.person: 100}},
            "creation_content": {"additional_creators": [bot]},
            "initial_state": [
                {"type": _SERVICE, "content": {"service_members": [bot]}},
                {"type": "m.space.parent", "state_key": self._space, "content": parent},
                {"type": "m.room.avatar", "content": {"url": avatar}},
                {"type": _WHO_SEES, "content": {"history_visibility": "invited"}},
            ],
        }

    async def _call(
        self, method: str, path: str, body: object = None, *, as_user: str | None = None
    ) -> dict[str, Any]:
        root = "media/v3/" if path == "upload" else "client/"
        content: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
        headers = {"Authorization": f"Bearer {self.homeserver.floor.as_token}"}
        async with self.http.request(
            method,
            f"{self.homeserver.url}/_matrix/{root}{path}",
            params={"user_id": as_user} if as_user else {},
            headers=headers | ({"Content-Type": "image/png"} if path == "upload" else {}),
            **content,
        ) as response:
            answer = cast("dict[str, Any]", await response.json())
            if response.status >= 400 and method != "GET":
                raise RuntimeError(f"{method} {path}: {answer}")
            return answer


async def floor_room(scene: Scene) -> str:
    """A room of the echo appservice, made unless there is one."""
    if not scene.floor_rooms:
        bare = BareAgents(scene.homeserver, scene.http, scene.person.user_id)
        await bare.prepare()
        await bare.make(range(1), 1)
        scene.floor_rooms = bare.rooms
        await scene.person.wait_joined(set(bare.rooms))
    return scene.floor_rooms[0]


def _picture() -> bytes:
    """As large as a generated avatar."""
    file = io.BytesIO()
    Image.radial_gradient("L").quantize(64).save(file, "PNG")
    return file.getvalue()


def _user(localpart: str) -> str:
    return f"@{localpart}:{SERVER_NAME}"
