"""Looks for missed messages: at the start, and after the homeserver had been away."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from letta_matrix.app.assembly import Parts
from letta_matrix.common.waiting import is_set
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.store.database import StoreUnavailable

log = structlog.get_logger()

_RETRY = 2.0
_BACKLOG_TIMEOUT = 30.0
_SETTING_UP_TIMEOUT = 600.0


class Sweep:
    """Looks for what was missed whenever it is `due`, once the homeserver has delivered what it
    kept; then whether all is as it was around the agents. `setting_up` tells whether agents are
    being set up now."""

    def __init__(self, parts: Parts, setting_up: Callable[[], bool]) -> None:
        self._parts = parts
        self._setting_up = setting_up
        self.due = asyncio.Event()
        self.backlog = asyncio.Event()
        """Set when the homeserver has delivered its backlog; another one for each connect."""

    async def run(self) -> None:
        """Go on for ever."""
        while True:
            await self.due.wait()
            self.due.clear()
            # After its backlog, or newer messages would be answered before older ones.
            await is_set(self.backlog, _BACKLOG_TIMEOUT)
            await self._agents_set_up()
            try:
                await self._parts.catch_up.run()
                await self._parts.surroundings.look_at_all()
                await self._parts.lookout.look_at_all()
                await self._parts.home.adorn()
            except (HomeserverUnavailable, StoreUnavailable) as error:
                log.warning("missed messages are looked for again later", reason=str(error))
                self.due.set()
                await asyncio.sleep(_RETRY)

    async def _agents_set_up(self) -> None:
        # Both at once are too much for a homeserver; one in trouble must not hold it up for ever.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTING_UP_TIMEOUT):
                while self._setting_up():  # noqa: ASYNC110
                    await asyncio.sleep(0.5)
