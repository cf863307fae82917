"""Agents of a Letta API: complete listings at little cost, management, and what they say."""

import subprocess
import sys
from collections.abc import AsyncGenerator

import pytest
from tests.fake_letta_api import MODELS, FakeLettaApi
from tests.fake_letta_runs import Run
from tests.unit.letta_api_bridge import Bridge, adapter
from tests.waiting import Clock

from letta_matrix.runtimes.faults import (
    AgentGone,
    CredentialsRefused,
    RuntimeRefused,
    RuntimeUnavailable,
)
from letta_matrix.runtimes.letta_api import LettaApi
from letta_matrix.runtimes.letta_api.listing import FULL_EVERY
from letta_matrix.runtimes.protocol import AgentInfo

LIST = r"GET /v1/agents/"


@pytest.fixture
async def server() -> AsyncGenerator[FakeLettaApi]:
    async with FakeLettaApi() as fake:
        yield fake


@pytest.fixture
async def runtime(server: FakeLettaApi) -> AsyncGenerator[LettaApi]:
    made = adapter(server)
    yield made
    await made.close()


def names(agents: list[AgentInfo]) -> set[str]:
    return {agent.name for agent in agents}


async def heard(server: FakeLettaApi, agent_id: str, text: str) -> Run:
    """Let another client send a message, and wait for the end of its run."""
    run = server.say(agent_id, text)
    assert run.task is not None
    await run.task
    return run


async def test_every_page_is_listed_and_then_one_is_enough(
    server: FakeLettaApi, runtime: LettaApi
) -> None:
    expected = {f"Agent {number}" for number in range(120)}
    for name in sorted(expected):
        server.add_agent(name)
    assert names(await runtime.list_agents()) == expected
    server.requests.clear()
    assert names(await runtime.list_agents()) == expected
    assert len(server.lines(LIST)) == 1


async def test_changes_among_many_agents_are_seen_at_once(
    server: FakeLettaApi, runtime: LettaApi
) -> None:
    ids = [server.add_agent(f"Agent {number}") for number in range(60)]
    await runtime.list_agents()
    server.rename_agent(ids[3], "Renamed")
    server.add_agent("New")
    await heard(server, ids[5], "hello")
    server.requests.clear()
    agents = {agent.agent_id: agent for agent in await runtime.list_agents()}
    assert len(agents) == 61
    assert agents[ids[3]].name == "Renamed"
    assert "New" in names(list(agents.values()))
    assert agents[ids[5]].last_run != agents[ids[6]].last_run == ""
    assert len(server.lines(LIST)) == 1


async def test_more_changes_than_a_page_holds_are_all_seen(
    server: FakeLettaApi, runtime: LettaApi
) -> None:
    ids = [server.add_agent(f"Agent {number}") for number in range(120)]
    await runtime.list_agents()
    for agent_id in ids:
        server.rename_agent(agent_id, f"{agent_id} renamed")
    assert names(await runtime.list_agents()) == {f"{agent_id} renamed" for agent_id in ids}


async def test_removals_are_seen_at_once_among_few_and_soon_among_many(
    server: FakeLettaApi, runtime: LettaApi, clock: Clock
) -> None:
    ids = [server.add_agent(f"Agent {number}") for number in range(55)]
    assert len(await runtime.list_agents()) == 55
    server.remove_agent(ids[0])
    clock.advance(FULL_EVERY + 1)
    assert len(await runtime.list_agents()) == 54
    for agent_id in ids[1:20]:
        server.remove_agent(agent_id)
    assert len(await runtime.list_agents()) == 35
    server.remove_agent(ids[30])
    assert len(await runtime.list_agents()) == 34


async def test_a_listing_that_breaks_off_is_no_listing(
    server: FakeLettaApi, runtime: LettaApi
) -> None:
    for number in range(120):
        server.add_agent(f"Agent {number}")
    server.fail(LIST, 500, skip=2)
    with pytest.raises(RuntimeUnavailable):
        await runtime.list_agents()
    assert len(await runtime.list_agents()) == 120


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (200, '{"agents": []}', RuntimeUnavailable),
        (200, "<html>", RuntimeUnavailable),
        (200, "", RuntimeUnavailable),
        (500, "{}", RuntimeUnavailable),
        (403, "{}", CredentialsRefused),
    ],
)
async def test_nonsense_and_errors_are_no_empty_listing(
    server: FakeLettaApi, runtime: LettaApi, status: int, body: str, fault: type[Exception]
) -> None:
    server.add_agent("Alpha")
    server.fail(LIST, status, body=body)
    with pytest.raises(fault):
        await runtime.list_agents()
    assert names(await runtime.list_agents()) == {"Alpha"}


async def test_items_that_are_no_agents_are_passed_over(
    server: FakeLettaApi, runtime: LettaApi
) -> None:
    body = '[1, null, {"name": "no id"}, {"id": "agent-1", "name": null, "model": 7}]'
    server.fail(LIST, 200, body=body)
    assert await runtime.list_agents() == [AgentInfo("agent-1", "agent-1", model="7")]
    assert runtime.counters["malformed list item"] == 2


