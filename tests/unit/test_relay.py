"""A replica that stands by passes on what comes, and tells its own health."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from tests.servers import free_port
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.app.relay import Address, Answer, Relay
from letta_matrix.app.request_head import Headers
from letta_matrix.common.connections.admission import Connections

ASKED = b"GET /chat HTTP/1.1\r\nHost: x\r\n\r\n"
PROBE = b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"
BYE = b"bye"


class Echo:
    """Who acts: answers with what it was sent, in capitals, until somebody says BYE."""

    def __init__(self) -> None:
        self.asked = self.open = 0
        self.much = b""
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
        self.open += 1
        # Whoever came may go at any moment.
        with contextlib.suppress(OSError):
            while data := await reader.read(1000):
                writer.write(self.much or data.upper())
                await writer.drain()
                if BYE in data:
                    break
        writer.close()
        self.open -= 1


def health(headers: Headers) -> tuple[int, dict[str, object]]:
    return 200, {"status": "ok", "asked": str(headers)}


class Stage:
    def __init__(self, most: int = 100) -> None:
        self.echo = Echo()
        self.leads: Address | None = None
        self.connections = Connections(most)
        own: dict[str, Answer] = {"/health": health, "/ready": health}
        self.relay = Relay(lambda: self.leads, own, self.connections)
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

    async def talk(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that is passed on."""
        reader, writer = await self.open()
        writer.write(ASKED)
        assert await within(reader.readexactly(len(ASKED))) == ASKED.upper()
        return reader, writer


@pytest.fixture
async def stage() -> AsyncGenerator[Stage]:
    stage = Stage()
    stage.leads = await stage.echo.start()
    stage.port = free_port()
    await stage.relay.start("127.0.0.1", stage.port)
    yield stage
    await stage.relay.close()
    await stage.echo.close()


def socket_of(wire: Any) -> socket.socket:
    return wire.get_extra_info("socket")


async def ended(reader: asyncio.StreamReader) -> bool:
    """Wait until the other side has ended it, in whatever way."""
    with contextlib.suppress(ConnectionError):
        assert await within(reader.read()) == b""
    return True


async def test_bytes_go_both_ways_as_they_come(stage: Stage) -> None:
    reader, writer = await stage.talk()
    for word in (b"more", b"\x00\xff", PROBE.lower()):
        writer.write(word)
        assert await within(reader.readexactly(len(word))) == word.upper()
    writer.close()


async def test_a_head_may_come_in_pieces(stage: Stage) -> None:
    reader, writer = await stage.open()
    for byte in ASKED:
        writer.write(bytes([byte]))
        await settled()
    assert await within(reader.readexactly(len(ASKED))) == ASKED.upper()
    writer.close()


async def test_a_request_that_has_ended_gets_its_whole_answer(stage: Stage) -> None:
    body = b"PUT /x HTTP/1.1\r\n\r\n" + b"a" * 300_000
    assert await stage.said(body) == body.upper()


async def test_a_head_of_any_length_is_passed_on(stage: Stage) -> None:
    head = b"GET /health HTTP/1.1\r\nCookie: " + b"a" * 40_000
    assert await stage.said(head) == head.upper()


