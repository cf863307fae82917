"""Tools within a whole bridge: agents answer each other, people answer agents, once each."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from tests.integration.bridge_world import Json, Person, Room, World
from tests.integration.doors.doors_world import BOT, Gates, conversation_of, new_key
from tests.waiting import eventually, within

from letta_matrix.access.faults import ToolError
from letta_matrix.access.principal import Principal
from letta_matrix.matrix.content import MARKER
from letta_matrix.operations.toolbox.others import OTHERS
from letta_matrix.operations.toolbox.waiting import _Watch


async def call(
    world: World, room: Room, conversation: str, name: str, /, **arguments: Any
) -> tuple[bool, Any]:
    agent_id = room.agent.agent_id
    result = await world.runtime.call_tool(agent_id, conversation, name, arguments)
    return result.ok, json.loads(result.text) if result.ok else result.text


async def call_as_bot(world: World, name: str, /, door: str = "api", **arguments: Any) -> Json:
    """What the holder of a token gets that acts as the bot."""
    principal = Principal("token:test", "")
    return dict(await world.bridge.app.toolbox.call(principal, name, arguments, door=door))


async def question_of(ann: Person, room: Room, question: str, options: int = 0) -> str:
    """The event id of a question, once its options are offered."""

    async def asked() -> str:
        events = await ann.timeline(room.room_id)
        bodies = {e["event_id"]: str(e["content"].get("body")) for e in events}
        tools = {e["event_id"]: e["content"].get(MARKER, {}).get("tool") for e in events}
        ids = [one for one, body in bodies.items() if body.startswith(question)]
        ids = [one for one in ids if tools[one] == "ask_human"]
        offered = [e["content"]["m.relates_to"] for e in events if e["type"] == "m.reaction"]
        count = sum(one["event_id"] in ids for one in offered)
        return ids[0] if ids and count >= options else ""

    return await ann.watch(room.room_id, asked)


async def test_an_agent_answers_another_in_a_thread_of_its_own_room(
    world: World, ann: Person, ada: Room, bea: Room
) -> None:
    message = f"are you there, {new_key()}?"
    given = {"agent": bea.agent.name, "message": message}
    ok, told = await call(world, ada, "", "message_agent", **given)
    assert ok
    assert told["answer"].endswith(message)
    events = await ann.timeline(bea.room_id, "m.room.message")
    asked, answered = [e for e in events if message in e["content"]["body"]]
    assert (asked["sender"], answered["sender"]) == (ada.ghost, bea.ghost)
    assert answered["content"]["m.relates_to"]["rel_type"] == "m.thread"
    assert answered["content"]["m.relates_to"]["event_id"] == asked["event_id"]
    # Nothing of it in the room of the one who asked.
    assert [one for one in await ann.bodies(ada.room_id, ada.ghost) if message in one] == []


async def test_agents_do_not_pass_a_message_on_for_ever(
    world: World, gates: Gates, ada: Room, bea: Room
) -> None:
    key = new_key()
    given = {"agent": bea.agent.name, "message": f"held {key} over to you", "wait_seconds": 0}
    assert (await call(world, ada, "", "message_agent", **given))[0]
    conversation = await conversation_of(world, f"{key} over to you")
    given = {"agent": ada.agent.name, "message": "back"}
    ok, told = await call(world, bea, conversation, "message_agent", **given)
    gates.open(key)
    assert (ok, "as far as it may go" in told) == (False, True)


async def test_what_a_tool_says_prompts_nobody(world: World, ann: Person, ada: Room) -> None:
    before, where = len(world.runtime.asked), {"room_id": ada.room_id}
    ok, _ = await call(world, ada, "", "matrix_send_message", **where, message="hello me")
    assert ok
    # What comes later is asked later.
    await ann.send(ada.room_id, "hello you")
    await eventually(lambda: len(world.runtime.asked) > before)
    assert [asked.text for asked in world.runtime.asked[before:]] == ["hello you"]


async def test_the_answer_to_a_question_is_no_prompt(
    world: World, ann: Person, gates: Gates, ada: Room
) -> None:
    key = new_key()
    await ann.send(ada.room_id, f"held {key}")
    conversation = await conversation_of(world, key)
    before, question = len(world.runtime.asked), f"Which, {new_key()}?"
    asking = asyncio.create_task(call(world, ada, conversation, "ask_human", question=question))
    asked_in = await question_of(ann, ada, question)
    waits = world.bridge.app.toolbox.waits
    assert waits(ada.agent.agent_id, conversation)
    await ann.reply(ada.room_id, asked_in, "The red one.")
    ok, told = await within(asking)
    assert not waits(ada.agent.agent_id, conversation)
    assert ok
    assert (told["answer"], told["by"]) == ("The red one.", ann.user_id)
    gates.open(key)
    await ann.send(ada.room_id, "and now?")
    await eventually(lambda: len(world.runtime.asked) > before)
    assert [asked.text for asked in world.runtime.asked[before:]] == ["and now?"]
    await world.idle()


async def test_an_agent_answers_whoever_writes_as_the_bot(
    world: World, ann: Person, ada: Room, bea: Room
) -> None:
    message = f"who are you, {new_key()}?"
    told = await call_as_bot(world, "message_agent", agent=ada.agent.name, message=message)
    assert told["answer"].endswith(message)
    events = await ann.timeline(ada.room_id, "m.room.message")
    asked, answered = [e for e in events if message in e["content"]["body"]]
    assert (asked["sender"], answered["sender"]) == (BOT, ada.ghost)
    assert answered["content"]["m.relates_to"]["event_id"] == asked["event_id"]
    conversation = await conversation_of(world, message)
    passed_on = {"agent": bea.agent.agent_id, "message": "you answer"}
    ok, told = await call(world, ada, conversation, "message_agent", **passed_on)
    assert (ok, "as far as it may go" in told) == (False, True)


async def test_a_script_asks_a_person_who_answers_by_reaction(
    world: World, ann: Person, ada: Room
) -> None:
    before, question = len(world.runtime.asked), f"Deploy {new_key()}?"
    arguments: Json = {"room_id": ada.room_id, "question": question, "options": ["Yes", "No"]}
    asking = asyncio.create_task(call_as_bot(world, "ask_human", **arguments))
    asked = await question_of(ann, ada, question, options=2)
    await ann.react(ada.room_id, asked, "1️⃣")
    told = await within(asking)
    assert (told["answer"], told["option"], told["by"]) == ("Yes", 1, ann.user_id)
    await ann.send(ada.room_id, "go on")
    await eventually(lambda: len(world.runtime.asked) > before)
    assert [asked.text for asked in world.runtime.asked[before:]] == ["go on"]
    await world.idle()


async def test_what_an_agent_answers_is_waited_for_until_it_is_whole(
    world: World, ann: Person, gates: Gates, ada: Room
) -> None:
    key = new_key()
    sent = await ann.send(ada.room_id, f"words {key} 3")
    arguments: Json = {"room_id": ada.room_id, "after": sent, "from_user": ada.ghost}
    waiting = asyncio.create_task(call_as_bot(world, "wait_for_message", **arguments))
    begun = await ann.watch(ada.room_id, lambda: ann.said_by(ada.room_id, ada.ghost), is_begun)
    assert not waiting.done()
    gates.open(key, 3)
    told = await within(waiting)
    assert (told["message"]["text"], told.get("note")) == ("word0 word1 word2", None)
    assert told["message"]["event_id"] == begun[-1]["event_id"]


def is_begun(said: list[Json]) -> bool:
    return bool(said) and said[-1]["live"]


def is_watch(listener: object) -> bool:
    return isinstance(getattr(listener, "__self__", None), _Watch)


async def test_the_next_message_is_waited_for(world: World, ann: Person, ada: Room) -> None:
    arguments: Json = {"room_id": ada.room_id, "from_user": ann.user_id}
    waiting = asyncio.create_task(call_as_bot(world, "wait_for_message", **arguments))
    listeners = world.bridge.app.toolbox.event_bus._listeners
    await eventually(lambda: any(map(is_watch, listeners)))
    await ann.send(ada.room_id, "!ping")
    assert (await within(waiting))["message"]["text"] == "!ping"


async def test_an_agent_that_has_joined_by_tool_talks_there(
    world: World, ann: Person, ada: Room
) -> None:
    room_id = await ann.create_room(preset="public_chat")
    joining = {"name": "matrix_join_room", "arguments": {"room_id_or_alias": room_id}}
    ok, _ = await call(world, ada, "", OTHERS, **joining)
    assert ok
    await ann.send(room_id, "are you in?")
    (reply,) = await ann.replies(replace(ada, room_id=room_id), 1)
    assert reply.endswith("are you in?")
    leaving = {"name": "matrix_leave", "arguments": {"room_id": room_id}}
    ok, told = await call(world, ada, "", OTHERS, **leaving)
    assert (ok, told["membership"]) == (True, "leave")


async def test_agents_do_not_ask_each_other_for_ever_through_the_bot(
    world: World, gates: Gates
) -> None:
    # It has asked neither of them before.
    ida, ole = await asyncio.gather(world.meet(), world.meet())
    key = new_key()

    async def ask(room: Room, message: str, door: str = "mcp") -> None:
        given = {"agent": room.agent.agent_id, "message": message, "wait_seconds": 0}
        await call_as_bot(world, "message_agent", door, **given)

    await ask(ida, f"{key}: ask Ole")
    await conversation_of(world, f"{key}: ask Ole")
    await ask(ole, f"held {key} ask Ida")
    await conversation_of(world, f"{key} ask Ida")
    with pytest.raises(ToolError, match="as far as it may go"):
        await ask(ida, "ask Ole again")
    await ask(ida, "what a program asks meanwhile", "api")
    gates.open(key)
