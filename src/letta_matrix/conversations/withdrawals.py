"""What follows when people edit or redact what an agent was asked, or what it said."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import ParamSpec

import structlog
from mautrix.errors import MatrixRequestError, MForbidden

from letta_matrix.common.parts import part
from letta_matrix.common.tasks import Tasks
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.conversations.dispatcher import Dispatcher
from letta_matrix.conversations.new_turns import correction
from letta_matrix.conversations.turn_runner import TurnRunner
from letta_matrix.matrix.errors import is_refusal
from letta_matrix.matrix.events import Event, RawEvent, newest_content
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.reactions import ASK_AGAIN
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.amendments import Amended, Amendment
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.turns import Outcome, Turn, TurnStatus, TurnStore

log = structlog.get_logger()

P = ParamSpec("P")


@part
class Withdrawals:
    """Hears of amendments, and runs the turns of redactions: those of our own events, and those
    by moderators, count only when the homeserver shows the event without its content."""

    _homeserver: Homeserver
    _directory: AgentDirectory
    _bot_user_id: str
    _turns: TurnStore
    _outbox: Outbox
    _approvals: Approvals
    _runner: TurnRunner
    _dispatcher: Dispatcher

    def __post_init__(self) -> None:
        self._background = Tasks()

    def amended(self, amended: Amended) -> None:
        """Stop what is being answered and was withdrawn; offer to ask anew what was edited."""
        for turn in amended.turns:
            status, prompt = amended.before[turn.turn_id]
            if amended.amendment.withdrawn:
                self._spawn(self._withdraw, turn)
                continue
            is_asked = turn.revises is None and status is not TurnStatus.QUEUED
            if is_asked and turn.prompt != prompt:
                self._spawn(self._offer, turn, amended)

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Look at what was redacted (`prompt` names the event) and let it count. Raises
        HomeserverUnavailable."""
        target = turn.prompt or ""
        event = await self._seen(turn, target)
        # A redaction leaves neither words nor what a reaction is to.
        if not event or {"body", "m.relates_to"} & set(Event(event).content):
            await self._turns.finish(turn, Outcome.DROPPED)
            return
        if turn.reply_to is not None:
            await self._fall_back(turn, turn.reply_to)
        if (approval := await self._approvals.store.asked_in(target)) is not None:
            await self._approvals.taken_away(approval)
        elif (answered := await self._outbox.turn_of(target)) is not None:
            await self._end(answered, Outcome.WITHDRAWN)
        for question in await self._turns.prompted_by(target):
            at = max(turn.sent_at, question.amended_at or 0.0)
            await self._dispatcher.amend(
                Amendment(target, turn.room_id, question.sender, at, withdrawn=True)
            )
        await self._turns.finish(turn, Outcome.ANSWERED)

    async def give_up(self, turn: Turn) -> None:
        """Leave it as it is."""
        await self._turns.finish(turn, Outcome.FAILED)

    async def close(self) -> None:
        await self._background.cancel()

    async def _withdraw(self, turn: Turn) -> None:
        if turn.joined_to is not None and (head := await self._turns.get(turn.joined_to)):
            await self._end(head, Outcome.STOPPED)
        # Of one that waits the store has kept that it was withdrawn.
        elif turn.status is not TurnStatus.DONE:
            outcome = Outcome(turn.outcome) if turn.outcome else Outcome.STOPPED
            await self._end(turn, outcome)

    async def _end(self, turn: Turn, outcome: Outcome) -> None:
        if (live := self._dispatcher.queues.find(turn.turn_id)) is not None:
            await self._runner.cancel(live, outcome)

    async def _offer(self, turn: Turn, amended: Amended) -> None:
        """Offer to ask the new text: a tap on our 🔁 at the message does, and asks all of us who
        have answered it."""
        agent = self._directory.get(turn.agent_id)
        if agent is None or turn.outcome == Outcome.WITHDRAWN:
            return
        # A tap on what is still being answered does nothing.
        for turn_id in {one.joined_to or one.turn_id for one in amended.turns}:
            await self._dispatcher.queues.over(turn_id)
        cause = txn_id(turn.event_id, turn.agent_id, "revise", str(amended.amendment.at))
        ghost = self._homeserver.acting_as(agent.user_id)
        try:
            await _clear_taken_up(ghost, turn, amended.amendment.at)
        except (MatrixRequestError, HomeserverUnavailable) as error:
            log.debug("an offer is not taken back", turn=turn.turn_id, reason=str(error))
        try:
            await ghost.react(turn.room_id, turn.event_id, ASK_AGAIN, cause)
        except (MatrixRequestError, HomeserverUnavailable) as error:
            log.debug("asking anew is not offered", turn=turn.turn_id, reason=str(error))

    async def _fall_back(self, turn: Turn, event_id: str) -> None:
        """An edit was redacted: its message says again what it said before."""
        # First: what is said after this is newer than what is looked at.
        asked = await self._turns.prompted_by(event_id)
        event = await self._seen(turn, event_id)
        # Of one that is redacted too, its own redaction says what is to be done.
        if not (content := newest_content(event)):
            return
        here = {"event_id": event_id, "room_id": turn.room_id}
        for one in asked:
            at = max(turn.sent_at, one.amended_at or 0.0)
            said = correction({**event, "content": content, **here}, one.sender, at)
            await self._dispatcher.amend(said)

    async def _seen(self, turn: Turn, event_id: str) -> RawEvent:
        """An event of a turn's room, empty if the homeserver does not show it."""
        agent = self._directory.get(turn.agent_id)
        viewer = self._homeserver.acting_as(
            agent.user_id if agent is not None else self._bot_user_id
        )
        try:
            return await viewer.event(turn.room_id, event_id)
        except MatrixRequestError as error:
            if not is_refusal(error):
                raise
            log.info("an event cannot be looked at", room=turn.room_id, reason=str(error))
            return {}

    def _spawn(self, work: Callable[P, Awaitable[None]], *args: P.args, **kwargs: P.kwargs) -> None:
        async def quietly() -> None:
            try:
                await work(*args, **kwargs)
            except Exception as error:
                log.error("a change of a message did not take effect", exc_info=error)

        self._background.start(quietly())


async def _clear_taken_up(ghost: Intent, turn: Turn, at: float) -> None:
    """Remove an offer that whoever wrote the message took up before `at` (Unix time), with their
    tap where we may: nobody can react twice alike."""
    reactions = await ghost.relations(turn.room_id, turn.event_id, "m.annotation")
    found = [one for one in map(Event, reactions) if one.relation.get("key") == ASK_AGAIN]
    ours = [one for one in found if one.raw["sender"] == ghost.user_id]
    since = max((one.sent_ms for one in ours), default=0)
    theirs = (one for one in found if one.raw["sender"] == turn.sender)
    taps = [one for one in theirs if since <= one.sent_ms <= at * 1000]
    for one in [*taps, *ours] if taps else []:
        event_id = str(one.raw["event_id"])
        with contextlib.suppress(MForbidden):
            await ghost.redact(turn.room_id, event_id, txn_id(event_id, turn.agent_id, "taken up"))
