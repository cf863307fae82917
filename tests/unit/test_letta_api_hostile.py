"""A Letta API that answers nonsense, repeats our key, or leads elsewhere."""

import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tests.answering import answering
from tests.fake_letta_api import FakeLettaApi
from tests.unit.letta_api_bridge import Bridge, adapter, end_of

from letta_matrix.common import sse
from letta_matrix.common.json_fields import parse_json
from letta_matrix.common.loopback import is_loopback
from letta_matrix.config.runtimes import LettaApiRuntime
from letta_matrix.runtimes.error_lines import error_line, retry_after, scrubbed
from letta_matrix.runtimes.faults import RuntimeRefused, RuntimeUnavailable
from letta_matrix.runtimes.letta_api import LettaApi
from letta_matrix.runtimes.letta_api.calls import Call
from letta_matrix.runtimes.letta_api.reader import TurnReader
from letta_matrix.runtimes.letta_api.sse import StreamEvent, read_events
from letta_matrix.runtimes.protocol import StopReason, TurnEvent, TurnRequest

LIST = r"GET /v1/agents/"
SEND = r"POST /v1/conversations/.*/messages"
KEY = "letta-key"


@pytest.fixture
async def server() -> AsyncGenerator[FakeLettaApi]:
    async with FakeLettaApi(key=KEY) as fake:
        yield fake


@pytest.fixture
async def bridge(server: FakeLettaApi) -> AsyncGenerator[Bridge]:
    runtime = adapter(server)
    agent_id = server.add_agent("Alpha")
    made = Bridge(server, runtime, agent_id, await runtime.create_conversation(agent_id, "a room"))
    yield made
    await made.runtime.close()


@asynccontextmanager
async def runtime_at(url: str, key: str | None = KEY) -> AsyncGenerator[LettaApi]:
    settings = {"type": "letta_api", "url": url, "api_key": key}
    runtime = LettaApi(LettaApiRuntime.model_validate(settings))
    yield runtime
    await runtime.close()


@pytest.mark.parametrize("key", [KEY, None])
async def test_no_header_of_the_environment_is_sent(
    monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    headers = "Authorization: Bearer sk-of-another-server\nauthorization: sk-too\nX-Env: leak"
    monkeypatch.setenv("LETTA_CUSTOM_HEADERS", headers)
    monkeypatch.setenv("LETTA_API_KEY", "sk-of-another-server")
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.extend(f"{name}: {value}" for name, value in request.headers.items())
        return web.json_response([])

    async with answering(answer) as url, runtime_at(url, key) as runtime:
        assert await runtime.list_agents() == []
    given = [line for line in seen if line.startswith(("Authorization", "authorization", "X-Env"))]
    assert given == ([f"Authorization: Bearer {key}"] if key else [])


async def test_a_redirect_is_not_followed_with_the_prompt() -> None:
    elsewhere: list[str] = []

    async def other(request: web.Request) -> web.Response:
        elsewhere.append(await request.text())
        return web.json_response([])

    async with answering(other) as target:

        async def redirect(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"{target}{request.path_qs}"})

        async def save(_: object) -> None:
            pass

        request = TurnRequest("agent-1", "conv-1", "$one", "secret words")
        async with answering(redirect) as url, runtime_at(url) as runtime:
            with pytest.raises(RuntimeUnavailable, match=r"redirect.*set `url` to where"):
                [event async for event in runtime.run_turn(request, None, save)]
            with pytest.raises(RuntimeUnavailable, match="redirect"):
                await runtime.list_agents()
    assert elsewhere == []


