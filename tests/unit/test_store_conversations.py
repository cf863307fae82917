"""Each place has one conversation that goes on, and remembers those before it."""

import asyncio

import pytest
from sqlalchemy import Executable, text
from tests.waiting import settled

from letta_matrix.store.conversations import Conversation, ConversationStore
from letta_matrix.store.database import Database, StoreUnavailable
from letta_matrix.store.places import Place

ON_BOTH = True

MAIN = Place("agent-1", "!1:test")
THREAD = Place("agent-1", "!1:test", "$root")
ELSEWHERE = Place("agent-1", "!2:test")


@pytest.fixture
async def store(database: Database) -> ConversationStore:
    return ConversationStore(database)


async def reloaded(database: Database) -> ConversationStore:
    """The store of another process."""
    store = ConversationStore(database)
    await store.load()
    return store


async def agree(store: ConversationStore, database: Database, *places: Place) -> list[str | None]:
    """What goes on at the places, in memory and in the database alike."""
    current = [store.current(place) for place in places]
    again = await reloaded(database)
    assert [again.current(place) for place in places] == current
    return current


async def old(store: ConversationStore, conversation_id: str) -> Conversation:
    found = await store.all_in("agent-1", "!1:test")
    (one,) = [entry for entry in found if entry.conversation_id == conversation_id]
    return one


async def test_each_place_has_its_own(store: ConversationStore, database: Database) -> None:
    assert store.current(MAIN) is None
    for place, conversation_id in ((MAIN, "c1"), (THREAD, "c2"), (ELSEWHERE, "c3")):
        await store.begin(place, conversation_id, "hello")
    assert await agree(store, database, MAIN, THREAD, ELSEWHERE) == ["c1", "c2", "c3"]
    assert store.current(Place("agent-2", "!1:test")) is None


async def test_a_new_one_takes_the_place_of_the_old(
    store: ConversationStore, database: Database
) -> None:
    await store.begin(MAIN, "c1", "first")
    await store.begin(MAIN, "c2", "second")
    assert await agree(store, database, MAIN) == ["c2"]
    listed = await store.all_in("agent-1", "!1:test")
    assert [(one.conversation_id, one.title, one.current) for one in listed] == [
        ("c2", "second", True),
        ("c1", "first", False),
    ]


async def test_titles_are_one_short_line(store: ConversationStore) -> None:
    await store.begin(MAIN, "c1", "  two\n\nlines " + "x" * 500)
    (one,) = await store.all_in("agent-1", "!1:test")
    assert one.title.startswith("two lines xxx")
    assert len(one.title) == 80


async def test_leaving_makes_the_next_message_start_afresh(
    store: ConversationStore, database: Database
) -> None:
    await store.begin(MAIN, "c1", "hello")
    await store.begin(THREAD, "c2", "hello")
    assert await store.leave(MAIN, "c1")
    assert not await store.leave(MAIN, "c1")
    assert not await store.leave(THREAD, "c1")
    assert await agree(store, database, MAIN, THREAD) == [None, "c2"]
    assert [one.current for one in await store.all_in("agent-1", "!1:test")] == [False, True]


