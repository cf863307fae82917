"""How much one person may ask at once and in a minute, counted from the turns that are stored."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sqlalchemy import ColumnElement, Connection, func, literal_column, select

from letta_matrix.store.schema import turns
from letta_matrix.store.turns import Turn, TurnKind, TurnStatus, turn_id_of

_ASKING = (TurnKind.MESSAGE, TurnKind.COMMAND)
_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What one person may ask: `waiting` turns that run or wait for their place, and `per_minute`
    new ones; 0 is no limit. `limits` says whether it holds for a turn.

    Who is over it is refused until half of it is free again, so that what is asked and what is
    not does not alternate.
    """

    waiting: int
    per_minute: int
    limits: Callable[[Turn], bool]


@dataclass(slots=True)
class _Account:
    """What a person has asked; `told` are the rooms where they were refused since the last."""

    waiting: int
    recent: int
    told: set[str]


@dataclass(slots=True)
class Spending:
    """Decides on turns in the order of their arrival, which is `now` (Unix time), in a transaction
    that stores what is left of them."""

    budget: Budget
    connection: Connection
    now: float
    _accounts: dict[str, _Account] = field(default_factory=dict[str, _Account])

    def allowed(self, new: list[Turn]) -> list[Turn]:
        """The turns that are within their senders' budgets. The first beyond one in a room is
        one that says so (`TurnKind.REFUSED`), the others are left out."""
        return [left for turn in new if (left := self._left_of(turn)) is not None]

    def _left_of(self, turn: Turn) -> Turn | None:
        if not self.budget.limits(turn):
            return turn
        account = self._account(turn.sender)
        if self._is_within(account):
            account.waiting, account.recent = account.waiting + 1, account.recent + 1
            account.told.clear()
            return turn
        if turn.room_id in account.told:
            return None
        account.told.add(turn.room_id)
        # An id of its own: an offer that was refused can be taken up later.
        turn_id = turn_id_of(turn.event_id, f"{turn.agent_id}\0refused")
        return replace(turn, turn_id=turn_id, kind=TurnKind.REFUSED, prompt=None, attachment=None)

    def _is_within(self, account: _Account) -> bool:
        used = ((account.waiting, self.budget.waiting), (account.recent, self.budget.per_minute))
        return all(not most or some < _most(most, account) for some, most in used)

    def _account(self, sender: str) -> _Account:
        if sender not in self._accounts:
            mine = turns.c.sender == sender
            self._accounts[sender] = _Account(
                self._waiting(mine), self._recent(mine), self._told(mine)
            )
        return self._accounts[sender]

    def _waiting(self, mine: ColumnElement[bool]) -> int:
        # In so many words: a parameter would keep SQLite from the index of just these.
        unfinished = turns.c.status != literal_column(f"'{TurnStatus.DONE}'")
        query = select(func.count()).where(mine, turns.c.kind.in_(_ASKING), unfinished)
        return self.connection.execute(query).scalar_one()

    def _recent(self, mine: ColumnElement[bool]) -> int:
        asked = select(turns.c.sent_at).where(mine, turns.c.kind.in_(_ASKING))
        last = asked.order_by(turns.c.seq.desc()).limit(self.budget.per_minute).subquery()
        # By the homeserver's clock: what comes late, all at once, was not asked at once.
        is_recent = (last.c.sent_at > self.now - _MINUTE) & (last.c.sent_at < self.now + _MINUTE)
        query = select(func.count()).select_from(last).where(is_recent)
        return self.connection.execute(query).scalar_one()

    def _told(self, mine: ColumnElement[bool]) -> set[str]:
        asked = select(turns.c.seq).where(mine, turns.c.kind.in_(_ASKING))
        last = asked.order_by(turns.c.seq.desc()).limit(1).scalar_subquery()
        refused = (turns.c.kind == TurnKind.REFUSED) & (turns.c.seq > func.coalesce(last, 0))
        return set(self.connection.execute(select(turns.c.room_id).where(mine, refused)).scalars())


def _most(most: int, account: _Account) -> int:
    return (most + 1) // 2 if account.told else most
