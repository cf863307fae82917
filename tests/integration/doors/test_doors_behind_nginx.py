"""All doors behind a real nginx, with the example of the how-to."""

import asyncio
import io
import json
import re
import secrets
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver
from tests.certificates import certificates_in
from tests.integration.bridge_world import Room, World, event_in
from tests.integration.doors.doors_world import Gates, new_key
from tests.integration.doors.rest import Rest, rest_as
from tests.mcp_socket import INITIALIZE, RawClient
from tests.nginx import AROUND
from tests.servers import ServerProcess, free_port
from tests.waiting import within

from letta_matrix.access.principal import TOOL_SCOPES
from letta_matrix.stack.supervisor import Command

NGINX = shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
PAGE = Path(__file__).parents[3] / "docs/how-to/proxies.md"
API, MCP, BRIDGE = "letta.example.org", "mcp.example.org", "bridge.example.org"

pytestmark = pytest.mark.skipif(NGINX is None, reason="Debian's nginx is not installed")


class Here(AbstractResolver):
    """Every name is this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[Any]:
        found = {"hostname": host, "host": "127.0.0.1", "port": port, "proto": 0, "flags": 0}
        return [{**found, "family": socket.AF_INET}]

    async def close(self) -> None:
        pass


class Proxy:
    """The proxy's addresses, and a client that trusts it."""

    def __init__(self, port: int, authority: Path) -> None:
        self._port = port
        trusted = ssl.create_default_context(cafile=authority)
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=Here(), ssl=trusted)
        )

    def url(self, name: str) -> str:
        return f"https://{name}:{self._port}"

    async def answers(self) -> bool:
        try:
            async with self.http.get(self.url(BRIDGE)) as response:
                return response.status == 404
        except aiohttp.ClientConnectorError:
            return False


@pytest.fixture(scope="module")
async def proxy(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Proxy]:
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    certificates = certificates_in(folder, API, MCP, BRIDGE)
    replaced = {
        "443 ssl": f"127.0.0.1:{port} ssl",
        "/etc/ssl/letta-matrix/fullchain.pem": certificates.chain,
        "/etc/ssl/letta-matrix/privkey.pem": certificates.key,
        "127.0.0.1:8004": f"127.0.0.1:{world.config.api.port}",
        "127.0.0.1:8015": f"127.0.0.1:{world.config.mcp.websocket_port}",
        "127.0.0.1:8016": f"127.0.0.1:{world.config.mcp.port}",
        "127.0.0.1:29377": f"127.0.0.1:{world.homeserver.appservice_port}",
        "192.0.2.10": "127.0.0.1",
    }
    found = re.search(r"```nginx\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    text = found[1]
    for written, meant in replaced.items():
        assert written in text, written
        text = text.replace(written, str(meant))
    config = folder / "nginx.conf"
    config.write_text(AROUND.format(folder=folder, text=text))
    argv = (str(NGINX), "-c", str(config), "-p", str(folder))
    testing = await asyncio.create_subprocess_exec(
        *argv, "-t", stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    told = (await testing.communicate())[1].decode()
    assert (testing.returncode, "warn" in told) == (0, False), told
    made = Proxy(port, certificates.authority)
    server = ServerProcess(Command("nginx", argv, folder / "log", folder), made.answers)
    await server.start()
    try:
        yield made
    finally:
        await made.http.close()
        server.end(signal.SIGTERM)


async def rest_through(proxy: Proxy, world: World, agent_id: str = "") -> Rest:
    """The API, as the bot or as an agent."""
    token = (await rest_as(world, *TOOL_SCOPES, agent_id=agent_id)).token
    return Rest(proxy.http, f"{proxy.url(API)}/api/v1", token)


async def test_answers_come_as_they_grow(
    world: World, proxy: Proxy, gates: Gates, ada: Room
) -> None:
    rest = await rest_through(proxy, world)
    key, names = new_key(), list[str]()
    path = f"/agents/{ada.agent.agent_id}/messages"
    async with rest.stream(path, {"message": f"words {key} 2"}) as coming:
        async for name, _ in coming:
            names.append(name)
            if name == "text":
                # It says no more before what it said has come through.
                gates.open(key)
    assert names == ["accepted", "text", "text", "done"]


async def test_ids_and_files_arrive_as_they_are(world: World, proxy: Proxy, ada: Room) -> None:
    rest = await rest_through(proxy, world, ada.agent.agent_id)
    room = f"/rooms/{quote(ada.room_id, safe='')}"
    assert (await rest.call("GET", room))["room_id"] == ada.room_id
    data = secrets.token_bytes(4_900_000)
    sent = await rest.call("POST", f"{room}/media", data, filename="large.bin", expect=201)
    async with rest.open("GET", f"{room}/messages/{sent['event_id']}/media") as response:
        assert await response.read() == data


async def test_only_what_is_meant_for_others_is_served(proxy: Proxy) -> None:
    for name, path, status in (
        (API, "/chat", 200),
        (API, "/health", 403),
        (API, "/api/v1/whoami", 401),
        (MCP, "/health", 404),
        (MCP, "/mcp", 401),
        (MCP, "/.well-known/oauth-protected-resource/mcp", 200),
        (BRIDGE, "/_matrix/mau/live", 404),
    ):
        async with proxy.http.get(proxy.url(name) + path) as response:
            assert (name, path, response.status) == (name, path, status)


async def test_mcp_is_at_one_address(world: World, proxy: Proxy, ada: Room) -> None:
    token = (await rest_through(proxy, world, ada.agent.agent_id)).token
    url, headers = f"{proxy.url(MCP)}/mcp", {"Authorization": f"Bearer {token}"}
    uri = f"matrix://rooms/{quote(ada.room_id, safe='')}/messages"
    async with proxy.http.ws_connect(url, headers=headers, protocols=["mcp"]) as ws:
        client = RawClient(ws)
        await client.initialize()
        assert await client.result("resources/subscribe", {"uri": uri}) == {}
        headers |= {"Accept": "application/json, text/event-stream"}
        first = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}
        async with proxy.http.post(url, json=first, headers=headers) as response:
            headers |= {"Mcp-Session-Id": response.headers["Mcp-Session-Id"]}
        done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        asked = {"jsonrpc": "2.0", "id": 2, "method": "resources/subscribe", "params": {"uri": uri}}
        for body in (done, asked):
            async with proxy.http.post(url, json=body, headers=headers) as response:
                assert response.status in (200, 202)
        async with proxy.http.get(url, headers=headers) as news:
            await world.person.say(ada, f"news {secrets.token_hex(4)}")
            assert (await client.receive())["method"] == "notifications/resources/updated"
            assert b"updated" in await within(_first_data(news))
        async with proxy.http.delete(url, headers=headers) as response:
            assert response.status == 200


async def _first_data(response: aiohttp.ClientResponse) -> bytes:
    async for line in response.content:
        if line.startswith(b"data: {"):
            return line
    return b""


async def test_the_homeserver_comes_in(world: World, proxy: Proxy, ada: Room) -> None:
    url = f"{proxy.url(BRIDGE)}/_matrix/app/v1/transactions/{secrets.token_hex(4)}"
    large = [event_in(ada, "@stranger:elsewhere", "x" * 50_000) for _ in range(100)]
    for token, status in (("wrong", 403), (world.homeserver.hs_token, 200)):
        headers = {"Authorization": f"Bearer {token}"}
        body = io.BytesIO(json.dumps({"events": large}).encode())
        async with proxy.http.put(url, data=body, headers=headers) as response:
            assert response.status == status
