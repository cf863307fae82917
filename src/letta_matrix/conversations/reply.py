"""One agent's reply to one message, as Matrix events that grow and end exactly once."""

import asyncio
import itertools
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import structlog
from mautrix.errors import MatrixRequestError
from sqlalchemy import Executable

from letta_matrix import clock
from letta_matrix.matrix.content import (
    BESIDE,
    CURSOR,
    edit_content,
    edit_measure,
    text_content,
    thread_relation,
)
from letta_matrix.matrix.events import newest_content
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.mentions import named_by_agent
from letta_matrix.matrix.splitting import split
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.matrix.unfolding import unfolded
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.turns import Outcome, Turn, TurnKind
from letta_matrix.waiting import is_set

log = structlog.get_logger()

_FIRST_WORDS_DELAY = 0.03
"""Seconds the first words wait for the text's end: a whole reply is one event, not two."""

_NO_TEXT = "\u2026"
_LONG_TEXT = 16_000
_INTERIM_TIMEOUT = 10.0
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
    `freeze` fixes the end in the outbox, `deliver` sends it. After a crash the object is made
    again from the outbox's entries and goes on in the same events.
    """

    def __init__(
        self,
        turn: Turn,
        intent: Intent,
        outbox: Outbox,
        edit_interval: float,
        entries: list[OutboxEntry] | None = None,
    ) -> None:
        self._turn = turn
        self.intent = intent
        self._outbox = outbox
        self._edit_interval = edit_interval
        self._entries = entries or []
        self.mentionable: Collection[str] = ()
        """Users that the finished text may ping by naming them."""
        # What an earlier process froze may have arrived, although nobody heard of it.
        self._unsure = {entry.txn_id for entry in self._entries if not _is_settled(entry)}
        self._run_id = ""
        self._text = ""
        self._shown: dict[int, tuple[str, bool]] = {}
        self._changed = asyncio.Event()
        self._text_ended = asyncio.Event()
        self._sending = asyncio.Lock()
        self._growing: asyncio.Task[None] | None = None
        self._edits = itertools.count()
        self._seqs = itertools.count(max((entry.seq for entry in self._entries), default=-1) + 1)
        self._posting = asyncio.Lock()
        self._closing: list[tuple[OutboxKind, str, str]] = []

    @property
    def turn(self) -> Turn:
        return self._turn

    def ran(self, run_id: str) -> None:
        """Name the runtime's run in the events to come."""
        self._run_id = run_id or self._run_id

    @property
    def text(self) -> str:
        return self._text

    def show(self, text: str) -> None:
        """Let the reply be `text` for now."""
        # A turn that is followed again tells its text from the start.
        if len(text) < len(self._text) and self._text.startswith(text):
            return
        self._text = text
        self._text_ended.clear()
        self._changed.set()
        if self._growing is None and text.strip():
            self._growing = asyncio.create_task(self._grow())

    def text_ended(self) -> None:
        """The text is probably whole: show it as such, which spares the last edit if it is."""
        self._text_ended.set()
        self._changed.set()

    async def notify(self, key: str, notice: str) -> None:
        """Say something beside the reply while the turn goes on; once for each `key`."""
        await self.post(OutboxKind.NOTICE, key, notice)

    async def post(
        self, kind: OutboxKind, key: str, markdown: str, *also: Callable[[str], Executable]
    ) -> OutboxEntry:
        """Send a notice beside the reply, once for each kind and `key`, through crashes too.

        `also` are statements stored together with it, made from its txn id. Returns its entry,
        whose `event_id` is None where the homeserver refused it.
        """
        cause = self.post_txn(kind, key)
        async with self._posting:
            entry = next((entry for entry in self._entries if entry.txn_id == cause), None)
            if entry is None:
                entry = self._entry(kind, 0, cause, self._notice_content(kind, markdown, cause))
                statements = [statement(cause) for statement in also]
                await self._outbox.freeze([entry], also=statements)
                self._entries.append(entry)
            if not _is_settled(entry):
                await self._send(entry)
        return entry

    def post_txn(self, kind: OutboxKind, key: str) -> str:
        """The txn id of what `post` sends."""
        return self._txn(str(kind), key)

    async def rewrite(self, entry: OutboxEntry, key: str, markdown: str) -> None:
        """Edit what `post` sent, for good, once for each `key`."""
        cause = self._txn(str(OutboxKind.UPDATE), str(entry.kind), key)
        async with self._posting:
            if entry.event_id is None or any(known.txn_id == cause for known in self._entries):
                return
            update = self._update(entry.kind, entry.event_id, cause, markdown)
            await self._outbox.freeze([update])
            self._entries.append(update)
            await self._send(update)

    async def rewrite_interim(self, entry: OutboxEntry, markdown: str) -> None:
        """Edit what `post` sent for now, in the budget of interim edits; may be left out."""
        if entry.event_id is None:
            return
        await self.intent.homeserver.pacer.edit_turn()
        cause = self._txn("interim", entry.txn_id, str(time.time_ns()), next(self._edits))
        content = self._notice_edit(entry.kind, entry.event_id, cause, markdown)
        await self._send_interim(content, cause)

    def post_at_end(self, kind: OutboxKind, key: str, markdown: str) -> None:
        """What `post` sent under this key becomes `markdown`; if there is nothing it is sent as
        new. Frozen with the reply's end and sent after it."""
        self._closing.append((kind, key, markdown))

    async def whole(self, markdown: str) -> list[OutboxEntry]:
        """The entries of a reply that is complete from the start."""
        return await self._final_entries(markdown.strip() or _NO_TEXT)

    @property
    def refused(self) -> bool:
        """Whether the homeserver took nothing of the reply."""
        return bool(self._entries) and all(entry.failure for entry in self._entries)

    async def freeze(
        self, text: str, notice: Notice | None = None, outcome: Outcome = Outcome.ANSWERED
    ) -> None:
        """Fix the reply's end: from here on the outbox alone completes it."""
        await self.stop()
        text = text.strip()
        await self._settle()
        owed = await self._final_entries(text) if text else await self._left_as_shown()
        if notice is not None:
            kind = OutboxKind.OFFER if notice.offer else OutboxKind.NOTICE
            cause = self._txn("end", str(kind))
            owed.append(self._entry(kind, 0, cause, self._last_words(notice.text, cause)))
        owed += self._closing_entries()
        whole = self._shown_whole(owed)
        await self._outbox.freeze(owed, completes=self._turn, outcome=outcome, also=whole)
        self._entries += owed

    async def deliver(self) -> dict[str, str]:
        """Send what is owed, in order; returns event ids by txn id, not yet recorded."""
        sent: dict[str, str] = {}
        for entry in self._entries:
            if not _is_settled(entry):
                event_id = await self._put(entry)
                if event_id is not None:
                    sent[entry.txn_id] = event_id
        return sent

    async def stop(self) -> None:
        """Stop growing, after the request under way."""
        if self._growing is not None:
            # Cancelled between requests: the outcome of one cut short would be unknown.
            async with self._sending:
                self._growing.cancel()
            (result,) = await asyncio.gather(self._growing, return_exceptions=True)
            if not isinstance(result, asyncio.CancelledError):
                log.warning("a reply stopped growing", turn=self._turn.turn_id, error=repr(result))
            self._growing = None

    async def _settle(self) -> None:
        for entry in self._entries:
            if not _is_settled(entry):
                await self._send(entry)

    async def _grow(self) -> None:
        async with self._sending:
            await self._settle()
        if not self._parts():
            await is_set(self._text_ended, _FIRST_WORDS_DELAY)
        while True:
            await self._changed.wait()
            if self._parts() and not self._text_ended.is_set():
                await self.intent.homeserver.pacer.edit_turn()
            self._changed.clear()
            started = clock.now()
            async with self._sending:
                await self._show_now()
            await is_set(self._text_ended, self._interval() - (clock.now() - started))

    def _interval(self) -> float:
        growth = 1 + len(self._text.encode()) / _STRETCH_BYTES
        return self._edit_interval * growth * self.intent.homeserver.pacer.stretch

    async def _show_now(self) -> None:
        parts = await self._split(self._text.strip())
        live = not self._text_ended.is_set()
        begun = len(self._parts())
        if len(parts) > begun:
            if begun:
                await self._edit(begun - 1, parts[begun - 1], live=False)
            await self._begin(begun, parts[begun], live=live and begun + 1 == len(parts))
        elif parts and self._shown.get(len(parts) - 1) != (parts[-1], live):
            await self._edit(len(parts) - 1, parts[-1], live=live)

    async def _begin(self, part: int, text: str, *, live: bool) -> None:
        cause = self._txn("message", part)
        content = text_content(text, marker=self._marker(cause), live=live, relation=self._relation)
        entry = self._entry(OutboxKind.MESSAGE, part, cause, content)
        await self._outbox.freeze([entry])
        self._entries.append(entry)
        await self._send(entry)
        if entry.event_id is not None:
            self._shown[part] = text, live

    async def _edit(self, part: int, text: str, *, live: bool) -> None:
        target = self._parts()[part].event_id
        if target is None:
            return
        self._shown.pop(part, None)
        cause = self._txn("interim", part, str(time.time_ns()), next(self._edits))
        content = edit_content(text, target_event_id=target, marker=self._marker(cause), live=live)
        if await self._send_interim(content, cause):
            self._shown[part] = text, live

    async def _send_interim(self, content: Mapping[str, object], cause: str) -> bool:
        try:
            async with asyncio.timeout(_INTERIM_TIMEOUT):
                await self.intent.send_interim(self._turn.room_id, "m.room.message", content, cause)
        except (MatrixRequestError, HomeserverUnavailable, TimeoutError) as error:
            log.debug("interim edit skipped", turn=self._turn.turn_id, reason=str(error))
            return False
        return True

    async def _split(self, text: str) -> list[str]:
        measure = edit_measure(self._marker(""))
        if len(text) < _LONG_TEXT:
            return split(text, measure=measure)
        # A megabyte takes a while, in which others want to be answered.
        return await asyncio.to_thread(split, text, measure=measure)

    async def _final_entries(self, text: str) -> list[OutboxEntry]:
        texts = await self._split(text)
        begun = self._parts()
        # A text that came out shorter than what was shown leaves nothing of the old parts.
        texts += [_NO_TEXT] * (len(begun) - len(texts))
        return [
            self._final(index, part, begun[index] if index < len(begun) else None)
            for index, part in enumerate(texts)
            if self._shown.get(index) != (part, False) or named_by_agent(part, self.mentionable)
        ]

    async def _left_as_shown(self) -> list[OutboxEntry]:
        """What an earlier process has shown stays where this one was told no text."""
        owed: list[OutboxEntry] = []
        for part in self._parts():
            text = await self._shown_text(part.event_id) if part.event_id is not None else None
            if text is not None and self._shown.get(part.part) != (text, False):
                owed.append(self._final(part.part, text, part))
        return owed

    async def _shown_text(self, event_id: str) -> str | None:
        """What an event of ours says, None where the homeserver does not let us see it."""
        try:
            event = await self.intent.event(self._turn.room_id, event_id)
        except MatrixRequestError as error:
            log.info("a reply cannot be read", turn=self._turn.turn_id, reason=error.errcode)
            return None
        return str(newest_content(event).get("body") or "").removesuffix(CURSOR).strip() or _NO_TEXT

    def _final(self, index: int, text: str, begun: OutboxEntry | None) -> OutboxEntry:
        mentions = named_by_agent(text, self.mentionable)
        if begun is None or begun.event_id is None:
            cause = self._txn("message" if begun is None else "instead", index)
            content = text_content(
                text, marker=self._marker(cause), relation=self._relation, mentions=mentions
            )
            return self._entry(OutboxKind.MESSAGE, index, cause, content)
        cause = self._txn("final", index)
        content = edit_content(
            text, target_event_id=begun.event_id, marker=self._marker(cause), mentions=mentions
        )
        return self._entry(OutboxKind.FINAL, index, cause, content)

    def _parts(self) -> list[OutboxEntry]:
        return [entry for entry in self._entries if entry.kind is OutboxKind.MESSAGE]

    def _last_words(self, text: str, cause: str) -> dict[str, object]:
        marker = self._marker(cause)
        return text_content(text, marker=marker, msgtype="m.notice", relation=self._relation)

    def _notice_content(self, kind: OutboxKind, text: str, cause: str) -> dict[str, object]:
        marker, plain = {**self._marker(cause), BESIDE: str(kind)}, unfolded(text)
        return text_content(
            text, marker=marker, msgtype="m.notice", relation=self._relation, plain=plain
        )

    def _notice_edit(
        self, kind: OutboxKind, target: str, cause: str, text: str
    ) -> dict[str, object]:
        marker, plain = {**self._marker(cause), BESIDE: str(kind)}, unfolded(text)
        return edit_content(
            text, target_event_id=target, marker=marker, msgtype="m.notice", plain=plain
        )

    def _update(self, kind: OutboxKind, target: str, cause: str, markdown: str) -> OutboxEntry:
        content = self._notice_edit(kind, target, cause, markdown)
        return self._entry(OutboxKind.UPDATE, 0, cause, content)

    def _shown_whole(self, owed: list[OutboxEntry]) -> list[Executable]:
        """Parts that an interim edit has already completed: their first words are not all."""
        finals = {entry.part for entry in owed if entry.kind is OutboxKind.FINAL}
        return [
            self._outbox.rewritten(entry, self._text_of(entry, self._shown[entry.part][0]))
            for entry in self._parts()
            if entry.part in self._shown and entry.part not in finals
        ]

    def _text_of(self, entry: OutboxEntry, text: str) -> dict[str, object]:
        marker = self._marker(entry.txn_id)
        return text_content(text, marker=marker, relation=self._relation)

    def _closing_entries(self) -> list[OutboxEntry]:
        known = {entry.txn_id: entry for entry in self._entries}
        owed: list[OutboxEntry] = []
        for kind, key, markdown in self._closing:
            posted = known.get(self.post_txn(kind, key))
            if posted is None:
                cause = self.post_txn(kind, key)
                owed.append(
                    self._entry(kind, 0, cause, self._notice_content(kind, markdown, cause))
                )
            elif posted.event_id is not None:
                cause = self._txn(str(OutboxKind.UPDATE), str(kind), key)
                owed.append(self._update(kind, posted.event_id, cause, markdown))
        return [entry for entry in owed if entry.txn_id not in known]

    @property
    def _relation(self) -> dict[str, object] | None:
        if not self._turn.thread_id:
            return None
        spoken = self._turn.kind is TurnKind.SPEECH
        replied = self._turn.thread_id if spoken else self._turn.event_id
        return thread_relation(self._turn.thread_id, replied)

    def _entry(
        self, kind: OutboxKind, part: int, cause: str, content: Mapping[str, object]
    ) -> OutboxEntry:
        return OutboxEntry(
            txn_id=cause,
            turn_id=self._turn.turn_id,
            seq=next(self._seqs),
            kind=kind,
            part=part,
            room_id=self._turn.room_id,
            sender=self.intent.user_id,
            content=content,
        )

    async def _send(self, entry: OutboxEntry) -> None:
        event_id = await self._put(entry)
        if event_id is not None:
            await self._outbox.confirm(entry, event_id)

    async def _put(self, entry: OutboxEntry) -> str | None:
        try:
            event_id = await self.intent.send(
                entry.room_id,
                "m.room.message",
                entry.content,
                entry.txn_id,
                look_first=entry.txn_id in self._unsure,
            )
        except MatrixRequestError as error:
            log.error(
                "the homeserver refused a message",
                turn=self._turn.turn_id,
                reason=f"{error.errcode}: {error.message}",
            )
            await self._outbox.fail(entry, f"{error.errcode}: {error.message}")
            return None
        entry.event_id = event_id
        return event_id

    def _txn(self, *cause: str | int) -> str:
        return txn_id(self._turn.event_id, self._turn.agent_id, *cause)

    def _marker(self, cause: str) -> dict[str, object]:
        marker: dict[str, object] = {
            "agent_id": self._turn.agent_id,
            "turn_id": self._turn.turn_id,
            "txn": cause,
        }
        if self._turn.kind is not TurnKind.SPEECH:
            marker["in_reply_to"] = self._turn.event_id
        return marker | ({"run_id": self._run_id} if self._run_id else {})


def _is_settled(entry: OutboxEntry) -> bool:
    return entry.event_id is not None or entry.failure is not None
