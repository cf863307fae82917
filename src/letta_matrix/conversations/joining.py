"""Messages that belong together: files, and the words that a person sends just before or after."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

from letta_matrix.common.parts import part
from letta_matrix.common.waiting import is_set
from letta_matrix.conversations.turn_queues import TurnQueues
from letta_matrix.store.places import Place
from letta_matrix.store.turns import Turn, TurnKind, TurnStatus, TurnStore

_MOST_WAITED = 10_000
_MOST = 20
"""Messages asked about at once."""


@part
class Joining:
    """Finds the turns that are asked together with one. `window` is the seconds from one message
    to the next; 0 joins nothing. `now` is what time it is where messages are dated. `of_words` is
    the window of a room where words are joined too, None for others."""

    _turns: TurnStore
    _queues: TurnQueues
    _window: float
    _now: Callable[[], float] = time.time
    _of_words: Callable[[str], float | None] = lambda _: None

    def __post_init__(self) -> None:
        self._awaited: dict[Place, asyncio.Event] = {}
        self._waited = set[str]()

    def queued(self, turn: Turn) -> None:
        """A turn has come to wait behind another."""
        if turn.kind is TurnKind.MESSAGE:
            # Not all of them come to be asked.
            if len(self._waited) >= _MOST_WAITED:
                self._waited.clear()
            self._waited.add(turn.turn_id)
        if (awaited := self._awaited.get(turn.place)) is not None:
            awaited.set()

    async def complete(self, turn: Turn) -> None:
        """Give a person who has sent a file alone the time to send what belongs to it, and where
        words are joined too, whoever writes the time to write more."""
        window, words = self._rule(turn)
        if window <= 0 or not _is_fresh(turn):
            return
        awaited = self._awaited[turn.place] = asyncio.Event()
        try:
            while True:
                awaited.clear()
                together = [turn, *self._behind(turn)]
                left = together[-1].sent_at + window - self._now()
                # A homeserver's clock may be wrong.
                left = min(left, window)
                is_whole = not words and any(one.prompt for one in together)
                if is_whole or left <= 0 or turn.outcome is not None:
                    return
                if not await is_set(awaited, left):
                    return
        finally:
            del self._awaited[turn.place]

    def is_crowded(self, turn: Turn, together: Sequence[Turn]) -> bool:
        """Whether a turn has waited behind another, or another waits behind it that is not of
        those asked `together` with it."""
        has_waited = turn.turn_id in self._waited
        self._waited.discard(turn.turn_id)
        asked = {one.turn_id for one in together}
        others = (one for one in self._queues.behind(turn) if one.turn_id not in asked)
        return has_waited or any(one.kind is TurnKind.MESSAGE for one in others)

    async def of(self, turn: Turn, *, again: bool = False) -> list[Turn]:
        """The turns that a turn is asked together with, in order; those it was if it has been,
        which is looked up if it may be asked `again`."""
        if again or not _is_fresh(turn):
            together = await self._turns.joined_to(turn)
            # Asked anew, nothing is told that was removed since.
            known = [
                one for one in together if one.prompt is not None or one.attachment is not None
            ]
            if known or not _is_fresh(turn):
                return known
        return self._behind(turn)

    def _behind(self, turn: Turn) -> list[Turn]:
        window, words = self._rule(turn)
        behind = self._queues.behind(turn)
        return joined(turn, behind, window, words=words) if window > 0 else []

    def _rule(self, turn: Turn) -> tuple[float, bool]:
        """The window where a turn is, and whether words are joined there too."""
        of_words = self._of_words(turn.room_id)
        return (self._window, False) if of_words is None else (of_words, True)


def joined(turn: Turn, behind: Iterable[Turn], window: float, *, words: bool = False) -> list[Turn]:
    """Those of the turns waiting `behind` one that belong to it: the same person's at the same
    place, each at most `window` seconds from the one before, and one of the two a file; with
    `words` also where none is."""
    found: list[Turn] = []
    for one in behind:
        if one.outcome is not None and one.status is TurnStatus.QUEUED:
            continue  # withdrawn, or stopped
        last = found[-1] if found else turn
        if len(found) + 1 >= _MOST or not _belong_together(last, one, window, words=words):
            break
        found.append(one)
    return found


def _belong_together(last: Turn, one: Turn, window: float, *, words: bool) -> bool:
    same = (last.place, last.sender, last.hops) == (one.place, one.sender, one.hops)
    speaks = one.prompt is not None or one.attachment is not None
    files = words or last.attachment is not None or one.attachment is not None
    # They come in the order of their room; their stamps may be a hair the other way.
    in_time = abs(one.sent_at - last.sent_at) <= window
    return same and speaks and files and in_time and _is_fresh(one) and one.hops == 0


def _is_fresh(turn: Turn) -> bool:
    """Whether a message has never been asked."""
    never = turn.status is TurnStatus.QUEUED and turn.asked == 0 and turn.revises is None
    return never and turn.kind is TurnKind.MESSAGE
