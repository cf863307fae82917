"""The how-to's nginx before a homeserver that stands below a path."""

import io
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from tests.nginx import PATH, nginx_before, nginx_path
from tests.waiting import eventually
from yarl import URL

pytestmark = pytest.mark.skipif(nginx_path() is None, reason="Debian's nginx is not installed")


@pytest.fixture
async def url(tmp_path: Path) -> AsyncGenerator[str]:
    """The proxy's; what stands behind tells which path was asked for, and the body's length."""

    async def told(request: web.Request) -> web.Response:
        return web.json_response([request.raw_path, len(await request.read())])

    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", told)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        with nginx_before(f"http://127.0.0.1:{runner.addresses[0][1]}", tmp_path, path=PATH) as it:
            yield it.url
    finally:
        await runner.cleanup()


async def _answer(http: aiohttp.ClientSession, url: str, body: bytes = b"") -> tuple[int, str]:
    async def asked() -> tuple[int, str]:
        try:
            async with http.post(URL(url, encoded=True), data=io.BytesIO(body)) as response:
                return response.status, await response.text()
        except aiohttp.ClientConnectorError:
            return 0, ""  # it is starting

    return await eventually(asked, lambda answer: answer[0] != 0)


async def test_what_is_for_clients_comes_through_as_it_is(
    url: str, http: aiohttp.ClientSession
) -> None:
    for path in ("/_matrix/client/v3/rooms/%21a%2Fb%3Atest/join?x=%2F", "/_synapse/client/x"):
        assert await _answer(http, url + path) == (200, f'["{path}", 0]')
    large = bytes(5_000_000)
    status, told = await _answer(http, f"{url}/_matrix/media/v3/upload", large)
    assert (status, str(len(large)) in told) == (200, True)


@pytest.mark.parametrize(
    "path",
    [
        "/_synapse/admin/v1/register",
        "/_synapse/client/../admin/v1/register",
        "/_matrix/../_synapse/admin/v1/register",
        "/_matrix/%2e%2e/_synapse/admin/v1/register",
        "/_synapse/admin/%2e%2e/client/x",
        "//_synapse/admin/v1/register",
        "/",
        "/metrics",
    ],
)
async def test_nothing_else_does(url: str, http: aiohttp.ClientSession, path: str) -> None:
    assert (await _answer(http, url + path))[0] == 404
