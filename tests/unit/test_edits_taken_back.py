"""An edit that is redacted is as if it had never been: its message says what it said before."""

import asyncio
import re
from collections.abc import Iterable
from typing import Any

import pytest
from tests.builders import PERSON, edit, message, reaction, redaction
from tests.fake_homeserver import FakeHomeserver
from tests.fake_homeserver import Fault as Failure
from tests.scripts import held, obey
from tests.stage import Stage
from tests.waiting import eventually, settled

from letta_matrix.matrix.reactions import ASK_AGAIN
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest

ROOM, BOB, GHOST = "!1:test", "@bob:test", "@agent_1:test"
FORBIDDEN = Failure(403, {"errcode": "M_FORBIDDEN", "error": "no power"})


@pytest.fixture
async def released(stage: Stage, fake: FakeHomeserver) -> asyncio.Event:
    """The agent is busy until this is set."""
    event = asyncio.Event()

    def work(request: TurnRequest) -> Iterable[TurnEvent | float]:
        return held(event) if request.text == "work" else obey(request)

    stage.runtime.script = work
    await stage.admit(message("work"))
    await eventually(lambda: fake.messages(ROOM))
    return event


async def said(stage: Stage, fake: FakeHomeserver, *events: dict[str, Any]) -> None:
    fake.events.setdefault(ROOM, []).extend(events)
    await stage.admit(*events)


def asked(stage: Stage) -> list[str]:
    return [request.text for request in stage.runtime.asked]


async def edited_twice(stage: Stage, fake: FakeHomeserver) -> list[dict[str, Any]]:
    question = message("one")
    edits = [edit(question["event_id"], text) for text in ("two", "a secret")]
    await said(stage, fake, question, *edits)
    return edits


async def test_a_waiting_question_says_what_it_said_before(
    stage: Stage, fake: FakeHomeserver, released: asyncio.Event
) -> None:
    _, secret = await edited_twice(stage, fake)
    fake.redact(ROOM, secret["event_id"])
    await said(stage, fake, redaction(secret["event_id"]))
    await eventually(lambda: stage.dispatcher.queues.waiting == 2)
    released.set()
    await stage.idle()
    assert asked(stage) == ["work", "two"]
    assert "a secret" not in [turn.prompt for turn in await stage.stores.turns.newest(9)]


async def test_all_edits_of_it_taken_back(
    stage: Stage, fake: FakeHomeserver, released: asyncio.Event
) -> None:
    edits = await edited_twice(stage, fake)
    for one in edits[::-1]:
        fake.redact(ROOM, one["event_id"])
        await said(stage, fake, redaction(one["event_id"]))
    await eventually(lambda: stage.dispatcher.queues.waiting == 2)
    released.set()
    await stage.idle()
    assert asked(stage) == ["work", "one"]


async def test_what_is_said_while_it_is_looked_at_is_newer(
    stage: Stage, fake: FakeHomeserver, released: asyncio.Event
) -> None:
    _, secret = await edited_twice(stage, fake)
    question = secret["content"]["m.relates_to"]["event_id"]
    fake.redact(ROOM, secret["event_id"])
    looked = fake.hold(rf"GET .*/event/{re.escape(question)}$")
    await said(stage, fake, redaction(secret["event_id"]))
    await eventually(lambda: fake.matching(f"/event/{re.escape(question)}$"))
    at = secret["origin_server_ts"] + 5000
    await stage.admit(edit(question, "three", origin_server_ts=at))
    looked.set()
    await eventually(lambda: stage.dispatcher.queues.waiting == 2)
    released.set()
    await stage.idle()
    assert asked(stage) == ["work", "three"]


