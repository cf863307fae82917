"""`letta-matrix up`: every server on this machine, from nothing to the first answer."""

import asyncio
import signal
import sys
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp

from letta_matrix.common.connections.descriptors import raise_limit
from letta_matrix.common.connections.known_servers import (
    CheckedConnector,
    KnownServer,
    note_process,
)
from letta_matrix.common.waiting import ended_by_signal, unless
from letta_matrix.config import Config
from letta_matrix.runtimes.keeper.pid_file import KeeperProcess
from letta_matrix.stack.agents_home import AgentsHome
from letta_matrix.stack.bridge_config import (
    PID_FILES,
    known_servers,
    mcp_urls,
    write_bridge_files,
)
from letta_matrix.stack.data import default_data_directory, make_data_directory
from letta_matrix.stack.errors import PasswordRefusedError, StackError
from letta_matrix.stack.files import keep_secret, writing_in
from letta_matrix.stack.held_ports import HeldPorts
from letta_matrix.stack.lock import exclusive
from letta_matrix.stack.models import ModelChoice, Wanted, check_wanted
from letta_matrix.stack.ports import Ports
from letta_matrix.stack.registration import registrations_in
from letta_matrix.stack.silence import Probe, kill_hung, status_of
from letta_matrix.stack.state import ACCESS_FILE, ADMIN, StackState, remove_state
from letta_matrix.stack.summary import Facts, summary
from letta_matrix.stack.supervisor import Announce, Child, Command
from letta_matrix.stack.synapse import SERVER_NAME, Synapse

_DEVICE = "letta-matrix-up"
_START_TIMEOUT = 120.0
_READY_TIMEOUT = 120.0
_BRIDGE_GRACE = 6.0
"""Seconds that the bridge has to end: more than it takes itself (`_STOPPING_TIMEOUT`), or it would
be killed in the midst of ending logins, telling the last calls and sending the last traces."""
_GRACE = 2.5
_KEEPER_POLL = 0.25
_BRIDGE = (sys.executable, "-m", "letta_matrix", "run", "-c", "config.yaml")


@dataclass(frozen=True, slots=True)
class Options:
    """What a person may say on the command line."""

    data: Path
    port_offset: int = 0
    wanted: Wanted = field(default_factory=Wanted)


async def up(options: Options, announce: Announce) -> None:
    """Run the whole stack until SIGINT, SIGTERM or SIGHUP.

    Raises:
        StackError: it cannot start; whatever had been started is ended.
    """
    raise_limit()
    stop = ended_by_signal(signal.SIGHUP)
    data = make_data_directory(options.data)
    known = known_servers(data, Ports.with_offset(options.port_offset), announce)
    with writing_in(data), exclusive(data):
        connector = CheckedConnector(list(known.values()))
        async with aiohttp.ClientSession(connector=connector) as http:
            stack = Stack(options, data, announce, http, known)
            try:
                if await _unless(stop, stack.start()):
                    await _unless(stop, stack.look_after_keeper())
                announce("stopping ...")
            finally:
                await stack.stop()
    announce("stopped")


