"""The paths of the original Letta-Matrix integration, with their fields.

What differs: real status codes; `access_token` is a token of ours, and comes in the header, in
`X-Access-Token` or in the body, never in the URL; no homeserver but the configured one.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.routing import APIRoute

from letta_matrix.api import compat_models as models
from letta_matrix.api.calling import call
from letta_matrix.api.compat_login import LIFETIME, Logins
from letta_matrix.api.problems import COMMON, FROM_TOOLS, Problem, may
from letta_matrix.api.security import BEARER, Api, peer_of, require
from letta_matrix.api.services import Services
from letta_matrix.matrix.events import items, mapping
from letta_matrix.store.agents import Agent, AgentStatus
from letta_matrix.toolbox.faults import Fault, ToolError
from letta_matrix.toolbox.principal import Principal, Scope

_MOST_ROOMS = 200
_PER_ROOM = 5
_AT_ONCE = 8
_GONE = (
    "The bridge holds nobody's password: it acts through its application service. Make a token "
    "with `letta-matrix tokens create`, or POST /login with a Matrix user and password."
)


class Compatible(APIRoute):
    """A route whose problems have the fields `success` and `message`, too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def compatible(request: Request) -> Response:
            request.state.compatible = True
            return await handle(request)

        return compatible


class Door:
    """Lets the holder of a token in, wherever the request has it."""

    def __init__(
        self,
        request: Request,
        api: Api,
        _: Annotated[Any, Depends(BEARER)],
        token: Annotated[
            str,
            Header(
                alias="X-Access-Token",
                pattern=r"^[A-Za-z0-9._~+/=-]*$",
                description="instead of Authorization",
            ),
        ] = "",
    ) -> None:
        self._api = api
        self._header = request.headers.get("Authorization") or (token and f"Bearer {token}")
        self._peer = peer_of(request)

    async def admit(self, scope: Scope, in_body: str = "") -> Principal:
        """Whoever sends the token. Raises Problem, Unauthorized, TooOften."""
        header = self._header or (in_body and f"Bearer {in_body}")
        holder = await self._api.authenticator.admit(header or None, self._peer)
        require(holder, scope)
        return holder


Entrance = Annotated[Door, Depends()]
Homeserver = Annotated[
    str, Query(max_length=1_000, description="if given, the one the bridge is configured for")
]

router = APIRouter(tags=["compatible"], route_class=Compatible, responses=COMMON)


@router.post("/login", responses=may("login-failed", "foreign-homeserver"))
async def login(request: Request, api: Api, wish: models.CompatLogin) -> models.CompatLoggedIn:
    """Get a token for a Matrix login.

    The login is checked at the configured homeserver and ended at once. The token is one of the
    bridge and expires after a day. An admin's (`permissions`) acts as the bot, with every scope;
    that of other users reads, as the bot, the rooms that both were in when they logged in.
    """
    _check_homeserver(api, wish.homeserver)
    logins: Logins = request.app.state.logins
    done = await logins.login(wish.user_id, wish.password, peer_of(request))
    scopes = ", ".join(done.token.scopes)
    return models.CompatLoggedIn(
        success=True,
        access_token=done.secret,
        device_id=None,
        user_id=done.user_id,
        message=f"Login successful: {scopes}, for {LIFETIME / 3600:.0f} hours.",
    )


@router.get("/login/auto", status_code=410, responses=may("gone"), response_model=None)
async def login_auto() -> None:
    """Is not offered any more: the bridge holds nobody's password."""
    raise Problem("gone", _GONE)


@router.post("/login/auto", status_code=410, responses=may("gone"), response_model=None)
async def login_auto_post() -> None:
    """Is not offered any more: the bridge holds nobody's password."""
    raise Problem("gone", _GONE)


