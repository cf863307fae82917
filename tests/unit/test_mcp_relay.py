"""`letta-matrix mcp`: stdio, relayed to the bridge's WebSocket."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from tests.builders import message
from tests.mcp_socket import INITIALIZE, Json
from tests.unit.mcp_door import MINE, Door, door_on
from tests.waiting import eventually

from letta_matrix.mcp import relay as relays
from letta_matrix.mcp.frames import LARGEST
from letta_matrix.mcp.relay import Relay, RelayError
from letta_matrix.store.database import Database

MESSAGES = "matrix://rooms/%21mine%3Atest/messages"


@pytest.fixture
async def door(tmp_path: Path, database: Database) -> AsyncGenerator[Door]:
    async with door_on(tmp_path, database) as opened:
        yield opened


@dataclass
class Client:
    """A client at the relay's lines."""

    lines: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue[str | None])
    got: list[Json] = field(default_factory=list[Json])
    said: list[str] = field(default_factory=list[str])

    async def feed(self) -> AsyncIterator[str]:
        while (line := await self.lines.get()) is not None:
            yield line

    def take(self, line: str) -> None:
        assert "\n" not in line
        self.got.append(json.loads(line))

    def send(self, method: str, number: int | str | None = None, **params: Any) -> None:
        request = {"jsonrpc": "2.0", "method": method, "params": params}
        self.lines.put_nowait(json.dumps(request | ({} if number is None else {"id": number})))

    async def answer(self, number: int | str, seconds: float = 5.0) -> Json:
        def found() -> list[Json]:
            return [one for one in self.got if one.get("id") == number]

        await eventually(found)
        (answer,) = found()
        self.got.remove(answer)
        return answer

    async def begin(self) -> None:
        self.send("initialize", "begin", **INITIALIZE)
        assert "result" in await self.answer("begin")
        self.send("notifications/initialized")


@asynccontextmanager
async def relayed(door: Door, token: str = "") -> AsyncGenerator[Client]:
    client = Client()
    relay = Relay(door.url, token or await door.token(), client.take, client.said.append)
    running = asyncio.create_task(relay.run(client.feed()))
    yield client
    client.lines.put_nowait(None)
    await asyncio.wait_for(running, 5)


async def restart(door: Door) -> None:
    """End the door and let it listen again on the same port, some time later."""
    port = door.sockets.port
    await door.sockets.close()
    await asyncio.sleep(0.3)
    await door.renew(port)


async def test_a_session_outlives_the_bridge(door: Door) -> None:
    async with relayed(door) as client:
        await client.begin()
        client.send("resources/subscribe", 1, uri=MESSAGES)
        assert "result" in await client.answer(1)
        client.send("tools/call", 2, name="wait", arguments={})
        await eventually(lambda: door.fake.waiting)
        restarting = asyncio.create_task(restart(door))
        error = (await client.answer(2))["error"]
        assert error["code"] == -32000
        assert "same transaction_id" in error["message"] or error["message"] == "Connection closed"

        client.send("tools/call", 3, name="echo", arguments={"text": "back"})
        assert (await client.answer(3))["result"]["structuredContent"] == {"text": "back"}
        await restarting
        assert client.said == ["the bridge is away; connecting again", "the bridge is back"]
        await asyncio.sleep(0.05)
        door.toolbox.arrivals.publish(message(room_id=MINE))
        await eventually(lambda: client.got)
        assert [one["params"]["uri"] for one in client.got] == [MESSAGES]


async def test_requests_are_refused_while_the_bridge_is_away_for_long(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "_PATIENCE", 0.3)
    async with relayed(door) as client:
        await client.begin()
        await door.sockets.close()
        for number in (1, "two"):
            client.send("ping", number)
            error = (await client.answer(number))["error"]
            assert (error["code"], "does not answer" in error["message"]) == (-32013, True)


