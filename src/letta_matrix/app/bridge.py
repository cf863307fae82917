"""The bridge as a whole: builds the parts, connects them, starts and stops them."""

import asyncio
import contextlib
import gc
import re
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

import structlog
from mautrix.api import ClientPath, Method
from mautrix.errors import MatrixRequestError

from letta_matrix import __version__
from letta_matrix.access.mirror import AuditMirror
from letta_matrix.agents.provisioner import Provisioner
from letta_matrix.agents.server_help import server_help
from letta_matrix.app.assembly import Parts
from letta_matrix.app.checks import AWAY, waits_for, watch_parts
from letta_matrix.app.doors import Doors
from letta_matrix.app.logs import configure_logging, secrets_of
from letta_matrix.app.pulse import Ping, Reach, StorePulse
from letta_matrix.app.stores import Stores
from letta_matrix.app.sweep import Sweep
from letta_matrix.common import clock
from letta_matrix.common.connections.descriptors import raise_limit
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.vitals import State, Trouble, Vitals, lines, said
from letta_matrix.config import Config
from letta_matrix.doors.web.listening import check_free, listen
from letta_matrix.matrix import answers
from letta_matrix.matrix.appservice import Appservice
from letta_matrix.matrix.errors import refused_request
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.reach import reach
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.matrix.watch import Presence, until_back, until_gone
from letta_matrix.runtimes.adapters import make_runtime
from letta_matrix.runtimes.protocol import AgentRuntime
from letta_matrix.store.agents import AgentStatus
from letta_matrix.store.database import StoreUnavailable

log = structlog.get_logger()

_RETRY_HOMESERVER = 2.0
_RESTART_PAUSE = 5.0
_STOPPING_TIMEOUT = 5.0
_HOMESERVER = "homeserver"
_HANGS = "the homeserver hangs: it takes connections, and gives no answer in 5 s"
_DEFAULT_ROOM_VERSION = 10
_VERSION = re.compile(r"[0-9]{1,3}")
_HOUR = 3600.0


