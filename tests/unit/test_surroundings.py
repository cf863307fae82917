"""Who is in a room, and whose the messages are that others refer to, decide whom one is for."""

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.builders import PERSON, invite, message, reply_to, said_in
from tests.fake_homeserver import FakeHomeserver, failing
from tests.stage import Stage
from tests.waiting import Clock, eventually, settled

ROOM, OWN = "!new:test", "!1:test"
GHOST, OTHER, BOT, BOB = "@agent_1:test", "@agent_2:test", "@letta:test", "@bob:test"
EVE = "@eve:test"
_rooms = itertools.count(1)


def member(user_id: str, membership: str, room_id: str = ROOM) -> dict[str, Any]:
    return invite(user_id, room_id, sender=user_id, content={"membership": membership})


@pytest.fixture
async def direct(stage: Stage, fake: FakeHomeserver) -> Stage:
    """An agent that a person has invited to talk to it alone."""
    fake.members[ROOM] = {PERSON}
    await stage.tell(invite(GHOST, ROOM))
    return stage


def asked(stage: Stage) -> list[str]:
    return [request.text.split("\n")[-1] for request in stage.runtime.asked]


async def test_who_is_invited_and_never_comes_does_not_count(direct: Stage) -> None:
    await direct.tell(invite(BOB, ROOM), message("hello", ROOM))
    assert direct.stores.rooms.ours_in(ROOM) == {GHOST: True}
    assert asked(direct) == ["hello"]


async def test_who_comes_and_goes_counts_at_once(direct: Stage, fake: FakeHomeserver) -> None:
    fake.members[ROOM].add(BOB)
    await direct.tell(member(BOB, "join"), message("hello", ROOM))
    assert asked(direct) == []
    fake.members[ROOM].discard(BOB)
    await direct.tell(member(BOB, "leave"), message("alone again", ROOM))
    assert asked(direct) == ["alone again"]
    await direct.tell(member(BOB, "join"), member(BOB, "ban"), message("still", ROOM))
    assert asked(direct) == ["alone again", "still"]


async def test_who_wrote_before_going_is_not_taken_to_have_gone_before(
    direct: Stage, fake: FakeHomeserver
) -> None:
    """Whoever looks into the room learns of it before what was written there is pushed."""
    fake.members[ROOM].add(BOB)
    await direct.tell(member(BOB, "join"))
    fake.members[ROOM].discard(BOB)
    await direct.parts.surroundings.look(ROOM)
    await direct.tell(message("bye, Ann", ROOM, sender=BOB))
    await direct.tell(member(BOB, "leave"), message("alone again", ROOM))
    assert asked(direct) == ["alone again"]


async def test_a_new_name_is_no_new_person(direct: Stage) -> None:
    await direct.tell(member(PERSON, "join"), message("hello", ROOM))
    assert asked(direct) == ["hello"]


@pytest.mark.parametrize("guest", [BOT, OTHER])
async def test_one_of_us_that_comes(direct: Stage, guest: str) -> None:
    """Our bot says nothing by itself; with another agent nobody knows who is meant."""
    await direct.tell(invite(guest, ROOM), message("hello", ROOM, event_id="$first"))
    await direct.tell(message("hello", ROOM))
    assert ("hello" in asked(direct)[1:]) is (guest == BOT)
    await direct.tell(member(guest, "leave"), message("alone again", ROOM))
    assert asked(direct)[-1] == "alone again"


async def test_who_went_after_a_restart_is_noticed(direct: Stage, fake: FakeHomeserver) -> None:
    fake.members[ROOM].add(BOB)
    await direct.tell(member(BOB, "join"))
    await direct.again()
    assert direct.stores.rooms.ours_in(ROOM) == {GHOST: False}
    fake.members[ROOM].discard(BOB)
    await direct.tell(member(BOB, "leave"), message("alone again", ROOM))
    assert asked(direct) == ["alone again"]


async def test_who_went_unheard_is_noticed_at_the_start(
    direct: Stage, fake: FakeHomeserver
) -> None:
    fake.members[ROOM].add(BOB)
    await direct.tell(member(BOB, "join"))
    fake.members[ROOM].discard(BOB)
    await direct.again()
    await direct.parts.surroundings.look_at_all()
    assert direct.stores.rooms.ours_in(ROOM) == {GHOST: True}


async def test_what_is_heard_wrongly_is_looked_at(direct: Stage) -> None:
    """Events that were missed come late."""
    await direct.tell(member(BOB, "join"))
    await eventually(lambda: direct.stores.rooms.ours_in(ROOM) == {GHOST: True})


async def test_a_homeserver_that_tells_nothing_stops_no_message(
    direct: Stage, fake: FakeHomeserver
) -> None:
    await direct.again()
    fake.fail("joined_members", *[failing(403)] * 5)
    await direct.tell(member(BOB, "join"), message("hello", ROOM))
    assert asked(direct) == ["hello"]


