"""How much one person may ask at once and in a minute, counted from the turns that are stored."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, bindparam, func, select

from letta_matrix.store.schema import turns
from letta_matrix.store.turn_ids import turn_id_of
from letta_matrix.store.turns import UNFINISHED, Turn, TurnKind

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
            self._accounts[sender] = self._account_of(sender)
        return self._accounts[sender]

    def _account_of(self, sender: str) -> _Account:
        mine: dict[str, object] = {"who": sender}
        # By the homeserver's clock: what comes late, all at once, was not asked at once.
        minute = {"since": self.now - _MINUTE, "until": self.now + _MINUTE}
        recent = mine | minute | {"most": self.budget.per_minute}
        return _Account(
            self.connection.execute(_WAITING, mine).scalar_one(),
            self.connection.execute(_RECENT, recent).scalar_one(),
            set(self.connection.execute(_TOLD, mine).scalars()),
        )


_MINE = turns.c.sender == bindparam("who")
_ASKED = _MINE & turns.c.kind.in_(_ASKING)
_WAITING = select(func.count()).where(_ASKED, UNFINISHED)
_NEWEST = select(turns.c.sent_at).where(_ASKED).order_by(turns.c.seq.desc())
_LAST = _NEWEST.limit(bindparam("most")).subquery()
_IN_A_MINUTE = _LAST.c.sent_at.between(bindparam("since"), bindparam("until"))
_RECENT = select(func.count()).select_from(_LAST).where(_IN_A_MINUTE)
_LAST_ASKED = _NEWEST.with_only_columns(turns.c.seq).limit(1).scalar_subquery()
_REFUSED = (turns.c.kind == TurnKind.REFUSED) & (turns.c.seq > func.coalesce(_LAST_ASKED, 0))
_TOLD = select(turns.c.room_id).where(_MINE, _REFUSED)


def _most(most: int, account: _Account) -> int:
    return (most + 1) // 2 if account.told else most
