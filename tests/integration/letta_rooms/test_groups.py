"""Rooms with several people and agents: who is answered, where, and what the agent is told."""

import re
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import Json, Person, Room
from tests.integration.letta_rooms.acts import invite, word
from tests.integration.letta_world import LettaWorld
from tests.waiting import eventually

from letta_matrix.config import DEFAULT_ENVELOPE


@pytest.fixture
async def group(ann: Person, bob: Person, own: Room) -> Room:
    """A room of people that the agent was invited into."""
    room_id = await ann.create_room(name="Garden club")
    await ann.bring(room_id, bob)
    return await invite(ann, own, room_id)


async def mention(person: Person, room: Room, text: str, *ghosts: str) -> str:
    return await person.mention(room.room_id, text, *(ghosts or (room.ghost,)))


async def all_said(person: Person, room: Room) -> list[str]:
    return await person.bodies(room.room_id, room.ghost)


async def test_a_mention_is_answered_in_a_thread_that_then_needs_none(
    world: LettaWorld, ann: Person, bob: Person, group: Room
) -> None:
    ignored = word("nobody was asked")
    await ann.send(group.room_id, ignored)
    root = await mention(bob, group, "are you there?")
    assert await ann.replies(group, 1, root) == ["echo: are you there?"]
    await ann.say_in_thread(group.room_id, root, "and you hear me too?")
    assert (await ann.replies(group, 2, root))[1] == "echo: and you hear me too?"
    await ann.send(group.room_id, "nobody again")
    other = await mention(ann, group, "last")
    assert await ann.replies(group, 1, other) == ["echo: last"]
    assert len(await all_said(ann, group)) == 3
    assert not [one for one in world.asked(ignored) if one.text.endswith(ignored)]


async def test_pills_and_names_are_mentions_too(ann: Person, group: Room) -> None:
    name = group.agent.name
    link = f'<a href="https://matrix.to/#/{group.ghost}">{name}</a>: by a pill'
    pill = {"format": "org.matrix.custom.html", "formatted_body": link}
    root = await ann.send(group.room_id, f"{name}: by a pill", **pill)
    assert await ann.replies(group, 1, root) == [f"echo: {name}: by a pill"]


async def test_only_the_mentioned_agents_answer(
    world: LettaWorld, ann: Person, group: Room
) -> None:
    other = await world.meet()
    second = await invite(ann, other, group.room_id)
    root = await mention(ann, group, "one of you", second.ghost)
    assert await ann.replies(second, 1, root) == ["echo: one of you"]
    await ann.say_in_thread(group.room_id, root, "go on")
    assert len(await ann.replies(second, 2, root)) == 2
    both = await mention(ann, group, "both of you", group.ghost, second.ghost)
    assert await ann.replies(second, 1, both) == ["echo: both of you"]
    assert await ann.replies(group, 1, both) == ["echo: both of you"]
    assert len(await all_said(ann, group)) == 1


async def test_the_agent_is_told_who_speaks_and_says_nothing_of_it(
    world: LettaWorld, ann: Person, bob: Person
) -> None:
    room = await world.meet()
    alone = word("alone")
    await ann.send(room.room_id, alone)
    assert await ann.replies(room, 1) == [f"echo: {alone}"]
    assert world.asked(alone)[-1].text == alone
    await ann.bring(room.room_id, bob)
    together = word("together")
    said = await bob.send(room.room_id, together)
    assert (await ann.replies(room, 2))[1] == f"echo: {together}"
    envelope, _, words = world.asked(together)[-1].text.partition("\n")
    pattern = re.escape(DEFAULT_ENVELOPE).replace(r"\{", "{").replace(r"\}", "}")
    expected = pattern.format(
        room=re.escape(f"{room.agent.name} - Letta Agent Chat"),
        time=r"\d{4}-\d\d-\d\d \d\d:\d\d UTC",
        name="Bob Builder",
        sender=re.escape(bob.user_id),
        thread="",
    )
    assert re.fullmatch(expected, envelope), envelope
    assert words == together
    quoting = word("what do you think?")
    # To a person alone it would be for that person.
    await ann.reply(room.room_id, said, f"{room.ghost}, {quoting}")
    assert (await ann.replies(room, 3))[2] == f"echo: {room.agent.name}, {quoting}"
    told = world.asked(quoting)[-1].text
    assert f"> Bob Builder: {together}" in told
    assert told.endswith(quoting)


async def test_the_blocked_are_not_heard(
    world: LettaWorld, ann: Person, troll: Person, group: Room
) -> None:
    trap = await troll.create_room(group.ghost, name="Trap")
    await ann.bring(group.room_id, troll)
    evil = word("obey me")
    root = await mention(troll, group, evil)
    await troll.send(group.room_id, "!letta help")
    await ann.say_in_thread(group.room_id, root, "what was that?")
    good = await mention(ann, group, "good")
    assert await ann.replies(group, 1, good) == ["echo: good"]
    await ann.say_in_thread(group.room_id, good, "really")
    await ann.replies(group, 2, good)
    await troll.say_in_thread(group.room_id, good, evil)
    await ann.say_in_thread(group.room_id, good, "yes")
    assert (await ann.replies(group, 3, good))[2] == "echo: yes"
    assert len(await all_said(ann, group)) == 3
    assert world.asked(evil) == []

    async def membership() -> str:
        return (await troll.members(trap))[group.ghost]

    await troll.watch(trap, membership, lambda it: it == "leave")


async def test_commands_in_a_shared_room(
    world: LettaWorld, ann: Person, bob: Person, group: Room
) -> None:
    second = await invite(ann, await world.meet(), group.room_id)
    await bob.send(group.room_id, "!help")
    await bob.send(group.room_id, "!letta help")

    async def answers() -> list[str]:
        return [*await all_said(ann, group), *await all_said(ann, second)]

    (help_text,) = await ann.watch(group.room_id, answers)
    assert "!letta" in help_text
    assert "!create" not in help_text
    await ann.send(group.room_id, "!letta help")
    await ann.watch(group.room_id, answers, lambda all_: len(all_) == 2)
    await ann.send(group.room_id, "!letta sing")
    said = await ann.watch(group.room_id, answers, lambda all_: len(all_) == 3)
    assert any("I do not know `!sing`" in one for one in said)


async def test_alone_with_somebody_an_agent_needs_no_mention(
    ann: Person, bob: Person, own: Room
) -> None:
    room_id = await ann.create_room(is_direct=True)
    room = await invite(ann, own, room_id)
    await ann.send(room_id, "just us")
    assert await ann.replies(room, 1) == ["echo: just us"]
    await ann.bring(room_id, bob)

    async def crowded() -> bool:
        before = len(await all_said(ann, room))
        root = await mention(ann, room, "with a mention")
        await ann.replies(room, 1, root)
        await bob.send(room_id, "without one")
        root = await mention(ann, room, "and again")
        await ann.replies(room, 1, root)
        return len(await all_said(ann, room)) == before + 2

    assert await eventually(crowded, bool)


async def test_who_was_removed_is_silent_and_can_come_back(ann: Person, group: Room) -> None:
    path = f"/rooms/{quote(group.room_id)}/kick"
    assert (await ann.call("POST", path, {"user_id": group.ghost}))[0] == 200
    away = await mention(ann, group, "are you gone?")
    back = await invite(ann, group, group.room_id)
    root = await mention(ann, back, "welcome back")
    assert await ann.replies(back, 1, root) == ["echo: welcome back"]
    said: list[Json] = await ann.said_by(group.room_id, group.ghost)
    assert away not in [one["thread"] for one in said]
