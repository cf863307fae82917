"""What tests on real servers share: the App Server's adapter, or a bridge with agents on it."""

import os
import secrets
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.integration.bridge_world import Json, Person, Room, new_person
from tests.integration.letta_world import LettaWorld, letta_world
from tests.integration.runtime_bench import MODEL, Bench, connected
from tests.servers import Homeserver, LettaServer
from tests.stub_model import StubModel

from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server import AppServer


@pytest.fixture
async def keeper_socket(tmp_path: Path) -> AsyncGenerator[Path]:
    """Where a keeper may be started; it ends with the test."""
    path = tmp_path / "keeper.sock"
    yield path
    pid = path.with_name("keeper.sock.pid")
    if pid.exists():
        os.kill(int(pid.read_text()), signal.SIGTERM)


@pytest.fixture
async def bench(app_server: LettaServer, keeper_socket: Path) -> AsyncGenerator[Bench]:
    """A connected adapter with an agent and a conversation of its own."""
    runtime = AppServer(
        AppServerRuntime.model_validate({"url": app_server.url, "speech_interval": 0.01}),
        keeper_socket,
    )
    await runtime.start()
    await connected(runtime)
    agent = await runtime.create_agent(f"Ada {secrets.token_hex(3)}", model=MODEL)
    conversation_id = await runtime.create_conversation(agent.agent_id, "room !a")
    bench = Bench(runtime, app_server.url, keeper_socket, agent.agent_id, conversation_id)
    yield bench
    await bench.runtime.close()


@pytest.fixture(scope="module")
async def ann(homeserver: Homeserver) -> Person:
    """The person that agents work for."""
    return await new_person(homeserver)


@pytest.fixture(scope="module")
def sections() -> Json:
    """What is set otherwise in the bridge's configuration; a module may have its own."""
    return {}


@pytest.fixture(scope="module")
async def world(
    homeserver: Homeserver,
    app_server: LettaServer,
    stub_model: StubModel,
    ann: Person,
    sections: Json,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[LettaWorld]:
    """A bridge process whose agents live on the App Server."""
    directory = tmp_path_factory.mktemp("world")
    servers = homeserver, app_server, stub_model
    async with letta_world(*servers, directory, ann, **sections) as running:
        yield running


@pytest.fixture
async def room(world: LettaWorld) -> Room:
    """A new agent's room."""
    return await world.meet()
