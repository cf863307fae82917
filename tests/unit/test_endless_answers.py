"""A runtime that answers without end takes no more of our memory than a large answer does."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from aiohttp import web
from tests.answering import answering
from tests.fake_app_server import FakeAppServer
from tests.unit import keeper_bridge
from tests.unit.fake_openai_api import FakeOpenAIApi, chunk
from tests.unit.keeper_bridge import attached
from tests.waiting import eventually, within

from letta_matrix.config import OpenAICompatibleRuntime
from letta_matrix.config.runtimes import LettaApiRuntime
from letta_matrix.runtimes import bounds
from letta_matrix.runtimes.faults import RuntimeUnavailable
from letta_matrix.runtimes.keeper import upstream as upstreams
from letta_matrix.runtimes.letta_api import LettaApi
from letta_matrix.runtimes.openai_compatible import OpenAICompatible, turns
from letta_matrix.runtimes.protocol import TurnRequest, TurnState

upstream, socket = keeper_bridge.upstream, keeper_bridge.socket
REQUEST = TurnRequest("ada", "chat-1", "$1:test", "hello")


@pytest.fixture(autouse=True)
def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "LARGEST", 100_000)


@asynccontextmanager
async def endless(piece: bytes, kind: str, status: int = 200) -> AsyncGenerator[str]:
    """A server that answers everything with this again and again; its address."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(status=status, headers={"Content-Type": kind})
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(piece * 1000)
        return response

    async with answering(answer) as url:
        yield url


def openai_at(url: str) -> OpenAICompatible:
    return OpenAICompatible(OpenAICompatibleRuntime(type="openai_compatible", url=f"{url}/v1"))


def letta_at(url: str) -> LettaApi:
    return LettaApi(LettaApiRuntime(type="letta_api", url=url))


@pytest.mark.parametrize("make", [openai_at, letta_at])
@pytest.mark.parametrize("status", [200, 400])
async def test_a_listing(make: Any, status: int) -> None:
    async with endless(b"x", "application/json", status) as url:
        runtime = make(url)
        with pytest.raises(RuntimeUnavailable):
            await within(runtime.list_agents())
        await runtime.close()


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("piece", [b"data: {", b"data: {}\n"])
async def test_an_event_of_a_stream(piece: bytes, status: int) -> None:
    async with endless(piece, "text/event-stream", status) as url:
        runtime = openai_at(url)
        runtime._endpoint.keeps_turns = False
        with pytest.raises(RuntimeUnavailable, match="no end"):
            await within(turn_of(runtime))
        await runtime.close()


async def test_a_long_stream_of_short_events_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_MOST_KEPT", 50)
    async with FakeOpenAIApi() as api:
        runtime = openai_at(api.url.removesuffix("/v1"))
        many = [chunk(content="a" * 400) for _ in range(300)]
        api.answers = [[*many, chunk("stop"), "[DONE]"]]
        assert await within(turn_of(runtime)) == "a" * 50
        await runtime.close()


def test_behind_what_is_kept_of_an_answer_nothing_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "_MOST_KEPT", 50)
    turn = turns.Turn(Mock(), REQUEST, AsyncMock(), asyncio.Event())
    for _ in range(300):
        turn._keep("a" * 30)
    assert turn._text == ["a" * 30, "a" * 20]


async def turn_of(runtime: OpenAICompatible) -> object:
    """Run a turn to its end; what was kept of its answer."""
    saved: list[TurnState] = []

    async def save(state: TurnState) -> None:
        saved.append(state)

    async for _ in runtime.run_turn(REQUEST, None, save):
        pass
    return saved[-1]["text"]


async def test_a_frame(
    socket: Path, upstream: FakeAppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstreams, "LARGEST", 1_000)
    async with attached(socket, upstream) as bridge:
        await upstream.say('{"a":"' + "x" * 1_000 + '"}')
        # It connects again at once: what was told may be the past by now.
        await eventually(lambda: [one for one in bridge.links if "more than" in one.reason])
        await eventually(lambda: bridge.link.up)
        assert bridge.frames == []
