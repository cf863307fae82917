"""Commands and reactions of people on a real homeserver."""

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import Json, Person, Room, World, new_agent
from tests.scripts import held, obey
from tests.waiting import eventually

from letta_matrix.runtimes.memory import Script
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest


def work(request: TurnRequest) -> Iterable[TurnEvent | float]:
    """`work` never comes to an end; else as `obey`."""
    # What stands before it tells who is speaking.
    line = request.text.rpartition("\n")[2]
    return held(asyncio.Event()) if line == "work" else obey(replace(request, text=line))


@pytest.fixture(scope="module")
def script() -> Script:
    return work


@pytest.fixture(scope="module")
async def own(world: World, ann: Person, bob: Person) -> Room:
    """The room of an agent for the whole file, with both people in it."""
    met = await world.meet()
    await ann.bring(met.room_id, bob)
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


async def answered(person: Person, room: Room, line: str) -> str:
    """Say something; returns the next thing the agent or the bot says."""
    before = len(await person.said(room))
    await person.send(room.room_id, line)
    return (await person.answers(room, before + 1))[before]


async def says(person: Person, room: Room, words: str) -> None:
    """Wait until the agent has said something with these words."""

    async def bodies() -> list[str]:
        return await person.bodies(room.room_id, room.ghost)

    await person.watch(room.room_id, bodies, lambda all_: any(words in body for body in all_))


async def test_commands_are_answered_by_notices_and_never_prompt(
    world: World, ann: Person, bob: Person, room: Room
) -> None:
    await ann.bring(room.room_id, bob)
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


async def test_a_runtime_without_conversations_says_so(world: World, ann: Person) -> None:
    agent = new_agent("Otto")
    world.others[0].add(agent)
    room = await world.find(agent)
    assert "keeps one single history" in await answered(ann, room, "!new")


@pytest.mark.parametrize("how", ["!cancel", "🛑"])
async def test_what_was_said_before_a_stop_is_kept(
    ann: Person, bob: Person, own: Room, how: str
) -> None:
    before = len(await ann.said(own))
    event_id = await ann.send(own.room_id, "work")

    async def shown() -> list[Json]:
        return (await ann.said(own))[before:]

    await ann.watch(own.room_id, shown)
    await bob.react(own.room_id, event_id, "🛑")
    await bob.send(own.room_id, "!cancel")
    await ann.watch(own.room_id, shown, lambda said: len(said) == 2)
    if how == "🛑":
        await ann.react(own.room_id, event_id, how)
    else:
        await ann.send(own.room_id, how)
    others = "What is worked on here was asked by others: they can stop it, or an admin."
    assert (await ann.answers(own, before + 3))[before:] == ["word0", others, "Stopped."]
    assert "Nothing is worked on here" in await answered(ann, own, "!cancel")


async def test_a_paused_agent_leaves_messages_alone(ann: Person, own: Room) -> None:
    assert "Paused" in await answered(ann, own, "!pause")
    await ann.send(own.room_id, "are you there?")
    assert "Paused here" in await answered(ann, own, "!status")
    assert "answers here again" in await answered(ann, own, "!resume")
    assert await answered(ann, own, "hello") == "echo: hello"
    assert "echo: are you there?" not in await ann.bodies(own.room_id, own.ghost)


async def test_the_model_is_switched_by_admins_alone(
    world: World, ann: Person, bob: Person, own: Room
) -> None:
    assert "memory/large" in await answered(bob, own, "!model")
    assert "Only an admin" in await answered(bob, own, "!model memory/large")
    assert "from now on" in await answered(ann, own, "!model memory/large")
    listing = {info.agent_id: info for info in await world.runtime.list_agents()}
    assert listing[own.agent.agent_id].model == "memory/large"


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


async def test_users_cannot_manage_agents(world: World, bob: Person, own: Room) -> None:
    before = await world.runtime.list_agents()
    line = f"!remove {own.agent.agent_id} --yes"
    assert (
        await answered(bob, own, line)
        == "`!remove` is for admins only; `!help` lists what you may use."
    )
    assert await world.runtime.list_agents() == before
