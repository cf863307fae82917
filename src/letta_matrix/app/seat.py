"""The seat of the one replica that acts: who has it, and whether it is still ours."""

import asyncio
import secrets
import socket
from dataclasses import replace

import structlog

from letta_matrix import __version__
from letta_matrix.access.database import url_of_database
from letta_matrix.app.common_settings import common_settings
from letta_matrix.app.likeness import Likeness
from letta_matrix.app.way import Way
from letta_matrix.common.clock import since_boot
from letta_matrix.common.loopback import is_loopback
from letta_matrix.common.vitals import Trouble
from letta_matrix.config import Config
from letta_matrix.store.database import HEAD, Database, StoreError
from letta_matrix.store.faults import LeaseLost
from letta_matrix.store.fence import Fence
from letta_matrix.store.leases import Beat, Lease, Leases, Replica

log = structlog.get_logger()

_LOOKS = 4
"""How often a lease is renewed in its time, and others look whether it has ended."""
_LONGEST_LOOK = 1.0
_WITH_REPLICAS = "0010"
_SPARE = 0.15
"""The part of its time before whose end a holder stops by itself: the others' look, and what is on
its way to the homeserver, are not to overlap."""


PORTS = ("appservice", "api", "mcp", "mcp_websocket")
"""What the ports of a replica are for, in the order of `Config.listens`."""
STANDBY, STARTING, RUNNING, DRAINING = "standby", "starting", "active", "draining"
"""How a replica is: it passes on what comes, comes up, acts, or ends."""
SILENT = "silent"
"""How one is that nobody has heard of for the length of a lease."""


