"""Turns: one message for one agent, from its arrival to its answer."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    func,
    literal_column,
    select,
)

from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import Database
from letta_matrix.store.places import Place, at
from letta_matrix.store.rows import Statement, execute, record_of, row_by
from letta_matrix.store.schema import outbox, turns
from letta_matrix.store.turn_ids import offer_of, turn_id_of

_DAY = 86_400.0
_JUST_NOW = 600.0


class TurnKind(StrEnum):
    MESSAGE = "message"  # for an agent
    COMMAND = "command"  # for the bridge; `prompt` is the command line
    INVITE = "invite"  # of one of our users into a room
    SPEECH = "speech"  # said by an agent unasked; its text is frozen from the start
    REDACTION = "redaction"  # of an event that `prompt` names, by others or of our own
    REFUSED = "refused"  # over its sender's budget; answered with a notice, and not asked
    LOOPED = "looped"  # of somebody who answers an agent like a program; likewise
    PAUSED = "paused"  # for an agent that is paused where it was written; answered by a sign
    KEYWORD = "keyword"  # STOP, START or HELP of a contact on another network
    UNDELIVERED = "undelivered"  # what a bridge could not bring to its network; `prompt` says why
    ROOM = "room"  # what became of a room; `prompt` is the type of the state event


class TurnStatus(StrEnum):
    QUEUED = "queued"  # not yet given to the runtime
    RUNNING = "running"  # perhaps given to the runtime; followed again after a crash
    REPLYING = "replying"  # the reply is frozen in the outbox; the runtime is not needed any more
    DONE = "done"


class Outcome(StrEnum):
    ANSWERED = "answered"
    FAILED = "failed"
    EXPIRED = "expired"
    DROPPED = "dropped"
    STOPPED = "stopped"
    WITHDRAWN = "withdrawn"  # its message, or its reply, was redacted
    JOINED = "joined"  # asked together with another turn, `joined_to`, and answered with it


@dataclass(slots=True)
class Turn:
    """Something that arrived and is worked on until nothing is owed for it.

    `prompt` is None where a message has no text for its agent. `thread_id` is the root event
    of the thread it was written in, `reply_to` the event it replies to, `attachment` the
    content of an `m.image`, `m.file` and the like, `hops` how many agents a message has come
    through. `amended_at` is when its message was last edited or redacted, `revises` the turn
    whose answer is to be edited into its own. When it came, was given to its runtime, had its
    first words in the room and was over are Unix times; what was stored before they were has none.
    """

    turn_id: str
    agent_id: str
    room_id: str
    event_id: str
    sender: str
    sent_at: float
    prompt: str | None
    status: TurnStatus = TurnStatus.QUEUED
    seq: int = 0
    conversation_id: str | None = None
    runtime_state: Mapping[str, object] | None = None
    asked: int = 0
    kind: TurnKind = TurnKind.MESSAGE
    thread_id: str = ""
    reply_to: str | None = None
    attachment: Mapping[str, object] | None = None
    hops: int = 0
    outcome: str | None = None
    amended_at: float | None = None
    joined_to: str | None = None
    revises: str | None = None
    arrived_at: float | None = field(default_factory=time.time, compare=False)
    given_at: float | None = field(default=None, compare=False)
    spoke_at: float | None = field(default=None, compare=False)
    finished_at: float | None = field(default=None, compare=False)

    @property
    def place(self) -> Place:
        return Place(self.agent_id, self.room_id, self.thread_id)

    @property
    def message_id(self) -> str:
        """The runtime's idempotency key: the event id, marked when the turn was asked again."""
        return self.event_id if self.asked == 0 else f"{self.event_id}#{self.asked}"


_MESSAGES = turns.c.kind == TurnKind.MESSAGE
# In so many words: a parameter would keep SQLite from the indexes of just these.
UNFINISHED = turns.c.status != literal_column(f"'{TurnStatus.DONE}'")


def _waiting(of: Mapping[str, str]) -> ColumnElement[bool]:
    """The turns that owe something, and have these values in these columns."""
    # No index of the columns: that would lead to all turns that ever were, and few of them wait.
    mine = (turns.c[name].concat("") == value for name, value in of.items())
    return and_(UNFINISHED, *mine)


class TurnAmended(Exception):
    """A turn's message, or that of one to be asked together with it, is no longer what it was, or
    is not to be asked any more."""


