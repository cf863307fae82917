"""Our users join where they are invited by somebody who may, and know what they are there for."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.builders import PERSON, agent, invite, message
from tests.fake_homeserver import LOST_ANSWER, FakeHomeserver, Fault, failing
from tests.scripts import held
from tests.stage import Stage
from tests.waiting import Clock, eventually, settled

from letta_matrix.matrix.content import CURSOR
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest

ROOM = "!new:test"
GHOST, BOT = "@agent_1:test", "@letta:test"


def present(fake: FakeHomeserver, *more: str) -> None:
    """The room with its person, as the homeserver knows it."""
    fake.members[ROOM] = {PERSON, *more}


async def test_an_invited_agent_joins_and_talks_to_one_person(
    stage: Stage, fake: FakeHomeserver
) -> None:
    present(fake)
    await stage.tell(invite(GHOST, ROOM))
    assert GHOST in fake.members[ROOM]
    assert stage.stores.rooms.ours_in(ROOM) == {GHOST: True}
    await stage.tell(message("hello", ROOM))
    assert fake.bodies(ROOM) == ["echo: hello"]


async def test_who_is_invited_before_their_account_was_made_comes_in(
    stage: Stage, fake: FakeHomeserver
) -> None:
    present(fake)
    unknown = {"errcode": "M_FORBIDDEN", "error": "has not registered this user"}
    fake.fail(f"POST .*{ROOM}/join", Fault(403, unknown))
    await stage.tell(invite(GHOST, ROOM))
    assert GHOST in fake.users
    assert GHOST in fake.members[ROOM]


async def test_who_may_not_come_in_is_not_asked_twice(stage: Stage, fake: FakeHomeserver) -> None:
    present(fake)
    fake.users.add(GHOST)
    fake.fail(f"POST .*{ROOM}/join", Fault(403, {"errcode": "M_FORBIDDEN", "error": "banned"}))
    await stage.tell(invite(GHOST, ROOM))
    assert GHOST not in fake.members[ROOM]
    assert stage.stores.rooms.ours_in(ROOM) == {}


async def test_among_several_people_it_waits_to_be_addressed(
    stage: Stage, fake: FakeHomeserver
) -> None:
    present(fake, "@bob:test")
    await stage.tell(invite(GHOST, ROOM))
    assert stage.stores.rooms.ours_in(ROOM) == {GHOST: False}
    await stage.tell(message("hello", ROOM))
    assert fake.bodies(ROOM) == []
    await stage.tell(message("hello @agent_1", ROOM))
    (answer,) = fake.bodies(ROOM)
    assert answer.startswith("echo: ")
    reply = fake.messages(ROOM)[0]
    assert reply["content"]["m.relates_to"]["rel_type"] == "m.thread"


async def test_a_room_that_fills_is_no_longer_for_two(stage: Stage, fake: FakeHomeserver) -> None:
    present(fake)
    await stage.tell(invite(GHOST, ROOM))
    fake.members[ROOM].add("@bob:test")
    joined: dict[str, Any] = invite("@bob:test", ROOM, sender="@bob:test")
    joined["content"] = {"membership": "join"}
    await stage.tell(joined)
    await eventually(lambda: stage.stores.rooms.ours_in(ROOM) == {GHOST: False})


async def test_the_bot_joins_and_takes_commands(stage: Stage, fake: FakeHomeserver) -> None:
    present(fake)
    await stage.tell(invite(BOT, ROOM))
    assert stage.stores.rooms.ours_in(ROOM) == {BOT: True}
    await stage.tell(message("help", ROOM))
    (answer,) = fake.messages(ROOM)
    assert (answer["sender"], answer["content"]["msgtype"]) == (BOT, "m.notice")


async def test_an_agent_and_the_bot_share_a_room(stage: Stage, fake: FakeHomeserver) -> None:
    present(fake)
    await stage.tell(invite(BOT, ROOM))
    await stage.tell(invite(GHOST, ROOM))
    assert stage.stores.rooms.ours_in(ROOM) == {BOT: True, GHOST: True}
    await stage.tell(message("hello", ROOM))
    assert {event["sender"] for event in fake.messages(ROOM)} == {GHOST}
    await stage.tell(message("!letta help", ROOM))
    assert {event["sender"] for event in fake.messages(ROOM)} == {GHOST}


async def test_where_somebody_is_survives_a_restart(stage: Stage, fake: FakeHomeserver) -> None:
    present(fake)
    await stage.tell(invite(GHOST, ROOM))
    await stage.recover()
    await stage.tell(message("hello", ROOM))
    assert fake.bodies(ROOM) == ["echo: hello"]


@pytest.mark.parametrize("inviter", ["@agent_2:test", BOT])
async def test_our_own_invites_are_left_alone(
    stage: Stage, fake: FakeHomeserver, inviter: str
) -> None:
    await stage.tell(invite(GHOST, ROOM, sender=inviter))
    assert fake.requests == []
    assert stage.stores.rooms.ours_in(ROOM) == {}


async def test_invites_by_people_who_may_not_are_rejected(
    stage: Stage, fake: FakeHomeserver
) -> None:
    await stage.tell(invite(GHOST, ROOM, sender="@ann:elsewhere"))
    assert [one.line.rpartition("/")[2] for one in fake.requests] == ["leave"]
    assert fake.requests[0].user_id == GHOST
    assert stage.stores.rooms.ours_in(ROOM) == {}
    await stage.tell(message("hello", ROOM))
    assert fake.bodies(ROOM) == []


async def test_an_invite_that_was_taken_back_is_let_go(stage: Stage, fake: FakeHomeserver) -> None:
    fake.users.add(GHOST)
    stage.refuse("POST .*/join")
    await stage.tell(invite(GHOST, ROOM), message("hello", ROOM))
    assert stage.stores.rooms.ours_in(ROOM) == {}
    assert fake.bodies(ROOM) == []
    assert stage.dispatcher.counters["turns_given_up"] == 0
    assert await stage.stores.turns.unfinished() == []


async def test_an_invite_is_taken_through_trouble(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    present(fake)
    fake.fail("POST .*/join", failing(503), LOST_ANSWER)
    await stage.admit(invite(GHOST, ROOM))
    await clock.until(lambda: stage.dispatcher.queues.waiting == 0)
    assert stage.stores.rooms.ours_in(ROOM) == {GHOST: True}


async def test_what_was_said_while_it_joined_is_answered(
    stage: Stage, fake: FakeHomeserver
) -> None:
    present(fake)
    joins = fake.hold("POST .*/join")
    await stage.admit(invite(GHOST, ROOM))
    await stage.admit(message("already there?", ROOM))
    await eventually(lambda: fake.matching("/join"))
    joins.set()
    await eventually(lambda: fake.bodies(ROOM) == ["echo: already there?"])


async def test_an_invite_survives_a_crash(stage: Stage, fake: FakeHomeserver) -> None:
    present(fake)
    joins = fake.hold("POST .*/join")
    await stage.admit(invite(GHOST, ROOM), message("hello", ROOM))
    await eventually(lambda: fake.matching("/join"))
    await stage.close()
    joins.set()
    await stage.open()
    await stage.dispatcher.recover()
    await stage.idle()
    assert stage.stores.rooms.ours_in(ROOM) == {GHOST: True}
    await eventually(lambda: fake.bodies(ROOM) == ["echo: hello"])


async def test_invited_again_after_leaving_it_is_back(stage: Stage, fake: FakeHomeserver) -> None:
    present(fake)
    await stage.tell(invite(GHOST, ROOM))
    kick = invite(GHOST, ROOM)
    kick["content"] = {"membership": "leave"}
    await stage.tell(kick)
    await stage.tell(message("anybody?", ROOM))
    assert stage.stores.rooms.ours_in(ROOM) == {}
    assert fake.bodies(ROOM) == []
    await stage.tell(invite(GHOST, ROOM))
    assert stage.stores.rooms.ours_in(ROOM) == {GHOST: True}


async def test_a_new_agent_may_be_invited(stage: Stage, fake: FakeHomeserver) -> None:
    present(fake)
    one = agent(7)
    one.room_id = None
    await stage.stores.directory.reserve([one])
    await stage.tell(invite("@agent_7:test", ROOM))
    assert stage.stores.rooms.rooms_of("@agent_7:test") == [ROOM]


def written(fake: FakeHomeserver, *events: dict[str, Any]) -> None:
    """The homeserver has these, and pushed none of them."""
    fake.events.setdefault(ROOM, []).extend(events)


async def test_what_was_said_before_it_joined_is_answered_in_order(
    stage: Stage, fake: FakeHomeserver
) -> None:
    """Clients make a room and write at once, and the homeserver pushes nothing of it."""
    present(fake)
    called = invite(GHOST, ROOM)
    before, first, second, third = (message(text, ROOM) for text in ("no", "one", "two", "three"))
    written(fake, before, called, first, second)
    joins = fake.hold("POST .*/join")
    await stage.admit(called)
    await eventually(lambda: fake.matching("/join"))
    written(fake, third)
    await stage.admit(third)
    joins.set()
    await eventually(lambda: fake.bodies(ROOM)[4:] == ["echo: one", "echo: two", "echo: three"])
    # Pushed after all, or invited again: nothing is asked twice.
    await stage.tell(first, second, third, called)
    assert len(stage.runtime.asked) == 3


async def test_a_mention_before_it_joined_a_group_is_answered(
    stage: Stage, fake: FakeHomeserver
) -> None:
    present(fake, "@bob:test", "@agent_2:test")
    await stage.stores.rooms.joined(ROOM, "@agent_2:test", direct=False)
    called = invite(GHOST, ROOM)
    named, both = message("@agent_1 hi", ROOM), message("@agent_1 @agent_2 hi", ROOM)
    written(fake, called, named, both)
    joins = fake.hold("POST .*/join")
    # Pushed, since another agent is there already.
    await stage.admit(called, named, both)
    joins.set()
    await stage.idle()
    asked = sorted((one.agent_id, one.message_id) for one in stage.runtime.asked)
    wanted = [("agent-1", both), ("agent-1", named), ("agent-2", both)]
    assert asked == sorted((agent_id, event["event_id"]) for agent_id, event in wanted)


async def test_a_mention_that_comes_between_reading_back_and_being_there_is_answered(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a room in which another agent is: nothing there waits for who is not known there."""
    present(fake, "@bob:test")
    await stage.tell(invite(GHOST, ROOM))
    joined, goes_on = stage.stores.rooms.joined, asyncio.Event()

    async def late(*arguments: Any, **more: Any) -> None:
        await goes_on.wait()
        await joined(*arguments, **more)

    monkeypatch.setattr(stage.stores.rooms, "joined", late)
    await stage.admit(invite("@agent_2:test", ROOM))
    await eventually(lambda: len(fake.matching("GET .*/messages")) > 1)
    await settled()
    await stage.admit(message("hello @agent_2", ROOM), message("nothing to anybody", ROOM))
    goes_on.set()
    await stage.idle()
    assert [one["sender"] for one in fake.messages(ROOM)] == ["@agent_2:test"]


