"""Files: sent to rooms, and read again."""

import base64
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from fastapi.responses import StreamingResponse

from letta_matrix.access.principal import Scope
from letta_matrix.doors.rest.calling import IdempotencyKey, Json, call
from letta_matrix.doors.rest.downloading import Found, attached, forward
from letta_matrix.doors.rest.paths import EventOfPath, RoomOfPath
from letta_matrix.doors.rest.problems import FROM_TOOLS, Problem
from letta_matrix.doors.rest.routing import router_for
from letta_matrix.doors.rest.security import Api, Holder, Reader, needs
from letta_matrix.doors.rest.uploading import upload_of
from letta_matrix.operations.toolbox.files import PostedImage

router = router_for("media")

_BINARY: dict[str, Any] = {"type": "string", "format": "binary"}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": _BINARY},
        "multipart/form-data": {
            "schema": {"type": "object", "required": ["file"], "properties": {"file": _BINARY}}
        },
    },
}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {"application/octet-stream": {"schema": _BINARY}}}
}


async def _opened() -> AsyncGenerator[AsyncExitStack]:
    """Closed when the response has been sent."""
    async with AsyncExitStack() as stack:
        yield stack


Opened = Annotated[AsyncExitStack, Depends(_opened)]


@router.post(
    "/rooms/{room}/media",
    status_code=201,
    response_model=PostedImage,
    responses=FROM_TOOLS,
    openapi_extra={"requestBody": _BODY} | needs(Scope.WRITE),
)
async def upload_media(
    request: Request,
    holder: Holder,
    api: Api,
    room: RoomOfPath,
    filename: Annotated[
        str, Query(max_length=1_000, description="such as notes.md; needed without a form")
    ] = "",
    key: IdempotencyKey = "",
) -> Json:
    """Send a file or an image to a room: as the body itself with its `Content-Type`, or as `file`
    of a form. At most 5 MB."""
    upload = await upload_of(request, filename)
    wanted = {
        "room_id": room,
        "name": upload.name,
        "content_base64": base64.b64encode(upload.data).decode(),
        "media_type": upload.media_type,
    }
    return Json(await call(api, holder, "matrix_upload_file", wanted, key), 201)


@router.get(
    "/rooms/{room}/messages/{event_id}/media",
    response_model=None,
    responses=FROM_TOOLS | _FILE,
    openapi_extra=needs(Scope.READ),
)
async def download_attachment(
    holder: Reader, api: Api, room: RoomOfPath, event_id: EventOfPath, opened: Opened
) -> StreamingResponse:
    """Download the file of a message."""
    return await forward(api, holder, await attached(api, holder, room, event_id), opened)


@router.get(
    "/media/{server}/{media_id}",
    response_model=None,
    responses=FROM_TOOLS | _FILE,
    openapi_extra=needs(Scope.READ),
)
async def download_media(
    holder: Reader,
    api: Api,
    server: Annotated[str, Path(max_length=255, examples=["example.org"])],
    media_id: Annotated[str, Path(max_length=255, examples=["SoMeId"])],
    opened: Opened,
) -> StreamingResponse:
    """Download a file by its address, `mxc://server/media_id`. A token that is for some rooms
    names a file by its message instead."""
    if holder.rooms is not None:
        text = "Your token is for some rooms: use /rooms/{room}/messages/{event_id}/media."
        raise Problem("forbidden", text)
    return await forward(api, holder, Found(f"mxc://{server}/{media_id}"), opened)
