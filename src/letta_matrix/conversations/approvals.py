"""Asking people whether a tool may run, and telling the runtime what they said."""

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import replace

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix import clock
from letta_matrix.config import Config
from letta_matrix.conversations.approval_question import Question
from letta_matrix.conversations.approval_sight import ApprovalSight
from letta_matrix.conversations.approval_text import (
    ALLOW,
    ALWAYS,
    BROKEN,
    CHANGED,
    DENY,
    TAMPERED,
    TOO_LONG,
    UNSEEN,
    denial,
    outcome,
    prompt,
)
from letta_matrix.conversations.reply import Reply
from letta_matrix.conversations.verbatim import inline_code
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.identifiers import is_ours
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.runtimes.protocol import (
    AgentRuntime,
    ApprovalRequested,
    TurnRequest,
)
from letta_matrix.store.approvals import Approval, ApprovalStatus, ApprovalStore
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.outbox import OutboxEntry, OutboxKind
from letta_matrix.store.turns import Turn
from letta_matrix.waiting import is_set

log = structlog.get_logger()

_STORE_PAUSE = 10.0
"""Seconds between tries of a database that cannot be used."""

_LOOK = 5.0
"""Seconds between looks at the clock while a question waits."""

_DECISIONS = (ApprovalStatus.ALLOWED, ApprovalStatus.ALWAYS, ApprovalStatus.DENIED)


