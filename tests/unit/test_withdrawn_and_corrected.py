"""People edit and redact what they asked: a question is alive until it is asked."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from tests.builders import edit, invite, message, reaction, redaction
from tests.scripts import held, obey
from tests.stage import Stage
from tests.waiting import eventually, settled

from letta_matrix.conversations import notices
from letta_matrix.conversations.new_turns import new_turn
from letta_matrix.matrix.content import CURSOR
from letta_matrix.matrix.reactions import ASK_AGAIN, STOP
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest
from letta_matrix.store.outbox import OutboxEntry
from letta_matrix.store.turns import Outcome, Turn

ROOM = "!1:test"
BOB = "@bob:test"
GHOST = "@agent_1:test"


def coming_into(room_id: str) -> Turn:
    """One of us was invited."""
    return new_turn(invite(GHOST, room_id), "agent-1", GHOST)


@pytest.fixture
async def released(stage: Stage) -> asyncio.Event:
    """The agent is busy with "work" until this is set."""
    event = asyncio.Event()

    def busy(request: TurnRequest) -> Iterable[TurnEvent | float]:
        return held(event) if request.text.startswith("work") else obey(request)

    stage.runtime.script = busy
    return event


async def busy(stage: Stage) -> dict[str, Any]:
    """A message that is being answered."""
    work = message("work")
    await stage.admit(work)
    await eventually(lambda: stage.fake.messages(ROOM))
    return work


def asked(stage: Stage) -> list[str]:
    return [request.text for request in stage.runtime.asked]


async def test_a_waiting_question_is_asked_as_it_was_corrected(
    stage: Stage, released: asyncio.Event
) -> None:
    await busy(stage)
    question = message("delete file A")
    await stage.admit(question)
    await stage.admit(edit(question["event_id"], "delete file B"))
    released.set()
    await stage.idle()
    assert asked(stage) == ["work", "delete file B"]


async def test_a_waiting_question_that_was_removed_is_never_asked(
    stage: Stage, released: asyncio.Event
) -> None:
    await busy(stage)
    question = message("what is my salary")
    await stage.admit(question)
    await stage.admit(redaction(question["event_id"]))
    before = len(stage.fake.messages(ROOM))
    released.set()
    await stage.idle()
    assert asked(stage) == ["work"]
    # Nothing is said about it either, and its words are kept nowhere.
    (word, *others) = stage.fake.bodies(ROOM)
    assert word.startswith("word0 word1")
    assert others == []
    assert before == 1
    assert "salary" not in await everything(stage)


async def everything(stage: Stage) -> str:
    """All that is stored of turns and events."""

    def read(connection: Any) -> str:
        tables = ("turns", "inbox", "outbox")
        return str([connection.exec_driver_sql(f"SELECT * FROM {t}").all() for t in tables])

    return await stage.stores.database.read(read)


@pytest.mark.parametrize("together", [True, False], ids=["one transaction", "two"])
async def test_a_question_corrected_or_removed_at_once(stage: Stage, together: bool) -> None:
    first, second = message("a typo"), message("a secret")
    events = [first, edit(first["event_id"], "no typo"), second, redaction(second["event_id"])]
    if together:
        await stage.tell(*events)
        assert asked(stage) == ["no typo"]
        return
    await stage.tell(*events[:2])
    await stage.tell(*events[2:])
    assert asked(stage) == ["no typo"]


async def test_edits_and_redactions_by_others_are_nothing(
    stage: Stage, released: asyncio.Event
) -> None:
    await busy(stage)
    question = message("mine")
    target = question["event_id"]
    forged = edit(target, "forged", sender=BOB)
    await stage.admit(question, forged, redaction(target, sender=BOB))
    await stage.admit(edit(target, "elsewhere", "!2:test"), redaction(target, "!2:test"))
    # Of an edit, or a redaction.
    await stage.admit(edit(forged["event_id"], "deeper"), redaction(forged["event_id"]))
    released.set()
    await stage.idle()
    assert asked(stage) == ["work", "mine"]


async def test_an_older_edit_that_comes_late_does_not_count(
    stage: Stage, released: asyncio.Event
) -> None:
    await busy(stage)
    question = message("first")
    at = question["origin_server_ts"]
    await stage.admit(question)
    await stage.admit(edit(question["event_id"], "third", origin_server_ts=at + 2000))
    await stage.admit(edit(question["event_id"], "second", origin_server_ts=at + 1000))
    released.set()
    await stage.idle()
    assert asked(stage) == ["work", "third"]


async def test_a_question_corrected_while_its_runtime_is_away(stage: Stage) -> None:
    stage.runtime.available = False
    first, second = message("a typo"), message("a secret", "!2:test")
    await stage.admit(first, second)
    await stage.admit(edit(first["event_id"], "no typo"), redaction(second["event_id"], "!2:test"))
    stage.runtime.available = True
    await stage.idle()
    assert asked(stage) == ["no typo"]


async def test_removing_what_is_being_answered_stops_it_without_a_word(
    stage: Stage, released: asyncio.Event
) -> None:
    work = await busy(stage)
    # Its rest never came.
    await stage.tell(redaction(work["event_id"]))
    (word,) = stage.fake.bodies(ROOM)
    assert word.strip() == "word0"
    assert CURSOR not in word


async def test_a_stop_sign_on_a_message_stops_it_when_it_is_asked_anew(
    stage: Stage, released: asyncio.Event
) -> None:
    question = message("one")
    await stage.tell(question)
    await stage.tell(edit(question["event_id"], "work"))
    await stage.admit(reaction(question["event_id"], ASK_AGAIN))
    await eventually(lambda: asked(stage) == ["one", "work"])
    # Its rest never came.
    await stage.tell(reaction(question["event_id"], STOP))
    assert stage.fake.bodies(ROOM)[-1] == notices.STOPPED


async def test_it_may_be_removed_before_its_id_is_stored(
    stage: Stage, released: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom the homeserver shows the answer at once can be quicker than the answer to us."""

    confirm, stored = stage.stores.outbox.confirm, asyncio.Event()

    async def slowly(entry: OutboxEntry, event_id: str) -> None:
        await stored.wait()
        await confirm(entry, event_id)

    monkeypatch.setattr(stage.stores.outbox, "confirm", slowly)
    await busy(stage)
    (growing,) = stage.fake.messages(ROOM)
    (turn,) = stage.dispatcher.queues.unfinished()
    own = message(sender=GHOST, content=growing["content"], event_id=growing["event_id"])
    stage.fake.redact(ROOM, growing["event_id"])
    gone = redaction(growing["event_id"], sender=BOB)
    await stage.admit(own, gone)
    await eventually(lambda: turn.outcome == Outcome.WITHDRAWN)
    stored.set()
    await stage.idle()


