"""Passwords that agents' accounts have at the homeserver, where operators want that."""

from sqlalchemy import select

from letta_matrix.store.database import Database
from letta_matrix.store.rows import replacing
from letta_matrix.store.schema import passwords


class PasswordStore:
    """The `passwords` table, in clear: people are to log in with them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> dict[str, str]:
        """Every password by agent id."""
        rows = await self._database.rows(select(passwords))
        return {row["agent_id"]: row["password"] for row in rows}

    async def of(self, agent_id: str) -> str | None:
        query = select(passwords.c.password).where(passwords.c.agent_id == agent_id)
        return await self._database.value(query)

    async def keep(self, agent_id: str, password: str) -> None:
        """Store a password in the place of the one before."""
        values = {"agent_id": agent_id, "password": password}
        await self._database.execute(*replacing(passwords, values))