async def test_a_message_while_one_is_left_starts_afresh(
    store: ConversationStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.begin(MAIN, "c1", "hello")
    execute, begun = database.execute, asyncio.Event()

    async def late(*statements: Executable) -> None:
        await begun.wait()
        await execute(*statements)

    with monkeypatch.context() as busy:
        busy.setattr(database, "execute", late)
        leaving = asyncio.create_task(store.leave(MAIN, "c1"))
        await settled(leaving)
    assert store.current(MAIN) is None
    await store.begin(MAIN, "c2", "hello again")
    begun.set()
    assert await leaving
    assert await agree(store, database, MAIN) == ["c2"]


async def test_what_could_not_be_left_goes_on(
    store: ConversationStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.begin(MAIN, "c1", "hello")

    async def unavailable(*_: object) -> None:
        raise StoreUnavailable("on purpose")

    with monkeypatch.context() as broken:
        broken.setattr(database, "execute", unavailable)
        with pytest.raises(StoreUnavailable):
            await store.leave(MAIN, "c1")
    assert await agree(store, database, MAIN) == ["c1"]


async def test_an_agent_talks_where_a_conversation_goes_on(store: ConversationStore) -> None:
    assert not store.talks_at(MAIN)
    await store.begin(MAIN, "c1", "hello")
    assert store.talks_at(MAIN)
    assert not store.talks_at(THREAD)
    await store.return_to(await old(store, "c1"), THREAD)
    assert store.talks_at(THREAD)


async def test_a_forked_conversation_goes_on_under_its_new_id(
    store: ConversationStore, database: Database
) -> None:
    await store.begin(MAIN, "c1", "hello")
    await store.replace(MAIN, "c1", "fork", text("INSERT INTO meta VALUES ('also', '1')"))
    assert await agree(store, database, MAIN) == ["fork"]
    assert (await old(store, "fork")).title == "hello"
    count = text("SELECT count(*) FROM meta WHERE key = 'also'")
    assert await database.read(lambda db: db.execute(count).scalar_one()) == 1


async def test_a_fork_of_one_that_was_left_changes_nothing_else(
    store: ConversationStore, database: Database
) -> None:
    await store.begin(MAIN, "c1", "hello")
    await store.begin(MAIN, "c2", "hello")
    await store.replace(MAIN, "c1", "fork")
    assert await agree(store, database, MAIN) == ["c2"]
    assert (await old(store, "fork")).current is False


async def test_a_conversation_that_is_gone_is_forgotten(
    store: ConversationStore, database: Database
) -> None:
    await store.begin(MAIN, "c1", "hello")
    await store.begin(ELSEWHERE, "c1", "the same id in another room")
    await store.forget(MAIN, "c1")
    assert await agree(store, database, MAIN, ELSEWHERE) == [None, "c1"]
    assert await store.all_in("agent-1", "!1:test") == []


async def test_forgetting_an_old_one_leaves_the_current(
    store: ConversationStore, database: Database
) -> None:
    await store.begin(MAIN, "c1", "hello")
    await store.begin(MAIN, "c2", "hello")
    await store.forget(MAIN, "c1")
    assert await agree(store, database, MAIN) == ["c2"]


async def test_an_old_one_can_be_returned_to(store: ConversationStore, database: Database) -> None:
    await store.begin(MAIN, "c1", "first")
    await store.begin(MAIN, "c2", "second")
    await store.return_to(await old(store, "c1"), MAIN)
    assert await agree(store, database, MAIN) == ["c1"]
    listed = await store.all_in("agent-1", "!1:test")
    assert [(one.conversation_id, one.current) for one in listed] == [("c1", True), ("c2", False)]


async def test_an_old_one_may_go_on_in_a_thread(
    store: ConversationStore, database: Database
) -> None:
    await store.begin(MAIN, "c1", "first")
    await store.begin(MAIN, "c2", "second")
    await store.begin(THREAD, "c3", "inside")
    await store.return_to(await old(store, "c1"), THREAD)
    assert await agree(store, database, MAIN, THREAD) == ["c2", "c1"]
    assert (await old(store, "c1")).place == THREAD


async def test_a_current_one_that_moves_leaves_its_place_empty(
    store: ConversationStore, database: Database
) -> None:
    await store.begin(MAIN, "c1", "first")
    await store.return_to(await old(store, "c1"), THREAD)
    assert await agree(store, database, MAIN, THREAD) == [None, "c1"]


async def test_returning_to_where_one_is_changes_nothing(
    store: ConversationStore, database: Database
) -> None:
    await store.begin(MAIN, "c1", "first")
    await store.return_to(await old(store, "c1"), MAIN)
    assert await agree(store, database, MAIN) == ["c1"]


async def test_a_conversation_leads_to_its_newest_place(store: ConversationStore) -> None:
    await store.begin(MAIN, "c1", "hello")
    await store.begin(THREAD, "c2", "hello")
    await store.begin(ELSEWHERE, "c1", "a single history is everywhere")
    assert await store.place_of("agent-1", "c2") == THREAD
    assert await store.place_of("agent-1", "c1") == ELSEWHERE
    assert await store.place_of("agent-1", "unknown") is None
    assert await store.place_of("agent-2", "c2") is None


async def test_a_single_history_may_be_at_several_places(
    store: ConversationStore, database: Database
) -> None:
    await store.begin(MAIN, "single", "hello")
    await store.begin(THREAD, "single", "hello")
    assert await agree(store, database, MAIN, THREAD) == ["single", "single"]
