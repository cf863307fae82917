"""What agents say by themselves."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Speech:
    """Something an agent said by itself; `message_id` is the runtime's and never changes."""

    message_id: str
    conversation_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """What an agent said since a cursor, oldest first, the cursor to go on from, and whether there
    may be more behind it, of which no `last_run` tells."""

    speeches: Sequence[Speech]
    cursor: str
    more: bool = False
