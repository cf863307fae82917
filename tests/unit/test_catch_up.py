"""What the homeserver accepted and never pushed is found, once, and nothing else is."""

import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.builders import PERSON, message
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage

from letta_matrix.conversations.catch_up import unanswered
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.reactions import ASK_AGAIN
from letta_matrix.runtimes.faults import TurnLost
from letta_matrix.runtimes.memory import echo

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


async def test_what_comes_late_while_nothing_is_pushed_is_found(
    stage: Stage, homeserver: Homeserver, fake: FakeHomeserver
) -> None:
    """Another homeserver may send an event long after it was written."""
    await stage.parts.catch_up.run()
    stage.parts.catch_up.is_silent = lambda: True
    written = time.time()
    await stage.parts.catch_up.run()
    await _say(homeserver, "late")
    fake.events[ROOM][-1]["origin_server_ts"] = int(written * 1000)
    await stage.parts.catch_up.run()
    assert await asked(stage) == ["late"]


async def test_rooms_it_was_invited_into_are_looked_through_too(
    stage: Stage, homeserver: Homeserver, fake: FakeHomeserver
) -> None:
    await stage.stores.rooms.joined("!shared:test", "@agent_1:test", direct=False)
    await stage.parts.catch_up.run()
    await _say(homeserver, "@agent_1 hello", "!shared:test")
    await _say(homeserver, "to everybody", "!shared:test")
    await stage.parts.catch_up.run()
    assert await asked(stage) == ["Agent 1 hello"]
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


def test_only_what_nobody_answered_counts() -> None:
    done, missed = message("done"), message("missed")
    reply = message("echo: done", sender="@agent_1:test")
    reply["content"] |= {MARKER: {"in_reply_to": done["event_id"]}}
    assert unanswered([done, missed, {"type": "odd"}], [reply, {}]) == [missed]


def _history(fake: FakeHomeserver, *events: dict[str, Any]) -> None:
    fake.events.setdefault(ROOM, []).extend(events)


def _ago(seconds: float, body: str, sender: str = PERSON, **content: Any) -> dict[str, Any]:
    sent = int((time.time() - seconds) * 1000)
    event = message(body, ROOM, sender=sender, origin_server_ts=sent)
    event["content"] |= content
    return event


async def test_all_that_was_missed_is_found_among_edits_and_other_agents(
    stage: Stage, fake: FakeHomeserver
) -> None:
    await stage.parts.catch_up.run()
    edit: dict[str, Any] = {"m.relates_to": {"rel_type": "m.replace", "event_id": "$x"}}
    for number in range(80):
        _history(fake, _ago(0, f"hello {number}"))
        _history(fake, *(_ago(0, "grows", "@agent_1:test", **edit) for _ in range(20)))
        _history(fake, *(_ago(0, "talks", "@agent_2:test") for _ in range(5)))
        _history(fake, *(_ago(0, "* better", **edit) for _ in range(2)))
    for _ in range(2):
        await stage.parts.catch_up.run()
        assert await asked(stage) == [f"hello {number}" for number in range(80)]


async def test_what_was_missed_is_admitted_little_by_little(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said meanwhile does not wait behind all of it."""
    await stage.parts.catch_up.run()
    sizes, admit = list[int](), stage.stores.inbox.admit

    async def counted(txn_id: str, entries: Any, **more: Any) -> Any:
        sizes.append(len(entries))
        return await admit(txn_id, entries, **more)

    monkeypatch.setattr(stage.stores.inbox, "admit", counted)
    _history(fake, *(_ago(0, "so", msgtype="m.notice") for _ in range(250)), _ago(0, "hello"))
    await stage.parts.catch_up.run()
    assert await asked(stage) == ["hello"]
    assert sizes == [100, 100, 51]


async def test_one_request_for_each_room_where_nothing_was_missed(
    stage: Stage, homeserver: Homeserver, fake: FakeHomeserver
) -> None:
    await stage.parts.catch_up.run()
    edit: dict[str, Any] = {"m.relates_to": {"rel_type": "m.replace", "event_id": "$x"}}
    _history(fake, *(_ago(3000, "old") for _ in range(100)))
    _history(fake, *(_ago(0, "grows", "@agent_1:test", **edit) for _ in range(200)))
    await stage.parts.catch_up.run()
    assert len(fake.matching("GET .*/messages")) == 1


async def test_a_wrong_clock_ends_no_search(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.parts.catch_up.run()
    _history(fake, _ago(0, "missed"), _ago(9**9, "in 1970"), *(_ago(0, "") for _ in range(49)))
    await stage.parts.catch_up.run()
    assert await asked(stage) == ["missed"]


async def test_a_search_that_ends_too_early_is_told(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.stores.meta.set("alive_older", str(time.time() - 3 * 86_400))
    (agent,) = stage.stores.directory.all()
    monkeypatch.setattr(agent, "created_at", 0.0)
    _history(fake, *(_ago(2 * 86_400, f"older {number}") for number in range(700)))
    _history(fake, _ago(60, "hello"))
    await stage.parts.catch_up.run()
    assert await asked(stage) == ["hello"]
    expired = [body for body in fake.bodies(ROOM) if "more than 24 hours ago" in body]
    assert len(expired) == 49
    assert "in 1 rooms there may be older" in stage.parts.catch_up.trouble
    await stage.parts.catch_up.run()
    assert stage.parts.catch_up.trouble == ""


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
