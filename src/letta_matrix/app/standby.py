"""A replica that stands by: its ports lead to the one that acts, and tell how it is itself."""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from letta_matrix import __version__
from letta_matrix.access.guard import Guard, api_guard, mcp_guard
from letta_matrix.app.relay import Address, Answer, Relay
from letta_matrix.app.request_head import Headers
from letta_matrix.app.seat import DRAINING, PORTS, RUNNING, Seat
from letta_matrix.common.connections.admission import Connections
from letta_matrix.common.connections.descriptors import kept_connections, most_connections
from letta_matrix.common.connections.listening import PortTakenError, listen
from letta_matrix.common.connections.unreached import why_unreached
from letta_matrix.config import Config
from letta_matrix.doors.web.health import answer
from letta_matrix.store.leases import Replica

log = structlog.get_logger()

_LOOK = 0.5
_PROBE, _PROBE_TIMEOUT = 4.0, 3.0
_IN_THE_LOG = "this replica cannot take over; its log says why"
_NOBODY = "no replica acts, or its ports are not open yet"
_CUT_OFF = (
    "this replica does not reach the homeserver, or is not let in there as who it is (its "
    "as_token, homeserver.domain, appservice.bot_username); it does not act while another one does"
)
_ONE_ADDRESS = (
    "the replica that acts has the address of this one, so that nothing is passed on to it: set "
    "`replica.address` in the config.yaml of each"
)
_OTHER_SETTINGS = (
    "the config.yaml of this replica, or what it is given by the environment, is not that of the "
    "one that acts, in {}: make them the same, and restart what is changed"
)
_NOT_REACHED = (
    "the replica that acts is not reached from here, so that nothing is passed on to it: see "
    "`replica.address` in its config.yaml, and what is in between; the log here has the address"
)


class Standby:
    """The ports while another replica acts."""

    def __init__(self, config: Config, seat: Seat) -> None:
        self._config = config
        self._seat = seat
        self._unreached = ""
        # Each has another one behind it, to the replica that acts.
        self._many = Connections(most_connections() // 2)
        self._kept = Connections(kept_connections())
        own = self._own(config)
        self._relays = [
            Relay(
                self._way_to(name),
                own.get(name, {}),
                self._kept if name == "appservice" else self._many,
            )
            for name in PORTS
        ]

    async def open(self) -> None:
        """Listen where the bridge would. Raises PortTakenError."""
        try:
            for relay, (hostname, port) in zip(self._relays, self._config.listens, strict=False):
                await listen(relay.start, hostname, port)
        except PortTakenError:
            await self.close()
            raise

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

    async def probe(self) -> None:
        """Look whether the ports of the one that acts are reached from here, for ever."""
        missed = ""
        while True:
            acts = self._acts()
            why = "" if acts is None or not _is_open(acts) else await _why_missed(acts)
            before, missed = missed, "" if acts is None or not why else acts.replica_id
            # One connection that fails is not to turn people away who would be served.
            lost = missed if missed == before else ""
            if lost and lost != self._unreached:
                log.warning("the replica that acts is not reached", reason=why)
            self._unreached = lost
            await asyncio.sleep(_PROBE)

    async def close(self) -> None:
        for relay in self._relays:
            await relay.close()

    def _own(self, config: Config) -> dict[str, dict[str, Answer]]:
        """What is answered here, by port and path: where the bridge itself has it."""
        health = {"/health": self._health(mcp_guard(config))}
        api = {"/health": self._health(api_guard(config)), "/ready": self._ready}
        return {"api": api, "mcp": health, "mcp_websocket": health}

    def _way_to(self, name: str) -> Callable[[], Address | None]:
        def address() -> Address | None:
            acts = self._acts()
            return None if acts is None or name not in acts.ports else (acts.host, acts.ports[name])

        return address

    def _acts(self) -> Replica | None:
        """The replica that acts, where that is another one."""
        active = self._seat.active
        if active is None or active.replica_id == self._seat.replica_id or self._is_here(active):
            return None
        return active

    def _is_here(self, replica: Replica) -> bool:
        """Whether a replica has the address of this one."""
        ours = (one for one in self._seat.replicas if one.replica_id == self._seat.replica_id)
        return any((one.host, one.ports) == (replica.host, replica.ports) for one in ours)

    @property
    def is_ready(self) -> bool:
        """Whether there is one to pass on to, whatever else is wrong here."""
        acts = self._acts()
        return acts is not None and _is_open(acts) and acts.replica_id != self._unreached

    def _ready(self, _headers: Headers) -> tuple[int, Mapping[str, object]]:
        return (200 if self.is_ready else 503), {"ready": self.is_ready}

    def _health(self, guard: Guard) -> Answer:
        def told(headers: Headers) -> tuple[int, Mapping[str, object]]:
            return 200, answer(self._report(), known=guard.knows({"headers": headers}))

        return told

    def _report(self) -> dict[str, object]:
        troubles = self._troubles()
        return {
            "status": "degraded" if troubles else "ok",
            "ready": self.is_ready,
            "version": __version__,
            "replica": self._seat.told(),
            "troubles": troubles,
        }

    def _troubles(self) -> list[str]:
        seat, found = self._seat, [*self._many.troubles, *self._kept.troubles]
        if seat.trouble is not None:
            found.append(_IN_THE_LOG)
        if seat.way.reaches is False:
            found.append(_CUT_OFF)
        if seat.differs:
            found.append(_OTHER_SETTINGS.format(", ".join(seat.differs)))
        active = seat.active
        if active is not None and active.replica_id != seat.replica_id and self._is_here(active):
            found.append(_ONE_ADDRESS)
        elif active is not None and active.replica_id == self._unreached:
            found.append(_NOT_REACHED)
        elif not self.is_ready:
            found.append(_NOBODY)
        return found


async def _why_missed(replica: Replica) -> str:
    """Why one of a replica's ports is not reached, and which; "" where all are."""
    for port in replica.ports.values():
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                _, writer = await asyncio.open_connection(replica.host, port)
        except (OSError, TimeoutError, UnicodeError) as error:
            return f"{replica.host}:{port}: {why_unreached(error)}"
        writer.close()
    return ""


def _is_open(acts: Replica) -> bool:
    """Whether the ports of one that acts are open."""
    return acts.state in (RUNNING, DRAINING)
