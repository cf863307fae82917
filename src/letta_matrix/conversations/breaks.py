"""Where a reply's text is broken off by a question."""

import hashlib
from dataclasses import dataclass
from typing import Self

from letta_matrix.common.json_fields import mapping
from letta_matrix.matrix.content import MARKER
from letta_matrix.store.outbox import OutboxEntry

AFTER = "after"
"""Key in a question's marker: the digest of the text before it."""


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
        digest = mapping(question.content.get(MARKER)).get(AFTER)
        return cls(question.part, digest if isinstance(digest, str) else "")

    def is_in(self, text: str) -> bool:
        """Whether it is a break of this text."""
        if len(text) < self.at:
            return False
        return not self.digest or _digest(text[: self.at]) == self.digest


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
