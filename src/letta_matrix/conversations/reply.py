"""One agent's reply to one message, as Matrix events that grow and end exactly once."""

import asyncio
import contextlib
from dataclasses import dataclass

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common import clock
from letta_matrix.common.backoff import Backoff
from letta_matrix.common.waiting import is_set
from letta_matrix.conversations import notices
from letta_matrix.conversations.beside import Beside
from letta_matrix.conversations.reply_events import ReplyEvents
from letta_matrix.conversations.reply_outbox import ReplyOutbox
from letta_matrix.conversations.reply_text import (
    FIRST_WORDS,
    Break,
    are_enough,
    last_break,
    say_something,
)
from letta_matrix.matrix.content import CURSOR
from letta_matrix.matrix.events import newest_content
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.rows import Statement
from letta_matrix.store.turns import Outcome, Turn

log = structlog.get_logger()

_WHOLE_AT_ONCE = 0.03
"""Seconds the first words wait for the text's end: a whole reply is one event, not two."""

_NO_TEXT = "\u2026"
_PAUSES = Backoff(0.5, 10.0)
_STRETCH_BYTES = 8_000
"""A reply's edits slow down as it grows: each carries the whole text, three times."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A word beside the reply; an `offer` can be answered with 🔁."""

    text: str
    offer: bool = False


