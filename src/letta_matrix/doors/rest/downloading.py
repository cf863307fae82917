"""Files that go out: from the homeserver's media repository to whoever may have them, in pieces."""

import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
from fastapi.responses import StreamingResponse
from mautrix.errors import MatrixRequestError

from letta_matrix.access.faults import ToolError
from letta_matrix.access.principal import Principal
from letta_matrix.doors.rest.problems import Problem
from letta_matrix.doors.rest.services import Services
from letta_matrix.matrix import answers
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.media import NoMediaAddress, download_path
from letta_matrix.operations.toolbox.downloads import attached_to
from letta_matrix.operations.toolbox.naming import joined_room
from letta_matrix.operations.toolbox.uploads import safe_name
from letta_matrix.operations.toolbox.writing import existing

_PIECE = 65_536
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
_INERT = re.compile(r"image/(png|jpeg|gif|webp)|(audio|video)/[a-z0-9.+-]{1,60}|text/plain")
"""Types that a browser runs nothing of, whatever it does with a file."""

_AWAY = "The homeserver does not give out the file now. Try again in a minute."


@dataclass(frozen=True, slots=True)
class Found:
    """Where a file is, and what its sender says of it; both may be ""."""

    mxc: str
    name: str = ""
    media_type: str = ""


async def attached(api: Services, holder: Principal, room: str, event_id: str) -> Found:
    """The file of a message. Raises ToolError, Problem."""
    caller = api.toolbox.caller(holder)
    try:
        async with joined_room(caller, room) as room_id:
            event = await existing(caller, room_id, event_id)
    except HomeserverUnavailable as error:
        raise Problem("unavailable", _AWAY) from error
    except MatrixRequestError as error:
        raise Problem("refused", f"The homeserver refused: {error.errcode}.") from error
    mxc, about = attached_to(event)
    return Found(mxc, str(about.get("name", "")), str(about.get("media_type", "")))


async def forward(
    api: Services, holder: Principal, found: Found, opened: AsyncExitStack
) -> StreamingResponse:
    """The file, as the homeserver gives it to whom the holder acts as; `opened` is to be closed
    after the response. Raises Problem."""
    try:
        path = download_path(found.mxc)
    except NoMediaAddress as error:
        text = "There is no file at an address that is none of Matrix."
        raise Problem("not-found", text) from error
    address = f"{api.config.homeserver.url.rstrip('/')}/{path}"
    caller = api.toolbox.caller(holder)
    # Who has logged in comes with a token of their own: ours is for nobody who is not ours.
    homeserver, user = caller.intent.homeserver, {"user_id": caller.user_id}
    headers = {"Authorization": f"Bearer {homeserver.token}", "Accept-Encoding": "identity"}
    try:
        connector = homeserver.route.connector()
        session = aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT)
        await opened.enter_async_context(session)
        # As `Requests.read`: what a redirect leads to may be anything that we can reach.
        response = await opened.enter_async_context(
            session.get(address, params=user, headers=headers, allow_redirects=False)
        )
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Problem("unavailable", _AWAY) from error
    if answers.is_page(response):
        raise Problem("unavailable", _AWAY)
    _check(response.status)
    sent = _headers(found)
    if response.content_length is not None:
        sent["Content-Length"] = str(response.content_length)
    return StreamingResponse(_pieces(response), headers=sent)


async def _pieces(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    async for piece in response.content.iter_chunked(_PIECE):
        yield piece


def _check(status: int) -> None:
    if status == 200:
        return
    if status == 404:
        raise Problem("not-found", "The homeserver does not have the file.")
    if 400 <= status < 500 and status != 429:
        raise Problem("refused", f"The homeserver refused the file: HTTP {status}.")
    raise Problem("unavailable", _AWAY)


def _headers(found: Found) -> dict[str, str]:
    """A browser stores the file and does nothing else with it (RFC 6266)."""
    inert = _INERT.fullmatch(found.media_type.lower()) is not None
    return {
        "Content-Type": found.media_type.lower() if inert else "application/octet-stream",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(_name(found), safe='')}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def _name(found: Found) -> str:
    try:
        return safe_name(found.name).encode("utf-8", "replace").decode()
    except ToolError:
        return "file"
