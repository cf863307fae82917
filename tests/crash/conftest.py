"""Data directories that all crash tests share; each test has an agent of its own."""

import os
import secrets
import shutil
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import URL
from tests.crash.bridges import Bridges, Mind
from tests.crash.nursery import Nursery
from tests.crash.person import Person
from tests.fake_letta_api import FakeLettaApi
from tests.postgres import PASSWORD, PostgresServer
from tests.servers import Homeserver, LettaServer
from tests.stub_model import StubModel

from letta_matrix.store.database import database_url

pytest.register_assert_rewrite("tests.crash.checks")

Build = Callable[..., Bridges]
ON_POSTGRES = "CRASH_ON_POSTGRES" in os.environ
"""Whether all that dies here has its database on a server."""


@pytest.fixture(scope="package")
def new_database(request: pytest.FixtureRequest) -> Callable[[], URL]:
    """Makes one on a PostgreSQL server."""

    def made() -> URL:
        postgres: PostgresServer = request.getfixturevalue("postgres")
        return database_url(postgres.url(postgres.migrated()), Path(), PASSWORD)

    return made


@pytest.fixture(scope="package")
async def build(
    http: aiohttp.ClientSession,
    homeserver: Homeserver,
    app_server: LettaServer,
    stub_model: StubModel,
    new_database: Callable[[], URL],
    migrated: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[Build]:
    """Makes a data directory, with no bridge running, for one person."""
    user_id, token, _ = await homeserver.register(f"crash_{secrets.token_hex(3)}")
    person = Person(http, homeserver.url, user_id, token)

    async with Nursery() as nursery:

        def made(
            name: str, runtime: dict[str, str], mind: Mind, *, on_postgres: bool = ON_POSTGRES
        ) -> Bridges:
            database = new_database() if on_postgres else None
            directory = tmp_path_factory.mktemp(name)
            shutil.copy(migrated, directory)
            servers = homeserver, app_server, stub_model, person, http
            return Bridges(directory, *servers, runtime, mind, nursery, database)

        yield made


@pytest.fixture(scope="package")
async def house(
    build: Build, app_server: LettaServer, stub_model: StubModel
) -> AsyncGenerator[Bridges]:
    """With agents of the App Server."""
    runtime = {"type": "app_server", "url": app_server.url}
    house = build("crash", runtime, stub_model)
    yield house
    await house.stop()
    await house.delete_agents()
    await house.keeper.end(5)


@pytest.fixture
async def bridges(house: Bridges) -> AsyncGenerator[Bridges]:
    """With agents of the App Server; perhaps a bridge is running. There is no trap."""
    await house.write_config()
    yield house
    await house.unset_trap()


@pytest.fixture(scope="module")
async def letta_api() -> AsyncGenerator[FakeLettaApi]:
    async with FakeLettaApi() as server:
        yield server


@pytest.fixture(scope="module")
async def letta_house(build: Build, letta_api: FakeLettaApi) -> AsyncGenerator[Bridges]:
    """With agents of a Letta API."""
    runtime = {"type": "letta_api", "url": letta_api.url, "api_key": letta_api.key}
    house = build("crash-letta", runtime, letta_api)
    await house.write_config()
    await house.start()
    house.hall = await house.room_of(letta_api.add_agent("Ada"))
    yield house
    await house.stop()


@pytest.fixture(scope="module")
async def openai_house(
    build: Build, house: Bridges, app_server: LettaServer, stub_model: StubModel
) -> AsyncGenerator[Bridges]:
    """With agents behind the App Server's OpenAI API, where those of other tests are gone."""
    await house.stop()
    await house.delete_agents()
    runtime = {"type": "openai_compatible", "url": app_server.openai_url}
    house = build("crash-openai", runtime, stub_model)
    await house.write_config()
    await house.start()
    await house.new_agent("Ada")
    # This API names agents by their names alone.
    house.hall = await house.room_of("Ada")
    yield house
    await house.stop()
    await house.delete_agents()
