"""Replies in rooms of other networks: their final text alone, as these take it."""

from collections.abc import Callable, Sequence

from letta_matrix.conversations.reply import Notice, Reply
from letta_matrix.conversations.reply_text import Break
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.outbox import Outbox, OutboxEntry
from letta_matrix.store.turns import Outcome, Turn

Split = Callable[[str], Sequence[str]]
"""A text as the messages that go out to a network."""


class PortalReply(Reply):
    """Nothing shows before the end, and nothing is edited: each message goes out to the network,
    once. What is not its text is said by the agent itself (`agent`) in its own room (`room_id`).
    With a `profile` the messages show as the agent's (MSC4144)."""

    grows = False

    def __init__(
        self,
        turn: Turn,
        intent: Intent,
        outbox: Outbox,
        entries: list[OutboxEntry] | None,
        aside: tuple[Intent, str],
        split: Split,
        profile: dict[str, object] | None,
        shows_attention: Callable[[], bool],
    ) -> None:
        super().__init__(turn, intent, outbox, 1.0, entries, aside)
        self._outgoing = split
        self._profile = profile
        self._shows_attention = shows_attention

    @property
    def shows_attention(self) -> bool:
        """Whether its network shows such a thing to the contact."""
        return self._shows_attention()

    def show(self, text: str) -> None:
        """Keep what the reply is for now."""
        self._keep(text)

    def text_ended(self) -> None:
        """Nothing was shown, so that nothing is to be completed."""

    async def adopt(self, answered: list[OutboxEntry]) -> None:
        """What went out cannot be edited: the new reply follows it."""

    async def freeze(
        self, text: str, notice: Notice | None = None, outcome: Outcome = Outcome.ANSWERED
    ) -> None:
        """Fix the reply's end. What ended with a word beside it is no final text."""
        await super().freeze("" if notice is not None else text, notice, outcome)

    async def _break_off(self) -> Break:
        # A question is asked elsewhere, and ends nothing here.
        return Break()

    async def _final_entries(self, section: str, *, more: bool = False) -> list[OutboxEntry]:
        return [
            self.events.plain(index, text, self._profile)
            for index, text in enumerate(self._outgoing(section))
        ]

    async def _left_as_shown(self) -> list[OutboxEntry]:
        return []
