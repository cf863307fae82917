"""Paths whose segments have slashes in them."""

from typing import Any
from urllib.parse import quote, unquote

import pytest
from fastapi import FastAPI

from letta_matrix.doors.rest.paths import EventOfPath, RoomOfPath, SlashesInSegments


def make_app() -> FastAPI:
    app = FastAPI()

    @app.get("/rooms/{room}/messages/{event_id}")
    async def shown(room: RoomOfPath, event_id: EventOfPath) -> list[str]:
        return [room, event_id]

    app.add_middleware(SlashesInSegments)
    return app


@pytest.fixture(scope="module")
def app() -> Any:
    return make_app()


async def get(app: Any, raw_path: str) -> Any:
    """What an ASGI server makes of a request for a path as it was sent."""
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": b"",
        "headers": [],
        "state": {},
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent)


@pytest.mark.parametrize(
    "room", ["!a:b", "#a/b:c", "Plans 50% / %2F", "%2F", "../..", "ü", "a%25b", "?#[]", "%"]
)
async def test_a_room_is_named_as_it_is_called(app: Any, room: str) -> None:
    status, body = await get(
        app, f"/rooms/{quote(room, safe='')}/messages/{quote('$x/y', safe='')}"
    )
    assert status == 200
    assert body.decode() == f'["{room}","$x/y"]'


async def test_a_slash_that_is_not_encoded_ends_a_segment(app: Any) -> None:
    assert (await get(app, "/rooms/a/b/messages/$x"))[0] == 404
