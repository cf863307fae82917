"""A database that cannot be read, or of which something is missing, says so and what to do."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import yaml
from tests.cli_kit import letta_matrix
from tests.fake_homeserver import FakeHomeserver
from tests.servers import free_port
from tests.unit.test_health import config_on
from tests.waiting import within

from letta_matrix.app.bridge import Bridge
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.store import checkup
from letta_matrix.store.database import (
    Database,
    StoreDamaged,
    StoreError,
    StoreUnavailable,
    database_url,
)
from letta_matrix.store.meta import Meta

WRITER = """
import asyncio, sys
from pathlib import Path
from letta_matrix.store.database import Database, database_url
from letta_matrix.store.meta import Meta

async def write():
    database = Database(database_url("sqlite:///" + sys.argv[1], Path("/")))
    await database.open()
    for number in range(20):
        await Meta(database).set(f"key {number}", "x" * 5000)
    print("written", flush=True)
    await asyncio.sleep(3600)

asyncio.run(write())
"""
PAGE = 4096


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def overwrite(path: Path, offset: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xaa" * size)


Harm = Callable[[Path], None]
LOG: dict[str, Harm] = {
    "in the middle": lambda log: overwrite(log, 20 * PAGE, 10),
    "its last page": lambda log: overwrite(log, log.stat().st_size - 10, 10),
    "cut short": lambda log: os.truncate(log, 10 * PAGE),
    "emptied": lambda log: os.truncate(log, 0),
    "its head": lambda log: overwrite(log, 0, 32),
    "its head cut short": lambda log: os.truncate(log, 31),
}
FILE: dict[str, tuple[Harm, str]] = {
    "cut short": (lambda file: os.truncate(file, 7 * PAGE + 100), "the database is damaged"),
    "hardly anything left": (lambda file: os.truncate(file, 50), "the database is damaged"),
    "its head": (lambda file: overwrite(file, 0, 100), "file is not a database"),
    "its schema": (lambda file: overwrite(file, 100, 3000), "the database is damaged"),
    "a page": (lambda file: overwrite(file, 9 * PAGE, PAGE), "the database is damaged"),
}


async def opens(path: Path) -> Database:
    database = Database(database_url(f"sqlite:///{path}", path.parent))
    try:
        await database.open()
    finally:
        await database.close()
    return database


@pytest.fixture(scope="module")
async def left(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose bridge was killed: twenty commits stand in the log beside it."""
    file = Path(shutil.copy(migrated, tmp_path_factory.mktemp("left")))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(file), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await within(process.stdout.readline()) == b"written\n"
    process.kill()
    await process.wait()
    assert beside(file, "-wal").stat().st_size > 40 * PAGE
    return file


@pytest.fixture
def killed(left: Path, tmp_path: Path) -> Path:
    """A copy of that for this test alone."""
    for suffix in ("", "-wal", "-shm"):
        shutil.copy(beside(left, suffix), tmp_path)
    return tmp_path / left.name


async def test_what_a_killed_bridge_left_is_whole(killed: Path) -> None:
    await opens(killed)
    with closing(sqlite3.connect(killed)) as db:
        assert db.execute("SELECT count(*) FROM meta WHERE key LIKE 'key %'").fetchone() == (20,)


async def test_an_index_of_an_earlier_log_tells_of_no_damage(killed: Path) -> None:
    """As a power cut leaves it: nobody syncs it."""
    index = beside(killed, "-shm")
    head = bytearray(index.read_bytes()[:48])
    head[16:20], head[32:40] = (99_999).to_bytes(4, sys.byteorder), b"earlier!"
    with index.open("r+b") as file:
        file.write(head + head)
    await opens(killed)


@pytest.mark.parametrize("harm", LOG.values(), ids=LOG.keys())
async def test_a_damaged_log_is_noticed_and_kept(killed: Path, harm: Harm) -> None:
    log = beside(killed, "-wal")
    harm(log)
    before = log.read_bytes()
    for _ in range(2):
        with pytest.raises(StoreDamaged, match=r"-wal: the database is damaged .* put a backup"):
            await opens(killed)
    assert log.read_bytes() == before
    # As the error says.
    log.unlink()
    await opens(killed)


async def test_an_empty_log_of_which_nothing_is_missing(killed: Path) -> None:
    with closing(sqlite3.connect(killed)) as db:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        index = beside(killed, "-shm").read_bytes()
    beside(killed, "-wal").touch()
    beside(killed, "-shm").write_bytes(index)
    await opens(killed)