async def test_what_was_corrected_or_removed_before_it_joined_is_not_asked(
    stage: Stage, fake: FakeHomeserver
) -> None:
    present(fake)
    called = invite(GHOST, ROOM)
    removed, kept = message("a secret", ROOM), message("a typo", ROOM)
    removed["content"] = {}
    newest = {"content": {"m.new_content": {"msgtype": "m.text", "body": "no typo"}}}
    kept["unsigned"] = {"m.relations": {"m.replace": newest}}
    written(fake, called, removed, kept)
    await stage.tell(called)
    await eventually(lambda: [one.text for one in stage.runtime.asked] == ["no typo"])


async def test_first_words_survive_a_crash(stage: Stage, fake: FakeHomeserver) -> None:
    present(fake)
    called, said = invite(GHOST, ROOM), message("hello", ROOM)
    written(fake, called, said)
    joins = fake.hold("POST .*/join")
    await stage.admit(called)
    await eventually(lambda: fake.matching("/join"))
    await stage.close()
    joins.set()
    await stage.open()
    later = message("later", ROOM)
    written(fake, later)
    await stage.dispatcher.recover()
    await stage.admit(later)
    await eventually(lambda: [one.text for one in stage.runtime.asked] == ["hello", "later"])


async def test_who_is_there_does_not_wait_after_a_crash_for_who_cannot_come_in(
    stage: Stage, fake: FakeHomeserver
) -> None:
    present(fake)
    await stage.tell(invite(GHOST, ROOM))
    joins = fake.hold("POST .*/join")
    await stage.admit(invite("@agent_2:test", ROOM))
    await eventually(lambda: len(fake.matching("POST .*/join")) == 2)
    await stage.recover()
    both, one = message("hello you two", ROOM), message("and you", ROOM)
    both["content"]["m.mentions"] = {"user_ids": [GHOST, "@agent_2:test"]}
    one["content"]["m.mentions"] = {"user_ids": [GHOST]}
    written(fake, both, one)

    def speakers() -> list[str]:
        return [one["sender"] for one in fake.messages(ROOM) if one["sender"] != PERSON]

    await stage.admit(both, one)
    await eventually(lambda: speakers() == [GHOST, GHOST])
    joins.set()
    await stage.idle()
    assert speakers() == [GHOST, GHOST, "@agent_2:test"]