async def test_removing_the_growing_answer_ends_it(stage: Stage, released: asyncio.Event) -> None:
    await busy(stage)
    (growing,) = stage.fake.messages(ROOM)
    stage.fake.redact(ROOM, growing["event_id"])
    sent = len(stage.fake.messages(ROOM))
    await stage.tell(redaction(growing["event_id"], sender=BOB))
    released.set()
    await settled()
    assert len(stage.fake.messages(ROOM)) == sent


async def test_a_forged_redaction_of_the_answer_is_looked_through(
    stage: Stage, released: asyncio.Event
) -> None:
    await busy(stage)
    (growing,) = stage.fake.messages(ROOM)
    # The homeserver still shows what it says.
    await stage.admit(redaction(growing["event_id"], sender=BOB))
    released.set()
    await stage.idle()
    assert stage.fake.bodies(ROOM)[0].endswith("word19")


async def test_an_answered_question_is_asked_anew_only_when_that_is_wished(stage: Stage) -> None:
    question = message("one")
    await stage.tell(question)
    await stage.tell(edit(question["event_id"], "two"))
    await eventually(lambda: offers(stage, question["event_id"]))
    assert asked(stage) == ["one"]
    await stage.tell(reaction(question["event_id"], "🔁", sender=BOB))
    assert asked(stage) == ["one"]
    await stage.tell(reaction(question["event_id"], "🔁"))
    assert asked(stage) == ["one", "two"]
    # In place of the first answer.
    assert stage.fake.bodies(ROOM) == ["echo: two"]
    await stage.tell(edit(question["event_id"], "three"), reaction(question["event_id"], "🔁"))
    assert stage.fake.bodies(ROOM) == ["echo: three"]


