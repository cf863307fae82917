"""Turns on a Letta API whose message may have arrived before: never asked twice, never given up
as if it had not been taken."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest
from tests.fake_letta_runs import Json, new_id
from tests.servers import free_port
from tests.unit.letta_api_bridge import Bridge, adapter, text_of, with_agent

from letta_matrix.runtimes.faults import (
    AgentGone,
    CredentialsRefused,
    RuntimeBusy,
    RuntimeUnavailable,
    TurnLost,
)
from letta_matrix.runtimes.letta_api import turns
from letta_matrix.runtimes.protocol import TextDelta

MESSAGES = r"GET /v1/conversations/.*/messages"
SEND = r"POST /v1/conversations/.*/messages"


@pytest.fixture
async def bridge() -> AsyncGenerator[Bridge]:
    async with with_agent(free_port()) as made:
        yield made


async def cut(bridge: Bridge, text: str = "hello") -> None:
    """Send a message, and die before anything of its run is known."""
    bridge.server.cut_after = 0
    with pytest.raises(RuntimeUnavailable):
        await bridge.run(bridge.request(text))
    await bridge.crash()


def chatter(bridge: Bridge, count: int, moment: datetime, *, first: bool = False) -> None:
    """Messages of others in the conversation."""
    kept = bridge.server.conversations[bridge.conversation_id].messages
    others: list[Json] = [
        {
            "id": new_id("message"),
            "message_type": "assistant_message",
            "content": "chatter",
            "date": moment.isoformat(),
        }
        for _ in range(count)
    ]
    kept[:] = others + kept if first else kept + others


def grown_old(bridge: Bridge) -> None:
    """As if the message had been sent long ago."""
    long_ago = time.time() - 2 * turns.ASKED_LONG_AGO
    bridge.states["$one"] = {**bridge.states["$one"], "asked_at": long_ago}


async def test_a_prompt_is_found_however_much_was_said_since(bridge: Bridge) -> None:
    await cut(bridge)
    chatter(bridge, 130, datetime.now(UTC))
    bridge.server.forget_otids()
    assert text_of(await bridge.run(bridge.request("hello"))) == "echo: hello"
    assert bridge.server.prompts == ["hello"]


async def test_messages_from_before_the_turn_are_not_read(bridge: Bridge) -> None:
    chatter(bridge, 500, datetime.now(UTC) - timedelta(days=1), first=True)
    bridge.server.fail(SEND, 502)
    with pytest.raises(RuntimeUnavailable):
        await bridge.run(bridge.request("hello"))
    bridge.server.requests.clear()
    assert text_of(await bridge.run(bridge.request("hello"))) == "echo: hello"
    assert len(bridge.server.lines(MESSAGES)) == 1


async def test_a_prompt_of_long_ago_that_left_no_trace_is_lost(bridge: Bridge) -> None:
    await cut(bridge)
    bridge.server.conversations[bridge.conversation_id].messages.clear()
    bridge.server.forget_otids()
    grown_old(bridge)
    with pytest.raises(TurnLost) as lost:
        await bridge.run(bridge.request("hello"))
    assert lost.value.tools_started
    assert bridge.server.prompts == ["hello"]


async def test_a_prompt_that_surely_was_not_sent_is_never_too_old(bridge: Bridge) -> None:
    await bridge.server.__aexit__()
    with pytest.raises(RuntimeUnavailable):
        await bridge.run(bridge.request("hello"))
    assert bridge.states["$one"]["asked_at"] is None
    await bridge.server.__aenter__()
    assert text_of(await bridge.run(bridge.request("hello"))) == "echo: hello"


async def test_a_prompt_that_found_its_conversation_busy_was_not_sent(bridge: Bridge) -> None:
    async with aclosing(bridge.follow(bridge.request("steps:2"))) as first:
        await anext(first)
        with pytest.raises(RuntimeBusy):
            await bridge.run(bridge.request("hello", "$two"))
    assert bridge.states["$two"]["asked_at"] is None
    assert isinstance(bridge.states["$one"]["asked_at"], float)


async def test_a_key_that_expired_in_mid_turn_does_not_end_the_turn(bridge: Bridge) -> None:
    request = bridge.request("steps:3")
    async with aclosing(bridge.follow(request)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    await bridge.runtime.close()
    bridge.runtime = adapter(bridge.server, "sk-expired")
    with pytest.raises(RuntimeUnavailable, match="set a valid `api_key`"):
        await bridge.run(request)
    await bridge.crash()
    bridge.server.steps.finish("steps:3")
    assert text_of(await bridge.run(request)) == "word1 word2 word3 "


async def test_a_key_that_expired_before_a_prompt_was_sent_ends_the_turn(bridge: Bridge) -> None:
    await bridge.runtime.close()
    bridge.runtime = adapter(bridge.server, "sk-expired")
    with pytest.raises(CredentialsRefused):
        await bridge.run(bridge.request("hello"))


async def test_a_turn_whose_conversation_went_is_lost(bridge: Bridge) -> None:
    await cut(bridge)
    del bridge.server.conversations[bridge.conversation_id]
    with pytest.raises(TurnLost) as lost:
        await bridge.run(bridge.request("hello"))
    assert lost.value.tools_started


async def test_a_turn_whose_agent_went_is_told_so(bridge: Bridge) -> None:
    await cut(bridge)
    bridge.server.remove_agent(bridge.agent_id)
    with pytest.raises(AgentGone):
        await bridge.run(bridge.request("hello"))
