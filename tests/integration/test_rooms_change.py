"""Rooms in which agents lose their voice, cannot read, or that are replaced; people who come back;
programs that answer for ever. On a real homeserver."""

import asyncio
from collections.abc import Iterable
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import Json, Person, Room, World, new_person
from tests.scripts import held
from tests.waiting import eventually

from letta_matrix.common.identifiers import room_alias
from letta_matrix.conversations import notices
from letta_matrix.conversations.voices import MUTED
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest
from letta_matrix.store.agents import AgentStatus

POWER = "m.room.power_levels"


async def set_power(who: Person, room_id: str, **content: object) -> None:
    """Change a room's power levels."""
    path = f"/rooms/{quote(room_id)}/state/{POWER}"
    levels = await who.state(room_id, POWER)
    status, answer = await who.call("PUT", path, {**levels, **content})
    assert status == 200, answer


async def upgraded(who: Person, room_id: str) -> str:
    """The room that replaces one."""
    version = {"new_version": "11"}
    status, answer = await who.call("POST", f"/rooms/{quote(room_id)}/upgrade", version)
    assert status == 200, answer
    return str(answer["replacement_room"])


async def with_agent(world: World, ann: Person, room: Room, **content: object) -> str:
    """A new room of Ann's with an agent."""
    room_id = await ann.create_room(room.ghost, **content)

    async def came() -> bool:
        return (await ann.members(room_id)).get(room.ghost) == "join"

    await ann.watch(room_id, came, what="the agent comes")
    await eventually(lambda: world.bridge.app.stores.rooms.ours_in(room_id))
    await world.idle()
    return room_id


async def said(who: Person, room_id: str, room: Room, count: int) -> list[str]:
    """What an agent has said somewhere, once there is so much of it."""
    return await who.watch(
        room_id, lambda: who.bodies(room_id, room.ghost), lambda bodies: len(bodies) >= count
    )


async def test_a_muted_agent_is_not_asked_and_its_voice_comes_back(
    world: World, ann: Person, room: Room
) -> None:
    group = await with_agent(world, ann, room)
    await set_power(ann, group, events_default=50, events={"m.reaction": 0})
    asked = await ann.send(group, "hello?")
    await ann.watch(group, lambda: ann.reactions(group, asked), lambda found: MUTED in found)
    assert world.asked(room) == []
    trouble = world.bridge.app.troubles.of(room.agent.agent_id)
    assert trouble.startswith(f"may not speak in {group}: ")
    assert (await world.health())["agents_in_trouble"] == 1
    users = (await ann.state(group, POWER)).get("users", {})
    await set_power(ann, group, users={**users, room.ghost: 50})
    await ann.send(group, "and now?")
    assert await said(ann, group, room, 1) == ["echo: and now?"]
    assert (await world.health())["agents_in_trouble"] == 0


async def test_where_reactions_are_refused_its_own_room_tells(
    world: World, ann: Person, room: Room
) -> None:
    group = await with_agent(world, ann, room)
    await set_power(ann, group, events_default=50)
    await ann.send(group, "hello?")
    (told,) = await ann.answers(room, 1)
    assert told.startswith("I may not write in ")
    assert "power level there is 0, and it takes 50" in told


@pytest.mark.parametrize("by_who_asked", [True, False])
async def test_who_asked_is_told_that_an_agent_was_sent_away(
    world: World,
    ann: Person,
    bob: Person,
    room: Room,
    monkeypatch: pytest.MonkeyPatch,
    by_who_asked: bool,
) -> None:
    released = asyncio.Event()

    def hold(_: TurnRequest) -> Iterable[TurnEvent | float]:
        return held(released)

    monkeypatch.setattr(world.runtime, "script", hold)
    host, guest = (ann, bob) if by_who_asked else (bob, ann)
    group = await with_agent(world, host, room)
    await host.bring(group, guest)
    await ann.mention(group, "hello", room.ghost)
    await said(ann, group, room, 1)
    path = f"/rooms/{quote(group)}"
    assert (await host.call("POST", f"{path}/kick", {"user_id": room.ghost}))[0] == 200
    await eventually(lambda: not world.bridge.app.stores.rooms.ours_in(group))
    released.set()
    await world.idle()
    told = await ann.bodies(room.room_id, room.ghost)
    assert [one.partition(" [")[0] for one in told] == (
        [] if by_who_asked else ["I was sent out of"]
    )
    await host.call("POST", f"{path}/invite", {"user_id": room.ghost})
    await ann.watch(
        group, lambda: ann.bodies(group, room.ghost), lambda bodies: "word19" in bodies[-1]
    )


async def test_an_encrypted_room_is_told_once(world: World, ann: Person, room: Room) -> None:
    megolm = {"algorithm": "m.megolm.v1.aes-sha2"}
    state: Json = {"type": "m.room.encryption", "state_key": "", "content": megolm}
    secret = await with_agent(world, ann, room, initial_state=[state])
    (told,) = await said(ann, secret, room, 1)
    assert (
        quote(room_alias(room.agent.agent_id, "localhost"), safe="")
        in ((await ann.said_by(secret, room.ghost))[0]["content"]["formatted_body"])
    )
    first = await ann.send_content(secret, {**megolm, "ciphertext": "x"}, "m.room.encrypted")
    relation = {"m.relates_to": {"rel_type": "m.replace", "event_id": first}}
    content = {**megolm, "ciphertext": "y", **relation}
    await ann.send_content(secret, content, "m.room.encrypted")
    await ann.send(secret, "in the clear")
    assert await said(ann, secret, room, 2) == [told, "echo: in the clear"]


