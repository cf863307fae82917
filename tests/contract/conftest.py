"""Every adapter before a server of its kind."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

import pytest
from tests.servers import LettaServer
from tests.stub_model import StubModel

if TYPE_CHECKING:
    from tests.contract.places import Place

KINDS = ("app_server", "openai_compatible", "letta_api", "memory")


@pytest.fixture(scope="module", params=KINDS)
def opening(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AbstractAsyncContextManager["Place"]:
    """A place of each kind; real servers are started for those alone that are one."""
    # Here: the process that hands out the tests loads this file, and none of its libraries.
    from tests.contract.places import MemoryPlace, app_server_place, letta_api_place, openai_place

    if request.param == "memory":
        return nullcontext(MemoryPlace())
    if request.param == "letta_api":
        return letta_api_place()
    server: LettaServer = request.getfixturevalue("app_server")
    model: StubModel = request.getfixturevalue("stub_model")
    if request.param == "app_server":
        return app_server_place(server, model, tmp_path_factory.mktemp("contract"))
    return openai_place(server, model)


@pytest.fixture(scope="module")
async def server_place(opening: AbstractAsyncContextManager["Place"]) -> AsyncGenerator["Place"]:
    """One place for all tests of an adapter; they make conversations of their own."""
    async with opening as made:
        yield made


@pytest.fixture
async def place(server_place: "Place") -> AsyncGenerator["Place"]:
    """The place, whose adapters are closed after the test."""
    async with server_place.adapters():
        yield server_place
