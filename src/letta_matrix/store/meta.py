"""Small facts about the bridge itself: ids of its own rooms."""

from sqlalchemy import delete, select

from letta_matrix.store.database import Database
from letta_matrix.store.schema import meta


class Meta:
    """The `meta` table: text by key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key: str) -> str | None:
        async with self._database.read() as connection:
            found = await connection.execute(select(meta.c.value).where(meta.c.key == key))
            return found.scalar_one_or_none()

    async def set(self, key: str, value: str) -> None:
        async with self._database.write() as connection:
            await connection.execute(delete(meta).where(meta.c.key == key))
            await connection.execute(meta.insert().values(key=key, value=value))
