"""What is old and settled is forgotten, and nothing newer looked at for it."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select, update
from tests.builders import agent, asked_approval, entry_of, message

from letta_matrix.conversations.new_turns import new_turn
from letta_matrix.store import pruning
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.approvals import ApprovalStatus, ApprovalStore
from letta_matrix.store.audit import AuditEntry, AuditStore
from letta_matrix.store.database import Database
from letta_matrix.store.inbox import Inbox
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.schema import approvals, audit, inbox, outbox, transactions, turns
from letta_matrix.store.turns import Outcome, Turn, TurnStatus, TurnStore

ON_BOTH = True
DAY, MONTH = 86_400, 30 * 86_400
FEW = 3


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_ROWS_AT_ONCE", FEW)


@pytest.fixture
async def store(database: Database, directory: AgentDirectory) -> Inbox:
    await directory.reserve([agent(1)])
    return Inbox(database)


async def count(database: Database, table: Any) -> int:
    return await database.value(select(func.count()).select_from(table)) or 0


async def arrived(store: Inbox, database: Database, ages: list[float]) -> list[Turn]:
    """Turns of messages that came so many seconds ago, one transaction each, all done at once."""
    made: list[Turn] = []
    for number, age in enumerate(ages):
        one, then = message(str(number)), time.time() - age
        (turn,) = (
            await store.admit(f"t{number}", [entry_of(one, new_turn(one, "agent-1", "x"))])
        ).turns
        await database.execute(
            update(turns)
            .where(turns.c.turn_id == turn.turn_id)
            .values(arrived_at=then, finished_at=then, status=TurnStatus.DONE),
            update(inbox).where(inbox.c.event_id == turn.event_id).values(received_at=then),
            update(transactions)
            .where(transactions.c.txn_id == f"t{number}")
            .values(received_at=then),
        )
        made.append(turn)
    return made


async def ids(database: Database) -> list[str]:
    return await database.values(select(turns.c.turn_id).order_by(turns.c.seq))


async def test_what_is_settled_and_old_goes_with_all_of_it(
    store: Inbox, database: Database
) -> None:
    first, second = message("done"), message("open")
    entries = [entry_of(one, new_turn(one, "agent-1", "x")) for one in (first, second)]
    done, open_turn = (await store.admit("t1", entries)).turns
    question = OutboxEntry("x1", done.turn_id, 0, OutboxKind.APPROVAL, 0, "!1:test", "@a:test", {})
    await Outbox(database).freeze(
        [question], also=[ApprovalStore(database).insert(asked_approval(done, "k1"))]
    )
    await TurnStore(database).finish(done, Outcome.ANSWERED)
    await store.prune(time.time() - 60)
    assert await count(database, inbox) == 2
    await store.prune(time.time() + 60)
    assert await ids(database) == [open_turn.turn_id]
    assert await count(database, outbox) == await count(database, approvals) == 0
    assert await count(database, inbox) == 1
    assert await count(database, transactions) == 0


async def test_the_old_goes_however_many_they_are(store: Inbox, database: Database) -> None:
    made = await arrived(store, database, [9 * DAY] * (3 * FEW + 1) + [0.0] * 2)
    await store.prune(time.time() - DAY)
    assert await ids(database) == [one.turn_id for one in made[-2:]]
    assert await count(database, inbox) == await count(database, transactions) == 2


async def test_what_has_to_stay_hides_nothing_behind_it(store: Inbox, database: Database) -> None:
    """What was allowed for good, what is not done, and what a clock that was ahead has dated."""
    made = await arrived(store, database, [9 * DAY] * (4 * FEW))
    kept = {one.turn_id for one in made[: 2 * FEW + 1]}
    for number, one in enumerate(made[:FEW]):
        allowed = asked_approval(one, f"k{number}", status=ApprovalStatus.ALWAYS)
        await database.execute(ApprovalStore(database).insert(allowed))
    waiting = [one.turn_id for one in made[FEW : 2 * FEW]]
    ahead = made[2 * FEW].turn_id
    await database.execute(
        update(turns).where(turns.c.turn_id.in_(waiting)).values(status=TurnStatus.QUEUED),
        update(turns)
        .where(turns.c.turn_id == ahead)
        .values(arrived_at=time.time() + MONTH, finished_at=time.time() + MONTH),
    )
    await store.prune(time.time() - DAY)
    assert set(await ids(database)) == kept
    assert await count(database, inbox) == len(kept)


@pytest.fixture
def looked() -> Iterator[list[str]]:
    """The queries that the database is asked from now on."""
    asked: list[str] = []

    def note(_: Any, __: Any, query: str, *___: Any) -> None:
        asked.append(query)

    event.listen(Engine, "before_cursor_execute", note)
    yield asked
    event.remove(Engine, "before_cursor_execute", note)


async def test_what_is_newer_is_not_looked_at(
    store: Inbox, database: Database, looked: list[str]
) -> None:
    await arrived(store, database, [0.0] * (4 * FEW))
    looked.clear()
    await store.prune(time.time() - DAY)
    assert sum(query.startswith("SELECT") for query in looked) == 3  # one of each table


async def test_old_calls_are_forgotten_however_many(database: Database) -> None:
    log = AuditStore(database)
    for number in range(10):
        at = time.time() - (2 if number < 7 else 0.5) * DAY
        await log.begin(AuditEntry("p", "u", "api", "tool", "f", at))
    for _ in range(2):
        await log.prune(1)
        assert [one.seq for one in await log.newest(99)] == [10, 9, 8]
    assert await count(database, audit) == 3
