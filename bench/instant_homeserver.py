"""A homeserver that answers at once, for what bridges alone can do.

Runs as `python -m bench.instant_homeserver SETTINGS.json`. Events reach the bridge as from Synapse:
one transaction at a time, with up to 100 of what has come meanwhile; several replicas get them by
turns. What a person does is told by POST:

    /load {"turns": N}     writes in the rooms of all agents, in each anew as soon as the agent has
                           answered, until N answers are there; tells the seconds it took
    /queue {"turns": N}    writes N messages, room by room in turns; tells the seconds until all of
                           them are taken. In each room every other one of the first 2 * GATES
                           keeps its agent, until the next
    /release               lets them go on, one after the other in all rooms at once; tells `heads`,
                           the seconds from each of those moments until the answer to the message
                           behind in each room, the `rate` of answers a second from the last of them
                           to the end, and whether each came once, in order
    /rooms {ROOM: USER}    believes that there are these rooms, with the bot and their users
"""

import asyncio
import itertools
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from tests.fake_homeserver import FakeHomeserver

_FREQUENT = re.compile(r"/rooms/([^/]+)/(?:send/(m\.room\.message)/([^/?]+)|receipt|typing)")
_NUMBER = re.compile(r"message (\d+)")
_MOST = 100
"""Events of a transaction."""
GATES = 10
"""How often an agent is kept: one time alone depends on what else the machine does."""


class InstantHomeserver(FakeHomeserver):
    """What happens in every turn is neither parsed nor kept."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.port = int(settings["port"])
        self._bridges = itertools.cycle([str(bridge) for bridge in settings["bridges"]])
        self._hs_token = str(settings["hs_token"])
        self._person = str(settings["person"])
        self._bot = str(settings["bot"])
        self._numbers_sent = iter(range(1, 2**62))
        self._waiting: list[dict[str, Any]] = []
        self._came, self._taken = asyncio.Event(), asyncio.Event()
        self._open = 0
        self._left = 0
        self._done = asyncio.Event()
        self._passed, self._remain = asyncio.Event(), 0
        """Set when so many are open still."""
        self._gates = [Path(f"{settings['gate']}{number}") for number in range(GATES)]
        self._queued = defaultdict[str, list[int]](list)
        self._answers = defaultdict[str, dict[str, tuple[int, float]]](dict)
        """By room and txn id: which message is answered, and when that came."""

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        told = {"/load": self._load, "/queue": self._queue, "/rooms": self._believe}
        match http.path:
            case "/health":
                return web.json_response({})
            case "/release":
                return web.json_response(await self._release())
            case path if path in told:
                return web.json_response(await told[path](await http.json()))
            case path:
                frequent = _FREQUENT.search(path)
        if frequent is None:
            return await super()._handle(http)
        if frequent[2]:
            content = await http.json()
            if content.get("m.relates_to", {}).get("rel_type") != "m.replace":
                self._answered(frequent[1], frequent[3], content["body"])
        return web.json_response({"event_id": f"$own{next(self._numbers_sent)}"})

    async def _load(self, asked: dict[str, int]) -> dict[str, float]:
        rooms, turns = list(self._agents_rooms()), asked["turns"]
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

    async def _queue(self, asked: dict[str, int]) -> dict[str, float]:
        rooms = list(self._agents_rooms())
        for gate in self._gates:
            gate.unlink(missing_ok=True)
        self._queued.clear()
        self._answers.clear()
        self._open, self._left = asked["turns"], 0
        self._done.clear()
        self._taken.clear()
        began = time.monotonic()
        for place in range(asked["turns"]):
            room, before = rooms[place % len(rooms)], place // len(rooms)
            held = before < 2 * GATES and before % 2 == 0
            word = f"held:{self._gates[before // 2]} " if held else ""
            self._queued[room].append(self._say(room, word))
        pushing = asyncio.create_task(self._push())
        await self._taken.wait()
        pushing.cancel()
        return {"seconds": time.monotonic() - began}

    async def _release(self) -> dict[str, Any]:
        heads, left, began = list[float](), 0, 0.0
        for number, gate in enumerate(self._gates):
            left, began = self._open, time.monotonic()
            self._remain = left - 2 * len(self._queued) if number + 1 < GATES else 0
            self._passed.clear()
            gate.touch()
            await self._passed.wait()
            heads += [
                [*given.values()][2 * number + 1][1] - began for given in self._answers.values()
            ]
        rate = left / (time.monotonic() - began)
        answers = {room: [*given.values()] for room, given in self._answers.items()}
        told = {room: [number for number, _ in given] for room, given in answers.items()}
        return {"rate": rate, "heads": heads, "in_order": told == self._queued}

    async def _believe(self, rooms: dict[str, str]) -> dict[str, float]:
        for room, user in rooms.items():
            self.users.add(user)
            self.members[room] = {user, self._bot, self._person}
        return {}

    def _agents_rooms(self) -> Iterator[str]:
        for room, members in self.members.items():
            agents = [one for one in members if one.startswith("@agent_")]
            if agents and self._person in members:
                yield room

    def _answered(self, room: str, txn: str, body: str) -> None:
        if self._queued:
            if txn in self._answers[room]:
                # Of a bridge that was killed before it knew.
                return
            number = int(_NUMBER.findall(body)[-1])
            self._answers[room][txn] = number, time.monotonic()
        self._open -= 1
        if self._open == self._remain:
            self._passed.set()
        if self._left:
            self._left -= 1
            self._open += 1
            self._say(room)
        elif not self._open:
            self._done.set()

    def _say(self, room: str, word: str = "") -> int:
        number = next(self._numbers_sent)
        self._waiting.append(
            {
                "type": "m.room.message",
                "event_id": f"$said{number}",
                "room_id": room,
                "sender": self._person,
                "origin_server_ts": int(time.time() * 1000),
                "content": {"msgtype": "m.text", "body": f"{word}message {number}"},
            }
        )
        self._came.set()
        return number

    async def _push(self) -> None:
        headers = {"Authorization": f"Bearer {self._hs_token}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            while True:
                await self._came.wait()
                events, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                if not self._waiting:
                    self._came.clear()
                txn = f"txn{next(self._numbers_sent)}"
                url = f"{next(self._bridges)}/_matrix/app/v1/transactions/{txn}"
                async with http.put(url, json={"events": events}) as response:
                    response.raise_for_status()
                if not self._waiting:
                    self._taken.set()


async def _serve(settings: dict[str, Any]) -> None:
    await InstantHomeserver(settings).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(Path(sys.argv[1]).read_text())))
