"""Looks for missed messages: at the start, and after the homeserver had been away."""

import asyncio
import contextlib

import structlog

from letta_matrix.agents.home import Home
from letta_matrix.agents.provisioner import Provisioner
from letta_matrix.common.parts import part
from letta_matrix.common.waiting import is_set
from letta_matrix.conversations.catch_up import CatchUp
from letta_matrix.conversations.surroundings import Surroundings
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.portals.lookout import Lookout
from letta_matrix.store.database import StoreUnavailable

log = structlog.get_logger()

_RETRY = 2.0
_BACKLOG_TIMEOUT = 30.0
_SETTING_UP_TIMEOUT = 600.0


@part
class Sweep:
    """Looks for what was missed whenever it is `due`, once the homeserver has delivered what it
    kept; then whether all is as it was around the agents."""

    _catch_up: CatchUp
    _surroundings: Surroundings
    _lookout: Lookout
    _home: Home
    _provisioner: Provisioner

    def __post_init__(self) -> None:
        self.due = asyncio.Event()
        self._backlog = asyncio.Event()

    def expect(self, backlog: asyncio.Event) -> None:
        """The homeserver is connected again, and sets this when all it kept is delivered."""
        self._backlog = backlog

    async def run(self) -> None:
        """Go on for ever."""
        while True:
            await self.due.wait()
            self.due.clear()
            # After its backlog, or newer messages would be answered before older ones.
            await is_set(self._backlog, _BACKLOG_TIMEOUT)
            await self._agents_set_up()
            try:
                await self._catch_up.run()
                await self._surroundings.look_at_all()
                await self._lookout.look_at_all()
                await self._home.adorn()
            except (HomeserverUnavailable, StoreUnavailable) as error:
                log.warning("missed messages are looked for again later", reason=str(error))
                self.due.set()
                await asyncio.sleep(_RETRY)

    async def _agents_set_up(self) -> None:
        # Both at once are too much for a homeserver; one in trouble must not hold it up for ever.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTING_UP_TIMEOUT):
                while self._provisioner.working:  # noqa: ASYNC110
                    await asyncio.sleep(0.5)
