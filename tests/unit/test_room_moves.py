"""Our users follow to the room that replaces another, and what they talked about goes on there."""

from typing import Any

import pytest
from tests.builders import PERSON, invite, message
from tests.fake_homeserver import FakeHomeserver, failing
from tests.stage import Stage
from tests.waiting import Clock, eventually

from letta_matrix.conversations import notices
from letta_matrix.store.agents import Agent
from letta_matrix.store.places import Place

OLD, NEW, OWN = "!old:test", "!new:test", "!1:test"
GHOST, BOT, ADMIN = "@agent_1:test", "@letta:test", "@root:test"
TOMBSTONE = "m.room.tombstone"


@pytest.fixture
async def stage(stage: Stage) -> Stage:
    """With an admin, and with agent 1 in a room that may be replaced."""
    stage._sections["permissions"] = {"test": "user", ADMIN: "admin"}
    await stage.again()
    return stage


def replaced(
    fake: FakeHomeserver, old: str = OLD, new: str = NEW, *, before: str = "", **sender: str
) -> dict[str, Any]:
    """A room is replaced by a new one, which names `before` as what it replaces; the event."""
    predecessor = {"predecessor": {"room_id": before or old}}
    fake.set_state(new, "m.room.create", predecessor)
    fake.members.setdefault(new, {PERSON})
    content = {"body": "gone", "replacement_room": new}
    return fake.set_state(old, TOMBSTONE, content, **sender)


async def in_old(stage: Stage, fake: FakeHomeserver) -> None:
    """Agent 1 talks with somebody in a room for two."""
    fake.members[OLD] = {PERSON}
    await stage.tell(invite(GHOST, OLD))
    await stage.tell(message("first words", OLD))


async def test_an_agent_goes_along_and_the_talk_goes_on(stage: Stage, fake: FakeHomeserver) -> None:
    await in_old(stage, fake)
    await stage.stores.rooms.change_settings("agent-1", OLD, tool_activity=False)
    await stage.tell(replaced(fake))
    assert GHOST in fake.members[NEW]
    assert stage.stores.rooms.ours_in(NEW) == {GHOST: True}
    await stage.tell(message("and on", NEW))
    first, second = stage.runtime.asked
    assert first.conversation_id == second.conversation_id
    assert stage.stores.rooms.settings("agent-1", NEW).tool_activity is False
    assert fake.bodies(NEW) == ["echo: and on"]


async def test_it_holds_after_a_restart(stage: Stage, fake: FakeHomeserver) -> None:
    await in_old(stage, fake)
    await stage.tell(replaced(fake))
    await stage.recover()
    await stage.tell(message("and on", NEW))
    first, second = stage.runtime.asked
    assert first.conversation_id == second.conversation_id


async def test_a_room_that_replaces_nothing_is_left(stage: Stage, fake: FakeHomeserver) -> None:
    await in_old(stage, fake)
    await stage.tell(replaced(fake, before="!other:test"))
    assert GHOST not in fake.members[NEW]
    assert stage.stores.rooms.ours_in(NEW) == {}
    assert fake.bodies(OLD)[-1] == notices.LEFT_BEHIND


async def test_what_the_state_does_not_say_is_not_followed(
    stage: Stage, fake: FakeHomeserver
) -> None:
    await in_old(stage, fake)
    event = replaced(fake)
    # Another one counts: this was refused, or came too late.
    fake.set_state(OLD, TOMBSTONE, {"replacement_room": OLD})
    await stage.tell(event)
    assert not fake.matching(f"POST .*{NEW}/join")


async def test_who_is_not_let_in_says_so_and_comes_when_invited(
    stage: Stage, fake: FakeHomeserver
) -> None:
    await in_old(stage, fake)
    stage.refuse(f"POST .*{NEW}/join")
    await stage.tell(replaced(fake))
    assert fake.bodies(OLD)[-1] == notices.LEFT_BEHIND
    await stage.tell(invite(GHOST, NEW))
    await stage.tell(message("and on", NEW))
    first, second = stage.runtime.asked
    assert first.conversation_id == second.conversation_id


async def test_an_invitation_may_come_first(stage: Stage, fake: FakeHomeserver) -> None:
    await in_old(stage, fake)
    event = replaced(fake)
    await stage.tell(invite(GHOST, NEW))
    await stage.tell(event)
    await stage.tell(message("and on", NEW))
    first, second = stage.runtime.asked
    assert first.conversation_id == second.conversation_id


async def test_nobody_is_heard_in_the_new_room_before_the_talk_goes_on_there(
    stage: Stage, fake: FakeHomeserver
) -> None:
    await in_old(stage, fake)
    stage.refuse(f"POST .*{NEW}/join")
    await stage.tell(replaced(fake))
    looked = len(fake.matching(f"GET .*{OLD}/state/{TOMBSTONE}"))
    released = fake.hold(f"GET .*{OLD}/state/{TOMBSTONE}")
    await stage.admit(invite(GHOST, NEW), message("and on", NEW))
    await eventually(lambda: len(fake.matching(f"GET .*{OLD}/state/{TOMBSTONE}")) > looked)
    await stage.admit(message("and further on", NEW), message("elsewhere", OWN))
    # What is heard is asked by now.
    await eventually(lambda: fake.bodies(OWN))
    released.set()
    await stage.idle()
    first, _, *here = stage.runtime.asked
    assert [one.text for one in here] == ["and on", "and further on"]
    assert {one.conversation_id for one in here} == {first.conversation_id}


