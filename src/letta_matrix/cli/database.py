"""The bridge's database as commands beside a running bridge read it."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from letta_matrix.access.database import url_of_database
from letta_matrix.cli.faults import BadInput, Failure
from letta_matrix.common.program import starting, typed
from letta_matrix.config import Config
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.database import Database, StoreError, file_of
from letta_matrix.store.database_file import check_if_alone


@asynccontextmanager
async def open_existing(config: Config) -> AsyncGenerator[Database]:
    """The database, which must be there already.

    Raises:
        Failure: it is not, or cannot be read.
    """
    url = url_of_database(config)
    if (file := file_of(url)) is not None and not await asyncio.to_thread(file.is_file):
        raise Failure(
            f"no database at {file}; start the bridge once: by "
            f"`{starting()}`, or `{typed(['run'])}` with a homeserver of your own"
        )
    try:
        async with Database(url) as database:
            if file is not None:
                await asyncio.to_thread(check_if_alone, file)
            else:
                await _check_server(database)
            yield database
    except StoreError as error:
        raise Failure(str(error)) from None


async def _check_server(database: Database) -> None:
    """Raises StoreError, Failure: it is no bridge's."""
    # Most only read, and may do so at a standby; whoever writes there is told by the server.
    await database.check(writes=False)
    if await database.revision() is None:
        raise Failure(f"the database has no tables yet; start the bridge once (`{typed(['run'])}`)")


async def load_agents(config: Config) -> list[Agent]:
    """Every agent the bridge knows, oldest first. Raises Failure."""
    async with open_existing(config) as database:
        return await agents_in(database)


async def agents_in(database: Database) -> list[Agent]:
    """The same of a database that is open."""
    return (await AgentDirectory(database).load()).all()


def called(ref: str, agents: Iterable[Agent]) -> Agent:
    """The agent with that id, user id or name, exactly; one that was removed is not meant. Raises
    BadInput."""
    known = [agent for agent in agents if agent.status is AgentStatus.ACTIVE]
    found = [agent for agent in known if ref in (agent.agent_id, agent.user_id)]
    found = found or [agent for agent in known if agent.name == ref]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(agent.agent_id for agent in found)
        raise BadInput(f"several agents are called {ref!r}: {ids}; name one by its id")
    raise BadInput(f"there is no agent {ref!r}; `{typed(['agents'])}` lists them")
