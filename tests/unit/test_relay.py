"""A replica that stands by passes on what comes, and tells its own health."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from tests.servers import free_port
from tests.waiting import within

from letta_matrix.app.relay import Address, Relay

HEALTH = {"status": "ok", "replica": "standby"}


class Echo:
    """Who acts: answers with what it was sent, in capitals."""

    def __init__(self) -> None:
        self.asked = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> Address:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        while data := await reader.read(1000):
            writer.write(data.upper())
            await writer.drain()
        writer.close()


class Stage:
    def __init__(self) -> None:
        self.echo = Echo()
        self.leads: Address | None = None
        self.relay = Relay(lambda: self.leads, lambda path: (200, {**HEALTH, "path": path}))
        self.port = 0

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def said(self, line: bytes) -> bytes:
        """All that is answered to a request that ends."""
        reader, writer = await self.open()
        writer.write(line)
        writer.write_eof()
        answer = await within(reader.read())
        writer.close()
        return answer


@pytest.fixture
async def stage() -> AsyncGenerator[Stage]:
    stage = Stage()
    stage.leads = await stage.echo.start()
    stage.port = free_port()
    await stage.relay.start("127.0.0.1", stage.port)
    yield stage
    await stage.relay.close()
    await stage.echo.close()


async def test_bytes_go_both_ways_as_they_come(stage: Stage) -> None:
    reader, writer = await stage.open()
    for word in (b"get /chat http/1.1\r\n", b"more", b"\x00\xff"):
        writer.write(word)
        assert await within(reader.readexactly(len(word))) == word.upper()
    writer.close()


async def test_a_request_that_has_ended_gets_its_whole_answer(stage: Stage) -> None:
    body = b"put /x http/1.1\r\n\r\n" + b"a" * 300_000
    assert await stage.said(body) == body.upper()


@pytest.mark.parametrize("path", ["/health", "/ready", "/health?verbose=1"])
async def test_health_is_its_own(stage: Stage, path: str) -> None:
    answer = await stage.said(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert path.partition("?")[0].encode() in answer
    assert stage.echo.asked == 0


async def test_where_nobody_acts_one_is_to_come_again(stage: Stage) -> None:
    stage.leads = None
    answer = await stage.said(b"PUT /_matrix/app/v1/transactions/1 HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"Retry-After: 2\r\n" in answer


async def test_where_who_acts_is_gone_one_is_to_come_again(stage: Stage) -> None:
    await stage.echo.close()
    assert (await stage.said(b"GET /chat HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 503")


async def test_what_led_to_the_one_before_ends_when_it_is_cut(stage: Stage) -> None:
    reader, writer = await stage.open()
    writer.write(b"get /events http/1.1\r\n")
    await within(reader.readexactly(5))
    await stage.relay.cut()
    await within(reader.read())
    writer.close()
    assert await stage.said(b"x\r\n") == b"X\r\n"


@pytest.mark.parametrize("line", [b"", b"\r\n", b"a" * 70_000, b"\xff\xfe\r\n", b"GET /health\r\n"])
async def test_whoever_sends_no_request_harms_nobody(stage: Stage, line: bytes) -> None:
    await stage.said(line)
    assert (await stage.said(b"GET /ready HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")
