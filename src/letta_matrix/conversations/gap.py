"""Turns of a database that was put back from a backup: what was answered after that was taken is
not answered again.

The database does not know, but the rooms do. What it has as unfinished, or learns of only now, is
looked for there before it is run.
"""

import itertools
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.json_fields import mapping
from letta_matrix.common.parts import part
from letta_matrix.conversations.answered import ended_in
from letta_matrix.conversations.approvals import Approvals
from letta_matrix.conversations.audience import ours_in
from letta_matrix.conversations.catch_up import pages_back
from letta_matrix.conversations.reply_events import ReplyEvents
from letta_matrix.conversations.turn_queues import Runner
from letta_matrix.matrix.content import BESIDE, MARKER, OPEN
from letta_matrix.matrix.events import Event, newest_content
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.meta import Meta
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.restored import Gap, gap_of
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Outcome, Turn, TurnKind, TurnStore

log = structlog.get_logger()

_MARGIN = 300.0
"""Seconds by which the homeserver's clock may be behind ours."""
_LASTS = 7 * 86_400.0
"""Seconds after which nothing is looked for any more: who was away longer has missed more."""


class _Begun(NamedTuple):
    """A message of ours as it first appeared."""

    sender: str
    event_id: str
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Said:
    """What a room has of those turns: which ended, and the messages of others by their txn ids.
    `asks` are the questions of others that wait, by their turns."""

    ended: set[str] = field(default_factory=set[str])
    begun: Mapping[str, _Begun] = field(default_factory=dict[str, _Begun])
    asks: Mapping[str, list[_Begun]] = field(default_factory=dict[str, list[_Begun]])


@part
class RestoreGap:
    """What was answered while a database was that is none any more."""

    _bot: Intent
    _directory: AgentDirectory
    _rooms: Rooms
    _meta: Meta
    _outbox: Outbox

    def __post_init__(self) -> None:
        self._gap: Gap | None = None
        self._is_known = False
        self._said: dict[tuple[str, str], _Said] = {}

    async def has_answer(self, turn: Turn) -> bool | None:
        """Whether a turn came to its end then; None where none of us may look. Raises
        HomeserverUnavailable, StoreUnavailable."""
        said = await self._about(turn)
        return None if said is None else turn.turn_id in said.ended

    async def take_over(self, turn: Turn) -> bool:
        """Let the reply to a turn go on in the messages that it had begun then; whether there are
        any. Raises as `has_answer`."""
        said = await self._about(turn) or _Said()
        known = await self._outbox.of_turn(turn.turn_id) if said.begun else []
        events = ReplyEvents(turn, "", known)
        begun = list[OutboxEntry]()
        for number in itertools.count():
            cause = events.txn("message", number)
            if (shown := said.begun.get(cause)) is None:
                break
            entry = events.entry(OutboxKind.MESSAGE, number, cause, shown.content)
            entry.sender, entry.event_id = shown.sender, shown.event_id
            begun.append(entry)
        for number, asks in enumerate(said.asks.get(turn.turn_id, ()) if begun else ()):
            # What is said from now on stands below the question that waits: above it is whole.
            cause = events.txn("question", number)
            entry = events.entry(OutboxKind.APPROVAL, 0, cause, asks.content)
            entry.sender, entry.event_id = asks.sender, asks.event_id
            begun.append(entry)
        stored = {entry.txn_id for entry in known}
        if new := [entry for entry in begun if entry.txn_id not in stored]:
            await self._outbox.freeze(new)
        return bool(begun)

    async def _about(self, turn: Turn) -> _Said | None:
        if not self._is_known:
            self._gap, self._is_known = await self._look(), True
        if self._gap is not None and _is_over(self._gap):
            self._gap = None
            self._said.clear()
        # What agents say unasked is dated by when it is noticed.
        if self._gap is None or (
            turn.kind is not TurnKind.SPEECH and turn.sent_at > self._gap.until
        ):
            return _Said()
        return await self._said_in(turn, self._gap)

    async def _look(self) -> Gap | None:
        gap = await gap_of(self._meta)
        if gap is None or _is_over(gap):
            return None
        # Of what was only begun then, the rest is sent, and nothing twice.
        self._outbox.unsure_until = gap.until
        return gap

    async def _said_in(self, turn: Turn, gap: Gap) -> _Said | None:
        """What we said in a room, as one of us sees it who is there: not the turn's agent where a
        line speaks for it."""
        agent = self._directory.get(turn.agent_id)
        ours = ours_in(turn.room_id, self._directory, self._rooms)
        answering = [agent.user_id] if agent is not None else []
        key = turn.room_id, turn.agent_id
        if key in self._said:
            return self._said[key]
        there = [one for one in answering if one in ours]
        senders = list(dict.fromkeys([*there, *ours, *answering, self._bot.user_id]))
        for looker in senders:
            try:
                said = await self._read(turn.room_id, looker, senders, gap.since - _MARGIN)
            except MatrixRequestError as error:
                log.info("one of us may not look", room=turn.room_id, reason=str(error))
                continue
            ended = ended_in(said)
            self._said[key] = _Said(ended, _begun_in(said, ended), _asks_in(said, ended))
            return self._said[key]
        log.warning("not known what was answered", room=turn.room_id)
        return None

    async def _read(
        self, room_id: str, looker: str, senders: Sequence[str], since: float
    ) -> list[Mapping[str, Any]]:
        """Events of ours in a room since a time, the newest first. Raises MatrixRequestError."""
        said, filters = list[Mapping[str, Any]](), {"senders": sorted(senders)}
        async for page in pages_back(room_id, self._bot.acting_as(looker), filters, since):
            said += page.events
        return said


