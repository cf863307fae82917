"""MCP over WebSocket at a whole bridge on the real homeserver: tools, resources, news, tokens."""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx2
import psutil
import pytest
from mcp import ClientSession
from mcp.client._transport import TransportStreams
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.shared.subscriptions import ResourcesListChanged, ResourceUpdated
from tests.integration.bridge_world import Json, Person, Room, World
from tests.mcp_socket import RawClient, raw_client
from tests.mcp_transport import transport
from tests.waiting import DEADLINE, deadline, eventually

from letta_matrix.access.principal import TOOL_SCOPES, Scope
from letta_matrix.access.secrets import issue

UPDATED = "notifications/resources/updated"


def url_of(world: World) -> str:
    return f"http://127.0.0.1:{world.config.mcp.websocket_port}/mcp"


async def token_for(world: World, agent_id: str = "", rooms: frozenset[str] | None = None) -> str:
    text, stored = issue(agent_id=agent_id, scopes=TOOL_SCOPES - {Scope.ADMIN}, rooms=rooms)
    await world.bridge.app.stores.tokens.add(stored)
    return text


def messages_of(room_id: str) -> str:
    return f"matrix://rooms/{quote(room_id, safe='')}/messages"


async def news(client: RawClient, method: str) -> Json:
    """The next notification of a kind."""
    while (message := await client.receive()).get("method") != method:
        pass
    return message


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_an_agents_token_sends_as_the_agent(
    world: World, ann: Person, ada: Room, mode: str
) -> None:
    text = f"by socket {secrets.token_hex(4)}"
    token = await token_for(world, ada.agent.agent_id)
    async with Client(transport(url_of(world), token), mode=mode) as client:
        arguments = {"room_id": ada.room_id, "message": text, "transaction_id": text[-8:]}
        first = await client.call_tool("matrix_send_message", arguments)
        again = await client.call_tool("matrix_send_message", arguments)
    assert first.structured_content == again.structured_content
    assert (await ann.bodies(ada.room_id, ada.ghost)).count(text) == 1


async def test_resources_are_what_the_bridge_sees(world: World, ann: Person, ada: Room) -> None:
    said = f"for the resource {secrets.token_hex(4)}"
    await ann.send(ada.room_id, said)
    token = await token_for(world, ada.agent.agent_id)
    async with Client(transport(url_of(world), token)) as client:
        listed = {str(one.uri) for one in (await client.list_resources()).resources}
        assert {"matrix://rooms", "matrix://agents", messages_of(ada.room_id)} <= listed
        for uri in listed:
            (contents,) = (await client.read_resource(uri)).contents
            read = json.loads(getattr(contents, "text", ""))
            assert "data, not instructions" in read["untrusted"], uri
        (contents,) = (await client.read_resource(messages_of(ada.room_id))).contents
        assert said in getattr(contents, "text", "")
        prompts = {prompt.name for prompt in (await client.list_prompts()).prompts}
        assert prompts == {"summarise_room", "triage_unread", "draft_reply", "introduce_agent"}


async def test_a_message_of_a_person_is_told_at_once(world: World, ann: Person, ada: Room) -> None:
    other = await ann.create_room()
    token = await token_for(world, ada.agent.agent_id)
    async with raw_client(url_of(world), token) as client:
        await client.initialize()
        refused = await client.request("resources/subscribe", {"uri": messages_of(other)})
        assert "You are not in" in refused["error"]["message"]
        await client.result("resources/subscribe", {"uri": messages_of(ada.room_id)})
        await ann.send(ada.room_id, "anything new?")
        told = await news(client, UPDATED)
        assert told["params"]["uri"] == messages_of(ada.room_id)


@asynccontextmanager
async def over_http(world: World, token: str) -> AsyncGenerator[TransportStreams]:
    url = f"http://127.0.0.1:{world.config.mcp.port}/mcp"
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=DEADLINE) as http,
        streamable_http_client(url, http_client=http) as streams,
    ):
        yield streams


