"""A homeserver that answers at once, for what the bridge alone can do.

Runs as `python -m bench.instant_homeserver SETTINGS.json`. `POST /load {"turns": N}` lets a person
write in the rooms of all agents, in each anew as soon as the agent has answered, until N answers
are there, and tells the seconds it took. Events reach the bridge as from Synapse: one transaction
at a time, with up to 100 of what has come meanwhile.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from tests.fake_homeserver import FakeHomeserver

from letta_matrix.matrix.identifiers import is_ours

_FREQUENT = re.compile(r"/rooms/([^/]+)/(?:send/(m\.room\.message)|receipt|typing)")
_MOST = 100
"""Events of a transaction."""


class InstantHomeserver(FakeHomeserver):
    """What happens in every turn is neither parsed nor kept."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.port = int(settings["port"])
        self._bridge = str(settings["bridge"])
        self._hs_token = str(settings["hs_token"])
        self._person = str(settings["person"])
        self._bot = str(settings["bot"])
        self._numbers_sent = iter(range(1, 2**62))
        self._waiting: list[dict[str, Any]] = []
        self._came = asyncio.Event()
        self._open = 0
        self._left = 0
        self._done = asyncio.Event()

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        path = http.path
        if path == "/health":
            return web.json_response({})
        if path == "/load":
            return web.json_response(await self._load(int((await http.json())["turns"])))
        frequent = _FREQUENT.search(path)
        if frequent is None:
            return await super()._handle(http)
        if frequent[2]:
            content = await http.json()
            if "m.relates_to" not in content:
                self._answered(frequent[1])
        return web.json_response({"event_id": f"$own{next(self._numbers_sent)}"})

    async def _load(self, turns: int) -> dict[str, float]:
        rooms = list(self._agents_rooms())
        self._left, self._open = turns - min(turns, len(rooms)), min(turns, len(rooms))
        self._done.clear()
        pushing = asyncio.create_task(self._push())
        began = time.monotonic()
        for room in rooms[: self._open]:
            self._say(room)
        await self._done.wait()
        took = time.monotonic() - began
        pushing.cancel()
        return {"seconds": took, "rooms": len(rooms)}

    def _agents_rooms(self) -> Iterator[str]:
        for room, members in self.members.items():
            agents = [one for one in members if is_ours(one, self._bot) and one != self._bot]
            if agents and self._person in members:
                yield room

    def _answered(self, room: str) -> None:
        self._open -= 1
        if self._left:
            self._left -= 1
            self._open += 1
            self._say(room)
        elif not self._open:
            self._done.set()

    def _say(self, room: str) -> None:
        number = next(self._numbers_sent)
        self._waiting.append(
            {
                "type": "m.room.message",
                "event_id": f"$said{number}",
                "room_id": room,
                "sender": self._person,
                "origin_server_ts": int(time.time() * 1000),
                "content": {"msgtype": "m.text", "body": f"message {number}"},
            }
        )
        self._came.set()

    async def _push(self) -> None:
        headers = {"Authorization": f"Bearer {self._hs_token}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            while True:
                await self._came.wait()
                events, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                if not self._waiting:
                    self._came.clear()
                txn = f"txn{next(self._numbers_sent)}"
                url = f"{self._bridge}/_matrix/app/v1/transactions/{txn}"
                async with http.put(url, json={"events": events}) as response:
                    response.raise_for_status()


async def _serve(settings: dict[str, Any]) -> None:
    await InstantHomeserver(settings).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(Path(sys.argv[1]).read_text())))