def _is_over(gap: Gap) -> bool:
    return time.time() > gap.until + _LASTS


def _begun_in(said: Iterable[Mapping[str, Any]], ended: Collection[str]) -> dict[str, _Begun]:
    """The messages of turns that have not ended, without their edits: of others there may be
    many, and these are kept."""
    begun: dict[str, _Begun] = {}
    for raw in said:
        event = Event(raw)
        turn_id, txn = event.marker.get("turn_id"), event.marker.get("txn")
        is_reply = isinstance(turn_id, str) and not event.is_edit and BESIDE not in event.marker
        if is_reply and turn_id not in ended and isinstance(txn, str):
            event_id, content = str(raw.get("event_id")), mapping(raw.get("content"))
            begun[txn] = _Begun(str(raw.get("sender")), event_id, content)
    return begun


def _asks_in(said: Iterable[Mapping[str, Any]], ended: Collection[str]) -> dict[str, list[_Begun]]:
    """The questions that wait for an approval, of turns that have not ended."""
    asks: dict[str, list[_Begun]] = {}
    for raw in said:
        event = Event(raw)
        turn_id, newest = event.marker.get("turn_id"), mapping(newest_content(raw).get(MARKER))
        is_question = event.marker.get(BESIDE) == "approval" and not event.is_edit
        if is_question and OPEN in newest and isinstance(turn_id, str) and turn_id not in ended:
            event_id, content = str(raw.get("event_id")), mapping(raw.get("content"))
            asks.setdefault(turn_id, []).append(_Begun(str(raw.get("sender")), event_id, content))
    return asks


@part
class UnlessAnswered:
    """Runs turns by another runner, but for those that were answered in the gap; those that were
    only begun go on where they were. Messages of which that is not known go to `_unclear`: to
    answer them again could be worse than not to."""

    _runner: Runner
    _unclear: Runner
    _gap: RestoreGap
    _turns: TurnStore
    _approvals: Approvals

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """See `Runner`."""
        is_answered = await self._gap.has_answer(turn)
        if is_answered is None and turn.kind is TurnKind.MESSAGE:
            await self._unclear.run(turn, recovered=recovered)
            return
        if is_answered:
            log.info("answered before the database was put back", turn=turn.turn_id)
            await self._approvals.ended(turn)
            await self._turns.finish(turn, Outcome.ANSWERED)
            return
        begun = turn.kind is TurnKind.MESSAGE and await self._gap.take_over(turn)
        await self._runner.run(turn, recovered=recovered or begun)

    async def give_up(self, turn: Turn) -> None:
        """See `Runner`."""
        await self._runner.give_up(turn)
