"""Paths whose segments may have a slash in them, percent-encoded: aliases and names of rooms."""

from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Path, Request
from starlette.types import ASGIApp, Receive, Scope, Send

_QUOTED = "letta_matrix.quoted"
_ROOM = "room id (`!...`), alias (`#...`), or the exact name of one of your rooms"


class SlashesInSegments:
    """ASGI middleware: a slash that is encoded as `%2F` ends no segment of the path (RFC 3986,
    section 2.2), though servers tell the application of the decoded path alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw: bytes = scope.get("raw_path") or b""
        if scope["type"] == "http" and b"%2f" in raw.lower():
            kept = raw.replace(b"%25", b"%2525").replace(b"%2F", b"%252F").replace(b"%2f", b"%252F")
            scope = {**scope, "path": unquote(kept.decode("latin-1")), _QUOTED: True}
        await self._app(scope, receive, send)


def segment(request: Request, name: str) -> str:
    """A parameter of the path, with its slashes."""
    value = str(request.path_params[name])
    return unquote(value) if request.scope.get(_QUOTED) else value


async def _room_of(
    request: Request,
    room: Annotated[
        str, Path(max_length=800, description=_ROOM, examples=["!QvR5cQmXhVJzbAtYkS:example.org"])
    ],
) -> str:
    return segment(request, "room")


async def _event_of(
    request: Request,
    event_id: Annotated[
        str, Path(max_length=800, examples=["$KfSWbdoLZpBf9lhXd6Uv0pzR0KzLGtYtNtTQpx8l2wE"])
    ],
) -> str:
    return segment(request, "event_id")


RoomOfPath = Annotated[str, Depends(_room_of)]
EventOfPath = Annotated[str, Depends(_event_of)]