async def test_in_an_agents_room_people_talk_to_each_other(
    stage: Stage, fake: FakeHomeserver
) -> None:
    fake.members["!1:test"] = {PERSON, BOB}
    said = message("is it good?", sender=BOB)
    await stage.tell(said)
    await stage.tell(reply_to(said["event_id"], "yes"), message("@bob:test?"))
    await stage.tell(reply_to(said["event_id"], "hm", sender=BOB))
    assert asked(stage) == ["is it good?", "hm"]
    # A process that has not heard it finds it in the database, or asks.
    await stage.again()
    fake.events["!1:test"] = [{**message("old", sender=BOB), "event_id": "$old"}]
    await stage.tell(reply_to(said["event_id"], "yes"), reply_to("$old", "yes"))
    assert asked(stage) == ["is it good?", "hm"]


async def test_alone_one_may_mention_whom_one_likes(stage: Stage, fake: FakeHomeserver) -> None:
    fake.members["!1:test"] = {PERSON}
    await stage.tell(message("write to @bob:test"))
    assert asked(stage) == ["write to @bob:test"]


async def group_of(stage: Stage, fake: FakeHomeserver) -> None:
    fake.members[ROOM] = {PERSON, BOB}
    await stage.tell(invite(GHOST, ROOM))


@pytest.mark.parametrize("heard", [True, False])
async def test_a_thread_on_what_an_agent_said_by_itself(
    stage: Stage, fake: FakeHomeserver, heard: bool
) -> None:
    # What is told of the thread is looked up by itself.
    await stage.again(thread_context=0)
    await group_of(stage, fake)
    root = message("news!", ROOM, sender=GHOST)
    if heard:
        await stage.tell(root)
    else:
        fake.events.setdefault(ROOM, []).append(root)
    await stage.tell(said_in(root["event_id"], "what is that?", ROOM))
    assert asked(stage) == ["what is that?"]
    assert len(fake.matching("/event/")) == (0 if heard else 1)
    await stage.tell(said_in(root["event_id"], "go on", ROOM, sender=BOB))
    assert asked(stage)[1:] == ["go on"]


async def test_a_thread_on_what_a_person_said_is_theirs(stage: Stage, fake: FakeHomeserver) -> None:
    await group_of(stage, fake)
    root = message("news!", ROOM)
    await stage.tell(root, said_in(root["event_id"], "what is that?", ROOM, sender=BOB))
    assert asked(stage) == []


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("room_id", ["!1:test", ROOM])
async def test_a_plain_reply_goes_on_in_the_thread_of_what_it_answers(
    stage: Stage, fake: FakeHomeserver, room_id: str, restart: bool
) -> None:
    if room_id == ROOM:
        await group_of(stage, fake)
    await stage.tell(said_in("$root", "@agent_1 begin", room_id))
    (answer,) = fake.messages(room_id)
    if restart:
        await stage.again()
    await stage.tell(reply_to(answer["event_id"], "and then?", room_id))
    first, second = stage.runtime.asked
    assert first.conversation_id == second.conversation_id
    assert fake.messages(room_id)[-1]["content"]["m.relates_to"]["event_id"] == "$root"


async def test_an_event_of_another_room_is_none(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.tell(said_in("$root", "begin", "!2:test"))
    (answer,) = fake.messages("!2:test")
    await stage.tell(reply_to(answer["event_id"], "and then?"))
    (said,) = fake.messages("!1:test")
    assert "m.relates_to" not in said["content"]


steps = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["join", "leave", "invite"]), st.sampled_from([BOB, "@eve:test"])
        ),
        st.tuples(st.sampled_from(["come", "go"]), st.sampled_from([OTHER, BOT])),
        st.tuples(st.sampled_from(["write", "name"]), st.sampled_from([PERSON, BOB])),
        st.just(("restart", "")),
    ),
    max_size=14,
)


@given(steps)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_coming_and_going_is_followed(
    stage: Stage, fake: FakeHomeserver, steps: list[tuple[str, str]]
) -> None:
    room_id = f"!any{next(_rooms)}:test"
    fake.members[room_id] = {PERSON}
    # All examples stand in one minute.
    await stage.again(person_per_minute=0)
    await stage.tell(invite(GHOST, room_id))
    here, stage.runtime.asked[:] = fake.members[room_id], []
    for step, user_id in steps:
        before = len(stage.runtime.asked)
        if step == "restart":
            await stage.again(person_per_minute=0)
        elif step == "invite" or step == "come":
            await stage.tell(invite(user_id, room_id))
        elif step in ("join", "leave", "go"):
            (here.add if step == "join" else here.discard)(user_id)
            await stage.tell(member(user_id, "join" if step == "join" else "leave", room_id))
        elif user_id in here:
            text = "@agent_1 hello" if step == "name" else "hello"
            await stage.tell(message(text, room_id, sender=user_id))
            is_alone = OTHER not in here and len(here - {GHOST, OTHER, BOT}) == 1
            told = len(stage.runtime.asked) - before
            assert told == (1 if step == "name" or is_alone else 0)


async def test_a_slow_homeserver_holds_up_a_transaction_once(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    await group_of(stage, fake)
    released = fake.hold("/event/")
    clock.stop()
    replies = [reply_to(f"$old{number}", "@agent_1 hi", ROOM) for number in range(4)]
    admitting = asyncio.create_task(stage.admit(*replies, message("!1", OWN)))
    await eventually(lambda: fake.matching("/event/"))
    await settled(admitting)
    clock.advance(2)
    await eventually(admitting.done)
    clock.go()
    released.set()
    await stage.idle()
    assert len(asked(stage)) == 5
