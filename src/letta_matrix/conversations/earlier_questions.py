"""Questions whose turn has begun anew: no runtime waits for their answers any more."""

from collections.abc import Sequence

from letta_matrix.conversations.approval_question import ApprovalQuestion
from letta_matrix.conversations.approval_text import AGAIN, outcome, superseded
from letta_matrix.store.approvals import Approval, ApprovalStatus, ApprovalStore
from letta_matrix.store.outbox import OutboxKind


class EarlierQuestions:
    """They stand until the turn asks again, so that a person is heard meanwhile: an answer that no
    runtime was told of is one to the same call, asked again."""

    def __init__(self, store: ApprovalStore) -> None:
        self._store = store
        self._untold: dict[str, str] = {}
        self._void: dict[str, set[str]] = {}

    def answered(self, approval: Approval) -> None:
        """A person has answered what no runtime has asked for in this process."""
        self._untold[approval.key] = approval.turn_id

    def told(self, key: str) -> None:
        """A runtime waits for the answer after all."""
        self._untold.pop(key, None)

    def is_untold(self, key: str) -> bool:
        """Whether no runtime was told of the answer, for sure."""
        return key in self._untold

    def begun_anew(self, turn_id: str) -> None:
        """Nothing that the turn has asked for until now is awaited any more."""
        answered = {key for key, turn in self._untold.items() if turn == turn_id}
        if void := self._store.waiting_of(turn_id) | answered:
            self._void.setdefault(turn_id, set()).update(void)

    def has(self, turn_id: str) -> bool:
        """Whether anything was asked for before a turn began anew."""
        return turn_id in self._void

    def forget(self, turn_id: str) -> None:
        """The turn is over."""
        self._untold = {key: turn for key, turn in self._untold.items() if turn != turn_id}
        self._void.pop(turn_id, None)

    async def older_than(self, question: ApprovalQuestion) -> list[Approval]:
        """Those in whose place a question is asked, unless it has been asked before."""
        void = self._void.get(question.reply.turn.turn_id, set())
        if not void or await self._store.get(question.key) is not None:
            return []
        found = [await self._store.get(key) for key in sorted(void)]
        # What is answered may be the same as what is asked next.
        void &= self._untold.keys()
        return [one for one in found if one is not None]

    async def answer_to(
        self, question: ApprovalQuestion, older: Sequence[Approval]
    ) -> Approval | None:
        """What a person has said to the same call. It answers one question, not two."""
        for one in older:
            if question.is_same_call(one) and self._untold.pop(one.key, None) is not None:
                return await self._store.get(one.key)
        return None

    async def end(
        self, question: ApprovalQuestion, older: Sequence[Approval], answered: Approval | None
    ) -> Approval | None:
        """End those in whose place a question stands now, of which one may have `answered` it;
        returns the one that has since."""
        for one in older:
            await self._store.decide(one, ApprovalStatus.LAPSED, reason=AGAIN)
        crossed = await self.answer_to(question, older)
        for one in older:
            is_answer = answered is not None and one.key == answered.key
            if not self.is_untold(one.key):
                text = outcome(answered) if answered and is_answer else superseded(one)
                async with question.posting:
                    await question.reply.beside.rewrite_posted(OutboxKind.APPROVAL, one.key, text)
        return crossed

    async def is_noticed(self, question: ApprovalQuestion) -> bool:
        """Whether people were told what waits when it was asked before."""
        reply = question.reply
        of_turn = await self._store.of_turn(reply.turn.turn_id)
        again = [one.key for one in of_turn if one.status is ApprovalStatus.LAPSED]
        return any(reply.beside.posted(OutboxKind.NOTICE, waits(key)) for key in again)


def waits(key: str) -> str:
    """The key of the notice that says that a question waits."""
    return f"waits {key}"