@pytest.mark.parametrize("path", ["/health", "/ready", "/health?verbose=1"])
async def test_health_is_its_own(stage: Stage, path: str) -> None:
    answer = await stage.said(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"(b'host', b'x')" in answer
    assert stage.echo.asked == 0


async def test_head_is_answered_without_a_body(stage: Stage) -> None:
    whole = await stage.said(PROBE)
    assert await stage.said(b"HEAD" + PROBE[3:]) == whole.partition(b"{")[0]
    assert whole.endswith(b"}")


async def test_health_is_only_read(stage: Stage) -> None:
    request = b"POST /health HTTP/1.1\r\nHost: x\r\n\r\n"
    assert await stage.said(request) == request.upper()


async def test_where_nobody_acts_one_is_to_come_again(stage: Stage) -> None:
    stage.leads = None
    answer = await stage.said(b"PUT /_matrix/app/v1/transactions/1 HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"Retry-After: 2\r\n" in answer


async def test_where_who_acts_is_gone_one_is_to_come_again(stage: Stage) -> None:
    await stage.echo.close()
    assert (await stage.said(ASKED)).startswith(b"HTTP/1.1 503")


async def test_where_no_name_can_be_as_who_acts_tells_one_is_to_come_again(stage: Stage) -> None:
    stage.leads = ("a" * 64 + ".test", 1)
    assert (await stage.said(ASKED)).startswith(b"HTTP/1.1 503")


async def test_a_refusal_is_read_though_the_body_still_comes(stage: Stage) -> None:
    stage.leads = None
    reader, writer = await stage.open()
    writer.write(b"PUT /x HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n" + b"a" * 1_000_000)
    await within(writer.drain())
    assert (await within(reader.read())).startswith(b"HTTP/1.1 503")
    writer.close()


async def test_it_never_leads_to_itself(stage: Stage) -> None:
    stage.leads = ("127.0.0.1", stage.port)
    assert (await stage.said(ASKED)).startswith(b"HTTP/1.1 503")
    assert stage.relay.ways == set()


async def test_what_led_to_the_one_before_ends_when_it_is_cut(stage: Stage) -> None:
    reader, writer = await stage.talk()
    await stage.relay.cut()
    assert await ended(reader)
    writer.close()
    assert await stage.said(ASKED) == ASKED.upper()


@pytest.mark.parametrize("line", [b"", b"\r\n", b"a" * 70_000, b"\xff\xfe\r\n\r\n", ASKED[:-2]])
async def test_whoever_sends_no_request_harms_nobody(stage: Stage, line: bytes) -> None:
    assert await stage.said(line) in (b"", line.upper())
    assert (await stage.said(PROBE)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("begun", [b"", ASKED[:-2]])
async def test_newcomers_take_the_place_of_those_who_ask_nothing(begun: bytes) -> None:
    stage = Stage(most=2)
    stage.leads, stage.port = await stage.echo.start(), free_port()
    await stage.relay.start("127.0.0.1", stage.port)
    _, talking = await stage.talk()
    silent, writer = await stage.open()
    writer.write(begun)
    await eventually(lambda: len(stage.relay.clients) == 2, what="both are in")
    assert await stage.said(ASKED) == ASKED.upper()
    assert await ended(silent)
    assert stage.echo.open == 1
    for one in (talking, writer):
        one.close()
    await stage.relay.close()
    await stage.echo.close()


async def test_newcomers_take_the_place_of_those_who_were_answered_and_are_quiet() -> None:
    stage = Stage(most=2)
    stage.leads, stage.port = await stage.echo.start(), free_port()
    await stage.relay.start("127.0.0.1", stage.port)
    reader, first = await stage.talk()
    quiet, second = await stage.talk()
    first.write(b"more")
    assert await within(reader.readexactly(4)) == b"MORE"
    third = await stage.talk()
    assert await ended(quiet)
    first.write(b"and more")
    assert await within(reader.readexactly(8)) == b"AND MORE"
    for one in (first, second, third[1]):
        one.close()
    await stage.relay.close()
    await stage.echo.close()


async def test_who_waits_for_an_answer_keeps_their_place() -> None:
    stage, asked = Stage(most=1), asyncio.Event()

    async def answers_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(ASKED))
        asked.set()
        await eventually(lambda: stage.connections.troubles, what="another one waits")
        writer.write(BYE)
        writer.close()

    server = await asyncio.start_server(answers_late, "127.0.0.1", 0)
    stage.leads, stage.port = server.sockets[0].getsockname()[:2], free_port()
    await stage.relay.start("127.0.0.1", stage.port)
    reader, writer = await stage.open()
    writer.write(ASKED)
    await within(asked.wait())
    _, other = await stage.open()
    assert await within(reader.read()) == BYE
    for one in (writer, other):
        one.close()
    await stage.relay.close()
    server.close()


async def test_who_asks_nothing_is_hung_up_on(stage: Stage, clock: Clock) -> None:
    reader, writer = await stage.open()
    writer.write(ASKED[:-2])
    await eventually(lambda: stage.relay.clients, what="it is in")
    clock.stop()
    clock.advance(10.1)
    assert await ended(reader)
    writer.close()


async def test_who_acts_has_ended_so_does_the_client(stage: Stage, clock: Clock) -> None:
    reader, writer = await stage.talk()
    clock.stop()
    writer.write(BYE)
    assert await within(reader.read()) == BYE.upper()
    assert len(stage.relay.clients) == 1
    # It stays connected, and says nothing; but it is told so, and the first to go for others.
    assert next(iter(stage.relay.clients)).is_idle()
    clock.advance(3.1)
    await eventually(lambda: not stage.relay.clients, what="it is let go")
    assert len(stage.connections) == 0
    writer.close()


@pytest.mark.parametrize("resets", [True, False])
async def test_a_client_has_gone_so_does_what_it_led_to(stage: Stage, resets: bool) -> None:
    _, writer = await stage.talk()
    if resets:
        linger = struct.pack("ii", 1, 0)
        socket_of(writer.transport).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
    await eventually(lambda: stage.echo.open == 0, what="who acts is let go")
    await eventually(lambda: not stage.relay.clients, what="it is let go")


async def test_the_system_asks_whether_both_sides_are_there(stage: Stage) -> None:
    _, writer = await stage.talk()
    (client,) = stage.relay.clients
    assert client._there is not None
    for one in (socket_of(client._wire), socket_of(client._there._wire)):
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    writer.close()


async def test_who_reads_nothing_is_kept_little_for(stage: Stage) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port, limit=1000)
    stage.echo.much = b"a" * 30_000_000
    writer.write(ASKED)
    await eventually(lambda: stage.echo.asked, what="it is passed on")
    (client,) = stage.relay.clients
    await eventually(client.is_stalled, what="it takes no more")
    there: Any = client._there
    await eventually(lambda: not there._wire.is_reading(), what="no more is read for it")
    wire: Any = client._wire
    assert wire.get_write_buffer_size() < 1_000_000
    assert len(await within(reader.readexactly(30_000_000))) == 30_000_000
    writer.close()
