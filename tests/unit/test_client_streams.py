"""What the Python client reads, however long it is and however long it takes."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientTimeout, web

from letta_matrix.client import LettaMatrix, Unreachable, bridge_client

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler, timeout: float = 0.2) -> AsyncGenerator[LettaMatrix]:
    """A client of a server that answers everything in the same way."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with LettaMatrix(f"http://127.0.0.1:{port}", timeout=timeout) as client:
        yield client
    await runner.cleanup()


def event(name: str, **data: str) -> bytes:
    return f"event: {name}\r\ndata: {json.dumps(data)}\n\n".encode()


async def slow(_: web.Request) -> web.Response:
    await asyncio.sleep(0.4)
    return web.json_response({"answer": "late", "agents": []})


async def test_a_stream_has_events_of_any_length_and_takes_its_time() -> None:
    long = "ä" * 1_000_000

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        whole = event("accepted") + b": it goes on\n\n" + event("text", text=long)
        await response.write(whole[:50])
        await asyncio.sleep(0.4)
        await response.write(whole[50:])
        return response

    async with served(stream) as client:
        events = [(one.name, one.data) async for one in client.stream_answer("agent-1", "hello")]
    assert events == [("accepted", {}), ("text", {"text": long})]


async def test_a_stream_that_says_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = ClientTimeout(sock_read=0.1)
    monkeypatch.setattr(bridge_client, "STREAMING", brief)
    async with served(slow, 5.0) as client:
        with pytest.raises(Unreachable, match="does not answer"):
            await anext(client.stream_answer("agent-1", "hello"))


async def test_a_request_that_waits_may_take_longer_than_others() -> None:
    async with served(slow) as client:
        assert (await client.say_to_agent("agent-1", "hello", wait=1.0))["answer"] == "late"
        with pytest.raises(Unreachable, match="took too long"):
            await client.list_agents()


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

    async with served(page, 5.0) as client:
        assert await method(client) == [{"number": number} for number in range(3)]
