"""`letta-matrix database copy`: all that a bridge knows, in another kind of database."""

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import URL, Connection, func, select, text
from tests.builders import message, new_turn
from tests.cli_kit import letta_matrix
from tests.postgres import PASSWORD, PostgresServer
from tests.waiting import eventually, within

from letta_matrix.store import copying
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.audit import AuditEntry, AuditStore
from letta_matrix.store.copying import Copied
from letta_matrix.store.database import Database, StoreError, database_url
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.meta import Meta
from letta_matrix.store.moving import move
from letta_matrix.store.schema import audit, inbox, meta, metadata, turns
from letta_matrix.store.tokens import AccessToken, TokenStore
from letta_matrix.store.turns import TurnStore


@pytest.fixture
def file(database_file: Path) -> URL:
    return database_url(f"sqlite:///{database_file}", database_file.parent)


@pytest.fixture
def server(postgres_url: URL) -> URL:
    return postgres_url


async def filled(url: URL, messages: int = 3) -> None:
    """A database with something of all that is odd."""
    database = Database(url)
    await database.open()
    agents = await AgentDirectory(database).load()
    agent = Agent("agent-1", "memory", "Ada", "@agent_1:test", room_id="!1:test")
    await agents.reserve([agent, Agent("agent-2", "memory", "Bö \0", "@agent_2:test")])
    for number in range(messages):
        event = message(f"hello {number} \0 😀")
        turn = new_turn(event, "agent-1", f"hello {number} \0 😀")
        entry = InboxEntry(turn.event_id, "!1:test", event, InboxState.PARKED, [turn])
        await Inbox(database).admit(f"t{number}", [entry])
    await TokenStore(database).add(AccessToken("t1", "d", "", ("read",), None, "", 0.1 + 0.2))
    store = AuditStore(database)
    for number in range(4):
        await store.begin(AuditEntry("p", "u", "api", "tool", "f", float(number)))
    await database.execute(text("DELETE FROM audit WHERE seq > 2"))
    # What only was there, and no number may come again.
    await database.execute(text("DELETE FROM inbox WHERE seq = 3"))
    await database.close()


async def contents(url: URL) -> list[Copied]:
    database = Database(url)
    try:
        with database.moment() as db:
            return [copying.digest_of(db, table) for table in metadata.sorted_tables]
    finally:
        await database.close()


async def test_there_and_back(file: URL, postgres: PostgresServer, tmp_path: Path) -> None:
    server = database_url(postgres.url(postgres.create()), Path(), PASSWORD)
    await filled(file)
    told = list[Copied]()
    await move(file, server, told.append)
    before, there = await contents(file), await contents(server)
    assert before == there == told
    assert {one.table: one.rows for one in told}["turns"] == 3
    back = database_url("sqlite:///back.db", tmp_path)
    await move(server, back)
    assert await contents(back) == before
    for url in (server, back):
        database = Database(url)
        await database.open()
        (*_, last) = await TurnStore(database).unfinished()
        assert last.prompt == "hello 2 \N{REPLACEMENT CHARACTER} 😀"
        assert last.attachment is None
        nulls = select(func.count()).select_from(turns).where(text("attachment IS NULL"))
        assert await database.value(nulls) == 0, "a null of JSON is no SQL NULL"
        event = message("later")
        turn = new_turn(event, "agent-1", "later")
        parked = InboxEntry(turn.event_id, "!1:test", event, InboxState.PARKED, [turn])
        await Inbox(database).admit("later", [parked])
        assert await database.value(select(func.max(turns.c.seq))) == 4
        assert await database.value(select(func.max(inbox.c.seq))) == 4
        entry, _ = await AuditStore(database).begin(AuditEntry("p", "u", "api", "x", "f", 9.0))
        assert entry.seq >= 3
        await database.close()


