"""What an agent gets of a file that a person sends: an image to see, text to read, or a line
that describes it."""

import codecs
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from letta_matrix.common.image_headers import image_type
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.pictures import PictureFault, prepare
from letta_matrix.config import Conversations
from letta_matrix.conversations.looks import plain_name
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.media import MediaFault, human_size
from letta_matrix.matrix.verbatim import in_fence
from letta_matrix.runtimes.protocol import Image

_KINDS = {"m.image": "image", "m.audio": "audio", "m.video": "video", "m.file": "file"}
_NOT_TEXT = (b"%PDF-", b"{\\rtf", b"%!PS")
_MAX_CAPTION = 200_000


class Fetch(Protocol):
    """Reads at most `most` bytes of an `mxc://` URI: the first ones with `cut`, else raises
    MediaFault where there are more."""

    def __call__(self, mxc: str, most: int, *, cut: bool = False) -> Awaitable[bytes]: ...


@dataclass(frozen=True, slots=True)
class Attached:
    """`text` and `images` are for the agent, `note` is for the person; each may be empty."""

    text: str
    images: tuple[Image, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class _File:
    """What an event says about its file; none of it is to be trusted."""

    kind: str
    name: str
    media_type: str
    size: int | None

    @property
    def quoted(self) -> str:
        """The name as Markdown that shows it and does nothing else."""
        return f"`{self.name.replace('`', chr(39))}`"

    def described(self, media_type: str = "", size: int | None = None, more: str = "") -> str:
        size = self.size if size is None else size
        parts = (self.name, media_type or self.media_type, human_size(size) if size else "")
        return f"[{self.kind}: {', '.join(part for part in parts if part)}{more}]"


def caption(content: Mapping[str, Any]) -> str:
    """What the person wrote under a file, "" for none (spec v1.10: media captions)."""
    body, filename = content.get("body"), content.get("filename")
    if not isinstance(body, str) or not isinstance(filename, str) or body == filename:
        return ""
    return clean_text(body).strip()[:_MAX_CAPTION]


async def read_attachment(
    content: Mapping[str, Any], limits: Conversations, fetch: Fetch, *, sees: bool
) -> Attached:
    """What the agent gets of the file in an event's `content`; `sees`: it may get images.

    What the file is, its bytes decide, not the event. Raises nothing for whatever comes.
    """
    file = _file(content)
    url = content.get("url")
    if not isinstance(url, str):
        reason = "it is encrypted" if content.get("file") else "the message does not say where"
        return _unread(file, reason)
    try:
        if file.kind in ("audio", "video"):
            return _described_only(file)
        if file.kind == "image" or file.media_type.startswith("image/"):
            return await _seen(file, url, limits, fetch, sees=sees)
        return await _read(file, url, limits, fetch, sees=sees)
    except MediaFault as fault:
        return _unread(file, str(fault))


def described_only(content: Mapping[str, Any]) -> Attached:
    """A file by its name, type and size alone, and a word about that."""
    return _described_only(_file(content))


def as_text(data: bytes, *, is_cut: bool = False) -> str | None:
    """`data` as text if it is UTF-8 without NULs, None for anything else; `is_cut`: it may end
    in the middle of a character."""
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data or data.startswith(_NOT_TEXT):
        return None
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=not is_cut)
    except UnicodeDecodeError:
        return None


async def _seen(
    file: _File, url: str, limits: Conversations, fetch: Fetch, *, sees: bool
) -> Attached:
    if not sees:
        note = f"I cannot see images here, so of {file.quoted} I only know that it is there."
        return Attached(file.described(more=": its content is not shown to you"), note=note)
    most = limits.max_image_bytes
    if file.size is not None and file.size > most:
        raise MediaFault(f"it is larger than {human_size(most)}")
    data = await fetch(url, most)
    if image_type(data) is None:
        text = as_text(data[: limits.max_text_bytes], is_cut=len(data) > limits.max_text_bytes)
        if text is None:
            raise MediaFault("it is no PNG, JPEG, GIF or WebP image")
        return _texted(file, text, limits, is_cut=len(data) > limits.max_text_bytes)
    return await _pictured(file, data, limits)


async def _pictured(file: _File, data: bytes, limits: Conversations) -> Attached:
    try:
        picture = await prepare(data, limits.max_image_side)
    except PictureFault as fault:
        raise MediaFault(str(fault)) from None
    image = Image(file.name, picture.media_type, picture.data)
    shape = f", {picture.width}x{picture.height}"
    seen = _File("image", file.name, image_type(data) or "", len(data))
    return Attached(seen.described(more=shape), (image,))


async def _read(
    file: _File, url: str, limits: Conversations, fetch: Fetch, *, sees: bool
) -> Attached:
    most = limits.max_text_bytes
    data = await fetch(url, most + 1, cut=True)
    is_cut = len(data) > most
    if image_type(data) is not None:
        return await _seen(file, url, limits, fetch, sees=sees)
    text = as_text(data[:most], is_cut=is_cut)
    if text is None or not most:
        return _described_only(file)
    return _texted(file, text, limits, is_cut=is_cut, size=None if is_cut else len(data))


def _texted(
    file: _File, text: str, limits: Conversations, *, is_cut: bool, size: int | None = None
) -> Attached:
    shown = in_fence(clean_text(text))
    if not is_cut:
        return Attached(f"{file.described(size=size)}\n{shown}")
    most = human_size(limits.max_text_bytes)
    note = f"Of {file.quoted} I got the first {most} only; the rest is cut off."
    return Attached(f"{file.described()}\n{shown}\n[cut: the first {most} of the file]", note=note)


def _described_only(file: _File) -> Attached:
    note = f"I cannot open {file.quoted}; I only see its name, type and size."
    return Attached(file.described(more=": content not shown"), note=note)


def _unread(file: _File, reason: str) -> Attached:
    text = file.described(more=f": could not be read: {reason}")
    return Attached(text, note=f"{file.quoted} could not be read: {reason}.")


def _file(content: Mapping[str, Any]) -> _File:
    info = mapping(content.get("info"))
    size, media_type = info.get("size"), info.get("mimetype")
    kind = _KINDS.get(str(content.get("msgtype")), "file")
    return _File(
        kind,
        _name(content) or f"unnamed {kind}",
        plain_name(media_type).lower() if isinstance(media_type, str) else "",
        size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None,
    )


def _name(content: Mapping[str, Any]) -> str:
    for key in ("filename", "body"):
        name = content.get(key)
        if isinstance(name, str) and name.strip():
            return plain_name(name.replace("\\", "/").rpartition("/")[2])
    return ""
