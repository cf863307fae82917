"""What the Python client reads, however long it is and however long it takes."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.client import LettaMatrix, StreamEvent, Unreachable
from letta_matrix.client.transport import STREAMING

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncGenerator[LettaMatrix]:
    """A client of a server that answers everything in the same way."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with LettaMatrix(f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client
    await runner.cleanup()


def event(name: str, **data: str) -> bytes:
    return f"event: {name}\r\ndata: {json.dumps(data)}\n\n".encode()


class Slow:
    """A server that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        await self.go.wait()
        return web.json_response({"answer": "late", "agents": []})


async def test_a_stream_has_events_of_any_length_and_takes_its_time(clock: Clock) -> None:
    long, go_on = "ä" * 1_000_000, asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        whole = event("accepted") + b": it goes on\n\n" + event("text", text=long)
        await response.write(whole[:50])
        await go_on.wait()
        await response.write(whole[50:])
        return response

    async with served(stream) as client:
        events = client.stream_answer("agent-1", "hello")
        assert await anext(events) == StreamEvent("accepted", {})
        clock.advance(40)
        await settled()
        go_on.set()
        assert [one async for one in events] == [StreamEvent("text", {"text": long})]


async def test_a_stream_that_says_nothing_ends(clock: Clock) -> None:
    slow, silence = Slow(), STREAMING.sock_read
    assert silence is not None
    async with served(slow.answer) as client:

        async def read() -> None:
            await anext(client.stream_answer("agent-1", "hello"))

        clock.stop()
        reading = asyncio.create_task(read())
        await eventually(lambda: slow.asked)
        await settled(reading)
        clock.advance(silence - 1)
        await settled(reading)
        clock.advance(1)
        with pytest.raises(Unreachable, match="does not answer"):
            await within(reading)
        slow.go.set()


async def test_a_request_that_waits_may_take_longer_than_others(clock: Clock) -> None:
    slow = Slow()
    async with served(slow.answer) as client:
        saying = asyncio.create_task(client.say_to_agent("agent-1", "hello", wait=60))
        listing = asyncio.create_task(client.list_agents())
        await eventually(lambda: slow.asked == 2)
        clock.advance(31)
        with pytest.raises(Unreachable, match="no answer came in time"):
            await within(listing)
        await settled(saying)
        slow.go.set()
        assert (await within(saying))["answer"] == "late"


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (LettaMatrix.list_agents, "agents"),
        (LettaMatrix.list_rooms, "rooms"),
        (LettaMatrix.list_tokens, "tokens"),
        (LettaMatrix.list_turns, "turns"),
    ],
)
async def test_lists_have_all_pages(
    method: Callable[[LettaMatrix], Awaitable[list[object]]], name: str
) -> None:
    async def page(request: web.Request) -> web.Response:
        after = int(request.query.get("after", "0"))
        return web.json_response({name: [{"number": after}], "next": after + 1 if after < 2 else 0})

    async with served(page) as client:
        assert await method(client) == [{"number": number} for number in range(3)]
