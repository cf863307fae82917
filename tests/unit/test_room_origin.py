"""Which rooms that aliases of ours lead to are taken for ours, after the database was lost."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from tests.agents_site import Site
from tests.fake_homeserver import FakeHomeserver

from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database
from letta_matrix.store.forgetting import forget_home
from letta_matrix.store.meta import Meta

ALIAS, FIRST, SECOND, LAST = "#agent_1:test", "!first:test", "!second:test", "!last:test"
GHOST, BOT = "@agent_1:test", "@letta:test"
ONCE_ADMIN = "@carol:test"


@pytest.fixture
async def site(
    database: Database, directory: AgentDirectory, homeserver: Homeserver
) -> AsyncGenerator[Site]:
    made = Site(database, directory, homeserver)
    await made.home.ensure()
    await made.new()
    yield made
    await made.provisioner.close()


def make(fake: FakeHomeserver, room_id: str, maker: str | None, before: str = "") -> None:
    content = {"predecessor": {"room_id": before}} if before else {}
    fake.set_state(room_id, "m.room.create", content)["sender"] = maker


def upgrade(fake: FakeHomeserver, old: str, new: str) -> None:
    make(fake, new, ONCE_ADMIN, old)
    fake.set_state(old, "m.room.tombstone", {"replacement_room": new}, sender=ONCE_ADMIN)


async def test_what_took_the_place_of_an_agents_room(site: Site, fake: FakeHomeserver) -> None:
    make(fake, FIRST, GHOST)
    upgrade(fake, FIRST, SECOND)
    upgrade(fake, SECOND, LAST)
    fake.aliases[ALIAS] = LAST
    assert (await site.reconcile()).room_id == fake.aliases[ALIAS] == LAST


async def test_what_took_the_place_of_the_space(site: Site, fake: FakeHomeserver) -> None:
    make(fake, FIRST, BOT)
    upgrade(fake, FIRST, LAST)
    fake.aliases["#letta_agents:test"] = LAST
    await forget_home(Meta(site.database))
    home = site.home_again()
    await home.ensure()
    assert home.space_id == LAST


@pytest.mark.parametrize("replacement", [{}, {"replacement_room": SECOND}])
async def test_not_what_only_says_so_itself(
    site: Site, fake: FakeHomeserver, replacement: dict[str, Any]
) -> None:
    make(fake, FIRST, GHOST)
    fake.set_state(FIRST, "m.room.tombstone", replacement)
    make(fake, LAST, "@mallory:test", FIRST)
    fake.aliases[ALIAS] = LAST
    assert (await site.reconcile()).room_id == fake.aliases[ALIAS] != LAST


async def test_not_rooms_that_took_each_others_place(site: Site, fake: FakeHomeserver) -> None:
    upgrade(fake, FIRST, LAST)
    upgrade(fake, LAST, FIRST)
    fake.aliases[ALIAS] = LAST
    assert (await site.reconcile()).room_id != LAST


@pytest.mark.parametrize("ours", [GHOST, BOT])
@pytest.mark.parametrize("is_creator", [True, False])
@pytest.mark.parametrize("has_bot", [True, False])
async def test_where_we_have_all_power_and_the_bot_is(
    site: Site, fake: FakeHomeserver, ours: str, is_creator: bool, has_bot: bool
) -> None:
    make(fake, LAST, ONCE_ADMIN)
    if is_creator:
        creation = {"room_version": "12", "additional_creators": [ours]}
        fake.set_state(LAST, "m.room.create", creation, sender=ONCE_ADMIN)
    else:
        fake.set_state(LAST, "m.room.power_levels", {"users": {ours: 100}})
    fake.members[LAST] = {GHOST, ONCE_ADMIN} | ({BOT} if has_bot else set())
    fake.aliases[ALIAS] = LAST
    assert ((await site.reconcile()).room_id == LAST) is has_bot


async def test_not_where_we_have_less_power(site: Site, fake: FakeHomeserver) -> None:
    make(fake, LAST, ONCE_ADMIN)
    fake.set_state(LAST, "m.room.power_levels", {"users": {GHOST: 99}})
    fake.members[LAST] = {GHOST, BOT}
    fake.aliases[ALIAS] = LAST
    assert (await site.reconcile()).room_id != LAST


@pytest.mark.parametrize("maker", [None, ""])
async def test_nothing_is_done_while_it_is_not_known_who_made_it(
    site: Site, fake: FakeHomeserver, maker: str | None
) -> None:
    make(fake, LAST, maker)
    fake.members[LAST] = {GHOST}
    fake.aliases[ALIAS] = LAST
    with pytest.raises(HomeserverUnavailable, match=f"who made {LAST}"):
        await site.reconcile()
    assert fake.aliases[ALIAS] == LAST
    assert GHOST in fake.members[LAST]
    make(fake, LAST, GHOST)
    assert (await site.reconcile()).room_id == LAST