async def test_what_is_not_empty_is_left_alone(file: URL, server: URL, tmp_path: Path) -> None:
    await filled(file)
    database = Database(server)
    await database.open()
    await Meta(database).set("space", "!here:test")
    await database.close()
    with pytest.raises(StoreError, match="is not empty"):
        await move(file, server)
    database = Database(server)
    await database.open()
    assert await Meta(database).get("space") == "!here:test"
    await database.close()
    with pytest.raises(StoreError, match="the same"):
        await move(file, file)
    with pytest.raises(StoreError, match=r"none\.db: no database there"):
        await move(database_url("sqlite:///none.db", tmp_path), server)
    assert not (tmp_path / "none.db").exists()


@pytest.fixture
async def used(request: pytest.FixtureRequest, file: URL, server: URL) -> AsyncGenerator[str]:
    """One of both that a bridge has open."""
    database = Database({"file": file, "server": server}[request.param])
    await database.open()
    yield request.param
    await database.close()


@pytest.mark.parametrize("used", ["file", "server"], indirect=True)
@pytest.mark.parametrize("way", ["there", "back"])
async def test_nobody_may_use_either(file: URL, server: URL, used: str, way: str) -> None:
    if used != "file":
        await filled(file)
    elif way == "back":
        database = Database(server)
        await database.open()
        await database.close()
    source, target = (file, server) if way == "there" else (server, file)
    with pytest.raises(StoreError, match="in use by another letta-matrix"):
        await move(source, target)


async def test_no_bridge_starts_meanwhile(file: URL, server: URL) -> None:
    await filled(file)
    refusals = list[str]()

    def tell(_: Copied) -> None:
        for url in (file, server):
            try:
                asyncio.run(_open(url))
            except StoreError as error:
                refusals.append(str(error))

    await move(file, server, tell)
    assert len(refusals) == 2 * len(metadata.sorted_tables)
    assert {one.partition(";")[2][:9] for one in refusals}


async def _open(url: URL) -> None:
    database = Database(url)
    try:
        await database.open()
    finally:
        await database.close()


_CUT_OFF = """
import asyncio, os, signal, sys
from functools import partial
from pathlib import Path
from letta_matrix.store.database import database_url
from letta_matrix.store.moving import move

def tell(copied):
    if copied.table == "turns":
        os.kill(os.getpid(), signal.SIGKILL)

old, new = (database_url(url, Path()) for url in sys.stdin.read().split())
asyncio.run(move(old, new, tell))
"""


@pytest.mark.parametrize("way", ["there", "back"])
async def test_one_that_is_cut_off_begins_anew(
    file: URL, server: URL, tmp_path: Path, way: str
) -> None:
    source, target = (file, server) if way == "there" else (server, file)
    await filled(source)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CUT_OFF, stdin=asyncio.subprocess.PIPE
    )
    both = [one.render_as_string(hide_password=False) for one in (source, target)]
    await within(process.communicate("\n".join(both).replace(" ", "%20").encode()))
    assert process.returncode == -signal.SIGKILL

    async def refused() -> str:
        try:
            await _open(target)
        except StoreError as error:
            return str(error)
        return ""

    told = await eventually(refused, lambda said: "in use" not in said)
    assert "run `letta-matrix database copy` again: it begins anew" in told
    # Another one is not to take its place.
    await filled(other := database_url("sqlite:///other.db", tmp_path))
    with pytest.raises(StoreError, match="not empty"):
        await move(other, target)
    await move(source, target)
    assert await contents(target) == await contents(source)
    await _open(target)


