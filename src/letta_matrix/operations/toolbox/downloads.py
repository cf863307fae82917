"""The tool that reads files: of messages, or by their address in Matrix's media repository."""

import base64
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, NotRequired

from pydantic import Field, StringConstraints

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.json_fields import mapping
from letta_matrix.matrix.events import newest_content
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.media import (
    MediaAway,
    MediaFault,
    MediaTooLarge,
    MediaUnknown,
    NoMediaAddress,
    download,
)
from letta_matrix.operations.toolbox.arguments import ROOM, OptionalEvent, OptionalRoom
from letta_matrix.operations.toolbox.naming import joined_room
from letta_matrix.operations.toolbox.results import LIMIT, UNTRUSTED, Untrusted, cut, size
from letta_matrix.operations.toolbox.tool import Caller, Params, Result, tool
from letta_matrix.operations.toolbox.writing import existing

MAX_BYTES = 1_000_000
_PIECE = 10_000
"""Bytes that fit into a result of LIMIT bytes, in base64 too."""

_NAME = 255
_WITH_FILES = ("m.room.message", "m.sticker")
_FAULTS: dict[type[MediaFault], Fault] = {
    NoMediaAddress: Fault.INVALID,
    MediaUnknown: Fault.NOT_FOUND,
    MediaTooLarge: Fault.TOO_LARGE,
    MediaAway: Fault.UNAVAILABLE,
}


class DownloadMedia(Params):
    room_id: OptionalRoom = Field("", description=ROOM)
    event_id: OptionalEvent = Field("", description="message of that room with the file ($...)")
    mxc: Annotated[str, StringConstraints(strip_whitespace=True, max_length=600)] = Field(
        "", description="instead of room and message: the file's mxc://... address"
    )
    offset: int = Field(0, ge=0, le=MAX_BYTES, description="`next` of an earlier answer")
    max_bytes: int = Field(_PIECE, ge=4, le=MAX_BYTES, description="how much of it at once")


class Media(Untrusted):
    """A file, or a piece of it from `offset` on: as text, or else in base64. `bytes` is the size
    of the whole file, `next` where its next piece begins."""

    mxc: str
    name: NotRequired[str]
    media_type: NotRequired[str]
    bytes: int
    offset: int
    content: NotRequired[str]
    content_base64: NotRequired[str]
    next: NotRequired[int]
    note: NotRequired[str]


class _File(NamedTuple):
    mxc: str
    about: dict[str, object]


@tool("matrix_download_media", "Download a file", Scope.READ, Media, read_only=True)
async def download_media(caller: Caller, params: DownloadMedia) -> Result:
    """Read a file or an image of a message, as text or base64, up to 1 MB."""
    file = await _file(caller, params)
    data = await fetched(caller, file.mxc, MAX_BYTES, "The file", Fault.REFUSED)
    if params.offset > len(data):
        raise ToolError(f"`offset` should be at most {len(data)}, the size of the file.")
    return _told(file, data, params.offset, params.max_bytes)


async def _file(caller: Caller, params: DownloadMedia) -> _File:
    named = bool(params.event_id), bool(params.room_id), not params.mxc
    if len(set(named)) > 1:
        raise ToolError("Give `room_id` and `event_id` of a message with a file, or `mxc`.")
    if params.event_id:
        async with joined_room(caller, params.room_id) as room_id:
            return _File(*attached_to(await existing(caller, room_id, params.event_id)))
    if not params.mxc.startswith("mxc://"):
        raise ToolError("`mxc` should be an address that begins with mxc://.")
    if caller.principal.rooms is not None:
        text = "Your token is for some rooms: name the file by `room_id` and `event_id`."
        raise ToolError(text, Fault.FORBIDDEN)
    return _File(params.mxc, {})


async def fetched(
    caller: Caller, mxc: str, most: int, what: str, refused: Fault, *, cut: bool = False
) -> bytes:
    """The bytes behind an address, only the first `most` with `cut`. Raises ToolError that calls
    it `what`; `refused` is its kind where the homeserver says no."""
    intent = caller.intent
    try:
        return await download(intent.homeserver, intent.user_id, mxc, most, cut=cut)
    except MediaFault as fault:
        kind = _FAULTS.get(type(fault), refused)
        raise ToolError(f"{what} could not be read: {fault}.", kind) from fault


def attached_to(event: Mapping[str, Any]) -> tuple[str, dict[str, object]]:
    """The address of a message's file, and what its sender says of it. Raises ToolError if it is
    no message, has no file, or one that is encrypted."""
    content, event_id = newest_content(event), event.get("event_id")
    # Only what people said: who may set a room's state chooses the addresses in it.
    is_said = event.get("type") in _WITH_FILES
    url = content.get("url")
    if is_said and isinstance(url, str) and url:
        return url, _about(content)
    if event.get("type") == "m.room.encrypted" or (is_said and "file" in content):
        text = f"The file of {event_id} is encrypted; it cannot be read here."
        raise ToolError(text, Fault.REFUSED)
    raise ToolError(f"There is no file in {event_id}.", Fault.NOT_FOUND)


def _about(content: Mapping[str, Any]) -> dict[str, object]:
    """What the sender says of a file."""
    about: dict[str, object] = {}
    name = content.get("filename") or content.get("body")
    if isinstance(name, str):
        about["name"] = cut(clean_text(name), _NAME)
    media_type = mapping(content.get("info")).get("mimetype")
    return about | ({"media_type": cut(media_type, _NAME)} if isinstance(media_type, str) else {})


def _told(file: _File, data: bytes, offset: int, most: int) -> dict[str, object]:
    rest = {**UNTRUSTED, "mxc": cut(file.mxc, _NAME), **file.about, "bytes": len(data)}
    is_text = _is_text(data)
    end = offset + most
    while True:
        piece = _text_piece(data, offset, end) if is_text else data[offset:end]
        result: dict[str, object] = {**rest, "offset": offset}
        if is_text:
            result["content"] = piece.decode("utf-8", "ignore")
        else:
            result["content_base64"] = base64.b64encode(piece).decode()
        if offset + len(piece) < len(data):
            result["next"] = offset + len(piece)
            result["note"] = "More follows: call again with `offset` as `next` says."
        if most > _PIECE or len(piece) <= 1_000 or size(result) <= LIMIT:
            return result
        end = offset + len(piece) * 3 // 4


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def _text_piece(data: bytes, start: int, end: int) -> bytes:
    """The bytes of UTF-8 from `start` to `end`, without the beginning of a character at the
    end."""
    while end < len(data) and end > start + 1 and data[end] & 0xC0 == 0x80:
        end -= 1
    return data[start:end]
