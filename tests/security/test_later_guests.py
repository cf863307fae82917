"""Who came later is told by the bridge nothing of what was said before, where the room hides it."""

from typing import Any

import pytest
from tests.builders import agent, message, reply_to, said_in
from tests.command_stage import HERE, stage_on
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.stage import Stage

from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database

ROOM = "!1:test"
ANN, BOB, EVE, ADMIN = "@ann:test", "@bob:test", "@eve:test", "@root:test"
GHOST = agent(1).user_id
SECRET = "the code is 4711"
NOW = 1_795_000_000_000
"""When the room began (ms)."""


def came(
    fake: FakeHomeserver, who: str, minute: int, membership: str = "join", before: str = ""
) -> Any:
    """A member event of that minute of the room, which took the place of `before`."""
    event = fake.set_state(ROOM, "m.room.member", {"membership": membership}, who)
    event["origin_server_ts"] = NOW + minute * 60_000
    event["unsigned"] = {"replaces_state": before} if before else {}
    return event


def said(fake: FakeHomeserver, words: str, minute: int, **fields: Any) -> Any:
    event = message(words, ROOM, origin_server_ts=NOW + minute * 60_000, **fields)
    fake.events[ROOM].append(event)
    return event


@pytest.fixture
async def room(stage: Stage, fake: FakeHomeserver) -> Stage:
    """Ann told her secret at minute 10, Eve was invited at minute 20 and came at 30."""
    fake.set_state(ROOM, "m.room.history_visibility", {"history_visibility": "invited"})
    fake.members[ROOM] = {ANN, EVE, GHOST}
    came(fake, ANN, 1)
    invited = came(fake, EVE, 20, "invite")
    came(fake, EVE, 30, before=invited["event_id"])
    return stage


async def told(stage: Stage, event: Any) -> str:
    await stage.tell(event)
    return stage.runtime.asked[-1].text


@pytest.mark.parametrize(
    ("rule", "who", "minute", "quoted"),
    [
        ("invited", EVE, 10, False),
        ("invited", EVE, 25, True),
        ("invited", EVE, 35, True),
        ("joined", EVE, 10, False),
        ("joined", EVE, 25, False),
        ("joined", EVE, 35, True),
        ("odd", EVE, 25, False),
        ("shared", EVE, 10, True),
        ("world_readable", EVE, 10, True),
        ("invited", ANN, 10, True),
        ("invited", "@nobody:test", 35, False),
    ],
)
async def test_a_quote_is_of_what_its_sender_could_read(
    room: Stage, fake: FakeHomeserver, rule: str, who: str, minute: int, quoted: bool
) -> None:
    fake.set_state(ROOM, "m.room.history_visibility", {"history_visibility": rule})
    secret = said(fake, SECRET, minute, sender=BOB)
    text = await told(room, reply_to(secret["event_id"], "what does this say?", sender=who))
    assert "what does this say?" in text
    assert (SECRET in text) is quoted


async def test_a_file_that_is_quoted_is_kept_back_too(room: Stage, fake: FakeHomeserver) -> None:
    file = {"msgtype": "m.file", "body": "plan.txt", "url": "mxc://test/1"}
    secret = said(fake, "", 10, sender=BOB, content=file)
    assert "plan.txt" not in await told(room, reply_to(secret["event_id"], "read it", sender=EVE))
    assert not fake.matching("media")
    assert "plan.txt" in await told(room, reply_to(secret["event_id"], "read it", sender=ANN))


async def test_a_new_name_is_no_arrival(room: Stage, fake: FakeHomeserver) -> None:
    before = [one for one in fake.events[ROOM] if one.get("state_key") == ANN][-1]
    for minute in (40, 41, 42):
        before = came(fake, ANN, minute, before=before["event_id"])
    secret = said(fake, SECRET, 10, sender=BOB)
    assert SECRET in await told(room, reply_to(secret["event_id"], "well?", sender=ANN))


async def test_who_comes_again_begins_again(room: Stage, fake: FakeHomeserver) -> None:
    gone = came(fake, ANN, 5, "leave")
    came(fake, ANN, 15, before=gone["event_id"])
    secret = said(fake, SECRET, 10, sender=BOB)
    assert SECRET not in await told(room, reply_to(secret["event_id"], "well?", sender=ANN))


async def test_a_guests_own_server_does_not_say_when_they_came(
    room: Stage, fake: FakeHomeserver
) -> None:
    fake.set_state(ROOM, "m.room.history_visibility", {"history_visibility": "joined"})
    invited = came(fake, EVE, 20, "invite")
    came(fake, EVE, 1, before=invited["event_id"])
    secret = said(fake, SECRET, 10, sender=BOB)
    assert SECRET not in await told(room, reply_to(secret["event_id"], "well?", sender=EVE))


async def test_what_nobody_can_tell_is_left_out(room: Stage, fake: FakeHomeserver) -> None:
    secret = said(fake, SECRET, 35, sender=BOB)
    room.refuse("GET .*/state/m.room.history_visibility")
    assert SECRET not in await told(room, reply_to(secret["event_id"], "well?", sender=EVE))
    # It is asked again the next time.
    assert SECRET in await told(room, reply_to(secret["event_id"], "well?", sender=EVE))


async def test_a_new_rule_holds_at_once(room: Stage, fake: FakeHomeserver) -> None:
    secret = said(fake, SECRET, 10, sender=BOB)
    assert SECRET not in await told(room, reply_to(secret["event_id"], "well?", sender=EVE))
    shared = {"history_visibility": "shared"}
    await room.tell(fake.set_state(ROOM, "m.room.history_visibility", shared))
    assert SECRET in await told(room, reply_to(secret["event_id"], "well?", sender=EVE))


async def test_the_root_of_a_thread_is_kept_back(room: Stage, fake: FakeHomeserver) -> None:
    first, other = said(fake, SECRET, 10, sender=BOB), said(fake, SECRET, 11, sender=BOB)
    empty = Fault(200, {"chunk": []})
    fake.fail("GET .*/m.thread", empty, empty)
    assert SECRET not in await told(room, said_in(first["event_id"], "well?", sender=EVE))
    assert SECRET in await told(room, said_in(other["event_id"], "well?", sender=ANN))


async def test_first_words_are_for_who_could_read_them(
    database: Database, directory: AgentDirectory, client: Homeserver, fake: FakeHomeserver
) -> None:
    stage = await stage_on(database, directory, client, fake)
    fake.set_state(ROOM, "m.room.history_visibility", {"history_visibility": "invited"})
    came(fake, ANN, -1_000_000)
    fake.set_state(ROOM, "m.room.member", {"membership": "join"}, EVE)
    arrival = fake.events[ROOM][-1]
    await stage.conversations.begin(HERE, "c1", SECRET)
    arrival["origin_server_ts"] += 3_600_000
    for line in ("conversations", "status", "conversations 1"):
        answer = await stage.say(line, sender=EVE)
        assert SECRET not in answer
        assert "one from before you came" in answer
        assert SECRET in await stage.say(line, sender=ANN)
        assert SECRET in await stage.say(line, sender=ADMIN)
    arrival["origin_server_ts"] -= 7_200_000
    stage.runner = stage.runner_for()
    assert SECRET in await stage.say("conversations", sender=EVE)
