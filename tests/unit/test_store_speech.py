"""What is to be told and how far it has been told are one step."""

import pytest
from sqlalchemy.exc import IntegrityError
from tests.builders import message

from letta_matrix.conversations.new_turns import new_turn
from letta_matrix.store.database import Database
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.speech import SpeechStore
from letta_matrix.store.turns import Turn, TurnKind, TurnStatus, TurnStore

ON_BOTH = True

Told = tuple[Turn, list[OutboxEntry]]


def told(text: str) -> Told:
    """A speech with the event it is told in."""
    turn = new_turn(message(text), "agent-1", None)
    turn.kind, turn.status = TurnKind.SPEECH, TurnStatus.REPLYING
    content = {"body": text}
    kind = OutboxKind.MESSAGE
    owed = OutboxEntry(f"txn {text}", turn.turn_id, 0, kind, 0, "!1:test", "@agent_1:test", content)
    return turn, [owed]


async def reloaded(database: Database) -> SpeechStore:
    store = SpeechStore(database)
    await store.load()
    return store


async def test_an_agent_that_never_ran_begins_at_the_beginning(database: Database) -> None:
    store = SpeechStore(database)
    await store.begin(["agent-1", "agent-2"])
    for known in (store, await reloaded(database)):
        assert known.get("agent-1") == known.get("agent-2") == ("", "")
        assert known.get("agent-3") is None


async def test_what_is_told_is_stored_with_the_cursor_after_it(database: Database) -> None:
    store = SpeechStore(database)
    await store.begin(["agent-1"])
    first, second = told("one"), told("two")
    new = await store.advance("agent-1", "run-1", "2", [first, second])
    assert new == [first[0], second[0]]
    for known in (store, await reloaded(database)):
        assert known.get("agent-1") == ("run-1", "2")
    stored = await TurnStore(database).unfinished()
    assert [(turn.kind, turn.status) for turn in stored] == [
        (TurnKind.SPEECH, TurnStatus.REPLYING)
    ] * 2
    owed = await Outbox(database).of_turn(second[0].turn_id)
    assert [entry.content for entry in owed] == [{"body": "two"}]


async def test_what_was_told_before_is_not_told_again(database: Database) -> None:
    store = SpeechStore(database)
    one = told("one")
    await store.advance("agent-1", "run-1", "1", [one])
    two = told("two")
    assert await store.advance("agent-1", "run-2", "2", [one, two]) == [two[0]]
    assert len(await TurnStore(database).unfinished()) == 2


async def test_a_cursor_never_moves_past_what_could_not_be_stored(database: Database) -> None:
    store = SpeechStore(database)
    await store.advance("agent-1", "run-1", "1", [])
    broken = told("one")
    broken[1].append(broken[1][0])
    with pytest.raises(IntegrityError):
        await store.advance("agent-1", "run-2", "2", [broken])
    for known in (store, await reloaded(database)):
        assert known.get("agent-1") == ("run-1", "1")
    assert await TurnStore(database).unfinished() == []
