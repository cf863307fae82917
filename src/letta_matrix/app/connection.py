"""The bridge and its homeserver: connected again and again, as long as the bridge runs."""

import asyncio
import time

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.app.assembly import App
from letta_matrix.app.echo import Echo
from letta_matrix.app.reach import AWAY, HANGS, NotReached, reach
from letta_matrix.common import clock
from letta_matrix.common.parts import part
from letta_matrix.common.vitals import Trouble
from letta_matrix.matrix.appservice import Appservice
from letta_matrix.matrix.errors import refused_request
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.matrix.watch import ServerState, until_back, until_gone
from letta_matrix.store.database import StoreUnavailable

log = structlog.get_logger()

_RETRY = 2.0
_CONNECTS_FOR = 3.0
"""Seconds after which somebody who asks is told that the homeserver is still waited for."""


@part
class Connection:
    """Whether the homeserver is there and knows us (`is_up`), and what follows from it: the agents
    are set up from the first time on (`begun`), and missed messages are looked for."""

    _app: App
    _appservice: Appservice

    def __post_init__(self) -> None:
        self.is_up = False
        self.pings = True
        """Whether the homeserver has a ping, by which it can be asked whether it reaches us."""
        app = self._app
        self.echo = Echo(
            app.home,
            self._appservice,
            app.config.appservice.url,
            lambda: self.pings if self.is_up else None,
            app.sweep.due.set,
        )
        app.catch_up.is_silent = lambda: self.echo.is_owed
        self.begun = asyncio.Event()
        self._away: Trouble | None = None
        self._since = clock.now()

    @property
    def trouble(self) -> Trouble | None:
        """Why there is none: what was found last, or what is waited for."""
        if self.is_up:
            return None
        homeserver = self._app.homeserver
        if self._away == AWAY and homeserver.foreign:
            # Who answers in its place can be reached.
            return Trouble(homeserver.foreign)
        waited = clock.now() - self._since
        if self._away or waited < _CONNECTS_FOR:
            return self._away
        request = homeserver.retries.longest
        return Trouble(
            f"the homeserver has not answered for {waited:.0f} s" + (request and f" ({request})"),
            "see whether it hangs, and whether homeserver.url leads to it; it is waited for",
        )

    async def run(self) -> None:
        """Connect, and again whenever the homeserver was away, for ever."""
        was_away = True
        while True:
            while (trouble := await self._try()) is not None:
                # Said once for each reason, not at every try.
                if trouble != self._away:
                    self._away = trouble
                    log.error("not connected to the homeserver", reason=str(trouble))
                await asyncio.sleep(_RETRY)
            self.is_up, self._away = True, None
            self.begun.set()
            log.info("connected to the homeserver", url=self._app.homeserver.url)
            if was_away:
                self._app.sweep.due.set()
            if was_away := await self._absence():
                self._app.home.decoration.anew()

    async def _absence(self) -> bool:
        """Wait until the homeserver was gone and is back; True if it was down, not just slow."""
        presence = await until_gone(self._app.homeserver)
        self.is_up = False
        self._away = HANGS if presence is ServerState.SLOW else AWAY
        log.warning("homeserver away", slow=presence is ServerState.SLOW)
        return ServerState.AWAY in (presence, await until_back(self._app.homeserver))

    async def _try(self) -> Trouble | None:
        """Why it fails, None where it does not."""
        app = self._app
        # The time is the cause: each start pings and wakes anew.
        transaction = txn_id("start", str(time.time_ns()))
        stored = self._appservice.counters["transactions"]
        try:
            self.pings = await reach(app.homeserver, app.config, transaction)
            await app.remembered.check()
            app.sweep.expect(self._appservice.expect(transaction))
            await self.echo.begin(transaction, stored)
            await app.lookout.prepare()
            if not app.provisioner.begun:
                await app.provisioner.begin()
        except MatrixRequestError as error:
            return Trouble(refused_request(error))
        except NotReached as error:
            return error.trouble
        except (HomeserverUnavailable, StoreUnavailable) as error:
            return Trouble(str(error))
        return None
