"""The paths of the original Letta-Matrix integration, with their fields.

What differs: real status codes; `access_token` is a token of ours, and comes in the header, in
`X-Access-Token` or in the body, never in the URL; no homeserver but the configured one.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Query, Request

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.common.json_fields import items, mapping
from letta_matrix.doors.rest.calling import call
from letta_matrix.doors.rest.compat_door import (
    Admit,
    Homeserver,
    check_homeserver,
    compatible_router,
)
from letta_matrix.doors.rest.compat_login import Logins
from letta_matrix.doors.rest.compat_models import (
    CompatGet,
    CompatLoggedIn,
    CompatLogin,
    CompatMessage,
    CompatMessages,
    CompatRecent,
    CompatRoom,
    CompatRoomList,
    CompatRoomMessage,
    CompatSend,
    CompatSent,
)
from letta_matrix.doors.rest.problems import FROM_TOOLS, Problem, may
from letta_matrix.doors.rest.security import Api, needs, peer_of
from letta_matrix.doors.rest.services import Services
from letta_matrix.operations.login_tokens import LIFETIME

_MOST_ROOMS = 200
_RECENT_ROOMS = 50
_PER_ROOM = 5
_AT_ONCE = 8
_GONE = (
    "The bridge holds nobody's password: it acts through its application service. Make a token "
    "with `letta-matrix tokens create`, or POST /login with a Matrix user and password."
)
_NO_MORE: dict[str, Any] = {"status_code": 410, "responses": may("gone"), "response_model": None}
_OF_TOOL = FROM_TOOLS | may("foreign-homeserver")

router = compatible_router()


@router.post("/login", responses=may("login-failed", "foreign-homeserver"))
async def login(request: Request, api: Api, wish: CompatLogin) -> CompatLoggedIn:
    """Get a token for a Matrix login.

    The login is checked at the configured homeserver. The token is one of the bridge; it expires
    after a day, or when the session `letta-matrix /login` at the homeserver ends. An admin's
    (`permissions`) acts as the bot, with every scope; that of other users reads, as themselves,
    the rooms that they and the bot have been in since they logged in.
    """
    check_homeserver(api, wish.homeserver)
    logins: Logins = request.app.state.logins
    done = await logins.login(wish.user_id, wish.password, peer_of(request))
    scopes = ", ".join(done.scopes)
    return CompatLoggedIn(
        success=True,
        access_token=done.secret,
        device_id=None,
        user_id=done.user_id,
        message=f"Login successful: {scopes}, for {LIFETIME / 3600:.0f} hours.",
    )


@router.post("/login/auto", name="login_auto_post", **_NO_MORE)
@router.get("/login/auto", **_NO_MORE)
async def login_auto() -> None:
    """Is not offered any more: the bridge holds nobody's password."""
    raise Problem("gone", _GONE)


@router.post("/messages/send", responses=_OF_TOOL, openapi_extra=needs(Scope.WRITE))
async def send_compatible(api: Api, admit: Admit, sent: CompatSend) -> CompatSent:
    """Send a message to a room; Markdown becomes Matrix HTML."""
    holder = await admit(Scope.WRITE, sent.access_token)
    check_homeserver(api, sent.homeserver)
    arguments = {"room_id": sent.room_id, "message": sent.message}
    result = await call(api, holder, "matrix_send_message", arguments)
    event_id = str(result["event_id"])
    return CompatSent(success=True, event_id=event_id, message="Message sent successfully")


@router.post("/messages/get", responses=_OF_TOOL, openapi_extra=needs(Scope.READ))
async def get_compatible(api: Api, admit: Admit, wish: CompatGet) -> CompatMessages:
    """Get the newest messages of a room, the oldest first."""
    holder = await admit(Scope.READ, wish.access_token)
    check_homeserver(api, wish.homeserver)
    messages = await _read(api, holder, wish.room_id, wish.limit)
    said = f"Retrieved {len(messages)} messages"
    return CompatMessages(success=True, messages=messages, message=said)


@router.get("/messages/recent", responses=_OF_TOOL, openapi_extra=needs(Scope.READ))
async def recent_compatible(
    api: Api,
    admit: Admit,
    homeserver: Homeserver = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 10,
) -> CompatRecent:
    """Get the newest messages of up to 50 rooms, the newest first: of each its last five.

    Each room counts as a request of the token.
    """
    holder = await admit(Scope.READ)
    check_homeserver(api, homeserver)
    rooms = await _rooms(api, holder, _RECENT_ROOMS)
    for _ in rooms:
        api.authenticator.count(holder)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def newest(room: CompatRoom) -> list[CompatRoomMessage]:
        async with gate:
            messages = await _read_if_may(api, holder, room.room_id)
        return [CompatRoomMessage(**one.model_dump(), **room.model_dump()) for one in messages]

    found = [one for many in await asyncio.gather(*map(newest, rooms)) for one in many]
    found.sort(key=lambda message: message.timestamp, reverse=True)
    shown = found[:limit]
    return CompatRecent(
        success=True,
        messages=shown,
        total_found=len(found),
        limit=limit,
        message=f"Retrieved {len(shown)} most recent messages from {len(rooms)} rooms",
    )


@router.get("/rooms/list", responses=_OF_TOOL, openapi_extra=needs(Scope.READ))
async def rooms_compatible(api: Api, admit: Admit, homeserver: Homeserver = "") -> CompatRoomList:
    """List the rooms that the token acts in."""
    holder = await admit(Scope.READ)
    check_homeserver(api, homeserver)
    rooms = await _rooms(api, holder, _MOST_ROOMS)
    return CompatRoomList(success=True, rooms=rooms, message=f"Found {len(rooms)} rooms")


async def _rooms(api: Services, holder: Principal, most: int) -> list[CompatRoom]:
    rooms: list[CompatRoom] = []
    after: object = 0
    while after is not None and len(rooms) < most:
        page = await call(api, holder, "matrix_list_rooms", {"after": after})
        for one in map(mapping, items(page.get("rooms")) or []):
            room_id = str(one["room_id"])
            rooms.append(CompatRoom(room_id=room_id, room_name=str(one.get("name") or room_id)))
        after = page.get("next")
    return rooms[:most]


async def _read(api: Services, holder: Principal, room_id: str, limit: int) -> list[CompatMessage]:
    arguments = {"room_id": room_id, "limit": limit}
    page = await call(api, holder, "matrix_read_room", arguments)
    return [_message(mapping(one)) for one in items(page.get("messages")) or []]


async def _read_if_may(api: Services, holder: Principal, room_id: str) -> list[CompatMessage]:
    try:
        return await _read(api, holder, room_id, _PER_ROOM)
    except ToolError as error:
        # Left in the meantime, or closed to the token: the other rooms are still of use.
        if error.fault not in (Fault.FORBIDDEN, Fault.NOT_FOUND):
            raise
        return []


def _message(entry: Mapping[str, Any]) -> CompatMessage:
    time = str(entry.get("time") or "")
    when = datetime.fromisoformat(time) if time else datetime.fromtimestamp(0, UTC)
    return CompatMessage(
        sender=str(entry.get("sender")),
        body=str(entry.get("text")),
        timestamp=round(when.timestamp() * 1000),
        formatted_time=when.strftime("%Y-%m-%d %H:%M:%S"),
        event_id=str(entry.get("event_id")),
    )
