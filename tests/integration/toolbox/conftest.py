"""A toolbox for each file, with two agents for tests that leave them as they are; others make
their own."""

from collections.abc import AsyncGenerator

import pytest
from tests.integration.bridge_world import Person
from tests.integration.toolbox.readers import Read
from tests.integration.toolbox.toolbox_bench import Bench, bench_on
from tests.servers import Homeserver

from letta_matrix.store.agents import Agent


@pytest.fixture(scope="module")
async def bench(
    homeserver: Homeserver, ann: Person, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Bench]:
    async with bench_on(homeserver, tmp_path_factory.mktemp("toolbox"), ann) as made:
        yield made


@pytest.fixture(scope="module")
async def ada(bench: Bench) -> Agent:
    return await bench.agent("Ada")


@pytest.fixture(scope="module")
async def bea(bench: Bench) -> Agent:
    return await bench.agent("Bea")


@pytest.fixture
def read(bench: Bench) -> Read:
    """Calls a tool as the holder of a token."""
    return bench.call_as
