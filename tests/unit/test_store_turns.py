"""A turn's way through the store, and what is owed for it."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from tests.builders import agent, entry_of, message, said_in, stored_turn

from letta_matrix.conversations.new_turns import command_turn
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.conversations import Conversation, ConversationStore
from letta_matrix.store.database import Database
from letta_matrix.store.inbox import Inbox
from letta_matrix.store.meta import Meta
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.turns import Outcome, Turn, TurnStatus, TurnStore

ON_BOTH = True


@pytest.fixture
async def turn(database: Database, directory: AgentDirectory) -> Turn:
    """A stored turn of agent-1."""
    await directory.reserve([agent(1)])
    return await stored_turn(database, "question")


def owed(turn: Turn, txn_id: str, seq: int, kind: OutboxKind = OutboxKind.MESSAGE) -> OutboxEntry:
    content = {"body": txn_id}
    return OutboxEntry(txn_id, turn.turn_id, seq, kind, 0, turn.room_id, "@agent_1:test", content)


async def again(database: Database, turn: Turn) -> Turn:
    """The turn as another process would read it."""
    found = await TurnStore(database).get(turn.turn_id)
    assert found is not None
    return found


async def known(database: Database) -> list[Conversation]:
    """The conversations of agent-1 in its room as another process would read them."""
    return await ConversationStore(database).all_in("agent-1", "!1:test")


async def test_a_turn_comes_back_as_it_was(database: Database, turn: Turn) -> None:
    stored = await again(database, turn)
    stored.seq = 0
    assert stored == turn


async def test_what_the_runtime_needs_survives(database: Database, turn: Turn) -> None:
    turn.conversation_id = "c1"
    await TurnStore(database).run(turn, {"run": "r1", "cursor": 7})
    stored = await again(database, turn)
    assert stored.status is TurnStatus.RUNNING
    assert stored.runtime_state == {"run": "r1", "cursor": 7}
    assert stored.conversation_id == "c1"


async def test_asking_again_is_a_fresh_question_with_a_key_of_its_own(
    database: Database, turn: Turn
) -> None:
    turns = TurnStore(database)
    await turns.conversations.begin(turn.place, "c1", "question")
    turn.conversation_id = "c1"
    await turns.run(turn, {"run": "r1"})
    await turns.ask_again(turn, "fork")
    stored = await again(database, turn)
    assert (stored.status, stored.runtime_state, stored.asked) == (TurnStatus.QUEUED, None, 1)
    assert stored.message_id == f"{turn.event_id}#1" == turn.message_id
    assert stored.conversation_id == "fork"
    assert turns.conversations.current(turn.place) == "fork"
    assert [one.conversation_id for one in await known(database)] == ["fork"]


async def test_asking_again_may_keep_the_conversation(database: Database, turn: Turn) -> None:
    turn.conversation_id = "c1"
    await TurnStore(database).ask_again(turn, None)
    assert (await again(database, turn)).conversation_id == "c1"


async def test_a_finished_turn_owes_nothing(database: Database, turn: Turn) -> None:
    turns, outbox = TurnStore(database), Outbox(database)
    await outbox.freeze([owed(turn, "x1", 0), owed(turn, "x2", 1)], completes=turn)
    assert (await again(database, turn)).status is TurnStatus.REPLYING
    await turns.finish(turn, Outcome.ANSWERED, {"x1": "$1", "x2": "$2"})
    assert await turns.unfinished() == []
    assert [entry.event_id for entry in await outbox.of_turn(turn.turn_id)] == ["$1", "$2"]


async def test_a_frozen_reply_and_its_turns_status_are_one_step(
    database: Database, turn: Turn
) -> None:
    outbox = Outbox(database)
    await outbox.freeze([owed(turn, "x1", 0)])
    with pytest.raises(IntegrityError):
        await outbox.freeze([owed(turn, "x2", 1), owed(turn, "x1", 2)], completes=turn)
    assert (await again(database, turn)).status is TurnStatus.QUEUED
    assert turn.status is TurnStatus.QUEUED
    assert [entry.txn_id for entry in await outbox.of_turn(turn.turn_id)] == ["x1"]


async def test_entries_come_back_in_the_order_they_are_owed(database: Database, turn: Turn) -> None:
    outbox = Outbox(database)
    entries = [owed(turn, f"x{seq}", seq) for seq in (2, 0, 1)]
    await outbox.freeze(entries)
    await outbox.confirm(entries[1], "$0")
    await outbox.fail(entries[0], "M_TOO_LARGE: no")
    stored = await outbox.of_turn(turn.turn_id)
    assert [(e.txn_id, e.event_id, e.failure) for e in stored] == [
        ("x0", "$0", None),
        ("x1", None, None),
        ("x2", None, "M_TOO_LARGE: no"),
    ]
    assert stored[0].content == {"body": "x0"}


async def test_only_an_offer_can_be_taken_up(database: Database, turn: Turn) -> None:
    outbox = Outbox(database)
    plain, offer = owed(turn, "x1", 0), owed(turn, "x2", 1, OutboxKind.OFFER)
    await outbox.freeze([plain, offer])
    await outbox.confirm(plain, "$plain")
    await outbox.confirm(offer, "$offer")
    assert await outbox.offered_by("$plain") is None
    assert await outbox.offered_by("$unknown") is None
    offered = await outbox.offered_by("$offer")
    assert offered is not None
    assert (offered.turn_id, offered.prompt) == (turn.turn_id, "question")


async def test_an_offer_that_came_by_is_known_before_its_id_is_stored(
    database: Database, turn: Turn
) -> None:
    outbox = Outbox(database)
    plain, offer = owed(turn, "x1", 0), owed(turn, "x2", 1, OutboxKind.OFFER)
    await outbox.freeze([plain, offer])
    outbox.heard("$plain", turn.turn_id, "x1")
    outbox.heard("$offer", turn.turn_id, "x2")
    assert await outbox.offered_by("$plain") is None
    offered = await outbox.offered_by("$offer")
    assert offered is not None
    assert offered.turn_id == turn.turn_id


async def test_a_turn_whose_conversation_is_gone_starts_afresh(
    database: Database, turn: Turn
) -> None:
    turns = TurnStore(database)
    await turns.conversations.begin(turn.place, "c1", "question")
    turn.conversation_id = "c1"
    await turns.run(turn, {"run": "r1"})
    await turns.forget_conversation(turn)
    stored = await again(database, turn)
    assert (stored.status, stored.runtime_state, stored.conversation_id) == (
        TurnStatus.QUEUED,
        None,
        None,
    )
    assert turns.conversations.current(turn.place) is None
    assert await known(database) == []


async def test_the_message_an_agent_works_on_is_found_by_its_place(
    database: Database, turn: Turn
) -> None:
    turns = TurnStore(database)
    later, inside = await stored_turn(database), await stored_turn(database, event=said_in("$root"))
    command = command_turn(message("!status"), "agent-1", "status")
    await Inbox(database).admit("t9", [entry_of(message("!status"), command)])
    for place, open_turn in ((turn.place, turn), (inside.place, inside)):
        found = await turns.open_at(place)
        assert found is not None
        assert found.turn_id == open_turn.turn_id
    await turns.finish(turn, Outcome.ANSWERED)
    following = await turns.open_at(turn.place)
    assert following is not None
    assert following.turn_id == later.turn_id
    await turns.finish(later, Outcome.ANSWERED)
    # When nothing is worked on it is the last one that was.
    last = await turns.open_at(turn.place)
    assert last is not None
    assert last.turn_id == later.turn_id
    assert await turns.open_at(turn.place._replace(thread_id="$nowhere")) is None


async def test_the_turns_of_an_event_are_messages_for_agents(
    database: Database, turn: Turn
) -> None:
    event = message("!status")
    await Inbox(database).admit("t9", [entry_of(event, command_turn(event, "agent-1", "status"))])
    turns = TurnStore(database)
    assert [one.turn_id for one in await turns.prompted_by(turn.event_id)] == [turn.turn_id]
    assert await turns.prompted_by(event["event_id"]) == []


async def test_our_events_lead_to_their_turn(database: Database, turn: Turn) -> None:
    outbox = Outbox(database)
    entry = owed(turn, "x1", 0)
    await outbox.freeze([entry])
    assert await outbox.turn_of("$reply") is None
    await outbox.confirm(entry, "$reply")
    found = await outbox.turn_of("$reply")
    assert found is not None
    assert found.turn_id == turn.turn_id


async def test_what_a_reply_says_is_its_last_version(database: Database, turn: Turn) -> None:
    outbox = Outbox(database)
    final = owed(turn, "x3", 2, OutboxKind.FINAL)
    final.content = {"body": "* x", "m.new_content": {"body": "whole"}}
    second = owed(turn, "second", 3)
    second.part = 1
    notice = owed(turn, "notice", 4, OutboxKind.NOTICE)
    await outbox.freeze([owed(turn, "half", 0), final, second, notice])
    assert await outbox.reply_text(turn.turn_id) == "whole\n\nsecond"


async def test_a_frozen_entry_and_what_belongs_to_it_are_one_step(
    database: Database, turn: Turn
) -> None:
    outbox = Outbox(database)
    await outbox.freeze([owed(turn, "x1", 0)])
    broken = text("INSERT INTO meta (key, value) VALUES ('k', '1'), ('k', '2')")
    with pytest.raises(IntegrityError):
        await outbox.freeze([owed(turn, "x2", 1)], also=[broken])
    assert [entry.txn_id for entry in await outbox.of_turn(turn.turn_id)] == ["x1"]


async def test_meta_keeps_the_newest_value(database: Database) -> None:
    meta = Meta(database)
    assert await meta.get("space") is None
    await meta.set("space", "!a:test")
    await meta.set("space", "!b:test")
    assert await meta.get("space") == "!b:test"
