"""One data directory and one person for all crash tests; each test has an agent of its own."""

from collections.abc import AsyncGenerator

import aiohttp
import pytest
from tests.crash.bridges import Bridges
from tests.crash.person import Person
from tests.servers import Homeserver, LettaServer
from tests.stub_model import StubModel


@pytest.fixture(scope="package")
async def house(
    http: aiohttp.ClientSession,
    homeserver: Homeserver,
    app_server: LettaServer,
    stub_model: StubModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[Bridges]:
    """The data directory, with no bridge running."""
    user_id, token, _ = await homeserver.register("crash")
    person = Person(http, homeserver.url, user_id, token)
    directory = tmp_path_factory.mktemp("crash")
    runtime = {"type": "app_server", "url": app_server.url}
    house = Bridges(directory, homeserver, app_server, stub_model, person, http, runtime)
    yield house
    house.stop()
    await house.delete_agents()
    await house.keeper.end(5)


@pytest.fixture
async def bridges(house: Bridges) -> AsyncGenerator[Bridges]:
    """The same, perhaps with a bridge running, with no trap."""
    house.write_config()
    yield house
    house.unset_trap()