async def test_a_handshake_that_the_bridge_did_not_answer_is_repeated(door: Door) -> None:
    session = relays.Session()
    opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": INITIALIZE}
    session.says(opening, json.dumps(opening))
    assert session.lost() == []
    assert [json.loads(line) for line in session.opening()] == [opening]
    assert session.hears('{"jsonrpc":"2.0","id":0,"result":{}}')
    (again,) = session.opening()
    assert json.loads(again)["id"] != 0
    assert not session.hears(json.dumps({"id": json.loads(again)["id"], "result": {}}))


def test_what_was_cancelled_or_unsubscribed_is_forgotten() -> None:
    session = relays.Session()
    for number, method in enumerate(("resources/subscribe", "resources/unsubscribe")):
        request = {"id": number, "method": method, "params": {"uri": MESSAGES}}
        session.says(request, "")
        assert session.hears(json.dumps({"id": number, "result": {}}))
    session.says({"id": 7, "method": "tools/call"}, "")
    session.says({"method": "notifications/cancelled", "params": {"requestId": 7}}, "")
    assert (session.waits, session.lost(), session.opening()) == (False, [], [])


@pytest.mark.parametrize("opening", [{}, {"id": None}, {"id": []}])
def test_a_handshake_without_an_id_begins_nothing(opening: Json) -> None:
    session = relays.Session()
    session.says({"method": "initialize", "params": INITIALIZE, **opening}, "")
    assert (session.opening(), session.lost()) == ([], [])


async def test_a_connection_that_is_lost_again_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relays, "_PATIENCE", 0.3)
    relay = Relay("", "", print, print)
    relay._away_since = asyncio.get_running_loop().time()
    waiting = asyncio.create_task(relay._is_there())
    await asyncio.sleep(0.01)
    for _ in range(2):
        relay._connected.set()
        relay._connected.clear()
        await asyncio.sleep(0.01)
        assert not waiting.done()
    relay._connected.set()
    assert await waiting
    relay._connected.clear()
    assert not await relay._is_there()


async def test_a_connection_that_breaks_at_once_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relays, "_PAUSES", (0.0,))
    sent, closed = list[str](), list[int]()

    def socket(number: int) -> Any:
        async def send_str(text: str) -> None:
            if number == 0:
                raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
            sent.append(text)

        async def close() -> None:
            closed.append(number)

        return SimpleNamespace(number=number, send_str=send_str, close=close)

    sockets = iter([socket(0), socket(1)])

    async def dial(*_: object) -> Any:
        return next(sockets)

    monkeypatch.setattr(Relay, "_dial", dial)
    relay = Relay("", "", print, print)
    opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": INITIALIZE}
    relay._session.says(opening, json.dumps(opening))
    connected: Any = await relay._connect(cast("Any", None), 5.0)
    assert (connected.number, closed, len(sent)) == (1, [0], 1)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"id":[]}', '{"id":{},"result":1}', "{"])
def test_odd_messages_pass_the_session(text: str) -> None:
    session = relays.Session()
    assert session.hears(text)
    session.says(relays._parsed(text), text)


async def test_the_bridge_refuses_what_is_no_json(door: Door) -> None:
    async with relayed(door) as client:
        await client.begin()
        client.lines.put_nowait("nonsense")
        await eventually(lambda: client.got)
        assert client.got[0]["error"]["code"] == -32700


async def test_too_large_messages_are_refused_and_the_session_goes_on(door: Door) -> None:
    async with relayed(door) as client:
        await client.begin()
        client.send("tools/call", 1, name="echo", arguments={"text": "x" * LARGEST})
        assert (await client.answer(1))["error"]["code"] == -32014
        client.send("ping", 2)
        assert (await client.answer(2))["result"] == {}


async def test_a_revoked_token_ends_the_relay(door: Door) -> None:
    token, client = await door.token(), Client()
    relay = Relay(door.url, token, client.take, client.said.append)
    running = asyncio.create_task(relay.run(client.feed()))
    await client.begin()
    client.send("ping", 1)
    await client.answer(1)
    await door.revoke(token)
    client.send("ping", 2)
    with pytest.raises(RelayError, match="no longer accepts the token"):
        await asyncio.wait_for(running, 5)
    assert (await client.answer(2))["error"]["code"] == -32012


