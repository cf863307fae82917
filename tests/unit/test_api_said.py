"""A turn that was promised can be asked for: the homeserver may take a while to bring it."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from tests.fake_homeserver import FakeHomeserver
from tests.unit.api_stage import Api, api_on, problem, stage_on
from tests.waiting import Clock, eventually, settled

from letta_matrix.doors.rest.following import _ARRIVAL

ROOM = "!1:test"
PATH = "/api/v1/agents/agent-1/messages?wait=0"


@pytest.fixture
async def api(fake: FakeHomeserver, database_file: Path) -> AsyncGenerator[Api]:
    async with stage_on(fake, database_file) as stage, api_on(stage) as made:
        yield made


async def say(api: Api, clock: Clock) -> asyncio.Task[httpx.Response]:
    """Say something without waiting for its answer; time stands still, and it is sent."""
    clock.stop()
    asking = asyncio.create_task(api.call("POST", PATH, json={"message": "slow 3600"}))
    await eventually(lambda: api.stage.fake.messages(ROOM))
    return asking


async def test_who_does_not_wait_can_ask_for_the_turn(api: Api, clock: Clock) -> None:
    asking = await say(api, clock)
    clock.advance(_ARRIVAL / 2)
    for _ in range(5):
        # They go the same way as what it still has to do.
        await api.call("GET", "/api/v1/whoami")
    await settled(asking)
    await api.stage.admit(*api.stage.fake.messages(ROOM))
    await clock.until(asking.done, step=0.1)
    accepted = await asking
    assert accepted.status_code == 202
    turn = await api.call("GET", accepted.headers["Location"])
    assert turn.json()["turn_id"] == accepted.json()["turn_id"]


async def test_a_homeserver_that_is_late_is_not_waited_for_for_ever(api: Api, clock: Clock) -> None:
    asking = await say(api, clock)
    await clock.until(asking.done, step=1)
    accepted = await asking
    assert accepted.status_code == 202
    turn = await api.call("GET", accepted.headers["Location"])
    assert problem(turn) == (404, "not-found")
