"""The database's server is lost, and the one that followed it takes its place."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.builders import config_for
from tests.postgres import PASSWORD, PostgresServer

from letta_matrix.access.database import url_of_database
from letta_matrix.app.seat import Seat
from letta_matrix.store.database import Database
from letta_matrix.store.meta import Meta


@dataclass
class Pair:
    """Two servers, and how docs/how-to/replicas.md has bridges find the one that is the primary."""

    primary: PostgresServer
    standby: PostgresServer
    url: str


@pytest.fixture
def pair() -> Iterator[Pair]:
    replicates = {"wal_level": "replica", "max_wal_senders": "4"}
    servers = [PostgresServer(replicates)]
    try:
        servers[0].start()
        name = servers[0].migrated()
        servers.append(servers[0].follower())
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in servers)
        url = f"postgresql://bridge@{hosts}/{name}?target_session_attrs=read-write"
        yield Pair(servers[0], servers[1], url)
    finally:
        for server in servers:
            server.remove()


async def test_what_acts_goes_on_at_the_server_that_takes_the_place(
    pair: Pair, tmp_path: Path
) -> None:
    settings = {"url": pair.url, "password": PASSWORD}
    config = config_for(tmp_path, database=settings, replica={"lease": "10m"})
    acts, stands_by = Seat(config), Seat(config)
    await acts.open()
    await stands_by.open()
    database = Database(url_of_database(config), acts.fence())
    await Meta(database).set("test", "said")

    pair.primary.stop("immediate")
    await acts.look()
    assert acts.trouble is not None
    pair.standby.promote()
    await acts.look()
    assert acts.trouble is None
    assert (acts.holds, acts.epoch) == (True, 1)
    assert await Meta(database).get("test") == "said"
    await Meta(database).set("test", "said again")
    await stands_by.look()
    assert stands_by.active is not None

    for one in (database, acts, stands_by):
        await one.close()
