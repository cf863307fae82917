"""Commands and reactions of people on a real homeserver."""

import secrets
from collections.abc import AsyncGenerator, Generator
from dataclasses import replace
from urllib.parse import quote

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
from tests.scripts import DONE, obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.runtimes.memory import Answer, MemoryRuntime
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    Capabilities,
    TextDelta,
    TurnEvent,
    TurnRequest,
)


def asking(request: TurnRequest) -> Generator[TurnEvent | float, Answer | None]:
    """`bash COMMAND` asks for an approval and tells the answer; else as `obey`."""
    # What stands before it tells who is speaking.
    line = request.text.rpartition("\n")[2]
    if not line.startswith("bash"):
        yield from obey(replace(request, text=line))
        return
    arguments = {"command": line.removeprefix("bash ")}
    answer = yield ApprovalRequested(f"a-{request.message_id}", "Bash", arguments, always=True)
    if answer is not None:
        said = f"allow={answer.allow} always={answer.always}"
        yield TextDelta("0", f"{said} {answer.message}".strip())
        yield DONE


@pytest.fixture(scope="module")
async def ann(homeserver: Homeserver) -> Person:
    return await new_person(homeserver)


@pytest.fixture(scope="module")
async def bob(homeserver: Homeserver) -> Person:
    """A user, but no admin."""
    return await new_person(homeserver, "bob")


@pytest.fixture(scope="module")
async def other() -> MemoryRuntime:
    return MemoryRuntime("old", capabilities=Capabilities(conversations=False, manage=False))


