"""The human side: one account that writes messages and long-polls /sync for the answers."""

import asyncio
import itertools
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote

import aiohttp

Json = dict[str, Any]

_MARKER, _BESIDE = "org.letta.matrix", "beside"
_LIVE, _CURSOR = "org.matrix.msc4357.live", "▍"
"""What the bridge's messages have, as clients see it."""

_SYNC_SECONDS = 30
_NEVER = {"types": list[str]()}


@dataclass(frozen=True, slots=True)
class Sighting:
    """An event as it came down /sync; `at` is `time.monotonic()`."""

    at: float
    event: Json

    @property
    def text(self) -> str:
        """What a client shows: an edit's new text, without the cursor of interim versions."""
        content = cast("Json", self.event.get("content") or {})
        shown = cast("Json", content.get("m.new_content") or content)
        return str(shown.get("body", "")).removesuffix(_CURSOR).rstrip()

    @property
    def final(self) -> bool:
        """Whether no later version of it is to come."""
        return _LIVE not in self.event.get("content", {})

    @property
    def edits(self) -> str | None:
        """The event that this one replaces."""
        relation = self.event.get("content", {}).get("m.relates_to", {})
        return str(relation["event_id"]) if relation.get("rel_type") == "m.replace" else None

    @property
    def answers(self) -> str | None:
        """The message that this event of letta-matrix answers, by its marker."""
        return self._marker.get("in_reply_to")

    @property
    def beside(self) -> str | None:
        """What kind of notice beside a reply it is: `approval`, `trace` and so on."""
        return self._marker.get(_BESIDE)

    @property
    def _marker(self) -> Json:
        return self.event.get("content", {}).get(_MARKER, {})


@dataclass(slots=True)
class Recording:
    """What others wrote in a room since the recording began."""

    sightings: list[Sighting] = field(default_factory=list[Sighting])
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, sighting: Sighting) -> None:
        self.sightings.append(sighting)
        self._news.set()

    async def until(self, found: Callable[[Sighting], bool], timeout: float = 60.0) -> Sighting:
        """The first sighting that `found` accepts. Raises TimeoutError."""
        looked_at = 0
        async with asyncio.timeout(timeout):
            while True:
                self._news.clear()
                for sighting in self.sightings[looked_at:]:
                    looked_at += 1
                    if found(sighting):
                        return sighting
                await self._news.wait()

    async def answer_to(self, event_id: str, found: Callable[[Sighting], bool]) -> Sighting:
        """The first sighting that answers a message and that `found` accepts. Raises
        TimeoutError."""
        return await self.until(lambda seen: seen.answers == event_id and found(seen))


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds from the message's request to the first words, to the whole text, and to the last
    version of it."""

    event_id: str
    sent_at: float
    first: float
    full: float
    done: float


class Person:
    """One logged-in account. `follow` the rooms before talking in them."""

    def __init__(self, http: aiohttp.ClientSession, url: str, user_id: str, token: str) -> None:
        self.user_id = user_id
        self._http = http
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._recordings: dict[str, list[Recording]] = {}
        self._following: asyncio.Task[None] | None = None
        self._txn = itertools.count(1)

    async def call(self, method: str, path: str, body: object = None, **query: str) -> Json:
        """A request of the client-server API. Raises RuntimeError when it is refused."""
        async with self._http.request(
            method,
            f"{self._url}/_matrix/client/v3/{path}",
            json=body,
            params=query,
            headers=self._headers,
        ) as response:
            answer = cast("Json", await response.json())
            if response.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer}")
            return answer

    async def follow(self, rooms: Iterable[str]) -> None:
        """Sync these rooms and no others from now on; returns when it does."""
        await self.close()
        filter_id = await self._filter(list(rooms))
        first = await self.call("GET", "sync", filter=filter_id, timeout="0")
        self._following = asyncio.create_task(self._follow(filter_id, str(first["next_batch"])))

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def wait_joined(self, rooms: set[str], timeout: float = 60.0) -> None:
        """Wait until the account is in all these rooms. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not rooms <= await self._joined():  # noqa: ASYNC110 - the homeserver's doing
                await asyncio.sleep(0.2)

    @contextmanager
    def record(self, room: str) -> Generator[Recording]:
        """Record what others write in a room."""
        recording = Recording()
        recordings = self._recordings.setdefault(room, [])
        recordings.append(recording)
        try:
            yield recording
        finally:
            recordings.remove(recording)

    async def say(self, room: str, text: str, *, thread: str = "", msgtype: str = "m.text") -> str:
        """Send a message, into the thread whose root is `thread` if given; its event id."""
        content: Json = {"msgtype": msgtype, "body": text}
        if thread:
            content["m.relates_to"] = {
                "rel_type": "m.thread",
                "event_id": thread,
                "is_falling_back": True,
                "m.in_reply_to": {"event_id": thread},
            }
        return await self._send(room, "m.room.message", content)

    async def react(self, room: str, event_id: str, key: str) -> None:
        """React to an event."""
        relation = {"rel_type": "m.annotation", "event_id": event_id, "key": key}
        await self._send(room, "m.reaction", {"m.relates_to": relation})

    async def ask(
        self, room: str, text: str, reply: str, *, thread: str = "", timeout: float = 60.0
    ) -> Answer:
        """Send a message and wait for the answer `reply`. Raises TimeoutError.

        In a thread only events count that name the message as what they answer.
        """
        event_id = ""

        def begun(sighting: Sighting) -> bool:
            is_mine = not thread or sighting.answers == event_id
            return is_mine and bool(sighting.text) and reply.startswith(sighting.text)

        def is_full(sighting: Sighting) -> bool:
            return sighting.text == reply and begun(sighting)

        with self.record(room) as recording:
            sent_at = time.monotonic()
            event_id = await self.say(room, text, thread=thread)
            first = await recording.until(begun, timeout)
            full = await recording.until(is_full, timeout)
            done = await recording.until(
                lambda sighting: is_full(sighting) and sighting.final, timeout
            )
        first_s, full_s, done_s = (seen.at - sent_at for seen in (first, full, done))
        return Answer(event_id, sent_at, first_s, full_s, done_s)

    async def _send(self, room: str, kind: str, content: Json) -> str:
        path = f"rooms/{quote(room)}/send/{kind}/bench{next(self._txn)}"
        return str((await self.call("PUT", path, content))["event_id"])

    async def _joined(self) -> set[str]:
        return set((await self.call("GET", "joined_rooms"))["joined_rooms"])

    async def _filter(self, rooms: list[str]) -> str:
        wanted = {
            "presence": _NEVER,
            "account_data": _NEVER,
            "room": {
                "rooms": rooms,
                "timeline": {"limit": 100, "types": ["m.room.message"]},
                "state": _NEVER,
                "ephemeral": _NEVER,
                "account_data": _NEVER,
            },
        }
        answer = await self.call("POST", f"user/{quote(self.user_id)}/filter", wanted)
        return str(answer["filter_id"])

    async def _follow(self, filter_id: str, since: str) -> None:
        wait = str(_SYNC_SECONDS * 1000)
        while True:
            batch = await self.call("GET", "sync", filter=filter_id, since=since, timeout=wait)
            self._notice(batch, time.monotonic())
            since = str(batch["next_batch"])

    def _notice(self, batch: Json, at: float) -> None:
        joined = cast("dict[str, Json]", batch.get("rooms", {}).get("join", {}))
        for room, update in joined.items():
            for event in cast("list[Json]", update.get("timeline", {}).get("events", [])):
                if event.get("sender") != self.user_id:
                    for recording in self._recordings.get(room, []):
                        recording.add(Sighting(at, event))
