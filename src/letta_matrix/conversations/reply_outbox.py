"""What a reply has frozen in the outbox, sent in order and confirmed."""

import asyncio
from collections.abc import Mapping, Sequence

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.outbox import Outbox, OutboxEntry, OutboxKind
from letta_matrix.store.rows import Statement
from letta_matrix.store.turns import Outcome, Turn

log = structlog.get_logger()

_INTERIM_TIMEOUT = 10.0


class ReplyOutbox:
    """The outbox entries of one turn; `entries` are those that an earlier process left. Of a
    reply that is `withdrawn` no text goes out any more. What another of us says sends `aside`."""

    def __init__(
        self,
        turn: Turn,
        intent: Intent,
        outbox: Outbox,
        entries: list[OutboxEntry],
        aside: Intent,
    ) -> None:
        self._turn = turn
        self._intent = intent
        self._aside = aside
        self.outbox = outbox
        self.entries = entries
        self.withdrawn = False
        # What an earlier process froze may have arrived, although nobody heard of it.
        self._unsure = {entry.txn_id for entry in entries if not is_settled(entry)}
        self._sent: dict[str, str] = {}

    def known(self, txn_id: str) -> OutboxEntry | None:
        """The entry with a txn id."""
        return next((entry for entry in self.entries if entry.txn_id == txn_id), None)

    def parts(self) -> list[OutboxEntry]:
        """The parts of the reply's text, as they first appeared."""
        return [entry for entry in self.entries if entry.kind is OutboxKind.MESSAGE]

    async def freeze(
        self,
        entries: list[OutboxEntry],
        also: Sequence[Statement] = (),
        ends: Outcome | None = None,
    ) -> None:
        """Store entries before they are sent, with the statements `also`. If the turn `ends`, from
        here on they alone complete it."""
        outcome, completes = ends or Outcome.ANSWERED, self._turn if ends is not None else None
        await self.outbox.freeze(entries, completes=completes, outcome=outcome, also=also)
        self.entries += entries

    async def settle(self) -> None:
        """Send what is owed so far, but for edits of what stands beside the text: nothing that
        follows needs them."""
        for entry in self.entries:
            if not is_settled(entry) and entry.kind is not OutboxKind.UPDATE:
                await self.send(entry)

    async def send(self, entry: OutboxEntry) -> None:
        """Send an entry and record its event id; one that is refused has its `failure`."""
        event_id = await self._put(entry)
        if event_id is not None:
            await self.outbox.confirm(entry, event_id)
            self._sent.pop(entry.txn_id, None)

    async def deliver(self) -> dict[str, str]:
        """Send what is owed, in order; returns event ids by txn id, not yet recorded."""
        for entry in self.entries:
            if self.withdrawn and entry.kind in (OutboxKind.MESSAGE, OutboxKind.FINAL):
                continue
            if not is_settled(entry):
                await self._put(entry)
        # Also what was sent when nothing could be recorded.
        return dict(self._sent)

    async def edit_turn(self) -> None:
        """Wait for a place in the budget of interim edits."""
        await self._intent.homeserver.pacer.edit_turn()

    async def send_interim(self, content: Mapping[str, object], cause: str) -> bool:
        """Send an edit that a later one replaces, once and unstored; False if it was lost."""
        edits = self._intent.homeserver.pacer.edits
        try:
            async with asyncio.timeout(_INTERIM_TIMEOUT):
                await self._intent.send_interim(
                    self._turn.room_id, "m.room.message", content, cause
                )
        except (MatrixRequestError, HomeserverUnavailable, TimeoutError) as error:
            log.debug("interim edit skipped", turn=self._turn.turn_id, reason=str(error))
            edits["lost"] += 1
            return False
        edits["sent"] += 1
        return True

    def _is_unsure(self, entry: OutboxEntry) -> bool:
        """Whether it may have been sent before."""
        return entry.txn_id in self._unsure or self._turn.sent_at < self.outbox.unsure_until

    async def _put(self, entry: OutboxEntry) -> str | None:
        try:
            intent = self._intent if entry.sender == self._intent.user_id else self._aside
            event_id = await intent.send(
                entry.room_id,
                "m.room.message",
                entry.content,
                entry.txn_id,
                look_first=self._is_unsure(entry),
            )
        except MatrixRequestError as error:
            reason = f"{error.errcode}: {error.message}"
            log.error("the homeserver refused a message", turn=self._turn.turn_id, reason=reason)
            await self.outbox.fail(entry, reason)
            return None
        entry.event_id = self._sent[entry.txn_id] = event_id
        return event_id


def is_settled(entry: OutboxEntry) -> bool:
    """Whether the homeserver has it, or will not take it."""
    return entry.event_id is not None or entry.failure is not None
