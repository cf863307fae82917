"""A bridge process whose agents live on a real App Server, for all files here that set nothing
otherwise."""

import json
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager

import pytest
from tests.integration.bridge_world import Json, Person, Room
from tests.integration.letta_world import LettaWorld, delete_agents, letta_world
from tests.integration.worlds import Worlds
from tests.servers import Homeserver, LettaServer
from tests.stub_model import StubModel


@pytest.fixture(scope="module")
def sections() -> Json:
    """What is set otherwise in the bridge's configuration; a module may have its own."""
    return {}


@pytest.fixture(scope="module")
async def world(
    shared: Worlds,
    homeserver: Homeserver,
    app_server: LettaServer,
    stub_model: StubModel,
    ann: Person,
    troll: Person,
    sections: Json,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[LettaWorld]:
    """The bridge, and nobody on its App Server. An agent that is gone counts as away for long:
    those of earlier files should not say good-bye while others are tested."""
    settings: Json = {
        "agents": {"removal_grace": 3600},
        "conversations": {
            "max_hops": 2,
            "max_text_bytes": 2_000,
            "max_image_bytes": 200_000,
            "approvers": "requester",
            "approver_tools": ["Bash"],
        },
        "permissions": {troll.user_id: "block"},
        **sections,
    }

    def opening() -> AbstractAsyncContextManager[LettaWorld]:
        servers = homeserver, app_server, stub_model
        return letta_world(*servers, tmp_path_factory.mktemp("world"), ann, **settings)

    world = await shared.get(json.dumps(settings), opening)
    yield world
    await delete_agents(app_server, ann.http)


@pytest.fixture
async def room(world: LettaWorld) -> Room:
    """A new agent's room."""
    return await world.meet()


@pytest.fixture(scope="module")
async def own(world: LettaWorld) -> Room:
    """The room of an agent for the whole file."""
    return await world.meet()


@pytest.fixture
async def place(ann: Person, own: Room) -> Room:
    """A thread of this test's own in it: a conversation that meets nothing of the others."""
    return await ann.begin_thread(own)
