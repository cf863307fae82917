"""What is told of a PostgreSQL that cannot be used, for tests of it."""

from collections.abc import AsyncGenerator

import pytest
from sqlalchemy import URL, text
from tests.postgres import PASSWORD
from tests.waiting import within

from letta_matrix.common.vitals import Trouble
from letta_matrix.store.database import (
    Database,
    StoreError,
    StoreUnavailable,
)
from letta_matrix.store.meta import Meta


@pytest.fixture
async def database(postgres_url: URL) -> AsyncGenerator[Database]:
    """At the newest schema, opened."""
    opened = Database(postgres_url)
    await opened.open()
    yield opened
    await opened.close()


async def refused(url: URL) -> StoreError:
    """What is told of a database that cannot be opened."""
    database = Database(url)
    try:
        with pytest.raises(StoreError) as caught:
            await within(database.open())
    finally:
        await database.close()
    assert PASSWORD not in str(caught.value)
    return caught.value


async def failed(database: Database, work: str) -> Trouble:
    """What is told of a statement that cannot be executed."""
    with pytest.raises(StoreUnavailable) as caught:
        await within(database.write(lambda db: db.execute(text(work))))
    assert PASSWORD not in str(caught.value)
    assert database.outage.is_set()
    assert database.trouble == caught.value.trouble
    return caught.value.trouble


async def can_be_used(database: Database) -> None:
    meta = Meta(database)
    await within(meta.set("test", "here"))
    assert await within(meta.get("test")) == "here"
    assert database.trouble is None
