"""A replica that stands by: its ports lead to the one that acts, and tell how it is itself."""

import asyncio
from collections.abc import Callable, Mapping

from letta_matrix import __version__
from letta_matrix.app.relay import Address, Relay
from letta_matrix.app.seat import PORTS, Seat
from letta_matrix.config import Config
from letta_matrix.doors.web.health import without_addresses
from letta_matrix.doors.web.listening import listen

_LOOK = 0.5
_IN_THE_LOG = "this replica cannot take over; its log says why"


class Standby:
    """The ports while another replica acts."""

    def __init__(self, config: Config, seat: Seat) -> None:
        self._config = config
        self._seat = seat
        self._relays = [Relay(self._way_to(name), self._told) for name in PORTS]

    async def open(self) -> None:
        """Listen where the bridge would. Raises PortTakenError."""
        for relay, (hostname, port) in zip(self._relays, self._config.listens, strict=False):
            await listen(relay.start, hostname, port)

    async def follow(self) -> None:
        """Whenever another replica acts, let go of what leads to the one before, for ever."""
        acts = self._seat.active
        while True:
            await asyncio.sleep(_LOOK)
            now = self._seat.active
            if acts is not None and (now is None or now.replica_id != acts.replica_id):
                for relay in self._relays:
                    await relay.cut()
            acts = now

    async def close(self) -> None:
        for relay in self._relays:
            await relay.close()

    def _way_to(self, name: str) -> Callable[[], Address | None]:
        def address() -> Address | None:
            active = self._seat.active
            if active is None or name not in active.ports:
                return None
            return active.host, active.ports[name]

        return address

    def _told(self, path: str) -> tuple[int, Mapping[str, object]]:
        """What `/health` and `/ready` say of a replica that stands by: ready as long as there is
        one to pass on to."""
        ready = self._seat.active is not None and self._seat.trouble is None
        if path == "/ready":
            return (200 if ready else 503), {"ready": ready}
        status = "ok" if ready else "degraded"
        replica = without_addresses(self._seat.told())
        told = {"status": status, "ready": ready, "version": __version__, "replica": replica}
        trouble = self._seat.trouble
        return 200, {**told, "troubles": [] if trouble is None else [_IN_THE_LOG]}
