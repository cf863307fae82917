"""The bridge's own access tokens, of which only a digest is stored."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select, update

from letta_matrix.common.vitals import Trouble
from letta_matrix.store.database import Database
from letta_matrix.store.rows import record_of, row_of
from letta_matrix.store.schema import tokens


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token. `digest` is the hex SHA-256 of its secret; `agent_id` is the agent it acts as, ""
    for the bot; `rooms` are room ids, None for all. Times are Unix times. `user_id` is the person
    whose login gave it, "" for others."""

    token_id: str
    digest: str
    agent_id: str
    scopes: tuple[str, ...]
    rooms: tuple[str, ...] | None
    label: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    user_id: str = ""

    def told(self) -> dict[str, Any]:
        """What people may see of it, as JSON."""
        return row_of(self, "digest", "user_id")


class TokenStore:
    """The `tokens` table. It is read at every use, so that another process can revoke.

    `reader` is the same database once more, not opened: who shows a token then waits for no
    write, and for no thread. It is this store's own, to be closed with it.
    """

    def __init__(self, database: Database, reader: Database | None = None) -> None:
        self._database = database
        self._reader = reader

    @property
    def trouble(self) -> Trouble | None:
        """What is wrong with the database as tokens are read."""
        return None if self._reader is None else self._reader.trouble

    async def close(self) -> None:
        if self._reader is not None:
            await self._reader.close()

    async def add(self, token: AccessToken) -> None:
        await self._database.execute(tokens.insert().values(row_of(token)))

    async def get(self, token_id: str) -> AccessToken | None:
        if self._reader is None:
            return await self._database.record(
                AccessToken, _ALL.where(tokens.c.token_id == token_id)
            )
        wanted = {"wanted": token_id}
        row = await self._reader.glance(lambda db: db.execute(_ONE, wanted).mappings().first())
        return None if row is None else record_of(AccessToken, row)

    async def all(self) -> list[AccessToken]:
        """Every token, revoked ones too, the oldest first."""
        return await self._database.records(AccessToken, _ALL)

    async def revoke(self, token_id: str, when: float) -> bool:
        """Refuse a token from now on; False if there is none that is still accepted."""
        live = (tokens.c.token_id == token_id) & tokens.c.revoked_at.is_(None)
        return await self._database.changed(update(tokens).where(live).values(revoked_at=when)) == 1

    async def end_logins(self, when: float) -> None:
        """Let all tokens of logins expire that have not."""
        live = (tokens.c.user_id != "") & (tokens.c.expires_at > when)
        await self._database.execute(update(tokens).where(live).values(expires_at=when))


_ALL = select(tokens).order_by(tokens.c.created_at, tokens.c.token_id)
_ONE = select(tokens).where(tokens.c.token_id == bindparam("wanted"))
