"""What is said beside the text of a reply: notices, questions, the tools in use."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

from letta_matrix.common.parts import part
from letta_matrix.common.waiting import ended
from letta_matrix.conversations.reply_events import ReplyEvents, plain_words
from letta_matrix.conversations.reply_outbox import ReplyOutbox, is_settled
from letta_matrix.conversations.reply_text import Break
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.store.outbox import OutboxEntry, OutboxKind
from letta_matrix.store.rows import Statement


@part
class Beside:
    """The events beside one reply's text, each known by its kind and a key. `break_off` ends the
    text said so far and returns where in it the rest begins."""

    events: ReplyEvents
    _owed: ReplyOutbox
    _break_off: Callable[[], Awaitable[Break]]

    def __post_init__(self) -> None:
        self._posting = asyncio.Lock()
        # Held while something is stored: cut short, it would be there and unknown here.
        self._storing = asyncio.Lock()
        self._closing: list[tuple[OutboxKind, str, str]] = []

    async def notify(self, key: str, notice: str) -> None:
        """Say something while the turn goes on; once for each `key`."""
        await self.post(OutboxKind.NOTICE, key, notice)

    async def post(
        self,
        kind: OutboxKind,
        key: str,
        markdown: str,
        *also: Callable[[str], Statement],
        pings: Collection[str] = (),
    ) -> OutboxEntry:
        """Send a word beside the reply, once for each kind and `key`, through crashes too; one
        that asks (APPROVAL) ends what was said before it, and pings the users in `pings`.

        `also` are statements stored together with it, made from its txn id. Returns its entry,
        whose `event_id` is None where the homeserver refused it.
        """
        cause = self.txn(kind, key)
        async with self._posting:
            entry = self._owed.known(cause)
            if entry is None:
                after = await self._break_off() if kind is OutboxKind.APPROVAL else None
                is_open = kind in (OutboxKind.APPROVAL, OutboxKind.TRACE)
                entry = self.events.beside(
                    kind, key, markdown, after=after, pings=pings, is_open=is_open
                )
                statements = [statement(cause) for statement in also]
                async with self._storing:
                    await self._owed.freeze([entry], statements)
            if not is_settled(entry):
                await self._owed.send(entry)
        return entry

    def txn(self, kind: OutboxKind, key: str) -> str:
        """The txn id of what `post` sends."""
        return self.events.txn(kind, key)

    async def rewrite(self, entry: OutboxEntry, key: str, markdown: str) -> None:
        """Edit what `post` sent, for good, once for each `key`."""
        async with self._posting:
            if entry.event_id is None or self._owed.withdrawn or _says(entry, markdown):
                return
            made = self.events.update(entry.kind, key, entry.event_id, markdown)
            if (update := self._owed.known(made.txn_id)) is None:
                update = made
                async with self._storing:
                    await self._owed.freeze([update])
            if not is_settled(update):
                await self._owed.send(update)

    async def rewrite_posted(self, kind: OutboxKind, key: str, markdown: str) -> None:
        """Edit, for good, what `post` sent under a key, if it did."""
        if (entry := self.posted(kind, key)) is not None:
            await self.rewrite(entry, key, markdown)

    def rewrite_at_end(self, kind: OutboxKind, key: str, markdown: str) -> None:
        """As `rewrite_posted`, with the reply's end: frozen with it and sent after it."""
        if self.posted(kind, key) is not None and not self._owed.withdrawn:
            self.post_at_end(kind, key, markdown)

    async def cut_short(self, *tasks: asyncio.Task[None]) -> None:
        """End tasks that post and rewrite, also while they wait for the homeserver: what they have
        stored is sent with the reply's end."""
        async with self._storing:
            for task in tasks:
                task.cancel()
        await ended(*tasks)

    async def rewrite_interim(self, entry: OutboxEntry, markdown: str) -> None:
        """Edit what `post` sent for now, in the budget of interim edits; may be left out."""
        if entry.event_id is None or self._owed.withdrawn:
            return
        await self._owed.edit_turn()
        cause = self.events.interim_txn(entry.txn_id)
        content = self.events.beside_edit(entry.kind, entry.event_id, cause, markdown, is_open=True)
        await self._owed.send_interim(content, cause)

    def post_at_end(self, kind: OutboxKind, key: str, markdown: str) -> None:
        """What `post` sent under this key becomes `markdown`; if there is nothing it is sent as
        new. Frozen with the reply's end and sent after it."""
        self._closing.append((kind, key, markdown))

    def posted(self, kind: OutboxKind, key: str) -> OutboxEntry | None:
        """What `post` has sent under this key."""
        return self._owed.known(self.txn(kind, key))

    def is_over(self, kind: OutboxKind, key: str) -> bool:
        """Whether what `post` sent under this key was rewritten, for good."""
        return self._owed.known(self.events.txn(OutboxKind.UPDATE, kind, key)) is not None

    def stands_last(self, kind: OutboxKind, key: str) -> bool:
        """Whether no words of the reply have begun below what `post` sent under this key."""
        posted = self.posted(kind, key)
        return posted is None or all(part.seq < posted.seq for part in self._owed.parts())

    def closing(self) -> list[OutboxEntry]:
        """The entries of what is posted at the end."""
        owed: list[OutboxEntry] = []
        for kind, key, markdown in self._closing:
            if (posted := self.posted(kind, key)) is None:
                owed.append(self.events.beside(kind, key, markdown))
            elif posted.event_id is not None and not _says(posted, markdown):
                owed.append(self.events.update(kind, key, posted.event_id, markdown))
        return [entry for entry in owed if self._owed.known(entry.txn_id) is None]


def _says(entry: OutboxEntry, markdown: str) -> bool:
    return entry.content.get("body") in (clean_text(markdown), plain_words(markdown))