class Bridge:
    """One bridge process. `start()` returns when it listens; the rest comes up behind it."""

    def __init__(self, config: Config, runtimes: list[AgentRuntime] | None = None) -> None:
        self._config = config
        self._stores = Stores(config)
        self._runtimes = {
            runtime.name: runtime
            for runtime in (runtimes or [make_runtime(entry, config) for entry in config.runtimes])
        }
        self._tasks: list[asyncio.Task[None]] = []
        self._provisioner: Provisioner | None = None
        self._connected = False
        self._was_ready = False
        self._connecting_since = clock.now()
        self._away = ""
        self.vitals = Vitals()
        self._opened = contextlib.AsyncExitStack()
        self._started = clock.now()

    async def start(self) -> None:
        """Open the database and listen. Raises StoreError or PortTakenError, with all closed."""
        async with contextlib.AsyncExitStack() as opened:
            await self._open(opened)
            self._opened = opened.pop_all()
        self._spawn(self._connect)
        self._spawn(self._sweep.run)
        self._spawn(self._parts.dispatcher.prune)
        self._spawn(self._parts.catch_up.beat)
        self._spawn(self._parts.doubts.run)
        self._spawn(self._forget_calls)
        self._spawn(self._store_pulse.run)
        self._spawn(self._reach.run)
        if self._mirror is not None:
            self._spawn(self._mirror.run)
        for watch in self._parts.listings.watches.values():
            if watch is not None:
                self._spawn(watch.run)

    async def close(self) -> None:
        """Stop listening and let go; unfinished turns go on at the next start."""
        await self._opened.aclose()

    async def _open(self, opened: contextlib.AsyncExitStack) -> None:
        config = self._config
        check_free(config.listens)
        opened.push_async_callback(self._stores.close)
        await self._stores.open()
        parts = self._parts = Parts(
            config, self._stores, self._runtimes, self.vitals, self._trouble_of
        )
        opened.push_async_callback(parts.homeserver.close)
        self._mirror = _mirror(config, parts, opened)
        self._sweep = Sweep(parts, self._setting_up)
        parts.offer_tools()
        for runtime in self._runtimes.values():
            opened.push_async_callback(runtime.close)
            await runtime.start()
        opened.push_async_callback(parts.close)
        await parts.dispatcher.recover()
        opened.push_async_callback(self._stop_tasks)
        self._appservice = Appservice(config.appservice.hs_token.get_secret_value(), self)
        opened.push_async_callback(self._appservice.close)
        await listen(self._appservice.start, config.appservice.hostname, config.appservice.port)
        ping = Ping(config, parts.homeserver)
        self._store_pulse = StorePulse(self._stores.database, ping)
        self._reach = Reach(ping, lambda: self._appservice.heard_at, lambda: self._connected)
        opened.push_async_callback(self._reach.close)
        doors = Doors(config, parts, self.health, self._asked_if_ready)
        opened.push_async_callback(doors.close)
        connections = [self._appservice.connections, doors.connections]
        self.vitals.watch(_HOMESERVER, self._not_connected)
        watch_parts(self.vitals, parts, connections, self._provisioning)
        self.vitals.watch("reachability", lambda: self._reach.trouble)
        await doors.open()

    async def _stop_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._provisioner is not None:
            await self._provisioner.close()

    async def admit(self, txn_id: str, events: list[dict[str, Any]]) -> None:
        """See `AppserviceHandler.admit`."""
        await self._parts.dispatcher.admit(txn_id, events)

    async def has_user(self, user_id: str) -> bool:
        """See `AppserviceHandler.has_user`."""
        agent = self._stores.directory.by_user(user_id)
        if agent is None:
            return False
        try:
            await self._parts.home.accounts.make(self._parts.homeserver.acting_as(agent.user_id))
        except (MatrixRequestError, HomeserverUnavailable) as error:
            log.warning("a ghost could not be registered", user=user_id, reason=str(error))
            return False
        return True

    async def has_alias(self, alias: str) -> bool:
        """See `AppserviceHandler.has_alias`; aliases are made with their rooms, never on demand."""
        return False

    async def _asked_if_ready(self) -> bool:
        await self._reach.look()
        return self.is_ready()

    def is_ready(self) -> bool:
        """Whether the homeserver is connected and reaches us, as far as is known, and every
        listed agent is set up."""
        return (
            self._connected
            and self._reach.trouble is None
            and self._agents_known()
            and self._provisioner is not None
            and not self._provisioner.busy
        )

    def _agents_known(self) -> bool:
        # A runtime that is away keeps nobody waiting who lives elsewhere.
        discoveries = self._parts.listings.discoveries
        listed = not discoveries or any(one.listed for one in discoveries)
        return listed and all(one.settled for one in discoveries)

    def health(self) -> Mapping[str, object]:
        """What `/health` answers."""
        ready = self.is_ready()
        self._was_ready |= ready
        checks = self.vitals.checks()
        wrong = lines(checks, State.TROUBLE)
        active = [a for a in self._stores.directory.all() if a.status is AgentStatus.ACTIVE]
        return {
            "status": "degraded" if wrong else "ok" if self._was_ready else "starting",
            "version": __version__,
            "ready": ready,
            "uptime_seconds": round(clock.now() - self._started, 1),
            "troubles": wrong,
            "warnings": lines(checks, State.WARNING),
            "checks": [asdict(check) for check in checks],
            "agents": len(active),
            # A room in which an agent is mute is its people's affair: the bridge works.
            "agents_in_trouble": {
                **self._parts.voices.troubles,
                **self._parts.remembered.troubles,
                **self._provisioning(),
            },
            "turns_waiting": self._parts.dispatcher.queues.waiting,
            "turns_refused": self._stores.inbox.refused,
            "homeserver_writes": self._parts.homeserver.writes,
            "homeserver_latency_ms": round(self._parts.homeserver.pacer.latency * 1000, 1),
            "counters": dict(self._parts.dispatcher.counters + self._appservice.counters),
            "runtimes": {name: dict(one.counters) for name, one in self._runtimes.items()},
        }

    def _provisioning(self) -> Mapping[str, str]:
        return self._provisioner.trouble if self._provisioner else {}

    def _setting_up(self) -> bool:
        return self._provisioner is not None and self._provisioner.working

    def _trouble_of(self, agent_id: str) -> str:
        why = self._provisioning().get(agent_id) or self._parts.remembered.troubles.get(agent_id)
        return why or self._parts.voices.trouble_of(agent_id)

    async def _connect(self) -> None:
        was_away = True
        while True:
            while (reason := await self._try_connect()) is not None:
                # Said once for each reason, not at every try.
                if reason != self._away:
                    self._away = reason
                    log.error("not connected to the homeserver", reason=reason)
                await asyncio.sleep(_RETRY_HOMESERVER)
            self._connected, self._away = True, ""
            log.info("connected to the homeserver", url=self._config.homeserver.url)
            if was_away:
                self._sweep.due.set()
            if was_away := await self._absence():
                self._parts.home.decoration.anew()

    async def _absence(self) -> bool:
        """Wait until the homeserver was gone and is back; True if it was down, not just slow."""
        presence = await until_gone(self._parts.homeserver)
        self._connected = False
        self._away = _HANGS if presence is Presence.SLOW else AWAY
        log.warning("homeserver away", slow=presence is Presence.SLOW)
        return Presence.AWAY in (presence, await until_back(self._parts.homeserver))

    def _not_connected(self) -> Trouble | None:
        if self._connected:
            return None
        return waits_for(self._parts.homeserver, self._away, self._connecting_since)

    async def _try_connect(self) -> str | None:
        # The time is the cause: each start pings and wakes anew.
        transaction = txn_id("start", str(time.time_ns()))
        try:
            await reach(self._parts.homeserver, self._config, transaction)
            await self._parts.remembered.check()
            self._sweep.backlog = self._appservice.expect(transaction)
            await self._parts.home.wake(transaction)
            await self._parts.lookout.prepare()
            if self._provisioner is None:
                await self._start_agents()
        except MatrixRequestError as error:
            return refused_request(error)
        except (HomeserverUnavailable, StoreUnavailable) as error:
            return str(error)
        return None

    async def _forget_calls(self) -> None:
        """Keep the audit log, every hour, to the days it is for."""
        while True:
            await self._stores.audit.prune(self._config.access.audit_days)
            await asyncio.sleep(_HOUR)

    async def _start_agents(self) -> None:
        provisioner = Provisioner(
            self._config,
            self._parts.homeserver,
            self._stores.directory,
            self._parts.home,
            self._parts.remembered,
            server_help(self._config, self._parts.homeserver, self._stores.passwords),
            self._config.agents.room_version or await self._default_room_version(),
            self._parts.dispatcher.room_known,
        )
        self._provisioner = provisioner
        self._parts.moves.on_moved = provisioner.request
        self._parts.remembered.on_doubt = provisioner.request
        await provisioner.request(self._stores.directory.all())
        self._spawn(provisioner.redecorate)
        for discovery in self._parts.listings.discover(provisioner.request):
            self.vitals.watch(f"runtime {discovery.name}", lambda one=discovery: said(one.trouble))
            self._spawn(discovery.run)

    async def _default_room_version(self) -> int:
        answer = await self._parts.homeserver.request(
            Method.GET,
            ClientPath.v3.capabilities,
            user_id=self._parts.bot.user_id,
            shape=answers.having("capabilities"),
        )
        versions = mapping(mapping(answer["capabilities"]).get("m.room_versions"))
        default = str(versions.get("default", ""))
        return int(default) if _VERSION.fullmatch(default) else _DEFAULT_ROOM_VERSION

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
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


def _mirror(config: Config, parts: Parts, opened: contextlib.AsyncExitStack) -> AuditMirror | None:
    """Tells of changes in the audit room, if there is one; closed behind everything that tells."""
    if config.access.audit_room is None:
        return None
    mirror = AuditMirror(config.access.audit_room, parts.bot)
    parts.toolbox.ledger.mirror = mirror
    opened.push_async_callback(mirror.close)
    return mirror


async def run(config: Config) -> None:
    """Run the bridge until SIGINT or SIGTERM. Raises StoreError or PortTakenError."""
    configure_logging(config.logging, secrets_of(config))
    raise_limit()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    bridge = Bridge(config)
    await bridge.start()
    # What the start has made stays: the collector need not go through it again and again.
    gc.collect()
    gc.freeze()
    log.info("bridge started", version=__version__, bot=config.bot_user_id)
    await stop.wait()
    log.info("bridge stopping")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STOPPING_TIMEOUT):
            await bridge.close()
