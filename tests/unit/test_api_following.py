"""How many answers of agents the holder of a token may wait for at once."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fake_homeserver import FakeHomeserver
from tests.unit.api_stage import Api, api_on, problem, stage_on
from tests.waiting import eventually

from letta_matrix.doors.rest import app, speaking
from letta_matrix.doors.rest.event_stream import event


@pytest.fixture
async def api(
    fake: FakeHomeserver, database_file: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Api]:
    monkeypatch.setattr(app, "FOLLOWING", 1)
    async with stage_on(fake, database_file) as stage, api_on(stage) as made:
        yield made


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_a_token_waits_for_so_many_answers(
    api: Api, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    waiting, answered = list[object](), asyncio.Event()

    async def say(*_: object) -> dict[str, Any]:
        return {}

    async def events(caller: object, *_: object) -> AsyncGenerator[bytes]:
        waiting.append(caller)
        await answered.wait()
        yield event("done", {})

    async def whole(caller: object, *_: object) -> httpx.Response:
        waiting.append(caller)
        await answered.wait()
        return speaking.Json({})  # pyright: ignore[reportReturnType]

    for name, part in (("_say", say), ("_events", events), ("_whole", whole)):
        monkeypatch.setattr(speaking, name, part)
    token = await api.token()

    async def ask(token: str) -> httpx.Response:
        path, headers = "/api/v1/agents/agent-1/messages", {"Accept": accept}
        return await api.call("POST", path, token, json={"message": "hello"}, headers=headers)

    first = asyncio.create_task(ask(token))
    await eventually(lambda: waiting)
    refused = await ask(token)
    assert problem(refused) == (429, "rate-limited")
    assert "1 answers of agents open" in refused.json()["detail"]
    other = asyncio.create_task(ask(await api.token()))
    await eventually(lambda: len(waiting) == 2)
    answered.set()
    for asked in (await first, await other, await ask(token)):
        assert asked.status_code == 200
