"""`letta-matrix mcp`: stdio, relayed to the bridge's WebSocket."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.builders import message
from tests.mcp_socket import INITIALIZE, Json
from tests.servers import free_port
from tests.unit.mcp_door import MINE, Door, door_on
from tests.waiting import Clock, eventually, settled, within
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from letta_matrix.cli import mcp_relay as relays
from letta_matrix.cli.mcp_relay import Relay, RelayError
from letta_matrix.common.mcp_frames import LARGEST
from letta_matrix.store.database import Database

MESSAGES = "matrix://rooms/%21mine%3Atest/messages"


@pytest.fixture
async def door(tmp_path: Path, database: Database) -> AsyncGenerator[Door]:
    async with door_on(tmp_path, database) as opened:
        yield opened


@dataclass
class Client:
    """A client at the relay's lines. `failed` are the relay's tries to connect that did, `own`
    the answers that it keeps for itself."""

    failed: int = 0
    own: int = 0
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

    async def answer(self, number: int | str) -> Json:
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


class WatchedRelay(Relay):
    """A relay that tells its client what it is at."""

    def __init__(self, url: str, token: str, client: Client) -> None:
        super().__init__(url, token, client.take, client.said.append)
        self._client = client
        hears = self._session.hears

        def heard(text: str) -> bool:
            is_for_client = hears(text)
            client.own += not is_for_client
            return is_for_client

        self._session.hears = heard

    def _judge(self, error: Exception) -> Exception | None:
        self._client.failed += 1
        return super()._judge(error)


@asynccontextmanager
async def relayed(door: Door, token: str = "") -> AsyncGenerator[Client]:
    client = Client()
    relay = WatchedRelay(door.url, token or await door.token(), client)
    running = asyncio.create_task(relay.run(client.feed()))
    yield client
    client.lines.put_nowait(None)
    await within(running)


async def test_a_session_outlives_the_bridge(door: Door, clock: Clock) -> None:
    await door.sockets.close()
    await door.renew(port := free_port())
    async with relayed(door) as client:
        await client.begin()
        client.send("resources/subscribe", 1, uri=MESSAGES)
        assert "result" in await client.answer(1)
        client.send("tools/call", 2, name="wait", arguments={})
        await eventually(lambda: door.fake.waiting)
        clock.stop()
        await within(door.sockets.close())
        error = (await client.answer(2))["error"]
        assert error["code"] == -32000
        assert "same transaction_id" in error["message"] or error["message"] == "Connection closed"

        client.send("tools/call", 3, name="echo", arguments={"text": "back"})
        await eventually(lambda: client.failed)
        await door.renew(port)
        clock.advance(relays._PAUSES[0])
        assert (await client.answer(3))["result"]["structuredContent"] == {"text": "back"}
        assert client.said == ["the bridge is away; connecting again", "the bridge is back"]
        # The handshake and the subscription, once more.
        await eventually(lambda: client.own == 2)
        door.toolbox.event_bus.publish(message(room_id=MINE))
        await eventually(lambda: client.got)
        assert [one["params"]["uri"] for one in client.got] == [MESSAGES]


async def test_requests_are_refused_while_the_bridge_is_away_for_long(
    door: Door, clock: Clock
) -> None:
    async with relayed(door) as client:
        await client.begin()
        clock.stop()
        await within(door.sockets.close())
        await eventually(lambda: client.failed)
        client.send("ping", 1)
        clock.advance(relays._PATIENCE - 0.1)
        await settled()
        assert client.got == []
        clock.advance(0.1)
        client.send("ping", "two")
        for number in (1, "two"):
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


async def test_a_connection_that_is_lost_again_is_waited_for(clock: Clock) -> None:
    clock.stop()
    relay = Relay("", "", print, print)
    relay._away_since = clock.now()
    waiting = asyncio.create_task(relay._is_there())
    await settled(waiting)
    for _ in range(2):
        relay._connected.set()
        relay._connected.clear()
        await settled(waiting)
    relay._connected.set()
    assert await within(waiting)
    relay._connected.clear()
    clock.advance(relays._PATIENCE)
    assert not await within(relay._is_there())


async def test_a_connection_that_breaks_at_once_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, closed = list[str](), list[int]()

    class Socket:
        close_code = 1006

        def __init__(self, number: int) -> None:
            self.number = number

        async def send(self, text: str) -> None:
            if self.number == 0:
                raise ConnectionClosedError(None, None)
            sent.append(text)

        async def __aenter__(self) -> "Socket":
            return self

        async def __aexit__(self, *_: object) -> None:
            closed.append(self.number)

        async def __aiter__(self) -> AsyncGenerator[str]:
            await asyncio.Event().wait()
            yield ""

    sockets = iter([Socket(0), Socket(1)])

    async def dial(_: object) -> Any:
        return next(sockets)

    monkeypatch.setattr(connect, "connect", dial)
    relay = Relay("ws://127.0.0.1/mcp", "", print, print)
    opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": INITIALIZE}
    relay._session.says(opening, json.dumps(opening))
    running = asyncio.create_task(relay.run(Client().feed()))
    await within(relay._connected.wait())
    connected: Any = relay._socket
    assert (connected.number, closed, len(sent)) == (1, [0], 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


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
        await within(running)
    assert (await client.answer(2))["error"]["code"] == -32012
    # What ends it is all that is said.
    assert client.said == []


@pytest.mark.parametrize(
    ("path", "why"),
    [("/mcp", "does not accept the token"), ("/other", "status 404")],
)
async def test_what_no_time_mends_ends_the_relay_at_once(door: Door, path: str, why: str) -> None:
    url = door.url.replace("/mcp", path)
    with pytest.raises(RelayError, match=why):
        await Relay(url, "lm_x_y", print, print).run(Client().feed())


async def test_nobody_there(clock: Clock) -> None:
    relay = Relay(f"ws://127.0.0.1:{free_port()}/mcp", "lm_x_y", print, print)
    running = asyncio.create_task(relay.run(Client().feed()))
    await clock.until(running.done)
    with pytest.raises(RelayError, match="no bridge answers at ws:"):
        await running


async def test_the_last_answers_are_waited_for_a_moment(door: Door, clock: Clock) -> None:
    for is_answered in (True, False):
        client = Client()
        relay = WatchedRelay(door.url, await door.token(), client)
        running = asyncio.create_task(relay.run(client.feed()))
        await client.begin()
        clock.stop()
        client.send("tools/call", 1, name="wait", arguments={})
        client.lines.put_nowait(None)
        await eventually(lambda: door.fake.waiting)
        clock.advance(relays._FAREWELL - 0.1)
        await settled(running)
        if is_answered:
            door.fake.go.set()
            await client.answer(1)
            door.fake.go.clear()
        clock.advance(0.1)
        await within(running)
        clock.go()
        assert client.got == []
        await eventually(lambda: not door.fake.waiting)
