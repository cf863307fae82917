"""Files that callers give, and the message that carries one."""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NotRequired

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.operations.toolbox.downloads import fetched
from letta_matrix.operations.toolbox.naming import not_in, writable_room
from letta_matrix.operations.toolbox.results import OfEvent
from letta_matrix.operations.toolbox.tool import Caller
from letta_matrix.operations.toolbox.writing import GIVE_UP_AFTER, marker_of

MAX_BYTES = 5_000_000

_MAX_NAME = 150


@dataclass(frozen=True, slots=True)
class File:
    """Bytes that a caller gave; or those behind an `mxc://` URI, the first of them if they are
    too many (then not `whole`)."""

    data: bytes
    mxc: str = ""
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file as a message carries it; `details` go into its `info`."""

    file: File
    name: str
    media_type: str
    details: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def size(self) -> dict[str, int]:
        """Its bytes, if that is known."""
        return {"size": len(self.file.data)} if self.file.whole else {}

    @property
    def info(self) -> dict[str, object]:
        """The `info` of a message (spec: m.image, m.audio, m.file)."""
        return {"mimetype": self.media_type, **self.size, **self.details}


class Posted(OfEvent):
    """`bytes` is missing where only the first ones were looked at."""

    name: str
    bytes: NotRequired[int]


Make = Callable[[str], Mapping[str, object]]
"""Makes the content of the message from the file's `mxc://` URI."""


async def file_of(caller: Caller, *, base64_text: str, mxc: str, text: str = "") -> File:
    """The file that one of these arguments gives. Raises ToolError."""
    if sum(map(bool, (text, base64_text, mxc))) != 1:
        raise ToolError("Give either `content_base64` or `mxc`; of a text file also `content`.")
    if mxc:
        return await _on_matrix(caller, mxc)
    # Base64 is a third longer than what it holds.
    if len(text or base64_text) > MAX_BYTES * 4 // 3 + 4:
        raise _too_large()
    data = _encoded(text) if text else _decoded(base64_text)
    if len(data) > MAX_BYTES:
        raise _too_large()
    return File(data)


async def post(
    caller: Caller, ref: str, tool: str, attachment: Attachment, make: Make
) -> dict[str, object]:
    """Upload a file, unless it is on Matrix already, and send the message that `make` makes of
    it, once. Returns what a Posted has."""
    txn, file = caller.txn(tool), attachment.file
    async with writable_room(caller, ref) as room_id:
        event_id = await caller.intent.find_sent(room_id, txn) if caller.again else None
        if event_id is None:
            if room_id not in await caller.intent.joined_rooms():
                raise not_in(caller, ref)
            url = file.mxc or await caller.intent.upload(
                file.data, attachment.media_type, attachment.name
            )
            content = {**make(url), MARKER: marker_of(caller, tool, txn)}
            event_id = await caller.intent.send(
                room_id, "m.room.message", content, txn, give_up_after=GIVE_UP_AFTER
            )
    told: dict[str, object] = {"room_id": room_id, "event_id": event_id, "name": attachment.name}
    return told | ({"bytes": len(file.data)} if file.whole else {})


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


async def _on_matrix(caller: Caller, mxc: str) -> File:
    if caller.principal.rooms is not None:
        # Posted into a room of its own it could be read there, wherever it came from.
        raise ToolError(
            "Your token is for some rooms alone, and nothing tells which rooms an `mxc` is from. "
            "Give the file's content.",
            Fault.FORBIDDEN,
        )
    data = await fetched(caller, mxc, MAX_BYTES + 1, "`mxc`", Fault.NOT_FOUND, cut=True)
    return File(data[:MAX_BYTES], mxc, whole=len(data) <= MAX_BYTES)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ToolError("`content` is broken: it has half a surrogate pair in it.") from error


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ToolError("`content_base64` is not valid base64.") from error


def _too_large() -> ToolError:
    return ToolError(
        f"The file is too large: at most {MAX_BYTES // 1_000_000} MB.", Fault.TOO_LARGE
    )
