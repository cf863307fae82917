"""Tools within a whole bridge: agents answer each other, people answer agents, once each."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from typing import Any

import pytest
from tests.integration.bridge_world import (
    Json,
    Person,
    Room,
    World,
    bridge_on,
    new_agent,
    new_person,
)
from tests.scripts import obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.matrix.content import MARKER
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest
from letta_matrix.toolbox.faults import ToolError
from letta_matrix.toolbox.principal import Principal


@pytest.fixture(scope="module")
async def ann(homeserver: Homeserver) -> Person:
    return await new_person(homeserver)


def obey_the_last_line(request: TurnRequest) -> Iterable[TurnEvent | float]:
    """Above it stands who has written it."""
    return obey(replace(request, text=request.text.splitlines()[-1]))


@pytest.fixture(scope="module")
async def world(
    homeserver: Homeserver, ann: Person, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[World]:
    directory = tmp_path_factory.mktemp("tools")
    hops = {"conversations": {"max_hops": 1}}
    runtime = MemoryRuntime(script=obey_the_last_line)
    async with bridge_on(homeserver, directory, ann, runtime, **hops) as running:
        yield running


async def conversation_of(world: World, text: str) -> str:
    """The conversation in which an agent was told this, once it was."""

    async def told() -> list[str]:
        return [r.conversation_id for r in world.runtime.asked if r.text.endswith(text)]

    return (await eventually(told, bool))[0]


async def call(
    world: World, room: Room, conversation: str, name: str, /, **arguments: Any
) -> tuple[bool, Any]:
    agent_id = room.agent.agent_id
    result = await world.runtime.call_tool(agent_id, conversation, name, arguments)
    return result.ok, json.loads(result.text) if result.ok else result.text


async def test_an_agent_answers_another_in_a_thread_of_its_own_room(
    world: World, ann: Person
) -> None:
    ada, bob = await world.meet(new_agent("Ada")), await world.meet(new_agent("Bob"))
    ok, told = await call(world, ada, "", "message_agent", agent="Bob", message="are you there?")
    assert ok
    assert told["answer"].endswith("are you there?")
    events = await ann.timeline(bob.room_id)
    asked, answered = [e for e in events if e["type"] == "m.room.message"]
    assert (asked["sender"], answered["sender"]) == (ada.ghost, bob.ghost)
    assert answered["content"]["m.relates_to"]["rel_type"] == "m.thread"
    assert answered["content"]["m.relates_to"]["event_id"] == asked["event_id"]
    assert await ann.bodies(ada.room_id, ada.ghost) == []


async def test_agents_do_not_pass_a_message_on_for_ever(world: World) -> None:
    ada, bob = await world.meet(new_agent("Eva")), await world.meet(new_agent("Uwe"))
    arguments = {"agent": "Uwe", "message": "slow 3 over to you", "wait_seconds": 0}
    assert (await call(world, ada, "", "message_agent", **arguments))[0]
    conversation = await conversation_of(world, "over to you")
    ok, told = await call(world, bob, conversation, "message_agent", agent="Eva", message="back")
    assert not ok
    assert "as far as it may go" in told


async def test_what_a_tool_says_prompts_nobody(world: World, ann: Person) -> None:
    ada = await world.meet()
    before = len(world.runtime.asked)
    ok, _ = await call(
        world, ada, "", "matrix_send_message", room_id=ada.room_id, message="hello me"
    )
    assert ok
    await ann.send(ada.room_id, "hello you")
    await ann.answers(ada, 2)
    assert len(world.runtime.asked) == before + 1


async def test_the_answer_to_a_question_is_no_prompt(world: World, ann: Person) -> None:
    ada = await world.meet()
    await ann.send(ada.room_id, "slow 4 please")
    conversation = await conversation_of(world, "slow 4 please")
    before = len(world.runtime.asked)
    asking = asyncio.create_task(call(world, ada, conversation, "ask_human", question="Which?"))

    async def asked() -> list[Json]:
        events = await ann.timeline(ada.room_id)
        return [e for e in events if e["content"].get(MARKER, {}).get("tool") == "ask_human"]

    await eventually(asked, bool)
    waits = world.bridge._parts.toolbox.waits
    assert waits(ada.agent.agent_id, conversation)
    await ann.send(ada.room_id, "The red one.")
    ok, told = await asking
    assert not waits(ada.agent.agent_id, conversation)
    assert ok
    assert (told["answer"], told["by"]) == ("The red one.", ann.user_id)
    await ann.answers(ada, 2)
    await asyncio.sleep(0.5)
    assert len(world.runtime.asked) == before


async def call_as_bot(world: World, name: str, /, **arguments: Any) -> Json:
    """What the holder of a token gets that acts as the bot."""
    principal = Principal("token:test", "")
    return dict(await world.bridge._parts.toolbox.call(principal, name, arguments, door="api"))


async def test_an_agent_answers_whoever_writes_as_the_bot(world: World, ann: Person) -> None:
    ada, bob = await world.meet(new_agent("Una")), await world.meet(new_agent("Ivo"))
    told = await call_as_bot(world, "message_agent", agent="Una", message="who are you?")
    assert told["answer"].endswith("who are you?")
    events = await ann.timeline(ada.room_id)
    asked, answered = [e for e in events if e["type"] == "m.room.message"]
    assert (asked["sender"], answered["sender"]) == (world.bot.user_id, ada.ghost)
    assert answered["content"]["m.relates_to"]["event_id"] == asked["event_id"]
    conversation = await conversation_of(world, "who are you?")
    passed_on = {"agent": bob.agent.agent_id, "message": "you answer"}
    ok, told = await call(world, ada, conversation, "message_agent", **passed_on)
    assert (ok, "as far as it may go" in told) == (False, True)


async def test_a_script_asks_a_person_who_answers_by_reaction(world: World, ann: Person) -> None:
    ada = await world.meet()
    before = len(world.runtime.asked)
    arguments: Json = {"room_id": ada.room_id, "question": "Deploy?", "options": ["Yes", "No"]}
    asking = asyncio.create_task(call_as_bot(world, "ask_human", **arguments))

    async def offered() -> list[Json]:
        return [e for e in await ann.timeline(ada.room_id) if e["type"] == "m.reaction"]

    reactions = await eventually(offered, lambda found: len(found) == 2)
    await ann.react(ada.room_id, reactions[0]["content"]["m.relates_to"]["event_id"], "1️⃣")
    told = await asking
    assert (told["answer"], told["option"], told["by"]) == ("Yes", 1, ann.user_id)
    assert len(world.runtime.asked) == before


async def test_what_an_agent_answers_is_waited_for_until_it_is_whole(
    world: World, ann: Person
) -> None:
    ada = await world.meet()
    sent = await ann.send(ada.room_id, "stream 8 0.2")
    arguments: Json = {"room_id": ada.room_id, "after": sent, "from_user": ada.ghost}
    told = await call_as_bot(world, "wait_for_message", **arguments)
    (whole,) = await ann.answers(ada, 1)
    assert (told["message"]["text"], told.get("note")) == (whole, None)
    waiting = asyncio.create_task(
        call_as_bot(world, "wait_for_message", room_id=ada.room_id, from_user=ann.user_id)
    )
    while not waiting.done():
        await ann.send(ada.room_id, "!ping")
        await asyncio.wait([waiting], timeout=1)
    assert (await waiting)["message"]["text"] == "!ping"


async def test_an_agent_that_has_joined_by_tool_talks_there(world: World, ann: Person) -> None:
    ada = await world.meet()
    room_id = await ann.create_room(preset="public_chat")
    ok, _ = await call(world, ada, "", "matrix_join_room", room_id_or_alias=room_id)
    assert ok
    await ann.send(room_id, "are you in?")
    (reply,) = await ann.replies(replace(ada, room_id=room_id), 1)
    assert reply.endswith("are you in?")
    ok, told = await call(world, ada, "", "matrix_leave", room_id=room_id)
    assert (ok, told["membership"]) == (True, "leave")


async def test_agents_do_not_ask_each_other_for_ever_through_the_bot(world: World) -> None:
    ida, ole = await world.meet(new_agent("Ida")), await world.meet(new_agent("Ole"))
    toolbox = world.bridge._parts.toolbox

    async def ask(room: Room, message: str, door: str = "mcp") -> None:
        given = {"agent": room.agent.agent_id, "message": message, "wait_seconds": 0}
        await toolbox.call(Principal("token:test", ""), "message_agent", given, door=door)

    await ask(ida, "ask Ole")
    await conversation_of(world, "ask Ole")
    await ask(ole, "slow 3 ask Ida")
    await conversation_of(world, "ask Ida")
    with pytest.raises(ToolError, match="as far as it may go"):
        await ask(ida, "ask Ole again")
    await ask(ida, "what a program asks meanwhile", "api")
