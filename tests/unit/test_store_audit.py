"""The audit log in the database."""

import asyncio
import time

import pytest

from letta_matrix.store.audit import AuditEntry, AuditStore
from letta_matrix.store.database import Database

ON_BOTH = True


def entry(at: float = 0.0, transaction_id: str | None = None) -> AuditEntry:
    who = "token:1", "@letta:test", "mcp"
    return AuditEntry(*who, "say", "f", at or time.time(), transaction_id)


@pytest.fixture
def store(database: Database) -> AuditStore:
    return AuditStore(database)


async def test_a_call_is_stored_with_how_it_ended(store: AuditStore) -> None:
    known, is_new = await store.begin(entry(transaction_id="t"))
    assert is_new
    assert (await store.newest(1))[0].outcome is None
    result: dict[str, object] = {"event_id": "$1", "text": "\ud800", "more": [1, None]}
    await store.end(known.seq, "ok", room_id="!1", event_id="$1", result=result)
    (found,) = await store.newest(1)
    assert (found.outcome, found.room_id, found.event_id) == ("ok", "!1", "$1")
    assert found.result == result
    assert await store.begin(entry(transaction_id="t")) == (found, False)


async def test_calls_at_once_with_one_id_are_one(store: AuditStore) -> None:
    begun = await asyncio.gather(*(store.begin(entry(transaction_id="t")) for _ in range(9)))
    assert [is_new for _, is_new in begun].count(True) == 1
    assert len({known.seq for known, _ in begun}) == 1
    apart = await asyncio.gather(*(store.begin(entry()) for _ in range(3)))
    assert len({known.seq for known, _ in apart}) == 3


async def test_the_log_is_read_backwards_page_by_page(store: AuditStore) -> None:
    for _ in range(5):
        await store.begin(entry())
    first = await store.newest(2)
    second = await store.newest(2, before=first[-1].seq)
    last = await store.newest(2, before=second[-1].seq)
    assert [one.seq for one in [*first, *second, *last]] == [5, 4, 3, 2, 1]