class TurnStore:
    """The `turns` table, and what changes together with it in other tables."""

    def __init__(self, database: Database, conversations: ConversationStore | None = None) -> None:
        self._database = database
        self.conversations = conversations or ConversationStore(database)

    async def unfinished(self, **of: str) -> list[Turn]:
        """Every turn that still owes something, in arrival order; those `of` an agent or a room
        alone (by columns), as they may be many thousands."""
        return await self._found(_waiting(of))

    async def waiting(self, limit: int, *, behind: int) -> list[Turn]:
        """The first of all those turns, those whose `seq` is greater than `behind`."""
        later = select(turns).where(UNFINISHED, turns.c.seq > behind)
        return await self._database.records(Turn, later.order_by(turns.c.seq).limit(limit))

    async def open_at(self, place: Place) -> Turn | None:
        """The message that an agent works on at a place, or has last worked on."""
        # Two questions: one for both would sort all that was ever said there.
        waits = select(turns).where(_waiting(place._asdict()), _MESSAGES).order_by(turns.c.seq)
        last = select(turns).where(*at(turns, place), _MESSAGES).order_by(turns.c.seq.desc())

        def look(db: Connection) -> Turn | None:
            found = (db.execute(one.limit(1)).mappings().one_or_none() for one in (waits, last))
            return next((record_of(Turn, row) for row in found if row is not None), None)

        return await self._database.read(look)

    async def last_asked(self, place: Place) -> Turn | None:
        """The last message at a place that is done with, and that the runtime was given."""
        asked = _MESSAGES & turns.c.conversation_id.is_not(None)
        asked &= turns.c.status == TurnStatus.DONE
        query = select(turns).where(*at(turns, place), asked).order_by(turns.c.seq.desc())
        return await self._database.record(Turn, query)

    async def prompted_by(self, event_id: str) -> list[Turn]:
        """The messages for agents that came with an event."""
        return await self._found((turns.c.event_id == event_id) & _MESSAGES)

    async def asked_since(
        self, since: float, rooms: Collection[str], *, sender: str = "", without: Collection[str]
    ) -> int:
        """How many messages that were sent in some rooms since a time (Unix), by one `sender` if
        named, a runtime was given; `without` some turns, by their ids."""
        asked = _MESSAGES & turns.c.conversation_id.is_not(None) & (turns.c.sent_at > since)
        asked &= turns.c.room_id.in_(list(rooms)) & turns.c.turn_id.not_in(list(without))
        query = select(func.count()).where(asked, *([turns.c.sender == sender] if sender else []))
        return await self._database.read(lambda db: db.execute(query).scalar_one())

    async def rooms(self) -> list[str]:
        """Every room with a turn, the one with the newest first."""
        newest = func.max(turns.c.seq).desc()
        query = select(turns.c.room_id).group_by(turns.c.room_id).order_by(newest)
        return await self._database.values(query)

    async def newest(self, limit: int, *, before: str | None = None) -> list[Turn]:
        """The newest turns, newest first; only those older than the turn `before` if given."""
        query = select(turns).order_by(turns.c.seq.desc()).limit(limit)
        if before is not None:
            place = select(turns.c.seq).where(turns.c.turn_id == before).scalar_subquery()
            query = query.where(turns.c.seq < place)
        return await self._database.records(Turn, query)

    async def get(self, turn_id: str) -> Turn | None:
        return await self._database.record(Turn, select(turns).where(turns.c.turn_id == turn_id))

    async def told_unreadable(self, turn: Turn, *, at_entry: bool = True) -> bool:
        """Whether the sender of a message that nobody could read was told so before: at one of
        theirs in its room within a day, or, where that is told `at_entry`, as the room was entered
        or changed just before."""
        mine = (turns.c.sender == turn.sender) & (turns.c.sent_at > turn.sent_at - _DAY)
        mine &= _MESSAGES & turns.c.prompt.is_(None)
        mine &= turns.c.outcome == Outcome.FAILED
        just_now = turns.c.kind.in_((TurnKind.INVITE, TurnKind.ROOM))
        just_now &= turns.c.sent_at > turn.sent_at - _JUST_NOW
        here = (turns.c.room_id == turn.room_id) & turns.c.agent_id.in_((turn.agent_id, ""))
        here &= turns.c.turn_id != turn.turn_id
        told = mine | just_now if at_entry else mine
        query = select(turns.c.seq).where(here, told).limit(1)
        return await self._database.value(query) is not None

    async def run(
        self, turn: Turn, state: Mapping[str, object], joined: Sequence[Turn] = ()
    ) -> None:
        """Record that the runtime may have been given the turn, and with it those in `joined`;
        `state` finds it again.

        Raises TurnAmended, and records nothing, if one of them has changed since it was read.
        """
        running: dict[str, object] = {"status": TurnStatus.RUNNING, "runtime_state": dict(state)}
        first = turn.status is TurnStatus.QUEUED
        if first:
            turn.given_at = running["given_at"] = time.time()
        given = {**running, "conversation_id": turn.conversation_id}
        joined = [one for one in joined if one.status is TurnStatus.QUEUED]
        if not first:
            await self._database.execute(_update(turn, **given))
        else:
            ends = {"status": str(TurnStatus.DONE), "outcome": str(Outcome.JOINED)}
            ends |= {"joined_to": turn.turn_id, "finished_at": time.time()}
            statements = [_unless_amended(turn, **given)]
            statements += [_unless_amended(one, **ends) for one in joined]

            def give(connection: Connection) -> None:
                if not all(execute(connection, one).rowcount == 1 for one in statements):
                    raise TurnAmended

            await self._database.write(give)
            for one in joined:
                one.status, one.outcome = TurnStatus.DONE, str(Outcome.JOINED)
                one.joined_to = turn.turn_id
        turn.status, turn.runtime_state = TurnStatus.RUNNING, dict(state)

    async def revising(self, turn_id: str) -> list[Turn]:
        """The turns whose answers take the place of one's, in arrival order."""
        return await self._found(turns.c.revises == turn_id)

    async def reread(self, turn: Turn) -> None:
        """What a message says by now, and whether it is still to be answered."""
        if (stored := await self.get(turn.turn_id)) is not None:
            turn.prompt, turn.attachment = stored.prompt, stored.attachment
            turn.amended_at, turn.outcome = stored.amended_at, stored.outcome
            turn.status, turn.runtime_state = stored.status, stored.runtime_state

    async def joined_to(self, turn: Turn) -> list[Turn]:
        """The turns that were asked together with one, or with what it asks anew, in arrival
        order."""
        return await self._database.read(lambda db: joined_to(db, turn))

    async def what_is_left(self, turn: Turn) -> list[Turn]:
        """Of a turn and those asked together with it, what says something: not what was removed."""
        together = [turn, *await self.joined_to(turn)]
        return [one for one in together if one.prompt is not None or one.attachment is not None]

    async def stop(self, turn: Turn, outcome: Outcome = Outcome.STOPPED) -> None:
        """A turn that waits for its place, or runs, is not to go on."""
        # First here: its turn may come while this is being stored.
        turn.outcome = str(outcome)
        await self._database.execute(_update(turn, outcome=str(outcome)))

    async def ask_again(self, turn: Turn, conversation_id: str | None) -> None:
        """Make the turn one that was never asked, in `conversation_id` if that is given."""
        asked, conversation = turn.asked + 1, conversation_id or turn.conversation_id
        values = {"status": TurnStatus.QUEUED, "runtime_state": None, "asked": asked}
        again = _update(turn, **values, conversation_id=conversation)
        if conversation_id is None or turn.conversation_id is None:
            await self._database.execute(again)
        else:
            old = turn.conversation_id
            await self.conversations.replace(turn.place, old, conversation_id, again)
        turn.status, turn.runtime_state = TurnStatus.QUEUED, None
        turn.asked, turn.conversation_id = asked, conversation

    async def finish(
        self, turn: Turn, outcome: Outcome | None, sent: Mapping[str, str] | None = None
    ) -> None:
        """The turn owes nothing more; `sent` maps outbox txn ids to the event ids they got.

        `outcome` None keeps the one that was stored when its reply was frozen.
        """
        confirmations = [
            (_ENTRY, {"of": txn_id, "event_id": event_id})
            for txn_id, event_id in (sent or {}).items()
        ]
        values = {"outcome": str(outcome)} if outcome is not None else {}
        done = {"status": TurnStatus.DONE, "runtime_state": None, "finished_at": time.time()}
        await self._database.execute(*confirmations, _update(turn, **done, **values))
        turn.status = TurnStatus.DONE

    async def answered_meanwhile(self, turn: Turn) -> bool:
        """Whether a turn takes up an offer of one that came to an answer all the same."""
        if turn.turn_id != turn_id_of(offer_of(turn.revises or ""), turn.agent_id):
            return False
        revised = await self.get(turn.revises or "")
        return revised is not None and revised.outcome == Outcome.ANSWERED

    async def forget_conversation(self, turn: Turn) -> None:
        """The runtime no longer has the turn's conversation, nor anything of the turn."""
        values = {"status": TurnStatus.QUEUED, "runtime_state": None, "conversation_id": None}
        gone = turn.conversation_id or ""
        await self.conversations.forget(turn.place, gone, _update(turn, **values))
        turn.status, turn.runtime_state, turn.conversation_id = TurnStatus.QUEUED, None, None

    async def _found(self, where: ColumnElement[bool]) -> list[Turn]:
        return await self._database.records(Turn, select(turns).where(where).order_by(turns.c.seq))


def joined_to(connection: Connection, turn: Turn) -> list[Turn]:
    """See `TurnStore.joined_to`."""
    asked: str | None = turn.turn_id
    while asked is not None:
        query = select(turns).where(turns.c.joined_to == asked).order_by(turns.c.seq)
        if found := connection.execute(query).mappings().all():
            return [record_of(Turn, row) for row in found]
        revised = select(turns.c.revises).where(turns.c.turn_id == asked)
        asked = connection.execute(revised).scalar_one_or_none()
    return []


_TURN, _ENTRY = row_by(turns.c.turn_id), row_by(outbox.c.txn_id)
_AS_READ = _TURN.where(
    turns.c.amended_at.is_not_distinct_from(bindparam("as_read")),
    turns.c.outcome.is_(None),
    turns.c.status == TurnStatus.QUEUED,
)


def _update(turn: Turn, **values: object) -> Statement:
    return _TURN, {"of": turn.turn_id, **values}


def _unless_amended(turn: Turn, **values: object) -> Statement:
    """The same, without effect if the turn is not as it was read or is to be stopped."""
    return _AS_READ, {"of": turn.turn_id, "as_read": turn.amended_at, **values}
