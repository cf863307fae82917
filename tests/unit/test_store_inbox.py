"""Transactions are stored once, whole, before anybody is told."""

import asyncio
import sqlite3
import traceback
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from tests.builders import agent, entry_of, message

from letta_matrix.conversations.new_turns import command_turn, new_turn
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database, StoreUnavailable
from letta_matrix.store.inbox import Event, Inbox, InboxEntry, InboxState
from letta_matrix.store.turns import TurnKind, TurnStore

ON_BOTH = True


def entry(body: str = "hello", state: InboxState = InboxState.ROUTED, **fields: str) -> InboxEntry:
    event = message(body, **fields)
    turns = [new_turn(event, "agent-1", body)] if state is InboxState.ROUTED else []
    return InboxEntry(event["event_id"], event["room_id"], event, state, turns)


@pytest.fixture
async def inbox(database: Database, directory: AgentDirectory) -> Inbox:
    await directory.reserve([agent(1)])
    return Inbox(database)


async def count(database: Database, table: str) -> int:
    query = text(f"SELECT count(*) FROM {table}")
    return int(await database.read(lambda db: db.execute(query).scalar_one()))


async def test_turns_come_in_the_order_of_the_events(inbox: Inbox, database: Database) -> None:
    entries = [entry(str(number)) for number in range(5)]
    turns = (await inbox.admit("t1", entries)).turns
    assert [turn.prompt for turn in turns] == list("01234")
    stored = await TurnStore(database).unfinished()
    assert [turn.prompt for turn in stored] == list("01234")
    assert [turn.seq for turn in stored] == sorted(turn.seq for turn in stored)


async def test_a_transaction_is_admitted_once(inbox: Inbox) -> None:
    events = [entry("a"), entry("b")]
    assert len((await inbox.admit("t1", events)).turns) == 2
    assert (await inbox.admit("t1", events)).turns == []


async def test_an_event_is_admitted_once_whatever_brings_it(inbox: Inbox) -> None:
    first, second = entry("a"), entry("b")
    await inbox.admit("t1", [first])
    turns = (await inbox.admit("t2", [first, second, second])).turns
    assert [turn.prompt for turn in turns] == ["b"]


async def test_transactions_that_race_are_admitted_once(inbox: Inbox, database: Database) -> None:
    entries = [entry(str(number)) for number in range(20)]
    found = await asyncio.gather(*(inbox.admit(f"t{n % 3}", entries) for n in range(9)))
    assert sum(len(one.turns) for one in found) == 20
    assert await count(database, "transactions") == 9


async def test_a_txn_id_used_again_brings_new_events(inbox: Inbox) -> None:
    """Synapse on SQLite counts its txn ids from 1 again after a restart."""
    await inbox.admit("1", [entry("before")])
    turns = (await inbox.admit("1", [entry("after")])).turns
    assert [turn.prompt for turn in turns] == ["after"]


async def test_a_transaction_with_nothing_to_store_costs_no_write(
    inbox: Inbox, database: Database
) -> None:
    assert (await inbox.admit("t1", [])).turns == []
    assert await count(database, "transactions") == 0


async def test_a_transaction_is_stored_whole_or_not_at_all(
    inbox: Inbox, database: Database
) -> None:
    first, bad = entry("a"), entry("b")
    bad.turns[0].turn_id = first.turns[0].turn_id
    with pytest.raises(IntegrityError):
        await inbox.admit("t1", [first, bad])
    for table in ("transactions", "inbox", "turns"):
        assert await count(database, table) == 0
    assert len((await inbox.admit("t1", [first])).turns) == 1


async def test_rooms_something_is_parked_for(inbox: Inbox) -> None:
    rooms = ["!2:test", "!3:test", "!2:test"]
    await inbox.admit("t1", [entry("x", InboxState.PARKED, room_id=room) for room in rooms])
    await inbox.admit("t2", [entry("y")])
    assert sorted(await inbox.parked_rooms()) == ["!2:test", "!3:test"]


