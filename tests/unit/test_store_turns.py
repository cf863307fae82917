"""A turn's way through the store, and what is owed for it."""

import pytest
from tests.builders import agent, message

from letta_matrix.conversations.routing import new_turn
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.meta import Meta
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.turns import Outcome, Turn, TurnStatus, TurnStore


@pytest.fixture
async def turn(database: Database, directory: AgentDirectory) -> Turn:
    """A stored turn of agent-1."""
    await directory.reserve([agent(1)])
    event = message("question")
    new = new_turn(event, "agent-1", "question")
    entry = InboxEntry(new.event_id, new.room_id, event, InboxState.ROUTED, new)
    (stored,) = await Inbox(database).admit("t1", [entry])
    return stored


def owed(turn: Turn, txn_id: str, seq: int, kind: OutboxKind = OutboxKind.MESSAGE) -> OutboxEntry:
    content = {"body": txn_id}
    return OutboxEntry(txn_id, turn.turn_id, seq, kind, 0, turn.room_id, "@agent_1:test", content)


async def again(database: Database, turn: Turn) -> Turn:
    """The turn as another process would read it."""
    found = await TurnStore(database).get(turn.turn_id)
    assert found is not None
    return found


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
    await turns.run(turn, {"run": "r1"})
    await turns.ask_again(turn, "fork")
    stored = await again(database, turn)
    assert (stored.status, stored.runtime_state, stored.asked) == (TurnStatus.QUEUED, None, 1)
    assert stored.message_id == f"{turn.event_id}#1" == turn.message_id
    assert stored.conversation_id == "fork"
    assert await turns.conversation("agent-1", turn.room_id) == "fork"


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
    with pytest.raises(Exception, match="UNIQUE"):
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


async def test_a_room_has_one_conversation_with_an_agent(database: Database) -> None:
    turns = TurnStore(database)
    assert await turns.conversation("agent-1", "!1:test") is None
    await turns.set_conversation("agent-1", "!1:test", "c1")
    await turns.set_conversation("agent-1", "!2:test", "c2")
    await turns.set_conversation("agent-1", "!1:test", "c3")
    assert await turns.conversation("agent-1", "!1:test") == "c3"
    assert await turns.conversation("agent-1", "!2:test") == "c2"


async def test_meta_keeps_the_newest_value(database: Database) -> None:
    meta = Meta(database)
    assert await meta.get("space") is None
    await meta.set("space", "!a:test")
    await meta.set("space", "!b:test")
    assert await meta.get("space") == "!b:test"
