"""A reply grows in its own events and ends once, wherever it was cut short."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import Executable, text
from structlog.testing import capture_logs
from tests.builders import agent, said_in, stored_turn
from tests.fake_homeserver import (
    LOST_ANSWER,
    LOST_REQUEST,
    FakeHomeserver,
    Fault,
    failing,
    rate_limited,
)
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.conversations.reply import Notice, Reply
from letta_matrix.matrix.content import BESIDE, CURSOR, LIVE, MARKER, MORE
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database, StoreUnavailable
from letta_matrix.store.meta import Meta
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.turns import Turn, TurnStatus

ROOM = "!1:test"
GHOST = "@agent_1:test"
SEND = "PUT .*/send/"
Replies = Callable[..., Reply]


@pytest.fixture
async def turn(database: Database, directory: AgentDirectory) -> Turn:
    await directory.reserve([agent(1)])
    return await stored_turn(database)


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database)


@pytest.fixture
def reply_of(homeserver: Homeserver, outbox: Outbox, turn: Turn) -> Replies:
    def make(entries: list[OutboxEntry] | None = None, interval: float = 0.02) -> Reply:
        return Reply(turn, Intent(homeserver, GHOST), outbox, interval, entries)

    return make


@pytest.fixture
async def in_thread(database: Database, homeserver: Homeserver, directory: AgentDirectory) -> Reply:
    """A reply to a message in the thread below $root."""
    await directory.reserve([agent(1)])
    turn = await stored_turn(database, event=said_in("$root"))
    return Reply(turn, Intent(homeserver, GHOST), Outbox(database), 0.02)


async def end(reply: Reply, text: str, notice: Notice | None = None) -> dict[str, str]:
    await reply.freeze(text, notice)
    return await reply.deliver()


def says_more(fake: FakeHomeserver) -> list[bool]:
    """Of each part of a reply, whether its last version says that the turn goes on below it."""
    newest: dict[str, bool] = {}
    for event in fake.messages(ROOM):
        marker = event["content"][MARKER]
        if BESIDE not in marker:
            newest[Event(event).edited or event["event_id"]] = MORE in marker
    return list(newest.values())


async def test_a_reply_that_is_there_at_once_is_one_event(
    fake: FakeHomeserver, reply_of: Replies, turn: Turn
) -> None:
    reply = reply_of()
    reply.ran("run-7")
    reply.show("It is **done**.")
    sent = await end(reply, "It is **done**.")
    (event,) = fake.messages(ROOM)
    content = event["content"]
    assert event["sender"] == GHOST
    assert (content["msgtype"], content["m.mentions"]) == ("m.text", {})
    assert "<strong>done</strong>" in content["formatted_body"]
    assert LIVE not in content
    marker = content[MARKER]
    assert marker["agent_id"] == "agent-1"
    assert marker["in_reply_to"] == turn.event_id
    assert marker["turn_id"] == turn.turn_id
    assert marker["run_id"] == "run-7"
    assert sent == {marker["txn"]: event["event_id"]}
    assert turn.status is TurnStatus.REPLYING


async def test_what_was_sent_while_nothing_could_be_stored_is_recorded_at_the_end(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[object]()

    async def away(*entry: object) -> None:
        tried.append(entry)
        raise StoreUnavailable("away")

    reply = reply_of()
    with monkeypatch.context() as patch, capture_logs():
        patch.setattr(outbox, "confirm", away)
        reply.show("One")
        await eventually(lambda: tried)
        await reply.stop()
    sent = await end(reply, "One, two, three.")
    first, last = fake.messages(ROOM)
    assert list(sent.values()) == [first["event_id"], last["event_id"]]


@pytest.mark.parametrize("step", ["freeze", "confirm"])
async def test_it_grows_on_once_the_database_is_back(
    fake: FakeHomeserver,
    reply_of: Replies,
    outbox: Outbox,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """Though nothing more is said meanwhile that would let it try."""
    tried = list[object]()

    async def away(*_: object, **__: object) -> None:
        tried.append(step)
        raise StoreUnavailable("away")

    reply = reply_of()
    with monkeypatch.context() as patch, capture_logs():
        patch.setattr(outbox, step, away)
        reply.show("One")
        await eventually(lambda: tried)
    await clock.until(lambda: fake.bodies(ROOM) == ["One"])
    reply.show("One, two")
    await clock.until(lambda: fake.bodies(ROOM) == [f"One, two{CURSOR}"])
    await end(reply, "One, two, three.")
    assert fake.bodies(ROOM) == ["One, two, three."]


async def test_a_growing_reply_is_one_message_that_is_edited(
    fake: FakeHomeserver, reply_of: Replies
) -> None:
    reply = reply_of()
    reply.show("One")
    await eventually(lambda: len(fake.messages(ROOM)) == 1)
    reply.show("One, two")
    await eventually(lambda: len(fake.messages(ROOM)) == 2)
    await end(reply, "One, two, three.")
    first, *edits = (event["content"] for event in fake.messages(ROOM))
    assert LIVE in first
    # It is what notifies: no cursor in it.
    assert first["body"] == "One"
    assert len(edits) == 2
    assert LIVE in edits[0]
    assert CURSOR in edits[0]["m.new_content"]["body"]
    assert LIVE not in edits[1]
    assert LIVE not in edits[1]["m.new_content"]
    assert fake.bodies(ROOM) == ["One, two, three."]
    targets = {edit["m.relates_to"]["event_id"] for edit in edits}
    assert targets == {fake.messages(ROOM)[0]["event_id"]}


async def test_what_grew_to_its_end_still_gets_a_final_edit(
    fake: FakeHomeserver, reply_of: Replies
) -> None:
    reply = reply_of()
    reply.show("All of it")
    await eventually(lambda: fake.messages(ROOM))
    await end(reply, "All of it")
    last = fake.messages(ROOM)[-1]["content"]
    assert last["m.new_content"]["body"] == "All of it"
    assert LIVE not in last


async def test_blank_text_shows_nothing(
    fake: FakeHomeserver, reply_of: Replies, clock: Clock
) -> None:
    clock.stop()
    reply = reply_of()
    reply.show("\n  ")
    await settled()
    clock.advance(1)
    await settled()
    await end(reply, " ", Notice("I have nothing to say."))
    assert fake.bodies(ROOM) == ["I have nothing to say."]
    assert fake.messages(ROOM)[0]["content"]["msgtype"] == "m.notice"


async def test_edits_come_no_faster_than_the_interval(
    fake: FakeHomeserver, reply_of: Replies, clock: Clock
) -> None:
    clock.stop()
    reply = reply_of(interval=10.0)
    reply.show("word0")
    await settled()
    for pause in (0.1, 0.3):
        clock.advance(pause)
        await settled()
    await eventually(lambda: fake.messages(ROOM))
    for number in range(1, 4):
        for more in ("", "!", "!!"):
            reply.show(f"word{number}{more}")
            await settled()
            clock.advance(3)
        await settled()
        assert len(fake.matching(SEND)) == number
        clock.advance(2)
        await eventually(lambda number=number: len(fake.messages(ROOM)) == number + 1)
        assert fake.bodies(ROOM) == [f"word{number}!!{CURSOR}"]
    await end(reply, "word4")
    assert fake.bodies(ROOM) == ["word4"]


async def test_a_text_that_ended_needs_no_last_edit(
    fake: FakeHomeserver, reply_of: Replies
) -> None:
    reply = reply_of()
    reply.show("done")
    reply.text_ended()
    await eventually(lambda: len(fake.messages(ROOM)) == 1)
    assert await end(reply, "done") == {}
    (event,) = fake.messages(ROOM)
    assert LIVE not in event["content"]


async def test_more_text_after_the_end_is_shown_and_edited(
    fake: FakeHomeserver, reply_of: Replies
) -> None:
    reply = reply_of()
    reply.show("one")
    reply.text_ended()
    await eventually(lambda: len(fake.messages(ROOM)) == 1)
    reply.show("one two")
    await end(reply, "one two")
    last = fake.messages(ROOM)[-1]["content"]
    assert last["m.new_content"]["body"] == "one two"
    assert LIVE not in last["m.new_content"]


async def test_long_replies_are_edited_less_often(reply_of: Replies) -> None:
    reply = reply_of(interval=1.0)
    reply.text = "x"
    short = reply._interval()
    reply.text = "x" * 40_000
    assert short == pytest.approx(1.0, rel=0.01)
    assert reply._interval() == pytest.approx(6.0, rel=0.01)


async def test_a_reply_stands_in_the_thread_it_answers(
    fake: FakeHomeserver, in_thread: Reply
) -> None:
    await in_thread.beside.notify("away", "A moment.")
    in_thread.show("One")
    await eventually(lambda: len(fake.messages(ROOM)) == 2)
    await end(in_thread, "One, two.", Notice("Stopped."))
    relations = [event["content"]["m.relates_to"] for event in fake.messages(ROOM)]
    edits = [one for one in relations if one["rel_type"] == "m.replace"]
    assert fake.bodies(ROOM) == ["A moment.", "One, two.", "Stopped."]
    assert len(edits) == 1
    assert [one for one in relations if one not in edits] == [
        {
            "rel_type": "m.thread",
            "event_id": "$root",
            "is_falling_back": True,
            "m.in_reply_to": {"event_id": in_thread.turn.event_id},
        }
    ] * 3


async def test_a_reply_outside_of_threads_relates_to_nothing(
    fake: FakeHomeserver, reply_of: Replies
) -> None:
    await end(reply_of(), "Hello.")
    assert "m.relates_to" not in fake.messages(ROOM)[0]["content"]


async def test_what_is_posted_comes_once_through_restarts(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    first = await reply_of().beside.post(OutboxKind.APPROVAL, "k1", "May I?")
    again = reply_of(await outbox.of_turn(turn.turn_id))
    second = await again.beside.post(OutboxKind.APPROVAL, "k1", "May I?")
    await again.beside.post(OutboxKind.APPROVAL, "k2", "And that?")
    await again.beside.post(OutboxKind.TRACE, "k1", "Another kind.")
    assert first.event_id == second.event_id == fake.messages(ROOM)[0]["event_id"]
    assert fake.bodies(ROOM) == ["May I?", "And that?", "Another kind."]


async def test_what_was_posted_before_a_crash_and_never_confirmed_comes_once(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn, database: Database
) -> None:
    fake.forgetful = True
    await reply_of().beside.post(OutboxKind.APPROVAL, "k1", "May I?")
    await database.execute(text("UPDATE outbox SET event_id = NULL"))
    again = reply_of(await outbox.of_turn(turn.turn_id))
    entry = await again.beside.post(OutboxKind.APPROVAL, "k1", "May I?")
    assert entry.event_id == fake.messages(ROOM)[0]["event_id"]
    assert fake.bodies(ROOM) == ["May I?"]


async def test_what_is_posted_at_once_comes_once(fake: FakeHomeserver, reply_of: Replies) -> None:
    fake.slow[SEND] = 0.02
    reply = reply_of()
    await asyncio.gather(
        *(reply.beside.post(OutboxKind.NOTICE, f"k{n % 3}", f"{n % 3}") for n in range(9))
    )
    assert sorted(fake.bodies(ROOM)) == ["0", "1", "2"]


async def test_posts_beside_a_growing_reply_keep_their_own_events(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    reply = reply_of()
    for number in range(5):
        reply.show("word " * (number + 1))
        await reply.beside.post(OutboxKind.NOTICE, f"k{number}", f"notice {number}")
    await end(reply, "All.")
    assert sorted(fake.bodies(ROOM)) == ["All.", *(f"notice {number}" for number in range(5))]
    entries = await outbox.of_turn(turn.turn_id)
    assert sorted(entry.seq for entry in entries) == list(range(len(entries)))


async def test_statements_are_stored_together_with_what_is_posted(
    reply_of: Replies, database: Database
) -> None:
    def remember(cause: str) -> Executable:
        return text("INSERT INTO meta VALUES ('cause', :cause)").bindparams(cause=f'"{cause}"')

    reply = reply_of()
    entry = await reply.beside.post(OutboxKind.APPROVAL, "k1", "May I?", remember)
    await reply.beside.post(OutboxKind.APPROVAL, "k1", "May I?", remember)
    assert await Meta(database).get("cause") == entry.txn_id
    assert entry.txn_id == reply.beside.txn(OutboxKind.APPROVAL, "k1")


async def test_what_was_posted_can_be_rewritten_once_for_each_key(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    reply = reply_of()
    entry = await reply.beside.post(OutboxKind.APPROVAL, "k1", "May I?")
    await reply.beside.rewrite_interim(entry, "Still waiting.")
    await reply.beside.rewrite(entry, "k1", "Allowed.")
    again = reply_of(await outbox.of_turn(turn.turn_id))
    await again.beside.rewrite(entry, "k1", "Denied.")
    assert fake.bodies(ROOM) == ["Allowed."]
    assert all(event["content"]["msgtype"] == "m.text" for event in fake.messages(ROOM))


async def test_what_was_refused_is_not_rewritten(fake: FakeHomeserver, reply_of: Replies) -> None:
    fake.fail(SEND, Fault(403, {"errcode": "M_FORBIDDEN", "error": "no"}))
    reply = reply_of()
    entry = await reply.beside.post(OutboxKind.APPROVAL, "k1", "May I?")
    assert entry.event_id is None
    await reply.beside.rewrite(entry, "k1", "Allowed.")
    await reply.beside.rewrite_interim(entry, "Still waiting.")
    assert fake.bodies(ROOM) == []
    assert len(fake.matching(SEND)) == 1


async def test_the_end_brings_what_was_posted_to_its_end(
    fake: FakeHomeserver, reply_of: Replies
) -> None:
    reply = reply_of()
    await reply.beside.post(OutboxKind.TRACE, "tools", "Uses Bash.")
    reply.beside.post_at_end(OutboxKind.TRACE, "tools", "Used Bash.")
    reply.beside.post_at_end(OutboxKind.TRACE, "other", "Something new.")
    assert fake.bodies(ROOM) == ["Uses Bash."]
    await end(reply, "Done.")
    assert fake.bodies(ROOM) == ["Used Bash.", "Done.", "Something new."]
    last = fake.messages(ROOM)[-1]["content"]
    assert (last["msgtype"], last["body"]) == ("m.notice", "Something new.")


async def test_an_end_that_was_told_before_is_not_told_again(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    reply = reply_of()
    entry = await reply.beside.post(OutboxKind.APPROVAL, "k1", "May I?")
    await reply.beside.rewrite(entry, "k1", "Allowed.")
    again = reply_of(await outbox.of_turn(turn.turn_id))
    again.beside.post_at_end(OutboxKind.APPROVAL, "k1", "Allowed.")
    await end(again, "Done.")
    assert fake.bodies(ROOM) == ["Allowed.", "Done."]
    assert len(fake.messages(ROOM)) == 3


async def test_a_reply_that_is_whole_is_kept_beside_its_turn(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    text = "\n\n".join(f"Paragraph {number}. " + "x" * 400 for number in range(150))
    whole = await reply_of().whole(text)
    await outbox.freeze(whole)
    await reply_of(await outbox.of_turn(turn.turn_id)).deliver()
    assert len(whole) > 1
    assert "\n\n".join(fake.bodies(ROOM)) == text
    assert not any(CURSOR in body for body in fake.bodies(ROOM))


@pytest.mark.parametrize("refusals", [1, 2])
async def test_a_reply_counts_as_refused_when_nothing_of_it_is_taken(
    fake: FakeHomeserver, reply_of: Replies, refusals: int
) -> None:
    refusal = Fault(403, {"errcode": "M_FORBIDDEN", "error": "no"})
    fake.fail(SEND, *[refusal] * refusals)
    reply = reply_of()
    await end(reply, "One.", Notice("Two."))
    assert reply.refused is (refusals == 2)


async def test_a_slow_homeserver_loses_interim_edits_first(
    fake: FakeHomeserver, reply_of: Replies, clock: Clock
) -> None:
    reply = reply_of()
    reply.show("One")
    await eventually(lambda: fake.messages(ROOM))
    fake.fail(SEND, *[failing(503)] * 3)
    reply.show("One, two")
    await eventually(lambda: len(fake.matching(SEND)) >= 2)
    ending = asyncio.create_task(end(reply, "One, two, three."))
    await clock.until(ending.done)
    await ending
    assert fake.bodies(ROOM) == ["One, two, three."]


async def test_a_long_reply_is_several_messages_in_order(
    fake: FakeHomeserver, reply_of: Replies
) -> None:
    text = "\n\n".join(f"Paragraph {number}. " + "x" * 400 for number in range(300))
    reply = reply_of()
    reply.show(text[:300])
    await eventually(lambda: len(fake.messages(ROOM)) == 1)
    reply.show(text[: len(text) // 2])
    await eventually(lambda: len(fake.bodies(ROOM)) == 2)
    await end(reply, text)
    bodies = fake.bodies(ROOM)
    assert len(bodies) > 3
    assert "\n\n".join(bodies) == text
    assert not any(CURSOR in body for body in bodies)
    assert says_more(fake) == [True] * (len(bodies) - 1) + [False]


@pytest.mark.parametrize("is_whole", [True, False])
async def test_what_is_said_before_a_question_says_that_the_turn_goes_on(
    fake: FakeHomeserver, reply_of: Replies, *, is_whole: bool
) -> None:
    reply = reply_of()
    reply.show("I call Bash.")
    if is_whole:
        reply.text_ended()
    await eventually(lambda: len(fake.bodies(ROOM)) == 1)
    await reply.beside.post(OutboxKind.APPROVAL, "k1", "May I?")
    await end(reply, "I call Bash.\n\nDone.")
    assert fake.bodies(ROOM) == ["I call Bash.", "May I?", "Done."]
    assert says_more(fake) == [True, False]


async def test_a_reply_that_came_out_shorter_leaves_nothing_of_the_old(
    fake: FakeHomeserver, reply_of: Replies
) -> None:
    reply = reply_of()
    reply.show("\n\n".join("x" * 500 for _ in range(100)))
    await eventually(lambda: fake.messages(ROOM))
    reply.show("\n\n".join("x" * 500 for _ in range(101)))
    await eventually(lambda: len(fake.bodies(ROOM)) >= 2)
    await end(reply, "Short.")
    assert fake.bodies(ROOM)[0] == "Short."
    assert set(fake.bodies(ROOM)[1:]) == {"\u2026"}


async def test_a_notice_beside_the_reply_comes_once(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    reply = reply_of()
    await reply.beside.notify("away", "I am away.")
    await reply.beside.notify("away", "I am away.")
    again = reply_of(await outbox.of_turn(turn.turn_id))
    await again.beside.notify("away", "I am away.")
    await end(again, "Back.")
    assert fake.bodies(ROOM) == ["I am away.", "Back."]


async def test_an_offer_is_kept_as_one(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    await end(reply_of(), "Half an ans", Notice("React to ask again.", offer=True))
    entries = await outbox.of_turn(turn.turn_id)
    assert [entry.kind for entry in entries] == [OutboxKind.MESSAGE, OutboxKind.OFFER]
    assert fake.bodies(ROOM) == ["Half an ans", "React to ask again."]


async def test_after_a_crash_the_same_message_goes_on(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    first = reply_of()
    first.show("One")
    await eventually(lambda: fake.messages(ROOM))
    await first.stop()
    second = reply_of(await outbox.of_turn(turn.turn_id))
    second.show("One, two")
    await eventually(lambda: len(fake.messages(ROOM)) == 2)
    await end(second, "One, two, three.")
    assert fake.bodies(ROOM) == ["One, two, three."]


async def half_said(reply: Reply, fake: FakeHomeserver) -> None:
    """An earlier process shows some words, then more, and dies."""
    reply.show("One")
    await eventually(lambda: len(fake.messages(ROOM)) == 1)
    reply.show("One, two")
    await eventually(lambda: len(fake.messages(ROOM)) == 2)
    await reply.stop()


async def test_what_an_earlier_process_has_shown_stays(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    await half_said(reply_of(), fake)
    again = reply_of(await outbox.of_turn(turn.turn_id))
    await end(again, "", Notice("Stopped."))
    assert fake.bodies(ROOM) == ["One, two", "Stopped."]
    assert LIVE not in fake.messages(ROOM)[-2]["content"]
    assert await outbox.reply_text(turn.turn_id) == "One, two"


async def test_what_was_shown_and_cannot_be_read_any_more_holds_nothing_up(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    await half_said(reply_of(), fake)
    forbidden = Fault(403, {"errcode": "M_FORBIDDEN", "error": "not here"})
    fake.fail("GET .*/event/", *[forbidden] * 5)
    again = reply_of(await outbox.of_turn(turn.turn_id))
    await end(again, "", Notice("Stopped."))
    assert fake.bodies(ROOM)[-1] == "Stopped."
    assert turn.status is TurnStatus.REPLYING


async def test_what_an_edit_completed_is_kept_as_said(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    """Others read it from the outbox: agents that asked this one."""
    reply = reply_of()
    reply.show("One")
    await eventually(lambda: len(fake.messages(ROOM)) == 1)
    reply.show("One, two.")
    reply.text_ended()
    await eventually(lambda: fake.bodies(ROOM) == ["One, two."])
    await end(reply, "One, two.")
    assert len(fake.messages(ROOM)) == 2
    assert await outbox.reply_text(turn.turn_id) == "One, two."


async def test_after_a_crash_before_the_answer_nothing_is_said_twice(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    # The homeserver took it, restarted and forgot the txn id; we never heard of it.
    fake.forgetful = True
    first = reply_of()
    await first.freeze("The answer.")
    sent = await first.deliver()
    second = reply_of(await outbox.of_turn(turn.turn_id))
    assert await second.deliver() == sent
    assert fake.bodies(ROOM) == ["The answer."]


async def test_after_a_crash_before_the_request_it_is_said(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    await reply_of().freeze("The answer.", Notice("And a word."))
    await reply_of(await outbox.of_turn(turn.turn_id)).deliver()
    assert fake.bodies(ROOM) == ["The answer.", "And a word."]


async def test_what_was_confirmed_is_not_sent_again(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    sent = await end(reply_of(), "The answer.")
    entries = await outbox.of_turn(turn.turn_id)
    await outbox.confirm(entries[0], sent[entries[0].txn_id])
    fake.requests.clear()
    assert await reply_of(await outbox.of_turn(turn.turn_id)).deliver() == {}
    assert fake.requests == []


async def test_the_final_edit_goes_out_on_a_troubled_homeserver(
    fake: FakeHomeserver, reply_of: Replies, clock: Clock
) -> None:
    reply = reply_of()
    reply.show("One")
    await eventually(lambda: fake.messages(ROOM))
    faults = [rate_limited(10), failing(500), LOST_REQUEST, LOST_REQUEST, failing(504), LOST_ANSWER]
    fake.fail(SEND, *faults)
    ending = asyncio.create_task(end(reply, "One, two."))
    await clock.until(ending.done)
    await ending
    finals = [e for e in fake.messages(ROOM) if LIVE not in e["content"]]
    assert len(finals) == 1
    assert fake.bodies(ROOM) == ["One, two."]


async def test_what_the_homeserver_refuses_does_not_stop_the_rest(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    fake.fail(SEND, Fault(413, {"errcode": "M_TOO_LARGE", "error": "no"}))
    await end(reply_of(), "Refused.", Notice("Still said."))
    assert fake.bodies(ROOM) == ["Still said."]
    refused, _ = await outbox.of_turn(turn.turn_id)
    assert refused.failure == "M_TOO_LARGE: no"


async def test_stopping_waits_for_the_request_under_way(
    fake: FakeHomeserver, reply_of: Replies, outbox: Outbox, turn: Turn
) -> None:
    sent = fake.hold(SEND)
    reply = reply_of()
    reply.show("One")
    await eventually(lambda: fake.matching(SEND))
    stopping = asyncio.create_task(reply.stop())
    await settled(stopping)
    sent.set()
    await within(stopping)
    (entry,) = await outbox.of_turn(turn.turn_id)
    assert entry.event_id == fake.messages(ROOM)[0]["event_id"]
