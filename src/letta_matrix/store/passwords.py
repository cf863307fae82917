"""Passwords that agents' accounts have at the homeserver, where operators want that."""

from sqlalchemy import select

from letta_matrix.store.database import Database
from letta_matrix.store.schema import passwords


class PasswordStore:
    """The `passwords` table, in clear: people are to log in with them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> dict[str, str]:
        """Every password by agent id."""
        rows = await self._database.read(lambda db: db.execute(select(passwords)).all())
        return {row.agent_id: row.password for row in rows}

    async def of(self, agent_id: str) -> str | None:
        query = select(passwords.c.password).where(passwords.c.agent_id == agent_id)
        return await self._database.read(lambda db: db.execute(query).scalar())

    async def keep(self, kept: dict[str, str]) -> None:
        """Store passwords by agent id, in the place of those before."""
        if not kept:
            return
        before = passwords.delete().where(passwords.c.agent_id.in_(kept))
        rows = [{"agent_id": who, "password": what} for who, what in kept.items()]
        await self._database.execute(before, *(passwords.insert().values(row) for row in rows))
