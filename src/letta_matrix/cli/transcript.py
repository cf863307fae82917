"""What an agent's events say to somebody at a terminal."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from letta_matrix.common.json_fields import mapping
from letta_matrix.matrix.content import BESIDE, CURSOR, LIVE, MORE
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.reactions import ALWAYS

_AFTER_REPLY = 0.5
"""Seconds in which a long reply's next part, or a notice beside it, would follow."""

_AFTER_NOTICE = 2.0
_KEY = re.compile(r"!approve (\w+)")
_VARIANT = "\ufe0f"


@dataclass(frozen=True, slots=True)
class Update:
    """A message as it is now, in Markdown; `live` while it grows."""

    event_id: str
    text: str
    live: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """An event that asks whether a tool may run, for what somebody said; `thread` is the root of
    the thread it stands in, "" for none."""

    event_id: str
    text: str
    prompt: str
    thread: str

    @property
    def key(self) -> str:
        """How commands name it."""
        named = _KEY.search(self.text)
        return named[1] if named else ""

    @property
    def offers_always(self) -> bool:
        return ALWAYS.removesuffix(_VARIANT) in self.text


@dataclass(frozen=True, slots=True)
class _Message:
    """An event of the agent: a message, or its newest version (`said`)."""

    event_id: str
    said: Event
    edits: bool
    live: bool

    @property
    def text(self) -> str:
        return str(self.said.content.get("body", ""))

    @property
    def beside(self) -> str:
        return str(self.said.marker.get(BESIDE, ""))

    @property
    def answers(self) -> str:
        return str(self.said.marker.get("in_reply_to", ""))

    @property
    def question(self) -> Question:
        return Question(self.event_id, self.text, self.answers, self.said.thread)

    @property
    def update(self) -> Update:
        return Update(self.event_id, self.text)


def open_questions(events: Iterable[Mapping[str, Any]], agent: str) -> list[Question]:
    """What an agent has asked in these events without being answered, the oldest first."""
    asked: dict[str, Question] = {}
    for message in filter(None, (_read(event, agent) for event in events)):
        if message.edits:
            asked.pop(message.event_id, None)
        elif message.beside == "approval":
            asked[message.event_id] = message.question
    return list(asked.values())


class Transcript:
    """Follows the answers to what somebody said; `take` tells what there is to show.

    `questions` are the open ones, by the ids of their events, the oldest first.
    """

    def __init__(self, agent: str, *prompts: str) -> None:
        self._agent = agent
        self._patience: dict[str, float | None] = dict.fromkeys(prompts)
        self._prompts: dict[str, str] = {}
        self._live: set[str] = set()
        self._held: list[Update] = []
        self._answered: dict[str, str] = {}
        self._spoke: set[str] = set()
        self.questions: dict[str, Question] = {}
        self.newest = ""
        """The last event of what is followed."""

    @property
    def prompts(self) -> list[str]:
        """The events whose answers are followed."""
        return [prompt for prompt in self._patience if prompt]

    @property
    def patience(self) -> float | None:
        """Seconds of silence after which all answers are whole; None while more must come."""
        left = list(self._patience.values())
        if self._live or self.questions or None in left:
            return None
        return max((seconds for seconds in left if seconds is not None), default=None)

    def follow(self, prompt: str) -> None:
        """Follow the answer to another event too."""
        self._patience[prompt] = None

    def answered(self, event_id: str, sign: str) -> None:
        """The person here has answered a question; what then says so begins with `sign`."""
        self._answered[event_id] = sign

    def resume(self, question: Question) -> None:
        """Follow what a question that is open stands in the way of."""
        self.questions[question.event_id] = question
        self._prompts[question.event_id] = question.prompt
        # What the agent does by itself names nothing that it answers.
        self._patience[question.prompt] = None if question.prompt else _AFTER_NOTICE

    def take(self, event: Mapping[str, Any]) -> list[Update]:
        """What an event adds, often nothing."""
        message = _read(event, self._agent)
        if message is None:
            return []
        prompt = self._prompts.get(message.event_id, message.answers)
        if prompt not in self._patience or (not prompt and message.event_id not in self._prompts):
            return []
        self._prompts[message.event_id] = prompt
        self.newest = str(event.get("event_id", ""))
        if message.beside == "approval" or message.event_id in self.questions:
            return self._asked(message, prompt)
        if message.beside == "trace":
            return self._traced(message, prompt)
        if message.said.content.get("msgtype") == "m.notice":
            return self._noted(message, prompt)
        return self._replied(message, prompt)

    def _asked(self, message: _Message, prompt: str) -> list[Update]:
        if message.edits:
            self.questions.pop(message.event_id, None)
        else:
            self.questions[message.event_id] = message.question
            # Whatever was whole before: the turn goes on after the answer.
            self._patience[prompt] = None
            self._spoke.discard(prompt)
        sign = self._answered.get(message.event_id)
        if message.edits and prompt in self._spoke and sign and message.text.startswith(sign):
            return []  # what came of the person's answer says it better, and stands there already
        return self._below_reply(message.update)

    def _traced(self, message: _Message, prompt: str) -> list[Update]:
        """The tools in use are for clients that can fold and replace them. Folded they are the
        last of a turn, also of one that ends without another word."""
        folded = "<details" in str(message.said.content.get("formatted_body", ""))
        if folded and self._patience[prompt] is None:
            self._patience[prompt] = _AFTER_REPLY
        return []

    def _noted(self, message: _Message, prompt: str) -> list[Update]:
        if message.beside:
            return [message.update]
        self._patience[prompt] = _AFTER_NOTICE
        return self._below_reply(message.update)

    def _below_reply(self, update: Update) -> list[Update]:
        """Shown below a reply that still grows, as Matrix clients do: when that is whole."""
        if self._live:
            self._held.append(update)
            return []
        return [update]

    def _replied(self, message: _Message, prompt: str) -> list[Update]:
        self._spoke.add(prompt)
        if message.live:
            self._live.add(message.event_id)
            text = message.text.removesuffix(CURSOR).rstrip()
            return [Update(message.event_id, text, live=True)]
        self._live.discard(message.event_id)
        self._patience[prompt] = None if MORE in message.said.marker else _AFTER_REPLY
        if self._live:
            return [message.update]
        held, self._held = self._held, []
        return [message.update, *held]


def _read(event: Mapping[str, Any], agent: str) -> _Message | None:
    """A message of the agent; None for any other event."""
    if event.get("type") != "m.room.message" or event.get("sender") != agent:
        return None
    view = Event(event)
    newest = mapping(view.content.get("m.new_content")) if view.is_edit else view.content
    event_id = view.edited or str(event.get("event_id"))
    live = LIVE in newest or LIVE in view.content
    return _Message(event_id, Event({"content": newest}), view.is_edit, live)
