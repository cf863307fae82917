"""An agent that may not speak is not asked, and whoever asked it is told."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from tests.builders import PERSON, invite, message, said_in
from tests.fake_homeserver import FakeHomeserver
from tests.scripts import held
from tests.stage import Stage
from tests.waiting import eventually

from letta_matrix.conversations import notices
from letta_matrix.conversations.voices import MUTED
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest
from letta_matrix.store.turns import Outcome

ROOM, GROUP = "!1:test", "!group:test"
GHOST, BOB = "@agent_1:test", "@bob:test"
LINK = "[`!group:test`](https://matrix.to/#/%21group%3Atest)"
LEVELS = "m.room.power_levels"


def levels(fake: FakeHomeserver, room_id: str = ROOM, **content: Any) -> dict[str, Any]:
    """The room's power levels from now on; their event."""
    return fake.set_state(room_id, LEVELS, content)


async def test_it_is_not_asked_and_says_so_by_a_reaction(
    stage: Stage, fake: FakeHomeserver
) -> None:
    levels(fake, events={"m.room.message": 50, "m.reaction": 0})
    turn = await stage.run("hello")
    assert stage.runtime.asked == []
    assert fake.bodies(ROOM) == []
    assert await stage.outcome(turn) is Outcome.FAILED
    (reaction,) = fake.messages(ROOM, "m.reaction")
    relation = reaction["content"]["m.relates_to"]
    assert (reaction["sender"], relation["key"]) == (GHOST, MUTED)
    assert relation["event_id"] == turn.event_id


async def test_operators_see_where(stage: Stage, fake: FakeHomeserver) -> None:
    levels(fake, events_default=50)
    await stage.run("hello")
    voices = stage.parts.voices
    trouble = f"may not speak in {ROOM}: its power level is 0, and speaking takes 50"
    assert voices.trouble_of("agent-1") == trouble
    assert voices.troubles == {"agent-1": trouble}
    assert voices.trouble_of("agent-2") == voices.trouble_of("agent-9") == ""


@pytest.mark.parametrize("told", [True, False])
async def test_it_ends_by_itself(stage: Stage, fake: FakeHomeserver, *, told: bool) -> None:
    levels(fake, events_default=50, events={"m.reaction": 0})
    await stage.run("hello")
    given = levels(fake, events_default=50, users={GHOST: 50})
    if told:
        await stage.admit(given)
        assert stage.parts.voices.troubles == {}
    await stage.run("and now?")
    assert fake.bodies(ROOM) == ["echo: and now?"]
    assert stage.parts.voices.troubles == {}


async def test_power_that_is_taken_is_noticed(stage: Stage, fake: FakeHomeserver) -> None:
    levels(fake)
    await stage.run("hello")
    await stage.admit(levels(fake, events_default=50, events={"m.reaction": 0}))
    await stage.run("still there?")
    assert fake.bodies(ROOM) == ["echo: hello"]
    assert len(fake.messages(ROOM, "m.reaction")) == 1


async def test_levels_are_read_once(stage: Stage, fake: FakeHomeserver) -> None:
    levels(fake, users={GHOST: 100}, events_default=50)
    for text in ("one", "two", "three"):
        await stage.run(text)
    assert len(fake.matching(f"GET .*/state/{LEVELS}")) == 1
    assert len(fake.bodies(ROOM)) == 3


async def test_creators_stand_above(stage: Stage, fake: FakeHomeserver) -> None:
    levels(fake, events_default=50)
    fake.set_state(ROOM, "m.room.create", {"room_version": "12"}, sender=GHOST)
    await stage.run("hello")
    assert fake.bodies(ROOM) == ["echo: hello"]


async def test_a_homeserver_that_tells_nothing_keeps_nobody_silent(
    stage: Stage, fake: FakeHomeserver
) -> None:
    stage.refuse(f"GET .*/state/{LEVELS}")
    await stage.run("hello")
    assert fake.bodies(ROOM) == ["echo: hello"]


async def in_a_group(stage: Stage, fake: FakeHomeserver) -> None:
    fake.members[GROUP] = {PERSON, "@bob:test"}
    await stage.tell(invite(GHOST, GROUP))
    levels(fake, GROUP, events_default=50)


async def test_who_may_be_in_its_room_is_told_there(stage: Stage, fake: FakeHomeserver) -> None:
    fake.members[ROOM] = {PERSON}
    await in_a_group(stage, fake)
    await stage.tell(message("hello @agent_1", GROUP), message("@agent_1?", GROUP))
    assert stage.runtime.asked == []
    assert fake.bodies(GROUP) == []
    assert fake.bodies(ROOM, "m.notice") == [notices.muted(LINK, 0, 50)]


