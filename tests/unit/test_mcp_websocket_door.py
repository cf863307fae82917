"""The WebSocket door of the MCP server: who gets in, frames, errors, close codes, limits."""

import asyncio
import json
import random
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from mcp.client.client import Client
from structlog.testing import capture_logs
from tests.mcp_socket import INITIALIZE, RawClient, raw_client
from tests.mcp_transport import transport
from tests.unit.mcp_door import Door, door_on
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.access.principal import Scope
from letta_matrix.common import mcp_frames as frames
from letta_matrix.common.mcp_frames import LARGEST
from letta_matrix.doors.mcp import streams, websocket, websocket_session
from letta_matrix.doors.web.in_flight import MOST, PATIENCE, SMALL
from letta_matrix.operations.toolbox.others import OTHERS
from letta_matrix.store.database import Database


@pytest.fixture
async def door(tmp_path: Path, database: Database) -> AsyncGenerator[Door]:
    async with door_on(tmp_path, database) as opened:
        yield opened


def call(name: str, /, **arguments: object) -> dict[str, object]:
    return {"name": name, "arguments": arguments}


async def refused(door: Door, token: str = "", **options: Any) -> tuple[int, str]:
    """The status and the text of a handshake that fails."""
    headers = {"Authorization": f"Bearer {token or await door.token()}"}
    headers |= {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", **options}
    wanted = {name: value for name, value in headers.items() if value}
    async with aiohttp.ClientSession() as http, http.get(door.url, headers=wanted) as response:
        return response.status, (await response.json())["error"]


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_official_client_calls_tools(door: Door, mode: str) -> None:
    async with Client(transport(door.url, await door.token()), mode=mode) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert {"echo", "matrix_read_room"} <= tools
        called = await client.call_tool("echo", {"text": "hä?"})
        assert called.structured_content == {"text": "hä?"}


async def test_the_subprotocol_is_agreed_on(door: Door) -> None:
    async with door.client() as client:
        assert client.socket.protocol == "mcp"


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({"Authorization": ""}, 401, "Send a token"),
        ({"Authorization": "Basic abc"}, 401, "Send a token"),
        ({"Authorization": "Bearer lm_0123456789ab_no"}, 401, "not known"),
        ({"Host": "evil.example:8015"}, 421, "`Host` header names no host"),
        ({"Origin": "https://evil.example"}, 403, "may not use the server"),
        ({"Sec-WebSocket-Protocol": "graphql-ws"}, 400, "Offer the subprotocol `mcp`"),
        ({"Upgrade": "", "Connection": ""}, 426, "This is a WebSocket"),
    ],
)
async def test_handshakes_are_refused(
    door: Door, headers: dict[str, str], status: int, text: str
) -> None:
    found, told = await refused(door, **headers)
    assert (found, text in told) == (status, True), told


async def test_a_token_in_the_url_or_the_subprotocol_is_none(door: Door) -> None:
    token = await door.token()
    async with aiohttp.ClientSession() as http:
        for url, protocols in ((f"{door.url}?token={token}", ["mcp"]), (door.url, ["mcp", token])):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                await http.ws_connect(url, protocols=protocols)


async def test_a_token_has_so_many_connections(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "PER_TOKEN", 1)
    await door.sockets.close()
    await door.renew()
    token = await door.token()
    async with door.client(token):
        status, text = await refused(door, token)
        assert (status, "has 1 connections open" in text) == (429, True)
        async with door.client():
            pass
    await eventually(lambda: not door.sockets.clients)
    async with door.client(token) as client:
        assert await client.result("ping") == {}


