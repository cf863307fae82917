"""One question to people, from the runtime's asking to the runtime's being told, and what they
see of it."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common import clock
from letta_matrix.common.backoff import Backoff
from letta_matrix.common.identifiers import is_ours
from letta_matrix.common.parts import part
from letta_matrix.common.waiting import is_set
from letta_matrix.config import Config
from letta_matrix.conversations.reply import Reply
from letta_matrix.matrix.events import newest_content
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.runtimes.faults import RuntimeFault, RuntimeUnavailable
from letta_matrix.runtimes.protocol import (
    AgentRuntime,
    ApprovalRequested,
    ToolReturned,
    TurnRequest,
)
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.approvals import Approval, ApprovalStatus, ApprovalStore
from letta_matrix.store.outbox import Outbox, OutboxEntry

log = structlog.get_logger()

LOOK = 5.0
"""Seconds between looks at the clock while a question waits."""

_PAUSES = Backoff(0.2, 10.0)


@dataclass(eq=False, slots=True)
class ApprovalQuestion:
    """An approval that a turn of this process waits for.

    `decided` is set once no person is awaited any more, `settled` is how a person of this process
    has left it, `told` is set once the runtime knows, `shown` once its event says what became of
    it; `denial` is why the tool may not run, as the runtime is told, and `denied_call` the call
    that has failed with that.
    """

    key: str
    event: ApprovalRequested
    request: TurnRequest
    runtime: AgentRuntime
    reply: Reply
    approval: Approval | None = None
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    settled: Approval | None = None
    told: bool = False
    shown: bool = False
    denial: str = ""
    denied_call: str = ""
    # Held while the reply's events change: what is cut short there has an unknown outcome.
    posting: asyncio.Lock = field(default_factory=asyncio.Lock)
    task: asyncio.Task[None] | None = None

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

    def is_same_call(self, approval: Approval) -> bool:
        """Whether an approval is of the very call that the runtime asks for now."""
        is_same = to_the_letter(approval.arguments, self.event.arguments)
        return is_same and approval.tool == self.event.tool

    def has_denied(self, call: ToolReturned, tool: str) -> bool:
        """Whether a call of `tool` failed without running since people said no to it.

        That is one call: another one that prints the same has run, whatever it says.
        """
        if call.ok or not self.denial or self.denial not in call.output:
            return False
        known = self.event.call_id or self.denied_call
        if not (known == call.call_id if known else tool == self.event.tool):
            return False
        self.denied_call = call.call_id
        return True

    async def is_allowed_for_good(self, store: ApprovalStore, config: Config) -> bool:
        """Whether an admin allowed this very call of the agent for good, and an admin asks for it
        now: what others ask for always asks, since they may have talked the agent into it."""
        turn = self.reply.turn
        if is_ours(turn.sender, config.bot_user_id) or config.role_of(turn.sender) != "admin":
            return False
        kept = [one for one in await store.kept(turn.agent_id) if self.is_same_call(one)]
        # What people were asked before it was allowed is theirs to answer.
        if not kept or await store.get(self.key) is not None:
            return False
        log.info("allowed for good", turn=turn.turn_id, tool=kept[0].tool, key=kept[0].key)
        return True

    async def is_decided_by(self, end: float) -> bool:
        """Whether it is decided before a Unix time. The clock may jump over that."""
        latest = clock.now() + end - time.time()
        while (left := min(end - time.time(), latest - clock.now())) > 0:
            if await is_set(self.decided, min(left, LOOK)):
                return True
        return self.decided.is_set()

    async def tell(self, *, allow: bool, message: str = "") -> None:
        """Tell the runtime, as often as it takes."""
        self.denial = "" if allow else message
        for pause in _PAUSES:
            if await self._try_to_tell(allow=allow, message=message):
                break
            await asyncio.sleep(pause)
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


def to_the_letter(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether arguments are the same as JSON, where `true` is not 1."""
    return json.dumps(dict(one), sort_keys=True) == json.dumps(dict(other), sort_keys=True)


@part
class ApprovalSight:
    """Looks at questions as people see them: as the homeserver shows them."""

    _homeserver: Homeserver
    _directory: AgentDirectory
    _outbox: Outbox

    async def is_as_asked(self, approval: Approval) -> bool:
        """Whether its event says, to the letter, what was frozen when it was asked.

        One that is still on its way does: who answers so early saw what was frozen, at another
        door. Raises HomeserverUnavailable.
        """
        agent = self._directory.get(approval.agent_id)
        entries = await self._outbox.of_turn(approval.turn_id)
        asked = next((one for one in entries if one.txn_id == approval.prompt_txn), None)
        if agent is None or asked is None:
            return False
        if asked.event_id is None:
            return asked.failure is None
        try:
            ghost = self._homeserver.acting_as(agent.user_id)
            event = await ghost.event(approval.room_id, asked.event_id)
        except MatrixRequestError as error:
            log.warning("a question cannot be looked at", key=approval.key, reason=str(error))
            return False
        return dict(newest_content(event)) == dict(asked.content)
