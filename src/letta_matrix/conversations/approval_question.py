"""One question to people, from the runtime's asking to the runtime's being told."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field

import structlog

from letta_matrix.common import clock
from letta_matrix.common.waiting import is_set
from letta_matrix.conversations.reply import Reply
from letta_matrix.runtimes.faults import RuntimeFault, RuntimeUnavailable
from letta_matrix.runtimes.protocol import AgentRuntime, ApprovalRequested, TurnRequest
from letta_matrix.store.approvals import Approval, ApprovalStatus, ApprovalStore
from letta_matrix.store.outbox import OutboxEntry, OutboxKind

log = structlog.get_logger()

LOOK = 5.0
"""Seconds between looks at the clock while a question waits."""

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0


@dataclass(eq=False, slots=True)
class Question:
    """An approval that a turn of this process waits for.

    `decided` is set once no person is awaited any more, `told` once the runtime knows, `shown`
    once its event says what became of it.
    """

    key: str
    event: ApprovalRequested
    request: TurnRequest
    runtime: AgentRuntime
    reply: Reply
    approval: Approval | None = None
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    told: bool = False
    shown: bool = False
    # Held while the reply's events change: what is cut short there has an unknown outcome.
    posting: asyncio.Lock = field(default_factory=asyncio.Lock)
    task: asyncio.Task[None] | None = None

    async def post(
        self, markdown: str, approval: Approval, store: ApprovalStore, pings: Collection[str]
    ) -> OutboxEntry:
        """The event that asks, posted together with the row unless both are there; it pings the
        users in `pings`."""
        async with self.posting:
            return await self.reply.beside.post(
                OutboxKind.APPROVAL,
                self.key,
                markdown,
                lambda _: store.insert(approval),
                pings=pings,
            )

    async def show(self, entry: OutboxEntry, markdown: str) -> None:
        """Make the event that asks say `markdown` for good."""
        async with self.posting:
            await self.reply.beside.rewrite(entry, self.key, markdown)
        self.shown = True

    async def stop(self) -> None:
        """End the work on it, after the request under way."""
        self.decided.set()
        if self.task is not None:
            async with self.posting:
                self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    def still_asks(self, event: ApprovalRequested, reply: Reply) -> bool:
        """Whether it is this that is asked again, and nothing else, before it was answered."""
        return not self.told and (self.event, self.reply) == (event, reply)

    def is_about(self, approval: Approval) -> bool:
        """Whether what was shown, or denied unseen, is what the runtime asks for now."""
        asked = (self.event.tool, self.event.arguments)
        is_same = (approval.tool, approval.arguments) == asked
        return is_same or approval.status is ApprovalStatus.DENIED

    async def is_decided_by(self, end: float) -> bool:
        """Whether it is decided before a Unix time. The clock may jump over that."""
        latest = clock.now() + end - time.time()
        while (left := min(end - time.time(), latest - clock.now())) > 0:
            if await is_set(self.decided, min(left, LOOK)):
                return True
        return self.decided.is_set()

    async def tell(self, *, allow: bool, message: str = "") -> None:
        """Tell the runtime, as often as it takes."""
        pause = _FIRST_PAUSE
        while not await self._try_to_tell(allow=allow, message=message):
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        self.told = True

    async def _try_to_tell(self, *, allow: bool, message: str) -> bool:
        approval_id = self.event.approval_id
        try:
            await self.runtime.answer_approval(
                self.request, approval_id, allow=allow, message=message
            )
        except RuntimeUnavailable as error:
            log.debug("an approval's answer is told again", reason=str(error))
            return False
        except RuntimeFault as error:
            # Nobody waits for it any more, which a resumed turn takes for granted.
            log.debug("an approval was not pending", reason=str(error))
        return True