@pytest.mark.parametrize(("harm", "told"), FILE.values(), ids=FILE.keys())
async def test_a_damaged_file_is_noticed(database_file: Path, harm: Harm, told: str) -> None:
    harm(database_file)
    with pytest.raises(StoreDamaged, match=f"^{database_file}: .*{told}.*backup back"):
        await opens(database_file)


async def test_of_a_large_database_the_pages_are_looked_at_after_a_crash(
    killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "_WHOLE", 0)
    copy = killed.with_name("copy.db")
    copy.write_bytes(killed.read_bytes())
    for file in (killed, copy):
        overwrite(file, 9 * PAGE, PAGE)
    await opens(copy)
    with pytest.raises(StoreDamaged):
        await opens(killed)


async def test_another_programs_file_is_let_alone(tmp_path: Path) -> None:
    file = tmp_path / "homeserver.db"
    with closing(sqlite3.connect(file)) as db:
        for name in ("users", "events", "alembic_version"):
            db.execute(f"CREATE TABLE {name} (x)")
    with pytest.raises(StoreError, match=f"^{file}: another program keeps its tables there"):
        await opens(file)
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (3,)


async def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "x.db").mkdir()
    with pytest.raises(StoreError, match=r"Is a directory; .* name another file"):
        await opens(tmp_path / "x.db")


async def test_one_that_another_program_has_locked(
    database_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(database_file, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0))
        with pytest.raises(StoreUnavailable, match="locked; another program holds it: end that"):
            await opens(database_file)


@pytest.mark.parametrize(
    ("code", "text", "told"),
    [
        (sqlite3.SQLITE_FULL, "database or disk is full", "make room"),
        (sqlite3.SQLITE_CANTOPEN, "unable to open database file", "has to own it"),
        (sqlite3.SQLITE_READONLY | 1 << 8, "attempt to write a readonly database", "has to own it"),
        (sqlite3.SQLITE_IOERR | 3 << 8, "disk I/O error", "the disk is full, or fails"),
        (sqlite3.SQLITE_NOLFS, "large files", "$"),
    ],
)
async def test_what_else_can_go_wrong(
    database_file: Path, monkeypatch: pytest.MonkeyPatch, code: int, text: str, told: str
) -> None:
    def connect(*_: object, **__: object) -> object:
        error = sqlite3.OperationalError(text)
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(StoreUnavailable, match=f"{database_file}: .*{text}.*{told}"):
        await opens(database_file)


@pytest.mark.parametrize("arguments", [("run",), ("agents",), ("tokens", "list")])
def test_commands_say_it_in_one_line(
    fake: FakeHomeserver, killed: Path, arguments: tuple[str, ...]
) -> None:
    overwrite(beside(killed, "-wal"), 20 * PAGE, 10)
    config = config_on(fake, killed)
    settings = {
        "homeserver": {"url": config.homeserver.url, "domain": "test"},
        "appservice": {"as_token": "a", "hs_token": "h", "port": config.appservice.port},
        "api": {"port": free_port()},
        "mcp": {"port": free_port(), "websocket_port": free_port()},
        "runtimes": [{"type": "memory"}],
        "database": {"url": f"sqlite:///{killed}"},
    }
    (killed.parent / "config.yaml").write_text(yaml.safe_dump(settings))
    killed.parent.chmod(0o700)
    done = letta_matrix(*arguments, cwd=killed.parent)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"letta-matrix: {killed}-wal: the database is damaged (")
    assert done.stderr.count("\n") == 1
    assert "docs/operations.md" in done.stderr


async def test_damage_that_is_found_later_shows_in_health(
    fake: FakeHomeserver, database_file: Path, http: aiohttp.ClientSession
) -> None:
    config = config_on(fake, database_file)
    bridge = Bridge(config, [MemoryRuntime()])
    await bridge.start()
    url = f"http://127.0.0.1:{config.api.port}"
    token = {"Authorization": "Bearer lm_aaaaaaaaaaaa_" + "b" * 43}
    try:
        async with http.get(f"{url}/api/v1/whoami", headers=token) as response:
            assert response.status == 401
        with closing(sqlite3.connect(database_file)) as db:
            await Meta(bridge.app.stores.database).set("x", "y")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            overwrite(database_file, PAGE, database_file.stat().st_size - PAGE)
        async with http.get(f"{url}/api/v1/whoami", headers=token) as response:
            assert response.status == 503
        async with http.get(f"{url}/health") as response:
            health = await response.json()
        assert health["status"] == "degraded"
        assert any(
            "is damaged (database disk image is malformed)" in one for one in health["troubles"]
        )
    finally:
        await bridge.close()
