"""Read receipt and typing while an agent works on its first words."""

import asyncio
from collections.abc import Awaitable

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.parts import part
from letta_matrix.common.tasks import Tasks
from letta_matrix.common.waiting import is_set
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.intent import Intent

log = structlog.get_logger()

_DELAY = 0.25
"""Seconds before anything is shown: words that are there by then say it better, and the
homeserver is spared three requests. Longer where it is slow."""

_TYPING_MS = 30_000
_REFRESH = 20.0


@part
class Attention:
    """Shows one event as read and the agent as typing, from `begin()` to `end()`.

    Neither waits nor fails; what is under way is kept in `background` until it has tidied up.
    """

    _intent: Intent
    _room_id: str
    _event_id: str
    _background: Tasks
    _over: asyncio.Event | None = None

    def begin(self) -> None:
        if self._over is None:
            self._over = asyncio.Event()
            self._background.start(self._show(self._over))

    def end(self) -> None:
        if self._over is not None:
            self._over.set()

    async def _show(self, over: asyncio.Event) -> None:
        if await is_set(over, _DELAY * self._intent.homeserver.pacer.stretch):
            return
        # Each by itself: where one is refused the other is shown.
        receipt = self._intent.read_receipt(self._room_id, self._event_id)
        await asyncio.gather(self._quietly(receipt), self._quietly(self._type_until(over)))

    async def _quietly(self, showing: Awaitable[None]) -> None:
        try:
            await showing
        except (MatrixRequestError, HomeserverUnavailable) as error:
            log.debug("receipt or typing not shown", room=self._room_id, reason=str(error))
        except Exception as error:
            log.error("showing receipt or typing failed", room=self._room_id, exc_info=error)

    async def _type_until(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await self._intent.typing(self._room_id, _TYPING_MS)
            await is_set(over, _REFRESH)
        await self._intent.typing(self._room_id, 0)
