"""What tests on real servers share: the App Server's adapter, or a bridge with agents on it."""

import secrets
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import Json, Person, Room, World, bridge_on, new_person
from tests.integration.runtime_bench import MODEL, Bench, connected
from tests.integration.worlds import Worlds
from tests.scripts import obey
from tests.servers import Homeserver, LettaServer, keeper_in

from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.app_server.keepers import local_keeper
from letta_matrix.runtimes.memory import MemoryRuntime, Script
from letta_matrix.runtimes.protocol import Capabilities

NEXT = pytest.StashKey[pytest.Item | None]()


@pytest.fixture(scope="module")
def keeper_socket(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """Where a keeper may be started; it ends with the file. One that was killed is replaced."""
    with keeper_in(tmp_path_factory.mktemp("keeper")) as socket:
        yield socket


@pytest.fixture
async def bench(app_server: LettaServer, keeper_socket: Path) -> AsyncGenerator[Bench]:
    """A connected adapter with an agent and a conversation of its own."""
    settings = AppServerRuntime.model_validate({"url": app_server.url, "speech_interval": 0.01})
    runtime = AppServer(settings, local_keeper(settings, keeper_socket))
    await runtime.start()
    await connected(runtime)
    agent = await runtime.create_agent(f"Ada {secrets.token_hex(3)}", model=MODEL)
    conversation_id = await runtime.create_conversation(agent.agent_id, "room !a")
    bench = Bench(runtime, app_server.url, keeper_socket, agent.agent_id, conversation_id)
    yield bench
    await bench.runtime.close()


@pytest.fixture(scope="session")
async def ann(homeserver: Homeserver) -> Person:
    """The person that agents work for, an admin."""
    return await new_person(homeserver)


@pytest.fixture(scope="session")
async def bob(homeserver: Homeserver) -> Person:
    """A user, but no admin."""
    person = await new_person(homeserver, "bob")
    path = f"/profile/{quote(person.user_id)}/displayname"
    await person.call("PUT", path, {"displayname": "Bob Builder"})
    return person


@pytest.fixture(scope="session")
async def troll(homeserver: Homeserver) -> Person:
    """Somebody whom the operator has blocked."""
    return await new_person(homeserver, "troll")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    item.session.stash[NEXT] = nextitem
    return (yield)


@pytest.fixture(scope="session")
async def worlds() -> AsyncGenerator[Worlds]:
    """Bridges that files have in common."""
    held = Worlds()
    yield held
    await held.close()


@pytest.fixture(scope="module")
async def shared(request: pytest.FixtureRequest, worlds: Worlds) -> AsyncGenerator[Worlds]:
    """The same; no bridge is left to a file that shares none."""
    yield worlds
    following = request.session.stash[NEXT]
    if not isinstance(following, pytest.Function) or "shared" not in following.fixturenames:
        await worlds.close()


@pytest.fixture(scope="module")
def script() -> Script:
    """What the agents in memory do; a module may have its own."""
    return obey


@pytest.fixture(scope="module")
async def world(
    shared: Worlds,
    homeserver: Homeserver,
    ann: Person,
    troll: Person,
    script: Script,
    tmp_path_factory: pytest.TempPathFactory,
) -> World:
    """A bridge in this process with two runtimes in memory; an agent that vanishes is soon taken
    for removed."""
    sections: Json = {
        "agents": {"removal_grace": 0.3, "removal_listings": 3},
        "conversations": {"agent_mentions": True},
        "permissions": {troll.user_id: "block"},
    }

    def opening() -> AbstractAsyncContextManager[World]:
        directory, runtime = tmp_path_factory.mktemp("world"), MemoryRuntime()
        old = MemoryRuntime("old", capabilities=Capabilities(conversations=False, manage=False))
        return bridge_on(homeserver, directory, ann, runtime, old, **sections)

    world = await shared.get("memory", opening)
    world.runtime.script = script
    return world


@pytest.fixture
async def room(world: World, script: Script) -> AsyncGenerator[Room]:
    """A new agent's room."""
    yield await world.meet()
    world.runtime.script = script
