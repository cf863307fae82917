"""The bridge's machine is lost in mid-turn, and another one goes on: the keeper is elsewhere."""

from collections.abc import AsyncGenerator

import pytest
from tests.crash.bridges import Bridges
from tests.crash.checks import Words, assert_goes_on, growth
from tests.crash.conftest import Build
from tests.keeper_beside import KeeperBeside, keeper_beside
from tests.servers import LettaServer, free_port
from tests.stub_model import StubModel


@pytest.fixture(scope="module")
async def beside(
    app_server: LettaServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[KeeperBeside]:
    async with keeper_beside(app_server.url, tmp_path_factory.mktemp("beside")) as keeper:
        yield keeper


@pytest.fixture
async def bridges(
    build: Build, house: Bridges, beside: KeeperBeside, stub_model: StubModel
) -> AsyncGenerator[Bridges]:
    """With agents of the App Server, where those of other tests are gone."""
    await house.stop()
    await house.delete_agents()
    bridges = build("crash-machine", beside.settings(), stub_model)
    await bridges.write_config()
    yield bridges
    await bridges.stop()
    await bridges.delete_agents()


async def test_another_machine_finishes_the_same_message(bridges: Bridges) -> None:
    words = Words.held()
    await bridges.start()
    room = await bridges.new_room()
    event_id = await bridges.say(room, words.text)
    await growth(bridges, room, words)
    await bridges.kill()
    # The model goes on meanwhile, and nobody is there to hear it.
    bridges.steps.step(words.text, 3)
    bridges.port = free_port()
    await bridges.write_config()
    await bridges.start()
    bridges.steps.finish(words.text)
    await assert_goes_on(bridges, room, (event_id, words))
    # None was started on the bridge's own machine.
    assert not [*bridges.directory.glob("keeper*")]