class Seat:
    """Held by one replica at a time, through a lease in the database that it renews; whoever finds
    it free takes it. `won` and `lost` are set as that happens to us; `outdone` once we are not to
    act any more, as another reaches the homeserver, and we do not."""

    def __init__(self, config: Config, *, migrates: bool = False) -> None:
        self._migrates = migrates
        self._seconds = config.replica.lease
        self.database = Database(url_of_database(config))
        domain, settings = config.homeserver.domain, common_settings(config)
        self._leases = Leases(self.database, domain, settings)
        self._likeness = Likeness(domain, settings)
        self.way = Way(config)
        self._host = config.replica.address or _host_of(config)
        self._ports: dict[str, int] = dict(
            zip(PORTS, (port for _, port in config.listens), strict=False)
        )
        # Each start is another holder, so that each has an epoch of its own.
        self.replica_id = secrets.token_hex(4)
        self.state = STANDBY
        self.wants = True
        self.won, self.lost, self.outdone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.epoch = 0
        self._found: list[Replica] = []
        self.lease: Lease | None = None
        self._found_at = self._valid_until = 0.0
        self._changed = asyncio.Event()
        self.trouble: Trouble | None = None
        """Why it cannot be renewed, or looked for."""

    @property
    def holds(self) -> bool:
        """Whether it is ours, for sure: by our own clock, since the last renewal was asked for."""
        return self.epoch > 0 and not self.lost.is_set() and since_boot() < self._valid_until

    async def sure(self, epoch: int) -> float:
        """Returns once the seat is ours for sure, in this epoch: until when, by the event loop's
        clock. Raises LeaseLost once it is another's, or of another epoch."""
        while not self.holds or self.epoch != epoch:
            if self.lost.is_set() or self.epoch != epoch:
                raise LeaseLost
            self._changed.clear()
            await self._changed.wait()
        return asyncio.get_running_loop().time() + self._valid_until - since_boot()

    def fence(self) -> Fence:
        """What every transaction of the bridge is to pass, as long as it is of this epoch."""
        epoch = self.epoch
        return Fence(self.replica_id, epoch, lambda: self.sure(epoch))

    @property
    def active(self) -> Replica | None:
        """The other replica that acts, as far as is known."""
        lease = self.lease
        if lease is None or self._left < 0 or lease.holder == self.replica_id:
            return None
        return next((one for one in self._found if one.replica_id == lease.holder), None)

    @property
    def replicas(self) -> list[Replica]:
        """Those that the last look found, as they are by now if nothing was heard of them since."""
        age = since_boot() - self._found_at
        return [self._by_now(replace(one, seen=one.seen + age)) for one in self._found]

    @property
    def _left(self) -> float:
        """For how many more seconds the lease that is known goes on; negative: it has ended."""
        return 0.0 if self.lease is None else self.lease.left - (since_boot() - self._found_at)

    def told(self) -> dict[str, object]:
        """How this replica is, and which there are, for operators."""
        lease = self.lease
        return {
            "replica": self.replica_id,
            "state": self.state,
            "epoch": 0 if lease is None else lease.epoch,
            "lease_seconds_left": round(max(self._left, 0.0), 1),
            "replicas": [
                {
                    "replica": one.replica_id,
                    "address": f"{one.host}:{one.ports.get('api')}",
                    "state": one.state,
                    "version": one.version,
                    "seen_seconds_ago": round(one.seen, 1),
                    "reaches_homeserver": one.reaches,
                }
                for one in self.replicas
            ],
        }

    @property
    def differs(self) -> list[str]:
        """The sections of the configuration that the replica that acts has otherwise."""
        return self._likeness.differs

    async def open(self) -> None:
        """Open the database, and make the schema where there is none. Raises StoreError."""
        known = await self.database.revision()
        # Before there were replicas nobody can be told of any.
        await self.database.open(migrates=known is not None and known < _WITH_REPLICAS)
        await self.look()

    async def run(self) -> None:
        """Renew it, or look whether it is free, and to the homeserver, for ever."""
        await asyncio.gather(self._keep_looking(), self.way.run())

    async def _keep_looking(self) -> None:
        pause = min(_LONGEST_LOOK, self._seconds / _LOOKS)
        while True:
            try:
                await self.look()
            except Exception as error:
                # Without a look nobody would ever take over.
                log.error("the seat could not be looked at", exc_info=error)
            if self.epoch and since_boot() > self._valid_until + self._seconds:
                # Another may act for long by now.
                self._lose()
            await asyncio.sleep(pause)

    async def look(self) -> None:
        """Once; what is found stands in the attributes."""
        asked_at, epoch = since_boot(), self.epoch
        wanted = self._seconds if self._may_have_it() else None
        try:
            beat = await self._leases.beat(self._told(), wanted, epoch)
            found = await self._leases.all()
            if self.epoch != epoch:
                # Let go of meanwhile: what was found is of the time before.
                return
            self._found, self.lease, self._found_at = found, beat.lease, asked_at
            if beat.schema < HEAD and (self._migrates or not self._others()):
                await self.database.migrate()
            self._note(self._misfit(beat))
            self._likeness.compare(beat.settings, acts=self.epoch > 0)
            if self.trouble is not None and self.epoch:
                await self._leases.release(self.replica_id)
        except StoreError as error:
            self._fail(error)
            return
        lease = beat.lease
        if self.trouble is not None or lease is None or lease.holder != self.replica_id:
            self._lose()
        elif self.epoch not in (0, lease.epoch):
            # Another has acted meanwhile: what acts here is of an epoch that is over.
            self._lose()
        elif wanted is not None and self.wants:
            self._renew(lease, asked_at)
            self._compare()

    def _may_have_it(self) -> bool:
        """Whether we hold it, or it is for us if it is free."""
        if not self.wants or self._likeness.is_foreign:
            return False
        if self.epoch:
            return not self.lost.is_set()
        return bool(self.way.reaches or not self._is_one_better())

    def _compare(self) -> None:
        if self.way.reaches is False and self._is_one_better() and not self.outdone.is_set():
            log.warning(
                "the homeserver is not reached from here, and is from another replica: that one "
                "is to act",
                replica=self.replica_id,
            )
            self.outdone.set()

    def _is_one_better(self) -> bool:
        """Whether another one that could act reaches the homeserver, as far as is known."""
        return any(one.reaches for one in self._others())

    def _renew(self, lease: Lease, asked_at: float) -> None:
        self._valid_until = asked_at + self._seconds * (1 - _SPARE)
        self.epoch, is_new = lease.epoch, self.epoch == 0
        self._changed.set()
        if is_new:
            log.info("this replica acts from now on", replica=self.replica_id, epoch=self.epoch)
            self.won.set()

    def stand_by(self) -> None:
        """What was held is not held any more, and may be looked for again."""
        self.epoch, self._valid_until = 0, 0.0
        if self.lease is not None and self.lease.holder == self.replica_id:
            self.lease = None
        self._changed.set()
        self.won.clear()
        self.lost.clear()
        self.outdone.clear()

    async def let_go(self, *, for_good: bool = True) -> None:
        """Leave it to another at once; whoever takes it next has another epoch."""
        self.wants = False
        try:
            if for_good:
                await self._leases.let_go(self.replica_id)
            else:
                await self._leases.release(self.replica_id)
        except StoreError as error:
            log.warning("the seat is free only once its lease has ended", reason=str(error))
        self.stand_by()

    async def close(self) -> None:
        await self.database.close()

    def _others(self) -> list[Replica]:
        """The replicas beside this one that are there."""
        # As they were found: what no look could ask for makes nobody silent who may take over.
        others = (one for one in self._found if one.replica_id != self.replica_id)
        return [one for one in others if one.seen <= self._seconds]

    def _by_now(self, one: Replica) -> Replica:
        lease = self.lease
        held = lease is not None and lease.holder == one.replica_id
        is_over = held and one.state == RUNNING and self._left < 0
        return replace(one, state=SILENT) if is_over or one.seen > self._seconds else one

    def _misfit(self, beat: Beat) -> Trouble | None:
        """Why this replica is not to act on this database, if it is not."""
        known = [one for one in self._found if one.replica_id != self.replica_id]
        acts, alone = self.epoch > 0, not self._others()
        return self._likeness.misfit(beat, known, self._found_at, acts=acts, alone=alone)

    def _told(self) -> Replica:
        # One that acts is compared by itself; of one that could not act nobody is to expect it.
        tells = self.state == STANDBY and self.wants and self.trouble is None
        reaches = self.way.reaches if tells else None
        one = Replica(self.replica_id, self._host, self._ports, __version__, self.state)
        return replace(one, reaches=reaches)

    def _lose(self) -> None:
        if self.epoch and not self.lost.is_set():
            log.warning("this replica does not act any more", replica=self.replica_id)
            self.lost.set()
            self._changed.set()

    def _note(self, misfit: Trouble | None) -> None:
        if misfit not in (None, self.trouble):
            log.error("this replica does not act on this database", reason=str(misfit))
        self.trouble = misfit

    def _fail(self, error: StoreError) -> None:
        if self.trouble is None:
            log.error("the database of the replicas cannot be used", reason=str(error))
        self.trouble = error.trouble


def _host_of(config: Config) -> str:
    """Where other replicas reach this one, unless that is configured: on this machine where it
    listens for nobody else, by its name otherwise."""
    is_local = all(is_loopback(host) for host, _ in config.listens)
    return "127.0.0.1" if is_local else socket.gethostname()
