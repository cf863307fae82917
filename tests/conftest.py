"""Servers that tests share. Each test makes agents, people and rooms of its own in them."""

import asyncio
import gc
import logging
import os
import re
import shutil
import sys
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from sqlalchemy import URL
from tests import unsynced
from tests.postgres import PASSWORD, PostgresServer
from tests.servers import Homeserver, LettaServer, homeserver_in, letta_server_in
from tests.stub_model import StubModel
from tests.waiting import Clock

from letta_matrix.app import logs
from letta_matrix.store.database import Database, database_url

pytest_plugins = ["tests.stress"]

# What suits programs to one person's terminal, network or accounts is not to decide what a test
# sees. It goes here, before any of them starts.
_OF_ONE_PERSON = re.compile(
    r"(COLUMNS|LINES|NO_COLOR|FORCE_COLOR|TTY_\w+|(HTTPS?|ALL|NO)_PROXY|SSL_CERT_\w+|PG[A-Z]+)"
    r"|(LETTA|MATRIX|OPENAI)_\w+|\w+_API_KEY",
    re.IGNORECASE,
)
for _name in filter(_OF_ONE_PERSON.fullmatch, list(os.environ)):
    del os.environ[_name]
# Or every process that is started here, and each of xdist's, compiles all of our code once more.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
unsynced.in_this_process()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Where several processes collect, each begins a folder at a place of its own, or all would
    rewrite the assertions of the same file at the same time: in a fresh clone that takes as long as
    all the rest of collecting. What one has rewritten the others find in `__pycache__`."""
    report = yield
    worker: dict[str, Any] | None = getattr(collector.config, "workerinput", None)
    if worker and isinstance(collector, pytest.Dir) and collector.path != Path(__file__).parent:
        own, of = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
        first = len(report.result) * own // of
        report.result = report.result[first:] + report.result[:first]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """Where several processes share the work they begin with the last tiers, whose files take the
    longest: one that comes late would keep a single process busy while the others have ended."""
    if hasattr(config, "workerinput"):
        tiers = list(dict.fromkeys(map(_tier, items)))
        # By their paths, as without `pytest_make_collect_report`: all have to agree on the order.
        items.sort(key=lambda item: (-tiers.index(_tier(item)), item.path))
    # Here: the process that only hands out the tests needs nothing of what this loads.
    from tests import made_once

    made_once.in_this_process()
    yield


def _tier(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests, and all that they import, come now and are there to the end: the
    collector of garbage need not go through them again and again, and in what a test leaves
    behind it finds as much when it looks less often."""
    gc.disable()
    found = yield
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """What is still there when a file has ended mostly stays, too."""
    done = yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()
    return done


@pytest.fixture(autouse=True)
def _logging_as_before() -> Generator[None]:
    """Commands set up logging for their process, to a file of one test."""
    yield
    root = logging.getLogger()
    root.handlers[:] = [one for one in root.handlers if type(one).__module__ != logs.__name__]
    structlog.reset_defaults()


@pytest.fixture(scope="session")
async def http() -> AsyncGenerator[aiohttp.ClientSession]:
    """A session for requests of the tests' own."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def clock() -> AsyncGenerator[Clock]:
    """The clock that everything in this process goes by, for this test to move."""
    clock = Clock.of(asyncio.get_running_loop())
    yield clock
    clock.go()


@pytest.fixture(scope="session")
async def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file at the newest schema, to be copied: migrating takes a second."""
    path = tmp_path_factory.mktemp("migrated") / "letta-matrix.db"
    database = Database(database_url(f"sqlite:///{path}", path.parent))
    await database.open()
    await database.close()
    return path


@pytest.fixture
def database_file(migrated: Path, tmp_path: Path) -> Path:
    """An empty database of this test's own."""
    return Path(shutil.copy(migrated, tmp_path / "letta-matrix.db"))


@pytest.fixture(scope="session")
def postgres() -> Generator[PostgresServer]:
    """A real PostgreSQL, in which each test makes databases of its own."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Generator[URL]:
    """An empty database of this test's own at the newest schema."""
    name = postgres.migrated()
    yield database_url(postgres.url(name), Path(), PASSWORD)
    postgres.drop(name)


@pytest.fixture(scope="session")
async def homeserver(
    http: aiohttp.ClientSession, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Homeserver]:
    """A real Synapse that knows our application service."""
    server = homeserver_in(tmp_path_factory.mktemp("homeserver"), http)
    try:
        await server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
async def stub_model() -> AsyncGenerator[StubModel]:
    """The model behind the App Server; see tests/stub_model.py for what it obeys."""
    async with StubModel() as model:
        yield model


@pytest.fixture(scope="session")
async def app_server(
    http: aiohttp.ClientSession,
    stub_model: StubModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[LettaServer]:
    """A real App Server that thinks with the stub model."""
    server = letta_server_in(tmp_path_factory.mktemp("letta"), http)
    try:
        await server.start(stub_model.url)
        yield server
    finally:
        server.stop()