async def test_agents_are_made_renamed_and_deleted(server: FakeLettaApi, runtime: LettaApi) -> None:
    made = await runtime.create_agent("Gamma", model=MODELS[1], description="a test")
    assert made == AgentInfo(made.agent_id, "Gamma", "a test", MODELS[1])
    assert await runtime.list_agents() == [made]
    await runtime.rename_agent(made.agent_id, "Delta")
    assert names(await runtime.list_agents()) == {"Delta"}
    await runtime.delete_agent(made.agent_id)
    await runtime.delete_agent(made.agent_id)
    assert await runtime.list_agents() == []
    with pytest.raises(AgentGone):
        await runtime.rename_agent(made.agent_id, "Epsilon")


async def test_models_are_listed_and_switched(server: FakeLettaApi, runtime: LettaApi) -> None:
    agent_id = server.add_agent("Alpha")
    assert await runtime.list_models() == sorted(MODELS)
    await runtime.set_model(agent_id, MODELS[1])
    assert (await runtime.list_agents())[0].model == MODELS[1]
    with pytest.raises(RuntimeRefused, match="Handle nobody/nothing not found") as refused:
        await runtime.set_model(agent_id, "nobody/nothing")
    assert not isinstance(refused.value, AgentGone)
    with pytest.raises(RuntimeRefused, match="not found"):
        await runtime.create_agent("Zeta", model="nobody/nothing")


async def test_what_an_agent_says_by_itself_is_told_once(
    server: FakeLettaApi, runtime: LettaApi
) -> None:
    agent_id = server.add_agent("Alpha")
    await heard(server, agent_id, "before")
    start = await runtime.said_since(agent_id, None)
    assert start.speeches == []
    run = await heard(server, agent_id, "by itself")
    said = await runtime.said_since(agent_id, start.cursor)
    assert [speech.text for speech in said.speeches] == ["echo: by itself"]
    assert said.speeches[0].conversation_id == run.conversation.id
    assert (await runtime.said_since(agent_id, said.cursor)).speeches == []
    assert list((await runtime.said_since(agent_id, start.cursor)).speeches) == list(said.speeches)


async def test_however_much_an_agent_says_one_look_tells_it_all(
    server: FakeLettaApi, runtime: LettaApi
) -> None:
    agent_id = server.add_agent("Alpha")
    cursor = (await runtime.said_since(agent_id, None)).cursor
    texts = [f"number {number}" for number in range(105)]
    for text in texts:
        await heard(server, agent_id, text)
    said = await runtime.said_since(agent_id, cursor)
    assert [speech.text for speech in said.speeches] == [f"echo: {text}" for text in texts]
    assert (await runtime.said_since(agent_id, said.cursor)).speeches == []


async def test_what_one_look_does_not_reach_the_next_one_does(
    server: FakeLettaApi, runtime: LettaApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("speech.MAX_PAGES", "speech.PAGE", "client.PAGE"):
        monkeypatch.setattr(f"letta_matrix.runtimes.letta_api.{name}", 1)
    agent_id = server.add_agent("Alpha")
    cursor = (await runtime.said_since(agent_id, None)).cursor
    for text in ("one", "two"):
        await heard(server, agent_id, text)
    looks: list[tuple[list[str], bool]] = []
    for _ in range(3):
        said = await runtime.said_since(agent_id, cursor)
        looks.append(([speech.text for speech in said.speeches], said.more))
        cursor = said.cursor
    assert looks == [(["echo: one"], True), (["echo: two"], True), ([], False)]


async def test_replies_to_matrix_are_no_speech(server: FakeLettaApi, runtime: LettaApi) -> None:
    agent_id = server.add_agent("Alpha")
    cursor = (await runtime.said_since(agent_id, None)).cursor
    bridge = Bridge(server, runtime, agent_id, await runtime.create_conversation(agent_id, "x"))
    await bridge.run(bridge.request("hello"))
    said = await runtime.said_since(agent_id, cursor)
    assert said.speeches == []
    assert server.lines(r"GET /v1/runs/.*/messages") == [], "its own runs are known"
    await bridge.crash()
    assert (await bridge.runtime.said_since(agent_id, cursor)).speeches == []
    await bridge.runtime.close()


async def test_a_turn_that_still_runs_is_told_when_it_has_ended(
    server: FakeLettaApi, runtime: LettaApi
) -> None:
    agent_id = server.add_agent("Alpha")
    cursor = (await runtime.said_since(agent_id, None)).cursor
    slow = server.say(agent_id, "steps:6")
    quick = server.say(agent_id, "quick")
    assert slow.task is not None
    assert quick.task is not None
    await quick.task
    first = await runtime.said_since(agent_id, cursor)
    assert [speech.text for speech in first.speeches] == ["echo: quick"]
    server.steps.finish("steps:6")
    await slow.task
    second = await runtime.said_since(agent_id, first.cursor)
    assert [speech.text.split()[-1] for speech in second.speeches] == ["word6"]


async def test_a_cursor_that_means_nothing_any_more_starts_anew(
    server: FakeLettaApi, runtime: LettaApi
) -> None:
    agent_id = server.add_agent("Alpha")
    await heard(server, agent_id, "hello")
    cursor = (await runtime.said_since(agent_id, None)).cursor
    server.forget_runs()
    said = await runtime.said_since(agent_id, cursor)
    assert said.speeches == []
    await heard(server, agent_id, "again")
    later = await runtime.said_since(agent_id, said.cursor)
    assert [speech.text for speech in later.speeches] == ["echo: again"]


def test_the_heavy_client_is_loaded_for_such_a_runtime_alone() -> None:
    code = "import sys, letta_matrix.runtimes.letta_api; sys.exit('letta_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
