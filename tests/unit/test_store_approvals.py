"""Approvals in the database."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError
from tests.builders import PERSON, agent, message

from letta_matrix.conversations.new_turns import new_turn
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.approvals import Approval, ApprovalStatus, ApprovalStore
from letta_matrix.store.database import Database
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.turns import Turn

ON_BOTH = True

Make = Callable[..., Approval]


@pytest.fixture
async def turn(database: Database, directory: AgentDirectory) -> Turn:
    await directory.reserve([agent(1)])
    event = message()
    new = new_turn(event, "agent-1", "hello")
    entry = InboxEntry(new.event_id, new.room_id, event, InboxState.ROUTED, [new])
    return (await Inbox(database).admit("t1", [entry])).turns[0]


@pytest.fixture
def store(database: Database) -> ApprovalStore:
    return ApprovalStore(database)


@pytest.fixture
def make(turn: Turn) -> Make:
    def approval(key: str = "k1", **fields: object) -> Approval:
        one = Approval(
            key=key,
            turn_id=turn.turn_id,
            approval_id=f"call-{key}",
            agent_id=turn.agent_id,
            room_id=turn.room_id,
            thread_id="$root",
            requester=PERSON,
            tool="Bash",
            arguments={"command": "ls \u202e \ud800", "n": [1, None, {"deep": True}]},
            always=True,
            prompt_txn=f"txn-{key}",
            asked_at=100.5,
            expires_at=1900.5,
        )
        return replace(one, **fields)  # pyright: ignore[reportArgumentType]

    return approval


async def test_an_approval_comes_back_as_it_was(
    database: Database, store: ApprovalStore, make: Make
) -> None:
    approval = make()
    await database.execute(store.insert(approval))
    assert await store.get("k1") == approval
    assert await store.get("k2") is None
    assert approval.place == (approval.agent_id, approval.room_id, "$root")


async def test_it_is_settled_once(database: Database, store: ApprovalStore, make: Make) -> None:
    approval = make()
    await database.execute(store.insert(approval))
    settled = await store.decide(approval, ApprovalStatus.DENIED, by=PERSON, reason="no")
    assert not await store.decide(approval, ApprovalStatus.ALLOWED, by="@bob:test")
    stored = await store.get("k1")
    assert (
        stored
        == settled
        == replace(approval, status=ApprovalStatus.DENIED, decided_by=PERSON, reason="no")
    )


async def test_one_that_was_never_stored_cannot_be_settled(
    store: ApprovalStore, make: Make
) -> None:
    assert not await store.decide(make(), ApprovalStatus.ALLOWED, by=PERSON)


async def test_pending_ones_in_the_order_they_were_asked(
    database: Database, store: ApprovalStore, make: Make, turn: Turn
) -> None:
    now = time.time()
    late, early = (make(key, asked_at=at, expires_at=now + 60) for key, at in (("a", 3), ("b", 1)))
    elsewhere = replace(early, key="c", room_id="!2:test", asked_at=2)
    settled = make("d", status=ApprovalStatus.LAPSED, asked_at=4, expires_at=now + 60)
    over = make("e", asked_at=5, expires_at=now)
    await database.execute(*map(store.insert, (late, early, elsewhere, settled, over)))
    assert await store.pending() == [early, elsewhere, late]
    assert await store.pending(room_id=turn.room_id) == [early, late]
    assert await store.pending(agent_id="agent-2") == []
    assert await store.of_turn(turn.turn_id) == [early, elsewhere, late, settled, over]


async def test_the_event_that_asks_leads_to_it(
    database: Database, store: ApprovalStore, make: Make, turn: Turn
) -> None:
    outbox, approval = Outbox(database), make()
    entry = OutboxEntry(
        "txn-k1", turn.turn_id, 0, OutboxKind.APPROVAL, 0, turn.room_id, "@agent_1:test", {}
    )
    await outbox.freeze([entry], also=[store.insert(approval)])
    assert await store.asked_in("$asks") is None
    await outbox.confirm(entry, "$asks")
    assert await store.asked_in("$asks") == approval
    assert await store.asked_in("$other") is None


async def test_question_and_row_are_stored_together_or_not_at_all(
    database: Database, store: ApprovalStore, make: Make, turn: Turn
) -> None:
    outbox, approval = Outbox(database), make()
    await database.execute(store.insert(approval))
    entry = OutboxEntry(
        "txn-k1", turn.turn_id, 0, OutboxKind.APPROVAL, 0, turn.room_id, "@agent_1:test", {}
    )
    with pytest.raises(IntegrityError):
        await outbox.freeze([entry], also=[store.insert(approval)])
    assert await outbox.of_turn(turn.turn_id) == []
