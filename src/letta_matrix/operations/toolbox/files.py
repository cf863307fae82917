"""Tools that put files into a room: any file, an image, a voice message."""

import mimetypes
import re
from collections.abc import Mapping
from functools import partial
from typing import NotRequired

from pydantic import Field

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.audio_headers import audio_seconds, audio_type
from letta_matrix.common.image_headers import Shape, image_shape
from letta_matrix.matrix.content import MARKER, content_size, text_content
from letta_matrix.matrix.splitting import CONTENT_LIMIT
from letta_matrix.operations.toolbox.arguments import RoomWriteParams
from letta_matrix.operations.toolbox.tool import Caller, Result, tool
from letta_matrix.operations.toolbox.uploads import Attachment, Posted, file_of, post, safe_name
from letta_matrix.operations.toolbox.writing import fitting, spoken

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}/[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)
_IMAGES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
_SUFFIXES = {
    "image/png": (".png",),
    "image/jpeg": (".jpg", ".jpeg"),
    "image/gif": (".gif",),
    "image/webp": (".webp",),
    "audio/ogg": (".ogg", ".oga", ".opus"),
    "audio/wav": (".wav",),
    "audio/mpeg": (".mp3",),
    "audio/flac": (".flac",),
    "audio/webm": (".webm",),
    "audio/mp4": (".m4a", ".mp4"),
}
_VOICE = "Voice message"
_TEXT = "org.matrix.msc1767.text"
_FILE = "org.matrix.msc1767.file"
_AUDIO = "org.matrix.msc1767.audio"
_IS_VOICE = "org.matrix.msc3245.voice"

_LONG_CAPTION = "`caption` is too long; send it as a message."
BASE64 = "its bytes in base64, at most 5 MB"
MXC = "instead: mxc://... of a file that is on Matrix"


class UploadFile(RoomWriteParams):
    name: str = Field(min_length=1, max_length=1000, description="file name, such as notes.md")
    content: str = Field("", description="the file's text")
    content_base64: str = Field("", description="instead of content: the file's bytes in base64")
    mxc: str = Field("", max_length=600, description=MXC)
    media_type: str = Field("", description="such as text/markdown; default: by the name")


class SendImage(RoomWriteParams):
    content_base64: str = Field("", description=f"PNG, JPEG, GIF or WebP: {BASE64}")
    mxc: str = Field("", max_length=600, description=MXC)
    name: str = Field("image", min_length=1, max_length=1000, description="file name")
    caption: str = Field(
        "", max_length=10_000, description="what it shows, as Markdown; also for who cannot see it"
    )


class SendVoice(RoomWriteParams):
    content_base64: str = Field("", description=f"best Ogg Opus: {BASE64}")
    mxc: str = Field("", max_length=600, description=MXC)
    duration_seconds: float = Field(
        0.0, ge=0, le=36_000, description="needed unless it is Ogg or WAV"
    )


class PostedImage(Posted):
    width: NotRequired[int]
    height: NotRequired[int]


class PostedVoice(Posted):
    duration_seconds: float


@tool("matrix_upload_file", "Upload a file", Scope.WRITE, PostedImage)
async def upload_file(caller: Caller, params: UploadFile) -> Result:
    """Send a file or an image, given as text or base64, to a Matrix room you are in."""
    name = safe_name(params.name)
    media_type = _media_type(params, name)
    file = await file_of(
        caller, text=params.content, base64_text=params.content_base64, mxc=params.mxc
    )
    msgtype = _msgtype(media_type)
    shape = image_shape(file.data) if msgtype == "m.image" else None
    attachment = Attachment(file, name, media_type, _details(shape))
    make = partial(_content, msgtype, name, attachment, {"filename": name})
    sent = await post(caller, params.room_id, "matrix_upload_file", attachment, make)
    return sent | _shown(shape)


@tool("matrix_send_image", "Send an image", Scope.WRITE, PostedImage)
async def send_image(caller: Caller, params: SendImage) -> Result:
    """Send an image with a caption to a Matrix room you are in."""
    file = await file_of(caller, base64_text=params.content_base64, mxc=params.mxc)
    shape = image_shape(file.data)
    if shape is None:
        raise ToolError("That is no image: give a PNG, JPEG, GIF or WebP.")
    name = named(params.name, shape.media_type)
    said: dict[str, object] = {"filename": name}
    if params.caption:
        caption = spoken(params.caption, "caption")
        make_said = partial(text_content, caption, marker={}, msgtype="m.image")
        said |= await fitting(caption, make_said, _LONG_CAPTION)
    attachment = Attachment(file, name, shape.media_type, _details(shape))
    make = partial(_content, "m.image", name, attachment, said)
    if content_size({**make(""), MARKER: {}}) > CONTENT_LIMIT:
        raise ToolError(_LONG_CAPTION, Fault.TOO_LARGE)
    sent = await post(caller, params.room_id, "matrix_send_image", attachment, make)
    return sent | _shown(shape)


@tool("matrix_send_voice", "Send a voice message", Scope.WRITE, PostedVoice)
async def send_voice(caller: Caller, params: SendVoice) -> Result:
    """Send recorded speech as a voice message to a Matrix room you are in."""
    # MSC3245, in the form that clients send: `m.audio` with marks of extensible events.
    file = await file_of(caller, base64_text=params.content_base64, mxc=params.mxc)
    media_type = audio_type(file.data)
    if not media_type:
        raise ToolError("That is no audio: give Ogg Opus, or WAV, MP3, FLAC, WebM, MP4.")
    told = audio_seconds(file.data) if file.whole else None
    seconds = params.duration_seconds or told
    if not seconds:
        raise ToolError("`duration_seconds` is missing: this file does not tell it.")
    duration = {"duration": round(seconds * 1000)}
    attachment = Attachment(file, named(_VOICE, media_type), media_type, duration)

    def make(url: str) -> dict[str, object]:
        told = {"url": url, "name": attachment.name, "mimetype": media_type, **attachment.size}
        marks = {_TEXT: _VOICE, _FILE: told, _AUDIO: duration, _IS_VOICE: {}}
        return _content("m.audio", _VOICE, attachment, marks, url)

    sent = await post(caller, params.room_id, "matrix_send_voice", attachment, make)
    return {**sent, "duration_seconds": duration["duration"] / 1000}


def _content(
    msgtype: str, body: str, attachment: Attachment, more: Mapping[str, object], url: str
) -> dict[str, object]:
    content = {"msgtype": msgtype, "body": body, "url": url, "info": attachment.info}
    return {**content, "m.mentions": {}, **more}


def _details(shape: Shape | None) -> dict[str, int]:
    return {} if shape is None else {"w": shape.width, "h": shape.height}


def _shown(shape: Shape | None) -> dict[str, object]:
    return {} if shape is None else {"width": shape.width, "height": shape.height}


def named(name: str, media_type: str) -> str:
    """A file name that fits the media type of an image or a voice message."""
    stem, suffixes = safe_name(name), _SUFFIXES[media_type]
    return stem if stem.lower().endswith(suffixes) else safe_name(stem + suffixes[0])


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
