"""How the bridge is, as `/health` and `/ready` tell it."""

from collections.abc import Mapping
from dataclasses import asdict

from letta_matrix import __version__
from letta_matrix.app.assembly import App
from letta_matrix.app.connection import Connection
from letta_matrix.app.pulse import Reach
from letta_matrix.app.watched import watched_by
from letta_matrix.common import clock
from letta_matrix.common.parts import part
from letta_matrix.common.vitals import State, lines
from letta_matrix.matrix.appservice import Appservice


@part
class Health:
    """Asks the parts whenever somebody asks."""

    _app: App
    _appservice: Appservice
    _connection: Connection
    _reach: Reach

    def __post_init__(self) -> None:
        self._started = clock.now()
        self._was_ready = self.is_draining = False

    async def asked_if_ready(self) -> bool:
        """As `is_ready`, once the homeserver was asked whether it reaches us."""
        await self._reach.look()
        return self.is_ready()

    def is_ready(self) -> bool:
        """Whether the homeserver is connected and reaches us, as far as is known, and every
        listed agent is set up."""
        app, provisioner = self._app, self._app.provisioner
        return (
            not self.is_draining
            and (app.seat is None or app.seat.holds)
            and self._connection.is_up
            and self._reach.trouble is None
            and app.listings.complete
            and provisioner.begun
            and not provisioner.busy
        )

    def told(self) -> Mapping[str, object]:
        """What `/health` answers."""
        app, ready = self._app, self.is_ready()
        self._was_ready |= ready
        checks = app.vitals.checks()
        wrong = lines(checks, State.TROUBLE)
        return {
            "status": "degraded" if wrong else "ok" if self._was_ready else "starting",
            "version": __version__,
            "ready": ready,
            "uptime_seconds": round(clock.now() - self._started, 1),
            "troubles": wrong,
            "warnings": lines(checks, State.WARNING),
            "checks": [asdict(one) | {"watches": watched_by(one.name)} for one in checks],
            "agents": len(app.stores.directory.active()),
            "agents_in_trouble": app.troubles.all(),
            "turns_waiting": app.dispatcher.queues.waiting,
            "turns_refused": app.stores.inbox.refused,
            "homeserver_writes": app.homeserver.writes,
            "homeserver_latency_ms": round(app.homeserver.pacer.latency * 1000, 1),
            "counters": dict(app.dispatcher.counters + self._appservice.counters),
            "replica": None if app.seat is None else app.seat.told(),
            "runtimes": {name: dict(one.counters) for name, one in app.runtimes.items()},
        }
