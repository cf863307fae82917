"""Tool approvals: what an agent asked for, and what people said to it."""

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Executable, Select, and_, select, update

from letta_matrix.store.database import Database
from letta_matrix.store.places import Place
from letta_matrix.store.rows import row_of
from letta_matrix.store.schema import approvals, outbox


class ApprovalStatus(StrEnum):
    PENDING = "pending"
    ALLOWED = "allowed"
    ALWAYS = "always"  # allowed for good
    DENIED = "denied"
    EXPIRED = "expired"  # nobody answered in time: denied
    LAPSED = "lapsed"  # its turn ended before it was answered


@dataclass(frozen=True, slots=True)
class Approval:
    """A tool call that waits, or waited, for a person.

    `key` is ours and names it across restarts; `approval_id` is the runtime's. `always`: it may
    be allowed for good. `prompt_txn` is the txn id of the event that asks; times are Unix times.
    `expires_at` is until when it can be answered; of one that is settled, until when it could.
    """

    key: str
    turn_id: str
    approval_id: str
    agent_id: str
    room_id: str
    thread_id: str
    requester: str
    tool: str
    arguments: Mapping[str, object]
    always: bool
    prompt_txn: str
    asked_at: float
    expires_at: float
    status: ApprovalStatus = ApprovalStatus.PENDING
    reason: str = ""
    decided_by: str = ""

    @property
    def place(self) -> Place:
        return Place(self.agent_id, self.room_id, self.thread_id)

    @property
    def is_open(self) -> bool:
        """Whether it can still be answered: it may be settled a little after its time is up."""
        return self.status is ApprovalStatus.PENDING and time.time() < self.expires_at


class _Waiting(NamedTuple):
    """What is known in memory of an approval that waits."""

    room_id: str
    thread_id: str
    turn_id: str
    prompt_txn: str


_PENDING = approvals.c.status == ApprovalStatus.PENDING


