"""What one of our users sees of its rooms."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from mautrix.api import ClientPath, Method, PathBuilder
from mautrix.errors import MatrixRequestError, MForbidden, MNotFound

from letta_matrix.common.json_fields import Json, items, mapping
from letta_matrix.matrix import answers
from letta_matrix.matrix.answers import Shape
from letta_matrix.matrix.errors import ServerSilent, is_about_another
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.power_levels import is_powerful
from letta_matrix.matrix.requests import Requests

_SEARCH_BACK = 50
_ASK_FOR = 20.0
"""Seconds that a question is tried that other servers or an index answer."""
_ELSEWHERE = 10.0
_NONE = {"types": list[str]()}


class Page(NamedTuple):
    """Events in the order of the direction that was read in; `start` is the token before the
    first, `end` the one of the next page, "" after the last."""

    events: list[Json]
    end: str
    start: str = ""


class Around(NamedTuple):
    """An event, and what came before (newest first) and after it (oldest first). `state` is that
    of the room at the last of them, of its members only those who wrote here."""

    event: Json
    before: Page
    after: Page
    state: list[Json]


class Snapshot(NamedTuple):
    """The newest events of a room, oldest first, and its receipts (spec: `m.receipt`)."""

    events: list[Json]
    receipts: Mapping[str, Any]
    marker: str = ""
    """What `m.fully_read` points to."""


@dataclass(frozen=True, slots=True)
class RoomReader:
    """Reads the client-server API as `user_id`, which must be in our namespace.

    Methods raise MatrixRequestError for what the homeserver refuses and HomeserverUnavailable
    when it does not answer.
    """

    homeserver: Requests
    user_id: str

    @asynccontextmanager
    async def asking(self, whom: str, seconds: float = _ELSEWHERE) -> AsyncGenerator[None]:
        """Raises ServerSilent where the block takes the answer of another server than ours, that
        of a user or an alias, and it does not come in time: homeservers wait for a minute."""
        server = whom.partition(":")[2]
        if server == self.user_id.partition(":")[2]:
            yield
            return
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise ServerSilent(server, seconds) from None

    async def resolve_alias(self, alias: str) -> str | None:
        """The room an alias points to, None if there is none or its server does not answer."""
        try:
            async with self.asking(alias):
                answer = await self._get(ClientPath.v3.directory.room[alias], answers.room_id)
        except MatrixRequestError as error:
            if error.http_status == 404 or is_about_another(error):
                return None
            raise
        return str(answer["room_id"])

    async def joined_rooms(self) -> list[str]:
        shape = answers.having("joined_rooms", list)
        answer = await self._get(ClientPath.v3.joined_rooms, shape)
        return [str(room_id) for room_id in items(answer.get("joined_rooms")) or []]

    async def members(self, room_id: str) -> set[str]:
        """Who is in a room or invited to it."""
        answer = await self._get(ClientPath.v3.rooms[room_id].members, answers.chunk)
        return {
            str(event.get("state_key"))
            for event in _events(answer["chunk"])
            if mapping(event.get("content")).get("membership") in ("join", "invite")
        }

    async def joined_members(self, room_id: str) -> dict[str, str]:
        """Who is in a room: user ids with display names, the id's localpart where there is
        none."""
        shape = answers.having("joined")
        answer = await self._get(ClientPath.v3.rooms[room_id].joined_members, shape)
        joined = mapping(answer.get("joined"))
        return {
            str(user_id): str(mapping(member).get("display_name") or _localpart(str(user_id)))
            for user_id, member in joined.items()
        }

    async def state(self, room_id: str, event_type: str, state_key: str = "") -> Json:
        """The content of a state event; empty if there is none."""
        try:
            return await self.existing_state(room_id, event_type, state_key)
        except MNotFound:
            return {}

    async def existing_state(self, room_id: str, event_type: str, state_key: str = "") -> Json:
        """The content of a state event. Raises MNotFound if there is none."""
        path = ClientPath.v3.rooms[room_id].state[event_type]
        return await self._get(path[state_key] if state_key else path, answers.content)

    async def state_event(self, room_id: str, event_type: str, state_key: str = "") -> Json:
        """A whole state event, with its sender. Raises MNotFound if there is none."""
        path = ClientPath.v3.rooms[room_id].state[event_type]
        path = path[state_key] if state_key else path
        return await self._get(path, answers.event, {"format": "event"})

    async def has_power(self, room_id: str, *, give_up_after: float | None = 60.0) -> bool | None:
        """Whether the user may invite to a room and change its state, or has made it; None where
        it is not let in."""
        state = ClientPath.v3.rooms[room_id].state
        whole, levels = {"format": "event"}, dict[str, Any]()
        try:
            made = await self._get(state["m.room.create"], answers.event, whole, give_up_after)
            # Where a room has none, whoever made it has power.
            with contextlib.suppress(MNotFound):
                path = state["m.room.power_levels"]
                levels = await self._get(path, answers.content, give_up_after=give_up_after)
        except MForbidden:
            return None
        return is_powerful(levels, made, self.user_id)

    async def room_name(self, room_id: str) -> str:
        """A room's name (`m.room.name`), "" if it has none."""
        name = (await self.state(room_id, "m.room.name")).get("name")
        return name if isinstance(name, str) else ""

    async def event(self, room_id: str, event_id: str) -> Json:
        """One event. Raises MNotFound if there is none that `user_id` may see."""
        return await self._get(ClientPath.v3.rooms[room_id].event[event_id], answers.event)

    async def relations(
        self, room_id: str, event_id: str, rel_type: str = "", *, limit: int = _SEARCH_BACK
    ) -> list[Json]:
        """The newest events that relate to one (spec: Relationships API), newest first."""
        path = ClientPath.v1.rooms[room_id].relations[event_id]
        query = {"limit": str(limit), "dir": "b"}
        path = path[rel_type] if rel_type else path
        return _events((await self._get(path, answers.chunk, query))["chunk"])

    async def messages(
        self,
        room_id: str,
        *,
        limit: int = _SEARCH_BACK,
        before: str = "",
        after: str = "",
        filters: Mapping[str, Any] | None = None,
        give_up_after: float | None = 60.0,
    ) -> Page:
        """A page of a room's events that match `filters` (a RoomEventFilter): back from the
        newest or from the token `before`, or on from the token `after`."""
        query = {"dir": "f" if after else "b", "limit": str(limit)}
        query |= {"filter": json.dumps(filters or {})}
        query |= {"from": after or before} if after or before else {}
        path = ClientPath.v3.rooms[room_id].messages
        answer = await self._get(path, answers.chunk, query, give_up_after)
        return _page(answer.get("chunk"), answer.get("end"), answer.get("start"))

    async def thread(self, room_id: str, root: str, *, limit: int, before: str = "") -> Page:
        """A page of a thread's messages, back from the newest (spec: Threading). Raises
        MatrixRequestError (404) if `root` is no event."""
        path = ClientPath.v1.rooms[room_id].relations[root]["m.thread"]
        query = {"dir": "b", "limit": str(limit)} | ({"from": before} if before else {})
        answer = await self._get(path, answers.chunk, query)
        return _page(answer.get("chunk"), answer.get("next_batch"), before)

    async def around(
        self, room_id: str, event_id: str, *, limit: int, filters: Mapping[str, Any] | None = None
    ) -> Around:
        """An event with `limit` others around it that match `filters` (spec: Event context).
        Raises MNotFound if there is none that `user_id` may see."""
        query = {"limit": str(limit), "filter": json.dumps(filters or {})}
        path = ClientPath.v3.rooms[room_id].context[event_id]
        answer = await self._get(path, answers.having("event"), query)
        return Around(
            dict(mapping(answer.get("event"))),
            _page(answer.get("events_before"), answer.get("start")),
            _page(answer.get("events_after"), answer.get("end")),
            _events(answer.get("state")),
        )

    async def search(self, term: str, room_ids: Sequence[str], *, limit: int, at: str) -> Page:
        """Messages in `room_ids` whose text has the words of `term` (spec: Server side search),
        newest first, on from the token `at`. Raises MatrixRequestError also where search is
        switched off."""
        wanted = {
            "search_term": term,
            "keys": ["content.body"],
            "order_by": "recent",
            "filter": {"rooms": list(room_ids), "limit": limit},
        }
        answer = await self.homeserver.request(
            Method.POST,
            ClientPath.v3.search,
            {"search_categories": {"room_events": wanted}},
            user_id=self.user_id,
            query={"next_batch": at} if at else {},
            give_up_after=_ASK_FOR,
            shape=answers.having("search_categories"),
        )
        found = mapping(mapping(answer.get("search_categories")).get("room_events"))
        hits = [mapping(hit).get("result") for hit in items(found.get("results")) or []]
        return _page(hits, found.get("next_batch"), at)

    async def profile(self, user_id: str) -> Json:
        """A user's profile (spec: Profiles). Raises MatrixRequestError (404) if unknown."""
        async with self.asking(user_id):
            return await self._get(ClientPath.v3.profile[user_id], answers.done, None, _ASK_FOR)

    async def fully_read(self, room_id: str) -> str:
        """The event up to which `user_id` has read a room (`m.fully_read`), "" if none is set."""
        path = ClientPath.v3.user[self.user_id].rooms[room_id].account_data["m.fully_read"]
        try:
            return str((await self._get(path, answers.content)).get("event_id") or "")
        except MNotFound:
            return ""

    async def snapshots(self, room_ids: Sequence[str], *, limit: int) -> dict[str, Snapshot]:
        """The newest `limit` events of each joined room and its receipts: one initial `/sync` of
        those rooms alone, the only way to learn one's own receipts. Nothing is acknowledged by
        it. Raises HomeserverUnavailable for the application service's own user, whom Synapse
        does not serve."""
        room = {
            "rooms": list(room_ids),
            "timeline": {"limit": limit},
            "state": _NONE,
            "ephemeral": {"types": ["m.receipt"]},
            "account_data": {"types": ["m.fully_read"]},
        }
        wanted = {"presence": _NONE, "account_data": _NONE, "room": room}
        # Synapse answers the same initial sync from a cache for two minutes: no two are the same.
        wanted |= {"org.letta.matrix.nonce": secrets.token_hex(8)}
        query = {"filter": json.dumps(wanted), "timeout": "0", "set_presence": "offline"}
        shape = answers.having("next_batch", str)
        answer = await self._get(ClientPath.v3.sync, shape, query, 0)
        joined = mapping(mapping(answer.get("rooms")).get("join"))
        return {str(room_id): _snapshot(mapping(told)) for room_id, told in joined.items()}

    async def recent_events(
        self,
        room_id: str,
        *,
        filters: Mapping[str, Any] | None = None,
        give_up_after: float | None = 60.0,
    ) -> list[Json]:
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
            mine = Event(event).marker.get("txn") == txn_id
            if mine and answers.event_id(event):
                return str(event["event_id"])
        return None

    async def _get(
        self,
        path: PathBuilder,
        shape: Shape,
        query: Mapping[str, str] | None = None,
        give_up_after: float | None = 60.0,
    ) -> dict[str, Any]:
        return await self.homeserver.request(
            Method.GET,
            path,
            user_id=self.user_id,
            query=query,
            give_up_after=give_up_after,
            shape=shape,
        )


def _events(chunk: object) -> list[Json]:
    events: Sequence[Any] = items(chunk) or []
    return [dict(mapping(event)) for event in events]


def _page(chunk: object, end: object, start: object = "") -> Page:
    return Page(_events(chunk), str(end or ""), str(start or ""))


def _snapshot(room: Mapping[str, Any]) -> Snapshot:
    receipts: dict[str, Any] = {}
    for event in _events(mapping(room.get("ephemeral")).get("events")):
        receipts |= mapping(event.get("content"))
    markers = _events(mapping(room.get("account_data")).get("events"))
    read = [mapping(event.get("content")).get("event_id") for event in markers]
    timeline = _events(mapping(room.get("timeline")).get("events"))
    return Snapshot(timeline, receipts, str(read[0] or "") if read else "")


def _localpart(user_id: str) -> str:
    return user_id[1:].partition(":")[0]
