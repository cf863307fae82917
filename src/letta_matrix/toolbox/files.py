"""The tool that puts a file into a room."""

import base64
import mimetypes
import re
from pathlib import PurePosixPath
from typing import Any

from pydantic import Field

from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.toolbox.faults import ToolError
from letta_matrix.toolbox.naming import not_in, room_of
from letta_matrix.toolbox.principal import Scope
from letta_matrix.toolbox.tool import Caller, Result, RoomRef, Tool, WriteParams
from letta_matrix.toolbox.writing import ROOM, send_once

MAX_BYTES = 5_000_000

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}/[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)
_IMAGES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
_MAX_NAME = 150


class UploadFile(WriteParams):
    room_id: RoomRef = Field(description=ROOM)
    name: str = Field(min_length=1, max_length=1000, description="file name, such as notes.md")
    content: str = Field("", description="the file's text")
    content_base64: str = Field("", description="instead of content: the file's bytes in base64")
    media_type: str = Field("", description="such as text/markdown; default: by the name")


def file_tools() -> list[Tool[Any]]:
    return [
        Tool(
            "matrix_upload_file",
            "Upload a file",
            "Send a file or an image, given as text or base64, to a Matrix room you are in.",
            Scope.WRITE,
            UploadFile,
            dict,
            upload_file,
        )
    ]


async def upload_file(caller: Caller, params: UploadFile) -> Result:
    data, name = _data(params), safe_name(params.name)
    media_type = _media_type(params, name)
    txn = caller.txn("matrix_upload_file")
    async with room_of(caller, params.room_id) as room_id:
        event_id = await caller.intent.find_sent(room_id, txn)
        if event_id is None:
            if room_id not in await caller.intent.joined_rooms():
                raise not_in(caller, params.room_id)
            url = await caller.intent.upload(data, media_type, name)
            content = {
                "msgtype": _msgtype(media_type),
                "body": name,
                "filename": name,
                "url": url,
                "info": {"mimetype": media_type, "size": len(data)},
                "m.mentions": {},
                MARKER: {"agent_id": caller.agent_id, "tool": "matrix_upload_file", "txn": txn},
            }
            event_id = await send_once(caller, room_id, content, txn)
        return {"room_id": room_id, "event_id": event_id, "name": name, "bytes": len(data)}


def safe_name(name: str) -> str:
    """The last part of a path, without what could hide or mean something to a file system."""
    last = PurePosixPath(clean_text(name).replace("\\", "/").replace("\n", " ")).name
    stem = re.sub(r'[<>:"|?*]', "_", last).strip(" .")
    if not stem:
        raise ToolError("`name` should be a file name such as notes.md.")
    if len(stem) <= _MAX_NAME:
        return stem
    suffix = PurePosixPath(stem).suffix[:20]
    return stem[: _MAX_NAME - len(suffix)] + suffix


def _data(params: UploadFile) -> bytes:
    if bool(params.content) == bool(params.content_base64):
        raise ToolError("Give either `content` or `content_base64`.")
    # Base64 is a third longer than what it holds.
    if len(params.content or params.content_base64) > MAX_BYTES * 4 // 3 + 4:
        raise _too_large()
    data = _text(params.content) or _bytes(params.content_base64)
    if len(data) > MAX_BYTES:
        raise _too_large()
    return data


def _text(content: str) -> bytes:
    try:
        return content.encode()
    except UnicodeEncodeError as error:
        raise ToolError("`content` is broken: it has half a surrogate pair in it.") from error


def _bytes(content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except ValueError as error:
        raise ToolError("`content_base64` is not valid base64.") from error


def _too_large() -> ToolError:
    return ToolError(f"The file is too large: at most {MAX_BYTES // 1_000_000} MB.")


def _media_type(params: UploadFile, name: str) -> str:
    if params.media_type:
        if _MEDIA_TYPE.fullmatch(params.media_type) is None:
            raise ToolError("`media_type` should look like text/markdown.")
        return params.media_type.lower()
    guessed, encoding = mimetypes.guess_type(name)
    if guessed is None or encoding is not None:
        return "text/plain" if params.content else "application/octet-stream"
    return guessed


def _msgtype(media_type: str) -> str:
    if media_type in _IMAGES:
        return "m.image"
    major = media_type.partition("/")[0]
    return f"m.{major}" if major in ("audio", "video") else "m.file"
