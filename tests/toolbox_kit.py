"""A toolbox over a database, for tests without a bridge."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from letta_matrix.config import Config
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.operations.toolbox.registry import Toolbox
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import Database
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import TurnStore


@asynccontextmanager
async def toolbox_on(
    config: Config, homeserver: Homeserver, directory: AgentDirectory, database: Database
) -> AsyncGenerator[Toolbox]:
    """A toolbox that is closed before its database is."""
    conversations = ConversationStore(database)
    stores = Rooms(database), conversations, TurnStore(database, conversations), Outbox(database)
    made = Toolbox(config, homeserver, directory, *stores, AuditStore(database))
    yield made
    await made.close()
