"""Asking people whether a tool may run, and telling the runtime what they said."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import ParamSpec

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.tasks import Tasks
from letta_matrix.common.waiting import is_set
from letta_matrix.config import Config
from letta_matrix.conversations import approval_text as words
from letta_matrix.conversations.approval_question import ApprovalQuestion, ApprovalSight
from letta_matrix.conversations.approvers import Approvers
from letta_matrix.conversations.earlier_questions import EarlierQuestions, waits
from letta_matrix.conversations.reply import Reply
from letta_matrix.conversations.roster import Roster
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.runtimes.protocol import AgentRuntime, ApprovalRequested, TurnRequest
from letta_matrix.store.approvals import Approval, ApprovalStatus, ApprovalStore
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.outbox import OutboxEntry, OutboxKind
from letta_matrix.store.turns import Turn, TurnKind

log = structlog.get_logger()

P = ParamSpec("P")

_STORE_PAUSE = 10.0
"""Seconds between tries of a database that cannot be used."""

_SHOWN_WITHIN = 1.0
"""Seconds that the edit which shows an answer waits for what the agent says to it."""

_DECISIONS = (ApprovalStatus.ALLOWED, ApprovalStatus.ALWAYS, ApprovalStatus.DENIED)


class Approvals:
    """The approvals of all turns. Whatever goes wrong, the tool does not run."""

    def __init__(
        self, config: Config, store: ApprovalStore, sight: ApprovalSight, roster: Roster
    ) -> None:
        self._config = config
        self._sight = sight
        self._roster = roster
        self.store = store
        self.approvers = Approvers(config)
        self._questions: dict[str, ApprovalQuestion] = {}
        self._earlier = EarlierQuestions(store)
        self._background = Tasks()

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
        self._earlier.told(key)
        question = ApprovalQuestion(key, event, request, runtime, reply)
        self._questions[key] = question
        question.task = self._background.start(self._attend(question, earlier))

    def begun_anew(self, turn: Turn) -> None:
        """The runtime works on a turn from its beginning: what was asked for before, of which
        nothing has run, is awaited no more."""
        self._earlier.begun_anew(turn.turn_id)
        for question in self.of_turn(turn.turn_id):
            del self._questions[question.key]
            self._spawn(question.stop)

    async def answer(
        self, approval: Approval, status: ApprovalStatus, *, by: str, reason: str = ""
    ) -> bool:
        """Settle an approval as a person wants it; False if it was settled before, or is denied
        since its question no longer says what was asked: nobody knows what they allowed.

        `status` is ALLOWED, ALWAYS or DENIED; DENIED also takes back an ALWAYS. Who may answer is
        the caller's to ask (`approvers`). Raises ValueError for an ALWAYS that is not offered,
        and HomeserverUnavailable where the question cannot be looked at now: it stays open.
        """
        if status not in _DECISIONS or (status is ApprovalStatus.ALWAYS and not approval.always):
            raise ValueError(f"{approval.tool} cannot be answered with {status}")
        if approval.status is ApprovalStatus.ALWAYS and status is ApprovalStatus.DENIED:
            if not await self.store.take_back(approval, by=by, reason=reason):
                return False
            if (question := self._questions.get(approval.key)) is not None:
                # Told as it stands now, by whoever tells the runtime only later.
                question.settled = None
            return True
        if time.time() >= approval.expires_at:
            return False
        allows = status is not ApprovalStatus.DENIED
        doubtful = allows and not await self._sight.is_as_asked(approval)
        if doubtful:
            status, by, reason = ApprovalStatus.DENIED, "", words.TAMPERED
        settled = await self.store.decide(approval, status, by=by, reason=reason)
        if settled is None:
            return False
        log.info("approval answered", turn=approval.turn_id, status=str(status), by=by)
        self._settled_by_person(settled)
        return not doubtful

    async def taken_away(self, approval: Approval) -> None:
        """Its question was removed: what waits is denied, since nobody can see what they allow."""
        settled = await self.store.decide(approval, ApprovalStatus.DENIED, reason=words.TAMPERED)
        if settled is not None:
            log.info("approval taken away", turn=approval.turn_id)
            self._settled_by_person(settled)

    def queued(self, turn: Turn) -> None:
        """A message waits behind a turn: tell its sender, if the turn waits for their answer."""
        if turn.kind is not TurnKind.MESSAGE:
            return
        for question in self._questions.values():
            approval, allowed = question.approval, ApprovalStatus.ALLOWED
            at = question.reply.turn.place
            if approval is None or question.decided.is_set() or at != turn.place:
                continue
            if self.approvers.may_answer(approval, allowed, by=turn.sender, room_id=turn.room_id):
                self._spawn(self._say_what_waits, question)

    def waits(self, turn_id: str) -> bool:
        """Whether a turn waits for a person now."""
        return any(not question.decided.is_set() for question in self.of_turn(turn_id))

    def of_turn(self, turn_id: str) -> list[ApprovalQuestion]:
        """What a turn has asked people, in this process."""
        return [one for one in self._questions.values() if one.reply.turn.turn_id == turn_id]

    async def ended(
        self, turn: Turn, reply: Reply | None = None, *, recovered: bool = True
    ) -> None:
        """A turn needs no more answers: what is open lapses, and `reply` ends with that.

        Without `recovered` no earlier process can have asked anything for it.
        """
        shown, mine = set[str](), self.of_turn(turn.turn_id)
        if not mine and not recovered and not self._earlier.has(turn.turn_id):
            return
        for question in mine:
            await question.stop()
            del self._questions[question.key]
            shown |= {question.key} if question.shown else set()
        for approval in await self.store.of_turn(turn.turn_id):
            settled = await self._settle(approval, ApprovalStatus.LAPSED)
            if reply is not None and settled is not None and settled.key not in shown:
                text = words.unheard if self._earlier.is_untold(settled.key) else words.outcome
                reply.beside.post_at_end(OutboxKind.APPROVAL, settled.key, text(settled))
        self._earlier.forget(turn.turn_id)
        self.store.forget(turn.turn_id)

    async def close(self) -> None:
        """Let go of everything; what is open stays so, for the next start."""
        await self._background.cancel()

    async def _attend(self, question: ApprovalQuestion, earlier: ApprovalQuestion | None) -> None:
        try:
            if earlier is not None:
                await earlier.stop()
            older = await self._earlier.older_than(question)
            answered = await self._earlier.answer_to(question, older)
            if answered or await question.is_allowed_for_good(self.store, self._config):
                question.decided.set()
                await (self._tell(question, answered) if answered else question.tell(allow=True))
                self._spawn(self._end_older, question, older, answered)
                return
            self.store.takes_over(question.key, [one.key for one in older])
            approval, entry = await self._ask(question)
            self._spawn(self._end_older, question, older)
            if approval.status is ApprovalStatus.PENDING:
                approval = await self._decision(question, approval, entry)
            question.decided.set()
            await self._tell(question, approval)
            # What the agent says next comes first; it says best what became of the question.
            await is_set(question.reply.has_begun, _SHOWN_WITHIN)
            # What the database holds up is shown at the turn's end.
            with contextlib.suppress(StoreUnavailable):
                await question.show(entry, words.outcome(approval))
        except Exception as error:
            log.error(
                "an approval failed and is denied",
                turn=question.reply.turn.turn_id,
                exc_info=error,
            )
            await self._give_up(question)

    async def _ask(self, question: ApprovalQuestion) -> tuple[Approval, OutboxEntry]:
        approval = await self.store.get(question.key) or self._new(question)
        special = self.approvers.is_always_special(approval)
        text = words.prompt(approval, self.approvers.who_may(approval), admins_always=special)
        if text is None and approval.status is ApprovalStatus.PENDING:
            approval = replace(
                approval, status=ApprovalStatus.DENIED, reason=words.TOO_LONG, arguments={}
            )
        question.approval = approval
        pings = await self._pings(question, approval) if text is not None else []
        markdown, key, asked = text or words.outcome(approval), question.key, approval
        async with question.posting:
            # Posted together with its row, unless both are there.
            entry = await question.reply.beside.post(
                OutboxKind.APPROVAL, key, markdown, lambda _: self.store.insert(asked), pings=pings
            )
        if entry.event_id is None:
            approval = await self._doubt(approval, words.UNSEEN)
        else:
            self.store.shown(approval.key, question.reply.intent.homeserver.clock.now())
        if not question.is_about(approval):
            approval = await self._doubt(approval, words.CHANGED)
        return approval, entry

    def _settled_by_person(self, approval: Approval) -> None:
        if (question := self._questions.get(approval.key)) is not None:
            question.settled = approval
            question.decided.set()
        else:
            self._earlier.answered(approval)

    async def _end_older(
        self,
        question: ApprovalQuestion,
        older: Sequence[Approval],
        answered: Approval | None = None,
    ) -> None:
        crossed = await self._earlier.end(question, older, answered)
        if crossed is not None and question.approval is not None:
            # What holds for good stands once, to be taken back at once.
            is_good = crossed.status is ApprovalStatus.ALWAYS
            status = ApprovalStatus.ALLOWED if is_good else crossed.status
            by, reason = crossed.decided_by, crossed.reason
            await self.store.decide(question.approval, status, by=by, reason=reason)
            question.decided.set()

    async def _pings(self, question: ApprovalQuestion, approval: Approval) -> list[str]:
        """Who is to notice the question."""
        members = await self._roster.members(approval.room_id, question.reply.aside.user_id)
        return self.approvers.among(approval, members)

    async def _doubt(self, approval: Approval, reason: str) -> Approval:
        """Deny it, whatever people said before."""
        await self._settle(approval, ApprovalStatus.DENIED, reason)
        return replace(approval, status=ApprovalStatus.DENIED, decided_by="", reason=reason)

    def _new(self, question: ApprovalQuestion) -> Approval:
        event, turn, now = question.event, question.reply.turn, time.time()
        beside = question.reply.beside
        return Approval(
            key=question.key,
            turn_id=turn.turn_id,
            approval_id=event.approval_id,
            agent_id=turn.agent_id,
            room_id=beside.events.room_id,
            thread_id=beside.events.thread_id,
            requester=turn.sender,
            tool=event.tool,
            arguments=dict(event.arguments),
            always=event.always,
            prompt_txn=beside.txn(OutboxKind.APPROVAL, question.key),
            asked_at=now,
            expires_at=now + self._config.conversations.approval_timeout,
        )

    async def _decision(
        self, question: ApprovalQuestion, approval: Approval, entry: OutboxEntry
    ) -> Approval:
        if entry.event_id is not None:
            self._spawn(self._offer, question, approval, entry.event_id)
        if await question.is_decided_by(approval.expires_at):
            settled = question.settled or await self.store.get(approval.key)
        else:
            settled = await self._settle(approval, ApprovalStatus.EXPIRED)
        return settled or replace(approval, status=ApprovalStatus.DENIED, reason=words.BROKEN)

    async def _offer(self, question: ApprovalQuestion, approval: Approval, event_id: str) -> None:
        """React to the question ourselves, so that people need only tap."""
        intent = question.reply.aside
        offered = (words.ALLOW, words.DENY, words.ALWAYS)
        for reaction in offered if approval.always else offered[:2]:
            if question.decided.is_set():
                return
            cause = txn_id(approval.prompt_txn, "reaction", reaction)
            try:
                await intent.react(approval.room_id, event_id, reaction, cause)
            except (MatrixRequestError, HomeserverUnavailable) as error:
                log.debug("reaction not offered", turn=approval.turn_id, reason=str(error))

    async def _say_what_waits(self, question: ApprovalQuestion) -> None:
        async with question.posting:
            if not question.decided.is_set() and not await self._earlier.is_noticed(question):
                await question.reply.beside.notify(waits(question.key), words.ANSWER_FIRST)

    def _spawn(self, work: Callable[P, Awaitable[None]], *args: P.args, **kwargs: P.kwargs) -> None:
        async def quietly() -> None:
            try:
                await work(*args, **kwargs)
            except (StoreUnavailable, HomeserverUnavailable) as error:
                log.info("beside a question something is not said", reason=str(error))

        self._background.start(quietly())

    async def _tell(self, question: ApprovalQuestion, approval: Approval) -> None:
        allow = approval.status in (ApprovalStatus.ALLOWED, ApprovalStatus.ALWAYS)
        await question.tell(allow=allow, message="" if allow else words.denial(approval))

    async def _give_up(self, question: ApprovalQuestion) -> None:
        question.decided.set()
        await question.tell(allow=False, message=f"Denied: {words.BROKEN}.")
        # Otherwise the turn's end settles it.
        with contextlib.suppress(StoreUnavailable):
            if (approval := await self.store.get(question.key)) is not None:
                await self._settle(approval, ApprovalStatus.DENIED, words.BROKEN)

    async def _settle(
        self, approval: Approval, status: ApprovalStatus, reason: str = ""
    ) -> Approval | None:
        """Settle what is pending, without a person; returns how it stands."""
        if approval.status is not ApprovalStatus.PENDING:
            return approval
        while True:
            try:
                settled = await self.store.decide(approval, status, reason=reason)
                return settled or await self.store.get(approval.key)
            except StoreUnavailable as error:
                log.error("an approval waits for the database", reason=str(error))
                await asyncio.sleep(_STORE_PAUSE)


def approval_key(turn_id: str, approval_id: str) -> str:
    """Our name of an approval, short enough to be typed."""
    return hashlib.sha256(f"{turn_id}\0{approval_id}".encode()).hexdigest()[:12]
