"""The way from this replica to the homeserver: whether it has led there for a while, and in."""

import asyncio

import structlog

from letta_matrix.access.route import route_to
from letta_matrix.common import clock
from letta_matrix.config import Config
from letta_matrix.config.types import secret_of
from letta_matrix.matrix.watch import ServerState, look

log = structlog.get_logger()

_LONGEST_PAUSE = 5.0


class Way:
    """Looked at by each replica, whether it acts or not, so that they can be compared."""

    def __init__(self, config: Config) -> None:
        self.url, self.route = config.homeserver.url, route_to(config)
        self._bot = config.bot_user_id
        service, lease = config.appservice, config.replica.lease
        tokens = (service.as_token.get_secret_value(), secret_of(service.earlier_as_token))
        self._tokens = [token for token in tokens if token]
        self._while, self._pause = 2 * lease, min(_LONGEST_PAUSE, lease / 2)
        self._leads: bool | None = None
        self._since = 0.0

    @property
    def reaches(self) -> bool | None:
        """Whether it has led there at every look for as long as two leases last; False: at none;
        None: at some, or that long has not passed yet."""
        if self._leads is None or clock.now() - self._since < self._while:
            return None
        return self._leads

    def forget(self) -> None:
        """Begin to look anew, as who has not looked yet."""
        self._leads = None

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            asked_at = clock.now()
            leads = await self._found()
            if leads is not self._leads:
                self._leads, self._since = leads, asked_at
            await asyncio.sleep(self._pause)

    async def _found(self) -> bool:
        try:
            for token in self._tokens:
                if await look(self, token, self._bot) is ServerState.HERE:
                    return True
            return False
        except Exception as error:
            # Without a look it would stay as it was for ever.
            log.error("the homeserver could not be looked at", exc_info=error)
            return False
