"""The bridge that all files here share."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager

import pytest
from tests.fake_issuer import FakeIssuer, ec_key
from tests.integration.bridge_world import Person, Room, World
from tests.integration.doors.doors_world import Account, Doors, Gates, doors_on, new_account
from tests.integration.doors.rest import Rest, rest_as
from tests.integration.worlds import Worlds
from tests.servers import Homeserver


@pytest.fixture(scope="session")
async def issuer() -> AsyncGenerator[FakeIssuer]:
    """An issuer whose tokens the bridge takes."""
    made = FakeIssuer()
    made.keys = {"one": ec_key()}
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(scope="session")
async def boss(homeserver: Homeserver) -> Account:
    """An admin of the bridge."""
    return await new_account(homeserver, "boss")


@pytest.fixture(scope="session")
async def mallory(homeserver: Homeserver) -> Account:
    """Somebody whom the operator has blocked."""
    return await new_account(homeserver, "mallory")


@pytest.fixture(scope="module")
async def doors(
    shared: Worlds,
    homeserver: Homeserver,
    issuer: FakeIssuer,
    ann: Person,
    boss: Account,
    mallory: Account,
    tmp_path_factory: pytest.TempPathFactory,
) -> Doors:
    def opening() -> AbstractAsyncContextManager[Doors]:
        people = ann, boss, mallory
        return doors_on(homeserver, tmp_path_factory.mktemp("doors"), issuer, *people)

    return await shared.get("doors", opening)


@pytest.fixture(scope="module")
async def world(doors: Doors) -> World:
    return doors.world


@pytest.fixture(scope="module")
def gates(doors: Doors) -> Gates:
    return doors.gates


@pytest.fixture(scope="module")
def ada(doors: Doors) -> Room:
    return doors.ada


@pytest.fixture(scope="module")
def bea(doors: Doors) -> Room:
    return doors.bea


@pytest.fixture(scope="module")
async def admin(world: World) -> Rest:
    """The API for an admin who acts as the bot."""
    return await rest_as(world)
