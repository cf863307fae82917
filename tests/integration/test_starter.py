"""Starter agents in a real App Server of their own, which has no agents before."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.servers import LettaServer, letta_server_in
from tests.stub_model import MODEL_ID, StubModel

from letta_matrix.stack import starter
from letta_matrix.stack.app_server import Control
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.models import DEMO_HANDLE, ModelChoice
from letta_matrix.stack.starter import create_starters, leave_gone_models, list_names, model_handle

STUB = f"openai-compatible/{MODEL_ID}"


@pytest.fixture(scope="module")
async def empty_server(
    http: aiohttp.ClientSession, stub_model: StubModel, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[LettaServer]:
    server = letta_server_in(tmp_path_factory.mktemp("starters"), http)
    try:
        await server.start(stub_model.url)
        yield server
    finally:
        server.stop()


@pytest.fixture
async def control(empty_server: LettaServer) -> AsyncGenerator[Control]:
    async with empty_server.app_server.control(empty_server.http) as control:
        yield control


async def test_the_first_model_of_the_provider_is_taken(control: Control) -> None:
    assert await model_handle(control, ModelChoice("openai-compatible", "test")) == STUB
    chosen = ModelChoice("openai-compatible", "test", model="other")
    assert await model_handle(control, chosen) == "openai-compatible/other"
    with pytest.raises(StackError, match="it lists no model"):
        await model_handle(control, ModelChoice("nobody", "nobody's key"))


class HalfWay(Exception):
    """The process was ended."""


async def test_starters_that_were_made_half_way_are_completed(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, request = tmp_path / "starters", control.request

    async def end_at_ada(kind: str, **fields: Any) -> dict[str, Any]:
        if kind == "agent_create" and fields["body"]["name"] == "Ada":
            raise HalfWay
        return await request(kind, **fields)

    monkeypatch.setattr(control, "request", end_at_ada)
    with pytest.raises(HalfWay):
        await create_starters(control, DEMO_HANDLE, note)
    monkeypatch.undo()
    assert await list_names(control) == ["Meridian"]
    assert await create_starters(control, DEMO_HANDLE, tmp_path / "other") == []
    assert await create_starters(control, DEMO_HANDLE, note) == ["Ada"]
    assert not note.exists()


async def test_starters_are_made_once_and_follow_to_a_real_model(
    control: Control, tmp_path: Path
) -> None:
    assert await create_starters(control, DEMO_HANDLE, tmp_path / "starters") == []
    assert await list_names(control) == ["Meridian", "Ada"]
    assert sorted(await leave_gone_models(control, STUB, demo=False)) == ["Ada", "Meridian"]
    assert await leave_gone_models(control, STUB, demo=False) == []
    agents = (await control.request("agent_list", query={"limit": 100}))["agents"]
    assert {agent["model"] for agent in agents} == {STUB}


async def test_every_page_of_agents_is_read(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter, "_PAGE", 1)
    assert await list_names(control) == ["Meridian", "Ada"]


async def test_refusals_are_one_line(control: Control) -> None:
    with pytest.raises(StackError, match="refused agent_retrieve"):
        await control.request("agent_retrieve", agent_id="agent-none")
