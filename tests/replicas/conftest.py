"""Two replicas that tests share; each test has an agent of its own."""

import contextlib
import os
import secrets
from collections.abc import AsyncGenerator

import aiohttp
import pytest
from tests.balancer import Balancer
from tests.contract.relay import Relay
from tests.crash.nursery import Nursery
from tests.crash.person import Person
from tests.postgres import PASSWORD, PostgresServer
from tests.replicas.twins import One, Twins, keeper_socket
from tests.servers import Homeserver, LettaServer, free_port
from tests.stub_model import StubModel
from yarl import URL

from letta_matrix.store.database import database_url

COUNT = int(os.environ.get("REPLICA_COUNT", "2"))

pytest.register_assert_rewrite("tests.crash.checks")


@pytest.fixture(scope="package")
async def pair(
    http: aiohttp.ClientSession,
    homeserver: Homeserver,
    app_server: LettaServer,
    stub_model: StubModel,
    postgres: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[Twins]:
    user_id, token, _ = await homeserver.register(f"twins_{secrets.token_hex(3)}")
    person = Person(http, homeserver.url, user_id, token)
    directory = tmp_path_factory.mktemp("twins")
    runtime = {
        "type": "app_server",
        "url": app_server.url,
        "keeper_socket": keeper_socket(directory),
    }
    servers = homeserver, app_server, stub_model, person, http
    twins = Twins(directory, *servers, runtime, stub_model, Nursery())
    twins.postgres, name = postgres, postgres.migrated()
    twins.database = database_url(postgres.url(name), directory, PASSWORD)
    at_home = URL(homeserver.url).port
    assert at_home is not None
    async with contextlib.AsyncExitStack() as stack:
        for called in ("one", "two", "three")[:COUNT]:
            (folder := directory / called).mkdir(mode=0o700)
            way, home = Relay(postgres.port, free_port()), Relay(at_home, free_port())
            for one in (way, home):
                await stack.enter_async_context(one)
            twins.members.append(One(folder, http, way, home))
        ports = [("127.0.0.1", one.ports["appservice"]) for one in twins.members]
        await stack.enter_async_context(Balancer(homeserver.appservice_port, ports))
        for one in twins.members:
            one.write_config(twins.common(), name, "bridge")
        yield twins
        await twins.stop()
        await twins.delete_agents()
        await twins.keeper.end(5)
    postgres.drop(name)


@pytest.fixture
async def twins(pair: Twins) -> Twins:
    """Both run: one acts, one stands by."""
    await pair.start_all()
    return pair