async def test_all_who_answered_are_asked_anew(stage: Stage, released: asyncio.Event) -> None:
    group = "!group:test"
    for user in ("@agent_1:test", "@agent_2:test"):
        await stage.stores.rooms.joined(group, user, direct=False)
    question = message("one @agent_1 @agent_2", group)
    target = question["event_id"]

    def second_works(request: TurnRequest) -> Iterable[TurnEvent | float]:
        return held(released) if request.agent_id == "agent-2" else obey(request)

    stage.runtime.script = second_works
    await stage.admit(question)
    await eventually(lambda: len(stage.runtime.asked) == 2)
    await eventually(lambda: len(stage.dispatcher.queues.unfinished()) == 1)
    await stage.admit(edit(target, "two", group))
    await settled()
    # It is offered once a tap asks them all.
    assert stage.fake.messages(group, "m.reaction") == []
    released.set()
    await stage.idle()
    await eventually(lambda: len(stage.fake.messages(group, "m.reaction")) == 2)
    stage.runtime.script = obey
    await stage.tell(reaction(target, "🔁", group))
    asked_anew = [(one.agent_id, one.text[-3:]) for one in stage.runtime.asked[2:]]
    assert sorted(asked_anew) == [("agent-1", "two"), ("agent-2", "two")]
    assert len(stage.fake.bodies(group, "m.text")) == 2, "in place of the first answers"


def offers(stage: Stage, target: str) -> list[Any]:
    found = stage.fake.messages(ROOM, "m.reaction")
    relations = [event["content"]["m.relates_to"] for event in found]
    return [one for one in relations if (one["event_id"], one["key"]) == (target, "🔁")]


async def test_nothing_that_was_removed_is_asked_anew(stage: Stage) -> None:
    question = message("one")
    await stage.tell(question)
    await stage.tell(redaction(question["event_id"]), reaction(question["event_id"], "🔁"))
    assert asked(stage) == ["one"]


async def test_an_edit_survives_the_process(stage: Stage) -> None:
    stage.runtime.available = False
    first, second = message("a typo"), message("a secret", "!2:test")
    await stage.admit(first, second)
    await stage.admit(edit(first["event_id"], "no typo"), redaction(second["event_id"], "!2:test"))
    stage.runtime.available = True
    await stage.recover()
    await stage.idle()
    assert asked(stage) == ["no typo"]


async def test_a_mention_that_an_edit_adds_counts(stage: Stage) -> None:
    for user in ("@agent_1:test", "@agent_2:test"):
        await stage.stores.rooms.joined("!group:test", user, direct=False)
    said = message("hello", "!group:test")
    named = {"m.mentions": {"user_ids": ["@agent_2:test"]}}
    await stage.tell(said)
    await stage.tell(edit(said["event_id"], "hello you", "!group:test", new=named, sender=BOB))
    assert asked(stage) == []
    await stage.tell(edit(said["event_id"], "hello you", "!group:test", new=named))
    await stage.tell(edit(said["event_id"], "hello again", "!group:test", new=named))
    assert [(one.agent_id, one.message_id) for one in stage.runtime.asked] == [
        ("agent-2", said["event_id"])
    ]