@pytest.fixture(scope="module")
async def world(
    homeserver: Homeserver,
    ann: Person,
    other: MemoryRuntime,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[World]:
    directory = tmp_path_factory.mktemp("bridge")
    runtime = MemoryRuntime(script=asking)
    async with bridge_on(homeserver, directory, ann, runtime, other) as running:
        yield running


@pytest.fixture
async def room(world: World, ann: Person, bob: Person) -> Room:
    """A room of an agent, with both people in it."""
    met = await world.meet()
    await let_in(ann, bob, met)
    return met


@pytest.fixture(scope="module")
async def bot_room(world: World, ann: Person) -> Room:
    """A direct room of the admin with the bot."""
    bot = world.config.bot_user_id
    invite = {"invite": [bot], "is_direct": True, "preset": "trusted_private_chat"}
    _, created = await ann.call("POST", "/createRoom", invite)
    room = Room(new_agent(), str(created["room_id"]), bot)

    async def members() -> Json:
        return (await ann.get(f"/rooms/{quote(room.room_id)}/joined_members"))["joined"]

    await eventually(members, lambda joined: bot in joined)
    return room


async def let_in(ann: Person, somebody: Person, room: Room) -> None:
    path = f"/rooms/{quote(room.room_id)}"
    await ann.call("POST", f"{path}/invite", {"user_id": somebody.user_id})
    status, answer = await somebody.call("POST", f"{path}/join")
    assert status == 200, answer


async def answered(person: Person, room: Room, line: str) -> str:
    """Say something; returns the next thing the agent or the bot says."""
    before = len(await person.said_by(room.room_id, room.ghost))
    await person.send(room.room_id, line)
    return (await person.answers(room, before + 1))[before]


async def react(person: Person, room: Room, event_id: str, key: str) -> None:
    relation = {"rel_type": "m.annotation", "event_id": event_id, "key": key}
    await person.send_content(room.room_id, {"m.relates_to": relation}, "m.reaction")


async def asked_for(person: Person, room: Room) -> str:
    """The event that asks for an approval."""

    async def questions() -> list[str]:
        return [
            event["event_id"]
            for event in await person.timeline(room.room_id)
            if "May I run" in str(event["content"].get("body", ""))
            and event["sender"] == room.ghost
            and "m.new_content" not in event["content"]
        ]

    return (await eventually(questions, bool))[-1]


async def says(person: Person, room: Room, words: str) -> None:
    """Wait until the agent has said something with these words."""

    async def bodies() -> list[str]:
        return await person.bodies(room.room_id, room.ghost)

    await eventually(bodies, lambda all_: any(words in body for body in all_))


async def test_commands_are_answered_by_notices_and_never_prompt(
    world: World, ann: Person, bob: Person, room: Room
) -> None:
    assert f"You are `{bob.user_id}`, a user." in await answered(bob, room, "!whoami")
    assert "`!new`" in await answered(bob, room, "!help")
    assert "Did you mean `!status`?" in await answered(ann, room, "!letta stauts")
    said = await ann.said_by(room.room_id, room.ghost)
    assert {one["content"]["msgtype"] for one in said} == {"m.notice"}
    assert all(one["content"]["m.mentions"] == {} for one in said)
    assert not [one for one in world.runtime.asked if one.agent_id == room.agent.agent_id]


async def test_a_new_conversation_and_back(world: World, ann: Person, room: Room) -> None:
    await answered(ann, room, "first")
    assert "starts a new conversation" in await answered(ann, room, "!new")
    await answered(ann, room, "second")
    listed = await answered(ann, room, "!conversations")
    assert [line[:3] for line in listed.splitlines()[2:]] == ["1. ", "2. "]
    assert "**current**" in listed.splitlines()[3]
    assert "We go on with" in await answered(ann, room, "!conversations 1")
    await answered(ann, room, "third")
    used = [a.conversation_id for a in world.runtime.asked if a.agent_id == room.agent.agent_id]
    assert used[0] == used[2] != used[1]


async def test_a_runtime_without_conversations_says_so(
    world: World, ann: Person, other: MemoryRuntime
) -> None:
    agent = new_agent("Otto")
    other.add(agent)
    room = await world.find(agent)
    assert "keeps one single history" in await answered(ann, room, "!new")


async def test_cancel_keeps_what_was_said(ann: Person, room: Room) -> None:
    await ann.send(room.room_id, "stream 100 0.2")
    await says(ann, room, "word1")
    await ann.send(room.room_id, "!cancel")
    await says(ann, room, "Stopped.")
    text, stopped = await ann.answers(room, 2)
    assert text.startswith("word0 word1")
    assert "word99" not in text
    assert stopped == "Stopped."
    assert "Nothing is worked on here" in await answered(ann, room, "!cancel")


async def test_a_stop_sign_on_the_message_stops_it(ann: Person, bob: Person, room: Room) -> None:
    event_id = await ann.send(room.room_id, "stream 100 0.2")
    await says(ann, room, "word1")
    await react(bob, room, event_id, "🛑")
    await says(ann, room, "Stopped.")
    assert len(await ann.answers(room, 2)) == 2


async def test_a_paused_agent_leaves_messages_alone(ann: Person, room: Room) -> None:
    assert "Paused" in await answered(ann, room, "!pause")
    await ann.send(room.room_id, "are you there?")
    assert "Paused here" in await answered(ann, room, "!status")
    assert "answers here again" in await answered(ann, room, "!resume")
    assert await answered(ann, room, "hello") == "echo: hello"
    assert "echo: are you there?" not in await ann.bodies(room.room_id, room.ghost)


async def test_an_approval_is_given_by_the_requester_alone(
    homeserver: Homeserver, ann: Person, bob: Person, room: Room
) -> None:
    await bob.send(room.room_id, "bash ls")
    question = await asked_for(ann, room)
    assert "`Bash`" in await answered(ann, room, "!status")
    stranger = await new_person(homeserver, "eve")
    await let_in(ann, stranger, room)
    await react(stranger, room, question, "✅")
    assert "to allow or deny" in await answered(stranger, room, "!approve")
    assert "allow=" not in str(await ann.bodies(room.room_id, room.ghost))
    await react(bob, room, question, "✅")
    await says(ann, room, "allow=True always=False")


async def test_an_approval_is_denied_with_a_reason(ann: Person, room: Room) -> None:
    await ann.send(room.room_id, "bash rm -rf /")
    await asked_for(ann, room)
    await ann.send(room.room_id, "!deny that's too much")
    await says(ann, room, "allow=False")
    await says(ann, room, "that's too much")


async def test_an_approval_for_good(ann: Person, room: Room) -> None:
    await ann.send(room.room_id, "bash ls")
    await asked_for(ann, room)
    await ann.send(room.room_id, "!approve always")
    await says(ann, room, "allow=True always=True")


async def test_the_model_is_switched_by_admins_alone(
    world: World, ann: Person, bob: Person, room: Room
) -> None:
    assert "memory/large" in await answered(bob, room, "!model")
    assert "Only an admin" in await answered(bob, room, "!model memory/large")
    assert "from now on" in await answered(ann, room, "!model memory/large")
    listing = {info.agent_id: info for info in await world.runtime.list_agents()}
    assert listing[room.agent.agent_id].model == "memory/large"


async def test_an_agents_life_is_managed_with_the_bot(
    world: World, ann: Person, bot_room: Room
) -> None:
    name = f"Marie {secrets.token_hex(4)}"
    assert "!create NAME" in await answered(ann, bot_room, "help")
    assert "Created" in await answered(ann, bot_room, f"create {name} --runtime memory")
    (made,) = [info for info in await world.runtime.list_agents() if info.name == name]
    room = await world.find(made)
    assert await answered(ann, room, "hello") == "echo: hello"
    assert f"[`{name}`](https://matrix.to/" in await answered(ann, bot_room, "!agents")
    assert "is called `Grace`" in await answered(ann, bot_room, f"rename '{name}' Grace")
    assert made.agent_id in await answered(ann, bot_room, f"show {made.agent_id}")
    assert "--yes" in await answered(ann, bot_room, f"!letta remove {made.agent_id}")
    assert "Deleted" in await answered(ann, bot_room, f"remove {made.agent_id} --yes")
    assert made.agent_id not in [info.agent_id for info in await world.runtime.list_agents()]


async def test_users_cannot_manage_agents(world: World, bob: Person, room: Room) -> None:
    before = await world.runtime.list_agents()
    line = f"!remove {room.agent.agent_id} --yes"
    assert (
        await answered(bob, room, line)
        == "`!remove` is for admins only; `!help` lists what you may use."
    )
    assert await world.runtime.list_agents() == before