@pytest.mark.parametrize(
    ("path", "why"),
    [("/mcp", "does not accept the token"), ("/other", "status 404")],
)
async def test_what_no_time_mends_ends_the_relay_at_once(door: Door, path: str, why: str) -> None:
    url = door.url.replace("/mcp", path)
    with pytest.raises(RelayError, match=why):
        await Relay(url, "lm_x_y", print, print).run(Client().feed())


async def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "_PATIENCE", 0.2)
    with pytest.raises(RelayError, match="no bridge answers at ws:"):
        await Relay("ws://127.0.0.1:9/mcp", "lm_x_y", print, print).run(Client().feed())


def command(door: Door, token: str) -> StdioServerParameters:
    arguments = ["-m", "letta_matrix", "mcp", "--url", door.url.replace("http", "ws")]
    return StdioServerParameters(
        command=sys.executable, args=arguments, env={"LETTA_MATRIX_TOKEN": token}
    )


async def test_the_official_client_starts_the_program(door: Door) -> None:
    before = time.monotonic()
    async with (
        stdio_client(command(door, await door.token())) as (read, write),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        assert time.monotonic() - before < 5
        called = await session.call_tool("echo", {"text": "ä\u2028\n"})
        assert called.structured_content == {"text": "ä\u2028\n"}
        assert (await session.list_prompts()).prompts


async def program(*arguments: str, stdin: bytes = b"", **env: str) -> tuple[int, bytes, str]:
    """Run `letta-matrix mcp` to its end: status, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "letta_matrix", "mcp", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **env},
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), 20)
    return process.returncode or 0, out, err.decode()


async def test_piped_requests_are_answered_before_the_end(door: Door, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{await door.token()}\n")
    opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": INITIALIZE}
    call = {"name": "echo", "arguments": {"text": "x"}}
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    lines = [opening, {"jsonrpc": "2.0", "method": "notifications/initialized"}, request]
    stdin = "\n\n".join(map(json.dumps, lines)).encode()
    status, out, err = await program("--url", door.url, "--token-file", str(token), stdin=stdin)
    assert (status, err) == (0, "")
    assert [json.loads(line)["id"] for line in out.splitlines()] == [0, 1]


async def test_faults_are_one_line(door: Door, tmp_path: Path) -> None:
    status, out, err = await program("--url", door.url, LETTA_MATRIX_TOKEN="lm_x_wrong")
    assert (status, out) == (1, b"")
    assert err.count("\n") == 1
    assert "does not accept the token" in err
    status, out, err = await program("--data", str(tmp_path))
    assert (status, out, "no stack runs in" in err) == (1, b"", True)
    status, out, err = await program("--token-file", str(tmp_path / "none"))
    assert (status, out, "cannot be read" in err) == (2, b"", True)


async def test_the_embedded_stack_tells_where_its_door_is(door: Door, tmp_path: Path) -> None:
    section = {"ws_url": door.url.replace("http", "ws"), "token": await door.token()}
    (tmp_path / "stack.json").write_text(json.dumps({"mcp": section}))
    ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    status, out, _ = await program("--data", str(tmp_path), stdin=ping)
    assert (status, json.loads(out)["id"]) == (0, 1)


async def test_the_stacks_token_goes_to_its_own_bridge_alone(door: Door, tmp_path: Path) -> None:
    section = {"ws_url": "ws://127.0.0.1:9/mcp", "token": await door.token()}
    (tmp_path / "stack.json").write_text(json.dumps({"mcp": section}))
    status, out, err = await program("--url", door.url, "--data", str(tmp_path), stdin=b"{}\n")
    assert (status, out) == (2, b"")
    assert "is not the embedded stack's: give its token in LETTA_MATRIX_TOKEN" in err


async def test_the_program_loads_little() -> None:
    loaded = "print({'mcp', 'pydantic', 'sqlalchemy', 'mautrix'} & sys.modules.keys())"
    code = f"import sys, letta_matrix.cli.main, letta_matrix.mcp.relay; {loaded}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    assert (await process.communicate())[0] == b"set()\n"
