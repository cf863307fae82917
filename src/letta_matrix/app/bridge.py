"""The bridge as a process: what it is made of, the ports around that, and its start and end."""

import asyncio
import contextlib
import gc
import os
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix import __version__
from letta_matrix.access.database import url_of_database
from letta_matrix.app.assembly import App
from letta_matrix.app.checks import NO_PING, watch_parts
from letta_matrix.app.connection import Connection
from letta_matrix.app.doors import Doors
from letta_matrix.app.health import Health
from letta_matrix.app.logs import configure_logging, secrets_of
from letta_matrix.app.metrics import Metrics
from letta_matrix.app.pulse import Ping, Reach, StorePulse
from letta_matrix.app.replicas import Replicas
from letta_matrix.app.seat import Seat
from letta_matrix.app.telemetry import check_telemetry, tracing_of
from letta_matrix.common.connections.descriptors import raise_limit
from letta_matrix.common.connections.listening import check_free, listen
from letta_matrix.common.vitals import said
from letta_matrix.common.waiting import ended_by_signal
from letta_matrix.config import Config
from letta_matrix.config.types import secret_of
from letta_matrix.matrix.appservice import Appservice
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.runtimes.adapters import make_runtime
from letta_matrix.runtimes.protocol import AgentRuntime
from letta_matrix.store.database import StoreUnavailable, file_of
from letta_matrix.store.turns import Turn, TurnStatus

log = structlog.get_logger()

_RESTART_PAUSE = 5.0
_STOPPING_TIMEOUT = 5.0
_HOUR = 3600.0

Work = Callable[[], Awaitable[None]]


