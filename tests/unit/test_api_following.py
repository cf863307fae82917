"""How many answers of agents the holder of a token may wait for at once."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage
from tests.unit.test_api_core import Api, problem

from letta_matrix.api import app, speaking
from letta_matrix.api.event_stream import event


@pytest.fixture
async def api(
    fake: FakeHomeserver, database_file: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Api]:
    monkeypatch.setattr(app, "FOLLOWING", 1)
    stage = Stage(fake, database_file)
    await stage.open()
    await stage.add(1)
    made = Api(stage)
    yield made
    await made.http.aclose()
    await stage.close()


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_a_token_waits_for_so_many_answers(
    api: Api, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    waiting, answered = asyncio.Event(), asyncio.Event()

    async def say(*_: object) -> dict[str, Any]:
        return {}

    async def events(*_: object) -> AsyncGenerator[bytes]:
        waiting.set()
        await answered.wait()
        yield event("done", {})

    async def whole(*_: object) -> httpx.Response:
        waiting.set()
        await answered.wait()
        return speaking.Json({})  # pyright: ignore[reportReturnType]

    for name, part in (("_say", say), ("_events", events), ("_whole", whole)):
        monkeypatch.setattr(speaking, name, part)
    token = await api.token()

    async def ask(token: str) -> httpx.Response:
        path, headers = "/api/v1/agents/agent-1/messages", {"Accept": accept}
        return await api.call("POST", path, token, json={"message": "hello"}, headers=headers)

    first = asyncio.create_task(ask(token))
    await asyncio.wait_for(waiting.wait(), 5)
    refused = await ask(token)
    assert problem(refused) == (429, "rate-limited")
    assert "1 answers of agents open" in refused.json()["detail"]
    other = asyncio.create_task(ask(await api.token()))
    await asyncio.sleep(0.05)
    answered.set()
    for asked in (await first, await other, await ask(token)):
        assert asked.status_code == 200