@router.post("/messages/send", responses=FROM_TOOLS | may("foreign-homeserver"))
async def send_compatible(api: Api, door: Entrance, sent: models.CompatSend) -> models.CompatSent:
    """Send a message to a room; Markdown becomes Matrix HTML."""
    holder = await door.admit(Scope.WRITE, sent.access_token)
    _check_homeserver(api, sent.homeserver)
    arguments = {"room_id": sent.room_id, "message": sent.message}
    result = await call(api, holder, "matrix_send_message", arguments)
    event_id = str(result["event_id"])
    return models.CompatSent(success=True, event_id=event_id, message="Message sent successfully")


@router.post("/messages/get", responses=FROM_TOOLS | may("foreign-homeserver"))
async def get_compatible(api: Api, door: Entrance, wish: models.CompatGet) -> models.CompatMessages:
    """Get the newest messages of a room, the oldest first."""
    holder = await door.admit(Scope.READ, wish.access_token)
    _check_homeserver(api, wish.homeserver)
    messages = await _read(api, holder, wish.room_id, wish.limit)
    said = f"Retrieved {len(messages)} messages"
    return models.CompatMessages(success=True, messages=messages, message=said)


@router.get("/messages/recent", responses=FROM_TOOLS | may("foreign-homeserver"))
async def recent_compatible(
    api: Api,
    door: Entrance,
    homeserver: Homeserver = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 10,
) -> models.CompatRecent:
    """Get the newest messages of all rooms, the newest first: of each its last five."""
    holder = await door.admit(Scope.READ)
    _check_homeserver(api, homeserver)
    rooms = await _rooms(api, holder)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def newest(room: models.CompatRoom) -> list[models.CompatRoomMessage]:
        async with gate:
            messages = await _read_if_may(api, holder, room.room_id)
        return [models.CompatRoomMessage(**one.model_dump(), **room.model_dump()) for one in messages]

    found = [one for many in await asyncio.gather(*map(newest, rooms)) for one in many]
    found.sort(key=lambda message: message.timestamp, reverse=True)
    shown = found[:limit]
    return models.CompatRecent(
        success=True,
        messages=shown,
        total_found=len(found),
        limit=limit,
        message=f"Retrieved {len(shown)} most recent messages from {len(rooms)} rooms",
    )


@router.get("/rooms/list", responses=FROM_TOOLS | may("foreign-homeserver"))
async def rooms_compatible(
    api: Api, door: Entrance, homeserver: Homeserver = ""
) -> models.CompatRoomList:
    """List the rooms that the token acts in."""
    holder = await door.admit(Scope.READ)
    _check_homeserver(api, homeserver)
    rooms = await _rooms(api, holder)
    return models.CompatRoomList(success=True, rooms=rooms, message=f"Found {len(rooms)} rooms")


@router.post("/webhook/new-agent", responses=may("not-found"))
async def new_agent(api: Api, door: Entrance, told: models.CompatNewAgent) -> models.CompatSynced:
    """List every runtime's agents now, because there is a new one."""
    await door.admit(Scope.AGENTS)
    troubles = {name: trouble for name, trouble in (await api.sync()).items() if trouble}
    if _agent(api, told.agent_id) is None:
        text = "; ".join(f"{name}: {trouble}" for name, trouble in sorted(troubles.items()))
        if text:
            raise Problem("unavailable", f"A runtime cannot be listed: {text}.")
        raise Problem("not-found", "No runtime has an agent with this `agent_id`.")
    return models.CompatSynced(
        success=True,
        message=f"Triggered sync for new agent: {told.agent_id}",
        timestamp=datetime.now(UTC).isoformat(),
    )


@router.get("/agents/mappings")
async def mappings(api: Api, door: Entrance) -> models.CompatMappings:
    """List the agents with their users and rooms, by agent id."""
    holder = await door.admit(Scope.AGENTS)
    found = [agent for agent in api.directory.all() if agent.status is AgentStatus.ACTIVE]
    return models.CompatMappings(
        success=True,
        message=f"Retrieved {len(found)} agent mappings",
        mappings={agent.agent_id: _mapping(agent, holder) for agent in found},
    )


