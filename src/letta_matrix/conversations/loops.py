"""Programs that answer every word of an agent: noticed by what they do, left unanswered then."""

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from letta_matrix.common.json_fields import mapping
from letta_matrix.config import Config
from letta_matrix.conversations.new_turns import sent_at
from letta_matrix.matrix.content import BESIDE
from letta_matrix.matrix.events import Event
from letta_matrix.store.turn_ids import turn_id_of
from letta_matrix.store.turns import Turn, TurnKind

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_QUICK = 2.0
"""Seconds after an agent's words within which somebody who reads them has hardly answered."""

_QUIET = 600.0
"""Seconds for which a program is left unanswered."""

_PARROT = 3
"""What is sent back, or sent again, weighs as much as so many other quick answers: that no person
does time and again, while being quick happens."""

_SHORT = 12
"""Characters of a reply below which it is no echo to have it somewhere in one's words."""

_MOST = 2_000
_BLANKS = re.compile(r"\W+")


@dataclass(slots=True)
class _Exchange:
    """What somebody asked an agent last, by the homeserver's clock (Unix time), and whether that
    was answered. `weight` is that of their quick answers without a slower one in between; `told`
    is the event that was answered with "no more"."""

    asked: str = ""
    asked_at: float = 0.0
    text: str = ""
    answered: bool = False
    weight: int = 0
    silent_until: float = 0.0
    told: str = ""

    def forgive(self) -> None:
        self.weight, self.silent_until, self.told = 0, 0.0, ""


@dataclass(slots=True)
class _Talk:
    """What an agent said last in a room, and with whom it talks there. Threads are one: each
    mention begins another."""

    said_at: float = 0.0
    said: deque[str] = field(default_factory=lambda: deque[str](maxlen=4))
    exchanges: dict[str, _Exchange] = field(default_factory=dict[str, _Exchange])


class Loops:
    """Keeps agents from answering programs without end. Pure: it knows only the events that it is
    shown, in the order in which they happened, and goes by their times.

    What comes within two seconds of an agent's answer is suspicious, and more so what repeats it.
    After `conversations.bot_replies` of those in a row the agent is silent towards this sender in
    this room for ten minutes; what a person would write ends that, whoever writes it.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._budget = config.conversations.bot_replies * _PARROT
        self._talks: dict[tuple[str, str], _Talk] = {}

    def heard(self, event: Mapping[str, Any], agent_id: str) -> None:
        """See an event that an agent has sent."""
        talk = self._talks.get((agent_id, str(event.get("room_id"))))
        if talk is None or event.get("type") != "m.room.message":
            return
        content, marker = Event(event).content, Event(event).marker
        talk.said_at = sent_at(event)
        if BESIDE not in marker:
            # Traces and notices stand beside what was said.
            talk.said.append(_plain((mapping(content.get("m.new_content")) or content).get("body")))
        for exchange in talk.exchanges.values():
            if exchange.asked == marker.get("in_reply_to"):
                exchange.answered = True

    def allowed(self, turns: list[Turn]) -> list[Turn]:
        """Those of the turns of one event that are to be run; in place of the first that is not,
        one that says so (`TurnKind.LOOPED`)."""
        if not self._budget:
            return turns
        return [left for turn in turns if (left := self._left_of(turn)) is not None]

    def _left_of(self, turn: Turn) -> Turn | None:
        if turn.kind is not TurnKind.MESSAGE or turn.hops:
            return turn
        talk = _kept(self._talks, (turn.agent_id, turn.room_id), _Talk)
        exchange = _kept(talk.exchanges, turn.sender, _Exchange)
        if exchange.asked != turn.event_id:
            # An event can come twice, and weighs once.
            self._weigh(turn, talk, exchange)
        if turn.sent_at >= exchange.silent_until:
            return turn
        if exchange.told not in ("", turn.event_id):
            return None
        exchange.told = turn.event_id
        turn_id = turn_id_of(turn.event_id, f"{turn.agent_id}\0looped")
        return replace(turn, turn_id=turn_id, kind=TurnKind.LOOPED, prompt=None, attachment=None)

    def _weigh(self, turn: Turn, talk: _Talk, exchange: _Exchange) -> None:
        text, is_silent = _plain(turn.prompt), turn.sent_at < exchange.silent_until
        if exchange.silent_until and not is_silent:
            exchange.forgive()
        is_echo = any(_is_echo(text, said) for said in talk.said)
        # Where the agent says nothing, who goes on at once answers nobody.
        last = max(talk.said_at, exchange.asked_at) if is_silent else talk.said_at
        if not is_echo and turn.sent_at - last >= _QUICK:
            for one in talk.exchanges.values():
                one.forgive()
        elif not is_silent:
            is_again = bool(text) and text == exchange.text
            exchange.weight += self._weight(turn, exchange, is_echo=is_echo, is_again=is_again)
            if exchange.weight > self._budget:
                exchange.silent_until, exchange.told = turn.sent_at + _QUIET, ""
        exchange.asked, exchange.asked_at, exchange.text = turn.event_id, turn.sent_at, text
        exchange.answered = False

    def _weight(self, turn: Turn, exchange: _Exchange, *, is_echo: bool, is_again: bool) -> int:
        if is_echo:
            return _PARROT
        # What was written before the last answer came is no answer to it. An admin's script may
        # be quick, as long as it does not live on what it is told.
        if not exchange.answered or self._config.role_of(turn.sender) == "admin":
            return 0
        return _PARROT if is_again else 1


def _is_echo(text: str, said: str) -> bool:
    return bool(said) and (text == said or (len(said) >= _SHORT and said in text))


def _plain(text: object) -> str:
    return _BLANKS.sub(" ", text).strip().casefold() if isinstance(text, str) else ""


def _kept(known: dict[_Key, _Value], key: _Key, make: Callable[[], _Value]) -> _Value:
    """What is known by a key, made now if nothing is; the oldest is forgotten for it."""
    if key not in known:
        if len(known) >= _MOST:
            del known[next(iter(known))]
        known[key] = make()
    return known[key]
