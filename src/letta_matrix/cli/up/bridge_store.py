"""The bridge's database, for what `up` has to do with it while the bridge runs."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from letta_matrix.access.database import url_of_database
from letta_matrix.config import Config
from letta_matrix.stack.errors import StackError
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database, StoreError


@asynccontextmanager
async def database_of(config: Config, trouble: str) -> AsyncGenerator[Database]:
    """The database, which the bridge may have open meanwhile. Raises StackError, which begins by
    what is the `trouble`, where it cannot be used."""
    try:
        async with Database(url_of_database(config)) as database:
            yield database
    except StoreError as error:
        raise StackError(f"{trouble}: {error}") from None


async def rooms_of_agents(config: Config) -> dict[str, str]:
    """The own room of each agent there is, by the agent's user id.

    The bridge may have its database open meanwhile. Raises StackError.
    """
    async with database_of(config, "the agents' rooms are not known") as database:
        here = (await AgentDirectory(database).load()).active()
    return {agent.user_id: agent.room_id for agent in here if agent.room_id is not None}
