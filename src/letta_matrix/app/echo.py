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
from letta_matrix.common.waiting import is_set
from letta_matrix.matrix.appservice import Appservice
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.transactions import txn_id

log = structlog.get_logger()

_BEAT = 60.0
_PATIENCE = 90.0
"""Seconds; homeservers without a ping try again after a minute at the latest."""
_LONGEST = 900.0
"""Seconds that are waited in the end, with what is sent in vain."""
_SILENCE, _LONG_SILENCE = 900.0, 3600.0
"""Seconds after which it is asked by an event, though nothing looks wrong; the longer where it
has a ping."""


class Echo:
    """Sends an event into a room of ours at each connect, where the homeserver was silent for
    long, and once something is `wanted`; and again, less and less often, until anything is pushed,
    and stored. `url` is ours, `pings` tells whether the homeserver has a ping, None while it is
    not connected; `sweep` has rooms looked through for what was missed."""

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
        self.wanted = asyncio.Event()
        self._sent_at = self._last_at = self._begun_at = self._looked_for = -math.inf
        self._pause, self._stored = _BEAT, 0

    @property
    def trouble(self) -> Trouble | None:
        """That nothing is pushed. What comes and cannot be stored is the database's trouble."""
        waited = clock.now() - self._sent_at
        if self._pings() is None or not self.is_owed or waited < _PATIENCE:
            return None
        return Trouble(
            f"the homeserver pushes nothing to us: what the bridge sent {waited:.0f} s ago has not "
            "come back. Messages are found by looking for them, minutes late",
            f"see that it reaches {self._url}, the `url` of the registration that it reads; some "
            "homeservers wait for long after the bridge was away: restart it while the bridge runs",
        )

    @property
    def is_owed(self) -> bool:
        """Whether nothing has come since the first of what was sent in vain."""
        return self._sent_at > self._appservice.pushed_at

    async def begin(self, transaction: str, stored: int) -> None:
        """Send the event of a connect, before which so many transactions were stored: nobody owed
        anything before. Raises MatrixRequestError, HomeserverUnavailable."""
        self._begun_at, self._stored = clock.now(), stored
        self._sent_at, self._pause = -math.inf, _BEAT
        await self._send(transaction)

    async def run(self) -> None:
        """Send again what is owed, for ever."""
        while True:
            is_wanted = await is_set(self.wanted, _BEAT)
            self.wanted.clear()
            self._look_for_forgotten()
            if not self._is_needed:
                self._pause = _BEAT
            if self._pings() is None or not (is_wanted or self._is_due):
                continue
            if self.trouble is not None:
                self._sweep()
            if self._is_needed:
                self._pause = min(2 * self._pause, _LONGEST)
            try:
                await self._send(txn_id("echo", str(time.time_ns())))
            except (MatrixRequestError, HomeserverUnavailable) as error:
                log.info("not asked whether it pushes", reason=str(error))

    async def _send(self, transaction: str) -> None:
        now = clock.now()
        since = self._sent_at if self.is_owed else now
        if await self._home.wake(transaction):
            self._sent_at, self._last_at = since, now

    def _look_for_forgotten(self) -> None:
        """What is written just as Synapse has delivered all that it kept for us, it may put aside
        as one of those, and send with the next that it keeps (seen in 1.163): days later."""
        service = self._appservice
        kept_at = max(self._begun_at, service.refused_at)
        is_over = kept_at < service.stored_at and clock.now() - kept_at >= _BEAT
        if is_over and kept_at > self._looked_for:
            self._looked_for = kept_at
            # Where a connect has brought nothing but our own event, nothing was kept.
            if kept_at > self._begun_at or service.counters["transactions"] > self._stored + 1:
                self._sweep()

    @property
    def _is_needed(self) -> bool:
        """Whether something is owed, or kept back there because we refused it."""
        return self.is_owed or self._appservice.refused_at > self._appservice.stored_at

    @property
    def _is_due(self) -> bool:
        if self._is_needed:
            return clock.now() - self._last_at >= self._pause
        silence = clock.now() - max(self._appservice.pushed_at, self._last_at)
        return silence >= (_LONG_SILENCE if self._pings() else _SILENCE)
