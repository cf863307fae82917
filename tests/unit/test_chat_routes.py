"""The chat page's files over HTTP."""

from collections.abc import AsyncGenerator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from letta_matrix.web.pages import chat_routes

Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client() -> AsyncGenerator[Client]:
    app = web.Application()
    app.add_routes(chat_routes("https://matrix.example:8448/", "@letta:example"))
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_page_has_a_strict_policy(client: Client) -> None:
    answer = await client.get("/chat")
    page = await answer.text()
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "connect-src 'self' https://matrix.example:8448; img-src 'self' blob: data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "<style" not in page
    assert " style=" not in page
    assert page.count("<script") == page.count('<script type="module" src=')


async def test_the_front_door_leads_to_the_page(client: Client) -> None:
    answer = await client.get("/", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (302, "/chat")


async def test_files_are_served_and_revalidated(client: Client) -> None:
    answer = await client.get("/chat/store/rooms.js")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    again = await client.get("/chat/main.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 200
    same = await client.get(
        "/chat/store/rooms.js", headers={"If-None-Match": answer.headers["ETag"]}
    )
    assert same.status == 304


async def test_settings(client: Client) -> None:
    answer = await client.get("/chat/config.json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert await answer.json() == {
        "homeserver_url": "https://matrix.example:8448",
        "bot_user_id": "@letta:example",
    }


@pytest.mark.parametrize("path", ["nothing.js", "..%2f..%2fpages.py", "views"])
async def test_nothing_else_is_served(client: Client, path: str) -> None:
    answer = await client.get(f"/chat/{path}")
    assert answer.status == 404
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_trailing_slash_leads_to_the_page(client: Client) -> None:
    answer = await client.get("/chat/", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (301, "/chat")


@pytest.mark.parametrize("url", ["", "matrix.example", "ftp://matrix.example", "http://"])
def test_homeserver_must_be_a_web_address(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        chat_routes(url, "@letta:example")
