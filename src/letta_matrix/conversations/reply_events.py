"""What the events of a reply hold, and by which txn ids they are known."""

import asyncio
import copy
import itertools
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from letta_matrix.conversations.reply_text import AFTER, Break
from letta_matrix.matrix.content import (
    ALSO,
    BESIDE,
    MARKER,
    MORE,
    OPEN,
    edit_content,
    edit_measure,
    reply_relation,
    text_content,
    thread_relation,
)
from letta_matrix.matrix.mentions import named_by_agent
from letta_matrix.matrix.splitting import split
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.matrix.unfolding import unfolded
from letta_matrix.store.outbox import OutboxEntry, OutboxKind
from letta_matrix.store.turns import Turn, TurnKind

_LONG_TEXT = 16_000


class ReplyEvents:
    """Makes the outbox entries of one turn's reply by `user_id`; sends nothing.

    `run_id` names the runtime's run, `also` are the ids of further messages that are answered with
    the turn's own, `mentionable` are users that the finished text may ping,
    `replies` says that the events are to point at the message they answer.
    """

    def __init__(self, turn: Turn, user_id: str, known: Iterable[OutboxEntry]) -> None:
        self._turn = turn
        self._user_id = user_id
        self.room_id = turn.room_id
        self.thread_id = turn.thread_id
        self._is_aside, self._about = False, ""
        self._seqs = itertools.count(max((entry.seq for entry in known), default=-1) + 1)
        self._edits = itertools.count()
        self.run_id = ""
        self.also: Sequence[str] = ()
        self.mentionable: Collection[str] = ()
        self.replies = False

    def elsewhere(self, user_id: str, room_id: str, about: str) -> "ReplyEvents":
        """The same by somebody else in another room, numbered together with these; notices begin
        with what they are `about`."""
        there = copy.copy(self)
        there._about = about
        there._user_id, there.room_id, there.thread_id = user_id, room_id, ""
        there._is_aside = True
        return there

    def plain(self, part: int, text: str, more: Mapping[str, object] | None) -> OutboxEntry:
        """A part that is whole, as text without marks or relations."""
        cause = self.txn("message", part)
        content: dict[str, object] = {"msgtype": "m.text", "body": text, "m.mentions": {}}
        content |= {MARKER: self.marker(cause), **(more or {})}
        return self.entry(OutboxKind.MESSAGE, part, cause, content)

    def begun(self, part: int, text: str, *, live: bool, more: bool = False) -> OutboxEntry:
        """A part as it first appears: what clients notify about, so without a cursor. `more` says,
        here and below, that the turn goes on when the part is whole."""
        cause = self.txn("message", part)
        return self._said(
            OutboxKind.MESSAGE, part, cause, text, _more(more), live=live, cursor=False
        )

    def interim(
        self, text: str, target: str, cause: str, *, live: bool, more: bool = False
    ) -> dict[str, object]:
        """The content of an edit that a later one replaces."""
        marker = self.marker(cause) | _more(more)
        return edit_content(text, target_event_id=target, marker=marker, live=live)

    def final(
        self, index: int, text: str, begun: OutboxEntry | None, *, more: bool = False
    ) -> OutboxEntry:
        """A part as it ends: the edit of what has begun, or all of it at once."""
        mentions = named_by_agent(text, self.mentionable)
        if begun is None or begun.event_id is None:
            cause = self.txn("message" if begun is None else "instead", index)
            return self._said(
                OutboxKind.MESSAGE, index, cause, text, _more(more), mentions=mentions
            )
        cause = self.txn("final", index)
        marker = self.marker(cause) | _more(more)
        content = edit_content(
            text, target_event_id=begun.event_id, marker=marker, mentions=mentions
        )
        return self.entry(OutboxKind.FINAL, index, cause, content)

    def completed(self, entry: OutboxEntry, text: str) -> dict[str, object]:
        """What a part says once an edit that nobody stored has completed it."""
        return text_content(text, marker=self.marker(entry.txn_id), relation=self.relation)

    def adopted(self, part: int, entry: OutboxEntry) -> OutboxEntry:
        """A part of an earlier turn's answer, to be edited into one of this."""
        adopted = self.entry(OutboxKind.MESSAGE, part, self.txn("adopted", part), entry.content)
        adopted.event_id = entry.event_id
        return adopted

    def last_words(self, kind: OutboxKind, text: str) -> OutboxEntry:
        """The notice that ends a turn."""
        cause, text = self.txn("end", kind), self._about + text
        return self._said(kind, 0, cause, text, _offers(kind), msgtype="m.notice")

    def beside(
        self,
        kind: OutboxKind,
        key: str,
        text: str,
        *,
        after: Break | None = None,
        pings: Collection[str] = (),
        is_open: bool = False,
    ) -> OutboxEntry:
        """A word beside the reply, `after` a break of it; `is_open` where an edit is to bring it to
        its end. One that asks is no notice: clients are silent about those."""
        cause = self.txn(kind, key)
        told = {AFTER: after.digest} if after and after.digest else {}
        text = self._about + text if kind in (OutboxKind.NOTICE, OutboxKind.OFFER) else text
        return self._said(
            kind,
            after.at if after else 0,
            cause,
            text,
            {BESIDE: _beside(kind), **_offers(kind), **_open(is_open), **told},
            msgtype=_msgtype(kind),
            mentions=pings,
            plain=plain_words(text),
        )

    def update(self, kind: OutboxKind, key: str, target: str, text: str) -> OutboxEntry:
        """The edit that brings a word beside the reply to its end."""
        cause = self.txn(OutboxKind.UPDATE, kind, key)
        return self.entry(OutboxKind.UPDATE, 0, cause, self.beside_edit(kind, target, cause, text))

    def beside_edit(
        self, kind: OutboxKind, target: str, cause: str, text: str, *, is_open: bool = False
    ) -> dict[str, object]:
        """The content of an edit of a word beside the reply."""
        return edit_content(
            text,
            target_event_id=target,
            marker={**self.marker(cause), BESIDE: _beside(kind), **_open(is_open)},
            msgtype=_msgtype(kind),
            plain=plain_words(text),
        )

    def pings(self, text: str) -> bool:
        """Whether a text pings somebody, which only its last version does."""
        return bool(named_by_agent(text, self.mentionable))

    async def split(self, text: str) -> list[str]:
        """A text as parts that fit into an event each."""
        measure = edit_measure(self.marker(""))
        if len(text) < _LONG_TEXT:
            return split(text, measure=measure)
        # A megabyte takes a while, in which others want to be answered.
        return await asyncio.to_thread(split, text, measure=measure)

    def _said(
        self,
        kind: OutboxKind,
        part: int,
        cause: str,
        text: str,
        more: Mapping[str, object] | None = None,
        **how: Any,
    ) -> OutboxEntry:
        """A new event of `text`, with `more` in its marker; `how` is as in `text_content`."""
        marker = {**self.marker(cause), **(more or {})}
        content = text_content(text, marker=marker, relation=self.relation, **how)
        return self.entry(kind, part, cause, content)

    @property
    def relation(self) -> dict[str, object] | None:
        turn = self._turn
        if self._is_aside:
            return None
        if turn.thread_id:
            spoken = turn.kind is TurnKind.SPEECH
            return thread_relation(turn.thread_id, turn.thread_id if spoken else turn.event_id)
        return reply_relation(turn.event_id) if self.replies else None

    def entry(
        self, kind: OutboxKind, part: int, cause: str, content: Mapping[str, object]
    ) -> OutboxEntry:
        return OutboxEntry(
            txn_id=cause,
            turn_id=self._turn.turn_id,
            seq=next(self._seqs),
            kind=kind,
            part=part,
            room_id=self.room_id,
            sender=self._user_id,
            content=content,
        )

    def txn(self, *cause: str | int) -> str:
        """A txn id of this turn."""
        return txn_id(self._turn.event_id, self._turn.agent_id, *cause)

    def interim_txn(self, of: str) -> str:
        """A txn id that no edit has had, in no process."""
        return self.txn("interim", of, str(time.time_ns()), next(self._edits))

    def marker(self, cause: str) -> dict[str, object]:
        """What tells our own events apart."""
        marker: dict[str, object] = {
            "agent_id": self._turn.agent_id,
            "turn_id": self._turn.turn_id,
            "txn": cause,
        }
        if self._turn.kind is not TurnKind.SPEECH:
            marker["in_reply_to"] = self._turn.event_id
        if self.also:
            marker[ALSO] = list(self.also)
        return marker | ({"run_id": self.run_id} if self.run_id else {})


def plain_words(markdown: str) -> str:
    """A word beside the reply where no HTML is seen, as in notifications: nothing folded, and a
    first line that is bold as a whole without its marks."""
    first, line_end, rest = unfolded(markdown).partition("\n")
    if first.startswith("**") and first.endswith("**"):
        first = first.removeprefix("**").removesuffix("**")
    return first + line_end + rest


def _offers(kind: OutboxKind) -> dict[str, object]:
    return {"offer": True} if kind is OutboxKind.OFFER else {}


def _more(more: bool) -> dict[str, object]:
    return {MORE: True} if more else {}


def _open(is_open: bool) -> dict[str, object]:
    return {OPEN: True} if is_open else {}


def _beside(kind: OutboxKind) -> str:
    return str(OutboxKind.NOTICE if kind is OutboxKind.OFFER else kind)


def _msgtype(kind: OutboxKind) -> str:
    return "m.text" if kind is OutboxKind.APPROVAL else "m.notice"
