"""Questions that agents have put to people and that are not answered yet."""

import asyncio
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from letta_matrix.common.identifiers import is_ours
from letta_matrix.common.json_fields import string_of
from letta_matrix.config import Config
from letta_matrix.matrix.events import Event
from letta_matrix.operations.toolbox.timeline import said

KEYS = ("1️⃣", "2️⃣", "3️⃣", "4️⃣", "5️⃣", "6️⃣", "7️⃣", "8️⃣", "9️⃣", "🔟")
"""The reactions that choose an option, in their order."""

_VARIATION = "\ufe0f"
_KEYS = tuple(key.replace(_VARIATION, "") for key in KEYS)
_TEXT_TYPES = ("m.text", "m.emote")


@dataclass(frozen=True, slots=True)
class Question:
    """A question as it stands in a room, or in a thread there.

    Everybody permitted answers by a reaction or a reply. So do the exact words or the number of
    an option, written where it was asked; from `speaker` alone, if the agent talks with somebody
    there. Anything else is said to the agent. What was sent before `asked_at` (by the
    homeserver's clock, ms) answers nothing, though it may come again. Without an `event_id` it is
    just being asked.
    """

    event_id: str
    room_id: str
    options: tuple[str, ...] = ()
    thread_id: str = ""
    speaker: str = ""
    asked_at: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody answered; `option` counts from 1, 0 for words of their own."""

    sender: str
    text: str
    option: int = 0


@dataclass(slots=True)
class _Open:
    """`answer` is what an event says that is not known to be stored yet."""

    question: Question
    waiting: set[asyncio.Future[Answer]] = field(default_factory=set[asyncio.Future[Answer]])
    event_id: object = None
    answer: Answer | None = None

    def resolve(self) -> None:
        for future in self.waiting:
            if not future.done() and self.answer is not None:
                future.set_result(self.answer)


class Questions:
    """Knows the open questions, and which events answer them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._open: dict[str, _Open] = {}
        self._expected: dict[asyncio.Future[Answer], _Open] = {}

    def match(self, event: Mapping[str, Any]) -> Callable[[], None] | None:
        """If an event answers an open question it is for nobody else: what to call once it is
        stored, so that whoever waits gets the answer. No other event answers the question from
        now on, but the same one may come again.

        Never raises, whatever the event is made of.
        """
        for one in [*self._open.values(), *self._expected.values()]:
            if all(future.done() for future in one.waiting):
                continue
            if one.answer is not None and one.event_id != event.get("event_id"):
                continue
            if (answer := self.answer(one.question, event)) is not None:
                one.event_id, one.answer = event.get("event_id"), answer
                return one.resolve
        return None

    def is_being_answered(self, question: Question) -> bool:
        """Whether an answer to an open question is on its way into the database."""
        one = self._open.get(question.event_id)
        return one is not None and one.answer is not None

    def answer(self, question: Question, event: Mapping[str, Any]) -> Answer | None:
        """The event as an answer to a question, None if it is none or its sender may not give
        one."""
        sender = _sent_since(question, event)
        if not sender or not self._may_answer(sender):
            return None
        if question.event_id and _target(event) == question.event_id:
            is_reaction = event.get("type") == "m.reaction"
            return (_chosen if is_reaction else _told)(question, sender, event)
        if question.speaker not in ("", sender) or _said_in(event) != question.thread_id:
            return None
        told = _told(question, sender, event)
        return told if told is not None and told.option else None

    def is_passed_over(self, question: Question, event: Mapping[str, Any]) -> bool:
        """Whether somebody whose words could answer a question says something else there, which
        waits for the question to end."""
        sender = _sent_since(question, event)
        if not sender or sender != question.speaker:
            return False
        return _said_in(event) == question.thread_id and self.answer(question, event) is None

    @contextmanager
    def expect(self, question: Question) -> Generator[asyncio.Future[Answer]]:
        """Take the words that answer a question which people may see before it is known where it
        stands; whoever opens it with this future gets the answer."""
        future = asyncio.get_running_loop().create_future()
        self._expected[future] = _Open(question, {future})
        try:
            yield future
        finally:
            self._expected.pop(future, None)

    def heard(self, expected: asyncio.Future[Answer]) -> Answer | None:
        """What answers a question that is expected and not opened, and is for nobody else."""
        one = self._expected.get(expected)
        return None if one is None else one.answer

    @contextmanager
    def open(
        self, question: Question, expected: asyncio.Future[Answer] | None = None
    ) -> Generator[asyncio.Future[Answer]]:
        """Take answers to a question; the first one is the future's result. It may be that of
        `expect`, which ends."""
        future = expected or asyncio.get_running_loop().create_future()
        early = self._expected.pop(future, None) or _Open(question)
        early.question = question
        one = self._open.setdefault(question.event_id, early)
        one.waiting.add(future)
        try:
            yield future
        finally:
            one.waiting.discard(future)
            if not one.waiting:
                self._open.pop(question.event_id, None)

    def withdraw(self, event_id: str) -> None:
        """Take no more answers to a question; whoever waits for one gets none."""
        if (one := self._open.get(event_id)) is not None:
            for future in one.waiting:
                future.cancel()

    def _may_answer(self, sender: str) -> bool:
        is_person = not is_ours(sender, self._config.bot_user_id)
        return is_person and self._config.role_of(sender) != "block"


def _sent_since(question: Question, event: Mapping[str, Any]) -> str:
    """Who sent an event where a question was asked, after that; "" for anything else."""
    is_there = event.get("room_id") == question.room_id
    is_new = is_there and Event(event).sent_ms >= question.asked_at
    return string_of(dict(event), "sender") if is_new else ""


def _target(event: Mapping[str, Any]) -> str:
    """The event that one reacts or replies to, "" if it does not."""
    if event.get("type") == "m.reaction":
        return Event(event).target
    if event.get("type") == "m.room.message" and not Event(event).is_edit:
        # In a thread the fallback counts too: who writes there next replies to the question.
        return Event(event).reply_to
    return ""


def _said_in(event: Mapping[str, Any]) -> str | None:
    """The thread (its root, "" for none) that something new was said in, to nobody else and as
    no command; None for anything else."""
    view = Event(event)
    body, rel_type = view.content.get("body"), view.relation.get("rel_type")
    if event.get("type") != "m.room.message" or rel_type not in (None, "m.thread"):
        return None
    is_reply = "m.in_reply_to" in view.relation and not view.is_falling_back
    if is_reply or not isinstance(body, str) or body.lstrip().startswith("!"):
        return None
    return view.thread


def _chosen(question: Question, sender: str, event: Mapping[str, Any]) -> Answer | None:
    plain = string_of(Event(event).relation, "key").replace(_VARIATION, "")
    if plain not in _KEYS[: len(question.options)]:
        return None
    number = _KEYS.index(plain) + 1
    return Answer(sender, question.options[number - 1], number)


def _told(question: Question, sender: str, event: Mapping[str, Any]) -> Answer | None:
    text = said(event)
    if Event(event).content.get("msgtype") not in _TEXT_TYPES or not text:
        return None
    for number, option in enumerate(question.options, 1):
        if text.casefold() in (option.casefold(), f"{number}", f"{number}.", f"{number})"):
            return Answer(sender, option, number)
        if text.replace(_VARIATION, "") == _KEYS[number - 1]:
            return Answer(sender, option, number)
    return Answer(sender, text)
