"""Edits of a growing reply that come after its last one: what the system still held of a bridge
that was cut off, or the homeserver of a request that nobody waits for any more. Clients show the
newest version, so that an answer that is whole would look unfinished for good.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.identifiers import is_ours
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.parts import part
from letta_matrix.common.tasks import Tasks
from letta_matrix.matrix.content import LIVE, MARKER, OPEN, said_again
from letta_matrix.matrix.events import Event, RawEvent, newest_content
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.outbox import Outbox, OutboxEntry
from letta_matrix.store.turns import TurnStatus

log = structlog.get_logger()

_PATIENCE = 3.0
"""Seconds in which a reply that goes on has said more, or its turn is seen to run."""
_MOST = 1_000
"""Messages of which it is remembered that they were whole."""


@part
class LateEdits:
    """Hears of our events as they come by. Of a message that was whole, and grows again though its
    turn is over, what was said last is said once more."""

    _homeserver: Homeserver
    _bot_user_id: str
    _outbox: Outbox

    def __post_init__(self) -> None:
        self._whole: dict[str, None] = {}
        self._background = Tasks()

    def heard(self, event: RawEvent) -> None:
        """An event was stored, in the order in which the homeserver has them."""
        edit = Event(event)
        is_one = edit.edited and "turn_id" in edit.marker
        if not is_one or not is_ours(str(event.get("sender")), self._bot_user_id):
            return
        was_whole = edit.edited in self._whole
        self._whole.pop(edit.edited, None)
        if not _grows(mapping(edit.content.get("m.new_content"))):
            self._whole[edit.edited] = None
            if len(self._whole) > _MOST:
                del self._whole[next(iter(self._whole))]
        elif was_whole:
            late = str(event.get("event_id"))
            self._background.start(self._look(edit.edited, late))

    async def close(self) -> None:
        """Look at nothing more."""
        await self._background.cancel()

    async def _look(self, message: str, late: str) -> None:
        await asyncio.sleep(_PATIENCE)
        if message in self._whole:
            return
        try:
            # The newest, where an answer has taken the place of another in the same message.
            turn = await self._outbox.turn_of(message)
            if turn is not None and turn.status is TurnStatus.DONE:
                await self._restore(await self._outbox.of_turn(turn.turn_id), message, late)
        except (MatrixRequestError, HomeserverUnavailable, StoreUnavailable) as error:
            log.info("a late edit stays", message=message, reason=str(error))

    async def _restore(self, entries: list[OutboxEntry], message: str, late: str) -> None:
        about = [one for one in entries if message in (one.event_id, _edited(one.content))]
        if not about:
            return
        last = about[-1]
        ghost = self._homeserver.acting_as(last.sender)
        if not _grows(newest_content(await ghost.event(last.room_id, message))):
            return
        log.info("a late edit is taken back", turn=last.turn_id)
        cause = txn_id(last.txn_id, "again", late)
        content = said_again(last.content, message, cause)
        await ghost.send(last.room_id, "m.room.message", content, cause)


def _grows(content: Mapping[str, Any]) -> bool:
    return LIVE in content or OPEN in mapping(content.get(MARKER))


def _edited(content: Mapping[str, object]) -> str:
    return Event({"content": content}).edited
