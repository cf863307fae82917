"""The official MCP client at a whole bridge on the real homeserver, over Streamable HTTP."""

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ImageContent, TextContent
from tests.integration.bridge_world import Room, World
from tests.integration.doors.doors_world import Gates, conversation_of, new_key
from tests.waiting import DEADLINE, Clock, within

from letta_matrix.access.principal import TOOL_SCOPES, Scope
from letta_matrix.access.secrets import issue
from letta_matrix.doors.mcp.results import FAULT
from letta_matrix.operations.toolbox.others import OTHERS

GIF = base64.b64encode(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;").decode()
LEGACY, MODERN = "legacy", "2026-07-28"
ORIGINAL = {
    "matrix_send_message": ["room_id", "message"],
    "matrix_list_rooms": ["include_members"],
    "matrix_read_room": ["room_id", "limit"],
    "matrix_join_room": ["room_id_or_alias"],
    "matrix_create_room": ["name", "topic", "is_public"],
}


async def token_for(
    world: World, agent_id: str = "", *scopes: Scope, rooms: frozenset[str] | None = None
) -> str:
    granted = frozenset(scopes) or TOOL_SCOPES
    text, stored = issue(agent_id=agent_id, scopes=granted, rooms=rooms)
    await world.bridge.app.stores.tokens.add(stored)
    return text


async def revoke(world: World, token: str) -> None:
    tokens = world.bridge.app.stores.tokens
    assert await tokens.revoke(token.split("_")[1], time.time())


@asynccontextmanager
async def client_of(
    world: World, token: str, mode: str = "auto", query: str = ""
) -> AsyncGenerator[Client]:
    headers = {"Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{world.config.mcp.port}/mcp{query}"
    async with httpx2.AsyncClient(headers=headers, timeout=DEADLINE) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


async def called(client: Client, name: str, /, **arguments: Any) -> dict[str, Any]:
    """The result of a call that goes well; the client holds it against the output schema."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, (name, result.content)
    return result.structured_content


def fault_of(result: CallToolResult) -> str:
    assert result.is_error
    return str((result.meta or {}).get(FAULT))


async def test_the_tools_of_the_original_system_are_there(world: World, ada: Room) -> None:
    async with client_of(world, await token_for(world, ada.agent.agent_id)) as client:
        assert client.session.protocol_version == MODERN
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert len(tools) <= 40
    for name, parameters in ORIGINAL.items():
        properties = list(tools[name].input_schema["properties"])
        assert properties[: len(parameters)] == parameters
    for tool in tools.values():
        assert tool.title
        assert tool.description
        assert tool.output_schema is not None
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is not None
    reading, kicking = tools["matrix_read_room"].annotations, tools["matrix_kick"].annotations
    assert reading is not None
    assert reading.read_only_hint
    assert kicking is not None
    assert kicking.destructive_hint


async def test_every_tool_can_be_called(world: World, clock: Clock) -> None:
    room = await world.meet()
    token = await token_for(world, room.agent.agent_id)
    async with client_of(world, token, query="?toolset=all") as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        done = await _tour(world, room, client)
        for name in listed.keys() - done:
            schema = listed[name].input_schema
            given = {key: _some(key, schema, room) for key in schema.get("required", ())}
            for key in schema["properties"].keys() & {"timeout_seconds", "wait_seconds"}:
                given[key] = schema["properties"][key].get("minimum", 1)
            calling = asyncio.create_task(client.call_tool(name, given))
            await clock.until(calling.done, step=0.05)
            result = await calling
            if result.is_error:
                assert fault_of(result) not in ("failed", "unknown-tool"), name


async def _tour(world: World, room: Room, client: Client) -> set[str]:
    """Use each of the usual tools once, as one would; their names."""
    done = set[str]()

    async def call(name: str, /, **arguments: Any) -> dict[str, Any]:
        done.add(name)
        return await called(client, name, **arguments)

    here = {"room_id": room.room_id}
    who = await call("matrix_whoami")
    assert who["user_id"] == room.ghost
    sent = await call("matrix_send_message", **here, message="**Hello** " + secrets.token_hex(4))
    event = {**here, "event_id": sent["event_id"]}
    for name in ("matrix_reply", "matrix_reply_in_thread", "matrix_edit_message"):
        await call(name, **event, message="more")
    await call("matrix_react", **event, key="👍")
    await call("matrix_set_typing", **here, typing=True)
    read = await call("matrix_read_room", **here, limit=5)
    assert sent["event_id"] in {message["event_id"] for message in read["messages"]}
    assert "untrusted" in read
    await call("matrix_get_context", **event)
    await call("matrix_read_thread", **event)
    await call("matrix_list_members", **here)
    listed = await call("matrix_list_rooms", include_members=True)
    assert room.room_id in {one["room_id"] for one in listed["rooms"]}
    image = await call("matrix_send_image", **here, content_base64=GIF)
    answer = await client.call_tool(
        "matrix_download_media", {**here, "event_id": image["event_id"]}
    )
    assert [type(block) for block in answer.content] == [TextContent, ImageContent]
    made = await call("matrix_create_room", name=f"Room {secrets.token_hex(4)}", topic="x")
    assert (await world.person.call("GET", f"/rooms/{quote(made['room_id'])}/state"))[0] == 403
    await call("matrix_invite", room_id=made["room_id"], user_id=world.person.user_id)
    await call("matrix_join_room", room_id_or_alias=made["room_id"])
    await call("matrix_leave", room_id=made["room_id"])
    await call("matrix_redact", **event)
    agents = await call("list_agents")
    assert room.agent.agent_id in {one["agent_id"] for one in agents["agents"]}
    waited = await call("wait_for_message", **here, timeout_seconds=0.1)
    assert "messages" not in waited or waited["messages"] == []
    return done | {"matrix_download_media"}


def _some(key: str, schema: dict[str, Any], room: Room) -> Any:
    """An argument for a required field."""
    fitting: dict[str, Any] = {
        "room_id": room.room_id,
        "space_id": room.room_id,
        "event_id": "$nothing",
        "user_id": room.ghost,
        "agent": room.agent.agent_id,
        "options": ["a", "b"],
        "level": 0,
        "content_base64": GIF,
    }
    return fitting.get(key, "x" if schema["properties"][key].get("type") == "string" else 1)


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_an_agents_token_sends_as_that_agent(world: World, ada: Room, mode: str) -> None:
    text = f"by MCP {secrets.token_hex(4)}"
    async with client_of(world, await token_for(world, ada.agent.agent_id), mode) as client:
        once = {"room_id": ada.room_id, "message": text, "transaction_id": secrets.token_hex(8)}
        first, second = [await called(client, "matrix_send_message", **once) for _ in range(2)]
    assert first == second
    said = await world.person.said_by(ada.room_id, ada.ghost)
    assert [one["event_id"] for one in said if one["content"]["body"] == text] == [
        first["event_id"]
    ]


async def test_a_token_is_for_its_scopes_and_rooms(world: World, ada: Room, bea: Room) -> None:
    rooms = frozenset({ada.room_id})
    reader = await token_for(world, ada.agent.agent_id, Scope.READ, rooms=rooms)
    async with client_of(world, reader) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert "matrix_read_room" in names
        assert "matrix_send_message" not in names
        await called(client, "matrix_read_room", room_id=ada.room_id)
        beyond = await client.call_tool("matrix_read_room", {"room_id": bea.room_id})
        assert fault_of(beyond) == "forbidden"
        message = {"room_id": ada.room_id, "message": "no"}
        assert fault_of(await client.call_tool("matrix_send_message", message)) == "forbidden"
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.call_tool("matrix_fry", {})


async def test_few_tools_reach_all(world: World, ada: Room) -> None:
    token = await token_for(world, ada.agent.agent_id)
    async with client_of(world, token, query="?toolset=few") as client:
        assert len((await client.list_tools()).tools) == 9
        found = await called(client, OTHERS, find="who am I")
        assert "matrix_whoami" in [tool["name"] for tool in found["tools"]]
        assert (await called(client, OTHERS, name="matrix_whoami"))["user_id"] == ada.ghost


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_a_revoked_token_is_refused_within_a_session(
    world: World, ada: Room, mode: str
) -> None:
    token = await token_for(world, ada.agent.agent_id)
    async with client_of(world, token, mode) as client:
        await called(client, "matrix_whoami")
        await revoke(world, token)
        with pytest.raises(MCPError):
            await client.call_tool("matrix_whoami", {})


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_who_waits_for_an_agent_hears_how_long(
    world: World, gates: Gates, ada: Room, mode: str, clock: Clock
) -> None:
    key, told = new_key(), list[float]()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        assert total == 280
        told.append(progress)
        gates.open(key)

    async with client_of(world, await token_for(world), mode) as client:
        arguments = {"agent": ada.agent.agent_id, "message": f"held {key}", "wait_seconds": 280}
        asking = asyncio.create_task(
            client.call_tool("message_agent", arguments, progress_callback=hear)
        )
        # Time may pass where it waits alone: what it asks of the homeserver would take too long.
        await conversation_of(world, f"held {key}")
        # It is said every few seconds.
        await clock.until(lambda: told or asking.done(), step=0.1)
        answer = await within(asking)
    assert not answer.is_error, answer.content
    assert f"held {key}" in str(answer.structured_content)
    assert told
    assert told == sorted(told)
