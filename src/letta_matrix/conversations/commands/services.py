"""What commands may use of the rest of the bridge."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from letta_matrix.config import Config
from letta_matrix.runtimes.protocol import AgentRuntime
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.approvals import Approval, ApprovalStatus, ApprovalStore
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.places import Place
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Turn, TurnStore


class Approvals(Protocol):
    """Tool calls that wait for a person."""

    @property
    def store(self) -> ApprovalStore: ...

    def may_answer(self, approval: Approval, user_id: str) -> bool:
        """Whether a person may answer it; True for nobody else."""
        ...

    def who_may(self, approval: Approval) -> str:
        """Whose answer counts, in words (Markdown)."""
        ...

    async def answer(
        self, approval: Approval, status: ApprovalStatus, *, by: str, reason: str = ""
    ) -> bool:
        """Settle it and tell the runtime; False if it was settled before."""
        ...


@dataclass(frozen=True, slots=True)
class CommandServices:
    """What handlers and their runner work with.

    `cancel` stops the running and queued messages that match and returns how many those were;
    `sync` lists all runtimes now (raises RuntimeFault); `troubles` are lines for an operator,
    `trouble_of` is the one of an agent by its id, "" if there is none; `waiting` counts the
    messages at a place that are not answered yet, the one being worked on included.
    """

    config: Config
    directory: AgentDirectory
    runtimes: Mapping[str, AgentRuntime]
    turns: TurnStore
    conversations: ConversationStore
    rooms: Rooms
    outbox: Outbox
    approvals: Approvals
    cancel: Callable[[Callable[[Turn], bool]], Awaitable[int]]
    sync: Callable[[], Awaitable[None]]
    troubles: Callable[[], list[str]]
    trouble_of: Callable[[str], str]
    waiting: Callable[[Place], int]
