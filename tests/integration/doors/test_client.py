"""The Python client against a real bridge: it is what scripts and the command line use."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest
from tests.integration.bridge_world import Room, World
from tests.integration.doors.doors_world import new_key
from tests.waiting import eventually

from letta_matrix.access.principal import Scope
from letta_matrix.access.secrets import issue
from letta_matrix.client import ApiError, LettaMatrix
from letta_matrix.store.tokens import TokenStore


@pytest.fixture(scope="module")
async def bridge(world: World) -> AsyncGenerator[LettaMatrix]:
    """A client that may do everything."""
    token, stored = issue(agent_id="", scopes=frozenset(Scope))
    await TokenStore(world.bridge.app.stores.database).add(stored)
    async with LettaMatrix(f"http://127.0.0.1:{world.config.api.port}", token) as client:
        yield client


async def test_agents_are_made_renamed_and_removed(bridge: LettaMatrix) -> None:
    key = new_key()
    made = await bridge.create_agent("Grace", transaction_id=key)
    assert made["room_id"] is not None
    again = await bridge.create_agent("Grace", transaction_id=key)
    assert again["agent_id"] == made["agent_id"]
    renamed = await bridge.rename_agent(made["agent_id"], "Hopper")
    assert renamed["name"] == "Hopper"
    assert [one["name"] for one in await bridge.list_agents(name="hopp")] == ["Hopper"]
    with pytest.raises(ApiError) as refusal:
        await bridge.remove_agent(made["agent_id"], confirm="Grace")
    assert (refusal.value.status, refusal.value.slug) == (409, "conflict")
    await bridge.remove_agent(made["agent_id"], confirm="Hopper")


async def test_an_agent_is_asked_and_answers(bridge: LettaMatrix, ada: Room) -> None:
    told = await bridge.say_to_agent(ada.agent.agent_id, "hello", transaction_id="ask-1")
    assert told["answer"]
    again = await bridge.say_to_agent(ada.agent.agent_id, "hello", transaction_id="ask-1")
    assert again["turn_id"] == told["turn_id"]


async def test_an_answer_is_streamed(bridge: LettaMatrix, ada: Room) -> None:
    stream = bridge.stream_answer(ada.agent.agent_id, "hello")
    events = [event async for event in stream]
    assert (events[0].name, events[-1].name) == ("accepted", "done")
    assert events[-1].data["answer"]


async def test_rooms_messages_and_tools(bridge: LettaMatrix, ada: Room) -> None:
    rooms = {room["room_id"]: room["name"] for room in await bridge.list_rooms()}
    name = rooms[ada.room_id]
    sent = await bridge.send_message(name, "by its *name*", transaction_id="send-1")
    assert await bridge.send_message(name, "by its *name*", transaction_id="send-1") == sent
    page = await bridge.list_messages(ada.room_id, limit=50)
    found = [one for one in page["messages"] if one["event_id"] == sent["event_id"]]
    assert [one["text"] for one in found] == ["by its *name*"]
    assert "matrix_whoami" in {tool["name"] for tool in await bridge.list_tools()}
    me = await bridge.call_tool("matrix_whoami")
    assert me["user_id"] == "@letta:localhost"


async def test_tokens_are_made_and_revoked(bridge: LettaMatrix, world: World, ada: Room) -> None:
    agent_id = ada.agent.agent_id
    made = await bridge.create_token(["read"], agent_id=agent_id, label="x", expires_in=3600)
    assert made["token_id"] in {one["token_id"] for one in await bridge.list_tokens()}
    async with LettaMatrix(f"http://127.0.0.1:{world.config.api.port}", made["token"]) as limited:
        assert (await limited.call_tool("matrix_whoami"))["user_id"] == ada.ghost
        with pytest.raises(ApiError) as refusal:
            await limited.send_message(ada.room_id, "x")
        assert (refusal.value.status, refusal.value.slug) == (403, "forbidden")
        await bridge.revoke_token(made["token_id"])
        with pytest.raises(ApiError, match="revoked") as refusal:
            await limited.list_rooms()
        assert refusal.value.status == 401


def wrong_in(health: Mapping[str, Any]) -> list[str]:
    named = {check["name"] for check in health["checks"] if check["state"] != "ok"}
    return sorted(named - {"accounts"})


async def test_operators_see_how_it_is(bridge: LettaMatrix) -> None:
    # What earlier tests have begun may still go on, and accounts that they made are told of.
    await eventually(bridge.is_ready)
    await eventually(bridge.health, lambda health: not wrong_in(health))
    await eventually(bridge.list_turns, lambda turns: turns == [])
    assert await bridge.list_approvals() == []
    assert "agents" in await bridge.sync_agents()
    with pytest.raises(ApiError) as refusal:
        await bridge.cancel_turn("turn-of-nobody")
    assert refusal.value.slug == "not-found"
    with pytest.raises(ApiError) as refusal:
        await bridge.answer_approval("none", "deny")
    assert refusal.value.slug == "not-found"
