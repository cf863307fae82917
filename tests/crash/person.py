"""A person with an ordinary Matrix client: what they send, and what they see."""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
from tests.integration import people

from letta_matrix.matrix.content import BESIDE, LIVE, MARKER, thread_relation

Event = Mapping[str, Any]
T = TypeVar("T")
_PAGE = 50


@dataclass(frozen=True)
class Said:
    """A message as a client shows it: with the text of its latest edit."""

    sender: str
    event_id: str
    text: str
    kind: str
    live: bool
    answers: str
    edits: int
    beside: str
    thread: str


@dataclass
class Person:
    """Speaks the client-server API with a token of their own."""

    http: aiohttp.ClientSession
    url: str
    user_id: str
    token: str
    _pages: dict[str, tuple[str, tuple[Event, ...]]] = field(
        default_factory=dict[str, tuple[str, tuple[Event, ...]]]
    )
    """By room: where its last page begins, and what was said before."""
    _client: people.Person = field(init=False)

    def __post_init__(self) -> None:
        self._client = people.Person(self.http, self.url, self.user_id, self.token)

    async def watch(
        self,
        room_id: str,
        probe: Callable[[], Awaitable[T]],
        accept: Callable[[T], object] = bool,
        what: str = "",
    ) -> T:
        """As `eventually`, but looking again only when something has happened in the room."""
        return await self._client.watch(room_id, probe, accept, what)

    async def send(
        self, room_id: str, text: str, thread_id: str = "", *, kind: str = "m.text"
    ) -> str:
        """Send a message, in a thread if given; its event id."""
        content: dict[str, object] = {"msgtype": kind, "body": text}
        if thread_id:
            content["m.relates_to"] = thread_relation(thread_id, thread_id)
        return await self._send(room_id, "m.room.message", content)

    async def react(self, room_id: str, event_id: str, key: str) -> str:
        relation = {"rel_type": "m.annotation", "event_id": event_id, "key": key}
        return await self._send(room_id, "m.reaction", {"m.relates_to": relation})

    async def joined(self) -> set[str]:
        answer = await self.request("GET", "/_matrix/client/v3/joined_rooms")
        return set(answer["joined_rooms"])

    async def event(self, room_id: str, event_id: str) -> dict[str, Any]:
        return await self.request("GET", f"/_matrix/client/v3/rooms/{room_id}/event/{event_id}")

    async def said(self, room_id: str) -> list[Said]:
        """Everything said in a room, in the room's order."""
        start, before = self._pages.get(room_id, ("", ()))
        events, whole = list(before), True
        path = f"/_matrix/client/v3/rooms/{room_id}/messages"
        while True:
            query = {"dir": "f", "limit": str(_PAGE)} | ({"from": start} if start else {})
            page = await self.request("GET", path, query=query)
            events += page["chunk"]
            if "end" not in page or not page["chunk"]:
                return read(events)
            start, whole = page["end"], whole and len(page["chunk"]) == _PAGE
            if whole:
                self._pages[room_id] = start, tuple(events)

    async def request(
        self, method: str, path: str, body: object = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.http.request(
            method, f"{self.url}{path}", json=body, params=query, headers=headers
        ) as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == 200, f"{method} {path}: {response.status} {answer}"
            return answer

    async def _send(self, room_id: str, kind: str, content: object) -> str:
        path = f"/_matrix/client/v3/rooms/{room_id}/send/{kind}/{secrets.token_hex(8)}"
        return str((await self.request("PUT", path, content))["event_id"])


def read(events: list[Event]) -> list[Said]:
    """Messages with their latest edits (spec: Event replacements, by time, then by event id)."""
    messages = [event for event in events if event["type"] == "m.room.message"]
    edits: dict[str, list[Event]] = {}
    originals: list[Event] = []
    for event in messages:
        relation = event["content"].get("m.relates_to", {})
        if relation.get("rel_type") == "m.replace":
            edits.setdefault(relation["event_id"], []).append(event)
        else:
            originals.append(event)
    _assert_edits_fit(originals, edits)
    _assert_sent_once(messages)
    return [_said(event, edits.get(event["event_id"], [])) for event in originals]


def _said(original: Event, edits: list[Event]) -> Said:
    content = original["content"]
    relation = content.get("m.relates_to", {})
    if edits:
        latest = max(edits, key=lambda edit: (edit["origin_server_ts"], edit["event_id"]))
        content = latest["content"]["m.new_content"]
        assert (LIVE in content) == (LIVE in latest["content"])
    return Said(
        sender=original["sender"],
        event_id=original["event_id"],
        text=content["body"],
        kind=content["msgtype"],
        live=LIVE in content,
        answers=content.get(MARKER, {}).get("in_reply_to", ""),
        edits=len(edits),
        beside=content.get(MARKER, {}).get(BESIDE, ""),
        thread=relation["event_id"] if relation.get("rel_type") == "m.thread" else "",
    )


def _assert_edits_fit(originals: list[Event], edits: Mapping[str, list[Event]]) -> None:
    senders = {event["event_id"]: event["sender"] for event in originals}
    for target, versions in edits.items():
        assert {version["sender"] for version in versions} == {senders.get(target)}


def _assert_sent_once(messages: list[Event]) -> None:
    causes = [event["content"][MARKER]["txn"] for event in messages if MARKER in event["content"]]
    assert len(causes) == len(set(causes)), "the same request took effect twice"