async def test_who_comes_back_ends_the_answer_that_was_cut_off(
    stage: Stage, fake: FakeHomeserver
) -> None:
    released = asyncio.Event()

    def hold(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        return held(released)

    stage.runtime.script = hold
    present(fake)
    await stage.tell(invite(GHOST, ROOM))
    await stage.admit(message("hello", ROOM))
    await eventually(lambda: fake.messages(ROOM))
    # Removed in the midst of it.
    stage.refuse(r"PUT .*/send/m\.room\.message", times=20)
    released.set()
    await stage.idle()
    (cut,) = fake.bodies(ROOM)
    assert "word19" not in cut
    fake.heal()
    await stage.tell(invite(GHOST, ROOM))
    (whole,) = fake.bodies(ROOM)
    assert whole.endswith("word19")
    assert CURSOR not in whole
    await stage.tell(invite(GHOST, ROOM))
    assert fake.bodies(ROOM) == [whole]


async def test_a_room_of_ten_thousand_events_is_looked_through_in_part(
    stage: Stage, fake: FakeHomeserver
) -> None:
    present(fake, "@bob:test")
    called, early = invite(GHOST, ROOM), message("@agent_1 early", ROOM)
    talk = [message("so", ROOM, sender="@bob:test") for _ in range(10_000)]
    last = message("@agent_1 hello", ROOM)
    written(fake, called, early, *talk, last)
    await stage.tell(called)
    await eventually(lambda: stage.runtime.asked)
    assert [one.message_id for one in stage.runtime.asked] == [last["event_id"]]
    # What was said since, and what stands before the one that is asked.
    assert len(fake.matching("GET .*/messages")) <= 20 + 3
