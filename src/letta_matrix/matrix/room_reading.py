"""What one of our users sees of its rooms."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mautrix.api import ClientPath, Method, PathBuilder
from mautrix.errors import MNotFound

from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.events import items, mapping
from letta_matrix.matrix.homeserver import Homeserver

_SEARCH_BACK = 50

Event = dict[str, Any]


class Page(NamedTuple):
    """Events, newest first; `end` is the token of the next, older page, "" after the last."""

    events: list[Event]
    end: str


@dataclass(frozen=True, slots=True)
class RoomReader:
    """Reads the client-server API as `user_id`, which must be in our namespace.

    Methods raise MatrixRequestError for what the homeserver refuses and HomeserverUnavailable
    when it does not answer.
    """

    homeserver: Homeserver
    user_id: str

    async def resolve_alias(self, alias: str) -> str | None:
        """The room an alias points to."""
        try:
            answer = await self._get(ClientPath.v3.directory.room[alias])
        except MNotFound:
            return None
        return str(answer["room_id"])

    async def joined_rooms(self) -> list[str]:
        answer = await self._get(ClientPath.v3.joined_rooms)
        return [str(room_id) for room_id in items(answer.get("joined_rooms")) or []]

    async def members(self, room_id: str) -> set[str]:
        """Who is in a room or invited to it."""
        answer = await self._get(ClientPath.v3.rooms[room_id].members)
        return {
            str(event["state_key"])
            for event in answer.get("chunk", [])
            if event.get("content", {}).get("membership") in ("join", "invite")
        }

    async def joined_members(self, room_id: str) -> dict[str, str]:
        """Who is in a room: user ids with display names, the id's localpart where there is
        none."""
        answer = await self._get(ClientPath.v3.rooms[room_id].joined_members)
        joined = mapping(answer.get("joined"))
        return {
            str(user_id): str(mapping(member).get("display_name") or _localpart(str(user_id)))
            for user_id, member in joined.items()
        }

    async def state(self, room_id: str, event_type: str, state_key: str = "") -> Event:
        """The content of a state event; empty if there is none."""
        path = ClientPath.v3.rooms[room_id].state[event_type]
        try:
            return await self._get(path[state_key] if state_key else path)
        except MNotFound:
            return {}

    async def room_name(self, room_id: str) -> str:
        """A room's name (`m.room.name`), "" if it has none."""
        name = (await self.state(room_id, "m.room.name")).get("name")
        return name if isinstance(name, str) else ""

    async def event(self, room_id: str, event_id: str) -> Event:
        """One event. Raises MNotFound if there is none that `user_id` may see."""
        return await self._get(ClientPath.v3.rooms[room_id].event[event_id])

    async def relations(
        self, room_id: str, event_id: str, rel_type: str = "", *, limit: int = _SEARCH_BACK
    ) -> list[Event]:
        """The newest events that relate to one (spec: Relationships API), newest first."""
        path = ClientPath.v1.rooms[room_id].relations[event_id]
        query = {"limit": str(limit), "dir": "b"}
        return _events((await self._get(path[rel_type] if rel_type else path, query)).get("chunk"))

    async def messages(
        self,
        room_id: str,
        *,
        limit: int = _SEARCH_BACK,
        before: str = "",
        filters: Mapping[str, Any] | None = None,
        give_up_after: float | None = 60.0,
    ) -> Page:
        """A page of a room's events that match `filters` (a RoomEventFilter), back from the
        newest or from the token `before`."""
        query = {"dir": "b", "limit": str(limit), "filter": json.dumps(filters or {})}
        query |= {"from": before} if before else {}
        answer = await self._get(ClientPath.v3.rooms[room_id].messages, query, give_up_after)
        return Page(_events(answer.get("chunk")), str(answer.get("end") or ""))

    async def recent_events(
        self,
        room_id: str,
        *,
        filters: Mapping[str, Any] | None = None,
        give_up_after: float | None = 60.0,
    ) -> list[Event]:
        """A room's newest 50 events that match `filters` (a RoomEventFilter), oldest first."""
        page = await self.messages(room_id, filters=filters, give_up_after=give_up_after)
        return page.events[::-1]

    async def find_sent(
        self, room_id: str, txn_id: str, *, give_up_after: float | None = 60.0
    ) -> str | None:
        """The id of our own recent event with this txn id in its marker."""
        events = await self.recent_events(
            room_id, filters={"senders": [self.user_id]}, give_up_after=give_up_after
        )
        for event in events:
            if mapping(mapping(event.get("content")).get(MARKER)).get("txn") == txn_id:
                return str(event["event_id"])
        return None

    async def _get(
        self,
        path: PathBuilder,
        query: Mapping[str, str] | None = None,
        give_up_after: float | None = 60.0,
    ) -> dict[str, Any]:
        return await self.homeserver.request(
            Method.GET, path, user_id=self.user_id, query=query, give_up_after=give_up_after
        )


def _events(chunk: object) -> list[Event]:
    events: Sequence[Any] = items(chunk) or []
    return [dict(mapping(event)) for event in events]


def _localpart(user_id: str) -> str:
    return user_id[1:].partition(":")[0]
