"""What operations work with."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from letta_matrix.conversations.admission import Admission
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.matrix.event_bus import EventBus
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.portals.provisioning import Provisioning
from letta_matrix.runtimes.protocol import AgentRuntime
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.meta import Meta
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.tokens import TokenStore
from letta_matrix.store.turn_history import TurnHistory
from letta_matrix.store.turns import Turn, TurnStore

Sync = Callable[[], Awaitable[dict[str, str]]]
"""Lists all runtimes now, and tells why one could not be listed, "" where it could, by its name."""

Archive = Callable[[Agent], Awaitable[None]]
"""Takes a removed agent's room out of the space."""

Cancel = Callable[[Callable[[Turn], bool]], Awaitable[int]]
"""Stops the running and waiting turns that match, and tells how many those were."""


@dataclass(frozen=True, slots=True)
class Given:
    """A class that declares operations is made with those that its own fields are called after.

    `unfinished` are the turns that run or wait; `trouble_of` is what keeps an agent, by its id,
    from being set up, "" for nothing. Without a phone line there is no `provisioning`.
    """

    bot_user_id: str
    homeserver: Homeserver
    directory: AgentDirectory
    runtimes: Mapping[str, AgentRuntime]
    rooms: Rooms
    conversations: ConversationStore
    turns: TurnStore
    history: TurnHistory
    outbox: Outbox
    approvals: Approvals
    policy: PortalPolicy
    tokens: TokenStore
    audit: AuditStore
    meta: Meta
    event_bus: EventBus
    admission: Admission
    sync: Sync
    archive: Archive
    cancel: Cancel
    unfinished: Callable[[], list[Turn]]
    trouble_of: Callable[[str], str]
    provisioning: Provisioning | None