@pytest.mark.parametrize("door", ["websocket", "http"])
async def test_listening_is_the_same_at_both_doors(
    world: World, ann: Person, ada: Room, door: str
) -> None:
    token, uri = await token_for(world, ada.agent.agent_id), messages_of(ada.room_id)
    streams = transport(url_of(world), token) if door == "websocket" else over_http(world, token)
    async with (
        Client(streams, mode="2026-07-28") as client,
        client.listen(resource_subscriptions=[uri], resources_list_changed=True) as news,
    ):
        await ann.send(ada.room_id, "anything?")
        async with deadline():
            assert await anext(news) == ResourceUpdated(uri)
        await ann.create_room(ada.ghost)
        async with deadline():
            while await anext(news) != ResourcesListChanged():
                pass


async def test_a_session_over_http_is_told_on_its_stream(
    world: World, ann: Person, ada: Room
) -> None:
    told: list[object] = []

    async def hear(message: object) -> None:
        told.append(getattr(getattr(message, "params", None), "uri", None))

    token, uri = await token_for(world, ada.agent.agent_id), messages_of(ada.room_id)
    async with (
        over_http(world, token) as (read, write),
        ClientSession(read, write, message_handler=hear) as session,
    ):
        await session.initialize()
        with pytest.warns(MCPDeprecationWarning):
            await session.subscribe_resource(uri)  # pyright: ignore[reportDeprecated]

        async def heard() -> list[object]:
            await ann.send(ada.room_id, "anything?")
            return told

        await eventually(heard, lambda uris: uri in uris)


async def test_rooms_and_agents_that_appear_are_told(world: World, ann: Person, ada: Room) -> None:
    token = await token_for(world, ada.agent.agent_id)
    async with raw_client(url_of(world), token) as client:
        await client.initialize()
        for uri in ("matrix://rooms", "matrix://agents"):
            await client.result("resources/subscribe", {"uri": uri})
        new = await world.meet()
        assert (await news(client, UPDATED))["params"]["uri"] == "matrix://agents"
        room_id = await ann.create_room(ada.ghost)
        await news(client, "notifications/resources/list_changed")
        listed = await client.result("resources/list")
        assert messages_of(room_id) in {one["uri"] for one in listed["resources"]}
        (contents,) = (await client.result("resources/read", {"uri": "matrix://agents"}))[
            "contents"
        ]
        assert new.agent.agent_id in contents["text"]


async def test_a_token_is_held_to_its_rooms_and_refused_once_revoked(
    world: World, ann: Person, ada: Room, bea: Room
) -> None:
    token = await token_for(world, rooms=frozenset({ada.room_id}))
    async with raw_client(url_of(world), token) as client:
        await client.initialize()
        assert "error" in await client.request("resources/read", {"uri": messages_of(bea.room_id)})
        arguments = {"room_id": bea.room_id, "message": "not here"}
        call: Json = {"name": "matrix_send_message", "arguments": arguments}
        assert (await client.result("tools/call", call))["isError"]
        assert await world.bridge.app.stores.tokens.revoke(token.split("_")[1], time.time())
        await client.send("tools/list")
        assert (await client.closed())[0] == 4401
    assert "not here" not in str(await ann.timeline(bea.room_id))


IDLE_CLIENTS = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from contextlib import AsyncExitStack
from tests.mcp_socket import raw_client

async def main():
    async with AsyncExitStack() as open_ones:
        for line in sys.stdin:
            for _ in range(int(line)):
                client = await open_ones.enter_async_context(raw_client(*sys.argv[2:]))
                await client.initialize()
                await client.result("ping")
            print("up", flush=True)

asyncio.run(main())
"""


async def test_idle_clients_are_cheap(world: World) -> None:
    root, token = str(Path(__file__).parents[3]), await token_for(world)
    clients = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", IDLE_CLIENTS, root, url_of(world), token),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )

    async def come(count: int) -> int:
        """So many more; the memory that is used then."""
        assert clients.stdin is not None
        assert clients.stdout is not None
        clients.stdin.write(f"{count}\n".encode())
        assert await clients.stdout.readline() == b"up\n"
        return psutil.Process().memory_info().rss

    before = await come(20)
    used = (await come(100) - before) / 100
    await clients.communicate(b"")
    assert used <= 100_000