async def test_others_are_told_in_a_new_room_of_theirs(stage: Stage, fake: FakeHomeserver) -> None:
    await in_a_group(stage, fake)
    await stage.tell(message("hello @agent_1", GROUP))
    (made,) = fake.matching("POST .*/createRoom")
    assert (made.user_id, made.body["invite"], made.body["is_direct"]) == (GHOST, [PERSON], True)
    (room_id,) = [room for room in fake.members if room.startswith("!room")]
    assert stage.stores.rooms.ours_in(room_id) == {GHOST: True}
    assert fake.bodies(room_id)[0].startswith("I may not write in ")
    await stage.tell(message("@agent_1?", GROUP))
    assert len(fake.bodies(room_id)) == 1
    await stage.tell(message("hello", room_id))
    assert fake.bodies(room_id)[-1] == "echo: hello"


async def test_who_is_told_where_a_reaction_is_refused(stage: Stage, fake: FakeHomeserver) -> None:
    await in_a_group(stage, fake)
    levels(fake, GROUP, events_default=50, events={"m.reaction": 0})
    stage.refuse("PUT .*/send/m.reaction")
    await stage.tell(message("hello @agent_1", GROUP))
    assert len(fake.matching("POST .*/createRoom")) == 1


async def test_power_taken_while_it_answers_is_told(stage: Stage, fake: FakeHomeserver) -> None:
    levels(fake)
    await stage.run("one")
    levels(fake, events_default=50, events={"m.reaction": 0})
    stage.refuse("PUT .*/send/m.room.message")
    turn = await stage.run("two")
    assert await stage.outcome(turn) is Outcome.FAILED
    assert len(fake.messages(ROOM, "m.reaction")) == 1


async def test_odd_events_do_no_harm(stage: Stage, fake: FakeHomeserver) -> None:
    levels(fake, events_default=50, events={"m.reaction": 0})
    await stage.run("hello")
    for odd in ({}, {"type": LEVELS}, {"type": "m.room.member", "state_key": ["x"]}):
        stage.parts.voices.changed({"room_id": ROOM, **odd})
        stage.parts.voices.changed(odd)
    assert stage.parts.voices.troubles
    stage.parts.voices.changed({"room_id": ROOM, "type": "m.room.member", "state_key": GHOST})
    assert stage.parts.voices.troubles == {}


async def in_an_open_group(stage: Stage, fake: FakeHomeserver) -> asyncio.Event:
    """The agent is at work there on what it was asked; the event lets it go on."""
    fake.members |= {ROOM: {PERSON}, GROUP: {PERSON, BOB}}
    fake.guarded = {GROUP}
    await stage.tell(invite(GHOST, GROUP))
    released = asyncio.Event()

    def hold(_: TurnRequest) -> Iterable[TurnEvent | float]:
        return held(released)

    stage.runtime.script = hold
    asked = message("hello @agent_1", GROUP)
    await stage.admit(asked, said_in(asked["event_id"], "and then?", GROUP))
    await eventually(lambda: fake.messages(GROUP))
    return released


async def sent_away(stage: Stage, fake: FakeHomeserver, by: str) -> None:
    fake.members[GROUP].discard(GHOST)
    await stage.admit(
        fake.set_state(GROUP, "m.room.member", {"membership": "leave"}, GHOST, sender=by)
    )


async def test_who_asked_is_told_that_an_answer_is_cut_off(
    stage: Stage, fake: FakeHomeserver
) -> None:
    released = await in_an_open_group(stage, fake)
    await sent_away(stage, fake, BOB)
    released.set()
    await stage.idle()
    # What waited behind it is not asked any more.
    assert len(stage.runtime.asked) == 1
    assert fake.bodies(ROOM, "m.notice") == [notices.cut_off(LINK), notices.gone_from(LINK)]
    await stage.tell(invite(GHOST, GROUP))
    assert fake.bodies(GROUP)[0].endswith("word19")


async def test_who_sent_it_away_is_told_nothing(stage: Stage, fake: FakeHomeserver) -> None:
    released = await in_an_open_group(stage, fake)
    await sent_away(stage, fake, PERSON)
    released.set()
    await stage.idle()
    assert len(stage.runtime.asked) == 1
    assert fake.bodies(ROOM) == []


async def test_an_answer_that_is_refused_for_another_reason_is_no_aside(
    stage: Stage, fake: FakeHomeserver
) -> None:
    fake.set_state(ROOM, "m.room.member", {"membership": "join"}, GHOST, sender=GHOST)
    stage.refuse("PUT .*/send/m.room.message", errcode="M_UNKNOWN")
    turn = await stage.run("hello")
    assert await stage.outcome(turn) is Outcome.FAILED
    assert fake.matching("POST .*/createRoom") == []


@pytest.mark.parametrize("may_react", [True, False])
async def test_a_command_gets_a_sign_too(
    stage: Stage, fake: FakeHomeserver, may_react: bool
) -> None:
    levels(fake, events_default=50, events={"m.reaction": 0 if may_react else 50})
    stage.refuse("PUT .*/send/m.room.message")
    command = message("!status")
    await stage.tell(command)
    if may_react:
        (sign,) = fake.messages(ROOM, "m.reaction")
        assert sign["content"]["m.relates_to"]["event_id"] == command["event_id"]
    else:
        (made,) = fake.matching("POST .*/createRoom")
        assert made.body["invite"] == [PERSON]