async def test_of_a_message_that_is_gone_nothing_is_offered(
    stage: Stage, fake: FakeHomeserver
) -> None:
    """Clients remove the edits of what they remove, too."""
    question = message("one")
    change = edit(question["event_id"], "a secret")
    await said(stage, fake, question)
    await stage.idle()
    await said(stage, fake, change)
    await eventually(lambda: len(fake.messages(ROOM, "m.reaction")) == 1)
    for event in (question, change):
        fake.redact(ROOM, event["event_id"])
    await said(stage, fake, redaction(change["event_id"]))
    await stage.idle()
    await settled()
    assert len(fake.messages(ROOM, "m.reaction")) == 1


def offers(fake: FakeHomeserver) -> list[str]:
    """Who has 🔁 at a message."""
    reactions = fake.messages(ROOM, "m.reaction")
    return [one["sender"] for one in reactions if one["content"]]


@pytest.mark.parametrize("may_redact", [True, False])
async def test_each_edit_after_an_answer_offers_to_ask_anew(
    stage: Stage, fake: FakeHomeserver, *, may_redact: bool
) -> None:
    question = message("one")
    await said(stage, fake, question)
    await stage.idle()
    for text in ("two", "three"):
        tapped = len(fake.messages(ROOM, "m.reaction"))
        await said(stage, fake, edit(question["event_id"], text))
        await eventually(lambda known=tapped: len(fake.messages(ROOM, "m.reaction")) > known)
        assert offers(fake)[-1] == GHOST
        assert offers(fake).count(PERSON) == (text == "three" and not may_redact)
        tap = reaction(question["event_id"], ASK_AGAIN)
        if not may_redact:
            fake.fail(f"PUT .*/redact/.*{tap['event_id'][1:]}/", FORBIDDEN)
        await said(stage, fake, tap)
        await stage.idle()
    assert asked(stage) == ["one", "two", "three"]
    # An edit that nothing was asked after has its offer already.
    await said(stage, fake, edit(question["event_id"], "four"))
    await eventually(lambda: len(fake.messages(ROOM, "m.reaction")) == 5)
    assert offers(fake)[-1] == GHOST
    redacted = len(fake.matching("PUT .*/redact/"))
    await said(stage, fake, edit(question["event_id"], "five"))
    await eventually(lambda: len(fake.messages(ROOM, "m.reaction")) == 6)
    assert len(fake.matching("PUT .*/redact/")) == redacted


async def test_an_offer_is_made_also_where_nobody_tells_of_earlier_ones(
    stage: Stage, fake: FakeHomeserver
) -> None:
    question = message("one")
    await said(stage, fake, question)
    await stage.idle()
    unknown = Failure(404, {"errcode": "M_UNRECOGNIZED", "error": "no such endpoint"})
    fake.fail("GET .*/relations/", unknown)
    await said(stage, fake, edit(question["event_id"], "two"))
    await eventually(lambda: offers(fake) == [GHOST])


async def test_a_forged_one_is_looked_through(
    stage: Stage, fake: FakeHomeserver, released: asyncio.Event
) -> None:
    """The homeserver still shows what the edit says."""
    _, secret = await edited_twice(stage, fake)
    await said(stage, fake, redaction(secret["event_id"], sender=BOB))
    await eventually(lambda: stage.dispatcher.queues.waiting == 2)
    released.set()
    await stage.idle()
    assert asked(stage) == ["work", "a secret"]


async def test_a_redaction_of_a_redaction_brings_nothing_back(
    stage: Stage, fake: FakeHomeserver, released: asyncio.Event
) -> None:
    question = message("one")
    removed = redaction(question["event_id"])
    await said(stage, fake, question)
    fake.redact(ROOM, question["event_id"])
    await said(stage, fake, removed)
    fake.redact(ROOM, removed["event_id"])
    await said(stage, fake, redaction(removed["event_id"]))
    released.set()
    await stage.idle()
    assert asked(stage) == ["work"]


async def test_an_edit_of_an_edit_is_none(
    stage: Stage, fake: FakeHomeserver, released: asyncio.Event
) -> None:
    _, last = await edited_twice(stage, fake)
    await said(stage, fake, edit(last["event_id"], "three"))
    released.set()
    await stage.idle()
    assert asked(stage) == ["work", "a secret"]
