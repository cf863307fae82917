"""Files that come in: as the body of a request, or as a part of a form."""

import re
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from letta_matrix.doors.rest.problems import Problem
from letta_matrix.operations.toolbox.uploads import MAX_BYTES

_FORM = "multipart/form-data"
_FIELD = "file"
_UNTOLD = ("", "application/octet-stream", "application/x-www-form-urlencoded")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}/[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)
_OVERHEAD = 100_000
"""Bytes of a form beside its file."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it was sent; `media_type` is "" where nobody told it."""

    name: str
    media_type: str
    data: bytes


async def upload_of(request: Request, filename: str) -> Upload:
    """The file that a request brings; `filename` names it unless a form does. Raises Problem."""
    content_type = request.headers.get("Content-Type", "")
    if content_type.partition(";")[0].strip().lower() == _FORM:
        return await _from_form(request, filename)
    data = await _read(request, MAX_BYTES)
    if not filename:
        raise Problem("invalid-arguments", "query.filename: should be a name such as notes.md.")
    return _checked(Upload(filename, _plain(content_type), data))


async def _from_form(request: Request, filename: str) -> Upload:
    await _check_length(request, MAX_BYTES + _OVERHEAD)
    try:
        async with request.form(max_files=1, max_fields=10) as form:
            file = form.get(_FIELD)
            if not isinstance(file, UploadFile):
                raise Problem("invalid-arguments", f"body.{_FIELD}: the form has no such file.")
            data = await file.read(MAX_BYTES + 1)
            name = filename or file.filename or ""
            return _checked(Upload(name, _plain(file.content_type or ""), data))
    except HTTPException as error:
        if error.status_code == 413:
            raise
        raise Problem("malformed-body", f"The form cannot be read: {error.detail}") from error


async def _read(request: Request, most: int) -> bytes:
    await _check_length(request, most)
    data = bytearray()
    async for chunk in request.stream():
        # What is too much is read to its end: who still sends does not hear the answer.
        if len(data) <= most:
            data += chunk
    return bytes(data)


def _checked(upload: Upload) -> Upload:
    if not upload.data:
        raise Problem("invalid-arguments", "body: the file is empty.")
    if len(upload.data) > MAX_BYTES:
        raise _too_large()
    return upload


async def _check_length(request: Request, most: int) -> None:
    length = request.headers.get("Content-Length", "")
    if length.isdecimal() and int(length[:20]) > most:
        async for _ in request.stream():
            pass
        raise _too_large()


def _too_large() -> Problem:
    return Problem("too-large", f"The file is too large: at most {MAX_BYTES // 1_000_000} MB.")


def _plain(content_type: str) -> str:
    """A media type without its parameters, "" for one that tells nothing."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in _UNTOLD or _MEDIA_TYPE.fullmatch(media_type) is None:
        return ""
    return media_type
