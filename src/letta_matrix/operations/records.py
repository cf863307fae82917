"""What doors see of the database: the records they tell of, and the tables they look into."""

# They are for others to import.
# ruff: noqa: F401
# pyright: reportUnusedImport=false

from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.approvals import Approval, ApprovalStore
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.leases import Replica
from letta_matrix.store.meta import Meta
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.places import Place
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turn_ids import turn_id_of
from letta_matrix.store.turns import Outcome, Turn, TurnStatus, TurnStore