class ApprovalStore:
    """The `approvals` table; where something waits is held in memory: call `load()` before use."""

    def __init__(self, database: Database, ahead: Callable[[], float] = lambda: 0.0) -> None:
        self._database = database
        self._ahead = ahead
        self._waiting: dict[str, _Waiting] = {}
        self._asked_before: dict[str, float] = {}
        self._shown: dict[str, float] = {}
        self._heard: dict[str, str] = {}
        self._speakers: dict[str, set[str]] = {}
        self._taking_over: dict[str, Collection[str]] = {}

    async def load(self) -> None:
        """Remember where something waits. Call before use."""
        for one in await self._find(_PENDING):
            self._waiting[one.key] = _waiting(one)
            self._asked_before[one.key] = one.asked_at

    @property
    def waiting(self) -> int:
        """How many questions are not answered yet."""
        return len(self._waiting)

    @property
    def waiting_turns(self) -> set[str]:
        """The ids of the turns that wait for them."""
        return {one.turn_id for one in self._waiting.values()}

    def shown(self, key: str, now: float) -> None:
        """The homeserver has the question: from now on (Unix time there) people can have seen
        it. Messages are dated in whole milliseconds (spec: `origin_server_ts`), rounded down."""
        if key not in self._asked_before:
            self._shown.setdefault(key, math.floor(now * 1000) / 1000)
        self._took_over(key)

    def heard(self, prompt_txn: str, event_id: str, when: float) -> None:
        """A question has come by, perhaps before the answer that names its event is stored. The
        homeserver has dated it (Unix time): to the millisecond, while its answers tell its clock
        in whole seconds."""
        for key, one in list(self._waiting.items()):
            if one.prompt_txn == prompt_txn:
                self._heard[event_id] = key
                self._shown[key] = max(when, self._shown.get(key, when))
                self._took_over(key)

    def shown_since(self, key: str) -> float:
        """When a question was first shown (Unix time there), as far as this process knows."""
        asked = self._asked_before.get(key)
        before = math.inf if asked is None else asked - self._ahead()
        return self._shown.get(key, before)

    def spoken_at(
        self, event: Mapping[str, Any], thread_id: str | None, turn_id: object = None
    ) -> None:
        """Somebody has said something in a thread of a room (None: in any), other than what belongs
        to the turn `turn_id`."""
        for key, one in self._waiting.items():
            is_here = one.room_id == event["room_id"] and thread_id in (None, one.thread_id)
            if is_here and one.turn_id != turn_id:
                self._speakers.setdefault(key, set()).add(str(event["sender"]))

    def speakers_since(self, key: str) -> set[str]:
        """Who has said something since a question was asked, where it was asked, as far as this
        process knows."""
        return self._speakers.get(key, set())

    def is_overheard(self, key: str) -> bool:
        """Whether `speakers_since` names all: not of a question that an earlier process asked."""
        return key not in self._asked_before

    def waiting_of(self, turn_id: str) -> set[str]:
        """The keys of what waits of a turn."""
        return {key for key, one in self._waiting.items() if one.turn_id == turn_id}

    def takes_over(self, key: str, older: Collection[str]) -> None:
        """Once the question `key` is shown it stands alone, without the `older` ones: until then
        they are what people can see and answer."""
        if older:
            self._taking_over[key] = older

    async def waiting_at(self, room_id: str, thread_id: str) -> list[Approval]:
        """What can be answered in a thread of a room ("": outside of threads)."""
        # Every message asks this, and nearly always nothing waits.
        here = room_id, thread_id
        standing = self._waiting.keys() - self._taking_over.keys()
        keys = [key for key, one in self._waiting.items() if one[:2] == here and key in standing]
        found = [one for key in keys if (one := await self.get(key)) is not None]
        return [one for one in found if one.is_open]

    def insert(self, approval: Approval) -> Executable:
        """The statement that stores a new approval, to be run together with its prompt's."""
        if approval.status is ApprovalStatus.PENDING:
            self._waiting[approval.key] = _waiting(approval)
        return approvals.insert().values(row_of(approval))

    def forget(self, turn_id: str) -> None:
        """A turn is over: what could not be stored of it waits for nobody either."""
        for key in self.waiting_of(turn_id):
            del self._waiting[key]

    async def get(self, key: str) -> Approval | None:
        return await self._database.record(Approval, _asked(approvals.c.key == key))

    async def of_turn(self, turn_id: str) -> list[Approval]:
        """A turn's approvals, the first asked first."""
        return await self._find(approvals.c.turn_id == turn_id)

    async def pending(self, agent_id: str = "", room_id: str = "") -> list[Approval]:
        """What can still be answered, the first asked first; of one agent or room if given."""
        where = _PENDING & (approvals.c.expires_at > time.time())
        if agent_id:
            where &= approvals.c.agent_id == agent_id
        if room_id:
            where &= approvals.c.room_id == room_id
        return await self._find(where)

    async def kept(self, agent_id: str = "") -> list[Approval]:
        """What was allowed for good and not taken back, the first asked first; to one agent if
        given."""
        where = approvals.c.status == ApprovalStatus.ALWAYS
        return await self._find(where & (approvals.c.agent_id == agent_id) if agent_id else where)

    async def take_back(self, approval: Approval, *, by: str, reason: str = "") -> bool:
        """Deny what was allowed for good; False if it no longer is."""
        kept = (approvals.c.key == approval.key) & (approvals.c.status == ApprovalStatus.ALWAYS)
        values = {"status": str(ApprovalStatus.DENIED), "decided_by": by, "reason": reason}
        return await self._database.changed(update(approvals).where(kept).values(**values)) == 1

    async def open_at(self, room_id: str, thread_id: str, when: float) -> list[Approval]:
        """What could be answered at a time, by the homeserver's clock, in a thread of a room ("":
        outside of threads)."""
        when += self._ahead()
        here = (approvals.c.room_id == room_id) & (approvals.c.thread_id == thread_id)
        then = (approvals.c.asked_at <= when) & (when < approvals.c.expires_at)
        return await self._find(here & then)

    async def named(self, key: str, room_id: str = "") -> list[Approval]:
        """Those, settled or not, whose keys begin with this; of one room if given."""
        where = approvals.c.key.startswith(key, autoescape=True)
        if room_id:
            where &= approvals.c.room_id == room_id
        return await self._find(where)

    async def asked_in(self, event_id: str) -> Approval | None:
        """The approval that an event asks for."""
        # By its turn: people refer to much else, for which not all that was ever asked is read.
        same = (outbox.c.txn_id == approvals.c.prompt_txn, outbox.c.turn_id == approvals.c.turn_id)
        asked = await self._database.record(
            Approval, _asked(and_(outbox.c.event_id == event_id, *same))
        )
        key = self._heard.get(event_id)
        return asked if asked is not None or key is None else await self.get(key)

    async def decide(
        self, approval: Approval, status: ApprovalStatus, *, by: str = "", reason: str = ""
    ) -> Approval | None:
        """Settle a pending approval; how it stands then, None if it was settled before."""
        waiting = _PENDING & (approvals.c.key == approval.key)
        values = {"status": str(status), "decided_by": by, "reason": reason}
        ended = min(approval.expires_at, time.time())
        values |= {"expires_at": ended}
        changed = await self._database.changed(update(approvals).where(waiting).values(**values))
        self._took_over(approval.key)
        self._waiting.pop(approval.key, None)
        self._shown.pop(approval.key, None)
        self._heard = {event: key for event, key in self._heard.items() if key != approval.key}
        self._asked_before.pop(approval.key, None)
        self._speakers.pop(approval.key, None)
        if changed != 1:
            return None
        return replace(approval, status=status, decided_by=by, reason=reason, expires_at=ended)

    def _took_over(self, key: str) -> None:
        for one in self._taking_over.pop(key, ()):
            self._waiting.pop(one, None)

    async def _find(self, where: ColumnElement[bool]) -> list[Approval]:
        return await self._database.records(Approval, _asked(where))


def _asked(where: ColumnElement[bool]) -> Select[Any]:
    """The first asked first."""
    return select(approvals).where(where).order_by(approvals.c.asked_at, approvals.c.key)


def _waiting(one: Approval) -> _Waiting:
    return _Waiting(one.room_id, one.thread_id, one.turn_id, one.prompt_txn)
