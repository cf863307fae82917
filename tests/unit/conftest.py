"""A database and a homeserver for each unit test, made cheaply."""

import asyncio
import os
import shutil
import signal
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Generator
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.fake_homeserver import FakeHomeserver

from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database, database_url

if TYPE_CHECKING:
    from tests.stage import Stage


_MEMORY = Path("/dev/shm")
_PREFIX = "letta-matrix-unit-"
_ROOM = 2**30
"""Bytes that have to be free there: containers may give it next to nothing."""


@pytest.fixture(scope="session")
def memory_swept() -> None:
    """What runs that were killed have left in memory is gone."""
    sweep(_MEMORY)


def sweep(memory: Path) -> None:
    """Remove the folders of tests whose process, which is in their names, is no more."""
    for folder in memory.glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest) -> Generator[Path]:
    """A folder of this test's own, in memory where there is enough: making and removing thousands
    of databases on a disk took a twelfth of this tier's time."""
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < _ROOM:
        factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
        yield factory.mktemp("unit")
        return
    request.getfixturevalue("memory_swept")
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_MEMORY))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Modules that say `ON_BOTH = True` are tested on both kinds of databases, but for what in
    them looks into SQLite's file."""
    on_both: object = metafunc.function.__globals__.get("ON_BOTH")
    wants_file = "database_file" in signature(metafunc.function).parameters
    if on_both and "database" in metafunc.fixturenames and not wants_file:
        metafunc.parametrize("database", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
async def database(request: pytest.FixtureRequest, database_file: Path) -> AsyncGenerator[Database]:
    url = database_url(f"sqlite:///{database_file}", database_file.parent)
    if getattr(request, "param", "sqlite") == "postgres":
        url = request.getfixturevalue("postgres_url")
    opened = Database(url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def directory(database: Database) -> AgentDirectory:
    """The agents' table, with nobody in it."""
    agents = AgentDirectory(database)
    await agents.load()
    return agents


@pytest.fixture
async def fake() -> AsyncGenerator[FakeHomeserver]:
    server = FakeHomeserver()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def homeserver(fake: FakeHomeserver) -> AsyncGenerator[Homeserver]:
    """Our client to the fake homeserver."""
    client = Homeserver(fake.url, "as-secret", Pacer(edits_per_second=1000))
    yield client
    await client.close()


@pytest.fixture
async def stage(fake: FakeHomeserver, database_file: Path) -> AsyncGenerator["Stage"]:
    """A bridge with agents 1 and 2, each in its own room."""
    # Here: most tests need nothing of what it is made of.
    from tests.stage import Stage

    made = Stage(fake, database_file)
    await made.open()
    await made.add(1)
    await made.add(2)
    yield made
    await made.close()


@pytest.fixture
async def ruled(stage: "Stage") -> "Stage":
    """A stage with a bridge to another network, and a person who is an admin."""
    from tests.builders import PERSON
    from tests.portal_kit import with_bridge

    stage._sections |= {"permissions": {"test": "user", PERSON: "admin"}}
    return await with_bridge(stage)


@pytest.fixture
async def bridged(stage: "Stage") -> "Stage":
    """The same with a bridge to another network, whose contacts agent 1 answers."""
    from tests.portal_kit import with_bridge

    return await with_bridge(stage)


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """The processes that decode; each stands still from its start."""
    started, start = list[Process](), asyncio.create_subprocess_exec

    async def stopped(*arguments: str, **options: Any) -> Process:
        process = await start(*arguments, **options)
        process.send_signal(signal.SIGSTOP)
        started.append(process)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", stopped)
    return started