async def test_a_replaced_room_is_followed(world: World, ann: Person, room: Room) -> None:
    group = await with_agent(world, ann, room, preset="public_chat")
    await ann.send(group, "remember")
    await said(ann, group, room, 1)
    new = await upgraded(ann, group)

    async def came() -> bool:
        return (await ann.members(new)).get(room.ghost) == "join"

    await ann.watch(new, came, what="the agent follows")
    await eventually(lambda: world.bridge.app.stores.rooms.ours_in(new))
    await ann.send(new, "do you?")
    assert await said(ann, new, room, 1) == ["echo: do you?"]
    first, second = world.asked(room)
    assert first.conversation_id == second.conversation_id


async def test_into_a_closed_room_it_comes_when_invited(
    world: World, ann: Person, room: Room
) -> None:
    group = await with_agent(world, ann, room)
    await ann.send(group, "remember")
    await said(ann, group, room, 1)
    new = await upgraded(ann, group)
    path = f"/rooms/{quote(new)}/invite"
    assert (await ann.call("POST", path, {"user_id": room.ghost}))[0] == 200
    await eventually(lambda: world.bridge.app.stores.rooms.ours_in(new))
    await ann.send(new, "do you?")
    assert await said(ann, new, room, 1) == ["echo: do you?"]
    first, second = world.asked(room)
    assert first.conversation_id == second.conversation_id


async def test_a_room_that_claims_to_replace_an_own_one_is_another(
    world: World, ann: Person, bob: Person, room: Room
) -> None:
    predecessor = {"predecessor": {"room_id": room.room_id, "event_id": "$x"}}
    fake = await with_agent(world, bob, room, creation_content=predecessor)
    await bob.send(fake, "give me all")
    assert await said(bob, fake, room, 1) == ["echo: give me all"]
    known = world.bridge.app.stores.directory.get(room.agent.agent_id)
    assert known is not None
    assert known.room_id == room.room_id


async def test_who_left_is_invited_again(world: World, ann: Person, room: Room) -> None:
    bob = await new_person(world.homeserver, "bob")
    await ann.bring(room.room_id, bob)
    assert (await bob.call("POST", f"/rooms/{quote(room.room_id)}/leave"))[0] == 200
    bot = world.config.bot_user_id
    with_bot = await bob.create_room(bot)
    await eventually(lambda: world.bridge.app.stores.rooms.ours_in(with_bot))

    async def membership() -> str:
        return (await ann.members(room.room_id)).get(bob.user_id, "")

    await bob.send(with_bot, f"!invite {room.agent.agent_id}")
    # The homeserver accepts it for them, sooner or later than somebody looks.
    await ann.watch(room.room_id, membership, lambda found: found in ("invite", "join"))
    path = f"/rooms/{quote(room.room_id)}"
    assert (await bob.call("POST", f"{path}/join"))[0] == 200
    await ann.call("POST", f"{path}/kick", {"user_id": bob.user_id})
    await bob.send(with_bot, f"!invite {room.agent.agent_id}")

    async def answered() -> list[str]:
        return await bob.bodies(with_bot, bot)

    answers = await bob.watch(with_bot, answered, lambda found: len(found) >= 2)
    assert answers[1].startswith("Nobody has let ")
    assert await membership() == "leave"


async def test_an_echoing_program_is_left_alone(world: World, ann: Person, room: Room) -> None:
    echo = await new_person(world.homeserver, "echo")
    await ann.bring(room.room_id, echo)
    await echo.send(room.room_id, "hello, who are you?")
    answered = 0
    while True:
        said = (await echo.answers(room, answered + 1))[-1]
        answered += 1
        if said == notices.LOOP:
            break
        assert answered < 20, "it answers for ever"
        await echo.send(room.room_id, said)
    await echo.send(room.room_id, notices.LOOP)
    await ann.send(room.room_id, "and I?")
    bodies = await echo.answers(room, answered + 1)
    assert bodies.count(notices.LOOP) == 1
    assert "and I?" in bodies[-1]


async def test_a_removed_agents_room_leaves_the_space(
    world: World, ann: Person, room: Room
) -> None:
    space, key = quote(world.bridge.app.home.space_id), quote(room.room_id)

    async def child() -> Json:
        status, found = await ann.call("GET", f"/rooms/{space}/state/m.space.child/{key}")
        return found if status == 200 else {}

    await ann.watch("", child, what="the room is in the space")
    await world.runtime.delete_agent(room.agent.agent_id)
    known = world.bridge.app.stores.directory

    def is_removed() -> bool:
        one = known.get(room.agent.agent_id)
        return one is not None and one.status is AgentStatus.REMOVED

    await eventually(is_removed)
    with_bot = await ann.create_room(world.config.bot_user_id)
    await eventually(lambda: world.bridge.app.stores.rooms.ours_in(with_bot))
    await ann.send(with_bot, f"!archive {room.agent.agent_id}")
    await eventually(child, lambda content: content == {})


@pytest.mark.parametrize("key", ["m.room.avatar", POWER])
async def test_the_space_is_dressed(world: World, ann: Person, key: str) -> None:
    space = world.bridge.app.home.space_id

    async def state() -> Json:
        _, answer = await ann.call("GET", f"/rooms/{quote(space)}/state/{key}")
        return answer

    def is_dressed(found: Json) -> bool:
        return bool(found.get("url")) or found.get("users", {}).get(ann.user_id) == 100

    await eventually(state, is_dressed)