class Stack:
    """The servers of one data folder."""

    def __init__(
        self,
        options: Options,
        data: Path,
        announce: Announce,
        http: aiohttp.ClientSession,
        known: Mapping[str, KnownServer] | None = None,
    ) -> None:
        self._options = options
        self._known = known or {}
        self._data = data
        self._announce = announce
        self._http = http
        self._started_at = time.monotonic()
        self._ports = Ports.with_offset(options.port_offset)
        self._synapse = Synapse(data / "synapse", self._ports.synapse, registrations_in(data))
        self._held = HeldPorts()
        self._agents = AgentsHome(data, self._ports, self._held, http, announce)
        self._admin = f"@{ADMIN}:{SERVER_NAME}"
        self._children: dict[str, Child] = {}
        self._pids: dict[str, int] = {}
        self._state: StackState | None = None
        self._config: Config | None = None
        self._keeper = KeeperProcess(data / "keeper.sock")

    async def start(self) -> None:
        """Start everything and show the summary.

        Raises:
            StackError: naming what failed and where its log is.
        """
        remove_state(self._data)
        check_wanted(self._options.wanted)
        self._ports.check_free()
        config = write_bridge_files(self._data, self._ports, self._admin, self._agents.token)
        self._held.take(config, self._ports)
        self._synapse.write_files(config.bot_user_id)
        if self._synapse.database.discard_half_made():
            self._announce(
                "the homeserver's database was half made when an earlier start was stopped; "
                "making it anew"
            )
        choice = await self._agents.choose(self._options.wanted)
        self._announce(f"data in {self._data}")
        self._announce(f"model: {choice.origin}")
        password = keep_secret(self._data / "admin.password", length=12)
        agents, model = await self._start_servers(choice, password, config)
        await self._start_bridge(config)
        # The servers start the sooner for it that this is not loaded before them.
        from letta_matrix.cli.up.token import keep_token

        # The bridge has made the database ready for it.
        access = await keep_token(self._data / ACCESS_FILE, config)
        self._config = config
        known, token = await self._log_in(password)
        self._state = self._describe(config, known, access)
        self._write_state()
        facts = Facts(
            self._state,
            token,
            agents,
            model=_told(choice, model),
            demo=choice.demo,
            data=self._data,
            usual_data=self._data == default_data_directory(),
            seconds=time.monotonic() - self._started_at,
        )
        self._announce(summary(facts))

    async def stop(self) -> None:
        """End every child: the bridge first, so that it can put its work away."""
        bridge = self._children.pop("bridge", None)
        if bridge is not None:
            bridge.terminate()
            await bridge.wait_ended(_BRIDGE_GRACE)
        for child in self._children.values():
            child.terminate()
        ending = [child.wait_ended(_GRACE) for child in self._children.values()]
        await asyncio.gather(self._keeper.end(_GRACE), *ending)
        self._children.clear()
        self._held.close()
        remove_state(self._data)

    async def look_after_keeper(self) -> None:
        """Keep the keeper's pid in stack.json current, for ever; say so when it changes. Kill it
        when it hangs: the bridge starts another one."""
        keeper = self._keeper
        killing = kill_hung("keeper", keeper.pid, keeper.answers, keeper.kill, self._announce)
        await asyncio.gather(self._follow_keeper(), killing)

    async def _follow_keeper(self) -> None:
        while True:
            pid, before = self._keeper.pid(), self._pids.get("keeper")
            if pid is not None and pid != before:
                self._note_pid("keeper", pid)
                if before is not None:
                    self._announce("keeper ended; the bridge has started it again")
            await asyncio.sleep(_KEEPER_POLL)

    async def _start_servers(
        self, choice: ModelChoice, password: str, config: Config
    ) -> tuple[list[str], str]:
        """The agents' names, and the model that new ones get."""
        allowed = config.agents.allow_paths
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._start_homeserver(password))
                agents = group.create_task(self._agents.start(choice, self._run, allowed))
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None
        return agents.result()

    async def _start_homeserver(self, password: str) -> None:
        command = replace(self._synapse.command, sockets=self._held.synapse)
        await self._run("synapse", command, self._synapse.health_url)
        self._synapse.database.note_whole()
        await self._synapse.create_account(self._http, ADMIN, password, admin=True)

    async def _start_bridge(self, config: Config) -> None:
        command = Command(
            name="bridge",
            argv=_BRIDGE,
            log=self._data / "bridge.log",
            cwd=self._data,
            sockets=self._held.bridge,
        )
        address = f"http://127.0.0.1:{config.api.port}"
        await self._run("bridge", command, f"{address}/health")
        try:
            ready = self._answers(f"{address}/ready", 200)
            await self._children["bridge"].wait_ready(ready, _READY_TIMEOUT)
        except StackError:
            self._announce(
                f"warning: not every agent has its room after {_READY_TIMEOUT:g} s; "
                f"it goes on; see {command.log}"
            )

    async def _run(self, key: str, command: Command, url: str, status: int = 200) -> None:
        began = time.monotonic()
        child = Child(command, self._announce, lambda pid: self._note_pid(key, pid))
        self._children[key] = child
        await child.start()
        try:
            await child.wait_ready(self._answers(url, status), _START_TIMEOUT)
        except StackError as error:
            taken = self._known[key].trouble if key in self._known else ""
            raise StackError(taken or str(error)) from None
        child.look_after(self._answers(url))
        self._announce(f"{command.name} is up ({time.monotonic() - began:.1f} s)")

    def _answers(self, url: str, *statuses: int) -> Probe:
        """Asks whether a server answers with one of `statuses`; with none of them, whether it
        answers at all: one that is too busy to be ready does not hang."""

        async def probe() -> bool:
            status = await status_of(self._http, url)
            return status in statuses if statuses else status is not None

        return probe

    async def _log_in(self, password: str) -> tuple[str | None, str | None]:
        """The password, if it is still the right one, and a one-time login, if there is one: the
        password does as well."""
        try:
            return password, await self._synapse.sign_in_once(
                self._http, ADMIN, password, _DEVICE, self._mark_direct
            )
        except PasswordRefusedError:
            return None, None
        except StackError as error:
            self._announce(f"no link that logs you in this time ({error}); use the password")
            return password, None

    async def _mark_direct(self, access: str) -> None:
        """Let the admin's clients show the agents' rooms as chats with them."""
        if self._config is None:
            return
        from letta_matrix.cli.up.bridge_store import rooms_of_agents

        try:
            rooms = await rooms_of_agents(self._config)
            await self._synapse.mark_direct(self._http, access, self._admin, rooms)
        except StackError as error:
            self._announce(f"agents' rooms are not shown as direct chats: {error}")

    def _note_pid(self, key: str, pid: int) -> None:
        self._pids[key] = pid
        try:
            if key in PID_FILES:
                note_process(self._data / PID_FILES[key], pid)
            self._write_state()
        except OSError as error:
            self._announce(f"stack.json and {key}'s pid file are not current: {error.strerror}")

    def _write_state(self) -> None:
        if self._state is not None:
            self._state.pids = dict(self._pids)
            self._state.write(self._data)

    def _describe(self, config: Config, password: str | None, access: str) -> StackState:
        if (pid := self._keeper.pid()) is not None:
            self._pids["keeper"] = pid
        secret = {} if password is None else {"password": password}
        return StackState(
            homeserver={"url": self._synapse.url, "server_name": SERVER_NAME},
            users={ADMIN: {"user_id": self._admin, **secret}},
            appservice={"user_id": config.bot_user_id, "url": config.appservice.url},
            chat={"url": f"http://127.0.0.1:{config.api.port}/chat"},
            api={"url": f"http://127.0.0.1:{config.api.port}", "token": access},
            app_server={"url": self._agents.url, "token": self._agents.token},
            mcp={**mcp_urls(config), "token": access} if config.mcp.enabled else {},
        )


def _told(choice: ModelChoice, handle: str) -> str:
    """A model as it is shown: where it comes from, and its name if it has one."""
    name = handle.removeprefix(f"{choice.provider}/")
    return choice.origin + (f" ({name})" if name else "")


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Do `work` unless `stop` comes first; tells whether it was done."""
    if (done := await unless(stop, work)) is not None:
        done.result()
    return done is not None
