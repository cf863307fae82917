"""What the bridge asks of itself: whether it can write, and whether the homeserver reaches it."""

import asyncio
import math
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from sqlalchemy import text
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.unit.test_health import config_on
from tests.waiting import Clock, eventually, settled

from letta_matrix.app.bridge import Bridge
from letta_matrix.app.pulse import Ping, Reach, StorePulse
from letta_matrix.common.vitals import State, Trouble, lines
from letta_matrix.config import Config
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.store.database import Database, StoreUnavailable
from letta_matrix.store.meta import Meta

PING = "appservice/.*/ping"
UNREACHED = Fault(502, {"errcode": "M_CONNECTION_FAILED", "error": "no route"})


@pytest.fixture
async def bridge(
    fake: FakeHomeserver, database_file: Path, clock: Clock
) -> AsyncGenerator[tuple[Bridge, Config]]:
    config = config_on(fake, database_file)
    bridge = Bridge(config, [MemoryRuntime()])
    await bridge.start()
    await clock.until(bridge.is_ready)
    yield bridge, config
    await bridge.close()


async def fill(database: Database) -> None:
    """From now on the database cannot grow: as on a disk that is full."""
    pages = await database.read(lambda db: db.execute(text("PRAGMA page_count")).scalar_one())
    await database.execute(text(f"PRAGMA max_page_count = {pages}"))


async def empty(database: Database) -> None:
    await database.read(lambda db: db.execute(text("PRAGMA max_page_count = 1000000")))


async def test_a_full_disk_is_told_until_there_is_room(database: Database) -> None:
    await fill(database)
    with pytest.raises(StoreUnavailable):
        await Meta(database).set("large", "x" * 500_000)
    assert database.outage.is_set()
    # What can be read still does not make it well.
    assert await Meta(database).get("large") is None
    assert database.trouble is not None
    assert "database or disk is full" in database.trouble.says
    assert database.trouble.remedy.startswith("make room on the disk of ")
    await empty(database)
    await Meta(database).set("large", "x" * 500_000)
    assert database.trouble is None


async def test_once_it_can_be_written_again_the_homeserver_is_asked_for_what_it_keeps(
    fake: FakeHomeserver,
    database: Database,
    database_file: Path,
    homeserver: Homeserver,
    clock: Clock,
) -> None:
    moved = database_file.with_name("elsewhere")
    ping = Ping(config_on(fake, database_file), homeserver)
    wanted = asyncio.Event()
    pulse = asyncio.create_task(StorePulse(database, ping, wanted.set).run())
    database_file.rename(moved)
    await clock.until(lambda: database.trouble, step=5)
    assert database.trouble is not None
    assert "was deleted or replaced" in database.trouble.says
    assert "start the bridge again" in database.trouble.remedy
    await clock.until(database.outage.is_set)
    assert not fake.matching(PING)
    assert not wanted.is_set()
    moved.rename(database_file)
    await clock.until(lambda: fake.matching(PING))
    assert wanted.is_set()
    assert database.trouble is None
    pulse.cancel()
    await asyncio.gather(pulse, return_exceptions=True)


async def test_whether_we_are_reached_is_asked_when_somebody_wants_to_know(
    bridge: tuple[Bridge, Config],
    fake: FakeHomeserver,
    http: aiohttp.ClientSession,
    clock: Clock,
) -> None:
    one, config = bridge

    async def ready() -> int:
        async with http.get(f"http://127.0.0.1:{config.api.port}/ready") as response:
            return response.status

    clock.advance(20)
    pings = len(fake.matching(PING))
    assert await ready() == 200
    assert await ready() == 200
    assert len(fake.matching(PING)) == pings + 1
    clock.advance(20)
    fake.fail(PING, *[UNREACHED] * 100)
    await eventually(ready, (503).__eq__)
    trouble = one.app.vitals.of("reachability")
    assert trouble is not None
    # In the words of the first try to connect.
    assert trouble.says.startswith(
        f"the homeserver is there and cannot reach us at {config.appservice.url}: no route"
    )
    assert "change that and appservice.url" in trouble.remedy
    fake.heal()
    clock.advance(3)
    await eventually(ready, (200).__eq__)
    assert one.app.vitals.of("reachability") is None


async def test_a_firewall_before_us_is_told(
    fake: FakeHomeserver, database_file: Path, homeserver: Homeserver, clock: Clock
) -> None:
    config = config_on(fake, database_file)
    released = fake.hold(PING)
    trouble = await clock.through(Ping(config, homeserver).send())
    assert trouble is not None
    assert f"at {config.appservice.url}: nobody answers. Does a firewall" in trouble.says
    released.set()


async def test_a_homeserver_that_trips_while_it_reaches_us_reaches_us(
    fake: FakeHomeserver, database_file: Path, homeserver: Homeserver
) -> None:
    tripped = {"errcode": "M_CONNECTION_FAILED", "error": "AlreadyCalled: "}
    fake.fail(PING, Fault(502, tripped))
    assert await Ping(config_on(fake, database_file), homeserver).send() is None


async def test_what_reaches_us_needs_no_question(
    bridge: tuple[Bridge, Config],
    fake: FakeHomeserver,
    http: aiohttp.ClientSession,
    clock: Clock,
) -> None:
    one, config = bridge
    fake.fail(PING, *[UNREACHED] * 100)
    clock.advance(20)
    await one.health.asked_if_ready()
    await eventually(lambda: not one.is_ready())
    url = f"http://127.0.0.1:{config.appservice.port}/_matrix/app/v1/ping"
    async with http.post(url, json={}, headers={"Authorization": "Bearer h"}) as response:
        assert response.status == 200
    assert one.is_ready()
    pings = len(fake.matching(PING))
    assert await one.health.asked_if_ready()
    await settled()
    assert len(fake.matching(PING)) == pings


async def test_what_does_not_come_back_makes_no_ping_doubtful(clock: Clock) -> None:
    asked, silent = list[float](), Trouble("it pushes nothing")

    class Reached:
        async def send(self) -> None:
            asked.append(clock.now())

    class Silent:
        trouble = silent

    reach = Reach(cast("Any", Reached()), lambda: -math.inf, lambda: True, cast("Any", Silent()))
    await reach.look()
    clock.advance(5)
    await reach.look()
    assert len(asked) == 1
    assert reach.trouble is silent


async def test_a_homeserver_that_is_away_is_no_question_of_reach(
    bridge: tuple[Bridge, Config], fake: FakeHomeserver, clock: Clock
) -> None:
    one, _ = bridge
    fake.fail("versions|" + PING, *[Fault(502)] * 1000)
    clock.advance(20)
    await one.health.asked_if_ready()
    await clock.until(lambda: not one.is_ready())
    assert lines(one.app.vitals.checks(), State.TROUBLE) == ["the homeserver cannot be reached"]


async def test_no_runtimes_is_a_trouble(fake: FakeHomeserver, database_file: Path) -> None:
    bridge = Bridge(config_on(fake, database_file, runtimes=[]))
    await bridge.start()
    (told,) = [
        line
        for line in lines(bridge.app.vitals.checks(), State.TROUBLE)
        if "no runtime is configured" in line
    ]
    assert "`runtimes` in config.yaml" in told
    await bridge.close()
