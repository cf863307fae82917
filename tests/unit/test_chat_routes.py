"""The pages' files over HTTP."""

import re
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from letta_matrix.doors.web import static_files
from letta_matrix.doors.web.pages import chat_routes, dashboard_routes, docs_routes

DASHBOARD = Path(static_files.__file__).parent / "static" / "dashboard"
IMPORTED = re.compile(r'^(?:import|}).* from "([^"]+)";$', re.MULTILINE)


@pytest.fixture
async def client() -> AsyncGenerator[httpx.AsyncClient]:
    chat = chat_routes("https://matrix.example:8448/", "@letta:example", [{"name": "help"}])
    app = Starlette(routes=[*chat, *dashboard_routes(), *docs_routes()])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://bridge") as client:
        yield client


async def test_page_has_a_strict_policy(client: httpx.AsyncClient) -> None:
    answer = await client.get("/chat")
    page = answer.text
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


async def test_the_front_door_leads_browsers_to_the_page(client: httpx.AsyncClient) -> None:
    answer = await client.get("/", headers={"Accept": "text/html,*/*"})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/chat")


async def test_who_is_signed_in_to_the_dashboard_is_led_there(client: httpx.AsyncClient) -> None:
    headers = {"Accept": "text/html", "Cookie": "letta-matrix-home=dashboard"}
    answer = await client.get("/", headers=headers)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/dashboard")
    assert "Cookie" in answer.headers["Vary"]
    headers["Cookie"] = "letta-matrix-home=//elsewhere.example"
    assert (await client.get("/", headers=headers)).headers["Location"] == "/chat"


async def test_the_dashboard_talks_to_its_own_origin_alone(client: httpx.AsyncClient) -> None:
    page = await client.get("/dashboard")
    assert "connect-src 'self';" in page.headers["Content-Security-Policy"]
    assert "://" not in page.text
    assert "style=" not in page.text
    for name in re.findall(r'(?:href|src)="([^"#]+)"', page.text):
        assert (await client.get(f"/{name}")).status_code == 200


async def test_what_the_dashboard_takes_of_the_chat_page_is_there(
    client: httpx.AsyncClient,
) -> None:
    scripts = sorted(DASHBOARD.rglob("*.js"))
    assert scripts
    for script in scripts:
        for name in IMPORTED.findall(script.read_text(encoding="utf-8")):
            place = (script.parent / name).resolve().relative_to(DASHBOARD.parent)
            assert (await client.get(f"/{place.as_posix()}")).status_code == 200


async def test_the_front_door_tells_programs_what_this_is(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    assert answer.json().items() >= {"status": "running", "docs": "/docs"}.items()


async def test_the_reference_needs_nothing_of_others(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert "connect-src 'self';" in page.headers["Content-Security-Policy"]
    assert "://" not in page.text
    assert "style=" not in page.text
    for name in ("docs.js", "docs.css"):
        assert f'"docs/{name}"' in page.text
        file = await client.get(f"/docs/{name}")
        assert file.status_code == 200
        assert "://" not in file.text


async def test_files_are_served_and_revalidated(client: httpx.AsyncClient) -> None:
    answer = await client.get("/chat/store/rooms.js")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    again = await client.get("/chat/main.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 200
    same = await client.get(
        "/chat/store/rooms.js", headers={"If-None-Match": answer.headers["ETag"]}
    )
    assert same.status_code == 304


async def test_settings(client: httpx.AsyncClient) -> None:
    answer = await client.get("/chat/config.json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json() == {
        "homeserver_url": "https://matrix.example:8448",
        "bot_user_id": "@letta:example",
        "commands": [{"name": "help"}],
    }


@pytest.mark.parametrize("path", ["nothing.js", "..%2f..%2fpages.py", "views"])
async def test_nothing_else_is_served(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"/chat/{path}")
    assert answer.status_code == 404
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_trailing_slash_leads_to_the_page(client: httpx.AsyncClient) -> None:
    answer = await client.get("/chat/")
    assert (answer.status_code, answer.headers["Location"]) == (301, "/chat")


@pytest.mark.parametrize("url", ["", "matrix.example", "ftp://matrix.example", "http://"])
def test_homeserver_must_be_a_web_address(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        chat_routes(url, "@letta:example")
