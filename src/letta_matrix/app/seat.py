"""The seat of the one replica that acts: who has it, and whether it is still ours."""

import asyncio
import secrets
import socket

import structlog
from sqlalchemy import URL

from letta_matrix import __version__
from letta_matrix.common import clock
from letta_matrix.common.vitals import Trouble
from letta_matrix.config import Config
from letta_matrix.store.database import (
    HEAD,
    Database,
    StoreError,
    StoreUnavailable,
    database_url,
)
from letta_matrix.store.faults import newer_schema
from letta_matrix.store.fence import Fence
from letta_matrix.store.leases import Lease, Leases, Replica

log = structlog.get_logger()

_LOOKS = 4
"""How often a lease is renewed in its time, and others look whether it has ended."""
_LONGEST_LOOK = 1.0
_WITH_REPLICAS = "0010"
_WAITS = Trouble(
    "the database is as replicas of an earlier version know it, so that this one does not act",
    "end those, or let `letta-matrix run --migrate` change it under them: they stand by then",
)
_SPARE = 0.15
"""The part of its time before whose end a holder stops by itself: the others' look, and what is on
its way to the homeserver, are not to overlap."""


PORTS = ("appservice", "api", "mcp", "mcp_websocket")
"""What the ports of a replica are for, in the order of `Config.listens`."""
STANDBY, STARTING, RUNNING, DRAINING = "standby", "starting", "active", "draining"
"""How a replica is: it passes on what comes, comes up, acts, or ends."""


class Seat:
    """Held by one replica at a time, through a lease in the database that it renews; whoever finds
    it free takes it. `won` and `lost` are set as that happens to us."""

    def __init__(self, config: Config, *, migrates: bool = False) -> None:
        self._migrates = migrates
        self._seconds = config.replica.lease
        self.database = Database(_url_of(config))
        self._leases = Leases(self.database)
        self._host = config.replica.address or _host_of(config)
        self._ports: dict[str, int] = dict(
            zip(PORTS, (port for _, port in config.listens), strict=False)
        )
        # Each start is another holder, so that each has an epoch of its own.
        self.replica_id = secrets.token_hex(4)
        self.state = STANDBY
        self.wants = True
        self.won, self.lost = asyncio.Event(), asyncio.Event()
        self.epoch = 0
        self.replicas: list[Replica] = []
        self.lease: Lease | None = None
        self._valid_until = 0.0
        self._renewed = asyncio.Event()
        self._failing: Trouble | None = None

    @property
    def holds(self) -> bool:
        """Whether it is ours, for sure: by our own clock, since the last renewal was asked for."""
        return self.epoch > 0 and clock.now() < self._valid_until

    async def sure(self) -> None:
        """Returns once it is ours, for sure; never where it is another's by then: whoever waits
        is to be ended."""
        while not self.holds:
            self._renewed.clear()
            await self._renewed.wait()

    def fence(self) -> Fence:
        """What every transaction of the bridge is to pass."""
        return Fence(self.epoch, self.sure)

    @property
    def active(self) -> Replica | None:
        """The replica that acts, as far as is known."""
        if self.lease is None or self.lease.left < 0:
            return None
        holder = self.lease.holder
        return next((one for one in self.replicas if one.replica_id == holder), None)

    def told(self) -> dict[str, object]:
        """How this replica is, and which there are, for operators."""
        lease = self.lease
        return {
            "replica": self.replica_id,
            "state": self.state,
            "epoch": 0 if lease is None else lease.epoch,
            "lease_seconds_left": 0.0 if lease is None else round(max(lease.left, 0.0), 1),
            "replicas": [
                {
                    "replica": one.replica_id,
                    "address": f"{one.host}:{one.ports.get('api')}",
                    "state": one.state,
                    "version": one.version,
                    "seen_seconds_ago": round(one.seen, 1),
                }
                for one in self.replicas
            ],
        }

    @property
    def trouble(self) -> Trouble | None:
        """Why it cannot be renewed, or looked for."""
        return self._failing

    async def open(self) -> None:
        """Open the database, and make the schema where there is none. Raises StoreError."""
        known = await self.database.revision()
        # Before there were replicas nobody can be told of any.
        await self.database.open(migrates=known is not None and known < _WITH_REPLICAS)
        await self.look()

    async def run(self) -> None:
        """Renew it, or look whether it is free, for ever."""
        pause = min(_LONGEST_LOOK, self._seconds / _LOOKS)
        while True:
            await self.look()
            await asyncio.sleep(pause)

    async def look(self) -> None:
        """Once; what is found stands in the attributes."""
        asked_at = clock.now()
        wanted = self._seconds if self.wants and not self.lost.is_set() else None
        try:
            beat = await self._leases.beat(self._told(), wanted)
            self.replicas = await self._leases.all()
            if beat.schema < HEAD and (self._migrates or not self._others()):
                await self.database.migrate()
        except StoreError as error:
            self._fail(error)
            return
        self._failing = self._misfit(beat.schema)
        self.lease = lease = beat.lease
        if self._failing is not None:
            self._lose()
            return
        if lease is None or lease.holder != self.replica_id:
            self._lose()
        elif wanted is not None:
            self._valid_until = asked_at + self._seconds * (1 - _SPARE)
            self.epoch, is_new = lease.epoch, self.epoch == 0
            self._renewed.set()
            if is_new:
                log.info("this replica acts from now on", replica=self.replica_id, epoch=self.epoch)
                self.won.set()

    def stand_by(self) -> None:
        """What was held is not held any more, and may be looked for again."""
        self.epoch, self._valid_until = 0, 0.0
        self.won.clear()
        self.lost.clear()

    async def let_go(self) -> None:
        """Leave it to another at once."""
        self.wants = False
        try:
            await self._leases.let_go(self.replica_id)
        except StoreUnavailable as error:
            log.warning("the seat is free only once its lease has ended", reason=str(error))
        self.stand_by()

    async def close(self) -> None:
        await self.database.close()

    def _others(self) -> list[Replica]:
        """The replicas beside this one that are there."""
        return [
            one
            for one in self.replicas
            if one.replica_id != self.replica_id and one.seen < self._seconds
        ]

    def _misfit(self, schema: str) -> Trouble | None:
        """Why this version cannot act on a schema, if it cannot."""
        if schema > HEAD:
            return newer_schema(schema, HEAD).trouble
        if schema < HEAD and self._others():
            return _WAITS
        return None

    def _told(self) -> Replica:
        return Replica(self.replica_id, self._host, self._ports, __version__, self.state)

    def _lose(self) -> None:
        if self.epoch and not self.lost.is_set():
            log.warning("another replica acts from now on", replica=self.replica_id)
            self._valid_until = 0.0
            self.lost.set()

    def _fail(self, error: StoreError) -> None:
        if self._failing is None:
            log.error("the database of the replicas cannot be used", reason=str(error))
        self._failing = error.trouble


def _url_of(config: Config) -> URL:
    settings = config.database
    return database_url(settings.url, config.directory, config.database_password)


def _host_of(config: Config) -> str:
    """Where other replicas reach this one, unless that is configured: on this machine where it
    listens for nobody else, by its name otherwise."""
    loopback = all(host in ("127.0.0.1", "localhost", "::1") for host, _ in config.listens)
    return "127.0.0.1" if loopback else socket.gethostname()
