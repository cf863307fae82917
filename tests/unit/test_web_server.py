"""The HTTP server: what it keeps of strangers, and for how long."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.common.connections import admission
from letta_matrix.common.connections.admission import Connections
from letta_matrix.doors.web import server as module
from letta_matrix.doors.web.server import AsgiServer

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """Tells who asks with which headers, and how long the body is.

    `asked` counts the heads that arrived; an answer to `/slow` waits for `answers`.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        length, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            length, more = length + len(message.get("body", b"")), message.get("more_body", False)
        if scope["path"] == "/slow":
            await self.answers.wait()
        names = sorted(name.decode() for name, _ in scope["headers"])
        data = json.dumps([scope["client"][0], names, length]).encode()
        if scope["path"] == "/large":
            data = b" " * 20_000_000
        headers = [(b"content-length", str(len(data)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data})


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def connections() -> Connections:
    return Connections(100)


@pytest.fixture
async def port(echo: Echo, connections: Connections) -> AsyncGenerator[int]:
    server = AsgiServer(echo, connections)
    await server.start("127.0.0.1", 0)
    yield server._server.servers[0].sockets[0].getsockname()[1]
    await server.close()


@pytest.fixture
async def streams(port: int) -> AsyncGenerator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield reader, writer
    writer.close()


async def answer(streams: Streams, data: bytes) -> Any:
    reader, writer = streams
    writer.write(data)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    return json.loads(body) if head.startswith(b"HTTP/1.1 200") else head.split()[1]


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (GET + b"X: ", b"x" * 60_000),
        (CHUNKED + b"0\r\nX: ", b"x" * 60_000),
        (CHUNKED + b"0\r\n", (b"X: " + b"x" * 95 + b"\r\n") * 600),
        (CHUNKED + b"1;", b"x" * 60_000),
    ],
    ids=["head", "trailer", "trailers", "extension of a chunk"],
)
async def test_what_has_no_end_is_not_kept(streams: Streams, begin: bytes, piece: bytes) -> None:
    _, writer = streams
    writer.write(begin)

    async def flood() -> None:
        for _ in range(1_000):
            writer.write(piece)
            await writer.drain()

    with pytest.raises(ConnectionError):
        await flood()


async def test_trailers_are_dropped(streams: Streams) -> None:
    expected = ["127.0.0.1", ["host", "transfer-encoding"], 1]
    assert await answer(streams, CHUNKED + b"0\r\nA: 1\r\nB: 2\r\n\r\n") == expected
    assert await answer(streams, GET + b"\r\n") == ["127.0.0.1", ["host"], 0]


async def test_large_bodies_pass_on_a_kept_connection(streams: Streams) -> None:
    for size in (0, 600_000, 600_000):
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
        assert (await answer(streams, head + b"x" * size))[2] == size
    small = b"1\r\na\r\n" * 100_000
    assert (await answer(streams, CHUNKED + small + b"0\r\n\r\n"))[2] == 100_001


async def test_nobody_chooses_his_address(streams: Streams) -> None:
    claim = b"X-Forwarded-For: 10.1.2.3\r\nX-Forwarded-Proto: https\r\n\r\n"
    assert (await answer(streams, GET + claim))[0] == "127.0.0.1"


@pytest.mark.parametrize("first", [b"", GET + b"\r\n"], ids=["at once", "later"])
@pytest.mark.parametrize("half", [GET, b"\r\n"], ids=["half a head", "an empty line"])
async def test_half_a_head_is_not_waited_for(
    port: int, clock: Clock, first: bytes, half: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if first:
        await answer((reader, writer), first)
    writer.write(half)
    ended = asyncio.create_task(reader.read())
    await settled(ended)
    await clock.until(ended.done, step=module._HEAD_SECONDS / 10)
    assert await ended == b""
    writer.close()


async def test_who_waits_for_an_answer_or_is_idle_stays(
    echo: Echo, port: int, clock: Clock
) -> None:
    async def long_after() -> None:
        """Three looks at whether a head is waited for; more would be too long for uvicorn."""
        for _ in range(3):
            clock.advance(module._HEAD_SECONDS)
            await settled()

    streams = await asyncio.open_connection("127.0.0.1", port)
    await answer(streams, GET + b"\r\n")
    await long_after()
    assert await answer(streams, GET + b"\r\n")
    # Some clients end a body with an empty line of their own.
    slow = GET.replace(b" / ", b" /slow ") + b"\r\n" + b"\r\n"
    answering = asyncio.create_task(answer(streams, slow))
    await eventually(lambda: echo.asked == 3)
    await long_after()
    echo.answers.set()
    assert await answering
    streams[1].close()


async def test_who_is_not_answered_by_the_end_is_asked_to_come_again(
    echo: Echo, connections: Connections
) -> None:
    server = AsgiServer(echo, connections)
    await server.start("127.0.0.1", 0)
    streams = await asyncio.open_connection("127.0.0.1", server.port)
    streams[1].write(GET.replace(b" / ", b" /slow ") + b"\r\n")
    await eventually(lambda: echo.asked)
    closing = asyncio.create_task(server.close())
    said = await within(streams[0].read())
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 2" in said
    await within(closing)
    streams[1].close()


async def test_a_body_is_not_waited_for_byte_by_byte(echo: Echo, port: int, clock: Clock) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n")
    await eventually(lambda: echo.asked)
    ended = asyncio.create_task(reader.read())

    def trickle() -> bool:
        writer.write(b"x")
        return ended.done()

    await clock.until(trickle, step=module._HEAD_SECONDS / 10)
    assert await ended == b""
    writer.close()


async def test_who_does_not_read_his_answers_is_hung_up_on(
    echo: Echo, port: int, connections: Connections, clock: Clock
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
    writer.write(GET.replace(b" / ", b" /large ") + b"\r\n")
    await eventually(lambda: echo.asked)
    await clock.until(lambda: len(connections) == 0, step=admission.STALLED / 10)
    assert not reader.at_eof()
    writer.transport.abort()


@pytest.mark.parametrize(("trusted", "seen"), [("127.0.0.0/8", "10.6.6.6"), ("10.0.0.0/8", None)])
async def test_a_client_behind_a_proxy_is_known_where_the_proxy_is_trusted(
    echo: Echo, connections: Connections, trusted: str, seen: str | None
) -> None:
    server = AsgiServer(echo, connections, trusted_proxies=[trusted])
    await server.start("127.0.0.1", 0)
    port = server._server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # The client's own claim stands before what the proxy has added.
    forwarded = b"X-Forwarded-For: 10.1.1.1, 10.6.6.6\r\n\r\n"
    told = await answer((reader, writer), GET + forwarded)
    assert told[0] == (seen or "127.0.0.1")
    writer.close()
    await server.close()