class Reply:
    """The events that answer a turn.

    `show` lets the text grow (the first words as a message, then edits about once a second);
    `freeze` fixes the end in the outbox, `deliver` sends it; `beside` says what is not its text.
    A question to people ends what was said before it, and what follows stands below. After a
    crash the object is made again from the outbox's entries and goes on in the same events.
    `grows`: its first words show while more are to come.
    """

    grows = True

    def __init__(
        self,
        turn: Turn,
        intent: Intent,
        outbox: Outbox,
        edit_interval: float,
        entries: list[OutboxEntry] | None = None,
        aside: tuple[Intent, str] | None = None,
    ) -> None:
        self.turn = turn
        self.intent = intent
        self._edit_interval = edit_interval
        # What is not its text may be said by somebody else, elsewhere.
        self.aside, room_id = aside or (intent, turn.room_id)
        self._owed = ReplyOutbox(turn, intent, outbox, entries or [], self.aside)
        self.events = ReplyEvents(turn, intent.user_id, self._owed.entries)
        self.text = ""
        # Where in the text, and with which part, what follows the last question begins.
        self._break, self._first = last_break(self._owed.entries)
        # Each part as it stands there: its text, whether it still grows, whether more follows.
        self._shown: dict[int, tuple[str, bool, bool]] = {}
        self._changed = asyncio.Event()
        self._text_ended = asyncio.Event()
        self.has_begun = asyncio.Event()
        self._sending = asyncio.Lock()
        self._growing: asyncio.Task[None] | None = None
        self._breaking = False
        self._words = self.events
        if aside is not None:
            about = notices.about_contact(turn.sender)
            self._words = self.events.elsewhere(self.aside.user_id, room_id, about)
        self.beside = Beside(self._words, self._owed, self._break_off)

    def ran(self, run_id: str) -> None:
        """Name the runtime's run in the events to come."""
        self.events.run_id = run_id or self.events.run_id

    def show(self, text: str) -> None:
        """Let the reply be `text` for now."""
        if not self._keep(text):
            return
        self._text_ended.clear()
        self._changed.set()
        self._grow_if_needed()

    def _keep(self, text: str) -> bool:
        # A turn that is followed again tells its text from the start.
        if len(text) < len(self.text) and self.text.startswith(text):
            return False
        self.text = text
        return True

    def text_ended(self) -> None:
        """The text is probably whole: show it as such, which spares the last edit if it is."""
        self._text_ended.set()
        self._changed.set()

    def withdraw(self) -> None:
        """Say nothing more: the reply, or what it answers, was redacted."""
        self._owed.withdrawn = True

    async def adopt(self, answered: list[OutboxEntry]) -> None:
        """Let this reply take the place of an earlier one, in the same events, as far as people
        have left them there."""
        parts = [one for one in answered if one.kind is OutboxKind.MESSAGE and one.event_id]
        adopted: list[OutboxEntry] = []
        for entry in parts:
            if entry.event_id and await self._shown_text(entry.event_id) is not None:
                adopted.append(self.events.adopted(len(adopted), entry))
        if adopted:
            await self._owed.freeze(adopted)

    async def whole(self, markdown: str) -> list[OutboxEntry]:
        """The entries of a reply that is complete from the start."""
        return await self._final_entries(markdown.strip() or _NO_TEXT)

    @property
    def shows_attention(self) -> bool:
        """Whether it is shown meanwhile that the message was read, and the agent as typing."""
        return True

    @property
    def refused(self) -> bool:
        """Whether the homeserver took nothing of the reply."""
        return bool(self._owed.entries) and all(entry.failure for entry in self._owed.entries)

    @property
    def is_cut_off(self) -> bool:
        """Whether the homeserver did not take all of it."""
        return any(entry.failure for entry in self._owed.entries)

    async def freeze(
        self, text: str, notice: Notice | None = None, outcome: Outcome = Outcome.ANSWERED
    ) -> None:
        """Fix the reply's end: from here on the outbox alone completes it."""
        await self.stop()
        await self._owed.settle()
        owed = await self._end_of(text if text.strip() else "")
        if notice is not None:
            kind = OutboxKind.OFFER if notice.offer else OutboxKind.NOTICE
            owed.append(self._words.last_words(kind, notice.text))
        owed += self.beside.closing()
        await self._owed.freeze(owed, self._shown_whole(owed), outcome)

    async def deliver(self) -> dict[str, str]:
        """Send what is owed, in order; returns event ids by txn id, not yet recorded."""
        return await self._owed.deliver()

    async def stop(self, within: float | None = None) -> None:
        """Stop growing, after the request under way; that is cut off after `within` seconds."""
        if self._growing is not None:
            # Cancelled between requests: the outcome of one cut short would be unknown.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within), self._sending:
                    self._growing.cancel()
            self._growing.cancel()
            (result,) = await asyncio.gather(self._growing, return_exceptions=True)
            if not isinstance(result, asyncio.CancelledError):
                log.warning("a reply stopped growing", turn=self.turn.turn_id, error=repr(result))
            self._growing = None

    async def _break_off(self) -> Break:
        """End what was said so far: what follows stands below what is posted now."""
        self._breaking = True
        try:
            await self.stop()
            await self._owed.settle()
            text = self.text
            if section := self._section(text, ended=True):
                owed = await self._final_entries(section, more=True)
                await self._owed.freeze(owed, self._shown_whole(owed))
                await self._owed.settle()
            self._break = Break.after(text) if text else self._break
            self._first = len(self._owed.parts())
            self._text_ended.clear()
            self.has_begun.clear()
        finally:
            self._breaking = False
        self._grow_if_needed()
        return self._break

    def _section(self, text: str, *, ended: bool = False) -> str:
        """What a text says since the last question: all of it if it is another one than before,
        as a runtime tells that was asked anew. One that is only told again comes to the old place
        first, unless it has `ended`."""
        if len(text) < self._break.at and not ended:
            return ""
        return text[self._break.at if self._break.is_in(text) else 0 :].strip()

    def _grow_if_needed(self) -> None:
        idle = self._growing is None and not self._breaking
        if idle and self._section(self.text) and not self._owed.withdrawn:
            self._growing = asyncio.create_task(self._grow())

    async def _grow(self) -> None:
        for pause in _PAUSES:
            # It passes, and nobody is to look at half a sentence until the turn ends.
            with contextlib.suppress(StoreUnavailable):
                await self._keep_growing()
            await asyncio.sleep(pause)
            self._changed.set()

    async def _keep_growing(self) -> None:
        async with self._sending:
            await self._owed.settle()
        if not self._open_parts():
            await self._first_words()
        while True:
            await self._changed.wait()
            if self._open_parts() and not self._text_ended.is_set():
                await self._owed.edit_turn()
            self._changed.clear()
            started = clock.now()
            async with self._sending:
                if not self._owed.withdrawn:
                    await self._show_now()
            await is_set(self._text_ended, self._interval() - (clock.now() - started))

    async def _first_words(self) -> None:
        """Wait until there is something to say: it is what people are notified with."""
        since = clock.now()
        await is_set(self._text_ended, _WHOLE_AT_ONCE)
        while not self._text_ended.is_set():
            said, waited = self._section(self.text), clock.now() - since
            if are_enough(said) or (waited >= FIRST_WORDS and say_something(said)):
                break
            self._changed.clear()
            left = FIRST_WORDS - waited
            if left > 0:
                await is_set(self._changed, left)
            else:
                await self._changed.wait()
        self._changed.set()

    def _interval(self) -> float:
        growth = 1 + len(self.text.encode()) / _STRETCH_BYTES
        return self._edit_interval * growth * self.intent.homeserver.pacer.stretch

    async def _show_now(self) -> None:
        parts = await self.events.split(self._section(self.text))
        live = not self._text_ended.is_set()
        begun, first = len(self._open_parts()), self._first
        if len(parts) > begun:
            if begun:
                await self._edit(first + begun - 1, parts[begun - 1], live=False, more=True)
            more = begun + 1 < len(parts)
            await self._begin(first + begun, parts[begun], live=live and not more, more=more)
        elif parts and self._shown.get(first + len(parts) - 1) != (parts[-1], live, False):
            await self._edit(first + len(parts) - 1, parts[-1], live=live)

    async def _begin(self, part: int, text: str, *, live: bool, more: bool) -> None:
        entry = self.events.begun(part, text, live=live, more=more)
        await self._owed.freeze([entry])
        await self._owed.send(entry)
        if entry.event_id is not None:
            self._shown[part] = text, live, more
            self.has_begun.set()

    async def _edit(self, part: int, text: str, *, live: bool, more: bool = False) -> None:
        target = self._owed.parts()[part].event_id
        if target is None:
            return
        self._shown.pop(part, None)
        cause = self.events.interim_txn(str(part))
        content = self.events.interim(text, target, cause, live=live, more=more)
        if await self._owed.send_interim(content, cause):
            self._shown[part] = text, live, more

    async def _end_of(self, text: str) -> list[OutboxEntry]:
        if self._owed.withdrawn or not text:
            return await self._left_as_shown()
        section = self._section(text, ended=True)
        return await self._final_entries(section) if section else []

    async def _final_entries(self, section: str, *, more: bool = False) -> list[OutboxEntry]:
        texts = await self.events.split(section)
        begun = self._open_parts()
        # A text that came out shorter than what was shown leaves nothing of the old parts.
        texts += [_NO_TEXT] * (len(begun) - len(texts))
        return [
            self.events.final(
                index,
                part,
                begun[place] if place < len(begun) else None,
                more=follows,
            )
            for place, part in enumerate(texts)
            for index, follows in [(self._first + place, more or place + 1 < len(texts))]
            if self._shown.get(index) != (part, False, follows) or self.events.pings(part)
        ]

    async def _left_as_shown(self) -> list[OutboxEntry]:
        """What an earlier process has shown stays where this one was told no text, and what was
        redacted stays gone."""
        known = {entry.txn_id for entry in self._owed.entries}
        owed: list[OutboxEntry] = []
        for part in self._owed.parts():
            text = await self._shown_text(part.event_id) if part.event_id is not None else None
            if text is not None and self._shown.get(part.part, ("", True))[:2] != (text, False):
                owed.append(self.events.final(part.part, text, part))
        return [entry for entry in owed if entry.txn_id not in known]

    async def _shown_text(self, event_id: str) -> str | None:
        """What an event of ours says, None where it says nothing any more or the homeserver does
        not let us see it."""
        try:
            event = await self.intent.event(self.turn.room_id, event_id)
        except MatrixRequestError as error:
            log.info("a reply cannot be read", turn=self.turn.turn_id, reason=error.errcode)
            return None
        body = newest_content(event).get("body")
        return None if body is None else str(body).removesuffix(CURSOR).strip() or _NO_TEXT

    def _open_parts(self) -> list[OutboxEntry]:
        """Those since the last question, which may still change."""
        return self._owed.parts()[self._first :]

    def _shown_whole(self, owed: list[OutboxEntry]) -> list[Statement]:
        """Parts that an interim edit has already completed: their first words are not all."""
        finals = {entry.part for entry in owed if entry.kind is OutboxKind.FINAL}
        return [
            self._owed.outbox.rewritten(
                entry, self.events.completed(entry, self._shown[entry.part][0])
            )
            for entry in self._open_parts()
            if entry.part in self._shown and entry.part not in finals
        ]
