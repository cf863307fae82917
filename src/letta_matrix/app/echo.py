"""Whether what we send comes back: the one proof that a homeserver pushes to us.

A ping tells only that it could. Some have none (Dendrite), and some keep back what they failed to
deliver until another event comes, minutes after we are there again (Continuwuity).
"""

import asyncio
import math
import time
from collections.abc import Callable

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.agents.home import Home
from letta_matrix.common import clock
from letta_matrix.common.vitals import Trouble
from letta_matrix.matrix.appservice import Appservice
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.transactions import txn_id

log = structlog.get_logger()

_BEAT = 60.0
_PATIENCE = 90.0
"""Seconds; homeservers without a ping try again after a minute at the latest."""
_SILENCE = 900.0
"""Seconds after which one that has no ping is asked by an event, though nothing looks wrong."""


class Echo:
    """Sends an event into a room of ours at each connect, and again every minute until anything is
    pushed, and stored. `url` is ours, `pings` tells whether the homeserver has a ping, None while
    it is not connected; `sweep` has rooms looked through for what was missed."""

    def __init__(
        self,
        home: Home,
        appservice: Appservice,
        url: str,
        pings: Callable[[], bool | None],
        sweep: Callable[[], None],
    ) -> None:
        self._home = home
        self._appservice = appservice
        self._url = url
        self._pings = pings
        self._sweep = sweep
        self._sent_at = -math.inf

    @property
    def trouble(self) -> Trouble | None:
        """That nothing is pushed. What comes and cannot be stored is the database's trouble."""
        waited = clock.now() - self._sent_at
        if self._appservice.pushed_at >= self._sent_at or waited < _PATIENCE:
            return None
        return Trouble(
            f"the homeserver pushes nothing to us: what the bridge sent {waited:.0f} s ago has not "
            "come back. Messages are found by looking for them, every minute",
            f"see that it reaches {self._url}, the `url` of the registration that it reads; some "
            "homeservers wait for long after the bridge was away: restart it while the bridge runs",
        )

    async def send(self, transaction: str) -> None:
        """Send an event that has to come back. Raises MatrixRequestError, HomeserverUnavailable."""
        since = self._sent_at if self._is_owed else clock.now()
        if await self._home.wake(transaction):
            self._sent_at = since

    async def run(self) -> None:
        """Send again what is owed, for ever."""
        while True:
            await asyncio.sleep(_BEAT)
            if self._pings() is None or not self._is_due:
                continue
            if self.trouble is not None:
                self._sweep()
            try:
                await self.send(txn_id("echo", str(time.time_ns())))
            except (MatrixRequestError, HomeserverUnavailable) as error:
                log.info("not asked whether it pushes", reason=str(error))

    @property
    def _is_owed(self) -> bool:
        return self._sent_at > self._appservice.stored_at

    @property
    def _is_due(self) -> bool:
        since = max(self._appservice.stored_at, self._sent_at)
        return self._is_owed or (not self._pings() and clock.now() - since >= _SILENCE)