@pytest.mark.parametrize("trusted", [[], ["127.0.0.1/32"]])
async def test_wrong_tokens_count_for_who_is_behind_a_proxy(
    tmp_path: Path, database: Database, clock: Clock, trusted: list[str]
) -> None:
    clock.stop()
    async with door_on(tmp_path, database, api={"trusted_proxies": trusted}) as door:
        guess = {"Authorization": "Bearer lm_0123456789ab_no", "X-Forwarded-For": "9.9.9.9"}
        statuses = [(await refused(door, **guess))[0] for _ in range(61)]
        assert statuses == [401] * 60 + [429]
        other = await refused(door, **guess | {"X-Forwarded-For": "9.9.9.8"})
        assert other[0] == (401 if trusted else 429)


async def test_an_expired_token_is_refused(door: Door) -> None:
    status, text = await refused(door, await door.token(lifetime=-1.0))
    assert (status, text) == (401, "The token has expired.")


async def test_a_revoked_token_ends_the_connection_at_its_next_message(door: Door) -> None:
    token = await door.token()
    async with door.client(token) as client:
        await client.result("ping")
        await door.revoke(token)
        error = (await client.request("tools/call", call("echo", text="x")))["error"]
        assert (error["code"], error["message"]) == (-32012, "The token was revoked.")
        assert await client.closed() == (4401, "The token was revoked.")


@asynccontextmanager
async def revoked_in_a_call(door: Door, clock: Clock) -> AsyncGenerator[RawClient]:
    """A client whose token was revoked while a tool that it called runs; time stands still."""
    clock.stop()
    token = await door.token()
    async with door.client(token) as client:
        await client.send("tools/call", call("wait"))
        await eventually(lambda: door.fake.waiting == 1)
        await door.revoke(token)
        yield client


async def test_an_answer_is_not_for_a_revoked_token(door: Door, clock: Clock) -> None:
    async with revoked_in_a_call(door, clock) as client:
        door.fake.go.set()
        assert await client.closed() == (4401, "The token was revoked.")


async def test_a_client_that_says_nothing_is_expelled_too(door: Door, clock: Clock) -> None:
    async with revoked_in_a_call(door, clock) as client:
        clock.advance(streams.RECHECK)
        assert await client.closed() == (4401, "The token was revoked.")
        await eventually(lambda: door.fake.waiting == 0)