async def test_a_try_to_come_in_that_fails_lets_nobody_be_heard_before_the_next(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    await in_old(stage, fake)
    stage.refuse(f"POST .*{NEW}/join")
    await stage.tell(replaced(fake))
    create = f"GET .*{NEW}/state/m.room.create"
    fake.fail(create, *[failing(502)] * 200)
    await stage.admit(invite(GHOST, NEW), message("and on", NEW))
    await eventually(lambda: fake.matching(create))
    tries = len(fake.matching(f"POST .*{NEW}/join"))
    await clock.until(lambda: len(fake.matching(f"POST .*{NEW}/join")) > tries)
    await stage.admit(message("and further on", NEW), message("elsewhere", OWN))
    await eventually(lambda: fake.bodies(OWN))
    fake.heal()
    await clock.until(lambda: not stage.dispatcher.queues.unfinished())
    first, _, *here = stage.runtime.asked
    assert [one.text for one in here] == ["and on", "and further on"]
    assert {one.conversation_id for one in here} == {first.conversation_id}


async def test_what_began_in_the_new_room_goes_on_there(stage: Stage, fake: FakeHomeserver) -> None:
    await in_old(stage, fake)
    conversations = stage.stores.conversations
    await conversations.begin(Place("agent-1", NEW), "conversation-new", "x")
    await conversations.move("agent-1", OLD, NEW)
    assert conversations.current(Place("agent-1", NEW)) == "conversation-new"
    assert conversations.current(Place("agent-1", OLD)) is None
    assert len(await conversations.all_in("agent-1", NEW)) == 2
    again = type(conversations)(stage.stores.database)
    await again.load()
    assert again.current(Place("agent-1", NEW)) == "conversation-new"
    assert again.talks_at(Place("agent-1", NEW))


async def home(stage: Stage, fake: FakeHomeserver) -> Agent:
    """Agent 1 has talked in its own room, which stands in the space."""
    fake.aliases["#agent_1:test"] = OWN
    fake.members[OWN] = {PERSON, ADMIN, GHOST, BOT}
    stage.parts.home.space_id = "!space:test"
    await stage.tell(message("first words", OWN))
    agent = stage.stores.directory.get("agent-1")
    assert agent is not None
    return agent


async def test_an_own_room_moves_by_an_admins_word(stage: Stage, fake: FakeHomeserver) -> None:
    await home(stage, fake)
    moved = list[Agent]()

    async def on_moved(agents: list[Agent]) -> None:
        moved.extend(agents)

    stage.parts.moves.on_moved = on_moved
    await stage.tell(replaced(fake, OWN, sender=ADMIN))
    (agent,) = moved
    assert agent.room_id == NEW
    assert fake.aliases["#agent_1:test"] == NEW
    directory = stage.stores.directory
    assert directory.by_room(NEW) is agent
    assert directory.by_room(OWN) is None
    assert fake.matching("PUT .*!space:test/state/m.space.child/!1:test")[0].body == {}
    await stage.tell(message("and on", NEW))
    first, second = stage.runtime.asked
    assert first.conversation_id == second.conversation_id
    assert stage.stores.rooms.ours_in(NEW) == {}


async def test_an_own_room_moves_without_alias_and_space(
    stage: Stage, fake: FakeHomeserver
) -> None:
    await home(stage, fake)
    stage.refuse("PUT .*/directory/room")
    stage.refuse("m.space.child")
    await stage.tell(replaced(fake, OWN, sender=ADMIN))
    agent = stage.stores.directory.by_room(NEW)
    assert agent is not None
    # The provisioner tries it again.
    assert agent.applied["alias"] == ""


async def test_other_agents_in_an_own_room_go_along(stage: Stage, fake: FakeHomeserver) -> None:
    await home(stage, fake)
    await stage.tell(invite("@agent_2:test", OWN))
    await stage.tell(replaced(fake, OWN, sender=ADMIN))
    assert stage.stores.rooms.ours_in(NEW) == {"@agent_2:test": False}
    await stage.tell(message("hello @agent_2", NEW))
    assert {one["sender"] for one in fake.messages(NEW)} == {"@agent_2:test"}


@pytest.mark.parametrize("sender", [PERSON, "@stranger:elsewhere"])
async def test_an_own_room_moves_by_nobody_elses(
    stage: Stage, fake: FakeHomeserver, sender: str
) -> None:
    agent = await home(stage, fake)
    await stage.tell(replaced(fake, OWN, sender=sender))
    await stage.tell(invite(GHOST, NEW))
    assert stage.stores.directory.get("agent-1") is agent
    assert fake.aliases["#agent_1:test"] == OWN


async def test_no_room_is_replaced_by_another_agents(stage: Stage, fake: FakeHomeserver) -> None:
    await in_old(stage, fake)
    await stage.tell(replaced(fake, new="!2:test"))
    assert not fake.matching("POST .*!2:test/(?:join|leave)")


async def test_a_stranger_makes_up_no_own_room(stage: Stage, fake: FakeHomeserver) -> None:
    """A room that claims to replace an agent's, which does not say so."""
    agent = await home(stage, fake)
    fake.set_state(NEW, "m.room.create", {"predecessor": {"room_id": OWN}}, sender=ADMIN)
    await stage.tell(invite(GHOST, NEW))
    assert stage.stores.directory.get("agent-1") is agent
    assert stage.stores.rooms.ours_in(NEW) == {GHOST: True}


@pytest.mark.parametrize("content", [{}, {"replacement_room": 7}, {"replacement_room": ""}])
async def test_odd_tombstones_do_no_harm(
    stage: Stage, fake: FakeHomeserver, content: dict[str, object]
) -> None:
    await in_old(stage, fake)
    await stage.tell(fake.set_state(OLD, TOMBSTONE, content))
    assert stage.dispatcher.counters["turns_given_up"] == 0
    assert fake.bodies(OLD) == ["echo: first words"]
