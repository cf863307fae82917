"""What the homeserver accepted and never pushed is found, once, and nothing else is."""

import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.builders import PERSON, message
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage

from letta_matrix.conversations.answers import ASK_AGAIN
from letta_matrix.conversations.catch_up import unanswered
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.runtimes.memory import echo
from letta_matrix.runtimes.protocol import TurnLost

ROOM = "!1:test"
BOT = "@letta:test"


async def asked(stage: Stage) -> list[str]:
    await stage.idle()
    return [request.text for request in stage.runtime.asked]


@pytest.fixture
async def stage(fake: FakeHomeserver, database_file: Path) -> AsyncGenerator[Stage]:
    """Agent 1, who has been here for two hours, in ROOM."""
    made = Stage(fake, database_file)
    await made.open()
    await made.add(1, created_at=time.time() - 7200)
    yield made
    await made.close()


async def _say(homeserver: Homeserver, text: str, room_id: str = ROOM) -> None:
    """A person's message that reaches the homeserver, and never us."""
    content = {"msgtype": "m.text", "body": text}
    await Intent(homeserver, PERSON).send(room_id, "m.room.message", content, f"person {text}")


async def test_a_message_never_pushed_is_answered_once(
    stage: Stage, homeserver: Homeserver, fake: FakeHomeserver
) -> None:
    await stage.parts.catch_up.run()
    await _say(homeserver, "hello")
    await stage.parts.catch_up.run()
    assert await asked(stage) == ["hello"]
    await stage.parts.catch_up.run()
    assert await asked(stage) == ["hello"]
    assert fake.bodies(ROOM) == ["hello", "echo: hello"]


async def test_a_new_database_answers_nothing_of_the_past(
    stage: Stage, homeserver: Homeserver
) -> None:
    await _say(homeserver, "long ago")
    await stage.parts.catch_up.run()
    await stage.parts.catch_up.run()
    assert await asked(stage) == []


async def test_what_was_pushed_is_not_answered_again(stage: Stage, homeserver: Homeserver) -> None:
    await stage.parts.catch_up.run()
    await _say(homeserver, "hello")
    (event,) = await Intent(homeserver, BOT).recent_events(ROOM)
    await stage.admit({**event, "room_id": ROOM})
    await stage.parts.catch_up.run()
    assert await asked(stage) == ["hello"]


async def test_rooms_it_was_invited_into_are_looked_through_too(
    stage: Stage, homeserver: Homeserver, fake: FakeHomeserver
) -> None:
    await stage.stores.rooms.joined("!shared:test", "@agent_1:test", direct=False)
    await stage.parts.catch_up.run()
    await _say(homeserver, "@agent_1 hello", "!shared:test")
    await _say(homeserver, "to everybody", "!shared:test")
    await stage.parts.catch_up.run()
    assert await asked(stage) == ["@agent_1 hello"]
    (looked,) = {one.user_id for one in fake.matching("GET .*!shared:test/messages")}
    assert looked == "@agent_1:test"


async def test_a_missed_reaction_counts_too(
    stage: Stage, homeserver: Homeserver, fake: FakeHomeserver
) -> None:
    await stage.parts.catch_up.run()

    def lose(_request: object) -> Any:
        raise TurnLost("it restarted", tools_started=True)

    stage.runtime.script = lose
    await stage.tell(message("do it"))
    stage.runtime.script = echo
    offer = fake.messages(ROOM)[0]["event_id"]
    await Intent(homeserver, PERSON).react(ROOM, offer, ASK_AGAIN, "reaction")
    await stage.parts.catch_up.run()
    assert await asked(stage) == ["do it", "do it"]
    assert fake.bodies(ROOM)[-1] == "echo: do it"


async def test_a_room_that_cannot_be_looked_through_stops_nobody(
    stage: Stage, homeserver: Homeserver, fake: FakeHomeserver
) -> None:
    await stage.add(2, created_at=time.time() - 7200)
    await stage.parts.catch_up.run()
    for number in (1, 2):
        await _say(homeserver, f"hello {number}", f"!{number}:test")
    stage.refuse("GET .*!1:test/messages")
    await stage.parts.catch_up.run()
    assert await asked(stage) == ["hello 2"]


def test_only_what_is_new_and_unanswered_counts() -> None:
    now = time.time()
    old = message("old", origin_server_ts=int((now - 100) * 1000))
    done, missed = message("done"), message("missed")
    marker = {MARKER: {"in_reply_to": done["event_id"]}}
    reply = message("echo: done", sender="@agent_1:test")
    reply["content"] |= marker
    forged = message("x")
    forged["content"] |= {MARKER: {"in_reply_to": missed["event_id"]}}
    events = [old, done, reply, missed, forged, {"type": "odd"}]
    assert unanswered(events, "@agent_1:test", now - 50) == [reply, missed, forged]


async def test_what_was_said_before_the_invite_is_not_answered(
    stage: Stage, homeserver: Homeserver
) -> None:
    await stage.parts.catch_up.run()
    await _say(homeserver, "@agent_1 said too early", "!shared:test")
    later = time.time() + 60
    await stage.stores.rooms.joined("!shared:test", "@agent_1:test", direct=False, since=later)
    await stage.parts.catch_up.run()
    assert await asked(stage) == []


async def test_rooms_of_the_bot_alone_are_looked_through_too(
    stage: Stage, homeserver: Homeserver, fake: FakeHomeserver
) -> None:
    await stage.stores.rooms.joined("!bot:test", BOT, direct=True)
    await stage.parts.catch_up.run()
    await _say(homeserver, "whoami", "!bot:test")
    await stage.parts.catch_up.run()
    await stage.idle()
    assert any("You are" in body for body in fake.bodies("!bot:test"))
