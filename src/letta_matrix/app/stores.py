"""The database's tables, opened and closed together."""

from letta_matrix.access.database import url_of_database
from letta_matrix.common.changes import Changes
from letta_matrix.common.vitals import Trouble
from letta_matrix.config import Config
from letta_matrix.conversations.queues import budget_of
from letta_matrix.matrix.server_clock import ServerClock
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.approvals import ApprovalStore
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import Database
from letta_matrix.store.fence import Fence
from letta_matrix.store.inbox import Inbox
from letta_matrix.store.meta import Meta
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.passwords import PasswordStore
from letta_matrix.store.portals import PortalBook
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.sent import SentBook
from letta_matrix.store.speech import SpeechStore
from letta_matrix.store.tokens import TokenStore
from letta_matrix.store.turn_history import TurnHistory
from letta_matrix.store.turns import TurnStore


class Stores:
    """The database's tables; what people send is dated by the homeserver's `clock`. Where
    there are replicas, nothing passes but what passes the `fence`."""

    def __init__(self, config: Config, clock: ServerClock, fence: Fence | None = None) -> None:
        url = url_of_database(config)
        self.database = Database(url, fence)
        self.directory = AgentDirectory(self.database)
        self.conversations = ConversationStore(self.database)
        self.turns = TurnStore(self.database, self.conversations)
        self.history = TurnHistory(self.database)
        self.inbox = Inbox(self.database, budget_of(config), clock.now)
        self.outbox = Outbox(self.database)
        self.approvals = ApprovalStore(self.database, lambda: clock.ahead)
        changes = Changes()
        self.rooms = Rooms(self.database, changes)
        self.speech = SpeechStore(self.database)
        self.portals = PortalBook(self.database, changes)
        self.sent = SentBook(self.database)
        self.meta = Meta(self.database)
        self.passwords = PasswordStore(self.database)
        self.tokens = TokenStore(self.database, Database(url))
        self.audit = AuditStore(self.database)

    async def open(self) -> None:
        """Open the database and load what is held in memory. Raises StoreError."""
        await self.database.open()
        await self.directory.load()
        await self.conversations.load()
        await self.rooms.load()
        await self.portals.load()
        await self.sent.load()
        await self.speech.load()
        await self.approvals.load()

    @property
    def trouble(self) -> Trouble | None:
        """What is wrong with the database."""
        return self.database.trouble or self.tokens.trouble

    async def close(self) -> None:
        await self.tokens.close()
        await self.database.close()
