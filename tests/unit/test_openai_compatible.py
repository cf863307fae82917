"""The OpenAI-compatible adapter against an endpoint that does as told."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.servers import free_port
from tests.unit.fake_openai_api import CUT, HANG, FakeOpenAIApi, chunk, refusal, words
from tests.waiting import eventually, settled, within

from letta_matrix.config import OpenAICompatibleRuntime
from letta_matrix.runtimes.faults import (
    AgentGone,
    CredentialsRefused,
    RateLimited,
    RuntimeBusy,
    RuntimeRefused,
    RuntimeUnavailable,
    TurnLost,
)
from letta_matrix.runtimes.openai_compatible import OpenAICompatible, endpoint
from letta_matrix.runtimes.openai_compatible.listener import server_at
from letta_matrix.runtimes.protocol import (
    AgentInfo,
    AgentRuntime,
    Image,
    ImagesDropped,
    ReasoningDelta,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnRequest,
    TurnStarted,
    TurnState,
)
from letta_matrix.stack.app_server import AppServerProcess

DONE = TurnFinished(StopReason.END_TURN)
PICTURE = Image("a.png", "image/png", b"png")


class Bench:
    """A runtime at a fake endpoint; `state` is what the turn saved, `events` what it brought so
    far, `server` names the process that listens there, "" as if it could not be seen."""

    def __init__(self, api: FakeOpenAIApi, server: str = "") -> None:
        self.api = api
        self.server = server
        self.state: TurnState | None = None
        self.events: list[TurnEvent] = []
        self.runtime = runtime_at(api.url)

    async def save(self, state: TurnState) -> None:
        self.state = json.loads(json.dumps(dict(state)))

    async def turn(self, *images: Image, message_id: str = "$1:test") -> list[TurnEvent]:
        request = TurnRequest("ada", "chat-1", message_id, "hello", images)
        self.events = []
        async for event in self.runtime.run_turn(request, self.state, self.save):
            self.events.append(event)
        return self.events

    async def restart(self) -> None:
        """As after a crash of the bridge."""
        await self.runtime.close()
        self.runtime = runtime_at(self.api.url)


def runtime_at(url: str, **settings: Any) -> OpenAICompatible:
    given = {"type": "openai_compatible", "url": url, **settings}
    return OpenAICompatible(OpenAICompatibleRuntime.model_validate(given))


def text_of(events: list[TurnEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.fixture
async def api() -> AsyncGenerator[FakeOpenAIApi]:
    async with FakeOpenAIApi() as server:
        yield server


@pytest.fixture
async def bench(api: FakeOpenAIApi) -> AsyncGenerator[Bench]:
    made = Bench(api)
    yield made
    await made.runtime.close()


@pytest.fixture
async def at_app_server(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Bench]:
    """A bench at an endpoint that shows itself as an App Server."""
    async with FakeOpenAIApi(app_server=True, port=free_port()) as server:
        made = Bench(server, "the first process")

        def server_seen(_: str) -> str:
            return made.server

        monkeypatch.setattr(endpoint, "server_at", server_seen)
        yield made
        await made.runtime.close()


async def test_every_model_is_an_agent(bench: Bench) -> None:
    typed: AgentRuntime = bench.runtime
    assert typed.name == "openai"
    assert await typed.list_agents() == [AgentInfo("ada", "ada"), AgentInfo("bob", "bob")]


async def test_odd_models_are_counted_and_passed_over(bench: Bench) -> None:
    bench.api.models = [{"id": "ada"}, {"id": 7}, "x", None, {}, {"id": "ada"}, {"id": "b\ud800"}]
    assert await bench.runtime.list_agents() == [AgentInfo("ada", "ada")]
    assert bench.runtime.counters["malformed models"] == 5


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(text="<html>hello</html>", content_type="text/html"),
        web.Response(text="{", content_type="application/json"),
        web.Response(text="[" * 50_000, content_type="application/json"),
        web.Response(text='{"data": "x"}', content_type="application/json"),
        web.Response(text="[]", content_type="application/json"),
    ],
)
async def test_a_listing_that_is_none_is_never_an_empty_one(
    bench: Bench, answer: web.Response
) -> None:
    bench.api.models = answer
    with pytest.raises(RuntimeUnavailable, match="is `url` the base URL of an OpenAI API"):
        await bench.runtime.list_agents()


@pytest.mark.parametrize(
    ("status", "fault"),
    [(401, CredentialsRefused), (404, RuntimeRefused), (503, RuntimeUnavailable)],
)
async def test_a_refused_listing(bench: Bench, status: int, fault: type[Exception]) -> None:
    bench.api.models = refusal(status)
    with pytest.raises(fault):
        await bench.runtime.list_agents()


async def test_the_key_and_nothing_of_the_environment_is_sent(
    api: FakeOpenAIApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-somebody")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody")
    headers = "Authorization: Bearer sk-of-somebody\nX-Team: somebody\nauthorization: somebody"
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", headers)
    monkeypatch.setenv("HTTP_PROXY", "http://somebody:1@127.0.0.1:1")
    for settings, expected in (({"api_key": "sk-ours"}, "Bearer sk-ours"), ({}, "Bearer none")):
        runtime = runtime_at(api.url, **settings)
        await runtime.list_agents()
        assert api.headers[-1]["authorization"] == expected
        assert "somebody" not in str(api.headers[-1])
        await runtime.close()


async def test_a_turn(bench: Bench) -> None:
    bench.api.answers = [words("Hel", "lo", reasoning_content="a greeting")]
    assert await bench.turn() == [
        TurnStarted(),
        ReasoningDelta("reasoning", "a greeting"),
        TextDelta("text", "Hel"),
        TextDelta("text", "lo"),
        DONE,
    ]
    assert bench.api.asked[0]["model"] == "ada"
    assert bench.api.asked[0]["messages"] == [{"role": "user", "content": "hello"}]
    assert bench.api.headers[-1]["x-letta-chat-key"] == "chat-1"
    assert bench.api.headers[-1]["idempotency-key"] == "$1:test"


async def test_conversations_are_keys_of_their_own(bench: Bench) -> None:
    made = [await bench.runtime.create_conversation("ada", "a room") for _ in range(3)]
    assert len(set(made)) == 3


async def test_an_event_id_that_is_no_header_is_escaped(bench: Bench) -> None:
    bench.api.answers = [words("x")]
    await bench.turn(message_id="$é\r\n:test")
    assert bench.api.headers[-1]["idempotency-key"] == "$%C3%A9%0D%0A:test"


async def test_images_go_as_data_urls(bench: Bench) -> None:
    bench.api.answers = [words("x")]
    await bench.turn(PICTURE)
    assert bench.api.asked[0]["messages"][0]["content"] == [
        {"type": "text", "text": "hello"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,cG5n"}},
    ]


async def test_refused_images_are_left_out_and_reported(bench: Bench) -> None:
    bench.api.answers = [refusal(400, "no images here"), words("x")]
    events = await bench.turn(PICTURE)
    assert ImagesDropped("no images here") in events
    assert events[-1] == DONE
    assert bench.api.asked[1]["messages"] == [{"role": "user", "content": "hello"}]


async def test_images_that_a_proxy_finds_too_large_are_left_out(bench: Bench) -> None:
    page = web.Response(status=413, text="<h1>413</h1>", content_type="text/html")
    bench.api.answers = [page, words("x")]
    events = await bench.turn(PICTURE)
    assert ImagesDropped("the message is too large for it, or for a proxy before it") in events
    assert events[-1] == DONE


async def test_an_app_server_gets_no_images_for_it_would_drop_them_in_silence(
    at_app_server: Bench,
) -> None:
    at_app_server.api.answers = [words("x")]
    events = await at_app_server.turn(PICTURE)
    assert any(isinstance(event, ImagesDropped) for event in events)
    assert at_app_server.api.asked[0]["messages"] == [{"role": "user", "content": "hello"}]
    assert not at_app_server.runtime.capabilities.images


@pytest.mark.parametrize(
    ("answer", "fault", "said"),
    [
        (refusal(400, "too long"), RuntimeRefused, "too long"),
        (refusal(401, "bad key sk-secret"), CredentialsRefused, "api_key"),
        (refusal(403), CredentialsRefused, "api_key"),
        (refusal(404, "no ada", code="model_not_found"), AgentGone, "no ada"),
        (refusal(404, "no page"), RuntimeRefused, "no page"),
        (refusal(409, "still at it"), RuntimeBusy, "still at it"),
        (refusal(429, "slowly"), RateLimited, "slowly"),
        (refusal(429, "pay", code="insufficient_quota"), RuntimeRefused, "pay"),
        (refusal(502), RuntimeUnavailable, "HTTP 502"),
        (refusal(503), RuntimeUnavailable, "HTTP 503"),
    ],
)
async def test_http_errors(
    bench: Bench, answer: web.Response, fault: type[Exception], said: str
) -> None:
    bench.api.answers = [answer]
    with pytest.raises(fault, match=said) as caught:
        await bench.turn()
    assert type(caught.value) is fault
    assert "sk-secret" not in str(caught.value)
    assert len(bench.api.asked) == 1


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("soon", 0.0), ("-1", 0.0), ("31536000", 300.0)]
)
async def test_a_rate_limit_says_how_long(bench: Bench, header: str, seconds: float) -> None:
    bench.api.answers = [refusal(429, **{"Retry-After": header})]
    with pytest.raises(RateLimited) as caught:
        await bench.turn()
    assert caught.value.retry_after == seconds


async def test_a_message_not_taken_can_be_asked_again(bench: Bench) -> None:
    bench.api.answers = [refusal(409), refusal(429), refusal(503), words("yes")]
    for _ in range(3):
        with pytest.raises(RuntimeUnavailable):
            await bench.turn()
        await bench.restart()
    assert text_of(await bench.turn()) == "yes"


async def test_an_endpoint_that_fails_is_asked_once(bench: Bench) -> None:
    bench.api.answers = [refusal(500, "the model fell over")]
    failed = TurnFinished(StopReason.ERROR, "the model fell over")
    assert (await bench.turn())[-1] == failed
    await bench.restart()
    assert (await bench.turn())[-1] == failed
    assert len(bench.api.asked) == 1


async def test_an_error_in_the_stream_ends_the_turn(bench: Bench) -> None:
    error = {"error": {"message": "out of tokens", "type": "server_error"}}
    bench.api.answers = [[chunk(content="I was "), error, "[DONE]"]]
    events = await bench.turn()
    assert text_of(events) == "I was "
    assert events[-1] == TurnFinished(StopReason.ERROR, "out of tokens")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ([chunk(content="a"), "{nonsense", "[DONE]"], "unreadable"),
        ([chunk(content="a"), "[" * 50_000, "[DONE]"], "unreadable"),
        ([chunk(content="a"), "[DONE]"], "broke off"),
        ([], "broke off"),
        ([chunk(content="a"), chunk("content_filter"), "[DONE]"], "content filter"),
        (web.json_response({"choices": []}), "broke off"),
    ],
)
async def test_an_answer_without_an_end_is_an_error(bench: Bench, answer: Any, error: str) -> None:
    bench.api.answers = [answer]
    finished = (await bench.turn())[-1]
    assert isinstance(finished, TurnFinished)
    assert finished.stop_reason is StopReason.ERROR
    assert error in finished.error
    assert len(bench.api.asked) == 1


async def test_odd_chunks_are_counted_and_passed_over(bench: Bench) -> None:
    odd = ["7", '"x"', "[]", '{"choices": 7}', '{"choices": [7]}', '{"choices": []}', "{}"]
    strange = [{"choices": [{"delta": {"content": 7, "tool_calls": "x"}, "finish_reason": 3}]}]
    bench.api.answers = [[*odd, *strange, *words("fine")]]
    events = await bench.turn()
    assert text_of(events) == "fine"
    assert events[-1] == DONE
    assert bench.runtime.counters["malformed chunk"] == 5


async def test_after_its_end_a_turn_is_told_again_from_what_was_saved(bench: Bench) -> None:
    bench.api.answers = [words("once ", "only")]
    await bench.turn()
    await bench.restart()
    assert await bench.turn() == [TurnStarted(), TextDelta("text", "once only"), DONE]
    assert len(bench.api.asked) == 1


async def test_a_broken_stream_is_lost_where_nobody_keeps_turns(bench: Bench) -> None:
    bench.api.answers = [[chunk(content="I was "), CUT]]
    with pytest.raises(RuntimeUnavailable):
        await bench.turn()
    assert text_of(bench.events) == "I was "
    with pytest.raises(TurnLost) as lost:
        await bench.turn()
    assert lost.value.tools_started
    assert len(bench.api.asked) == 1
    assert not bench.runtime.capabilities.resume


async def test_a_broken_stream_is_joined_at_an_app_server(at_app_server: Bench) -> None:
    bench = at_app_server
    bench.api.answers = [[chunk(content="I was "), CUT], words("I was here")]
    with pytest.raises(RuntimeUnavailable):
        await bench.turn()
    await bench.restart()
    assert text_of(await bench.turn()) == "I was here"
    assert bench.api.headers[-1]["idempotency-key"] == "$1:test"
    assert bench.runtime.capabilities.resume


@pytest.mark.parametrize("unseen", [False, True])
async def test_a_turn_is_lost_with_the_process_of_its_app_server(
    at_app_server: Bench, *, unseen: bool
) -> None:
    bench = at_app_server
    bench.server = "" if unseen else "the first process"
    bench.api.answers = [[chunk(content="I was "), CUT]]
    with pytest.raises(RuntimeUnavailable):
        await bench.turn()
    await bench.api.__aexit__()
    with pytest.raises(RuntimeUnavailable, match="cannot be reached"):
        await bench.runtime.list_agents()
    bench.server = "" if unseen else "the second process"
    await bench.api.__aenter__()
    with pytest.raises(TurnLost) as lost:
        await bench.turn()
    assert lost.value.tools_started
    assert len(bench.api.asked) == 1


@pytest.mark.parametrize(("before", "after"), [("one", "another"), ("one", ""), ("", "")])
async def test_a_restarted_bridge_joins_no_turn_unless_it_sees_the_same_app_server(
    at_app_server: Bench, before: str, after: str
) -> None:
    bench = at_app_server
    bench.server = before
    bench.api.answers = [[chunk(content="I was "), CUT], words("again")]
    with pytest.raises(RuntimeUnavailable):
        await bench.turn()
    await bench.restart()
    bench.server = after
    with pytest.raises(TurnLost) as lost:
        await bench.turn()
    assert lost.value.tools_started
    assert len(bench.api.asked) == 1


async def test_an_unseen_app_server_is_trusted_while_the_bridge_lives(
    at_app_server: Bench,
) -> None:
    bench = at_app_server
    bench.server = ""
    bench.api.answers = [[chunk(content="I was "), CUT], words("I was here")]
    with pytest.raises(RuntimeUnavailable):
        await bench.turn()
    assert text_of(await bench.turn()) == "I was here"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (refusal(401), RuntimeUnavailable),
        (refusal(403), RuntimeUnavailable),
        (refusal(409), RuntimeUnavailable),
        (refusal(400), TurnLost),
        (refusal(404, code="model_not_found"), TurnLost),
    ],
)
async def test_a_turn_followed_again_is_not_refused(
    at_app_server: Bench, answer: web.Response, fault: type[Exception]
) -> None:
    """What was taken once is no longer the business of a refusal."""
    bench = at_app_server
    bench.api.answers = [[chunk(content="I was "), CUT], answer]
    with pytest.raises(RuntimeUnavailable):
        await bench.turn()
    with pytest.raises(fault):
        await bench.turn()
    assert bench.state is not None
    assert bench.state["asked"]


@pytest.mark.parametrize("first", [302, 401, 502])
async def test_an_error_in_passing_does_not_decide_what_the_endpoint_is(
    at_app_server: Bench, first: int
) -> None:
    bench = at_app_server
    bench.api.info_answers = [web.Response(status=first)]
    await bench.runtime.list_agents()
    assert not bench.runtime.capabilities.resume
    await bench.runtime.list_agents()
    assert bench.runtime.capabilities.resume


async def test_a_redirect_is_not_followed(bench: Bench) -> None:
    async with FakeOpenAIApi() as elsewhere:
        to = {"Location": f"{elsewhere.url}/chat/completions"}
        bench.api.answers = [web.Response(status=307, headers=to), words("here")]
        with pytest.raises(RuntimeUnavailable, match=r"redirect.*set `url` to where it leads"):
            await bench.turn()
        assert not elsewhere.asked
    assert text_of(await bench.turn()) == "here"


@pytest.mark.parametrize("long", [False, True])
async def test_a_key_that_comes_back_in_an_error_is_not_told(
    api: FakeOpenAIApi, *, long: bool
) -> None:
    key = "sk-" + "s3cret" * 10
    bench = Bench(api)
    bench.runtime = runtime_at(api.url, api_key=key)
    words_of_it = f"bad header {'x' * 260 if long else ''} Authorization: Bearer {key}"
    error = {"error": {"message": words_of_it}}
    api.answers = [refusal(400, words_of_it), [chunk(content="a"), error, "[DONE]"]]
    with pytest.raises(RuntimeRefused) as refused:
        await bench.turn()
    bench.state = None
    finished = (await bench.turn())[-1]
    assert isinstance(finished, TurnFinished)
    for told in (str(refused.value), finished.error):
        assert "bad header" in told
        assert "s3c" not in told
    await bench.runtime.close()


async def test_half_a_surrogate_pair_is_text_that_can_be_stored(bench: Bench) -> None:
    bench.api.answers = [words("a\ud83d", "\U0001f600")]
    assert text_of(await bench.turn()) == "a\ufffd\U0001f600"


LISTENING = """
import os, socket, sys
taken = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listens", flush=True)
if sys.stdin.readline() and os.fork():
    print("starts a program", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def listening(
    port: int, *arguments: str
) -> AsyncGenerator[Callable[[], Coroutine[Any, Any, None]]]:
    """A process that listens at a port, started with `arguments`; what is yielded makes it fork
    as a server does that starts a program."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LISTENING, str(port), *arguments, stdin=pipe, stdout=pipe
    )
    assert process.stdout is not None
    assert process.stdin is not None
    written, read = process.stdin, process.stdout
    await read.readline()

    async def fork() -> None:
        written.write(b"fork\n")
        assert await read.readline()

    try:
        yield fork
    finally:
        written.close()
    await process.communicate()


async def test_an_app_server_is_known_by_its_process() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    async with listening(port, "--openai-api"):
        first = server_at(url)
        assert first
        assert server_at(f"http://localhost:{port}/v1") == first
    assert server_at(url) == ""
    async with listening(port, "--openai-api"):
        assert server_at(url) not in ("", first)
    async with listening(port):
        assert server_at(url) == "", "it may be a proxy, behind which anything can restart"


async def test_an_app_server_that_starts_a_program_is_the_same() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    async with listening(port, "--openai-api") as fork:
        first = server_at(url)
        await fork()
        assert server_at(url) == first != ""


async def test_a_turn_is_lost_when_a_proxy_says_that_the_app_server_was_gone(
    at_app_server: Bench,
) -> None:
    bench = at_app_server
    bench.server = ""
    bench.api.answers = [[chunk(content="I was "), CUT], refusal(502)]
    for _ in range(2):
        with pytest.raises(RuntimeUnavailable):
            await bench.turn()
    with pytest.raises(TurnLost):
        await bench.turn()
    assert len(bench.api.asked) == 2


async def test_a_generator_that_is_closed_lets_go_of_its_stream(bench: Bench) -> None:
    bench.api.answers = [[chunk(content="I was "), HANG]]
    request = TurnRequest("ada", "chat-1", "$1:test", "hello")
    events = bench.runtime.run_turn(request, None, bench.save)
    while not isinstance(await anext(events), TextDelta):
        pass
    await events.aclose()
    await within(bench.api.gone.wait())


async def test_an_unreachable_endpoint_has_taken_nothing(at_app_server: Bench) -> None:
    bench = at_app_server
    await bench.runtime.list_agents()
    await bench.api.__aexit__()
    with pytest.raises(RuntimeUnavailable, match="cannot be reached"):
        await bench.turn()
    assert bench.state == {"asked": False}
    bench.api.answers = [words("back")]
    await bench.api.__aenter__()
    assert text_of(await bench.turn()) == "back"


async def test_a_cancelled_turn_keeps_what_was_said(bench: Bench) -> None:
    bench.api.answers = [[chunk(content="I was "), HANG]]
    turn = asyncio.create_task(bench.turn())
    await eventually(lambda: text_of(bench.events))
    await bench.runtime.cancel_turn("ada", "chat-1")
    assert (await turn)[-2:] == [
        TextDelta("text", "I was "),
        TurnFinished(StopReason.CANCELLED),
    ]
    await within(bench.api.gone.wait())
    await bench.restart()
    assert (await bench.turn())[-1] == TurnFinished(StopReason.CANCELLED)
    assert len(bench.api.asked) == 1


async def test_a_turn_cancelled_before_the_answer_begins_ends(bench: Bench) -> None:
    bench.api.answers = [[HANG]]
    turn = asyncio.create_task(bench.turn())
    await eventually(lambda: bench.api.asked)
    await bench.runtime.cancel_turn("ada", "another chat")
    await settled(turn)
    await bench.runtime.cancel_turn("ada", "chat-1")
    assert (await turn)[-1] == TurnFinished(StopReason.CANCELLED)


async def test_closing_ends_no_turn(at_app_server: Bench) -> None:
    bench = at_app_server
    bench.api.answers = [[chunk(content="I was "), HANG], words("I was here")]
    turn = asyncio.create_task(bench.turn())
    await eventually(lambda: text_of(bench.events))
    await bench.runtime.close()
    with pytest.raises(RuntimeUnavailable):
        await turn
    await bench.restart()
    assert text_of(await bench.turn()) == "I was here"


async def test_what_the_api_cannot_do_is_refused(bench: Bench) -> None:
    runtime, request = bench.runtime, TurnRequest("ada", "chat-1", "$1", "x")
    for attempt in (
        runtime.create_agent("x"),
        runtime.rename_agent("ada", "x"),
        runtime.delete_agent("ada"),
        runtime.list_models(),
        runtime.set_model("ada", "x"),
        runtime.answer_approval(request, "a", allow=True),
    ):
        with pytest.raises(RuntimeRefused, match="its API has no request for that"):
            await attempt
    start = await runtime.said_since("ada", None)
    assert (await runtime.said_since("ada", start.cursor)).speeches == ()


def test_an_app_server_of_ours_has_this_api_when_asked_alone(tmp_path: Path) -> None:
    """Tools run through it with no approval."""
    assert "--openai-api" not in AppServerProcess(tmp_path, 4500).command.argv
    assert "--openai-api" in AppServerProcess(tmp_path, 4500, openai_api=True).command.argv