async def test_a_mention_that_an_edit_adds_to_what_was_removed_is_none(stage: Stage) -> None:
    """Nobody was asked it before: that it is gone is known by its event alone."""
    for user in ("@agent_1:test", "@agent_2:test"):
        await stage.stores.rooms.joined("!group:test", user, direct=False)
    removed, said = (message(text, "!group:test") for text in ("hello", "bye"))
    named = {"m.mentions": {"user_ids": ["@agent_2:test"]}}
    await stage.tell(removed, said)
    await stage.tell(redaction(removed["event_id"], "!group:test"))
    for one in (removed, said):
        await stage.tell(edit(one["event_id"], "hello you", "!group:test", new=named))
    assert [one.message_id for one in stage.runtime.asked] == [said["event_id"]]


async def test_outcomes_are_told(stage: Stage, released: asyncio.Event) -> None:
    await busy(stage)
    question = message("mine")
    await stage.admit(question)
    (_, waiting) = stage.dispatcher.queues.unfinished()
    await stage.admit(redaction(question["event_id"]))
    released.set()
    await stage.idle()
    assert await stage.outcome(waiting) is Outcome.WITHDRAWN


async def test_a_mention_and_its_edit_come_together(stage: Stage) -> None:
    """As after an outage: the message's own turn is none that its edit adds."""
    await stage.stores.rooms.joined("!group:test", "@agent_1:test", direct=False)
    named = {"m.mentions": {"user_ids": ["@agent_1:test"]}}
    said = message("hi", "!group:test")
    said["content"] |= named
    first, second = (edit(said["event_id"], text, "!group:test", new=named) for text in "ab")
    await stage.tell(said, first, second)
    assert asked(stage)[0].endswith("b")
    assert len(asked(stage)) == 1


async def test_what_waits_for_its_room_can_be_edited(stage: Stage) -> None:
    await stage.stores.rooms.joined("!group:test", "@agent_1:test", direct=False)
    named = {"m.mentions": {"user_ids": ["@agent_1:test"]}}
    said = message("hi", "!group:test")
    said["content"] |= named
    async with stage.dispatcher.opening(coming_into("!group:test")):
        await stage.admit(said)
        await stage.admit(edit(said["event_id"], "ho", "!group:test", new=named))
    await stage.dispatcher.room_known("!group:test")
    await stage.idle()
    (text,) = asked(stage)
    assert text.endswith("ho")
    await stage.recover()


async def test_nothing_overtakes_what_waited_for_its_room(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.stores.rooms.joined("!group:test", "@agent_1:test", direct=True)
    inbox, gate, opened = stage.stores.inbox, asyncio.Event(), asyncio.Event()
    unpark = inbox.unpark

    async def slowly(*given: Any) -> Any:
        await gate.wait()
        return await unpark(*given)

    async def come() -> None:
        async with stage.dispatcher.opening(coming_into("!group:test")):
            await opened.wait()

    coming = asyncio.create_task(come())
    await settled(coming)
    await stage.admit(message("first", "!group:test"))
    monkeypatch.setattr(inbox, "unpark", slowly)
    opened.set()
    await settled(coming)
    admitting = asyncio.create_task(stage.admit(message("second", "!group:test")))
    await settled(admitting)
    gate.set()
    await asyncio.gather(coming, admitting)
    await stage.idle()
    assert asked(stage) == ["first", "second"]


async def test_what_was_removed_while_its_room_opened_is_not_asked(stage: Stage) -> None:
    await stage.stores.rooms.joined("!group:test", "@agent_1:test", direct=True)
    said = message("a secret", "!group:test")
    async with stage.dispatcher.opening(coming_into("!group:test")):
        await stage.admit(redaction(said["event_id"], "!group:test"))
        await stage.dispatcher.room_known("!group:test", [said], "agent-1")
    await stage.idle()
    assert asked(stage) == []


async def test_what_is_asked_anew_is_withdrawn_with_its_message(
    stage: Stage, released: asyncio.Event
) -> None:
    question = message("one")
    await stage.tell(question)
    await busy(stage)
    await stage.admit(reaction(question["event_id"], "🔁"))
    await stage.admit(redaction(question["event_id"]))
    released.set()
    await stage.idle()
    assert asked(stage) == ["one", "work"]
    assert "one" not in [turn.prompt for turn in await stage.stores.turns.newest(9)]
