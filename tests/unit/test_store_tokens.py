"""Tokens in the database: whole, in order, revoked once, by another process too."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, text
from tests.waiting import DEADLINE

from letta_matrix.store.database import Database, database_url
from letta_matrix.store.tokens import AccessToken, TokenStore

ON_BOTH = True

TOKEN = AccessToken("a1", "0" * 64, "", ("read", "write"), None, "a 'label' — ✓", 5.0, 9.0)


async def test_what_is_stored_comes_back(database: Database) -> None:
    store = TokenStore(database)
    limited = replace(TOKEN, token_id="a2", agent_id="agent-1", rooms=("!a:test",), expires_at=None)
    nowhere = replace(TOKEN, token_id="a0", rooms=(), created_at=4.0)
    for token in (TOKEN, limited, nowhere):
        await store.add(token)
    assert await store.get("a1") == TOKEN
    assert await store.get("a9") is None
    assert await store.all() == [nowhere, TOKEN, limited]


async def test_a_token_is_revoked_once(database: Database) -> None:
    store = TokenStore(database)
    await store.add(TOKEN)
    assert await store.revoke("a1", 7.0)
    assert not await store.revoke("a1", 8.0)
    assert not await store.revoke("a9", 8.0)
    assert await store.get("a1") == replace(TOKEN, revoked_at=7.0)


async def test_logins_end_and_nothing_else_does(database: Database) -> None:
    store = TokenStore(database)
    login = replace(TOKEN, token_id="a2", user_id="@ada:test")
    over = replace(login, token_id="a3", expires_at=6.0)
    for token in (TOKEN, login, over):
        await store.add(token)
    await store.end_logins(7.0)
    assert await store.all() == [TOKEN, replace(login, expires_at=7.0), over]


async def test_another_process_revokes(database: Database, database_file: Path) -> None:
    store = TokenStore(database)
    await store.add(TOKEN)
    other = Database(database_url(f"sqlite:///{database_file}", database_file.parent))
    assert await TokenStore(other).revoke("a1", 7.0)
    await other.close()
    token = await store.get("a1")
    assert token is not None
    assert token.revoked_at == 7.0


async def test_who_shows_a_token_waits_for_no_write(
    database: Database, database_file: Path
) -> None:
    url = database_url(f"sqlite:///{database_file}", database_file.parent)
    store = TokenStore(database, Database(url))
    await store.add(TOKEN)
    writing, done = threading.Event(), threading.Event()

    def write(_: Connection) -> None:
        writing.set()
        assert done.wait(DEADLINE)

    busy = asyncio.create_task(database.write(write))
    assert await asyncio.to_thread(writing.wait, DEADLINE)
    assert await store.get("a1") == TOKEN
    done.set()
    await busy
    assert await store.revoke("a1", 7.0)
    assert await store.get("a1") == replace(TOKEN, revoked_at=7.0)
    await store.close()


async def test_a_token_is_read_by_one_statement(database: Database, database_file: Path) -> None:
    url = database_url(f"sqlite:///{database_file}", database_file.parent)
    store, executed = TokenStore(database, Database(url)), list[str]()
    await store.add(TOKEN)
    await store.get("a1")

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        executed.append(statement.partition(" ")[0])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        await store.get("a1")
        await store.get("a9")
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    await store.close()
    assert executed == ["SELECT", "SELECT"]


async def test_a_glance_that_fails_is_not_the_last(database_file: Path) -> None:
    reader = Database(database_url(f"sqlite:///{database_file}", database_file.parent))

    def fail(_: Connection) -> None:
        raise LookupError

    for _ in range(2):
        with pytest.raises(LookupError):
            await reader.glance(fail)
    assert await reader.glance(lambda db: db.execute(text("SELECT 7")).scalar()) == 7
    await reader.close()
