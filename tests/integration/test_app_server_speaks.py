"""What agents of a real App Server say by themselves."""

import secrets
from typing import Any

import aiohttp
import pytest
from tests.integration.runtime_bench import Bench, Client, words
from tests.servers import LettaServer
from tests.stub_model import StubModel
from tests.waiting import Clock, eventually

from letta_matrix.runtimes.speech import Said


async def whole(bench: Bench, cursor: str | None) -> Said:
    """All that was said since, once no turn runs: an App Server works on a little when it has told
    that one is finished."""

    async def said() -> Said:
        return await bench.runtime.said_since(bench.agent_id, cursor)

    return await eventually(said, lambda found: not found.more)


async def heard(bench: Bench, cursor: str | None) -> tuple[list[str], str]:
    said = await whole(bench, cursor)
    return [speech.text for speech in said.speeches], said.cursor


async def last_run(bench: Bench, clock: Clock) -> str:
    clock.advance(1)  # conversations are not looked at in every listing
    agents = await bench.runtime.list_agents()
    return next(agent.last_run for agent in agents if agent.agent_id == bench.agent_id)


async def test_what_others_prompt_is_told_once_and_what_we_do_never(bench: Bench) -> None:
    await bench.say("one")
    texts, cursor = await heard(bench, None)
    assert texts == []
    await bench.say("two")
    assert (await heard(bench, cursor))[0] == []
    foreign = await bench.runtime.create_conversation(bench.agent_id, "theirs")
    async with Client(bench) as other:
        await other.say("hello")
        await bench.say("mine")
        await other.say("there", foreign)
    said = await whole(bench, cursor)
    assert [(s.text, s.conversation_id) for s in said.speeches] == [
        ("echo: hello", bench.conversation_id),
        ("echo: there", foreign),
    ]
    assert len({speech.message_id for speech in said.speeches}) == 2
    assert (await heard(bench, said.cursor))[0] == []
    assert (await heard(bench, cursor))[0] == ["echo: hello", "echo: there"]


async def test_a_turn_is_told_when_it_is_whole(bench: Bench, stub_model: StubModel) -> None:
    _, cursor = await heard(bench, None)
    prompt = f"steps:5 {secrets.token_hex(4)}"
    async with Client(bench) as other:
        scope, mark = await other.begin(prompt)
        await eventually(lambda: other.said(mark))
        said = await bench.runtime.said_since(bench.agent_id, cursor)
        assert said.more
        assert not said.speeches
        stub_model.steps.finish(prompt)
        await other.end(scope, mark)
    said = await whole(bench, said.cursor)
    assert [speech.text.strip() for speech in said.speeches] == [words(5)]
    assert (await heard(bench, said.cursor))[0] == []


async def test_the_default_conversation_and_the_openai_api_are_heard(
    app_server: LettaServer, bench: Bench, http: aiohttp.ClientSession, clock: Clock
) -> None:
    _, cursor = await heard(bench, None)
    runs = [await last_run(bench, clock)]
    async with Client(bench) as other:
        await other.say("to the default one", "default")
    runs.append(await last_run(bench, clock))
    url = f"{app_server.app_server.http_url}/v1/chat/completions"
    body = {"model": bench.agent_id, "messages": [{"role": "user", "content": "by HTTP"}]}
    async with http.post(url, json=body) as answer:
        assert answer.status == 200
    runs.append(await last_run(bench, clock))
    assert len(set(runs)) == 3
    assert (await heard(bench, cursor))[0] == ["echo: to the default one", "echo: by HTTP"]


async def test_schedules_are_heard(bench: Bench, clock: Clock) -> None:
    await bench.say("warm")
    _, cursor = await heard(bench, None)
    before = await last_run(bench, clock)
    async with Client(bench) as other:
        scope = await other.start(bench.conversation_id)
        mark = len(other.frames)
        task = {"name": "n", "description": "d", "cron": "0 0 1 1 *", "recurring": True}
        made = await other.ask("cron_add", **scope, **task, prompt="water the plants")
        await other.ask("cron_trigger", task_id=made["task"]["id"])
        await other.end(scope, mark)
        await other.ask("cron_delete", task_id=made["task"]["id"])
    assert await last_run(bench, clock) != before
    (text,) = (await heard(bench, cursor))[0]
    assert text.startswith("echo: Scheduled task")
    assert text.endswith("water the plants")


async def test_a_fork_says_nothing_again(bench: Bench) -> None:
    _, cursor = await heard(bench, None)
    async with Client(bench) as other:
        await other.say("hello")
        fork = {"agent_id": bench.agent_id}
        made = await other.ask(
            "conversation_fork", conversation_id=bench.conversation_id, body=fork
        )
        assert await bench.say("mine") == "echo: mine"
        await other.say("in the fork", made["conversation"]["id"])
    assert (await heard(bench, cursor))[0] == ["echo: hello", "echo: in the fork"]


async def test_tool_turns_and_reminders(bench: Bench) -> None:
    _, cursor = await heard(bench, None)
    async with Client(bench) as other:
        scope, mark = await other.begin("tool:Bash:pwd")
        await other.end(scope, mark)
    (text,) = (await heard(bench, cursor))[0]
    assert text.startswith("tool said: /")
    assert "system-reminder" not in text


async def test_old_and_odd_cursors(bench: Bench) -> None:
    async with Client(bench) as other:
        await other.say("hello")
    texts, _ = await heard(bench, '{"at":"2020-01-01T00:00:00.000Z","behind":{"gone-1":""}}')
    assert texts == ["echo: hello"]
    texts, _ = await heard(bench, "")
    assert texts == ["echo: hello"]
    for odd in ("nonsense", "[]", '{"at":5}', '{"at":"x","behind":7}'):
        texts, fresh = await heard(bench, odd)
        assert texts == []
        assert '"at": "20' in fresh


async def test_a_look_at_nothing_new_reads_no_conversation(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.runtimes.app_server.speech.LIST_PAGE", 3)
    for _ in range(6):
        await bench.runtime.create_conversation(bench.agent_id, secrets.token_hex(3))
    await bench.say("hello")
    _, cursor = await heard(bench, None)
    asked: list[str] = []
    call = bench.connection.call

    async def noting(kind: str, **fields: Any) -> dict[str, Any]:
        asked.append(kind)
        return await call(kind, **fields)

    monkeypatch.setattr(bench.connection, "call", noting)
    assert (await heard(bench, cursor))[0] == []
    assert asked == ["agent_retrieve", "conversation_list"]
