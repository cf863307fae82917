"""The text of a turn's reply as it streams in: what of it is shown, when there is something to
show, and where a question breaks it off."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter
from typing import Self

from letta_matrix.matrix.events import Event
from letta_matrix.runtimes.protocol import TextDelta
from letta_matrix.store.outbox import OutboxEntry, OutboxKind

MAX_REPLY = 500_000
"""Characters of a reply that count: more than `splitting.split` has room for, which says so."""

_FIELD = r"[^\n()\[\]{}<>]{0,300}?"
_LONGEST_ENVELOPE = 1_000
_SHORTEST_START = 2

AFTER = "after"
"""Key in a question's marker: the digest of the text before it."""

FIRST_WORDS = 0.3
"""Seconds after the first of its text that a reply waits at most for a whole clause."""

_CLAUSE = 60
_SENTENCE = re.compile(r"[.!?:;\u2026][\"')\]*_`]*\s|[\u3002\uff01\uff1f\uff1b\uff1a]|\w[^\n]*\n")
_WORD = re.compile(r"[^\W_]")


@dataclass(frozen=True, slots=True)
class EnvelopeShape:
    """What every envelope looks like; `start` is what all of them begin with."""

    start: str
    pattern: re.Pattern[str]


class ReplyText:
    """A turn's assistant messages in order, as paragraphs.

    `header` is what the prompt had before the person's words; wherever the model repeats it, or
    the envelope without the quote after it, that is left out. Where there is one, so is an
    envelope of the model's own making that looks like `template` and begins a message. What may
    yet become either is held back while the text grows.
    """

    def __init__(self, header: str = "", template: str = "") -> None:
        self._header = header.strip()
        self._shape = envelope_shape(template) if self._header else None
        self._parts: dict[str, _Part] = {}
        self._size = 0

    def add(self, delta: TextDelta) -> str:
        """The reply with `delta` at the end of its assistant message."""
        part = self._parts.setdefault(delta.part_id, _Part(self._header, self._shape))
        text = delta.text[: MAX_REPLY - self._size]
        self._size += len(text)
        part.add(text)
        return _paragraphs(part.text for part in self._parts.values())

    def end(self) -> str:
        """The whole reply, with nothing held back."""
        return _paragraphs(part.text + part.rest() for part in self._parts.values())


class _Part:
    """One assistant message: `text` is sure, what is held may become the header."""

    def __init__(self, header: str, shape: EnvelopeShape | None) -> None:
        self.text = ""
        self._shape = shape
        self._header = header
        self._envelope = header if header.startswith("> ") else header.partition("\n> ")[0]
        self._held = ""
        self._skips_space = False

    def add(self, text: str) -> None:
        self._held += text
        while self._held and self._take():
            pass

    def rest(self) -> str:
        """What is held, where no more is to come."""
        if self._envelope and self._held.startswith(self._envelope):
            return self._held.removeprefix(self._envelope).lstrip()
        return self._held

    def _take(self) -> bool:
        """Move what is sure to `text`; whether there may be more of it."""
        if self._shape is not None and not self._open(self._shape):
            return False
        if self._skips_space:
            self._held = self._held.lstrip()
            self._skips_space = not self._held
            return bool(self._held)
        if not self._envelope:
            self._give(len(self._held))
            return False
        start = self._held.find(self._envelope)
        if start < 0:
            self._give(len(self._held) - _overlap(self._held, self._envelope))
            return False
        self._give(start)
        return self._drop_header()

    def _open(self, shape: EnvelopeShape) -> bool:
        """Drop an envelope at the message's start; whether it is known if there is one."""
        opening = self._held.lstrip()
        if _may_become(opening, self._header) or _may_become(opening, shape.start):
            return False
        match = shape.pattern.match(opening)
        if match and not opening.startswith(self._header):
            self._held, self._skips_space = opening[match.end() :], True
        elif opening.startswith(shape.start) and not match and _is_one_line(opening):
            return False
        self._shape = None
        return True

    def _drop_header(self) -> bool:
        if _may_become(self._held, self._header):
            return False
        is_whole = self._held.startswith(self._header)
        self._held = self._held.removeprefix(self._header if is_whole else self._envelope)
        self._skips_space = True
        return bool(self._held)

    def _give(self, length: int) -> None:
        self.text += self._held[:length]
        self._held = self._held[length:]


def _may_become(text: str, whole: str) -> bool:
    return text != whole and whole.startswith(text)


def _is_one_line(text: str) -> bool:
    return len(text) < _LONGEST_ENVELOPE and "\n" not in text


@lru_cache(maxsize=8)
def envelope_shape(template: str) -> EnvelopeShape | None:
    """The look of envelopes that `template` makes; None if they have no clear start and end."""
    pieces = list(Formatter().parse(template.strip()))
    if not pieces or len(pieces[0][0]) < _SHORTEST_START or pieces[-1][1] is not None:
        return None
    fields = (re.escape(text) + (_FIELD if name is not None else "") for text, name, _, _ in pieces)
    return EnvelopeShape(pieces[0][0], re.compile("".join(fields)))


def _overlap(text: str, needle: str) -> int:
    """How many characters at the end of `text` are a start of `needle`."""
    for length in range(min(len(text), len(needle) - 1), 0, -1):
        # A context makes long needles: what cannot be its start is not compared.
        if text[-length] == needle[0] and needle.startswith(text[-length:]):
            return length
    return 0


def _paragraphs(parts: Iterable[str]) -> str:
    return "\n\n".join(stripped for part in parts if (stripped := part.strip("\n")))


def are_enough(text: str) -> bool:
    """Whether a text holds at least a clause: the end of a sentence or a line, or 60 characters."""
    return say_something(text) and (len(text) >= _CLAUSE or bool(_SENTENCE.search(text)))


def say_something(text: str) -> bool:
    """Whether a text has a word, and not only the marks of what is to come."""
    return bool(_WORD.search(text))


@dataclass(frozen=True, slots=True)
class Break:
    """The place `at` in a text, and the `digest` of what stands before it ("": not known): a
    runtime that was asked anew tells another text, in which that place means nothing."""

    at: int = 0
    digest: str = ""

    @classmethod
    def after(cls, text: str) -> Self:
        """The break at the end of a text."""
        return cls(len(text), _digest(text))

    @classmethod
    def of(cls, question: OutboxEntry) -> Self:
        """The break that a question made."""
        digest = Event({"content": question.content}).marker.get(AFTER)
        return cls(question.part, digest if isinstance(digest, str) else "")

    def is_in(self, text: str) -> bool:
        """Whether it is a break of this text."""
        if len(text) < self.at:
            return False
        return not self.digest or _digest(text[: self.at]) == self.digest


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def last_break(entries: list[OutboxEntry]) -> tuple[Break, int]:
    """Where in the text what follows the last question begins, and with which part."""
    asked = [entry for entry in entries if entry.kind is OutboxKind.APPROVAL]
    if not asked:
        return Break(), 0
    last = max(asked, key=lambda entry: entry.seq)
    before = [one for one in entries if one.kind is OutboxKind.MESSAGE and one.seq < last.seq]
    return Break.of(last), len(before)
