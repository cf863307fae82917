"""What the bridge asks of itself now and then, as nobody else may: whether it can write to its
database, and whether the homeserver reaches it."""

import asyncio
import math
import time
from collections.abc import Callable

import structlog

from letta_matrix.app.echo import Echo
from letta_matrix.app.reach import NotReached, ping, unanswered
from letta_matrix.common import clock
from letta_matrix.common.vitals import Trouble
from letta_matrix.common.waiting import is_set
from letta_matrix.config import Config
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.matrix.watch import ServerState, look
from letta_matrix.store.database import Database, StoreUnavailable
from letta_matrix.store.meta import Meta

log = structlog.get_logger()

_BEAT = 30.0
_RETRY = 1.0
_REACHED = 15.0
"""Seconds for which an answer holds."""
_UNREACHED = 2.0
_REACH_BEAT = 60.0
_PING_TIMEOUT = 5.0
_PATIENCE = 0.5
"""Seconds that whoever asks whether we are ready waits; probes have little time."""


class StorePulse:
    """Writes to the database every 30 s, and every second while that fails. When it can be
    written again the homeserver is asked for a ping, and `echo` for an event that comes back: it
    would wait longer and longer with what was refused meanwhile."""

    def __init__(self, database: Database, ping: "Ping", echo: Callable[[], None]) -> None:
        self._database = database
        self._meta = Meta(database)
        self._ping = ping
        self._echo = echo

    async def run(self) -> None:
        """Go on for ever."""
        outage = self._database.outage
        while True:
            failed = await is_set(outage, _BEAT)
            outage.clear()
            if not await self._can_write():
                await asyncio.sleep(_RETRY)
            elif failed:
                log.info("the database can be written again")
                self._echo()
                await self._ping.send()

    async def _can_write(self) -> bool:
        try:
            await self._meta.set("pulse", str(time.time()))
        except StoreUnavailable as error:
            log.error("the database cannot be written", reason=str(error))
            return False
        return True


class Ping:
    """Has the homeserver ping us (spec v1.7, MSC2659)."""

    def __init__(self, config: Config, homeserver: Homeserver) -> None:
        self._config = config
        self._homeserver = homeserver

    async def send(self) -> Trouble | None:
        """Why it does not reach us, with what to do; also None where the homeserver itself is
        away, which others notice and tell."""
        try:
            async with asyncio.timeout(_PING_TIMEOUT):
                await ping(self._homeserver, self._config, txn_id("ping", str(time.time_ns())))
        except NotReached as error:
            return await self._unless_away(error.trouble)
        except HomeserverUnavailable as error:
            unknown = f"it is not known whether we are reached: {error}"
            return await self._unless_away(Trouble(unknown))
        except TimeoutError:
            return await self._unless_away(unanswered(self._config.appservice.url))
        return None

    async def _unless_away(self, trouble: Trouble) -> Trouble | None:
        if await look(self._homeserver) is not ServerState.HERE:
            self._homeserver.outage.set()
            return None
        return trouble


class Reach:
    """Whether the homeserver reaches us: asked every minute, and when somebody wants to know, then
    not again for 15 s (2 s where it does not). Where it has just reached us nothing is asked.
    `heard_at` tells when it did, `pings` whether it is there and can be asked, `echo` whether what
    we send comes back."""

    def __init__(
        self, ping: Ping, heard_at: Callable[[], float], pings: Callable[[], bool], echo: Echo
    ) -> None:
        self._ping = ping
        self._heard_at = heard_at
        self._pings = pings
        self._echo = echo
        self._asked_at = -math.inf
        self._trouble: Trouble | None = None
        self._asking: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> Trouble | None:
        """Why it does not reach us, as far as is known."""
        return self._unreached or self._echo.trouble

    @property
    def _unreached(self) -> Trouble | None:
        return None if self._heard_at() > self._asked_at else self._trouble

    async def run(self) -> None:
        """Ask every minute, for ever."""
        while True:
            await asyncio.sleep(_REACH_BEAT)
            await self._ask()

    async def look(self) -> None:
        """Ask unless it is known, and wait half a second at most: what is not known by then is
        told to whoever asks next."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        await asyncio.wait({self._asking}, timeout=_PATIENCE)

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> None:
        if not self._pings() or self._is_known():
            return
        before, self._asked_at = self._unreached, clock.now()
        self._trouble = await self._ping.send()
        if self._trouble is not None and before is None:
            log.error("the homeserver does not reach the bridge", reason=str(self._trouble))

    def _is_known(self) -> bool:
        known = max(self._asked_at, self._heard_at())
        return clock.now() - known < (_REACHED if self._unreached is None else _UNREACHED)