async def test_a_server_on_this_machine_is_asked_without_a_proxy(
    server: FakeLettaApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxied: list[str] = []

    async def proxy(request: web.Request) -> web.Response:
        proxied.append(str(request.headers.get("Authorization")))
        return web.json_response([])

    async with answering(proxy) as url:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        server.add_agent("Alpha")
        async with runtime_at(server.url) as runtime:
            assert len(await runtime.list_agents()) == 1
    assert proxied == []


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("letta.localhost", True),
        ("127.0.0.3", True),
        ("::1", True),
        ("api.letta.com", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_this_machine_is_known_by_its_names(host: str, here: bool) -> None:
    assert is_loopback(host) is here


async def test_nesting_without_end_is_nonsense() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="[" * 100_000, content_type="application/json")

    async with answering(answer) as url, runtime_at(url) as runtime:
        with pytest.raises(RuntimeUnavailable, match="makes no sense"):
            await runtime.list_agents()


async def test_a_page_with_odd_items_is_no_last_page(bridge: Bridge) -> None:
    for number in range(70):
        bridge.server.add_agent(f"Agent {number}")
    odd = list(bridge.server.agents.values())[:49]
    bridge.server.fail(LIST, 200, body=json.dumps([*odd[:30], 5, *odd[30:]]))
    bridge.server.fail(LIST, 200, body=json.dumps([*odd[:30], 5, *odd[30:]]))
    agents = await bridge.runtime.list_agents()
    assert len(agents) == 71
    assert bridge.runtime.counters["malformed list item"] == 2


async def test_a_full_page_of_nonsense_is_no_listing(bridge: Bridge) -> None:
    bridge.server.fail(LIST, 200, times=2, body=json.dumps([5] * 50))
    with pytest.raises(RuntimeUnavailable):
        await bridge.runtime.list_agents()


async def test_a_key_repeated_at_the_cut_of_a_reason_is_not_told(bridge: Bridge) -> None:
    bridge.server.fail(SEND, 400, body=json.dumps({"detail": "x" * 295 + KEY}))
    with pytest.raises(RuntimeRefused) as refused:
        await bridge.run(bridge.request("hello"))
    assert "lett" not in str(refused.value).replace("Letta API 'letta'", "")


async def test_a_key_repeated_in_a_stream_is_not_told(bridge: Bridge) -> None:
    body = (
        'data: {"message_type": "ping", "run_id": "run-1"}\n\n'
        'data: {"message_type": "stop_reason", "stop_reason": "error"}\n\n'
        f'event: error\ndata: {{"message": "bad header: Bearer {KEY}"}}\n\n'
    )
    bridge.server.fail(SEND, 200, body=body)
    end = end_of(await bridge.run(bridge.request("hello")))
    assert (end.stop_reason, end.error) == (StopReason.ERROR, "bad header: Bearer ***")


async def test_a_key_repeated_in_what_a_run_left_is_not_told(bridge: Bridge) -> None:
    request = bridge.request("error:500")
    bridge.server.cut_after = 0
    with pytest.raises(RuntimeUnavailable):
        await bridge.run(request)
    run = next(iter(bridge.server.runs.values()))
    run.error = {"message": f"no access with {KEY}"}
    run.chunks[:] = ['data: {"message_type": "ping", "run_id": "' + run.id + '"}\n\n']
    bridge.server.without_redis = True
    bridge.server.forget_otids()
    assert end_of(await bridge.run(request)).error == "no access with ***"


async def test_half_a_surrogate_does_not_come_in() -> None:
    async def source() -> AsyncGenerator[bytes]:
        yield b'data: {"id": "\\ud800 x", "content": "\\ud83d\\ude00"}\n\n'

    events = [event async for event in read_events(source(), Counter())]
    assert events == [StreamEvent("", {"id": "\ufffd x", "content": "\U0001f600"})]


async def test_an_event_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 100_000)
    given: Counter[str] = Counter()

    async def source(chunk: bytes) -> AsyncGenerator[bytes]:
        for _ in range(1000):
            given[chunk[:5].decode()] += len(chunk)
            yield chunk

    for chunk in (b"data: " + b"x" * 1000 + b"\n", b"data:\n" * 100, b"xxxxx" * 200):
        with pytest.raises(RuntimeUnavailable, match="without end"):
            [event async for event in read_events(source(chunk), Counter())]
    assert all(size < 150_000 for size in given.values())


async def test_a_long_line_in_small_pieces_is_read_in_time() -> None:
    """It would take for ever if each piece cost as much as the line so far."""

    async def source() -> AsyncGenerator[bytes]:
        yield b'data: {"content": "'
        for _ in range(400_000):
            yield b"x" * 40
        yield b'"}\n\n'

    events = [event async for event in read_events(source(), Counter())]
    assert len(events[0].data["content"]) == 16_000_000


def test_long_arguments_in_small_pieces_are_read_in_time() -> None:
    """As above."""
    reader = TurnReader(Counter())
    events: list[TurnEvent] = []
    for place, piece in enumerate(['{"a": "', *["}x\\n"] * 150_000, '"}']):
        call = {"tool_call_id": "c", "name": "t", "arguments": piece}
        message = {"message_type": "tool_call_message", "seq_id": place + 1, "tool_call": call}
        events = list(reader.read(message))
    assert len(events) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ('{"a": {"b": "}\\"{\\\\"}, "c": ["{"]}', True),
        (' {"a": 1} ', True),
        ("{}", True),
        ('{"a": 1', False),
        ("rm -rf {x}", False),
        ('"{}"', False),
        ("}", False),
        ("", False),
    ],
)
def test_arguments_are_whole_when_their_object_closes(text: str, whole: bool, size: int) -> None:
    call = Call("c")
    for start in range(0, len(text), size):
        call.add(text[start : start + size])
    assert call.whole is whole
    assert call.arguments == text


def test_secrets_are_taken_out_before_a_line_is_cut() -> None:
    line = error_line(
        json.dumps({"error": {"message": "x" * 295 + "sk-secret\nmore"}}), "sk-secret"
    )
    assert line == "x" * 295 + "***"
    assert scrubbed("a b c", "", "b") == "a *** c"


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("31536000", 300), ("-1", 0), ("nan", 0), ("Mon", 0)]
)
def test_a_pause_has_an_end(header: str, seconds: float) -> None:
    assert retry_after({"retry-after": header}) == seconds
    assert retry_after({}) == 0


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "1" * 5000, '{"a"', "", b"\xff\xfe", b"\xed\xa0\x80"]
)
def test_what_is_no_json_is_nothing(text: str | bytes) -> None:
    assert parse_json(text) is None