async def test_only_what_is_looked_at_again_is_kept(inbox: Inbox, database: Database) -> None:
    parked = entry("parked", InboxState.PARKED)
    await inbox.admit("t1", [entry("routed"), entry("no", InboxState.IGNORED), parked])
    query = text("SELECT state, event FROM inbox")
    rows = await database.read(lambda db: db.execute(query).all())
    # Of the others, who may edit them.
    assert [(state, "content" in event, "sender" in event) for state, event in rows] == [
        ("routed", False, True),
        ("ignored", False, True),
        ("parked", True, True),
    ]


async def test_parked_events_are_routed_once_in_order(inbox: Inbox) -> None:
    for number in range(3):
        await inbox.admit(f"t{number}", [entry(str(number), InboxState.PARKED)])
    await inbox.admit("other", [entry("x", InboxState.PARKED, room_id="!2:test")])

    async def route(event: Event, _: bool) -> InboxEntry:
        turn = new_turn(event, "agent-1", str(event["content"]["body"]))  # type: ignore[index]
        return InboxEntry(turn.event_id, turn.room_id, event, InboxState.ROUTED, [turn])

    turns = await inbox.unpark("!1:test", route)
    assert [turn.prompt for turn in turns] == ["0", "1", "2"]
    assert await inbox.unpark("!1:test", route) == []


async def test_a_locked_database_stores_nothing_and_says_so(
    inbox: Inbox, database_file: Path, database: Database
) -> None:
    await _impatient(database)
    other = sqlite3.connect(database_file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable, match="now: database is locked"):
        await inbox.admit("t1", [entry("a")])
    other.execute("ROLLBACK")
    other.close()
    assert [turn.prompt for turn in (await inbox.admit("t1", [entry("a")])).turns] == ["a"]


async def test_a_full_disk_stores_nothing_and_says_so(
    inbox: Inbox, database: Database, database_file: Path
) -> None:
    # PostgreSQL knows no such limit.
    assert database_file.exists()
    pages = await database.read(lambda db: db.execute(text("PRAGMA page_count")).scalar_one())
    await database.execute(text(f"PRAGMA max_page_count = {pages}"))
    huge = [entry("x" * 50_000) for _ in range(20)]
    with pytest.raises(StoreUnavailable, match="now: database or disk is full"):
        await inbox.admit("t1", huge)
    assert await count(database, "transactions") == 0
    assert await count(database, "turns") == 0
    await database.execute(text("PRAGMA max_page_count = 1000000"))
    assert len((await inbox.admit("t1", huge)).turns) == 20


async def test_an_error_of_the_database_shows_no_message(inbox: Inbox) -> None:
    private = "-".join(("pass", "word"))
    first, bad = entry("hello"), entry(private)
    bad.turns[0].turn_id = first.turns[0].turn_id
    with pytest.raises(IntegrityError) as caught:
        await inbox.admit("t1", [first, bad])
    assert private not in "".join(traceback.format_exception(caught.value))


async def test_an_event_may_start_several_turns(inbox: Inbox, database: Database) -> None:
    both = entry("hello")
    both.turns.append(new_turn(both.event, "agent-2", "hello"))
    await inbox.admit("t1", [both, entry("next")])
    stored = await TurnStore(database).unfinished()
    assert [(turn.agent_id, turn.prompt) for turn in stored] == [
        ("agent-1", "hello"),
        ("agent-2", "hello"),
        ("agent-1", "next"),
    ]


async def test_a_command_for_the_bot_has_no_agent(inbox: Inbox, database: Database) -> None:
    event = message("!agents")
    command = command_turn(event, "", "agents")
    await inbox.admit("t1", [entry_of(event, command)])
    (stored,) = await TurnStore(database).unfinished()
    assert (stored.agent_id, stored.kind, stored.prompt) == ("", TurnKind.COMMAND, "agents")


async def test_a_parked_event_stays_parked_while_its_room_is_unknown(inbox: Inbox) -> None:
    parked = entry("early", InboxState.PARKED)
    await inbox.admit("t1", [parked])

    async def route(*_: object) -> InboxEntry:
        return parked

    assert await inbox.unpark(parked.room_id, route) == []
    assert await inbox.parked_rooms() == [parked.room_id]


async def _impatient(database: Database) -> None:
    await database.execute(text("PRAGMA busy_timeout = 50"))
