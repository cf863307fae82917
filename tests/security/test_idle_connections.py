"""An attack: connections that send nothing, or next to nothing, on every port, without a token."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from structlog.testing import capture_logs
from tests.fake_homeserver import FakeHomeserver
from tests.servers import ServerProcess, free_port
from tests.waiting import Clock, deadline, eventually, within

from letta_matrix.app import doors
from letta_matrix.app.bridge import Bridge
from letta_matrix.common.connections import aiohttp_server
from letta_matrix.config import Config
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.stack.supervisor import Command

PLACES = 20
CROWD = 60
LOGIN = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n{"
RUN = """
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, limit))
os.execv(sys.executable, [sys.executable, "-m", "letta_matrix", "run", "-c", sys.argv[2]])
"""


@dataclass
class Ports:
    """Where a bridge listens."""

    homeserver: int = field(default_factory=free_port)
    rest: int = field(default_factory=free_port)
    mcp: int = field(default_factory=free_port)
    sockets: int = field(default_factory=free_port)

    @property
    def all(self) -> tuple[int, ...]:
        return self.homeserver, self.rest, self.mcp, self.sockets

    def sections(self, fake: FakeHomeserver, database: Path) -> dict[str, Any]:
        return {
            "homeserver": {"url": fake.url, "domain": "test"},
            "appservice": {"as_token": "a", "hs_token": "h", "port": self.homeserver},
            "api": {"port": self.rest},
            "mcp": {"port": self.mcp, "websocket_port": self.sockets},
            "database": {"url": f"sqlite:///{database}"},
            "runtimes": [{"type": "memory", "agents": 0}],
        }


@pytest.fixture
def ports() -> Ports:
    return Ports()


@pytest.fixture
async def bridge(
    fake: FakeHomeserver, database_file: Path, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Bridge]:
    """One with few places for connections."""
    monkeypatch.setattr(doors, "most_connections", lambda: PLACES)
    config = Config.model_validate(ports.sections(fake, database_file))
    made = Bridge(config, [MemoryRuntime()])
    await made.start()
    await eventually(made.is_ready)
    yield made
    await made.close()


@asynccontextmanager
async def crowd(port: int, count: int, said: bytes = b"") -> AsyncGenerator[None]:
    """Connections that say no more than that."""
    writers = list[asyncio.StreamWriter]()
    for _ in range(count):
        _, writer = await within(asyncio.open_connection("127.0.0.1", port))
        writer.write(said)
        writers.append(writer)
    yield
    for writer in writers:
        writer.transport.abort()


async def get(http: aiohttp.ClientSession, port: int, path: str, **headers: str) -> Any:
    url = f"http://127.0.0.1:{port}{path}"
    async with deadline(), http.get(url, headers=headers) as response:
        assert response.status == 200
        return await response.json()


async def asked_by_the_homeserver(http: aiohttp.ClientSession, ports: Ports) -> Any:
    path = "/_matrix/app/v1/thirdparty/user"
    return await get(http, ports.homeserver, path, Authorization="Bearer h")


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: ", LOGIN])
async def test_a_crowd_keeps_nobody_out(
    bridge: Bridge, ports: Ports, http: aiohttp.ClientSession, said: bytes
) -> None:
    with capture_logs() as logs:
        async with (
            crowd(ports.rest, CROWD, said),
            crowd(ports.mcp, CROWD),
            crowd(ports.sockets, CROWD),
        ):
            for port in (ports.rest, ports.mcp, ports.sockets):
                health = await get(http, port, "/health")
                assert health["status"] == "degraded"
                assert f"all {PLACES} connections were in use" in health["troubles"][0]
            known = {"Authorization": "Bearer h"}
            assert (
                await get(http, ports.homeserver, "/_matrix/app/v1/thirdparty/user", **known) == []
            )
    assert len([line for line in logs if line["log_level"] != "debug"]) < 10


async def test_a_crowd_at_the_homeservers_port_keeps_it_out_of_nothing(
    bridge: Bridge, ports: Ports, http: aiohttp.ClientSession
) -> None:
    async with crowd(ports.homeserver, bridge.appservice.connections.most + 10):
        assert await asked_by_the_homeserver(http, ports) == []
        assert "connections were in use" in (await get(http, ports.rest, "/health"))["troubles"][0]


@pytest.mark.parametrize("name", ["homeserver", "rest", "mcp", "sockets"])
@pytest.mark.usefixtures("bridge")
async def test_no_port_keeps_who_says_nothing(ports: Ports, name: str, clock: Clock) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", getattr(ports, name))

    async def read() -> bytes:
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""

    ended = asyncio.create_task(read())
    await clock.until(ended.done, step=aiohttp_server.HEAD_SECONDS / 10)
    assert await ended == b""
    writer.close()


@pytest.mark.parametrize("name", ["homeserver", "rest", "mcp", "sockets"])
@pytest.mark.usefixtures("bridge")
async def test_what_is_no_http_is_one_short_line(
    ports: Ports, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", getattr(ports, name))
    with capture_logs() as logs:
        writer.write(b"\x16\x03\x01\x02\x00 no HTTP at all\r\n\r\n")
        assert b" 400 Bad Request" in await within(reader.read())
    told = [line for line in logs if "no HTTP" in line["event"]]
    assert len(told) == 1
    assert "no HTTP at all" not in str(told)
    assert not [record for record in caplog.records if record.name.startswith("aiohttp")]
    writer.close()


async def test_few_descriptors_are_enough_for_all_who_have_to_come_in(
    fake: FakeHomeserver,
    database_file: Path,
    tmp_path: Path,
    ports: Ports,
    http: aiohttp.ClientSession,
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(ports.sections(fake, database_file)))
    argv = (sys.executable, "-c", RUN, "150", str(config))
    log = tmp_path / "bridge.log"

    async def answers() -> bool:
        try:
            return bool(await get(http, ports.rest, "/health"))
        except aiohttp.ClientError:
            return False

    process = ServerProcess(Command("bridge", argv, log, tmp_path, dict(os.environ)), answers)
    await process.start()
    try:
        async with crowd(ports.homeserver, 150), crowd(ports.rest, 150), crowd(ports.mcp, 150):
            health = await get(http, ports.rest, "/health")
            assert "all 75 connections were in use" in str(health["troubles"])
            known = {"Authorization": "Bearer h"}
            assert (
                await get(http, ports.homeserver, "/_matrix/app/v1/thirdparty/user", **known) == []
            )
        written = log.read_text()
        assert "Traceback" not in written
        assert len(written.splitlines()) < 50
    finally:
        assert process.process is not None
        process.process.kill()
        process.process.wait()