class Bridge:
    """One bridge process. `start()` returns when it listens; the rest comes up behind it."""

    def __init__(
        self,
        config: Config,
        runtimes: list[AgentRuntime] | None = None,
        seat: Seat | None = None,
    ) -> None:
        epoch, sure = (0, None) if seat is None else (seat.epoch, seat.fence().sure)
        made = runtimes or [make_runtime(one, config, epoch, sure) for one in config.runtimes]
        app = self.app = App(config, {runtime.name: runtime for runtime in made}, seat)
        self._tracing = tracing_of(config, os.environ)
        service = config.appservice
        self.appservice = Appservice(
            service.hs_token.get_secret_value(), self, secret_of(service.earlier_hs_token)
        )
        self.connection = Connection(app, self.appservice)
        ping = Ping(config, app.homeserver)
        self._pulse = StorePulse(app.stores.database, ping, self.connection.echo.wanted.set)
        self._reach = Reach(
            ping,
            lambda: self.appservice.heard_at,
            lambda: self.connection.is_up and self.connection.pings,
            self.connection.echo,
        )
        self.health = Health(app, self.appservice, self.connection, self._reach)
        metrics = Metrics(app, self.appservice, self.health.is_ready).all()
        told, asked = self.health.told, self.health.asked_if_ready
        self._doors = Doors(config, app, told, asked, metrics)
        self._tasks: list[asyncio.Task[None]] = []
        self._opened = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Open the database and listen. Raises StoreError or PortTakenError, with all closed."""
        async with contextlib.AsyncExitStack() as opened:
            await self._open(opened)
            self._opened = opened.pop_all()
        for work in self._works():
            self._spawn(work)
        log.info("bridge started", version=__version__, bot=self.app.config.bot_user_id)

    @property
    def unsure(self) -> asyncio.Event:
        """Set when nobody could tell what is stored: all has to begin anew."""
        return self.app.stores.database.unsure

    async def drain(self, within: float) -> None:
        """Begin nothing any more, and let what no other replica could follow come to its end,
        `within` seconds at most."""
        self.health.is_draining = True
        await self.app.dispatcher.queues.drain(within, self._ends_with_us)

    def _ends_with_us(self, turn: Turn) -> bool:
        """Whether nobody else could follow a turn that runs, or say its end."""
        if turn.status is TurnStatus.REPLYING:
            return False
        agent = self.app.stores.directory.get(turn.agent_id)
        runtime = self.app.runtimes.get(agent.runtime) if agent is not None else None
        return runtime is not None and not runtime.capabilities.resume

    async def close(self) -> None:
        """Stop listening and let go; unfinished turns go on at the next start."""
        await self._opened.aclose()

    async def _open(self, opened: contextlib.AsyncExitStack) -> None:
        app, config = self.app, self.app.config
        opened.push_async_callback(app.stores.close)
        opened.push_async_callback(app.homeserver.close)
        if self._tracing is not None:
            opened.push_async_callback(self._tracing.close)
            self._tracing.attach(app)
        check_free(config.listens)
        await app.stores.open()
        if app.mirror is not None:
            # Behind everything that tells.
            opened.push_async_callback(app.mirror.close)
        app.offer_tools()
        for runtime in app.runtimes.values():
            opened.push_async_callback(runtime.close)
            await runtime.start()
        opened.push_async_callback(app.close)
        await app.dispatcher.recover()
        opened.push_async_callback(self._stop_tasks)
        opened.push_async_callback(self.appservice.close)
        at = config.appservice
        await listen(self.appservice.start, at.hostname, at.port)
        opened.push_async_callback(self._reach.close)
        opened.push_async_callback(self._doors.close)
        self._watch()
        await self._doors.open()

    def _watch(self) -> None:
        vitals = self.app.vitals
        vitals.watch("homeserver", lambda: self.connection.trouble)
        watch_parts(self.app, [self.appservice.connections, self._doors.connections])
        vitals.watch("reachability", lambda: self._reach.trouble)
        vitals.watch("ping", lambda: None if self.connection.pings else NO_PING)
        if (tracing := self._tracing) is not None:
            vitals.watch("traces", lambda: tracing.trouble)
        for one in self.app.listings.discoveries:
            vitals.watch(f"runtime {one.name}", lambda one=one: said(one.trouble))

    def _works(self) -> list[Work]:
        """What goes on as long as the bridge runs."""
        app = self.app
        works: list[Work] = [
            self.connection.run,
            self.connection.echo.run,
            app.sweep.run,
            app.dispatcher.prune,
            app.catch_up.beat,
            app.doubts.run,
            self._forget_calls,
            self._pulse.run,
            self._reach.run,
        ]
        if app.mirror is not None:
            works.append(app.mirror.run)
        if app.phone_line.watch is not None:
            works.append(app.phone_line.watch.run)
        works += [watch.run for watch in app.listings.watches.values() if watch is not None]
        agents: list[Work] = [app.provisioner.redecorate]
        agents += [discovery.run for discovery in app.listings.discoveries]
        return [*works, *map(self._once_connected, agents)]

    def _once_connected(self, work: Work) -> Work:
        async def later() -> None:
            await self.connection.begun.wait()
            await work()

        return later

    async def _stop_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.app.provisioner.close()

    async def admit(self, txn_id: str, events: list[dict[str, Any]]) -> None:
        """See `AppserviceHandler.admit`."""
        if (seat := self.app.seat) is not None and not seat.holds:
            # Now, so that whoever stands before us tries another replica.
            raise StoreUnavailable("it is not sure that this replica acts", "try again")
        await self.app.dispatcher.admit(txn_id, events)

    async def has_user(self, user_id: str) -> bool:
        """See `AppserviceHandler.has_user`."""
        agent = self.app.stores.directory.by_user(user_id)
        if agent is None:
            return False
        try:
            ghost = self.app.homeserver.acting_as(agent.user_id)
            await self.app.home.accounts.make(ghost)
        except (MatrixRequestError, HomeserverUnavailable) as error:
            log.warning("a ghost could not be registered", user=user_id, reason=str(error))
            return False
        return True

    def is_ready(self) -> bool:
        """See `Health.is_ready`."""
        return self.health.is_ready()

    async def _forget_calls(self) -> None:
        """Keep the audit log, every hour, to the days it is for."""
        while True:
            await self.app.stores.audit.prune(self.app.config.access.audit_days)
            await asyncio.sleep(_HOUR)

    def _spawn(self, work: Work) -> None:
        async def keep_going() -> None:
            while True:
                try:
                    await work()
                except StoreUnavailable as error:
                    log.warning("a part of the bridge needs the database", reason=str(error))
                except Exception as error:
                    log.error("a part of the bridge failed and starts again", exc_info=error)
                await asyncio.sleep(_RESTART_PAUSE)

        self._tasks.append(asyncio.create_task(keep_going()))


class _OnlyOne(Bridge):
    """The bridge of a process that is there for it alone."""

    async def start(self) -> None:
        await super().start()
        # What the start has made stays: the collector need not go through it again and again.
        gc.collect()
        gc.freeze()

    async def close(self) -> None:
        gc.unfreeze()
        await super().close()


async def run(config: Config, *, migrates: bool = False) -> None:
    """Run the bridge until SIGINT or SIGTERM. Raises StoreError or PortTakenError."""
    configure_logging(config.logging, secrets_of(config))
    raise_limit()
    stop = ended_by_signal()
    if file_of(url_of_database(config)) is None:
        # Now, and not when this replica is needed.
        check_telemetry(config)
        await Replicas(
            config, Seat(config, migrates=migrates), lambda seat: _OnlyOne(config, seat=seat)
        ).run(stop)
        return
    bridge = _OnlyOne(config)
    await bridge.start()
    await stop.wait()
    log.info("bridge stopping")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STOPPING_TIMEOUT):
            await bridge.close()
