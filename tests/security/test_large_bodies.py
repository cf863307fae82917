"""An attack: more large bodies at once than there is memory for."""

import asyncio
from collections.abc import AsyncGenerator

import aiohttp
import pytest
from tests.builders import always, config_for
from tests.servers import free_port
from tests.stage import Stage
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.access.principal import Scope
from letta_matrix.access.secrets import issue
from letta_matrix.app.doors import Doors
from letta_matrix.config import Config
from letta_matrix.doors.web import in_flight as module
from letta_matrix.doors.web.in_flight import InFlight

SIZE = 900_000
UPLOAD = "/api/v1/rooms/!1:test/media?filename=a.bin"


class Attacked:
    """The doors of a bridge, with room for one large body at a time."""

    def __init__(self, stage: Stage, config: Config, http: aiohttp.ClientSession) -> None:
        self.stage = stage
        self.config = config
        self.doors = Doors(config, stage.parts, dict, always)
        self.doors._in_flight = InFlight(1_000_000)
        self.http = http
        self.headers = dict[str, str]()

    async def open(self) -> None:
        text, stored = issue(agent_id="", scopes=frozenset(Scope))
        await self.stage.stores.tokens.add(stored)
        self.headers = {"Authorization": f"Bearer {text}"}
        await self.doors.open()

    async def post(self, port: int, path: str, body: bytes, **headers: str) -> tuple[int, str]:
        """Status and `Retry-After` of a request."""
        url = f"http://127.0.0.1:{port}{path}"
        sent = {**self.headers, **headers}
        async with self.http.post(url, data=body, headers=sent) as response:
            await response.read()
            return response.status, response.headers.get("Retry-After", "")

    async def upload(self) -> tuple[int, str]:
        """A large body by REST."""
        return await self.post(self.config.api.port, UPLOAD, b"x" * SIZE)

    async def call(self) -> tuple[int, str]:
        """A large body by MCP."""
        accepted = {"Content-Type": "application/json", "Accept": "application/json"}
        return await self.post(self.config.mcp.port, "/mcp", b" " * SIZE, **accepted)

    async def half(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """An upload of which the last byte is still to come."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.config.api.port)
        head = f"POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SIZE}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        writer.write(head.encode() + b"\r\n" + b"x" * (SIZE - 1))
        await eventually(lambda: self.doors._in_flight._left < SIZE)
        return reader, writer


@pytest.fixture
async def attacked(stage: Stage, http: aiohttp.ClientSession) -> AsyncGenerator[Attacked]:
    ports = {"api": {"port": free_port()}}
    mcp = {"mcp": {"port": free_port(), "websocket_port": free_port()}}
    made = Attacked(stage, config_for(stage.config.directory, **ports, **mcp), http)
    await made.open()
    yield made
    await made.doors.close()


async def test_large_bodies_wait_for_each_other_and_small_ones_for_none(
    attacked: Attacked, clock: Clock
) -> None:
    reader, writer = await attacked.half()
    late = [asyncio.create_task(attacked.upload()), asyncio.create_task(attacked.call())]
    await eventually(lambda: len(attacked.doors._in_flight._waiting) == 2)
    small = await attacked.post(attacked.config.api.port, "/api/v1/tools/matrix_whoami", b"")
    assert small[0] == 200
    clock.advance(module.PATIENCE)
    assert await within(asyncio.gather(*late)) == [(503, "10"), (503, "10")]
    third = asyncio.create_task(attacked.upload())
    await eventually(lambda: attacked.doors._in_flight._waiting)
    await settled(third)
    writer.write(b"x")
    head = await within(reader.readuntil(b"\r\n"))
    assert b" 503 " not in head
    assert (await within(third))[0] == int(head.split()[1])
    writer.close()


async def test_without_a_token_nobody_takes_of_the_room_for_large_bodies(
    attacked: Attacked,
) -> None:
    attacked.headers = {}
    ports = attacked.config.api.port, attacked.config.mcp.port
    for port, path in ((ports[0], UPLOAD), (ports[1], "/mcp")):
        async with attacked.doors._in_flight.held("another", 1_000_000):
            assert (await attacked.post(port, path, b"x" * SIZE))[0] == 401
    assert (await attacked.post(ports[0], "/login", b"x" * SIZE))[0] == 413