@router.get("/agents/{agent_id}/room", responses=may("not-found"))
async def agent_room(
    api: Api, door: Entrance, agent_id: Annotated[str, Path(max_length=255, examples=["agent-1"])]
) -> models.CompatAgentRoom:
    """Get an agent's room."""
    holder = await door.admit(Scope.AGENTS)
    agent = _agent(api, agent_id)
    if agent is None:
        raise Problem("not-found", "There is no agent with this `agent_id`.")
    if agent.room_id is None or not holder.may_act_in(agent.room_id):
        raise Problem("not-found", f"{agent_id} has no room that your token is for.")
    return models.CompatAgentRoom(
        success=True,
        agent_id=agent_id,
        agent_name=agent.name,
        room_id=agent.room_id,
        matrix_user_id=agent.user_id,
        room_created=True,
        invitation_status={},
    )


def _check_homeserver(api: Services, named: str) -> None:
    """Raises Problem for another homeserver than ours; none is ever contacted by this."""
    settings = api.config.homeserver
    known = {settings.url, api.config.api.homeserver_url or settings.url}
    if named and named != settings.domain and _origin(named) not in map(_origin, known):
        raise Problem(
            "foreign-homeserver",
            f"`homeserver` should be {settings.domain}, or be left out: the bridge talks to no "
            "other one.",
        )


def _origin(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return parts.scheme, parts.netloc.lower()


async def _rooms(api: Services, holder: Principal) -> list[models.CompatRoom]:
    rooms: list[models.CompatRoom] = []
    after: object = 0
    while after is not None and len(rooms) < _MOST_ROOMS:
        page = await call(api, holder, "matrix_list_rooms", {"after": after})
        for one in map(mapping, items(page.get("rooms")) or []):
            room_id = str(one["room_id"])
            rooms.append(models.CompatRoom(room_id=room_id, room_name=str(one.get("name") or room_id)))
        after = page.get("next")
    return rooms[:_MOST_ROOMS]


async def _read(api: Services, holder: Principal, room_id: str, limit: int) -> list[models.CompatMessage]:
    arguments = {"room_id": room_id, "limit": limit}
    page = await call(api, holder, "matrix_read_room", arguments)
    return [_message(mapping(one)) for one in items(page.get("messages")) or []]


async def _read_if_may(api: Services, holder: Principal, room_id: str) -> list[models.CompatMessage]:
    try:
        return await _read(api, holder, room_id, _PER_ROOM)
    except ToolError as error:
        # Left in the meantime, or closed to the token: the other rooms are still of use.
        if error.fault not in (Fault.FORBIDDEN, Fault.NOT_FOUND):
            raise
        return []


def _message(entry: Mapping[str, Any]) -> models.CompatMessage:
    time = str(entry.get("time") or "")
    when = datetime.fromisoformat(time) if time else datetime.fromtimestamp(0, UTC)
    return models.CompatMessage(
        sender=str(entry.get("sender")),
        body=str(entry.get("text")),
        timestamp=round(when.timestamp() * 1000),
        formatted_time=when.strftime("%Y-%m-%d %H:%M:%S"),
        event_id=str(entry.get("event_id")),
    )


def _agent(api: Services, agent_id: str) -> Agent | None:
    agent = api.directory.get(agent_id)
    return agent if agent is not None and agent.status is AgentStatus.ACTIVE else None


def _mapping(agent: Agent, holder: Principal) -> models.CompatMapping:
    room_id = agent.room_id
    shown = room_id if room_id is not None and holder.may_act_in(room_id) else None
    return models.CompatMapping(
        agent_id=agent.agent_id,
        agent_name=agent.name,
        matrix_user_id=agent.user_id,
        room_id=shown,
        room_created=room_id is not None,
        created=room_id is not None,
    )