async def test_rows_that_do_not_arrive_are_noticed(
    file: URL, server: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(file)
    write = copying._write

    def half(db: Connection, table: object, rows: list[object]) -> None:
        if table is audit:
            rows = rows[1:]
        write(db, table, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(copying, "_write", half)
    with pytest.raises(StoreError, match="audit: 2 rows were copied and 1 arrived"):
        await move(file, server)
    monkeypatch.undo()
    await move(file, server)
    assert await contents(server) == await contents(file)


async def test_a_row_that_the_new_one_does_not_take(file: URL, server: URL) -> None:
    await filled(file)
    database = Database(file)
    await database.execute(text("UPDATE turns SET hops = 99999999999 WHERE seq = 2"))
    await database.close()
    with pytest.raises(StoreError, match=r"turns: .* does not take a row: integer out of range"):
        await move(file, server)
    database = Database(server)
    assert await database.value(select(func.count()).select_from(inbox)) == 0
    await database.close()


async def test_another_programs_database_is_no_target(file: URL, postgres: PostgresServer) -> None:
    await filled(file)
    url = database_url(postgres.url(postgres.create()), Path(), PASSWORD)
    postgres.execute("CREATE TABLE users (x int)", database=str(url.database))
    with pytest.raises(StoreError, match="another program keeps its tables there"):
        await move(file, url)


async def test_many_rows_are_brought_in_batches(
    file: URL, server: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_ROWS_AT_ONCE", 2)
    await filled(file, messages=7)
    await move(file, server)
    assert await contents(server) == await contents(file)
    database = Database(server)
    assert await database.value(select(func.count()).select_from(meta)) == 0
    await database.close()


async def command(*arguments: str, **variables: str) -> tuple[int, str]:
    """The exit status of `letta-matrix`, and what it says."""
    run = partial(letta_matrix, *arguments, cwd=Path.cwd(), env=variables)
    done = await asyncio.to_thread(run)
    return done.returncode, done.stdout + done.stderr


async def test_the_command(file: URL, server: URL, tmp_path: Path) -> None:
    await filled(file)
    old, new = f"sqlite:///{file.database}", f"postgresql://bridge@127.0.0.1:{server.port}/"
    new += str(server.database)
    secret = tmp_path / "secret"
    # As an editor of Windows writes it.
    secret.write_bytes(b"\xef\xbb\xbf" + f"{PASSWORD}\r\n".encode())
    copied = ("database", "copy", old, new)
    status, said = await command(*copied, "--password-file", str(secret))
    assert (status, PASSWORD in said) == (0, False)
    assert "turns: 3 rows" in said
    assert f"Write `database.url: {new}`" in said
    status, said = await command(*copied, LETTA_MATRIX__DATABASE__PASSWORD=PASSWORD)
    assert (status, said) == (
        1,
        "letta-matrix: the database to copy into is not empty; name an empty one\n",
    )
    told = new.replace("bridge@", "bridge:word@")
    status, said = await command("database", "copy", old, told)
    assert status == 2
    assert "leave the password out of the address" in said
    status, said = await command("database", "copy", str(file.database), new)
    assert status == 2
    assert "give sqlite:///FILE or postgresql://USER@HOST/DB" in said


async def test_a_backup_of_a_server_is_a_file(
    file: URL, server: URL, postgres: PostgresServer, tmp_path: Path
) -> None:
    await filled(file)
    await move(file, server)
    folder = tmp_path / "bridge"
    folder.mkdir(mode=0o700)
    config = folder / "config.yaml"
    config.write_text(
        "homeserver: {url: 'http://127.0.0.1:1', domain: test}\n"
        "appservice: {as_token: a, hs_token: b}\n"
        f"database: {{url: '{postgres.url(str(server.database))}', password: {PASSWORD}}}\n"
    )
    config.chmod(0o600)
    # A bridge may go on meanwhile.
    bridge = Database(server)
    await bridge.open()
    kept = tmp_path / "kept.age"
    taking = ("backup", str(kept), "-c", str(config), "--no-encryption")
    status, said = await command(*taking)
    await bridge.close()
    assert status == 0, said
    assert not list(folder.rglob("*.db*"))
    there = tmp_path / "there" / "config.yaml"
    status, said = await command("restore", str(kept), "-c", str(there), "--keep-tokens")
    assert status == 0, said
    assert "database copy sqlite:///" in said
    back = database_url("sqlite:///letta-matrix.db", there.parent)
    before = {one.table: one for one in await contents(file)}
    after = {one.table: one for one in await contents(back)}
    assert {table for table in before if before[table] != after[table]} <= {"meta", "agents"}
    empty = postgres.address(postgres.migrated())
    await move(back, empty)
    assert await contents(empty) == await contents(back)
