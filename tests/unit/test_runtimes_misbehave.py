"""What answers in a runtime's place is no answer of it: what was asked waits for the runtime."""

from collections.abc import AsyncGenerator

import pytest
from aiohttp import web
from tests.fake_letta_api import FakeLettaApi
from tests.unit.fake_openai_api import FakeOpenAIApi, words
from tests.unit.letta_api_bridge import Bridge, adapter, end_of

from letta_matrix.config import OpenAICompatibleRuntime
from letta_matrix.runtimes.faults import (
    RateLimited,
    RuntimeRefused,
    RuntimeUnavailable,
)
from letta_matrix.runtimes.openai_compatible import OpenAICompatible
from letta_matrix.runtimes.protocol import (
    StopReason,
    TextDelta,
    TurnFinished,
    TurnRequest,
    TurnState,
)

PAGE = "<!doctype html><h1>Back soon</h1>"
PAGES = [
    *((status, PAGE) for status in (200, 400, 401, 403, 404, 409, 418, 500, 502, 503, 521)),
    *((status, "") for status in (405, 422)),
    (404, "404 page not found"),
]
"""Of a proxy, or of whoever else stands there."""


@pytest.fixture
async def letta() -> AsyncGenerator[Bridge]:
    async with FakeLettaApi(key="letta-key") as server:
        runtime = adapter(server)
        agent_id = server.add_agent("Alpha")
        made = await runtime.create_conversation(agent_id, "a room")
        yield Bridge(server, runtime, agent_id, made)
        await runtime.close()


@pytest.mark.parametrize(("status", "body"), PAGES)
async def test_a_letta_api_behind_pages_is_asked_once_and_answers(
    letta: Bridge, status: int, body: str
) -> None:
    letta.server.fail("POST /v1/conversations/.*/messages", status, body=body)
    letta.server.fail("GET .*", status, body=body)
    request = letta.request("hello")
    for _ in range(2):
        with pytest.raises(RuntimeUnavailable):
            await letta.run(request)
    assert end_of(await letta.run(request)).stop_reason is StopReason.END_TURN
    assert len(letta.server.runs) == 1


@pytest.mark.parametrize(("status", "body"), PAGES)
async def test_a_page_says_nothing_about_agents(letta: Bridge, status: int, body: str) -> None:
    asked = [
        letta.runtime.list_agents,
        lambda: letta.runtime.rename_agent(letta.agent_id, "Beta"),
        lambda: letta.runtime.create_conversation(letta.agent_id, "another"),
        lambda: letta.runtime.delete_agent(letta.agent_id),
        letta.runtime.list_models,
    ]
    for ask in asked:
        letta.server.fail(".*", status, body=body)
        with pytest.raises(RuntimeUnavailable):
            await ask()
    assert len(await letta.runtime.list_agents()) == 1


async def test_a_page_that_asks_for_patience_is_given_it(letta: Bridge) -> None:
    letta.server.fail("GET /v1/agents/", 429, body=PAGE, retry_after="7")
    with pytest.raises(RateLimited) as raised:
        await letta.runtime.list_agents()
    assert raised.value.retry_after == 7.0


class Asked:
    """A turn at an OpenAI-compatible endpoint, as often as it takes."""

    def __init__(self, api: FakeOpenAIApi) -> None:
        self.api = api
        settings = {"type": "openai_compatible", "url": api.url}
        self.runtime = OpenAICompatible(OpenAICompatibleRuntime.model_validate(settings))
        self.state: TurnState | None = None

    async def _save(self, state: TurnState) -> None:
        self.state = state

    async def turn(self) -> str:
        request = TurnRequest("ada", "chat-1", "$1:test", "hello")
        events = [event async for event in self.runtime.run_turn(request, self.state, self._save)]
        assert events[-1] == TurnFinished(StopReason.END_TURN)
        return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.fixture
async def endpoint() -> AsyncGenerator[Asked]:
    async with FakeOpenAIApi() as api:
        made = Asked(api)
        yield made
        await made.runtime.close()


def page(status: int, body: str) -> web.Response:
    kind = "text/html" if "<" in body else "text/plain"
    return web.Response(status=status, text=body, content_type=kind)


@pytest.mark.parametrize(
    ("status", "body"), [one for one in PAGES if one[0] < 500 or one[0] == 503]
)
async def test_an_endpoint_behind_pages_is_asked_again(
    endpoint: Asked, status: int, body: str
) -> None:
    endpoint.api.answers = [page(status, body), page(status, body), words("yes")]
    for _ in range(2):
        with pytest.raises(RuntimeUnavailable, match="is not there"):
            await endpoint.turn()
    assert await endpoint.turn() == "yes"


@pytest.mark.parametrize(("status", "body"), [(413, PAGE), (413, ""), (414, PAGE), (431, PAGE)])
async def test_what_a_proxy_finds_too_large_is_refused(
    letta: Bridge, endpoint: Asked, status: int, body: str
) -> None:
    """nginx passes on 1 MB, unless it is told otherwise; tried again, it is as large."""
    letta.server.fail("POST /v1/conversations/.*/messages", status, body=body)
    with pytest.raises(RuntimeRefused, match="too large"):
        await letta.run(letta.request("hello"))
    endpoint.api.answers = [page(status, body)]
    with pytest.raises(RuntimeRefused, match="too large"):
        await endpoint.turn()


async def test_a_page_does_not_decide_what_an_endpoint_is() -> None:
    async with FakeOpenAIApi(app_server=True) as api:
        api.info_answers = [page(200, PAGE)]
        asked = Asked(api)
        await asked.runtime.list_agents()
        assert asked.runtime.capabilities.images
        await asked.runtime.list_agents()
        assert not asked.runtime.capabilities.images
        await asked.runtime.close()
