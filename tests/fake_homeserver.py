"""A homeserver of a few hundred lines of real HTTP that tests can break on purpose."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from tests.kept_server import KeptServer

Json = dict[str, Any]
Answer = tuple[int, Json]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    user_id: str
    body: Json
    query: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a request instead of its answer.

    `status` and `body` are answered; status 0 closes the connection. With `takes_effect` the
    request is carried out before that.
    """

    status: int = 0
    body: Json = field(default_factory=dict[str, Any])
    takes_effect: bool = False
    headers: dict[str, str] = field(default_factory=dict[str, str])

    async def answer(self, http: web.Request) -> web.StreamResponse:
        """What the client gets."""
        if self.status == 0:
            assert http.transport is not None
            http.transport.abort()
        return web.json_response(self.body, status=self.status or 500, headers=self.headers)


LOST_ANSWER = Fault(takes_effect=True)
LOST_REQUEST = Fault()


def rate_limited(milliseconds: int) -> Fault:
    return Fault(429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": milliseconds})


def failing(status: int) -> Fault:
    """A 5xx: 502 and 504 of a proxy, the others in the homeserver's own words."""
    own = {} if status in (502, 504) else {"errcode": "M_UNKNOWN"}
    return Fault(status, {**own, "error": "on purpose"})


class FakeHomeserver(KeptServer):
    """Rooms, events and aliases in memory behind the client-server API.

    `requests` is everything that arrived; `fail` puts faults in front of the requests whose
    `METHOD path` matches; `forgetful` makes it forget client txn ids, as a restart does.
    `slow` gives requests that match a pattern so many seconds; `hold` keeps them; `headers` come
    with every answer. Into the rooms of `guarded` only their members look and send.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.events: dict[str, list[Json]] = {}
        self.sent: dict[str | None, Json] = {}
        """What was sent, by event id, as it was before it was removed."""
        self.members: dict[str, set[str]] = {}
        self.room_version = "12"
        self.aliases: dict[str, str] = {}
        self.users: set[str] = set()
        self.profiles: dict[str, Json] = {}
        self.devices: dict[str, list[str]] = {}
        self.forgetful = False
        self.guarded: set[str] = set()
        self.slow: dict[str, float] = {}
        self.headers: dict[str, str] = {}
        self._purged: set[str] = set()
        self._txns: dict[tuple[str, str], str] = {}
        self._faults: list[tuple[re.Pattern[str], list[Fault]]] = []
        self._held: list[tuple[re.Pattern[str], asyncio.Event]] = []
        self._numbers = iter(range(1, 1_000_000))

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many are open to it."""
        server = self._runner and self._runner.server
        return len(server.connections) if server else 0

    async def start(self) -> None:
        """Listen; on `port` where that is set, as it is after `go_away`."""
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        await self.listen(app)

    def fail(self, pattern: str, *faults: Fault) -> None:
        """The next requests that match `pattern` meet these faults, one each."""
        self._faults.append((re.compile(pattern), list(faults)))

    def heal(self) -> None:
        """No request fails any more."""
        self._faults.clear()

    def hold(self, pattern: str) -> asyncio.Event:
        """From now on requests that match `pattern` wait for this event before anything comes
        of them."""
        released = asyncio.Event()
        self._held.append((re.compile(pattern), released))
        return released

    def place(self, alias: str, room_id: str, maker: str) -> None:
        """A room that somebody has made, and to which an alias leads."""
        self.aliases[alias] = room_id
        self.set_state(room_id, "m.room.create", {}, sender=maker)

    def purge(self, room_id: str, *, aliases: bool = True) -> None:
        """An admin deletes a room; its aliases go with it, or stay."""
        self.events.pop(room_id, None)
        self.members.pop(room_id, None)
        self._purged.add(room_id)
        if aliases:
            self.aliases = {alias: to for alias, to in self.aliases.items() if to != room_id}

    def matching(self, pattern: str) -> list[Request]:
        return [request for request in self.requests if re.search(pattern, request.line)]

    def messages(self, room_id: str, event_type: str = "m.room.message") -> list[Json]:
        """The message events of a room, oldest first."""
        return [e for e in self.events.get(room_id, []) if e["type"] == event_type]

    def bodies(self, room_id: str, msgtype: str = "") -> list[str]:
        """What a person would read in a room: each message in its last version; of one type if
        given, and then without what agents ask beside their replies."""
        shown: dict[str, str] = {}
        for event in self.messages(room_id):
            if "body" not in event["content"]:
                continue  # removed
            beside = "beside" in event["content"].get("org.letta.matrix", {})
            asks = beside and event["content"]["msgtype"] == "m.text"
            if msgtype and (asks or event["content"]["msgtype"] != msgtype):
                continue
            relation = event["content"].get("m.relates_to", {})
            if relation.get("rel_type") == "m.replace":
                shown[relation["event_id"]] = event["content"]["m.new_content"]["body"]
            else:
                shown[event["event_id"]] = event["content"]["body"]
        return list(shown.values())

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        raw = await http.read()
        is_json = http.content_type == "application/json" and raw
        request = Request(
            http.method,
            unquote(http.raw_path.partition("?")[0]),
            http.query.get("user_id", ""),
            json.loads(raw) if is_json else {"bytes": len(raw)},
            dict(http.query),
        )
        self.requests.append(request)
        for pattern, pause in self.slow.items():
            if re.search(pattern, request.line):
                await asyncio.sleep(pause)
        for held, released in self._held:
            if held.search(request.line):
                await released.wait()
        fault = self._fault_for(request)
        if fault is None or fault.takes_effect:
            status, answer = self._answer(request)
            if fault is None:
                return web.json_response(answer, status=status, headers=self.headers)
        return await fault.answer(http)

    def _fault_for(self, request: Request) -> Fault | None:
        for pattern, faults in self._faults:
            if faults and pattern.search(request.line):
                return faults.pop(0)
        return None

    def _answer(self, request: Request) -> Answer:
        for pattern, answer in _ROUTES:
            if match := pattern.fullmatch(request.line):
                return answer(self, request, *match.groups())
        return 404, {"errcode": "M_UNRECOGNIZED", "error": request.line}

    def _add(self, room_id: str, request: Request, event_type: str, **more: object) -> str:
        event_id = f"${next(self._numbers)}"
        event = {"event_id": event_id, "type": event_type, "sender": request.user_id, **more}
        event |= {"room_id": room_id, "origin_server_ts": int(time.time() * 1000)}
        self.events.setdefault(room_id, []).append({"content": request.body, **event})
        self.sent[event_id] = {"content": request.body, **event}
        return event_id

    def _send(self, request: Request, room_id: str, event_type: str, txn_id: str) -> Answer:
        if room_id in self.guarded and request.user_id not in self.members.get(room_id, ()):
            return 403, {"errcode": "M_FORBIDDEN", "error": "not in the room"}
        key = (request.user_id, txn_id)
        if key not in self._txns or self.forgetful:
            self._txns[key] = self._add(room_id, request, event_type)
        return 200, {"event_id": self._txns[key]}

    def _state(self, request: Request, room_id: str, event_type: str, key: str = "") -> Answer:
        return 200, {"event_id": self._add(room_id, request, event_type, state_key=key or "")}

    def set_state(
        self, room_id: str, event_type: str, content: Json, key: str = "", sender: str = "@ann:test"
    ) -> Json:
        """Somebody changes a room's state; the event, as the homeserver would push it."""
        request = Request("PUT", "", sender, content)
        self._add(room_id, request, event_type, state_key=key)
        return self.events[room_id][-1]

    def _get_state(self, request: Request, room_id: str, event_type: str, key: str = "") -> Answer:
        if room_id in self._purged:
            return 403, {"errcode": "M_FORBIDDEN", "error": f"not in {room_id}"}
        wanted = (event_type, key or "")
        events = self.events.get(room_id, [])
        found = [one for one in events if (one["type"], one.get("state_key")) == wanted]
        if not found:
            return 404, {"errcode": "M_NOT_FOUND", "error": "no such state"}
        whole = request.query.get("format") == "event"
        return 200, found[-1] if whole else found[-1]["content"]

    def _joined_rooms(self, request: Request) -> Answer:
        joined = [room for room, people in self.members.items() if request.user_id in people]
        is_line = request.user_id.startswith("@letta_")
        if is_line and not joined and request.user_id not in self.users:
            error = "Application service has not registered this user"
            return 403, {"errcode": "M_FORBIDDEN", "error": error}
        return 200, {"joined_rooms": joined}

    def _put_alias(self, request: Request, alias: str) -> Answer:
        if alias in self.aliases:
            return 409, {"errcode": "M_UNKNOWN", "error": "alias taken"}
        self.aliases[alias] = request.body["room_id"]
        return 200, {}

    def _delete_alias(self, _request: Request, alias: str) -> Answer:
        self.aliases.pop(alias, None)
        return 200, {}

    def _messages(self, request: Request, room_id: str) -> Answer:
        if room_id in self.guarded and request.user_id not in self.members.get(room_id, ()):
            return 403, {"errcode": "M_FORBIDDEN", "error": "not in the room"}
        filters = json.loads(request.query.get("filter", "{}"))
        senders, others = filters.get("senders"), filters.get("not_senders", [])
        events = self.events.get(room_id, [])[: int(request.query.get("from", "-0")) or None]
        wanted = [
            (number, one)
            for number, one in enumerate(events)
            if (senders is None or one["sender"] in senders) and one["sender"] not in others
        ][-int(request.query["limit"]) :]
        end = {"end": str(wanted[0][0])} if wanted and wanted[0][0] else {}
        chunk = self._bundled(room_id, [one for _, one in wanted[::-1]]) if wanted else []
        return 200, {"chunk": chunk, **end}

    def _create_room(self, request: Request) -> Answer:
        name = request.body.get("room_alias_name")
        alias = f"#{name}:test"
        if alias in self.aliases:
            return 400, {"errcode": "M_ROOM_IN_USE", "error": "alias taken"}
        room_id = f"!room{next(self._numbers)}:test"
        if name is not None:
            self.aliases[alias] = room_id
        self.members[room_id] = {request.user_id, *request.body.get("invite", [])}
        self._add(room_id, request, "m.room.create", state_key="")
        self.events[room_id][-1]["content"] = request.body.get("creation_content", {})
        return 200, {"room_id": room_id}

    def _resolve(self, _request: Request, alias: str) -> Answer:
        if alias not in self.aliases:
            return 404, {"errcode": "M_NOT_FOUND", "error": "no such alias"}
        return 200, {"room_id": self.aliases[alias]}

    def _list_members(self, _request: Request, room_id: str) -> Answer:
        people = self.members.get(room_id, set())
        chunk = [{"state_key": who, "content": {"membership": "join"}} for who in people]
        return 200, {"chunk": chunk}

    def _joined_members(self, request: Request, room_id: str) -> Answer:
        # Who may look is in the room itself.
        joined = self.members.get(room_id, set()) | {request.query.get("user_id", "")}
        return 200, {"joined": {who: {} for who in joined}}

    def _event(self, _request: Request, room_id: str, event_id: str) -> Answer:
        events = self.events.get(room_id, [])
        found = next((one for one in events if one["event_id"] == event_id), None)
        if found is None:
            return 404, {"errcode": "M_NOT_FOUND", "error": "no such event"}
        return 200, self._bundled(room_id, [found])[0]

    def _context(self, request: Request, room_id: str, event_id: str) -> Answer:
        status, event = self._event(request, room_id, event_id)
        types = json.loads(request.query.get("filter", "{}")).get("types")
        state = {
            (one["type"], one["state_key"]): one
            for one in self.events.get(room_id, [])
            if "state_key" in one and (types is None or one["type"] in types)
        }
        return status, event if status != 200 else {"event": event, "state": [*state.values()]}

    def _get_profile(self, _request: Request, user_id: str) -> Answer:
        return 200, self.profiles.get(user_id, {})

    def _relations(self, _request: Request, room_id: str, event_id: str, kind: str) -> Answer:
        wanted = {"event_id": event_id, "rel_type": kind}
        relations = [
            (event, event["content"].get("m.relates_to", {}))
            for event in self.events.get(room_id, [])
        ]
        found = [event for event, relation in relations if wanted.items() <= relation.items()]
        return 200, {"chunk": found[::-1]}

    def _bundled(self, room_id: str, events: list[Json]) -> list[Json]:
        """Events with their newest edits, which are their own senders'."""
        edits: dict[tuple[str, str], Json] = {}
        for one in self.events.get(room_id, []):
            relation = one["content"].get("m.relates_to", {})
            if relation.get("rel_type") == "m.replace":
                edits[str(relation.get("event_id")), one["sender"]] = one
        return [
            one | {"unsigned": one.get("unsigned", {}) | {"m.relations": {"m.replace": edit}}}
            if one["content"] and (edit := edits.get((one["event_id"], one["sender"])))
            else one
            for one in events
        ]

    def redact(self, room_id: str, event_id: str) -> None:
        """Somebody has removed what an event says."""
        for event in self.events.get(room_id, []):
            if event["event_id"] == event_id:
                event["content"] = {}

    def _redact(self, request: Request, room_id: str, event_id: str, _: str) -> Answer:
        self.redact(room_id, event_id)
        return 200, {"event_id": self._add(room_id, request, "m.room.redaction", redacts=event_id)}

    def _join(self, request: Request, room_id: str) -> Answer:
        if room_id in self._purged:
            return 404, {"errcode": "M_UNKNOWN", "error": "no servers that are in the room"}
        self.members.setdefault(room_id, set()).add(request.user_id)
        return 200, {"room_id": room_id}

    def _leave(self, request: Request, room_id: str) -> Answer:
        self.members.get(room_id, set()).discard(request.user_id)
        return 200, {}

    def _invite(self, request: Request, room_id: str) -> Answer:
        self.members.setdefault(room_id, set()).add(request.body["user_id"])
        return 200, {}

    def _kick(self, request: Request, room_id: str) -> Answer:
        self.members.get(room_id, set()).discard(request.body["user_id"])
        return 200, {}

    def _register(self, request: Request) -> Answer:
        user_id = f"@{request.body['username']}:test"
        if user_id in self.users:
            return 400, {"errcode": "M_USER_IN_USE", "error": "taken"}
        self.users.add(user_id)
        return 200, {"user_id": user_id}

    def _profile(self, request: Request, user_id: str) -> Answer:
        self.profiles.setdefault(user_id, {}).update(request.body)
        return 200, {}

    def _upload(self, _request: Request) -> Answer:
        return 200, {"content_uri": f"mxc://test/{next(self._numbers)}"}

    def _devices(self, request: Request) -> Answer:
        devices = self.devices.get(request.user_id, [])
        return 200, {"devices": [{"device_id": one} for one in devices]}

    def _log_out(self, request: Request) -> Answer:
        self.devices.pop(request.user_id, None)
        return 200, {}

    def _capabilities(self, _request: Request) -> Answer:
        return 200, {"capabilities": {"m.room_versions": {"default": self.room_version}}}

    def _versions(self, _request: Request) -> Answer:
        return 200, {"versions": ["v1.15"]}

    def _whoami(self, request: Request) -> Answer:
        who = request.user_id or "@letta:test"
        if who not in (*self.users, "@letta:test"):
            error = "Application service has not registered this user"
            return 403, {"errcode": "M_FORBIDDEN", "error": error}
        return 200, {"user_id": who}

    def _ping(self, _request: Request) -> Answer:
        return 200, {"duration_ms": 1}

    def _nothing(self, _request: Request, *_: str) -> Answer:
        return 200, {}


_V3 = r"/_matrix/client/v3"
_ROOM = rf"{_V3}/rooms/([^/]+)"
_Handler = Callable[..., Answer]


def _routes() -> list[tuple[re.Pattern[str], _Handler]]:
    fake = FakeHomeserver
    table: dict[str, _Handler] = {
        rf"PUT {_ROOM}/send/([^/]+)/([^/]+)": fake._send,
        rf"PUT {_ROOM}/state/([^/]+)(?:/([^/]+))?": fake._state,
        rf"GET {_ROOM}/state/([^/]+)(?:/([^/]+))?": fake._get_state,
        rf"PUT {_ROOM}/redact/([^/]+)/([^/]+)": fake._redact,
        rf"GET {_ROOM}/messages": fake._messages,
        rf"GET {_ROOM}/members": fake._list_members,
        rf"GET {_ROOM}/joined_members": fake._joined_members,
        rf"GET {_ROOM}/event/([^/]+)": fake._event,
        rf"GET {_ROOM}/context/([^/]+)": fake._context,
        r"GET /_matrix/client/v1/rooms/([^/]+)/relations/([^/]+)/([^/]+)": fake._relations,
        rf"POST {_ROOM}/join": fake._join,
        rf"POST {_ROOM}/leave": fake._leave,
        rf"POST {_ROOM}/invite": fake._invite,
        rf"POST {_ROOM}/kick": fake._kick,
        rf"(?:PUT|POST) {_ROOM}/(?:typing|receipt)/.*": fake._nothing,
        rf"POST {_V3}/createRoom": fake._create_room,
        rf"POST {_V3}/register": fake._register,
        rf"PUT {_V3}/profile/([^/]+)/(?:displayname|avatar_url)": fake._profile,
        rf"GET {_V3}/profile/([^/]+)": fake._get_profile,
        rf"GET {_V3}/directory/room/([^/]+)": fake._resolve,
        rf"PUT {_V3}/directory/room/([^/]+)": fake._put_alias,
        rf"DELETE {_V3}/directory/room/([^/]+)": fake._delete_alias,
        rf"GET {_V3}/joined_rooms": fake._joined_rooms,
        rf"GET {_V3}/capabilities": fake._capabilities,
        rf"GET {_V3}/devices": fake._devices,
        rf"POST {_V3}/logout/all": fake._log_out,
        r"POST /_matrix/media/v3/upload": fake._upload,
        r"POST /_matrix/client/v1/appservice/[^/]+/ping": fake._ping,
        r"GET /_matrix/client/versions": fake._versions,
        rf"GET {_V3}/account/whoami": fake._whoami,
    }
    return [(re.compile(pattern), handler) for pattern, handler in table.items()]


_ROUTES = _routes()