NO_MESSAGES = [
    ("{", -32700),
    ("", -32700),
    ("nonsense", -32700),
    ("[" * 100_000, -32700),
    ('{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\\ud800"}}', -32700),
    ("[]", -32600),
    ("null", -32600),
    ('{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
    ('{"jsonrpc":"2.0","id":1,"method":7}', -32600),
    ('{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', -32600),
]


async def test_what_is_no_message_is_answered_and_the_connection_stays(
    door: Door, subtests: pytest.Subtests
) -> None:
    async with door.client() as client:
        for text, code in NO_MESSAGES:
            with subtests.test(text=text[:40]):
                await client.socket.send_str(text)
                answer = await client.receive()
                assert (answer["id"], answer["error"]["code"]) == (None, code)
                assert await client.result("ping") == {}


ODD: list[object] = [None, True, -1, 1e308, "", "\u202e\x00", "x" * 9999, [], {}, [[]], {"": {}}]
METHODS = """initialize ping x logging/setLevel tools/list tools/call resources/list resources/read
    resources/subscribe resources/unsubscribe prompts/list prompts/get completion/complete
    subscriptions/listen server/discover notifications/initialized notifications/cancelled"""


async def test_any_message_whatever_is_survived(door: Door) -> None:
    dice = random.Random(4)
    keys = "name arguments uri ref argument cursor notifications requestId _meta protocolVersion"
    async with door.client() as client:
        for number in range(150):
            params = {key: dice.choice(ODD) for key in dice.sample(keys.split(), 3)}
            message = {
                "jsonrpc": "2.0",
                "id": f"odd{number}",
                "method": dice.choice(METHODS.split()),
            }
            message |= {"params": params if dice.random() < 0.9 else dice.choice(ODD)}
            if dice.random() < 0.2:
                message[dice.choice(list(message))] = dice.choice(ODD)
            await client.socket.send_json(message)
            assert await client.result("ping") == {}
        codes = {error["code"] for news in client.told if (error := news.get("error"))}
        assert codes <= {-32700, -32600, -32601, -32602, -32010}, codes


async def test_a_request_before_the_handshake_is_refused(door: Door) -> None:
    async with raw_client(door.url, await door.token()) as client:
        assert (await client.request("tools/list"))["error"]["code"] == -32602
        assert "serverInfo" in await client.initialize()


async def test_binary_frames_end_the_connection(door: Door) -> None:
    async with door.client() as client:
        await client.socket.send_bytes(b"{}")
        assert await client.closed() == (1003, "Send text frames.")


async def test_too_large_messages_end_the_connection(door: Door) -> None:
    reader, writer = await dialled(door)
    writer.write(b"\x81\xff" + (LARGEST + 1).to_bytes(8, "big") + bytes(4) + b"[")
    closing = await reader.readexactly(4)
    assert (closing[0], int.from_bytes(closing[2:], "big")) == (0x88, 1009)
    writer.close()


async def test_large_messages_pass(door: Door) -> None:
    async with door.client() as client:
        text = "ä" * 1_000_000
        result = await client.result("tools/call", call("echo", text=text))
        assert json.loads(result["content"][0]["text"]) == {"text": text}


async def test_too_many_requests_are_told_when_to_come_again(
    tmp_path: Path, database: Database, clock: Clock
) -> None:
    clock.stop()
    async with (
        door_on(tmp_path, database, access={"calls_per_minute": 6}) as door,
        door.client() as client,
    ):
        answers = [await client.request("ping") for _ in range(5)]
        assert ["error" in answer for answer in answers] == [False] * 3 + [True] * 2
        error = answers[4]["error"]
        assert (error["code"], error["data"]["retry_after"]) == (-32011, 10)


async def test_open_requests_are_bounded_and_ids_are_used_once(door: Door) -> None:
    async with door.client() as client:
        for _ in range(64):
            await client.send("tools/call", call("wait"))
        await eventually(lambda: door.fake.waiting == 64)
        error = (await client.request("ping"))["error"]
        assert error["code"] == -32010
        await client.notify("notifications/cancelled", {"requestId": 2})
        await eventually(lambda: door.fake.waiting == 63)
        assert await client.result("ping") == {}
        await client.socket.send_json({"jsonrpc": "2.0", "id": 3, "method": "ping"})
        answer = await client.receive()
        assert (answer["id"], answer["error"]["code"]) == (3, -32010)
        door.fake.go.set()
        answers = [await client.receive() for _ in range(63)]
        assert len({answer["id"] for answer in answers}) == 63


async def test_calls_end_with_their_connection(door: Door) -> None:
    async with door.client() as client:
        await client.send("tools/call", call("wait"))
        await eventually(lambda: door.fake.waiting == 1)
    await eventually(lambda: door.fake.waiting == 0)


async def test_a_client_that_does_not_read_is_cut_off(door: Door, clock: Clock) -> None:
    _, writer = await dialled(door)
    initialize = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": INITIALIZE}
    writer.write(frame(initialize))
    for number in range(1, 60):
        request = {"jsonrpc": "2.0", "id": number, "method": "tools/call"}
        writer.write(frame({**request, "params": call("echo", text="x" * 400_000)}))
    await eventually(lambda: len(door.sockets._streams) == 1)
    await clock.until(lambda: not door.sockets.clients, step=1)
    writer.transport.abort()


def connection_of(door: Door) -> Any:
    """The one connection that there is, on the door's side."""
    (connection,) = door.sockets._server._server.server_state.connections
    return connection


async def test_who_answers_no_ping_is_cut_off(door: Door, clock: Clock) -> None:
    clock.stop()
    reader, writer = await dialled(door)
    await eventually(lambda: door.sockets.clients)
    for is_answered in (True, False):
        clock.advance(30)
        ping = await within(reader.readexactly(6))
        assert ping[:2] == b"\x89\x04"
        if is_answered:
            writer.write(b"\x8a\x84" + bytes(4) + ping[2:])
            await eventually(lambda: connection_of(door).pending_ping_payload is None)
    clock.advance(14.9)
    await settled()
    assert door.sockets.clients == 1
    clock.advance(0.1)
    await eventually(lambda: not door.sockets.clients)
    writer.close()


async def test_pongs_that_nobody_reads_do_not_pile_up(door: Door, clock: Clock) -> None:
    clock.stop()
    _, writer = await dialled(door)
    initialize = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": INITIALIZE}
    writer.write(frame(initialize))

    def echo(number: int, text: str) -> None:
        request = {"jsonrpc": "2.0", "id": number, "method": "tools/call"}
        writer.write(frame({**request, "params": call("echo", text=text)}))

    for number in range(1, 60):
        echo(number, "x" * 100_000)
    await eventually(lambda: len(door.fake.said) == 59 and connection_of(door).is_stalled())
    connection = connection_of(door)
    for number in range(5000):
        writer.write(b"\x89\xf8" + bytes(4) + number.to_bytes(4, "big") * 30)
    echo(60, "last")
    await eventually(lambda: door.fake.said[-1] == "last")
    # An answer and its frame, at most; the pongs would be twice that.
    assert connection.transport.get_write_buffer_size() < 300_000
    assert not connection.conn.data_to_send()
    writer.transport.abort()


async def test_fragments_are_one_message(door: Door) -> None:
    reader, writer = await dialled(door)
    data = json.dumps({"jsonrpc": "2.0", "id": "ä", "method": "ping"}).encode()
    for place in range(len(data)):
        begins, ends = place == 0, place == len(data) - 1
        writer.write(bytes([0x80 * ends + begins, 0x81]) + bytes(4) + data[place : place + 1])
        if place == len(data) // 2:
            await eventually(lambda: connection_of(door).frames)
            assert len(connection_of(door).frames) == 1
    (head, length) = await reader.readexactly(2)
    answer = json.loads(await reader.readexactly(length))
    assert (head, answer["id"]) == (0x81, "ä")
    writer.close()


async def test_a_client_has_a_while_to_read(clock: Clock) -> None:
    cut, nothing = list[bool](), cast("Any", None)

    async def never(_: str) -> None:
        await asyncio.Event().wait()

    clock.stop()
    connection = SimpleNamespace(hang_up=lambda: cut.append(True))
    scope = {"state": {"connection": connection}}
    socket = cast("Any", SimpleNamespace(scope=scope, send_text=never))
    session = websocket_session.Session(socket, "", "", "", nothing, nothing, nothing)
    with capture_logs() as logs:
        sending = asyncio.create_task(session._send("{}"))
        await settled(sending)
        clock.advance(websocket_session._PATIENCE - 1)
        await settled(sending)
        clock.advance(1)
        await within(sending)
    assert cut == [True]
    assert [one["event"] for one in logs] == ["an MCP client does not read what it gets"]


async def dialled(door: Door) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which frames can be written byte by byte."""
    token = await door.token()
    reader, writer = await asyncio.open_connection("127.0.0.1", door.sockets.port, limit=2**16)
    writer.write(
        b"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Authorization: Bearer " + token.encode() + b"\r\n\r\n"
    )
    assert b"101 Switching" in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def frame(message: object) -> bytes:
    """A masked text frame (RFC 6455, section 5.2), with a mask that changes nothing."""
    data = json.dumps(message).encode()
    return b"\x81\xff" + len(data).to_bytes(8, "big") + bytes(4) + data


async def test_the_end_waits_for_nothing_and_says_why(
    tmp_path: Path, database: Database, clock: Clock
) -> None:
    async with door_on(tmp_path, database) as door, door.client() as client:
        await client.send("tools/call", call("wait"))
        await eventually(lambda: door.fake.waiting == 1)
        closed = asyncio.create_task(client.closed())
        clock.stop()
        await within(door.sockets.close())
        assert await closed == (1001, "The bridge ends.")
        assert door.fake.waiting == 0


async def test_tools_are_those_of_the_token(door: Door) -> None:
    async with door.client(await door.token(Scope.AGENTS)) as client:
        tools = (await client.result("tools/list"))["tools"]
        assert [tool["name"] for tool in tools] == ["list_agents"]
        error = (await client.result("tools/call", call("echo")))["content"][0]["text"]
        assert "needs the scope read" in error


async def test_the_address_says_how_many_tools_are_shown(door: Door) -> None:
    token = await door.token()
    async with raw_client(f"{door.url}?toolset=few", token) as client:
        await client.initialize()
        few = [tool["name"] for tool in (await client.result("tools/list"))["tools"]]
        assert few[-1] == OTHERS
        assert "echo" not in few
        asked = {"name": "echo", "arguments": {"text": "x"}}
        result = await client.result("tools/call", call(OTHERS, **asked))
        assert result["structuredContent"] == {"text": "x"}
    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        async with raw_client(f"{door.url}?toolset=", token):
            pass
    assert raised.value.status == 400


async def test_the_stateless_revision_works_over_the_socket(door: Door) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    }
    async with raw_client(door.url, await door.token()) as client:
        found = await client.result("server/discover", {"_meta": meta})
        assert found["supportedVersions"] == ["2026-07-28"]
        result = await client.result("tools/call", {**call("echo", text="x"), "_meta": meta})
        assert result["structuredContent"] == {"text": "x"}


async def test_health_needs_no_token(door: Door) -> None:
    url = door.url.replace("/mcp", "/health")
    async with door.client(), aiohttp.ClientSession() as http:
        assert door.sockets.clients == 1
        for host, known in ((None, True), ("evil.example", False)):
            headers = {} if host is None else {"Host": host}
            async with http.get(url, headers=headers) as response:
                assert await response.json() == {"status": "ok", "known": known}


async def test_the_example_of_the_page_works(door: Door) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/mcp.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = example.replace("ws://127.0.0.1:8015/mcp", door.url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        stdout=asyncio.subprocess.PIPE,
        env={"LETTA_MATRIX_TOKEN": await door.token()},
    )
    shown = (await process.communicate())[0].decode()
    assert process.returncode == 0
    assert "'protocolVersion': '2025-06-18'" in shown
    assert '"room_id": "!mine:test"' in shown


def test_the_page_lists_every_code() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/mcp.md").read_text(encoding="utf-8")
    listed = {int(code) for code in re.findall(r"^\| (-?\d{4,5})\b", page, re.MULTILINE)}
    codes = {value for value in vars(frames).values() if isinstance(value, int)} - {frames.LARGEST}
    assert codes - {frames.LOST} <= listed
    assert f"code {frames.LOST}" in page
    assert f"{frames.LARGEST:,} bytes" in page


async def test_large_messages_share_the_room_for_them(door: Door, clock: Clock) -> None:
    in_flight, large = door.services.in_flight, call("echo", text="x" * (SMALL + 1))
    async with door.client() as client, door.client() as other:
        async with in_flight.held("another", MOST):
            number = await client.send("tools/call", large)
            await eventually(lambda: in_flight._waiting)
            assert "result" in await other.request("tools/call", call("echo", text="small"))
            clock.advance(PATIENCE)
            answer = await client.receive()
        assert answer["id"] == number
        assert answer["error"]["code"] == frames.NOT_NOW
        assert answer["error"]["data"] == {"retry_after": 10.0}
        assert "result" in await client.request("tools/call", large)
        assert in_flight._left == MOST
        await client.send("tools/call", call("wait", text="x" * (SMALL + 1)))
        await eventually(lambda: door.fake.waiting)
        assert in_flight._left < MOST
    await eventually(lambda: in_flight._left == MOST)