class Approvals:
    """The approvals of all turns. Whatever goes wrong, the tool does not run."""

    def __init__(self, config: Config, store: ApprovalStore, sight: ApprovalSight) -> None:
        self._config = config
        self._sight = sight
        self.store = store
        self._questions: dict[str, Question] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def requested(
        self, event: ApprovalRequested, request: TurnRequest, runtime: AgentRuntime, reply: Reply
    ) -> None:
        """Ask people, unless that has been done; then tell the runtime, again if it asks again.

        Returns at once: the work goes on beside the turn, until `ended`.
        """
        key = approval_key(reply.turn.turn_id, event.approval_id)
        earlier = self._questions.get(key)
        if earlier is not None and earlier.still_asks(event, reply):
            earlier.request, earlier.runtime = request, runtime
            return
        question = Question(key, event, request, runtime, reply)
        self._questions[key] = question
        question.task = asyncio.create_task(self._attend(question, earlier))

    async def answer(
        self, approval: Approval, status: ApprovalStatus, *, by: str, reason: str = ""
    ) -> bool:
        """Settle an approval as a person wants it; False if it was settled before, or is denied
        since its question no longer says what was asked: nobody knows what they allowed.

        `status` is ALLOWED, ALWAYS or DENIED; DENIED also takes back an ALWAYS. Who may answer is
        the caller's to ask (`may_answer`). Raises ValueError for an ALWAYS that is not offered,
        and HomeserverUnavailable where the question cannot be looked at now: it stays open.
        """
        if status not in _DECISIONS or (status is ApprovalStatus.ALWAYS and not approval.always):
            raise ValueError(f"{approval.tool} cannot be answered with {status}")
        if approval.status is ApprovalStatus.ALWAYS and status is ApprovalStatus.DENIED:
            return await self.store.take_back(approval, by=by, reason=reason)
        if time.time() >= approval.expires_at:
            return False
        allows = status is not ApprovalStatus.DENIED
        doubtful = allows and not await self._sight.is_as_asked(approval)
        if doubtful:
            status, by, reason = ApprovalStatus.DENIED, "", TAMPERED
        if not await self.store.decide(approval, status, by=by, reason=reason):
            return False
        log.info("approval answered", turn=approval.turn_id, status=str(status), by=by)
        if (question := self._questions.get(approval.key)) is not None:
            question.decided.set()
        return not doubtful

    def may_answer(
        self, approval: Approval, status: ApprovalStatus, *, by: str, room_id: str
    ) -> bool:
        """Whether a person's answer, given by an event in a room, counts there
        (`conversations.approvers`, for the tools in `approver_tools`).

        Nothing is allowed from afar, where the question cannot be seen; and only by admins what
        then holds for good.
        """
        # Agents can react too, but never in a person's stead.
        if is_ours(by, self._config.bot_user_id):
            return False
        role, here = self._config.role_of(by), room_id == approval.room_id
        if role == "admin":
            return here or status is ApprovalStatus.DENIED
        # An event in the room is what shows that its sender is in it.
        if not here or status is ApprovalStatus.ALWAYS:
            return False
        match self._approvers(approval):
            case "requester":
                return role == "user" and by == approval.requester
            case "users":
                return role == "user"
            case _:
                return False

    def who_may(self, approval: Approval) -> str:
        """Whose answer counts, in words."""
        match self._approvers(approval):
            case "requester":
                return f"{inline_code(approval.requester)} or an admin"
            case "users":
                return "everybody who may talk to me"
            case _:
                return "an admin"

    def waits(self, turn_id: str) -> bool:
        """Whether a turn waits for a person now."""
        return any(
            question.reply.turn.turn_id == turn_id and not question.decided.is_set()
            for question in self._questions.values()
        )

    async def ended(
        self, turn: Turn, reply: Reply | None = None, *, recovered: bool = True
    ) -> None:
        """A turn needs no more answers: what is open lapses, and `reply` ends with that.

        Without `recovered` no earlier process can have asked anything for it.
        """
        shown: set[str] = set()
        mine = [one for one in self._questions.values() if one.reply.turn.turn_id == turn.turn_id]
        if not mine and not recovered:
            return
        for question in mine:
            await question.stop()
            del self._questions[question.key]
            shown |= {question.key} if question.shown else set()
        for approval in await self.store.of_turn(turn.turn_id):
            settled = await self._settle(approval, ApprovalStatus.LAPSED)
            if reply is not None and settled is not None and settled.key not in shown:
                reply.post_at_end(OutboxKind.APPROVAL, settled.key, outcome(settled))

    async def close(self) -> None:
        """Let go of everything; what is open stays so, for the next start."""
        tasks = [one.task for one in self._questions.values() if one.task is not None]
        tasks += self._background
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _approvers(self, approval: Approval) -> str:
        settings = self._config.conversations
        # Another agent's message is nobody's wish: its author cannot vouch for it.
        ours = is_ours(approval.requester, self._config.bot_user_id)
        return (
            "admins" if ours or approval.tool not in settings.approver_tools else settings.approvers
        )

    def _is_always_special(self, approval: Approval) -> bool:
        """Whether some may answer who may not allow it for good, as they are no admins."""
        match self._approvers(approval):
            case "requester":
                return self._config.role_of(approval.requester) != "admin"
            case approvers:
                return approvers == "users"

    async def _attend(self, question: Question, earlier: Question | None) -> None:
        try:
            if earlier is not None:
                await earlier.stop()
            if await self._is_allowed_for_good(question):
                question.decided.set()
                await question.tell(allow=True)
                return
            approval, entry = await self._ask(question)
            if approval.status is ApprovalStatus.PENDING:
                approval = await self._decision(question, approval, entry)
            question.decided.set()
            await asyncio.gather(
                self._tell(question, approval), self._show(question, approval, entry)
            )
        except Exception as error:
            log.error(
                "an approval failed and is denied",
                turn=question.reply.turn.turn_id,
                exc_info=error,
            )
            await self._give_up(question)

    async def _is_allowed_for_good(self, question: Question) -> bool:
        """Whether an admin allowed this very call of the agent for good, and an admin asks for it
        now: what others ask for always asks, since they may have talked the agent into it."""
        turn, event = question.reply.turn, question.event
        if is_ours(turn.sender, self._config.bot_user_id):
            return False
        if self._config.role_of(turn.sender) != "admin":
            return False
        for one in await self.store.kept(turn.agent_id):
            if one.tool == event.tool and _to_the_letter(one.arguments, event.arguments):
                # What people were asked before it was allowed is theirs to answer.
                if await self.store.get(question.key) is not None:
                    return False
                log.info("allowed for good", turn=turn.turn_id, tool=event.tool, key=one.key)
                return True
        return False

    async def _ask(self, question: Question) -> tuple[Approval, OutboxEntry]:
        approval = await self.store.get(question.key) or self._new(question)
        special = self._is_always_special(approval)
        text = prompt(approval, self.who_may(approval), admins_always=special)
        if text is None and approval.status is ApprovalStatus.PENDING:
            approval = replace(
                approval, status=ApprovalStatus.DENIED, reason=TOO_LONG, arguments={}
            )
        entry = await question.post(text or outcome(approval), approval, self.store)
        if entry.event_id is None:
            approval = await self._doubt(approval, UNSEEN)
        if not question.is_about(approval):
            approval = await self._doubt(approval, CHANGED)
        return approval, entry

    async def _doubt(self, approval: Approval, reason: str) -> Approval:
        """Deny it, whatever people said before."""
        await self._settle(approval, ApprovalStatus.DENIED, reason)
        return replace(approval, status=ApprovalStatus.DENIED, decided_by="", reason=reason)

    def _new(self, question: Question) -> Approval:
        event, turn, now = question.event, question.reply.turn, time.time()
        return Approval(
            key=question.key,
            turn_id=turn.turn_id,
            approval_id=event.approval_id,
            agent_id=turn.agent_id,
            room_id=turn.room_id,
            thread_id=turn.thread_id,
            requester=turn.sender,
            tool=event.tool,
            arguments=dict(event.arguments),
            always=event.always,
            prompt_txn=question.reply.post_txn(OutboxKind.APPROVAL, question.key),
            asked_at=now,
            expires_at=now + self._config.conversations.approval_timeout,
        )

    async def _decision(
        self, question: Question, approval: Approval, entry: OutboxEntry
    ) -> Approval:
        if entry.event_id is not None:
            offer = asyncio.create_task(self._offer(question, approval, entry.event_id))
            self._background.add(offer)
            offer.add_done_callback(self._background.discard)
        if await _decided_by(question.decided, approval.expires_at):
            settled = await self.store.get(approval.key)
        else:
            settled = await self._settle(approval, ApprovalStatus.EXPIRED)
        return settled or replace(approval, status=ApprovalStatus.DENIED, reason=BROKEN)

    async def _offer(self, question: Question, approval: Approval, event_id: str) -> None:
        """React to the question ourselves, so that people need only tap."""
        intent = question.reply.intent
        for reaction in (ALLOW, DENY, ALWAYS) if approval.always else (ALLOW, DENY):
            if question.decided.is_set():
                return
            cause = txn_id(approval.prompt_txn, "reaction", reaction)
            try:
                await intent.react(approval.room_id, event_id, reaction, cause)
            except (MatrixRequestError, HomeserverUnavailable) as error:
                log.debug("reaction not offered", turn=approval.turn_id, reason=str(error))

    async def _tell(self, question: Question, approval: Approval) -> None:
        allow = approval.status in (ApprovalStatus.ALLOWED, ApprovalStatus.ALWAYS)
        await question.tell(allow=allow, message="" if allow else denial(approval))

    async def _show(self, question: Question, approval: Approval, entry: OutboxEntry) -> None:
        # What the database holds up is shown at the turn's end.
        with contextlib.suppress(StoreUnavailable):
            await question.show(entry, outcome(approval))

    async def _give_up(self, question: Question) -> None:
        question.decided.set()
        await question.tell(allow=False, message=f"Denied: {BROKEN}.")
        # Otherwise the turn's end settles it.
        with contextlib.suppress(StoreUnavailable):
            if (approval := await self.store.get(question.key)) is not None:
                await self._settle(approval, ApprovalStatus.DENIED, BROKEN)

    async def _settle(
        self, approval: Approval, status: ApprovalStatus, reason: str = ""
    ) -> Approval | None:
        """Settle what is pending, without a person; returns how it stands."""
        if approval.status is not ApprovalStatus.PENDING:
            return approval
        while True:
            try:
                await self.store.decide(approval, status, reason=reason)
                return await self.store.get(approval.key)
            except StoreUnavailable as error:
                log.error("an approval waits for the database", reason=str(error))
                await asyncio.sleep(_STORE_PAUSE)


def _to_the_letter(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether arguments are the same as JSON, where `true` is not 1."""
    return json.dumps(dict(one), sort_keys=True) == json.dumps(dict(other), sort_keys=True)


async def _decided_by(decided: asyncio.Event, end: float) -> bool:
    """Whether it is decided before a Unix time. The clock may jump over that."""
    latest = clock.now() + end - time.time()
    while (left := min(end - time.time(), latest - clock.now())) > 0:
        if await is_set(decided, min(left, _LOOK)):
            return True
    return decided.is_set()


def approval_key(turn_id: str, approval_id: str) -> str:
    """Our name of an approval, short enough to be typed."""
    return hashlib.sha256(f"{turn_id}\0{approval_id}".encode()).hexdigest()[:12]
