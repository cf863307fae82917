"""What programs do with conversations, models, approvals and other networks."""

from collections.abc import AsyncGenerator

import pytest
from tests.builders import asked_approval
from tests.portal_kit import PORTAL, opened
from tests.stage import Stage
from tests.unit.api_stage import Api, api_on, problem

from letta_matrix.access.principal import TOOL_SCOPES
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import Capabilities
from letta_matrix.store.places import Place

AGENT = "/api/v1/agents/agent-1"
HERE = Place("agent-1", "!1:test")


@pytest.fixture
async def api(bridged: Stage) -> AsyncGenerator[Api]:
    async with api_on(bridged) as made:
        yield made


async def test_conversations_begin_anew_and_go_on(api: Api) -> None:
    store, token = api.stage.stores.conversations, await api.token()
    await store.begin(HERE, "c1", "birds")
    await store.begin(HERE, "c2", "fish")

    async def listed() -> list[tuple[int, str, bool]]:
        found = (await api.call("GET", f"{AGENT}/conversations", token)).json()["conversations"]
        return [(one["number"], one["title"], one["current"]) for one in found]

    assert await listed() == [(1, "birds", False), (2, "fish", True)]
    key = {"Idempotency-Key": "k1"}
    for _ in range(2):
        left = await api.call("POST", f"{AGENT}/conversations", token, headers=key)
        assert left.json() == {"agent_id": "agent-1", "room_id": "!1:test", "left": "c2"}
    assert await listed() == [(1, "birds", False), (2, "fish", False)]
    nothing = await api.call("POST", f"{AGENT}/conversations", token)
    assert nothing.json()["left"] == ""
    back = (await api.call("POST", f"{AGENT}/conversations/1", token)).json()
    assert (back["title"], back["moved"], back["stayed"]) == ("birds", False, False)
    assert store.current(HERE) == "c1"
    again = (await api.call("POST", f"{AGENT}/conversations/1", token)).json()
    assert again["stayed"]
    unknown = await api.call("POST", f"{AGENT}/conversations/3", token)
    assert problem(unknown) == (404, "not-found")
    assert "2 conversations" in unknown.json()["detail"]
    elsewhere = {"room_id": "!2:test"}
    assert (await api.call("GET", f"{AGENT}/conversations", token, params=elsewhere)).json() == {
        "conversations": []
    }


async def test_a_runtime_without_conversations_says_so(api: Api) -> None:
    single = MemoryRuntime(capabilities=Capabilities(conversations=False))
    await api.stage.use(single)
    async with api_on(api.stage) as again:
        assert problem(await again.call("GET", f"{AGENT}/conversations")) == (409, "conflict")


async def test_an_agent_thinks_with_another_model(api: Api) -> None:
    switched = await api.call("POST", f"{AGENT}/model", json={"model": "MEMORY/large"})
    assert switched.json() == {"agent_id": "agent-1", "model": "memory/large"}
    unknown = await api.call("POST", f"{AGENT}/model", json={"model": "memory/larg"})
    assert problem(unknown) == (404, "not-found")
    assert "`memory/large`" in unknown.json()["detail"]


async def test_an_approval_is_shown_by_its_key(api: Api) -> None:
    turn = await api.stage.turn()
    stores = api.stage.stores
    await stores.database.execute(stores.approvals.insert(asked_approval(turn, "k1")))
    shown = (await api.call("GET", "/api/v1/approvals/k1")).json()
    assert (shown["tool"], shown["status"], shown["decided_by"]) == ("Bash", "pending", None)
    assert problem(await api.call("GET", "/api/v1/approvals/k2")) == (404, "not-found")


async def test_rooms_of_removed_agents_leave_the_space(api: Api) -> None:
    assert (await api.call("POST", "/api/v1/agents/archive")).json() == {"agents": []}
    there = await api.call("POST", "/api/v1/agents/archive", json={"agent_id": "agent-1"})
    assert problem(there) == (409, "conflict")


async def test_who_is_answered_on_other_networks_is_decided(api: Api) -> None:
    await opened(api.stage)
    book = api.stage.stores.portals

    async def post(action: str, **wanted: str) -> object:
        answer = await api.call("POST", f"/api/v1/portals/{action}", json=wanted)
        return answer.json() if answer.status_code == 200 else problem(answer)

    allowed = {"network": "irc", "contact": "ann", "agent": "Agent 2", "stopped": False}
    assert await post("allow", contact="ann", agent_id="Agent 2") == allowed
    routes = (await api.call("GET", "/api/v1/portals/routes")).json()
    assert routes["routes"][1:] == [allowed]
    assert await post("block", contact="ann") == {**allowed, "agent": ""}
    assert await post("hold", contact="ann") == {"rooms": [PORTAL], "held": True}
    assert book.portal(PORTAL).held  # type: ignore[union-attr]
    assert await post("release", contact="ann") == {"rooms": [PORTAL], "held": False}
    assert await post("hold") == (409, "conflict")
    assert await post("hold", contact="bob") == (404, "not-found")
    assert await post("allow", contact="ann", agent_id="Agnet 2") == (404, "not-found")


async def test_without_a_phone_line_that_is_said(api: Api) -> None:
    answer = await api.call("GET", "/api/v1/sms")
    assert problem(answer) == (404, "not-found")
    assert "No phone line is configured" in answer.json()["detail"]


async def test_that_is_for_admins(api: Api, subtests: pytest.Subtests) -> None:
    user = await api.token(TOOL_SCOPES)
    for method, path in (
        ("GET", f"{AGENT}/conversations"),
        ("POST", f"{AGENT}/conversations"),
        ("POST", f"{AGENT}/conversations/1"),
        ("POST", f"{AGENT}/model"),
        ("GET", "/api/v1/approvals/k1"),
        ("GET", "/api/v1/portals/routes"),
        ("POST", "/api/v1/portals/allow"),
        ("POST", "/api/v1/portals/tell"),
        ("GET", "/api/v1/sms"),
        ("GET", "/api/v1/sms/contacts"),
        ("POST", "/api/v1/sms/login"),
        ("POST", "/api/v1/sms/logout"),
    ):
        with subtests.test(method=method, path=path):
            assert problem(await api.call(method, path, user)) == (403, "forbidden")
