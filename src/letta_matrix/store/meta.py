"""Small facts about the bridge itself: ids of its own rooms."""

from sqlalchemy import delete, select

from letta_matrix.store.database import Database
from letta_matrix.store.rows import replacing
from letta_matrix.store.schema import meta


class Meta:
    """The `meta` table: text by key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key: str) -> str | None:
        query = select(meta.c.value).where(meta.c.key == key)
        return await self._database.value(query)

    async def set(self, key: str, value: str) -> None:
        await self._database.execute(*replacing(meta, {"key": key, "value": value}))

    async def forget(self, *keys: str) -> None:
        await self._database.execute(delete(meta).where(meta.c.key.in_(keys)))
