"""Homeservers that are not Synapse, as strict as each is known to be: what one of them lacks is
refused in its words, and it pushes as it does.

What they do is told in docs/how-to/other-homeservers.md, with where it is known from.
"""

import asyncio
import re
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from tests.fake_homeserver import Answer, FakeHomeserver, Json, Request

BOT = "@letta:test"
_BOT_DEVICE = "letta"
_UNRECOGNIZED = {"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}


@dataclass(frozen=True, slots=True)
class Kind:
    """What one homeserver is like. `missing` are requests (`METHOD path`) that it does not know.

    `makes_bot`: the sender's account is there before anybody registers it; `bot_device`: with a
    session for the as_token; `knows_users`: nobody acts as a user who is not registered;
    `nulls`: a list with nothing in it is null; `sync`: application services may ask for one;
    `search_off`: what it says of searching; `patient`: what it could not push waits for the next
    event (or ping, where that is 0), and so many seconds for each failure; None: it tries again by
    itself.
    """

    name: str
    versions: tuple[str, ...]
    room_version: str
    missing: tuple[str, ...] = ()
    makes_bot: bool = True
    bot_device: bool = False
    knows_users: bool = False
    nulls: bool = False
    sync: bool = True
    search_off: Answer | None = None
    patient: float | None = None
    token_in_query: bool = True


_PING = r"POST /_matrix/client/v1/appservice/"
_ADMIN = r"\w+ /_synapse/"
DENDRITE = Kind(
    "Dendrite",
    ("r0.6.1", "v1.0", "v1.1", "v1.2"),
    "10",
    missing=(_PING, _ADMIN, r"GET /_matrix/client/v1/rooms/[^/]+/threads"),
    bot_device=True,
    knows_users=True,
    nulls=True,
    search_off=(501, {"errcode": "M_UNKNOWN", "error": "Search has been disabled"}),
    token_in_query=False,
)
CONTINUWUITY = Kind(
    "Continuwuity",
    ("r0.6.1", "v1.1", "v1.5", "v1.8", "v1.11", "v1.18"),
    "12",
    missing=(_ADMIN,),
    sync=False,
    patient=10.0,
)
TUWUNEL = Kind("Tuwunel", ("r0.6.1", "v1.1", "v1.7", "v1.11", "v1.19"), "11", patient=0.0)
OLD = Kind(
    "an old one",
    ("r0.6.1", "v1.1", "v1.5"),
    "9",
    missing=(_PING, _ADMIN, r"GET /_matrix/client/v1/media/"),
    makes_bot=False,
    knows_users=True,
)
KINDS = (DENDRITE, CONTINUWUITY, TUWUNEL, OLD)


class OtherHomeserver(FakeHomeserver):
    """A homeserver of some kind. `push_to` has it push each event to an application service;
    `pushed` are the ids of what arrived there, `failures` how often in a row nothing did."""

    def __init__(self, kind: Kind, as_token: str = "a") -> None:
        super().__init__()
        self.kind = kind
        self.room_version = kind.room_version
        self.as_token = as_token
        self.knows_token = True
        self.files: dict[str, bytes] = {}
        self.pushed: list[str] = []
        self.failures = 0
        if kind.makes_bot:
            self.users.add(BOT)
        if kind.bot_device:
            self.devices[BOT] = [_BOT_DEVICE]
        self._pushing: asyncio.Task[None] | None = None
        self._queue: list[Json] = []
        self._news = asyncio.Event()
        self._to = ("", "")

    def push_to(self, url: str, hs_token: str) -> None:
        """From now on push what happens to `url`."""
        self._to = url, hs_token
        self._pushing = self._pushing or asyncio.create_task(self._push())

    async def stop(self) -> None:
        if self._pushing is not None:
            self._pushing.cancel()
            await asyncio.gather(self._pushing, return_exceptions=True)
        await super().stop()

    def say(self, room_id: str, content: Json, who: str = "@ann:test") -> str:
        """Somebody sends a message."""
        return self._add(room_id, Request("PUT", "", who, content), "m.room.message")

    def tap(self, room_id: str, target: str, key: str, who: str = "@ann:test") -> None:
        """Somebody reacts to an event."""
        relation = {"rel_type": "m.annotation", "event_id": target, "key": key}
        self._add(room_id, Request("PUT", "", who, {"m.relates_to": relation}), "m.reaction")

    def come(self, room_id: str, who: str = "@ann:test") -> None:
        """Somebody joins."""
        self.members.setdefault(room_id, set()).add(who)
        self.set_state(room_id, "m.room.member", {"membership": "join"}, who, who)

    def push_again(self, *events: Json) -> None:
        """Push events in one transaction, which is named by the first of them."""
        self._queue.extend(events)
        self._news.set()

    def push_nowhere(self) -> None:
        """From now on nothing arrives."""
        self._to = "http://127.0.0.1:9", self._to[1]

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        path = http.path
        if "/download/" in path and http.method == "GET":
            return self._download(http)
        if path.endswith("/media/v3/upload"):
            name = f"file{len(self.files)}"
            self.files[f"test/{name}"] = await http.read()
            return web.json_response({"content_uri": f"mxc://test/{name}"})
        return await super()._handle(http)

    def _download(self, http: web.Request) -> web.StreamResponse:
        line = f"GET {http.path}"
        self.requests.append(Request("GET", http.path, http.query.get("user_id", ""), {}))
        is_new = "/client/v1/" in line
        if self._lacks(line) or (not is_new and not self._lacks("GET /_matrix/client/v1/media/")):
            return web.json_response(_UNRECOGNIZED, status=404)
        return web.Response(body=self.files["/".join(line.split("/")[-2:])])

    def _lacks(self, line: str) -> bool:
        return any(re.match(pattern, line) for pattern in self.kind.missing)

    def _answer(self, request: Request) -> Answer:
        kind, line = self.kind, request.line
        if self._lacks(line):
            return 404, _UNRECOGNIZED
        unknown = request.user_id not in (*self.users, "")
        if kind.knows_users and unknown:
            error = "appservice has not registered this user"
            return 403, {"errcode": "M_FORBIDDEN", "error": error}
        if not request.user_id and not self.knows_token and "versions" not in line:
            return 401, {"errcode": "M_UNKNOWN_TOKEN", "error": "Unknown token"}
        if re.match(_PING, line) and kind.patient == 0:
            self._news.set()
        if line.endswith("/client/versions"):
            return 200, {"versions": list(kind.versions)}
        if line.endswith("/federation/v1/version"):
            return 200, {"server": {"name": kind.name, "version": "1.0"}}
        if line.endswith("/account/whoami"):
            return 200, self._told_who(request)
        if line.endswith("/v3/search") and kind.search_off is not None:
            return kind.search_off
        if "/account_data/" in line:
            return 404, {"errcode": "M_NOT_FOUND", "error": "Data not found."}
        if line.endswith("/v3/sync") and not kind.sync:
            return 403, {"errcode": "M_FORBIDDEN", "error": "Appservices must masquerade"}
        status, answer = super()._answer(request)
        if kind.bot_device and line.endswith("/logout/all") and request.user_id == BOT:
            self.knows_token = False
        if kind.nulls and status == 200:
            answer = {key: None if value == [] else value for key, value in answer.items()}
        return status, answer

    def _told_who(self, request: Request) -> Json:
        if request.user_id:
            return {"user_id": request.user_id, "device_id": "AS_Device"}
        return {"user_id": BOT} | ({"device_id": _BOT_DEVICE} if self.kind.bot_device else {})

    def _add(self, room_id: str, request: Request, event_type: str, **more: object) -> str:
        event_id = super()._add(room_id, request, event_type, **more)
        self._queue.append(self.events[room_id][-1])
        self._news.set()
        return event_id

    async def _push(self) -> None:
        loop, failed_at = asyncio.get_running_loop(), -1e9
        async with aiohttp.ClientSession() as http:
            while True:
                await self._news.wait()
                self._news.clear()
                if loop.time() - failed_at < (self.kind.patient or 0) * self.failures:
                    continue  # until the next event
                while self._queue:
                    batch = self._queue[:50]
                    if not await self._arrives(http, batch):
                        self.failures, failed_at = self.failures + 1, loop.time()
                        if self.kind.patient is None:
                            self._news.set()
                            await asyncio.sleep(0.05)
                        break
                    self.failures, self._queue = 0, self._queue[len(batch) :]

    async def _arrives(self, http: aiohttp.ClientSession, batch: list[Json]) -> bool:
        url, token = self._to
        # One transaction is known by its first event, however many it holds at a next try.
        address = f"{url}/_matrix/app/v1/transactions/{batch[0]['event_id'][1:]}"
        address += f"?access_token={token}" if self.kind.token_in_query else ""
        headers = {"Authorization": f"Bearer {token}"}
        try:
            async with http.put(address, json={"events": batch}, headers=headers) as response:
                if response.status != 200:
                    return False
        except aiohttp.ClientError:
            return False
        self.pushed += [one["event_id"] for one in batch]
        return True
