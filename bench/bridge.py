"""A bridge process, as `letta-matrix run` starts it, and what can be seen of it from outside."""

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import aiohttp
import psutil
import yaml
from sqlalchemy import URL
from tests.servers import ServerProcess

from bench.ports import Ports
from bench.program import ROOT, answers
from letta_matrix.stack.files import write_private
from letta_matrix.stack.supervisor import Command

PLAIN = ("letta_matrix", "run", "-c")
SCRIPTED = ("tests.stub_agents",)

_KEEPER_PID = "keeper.sock.pid"
_KEEPER_GRACE = 3.0
_QUIET = 1.0
"""% of a core; a bridge that looks through rooms after its start takes more."""

_QUIET_WINDOW = 2.0


class Registered(Protocol):
    """A homeserver that knows the bridge."""

    def letta_settings(self) -> dict[str, Any]: ...


class Bridge:
    """letta-matrix in `directory`; its configuration may change between starts.

    `program` is what `python -m` runs, the configuration's path comes after it.
    """

    def __init__(
        self,
        homeserver: Registered,
        directory: Path,
        ports: Ports,
        person: str,
        http: aiohttp.ClientSession,
        program: Sequence[str] = PLAIN,
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self._homeserver = homeserver
        self._person = person
        self._http = http
        self._api_port, self._mcp_port, self._websocket_port = (ports.take() for _ in range(3))
        argv = (sys.executable, "-m", *program, str(directory / "config.yaml"))
        command = Command("letta-matrix", argv, directory / "bridge.log", ROOT)
        self._server = ServerProcess(command, lambda: answers(http, self._url("/health")))

    @property
    def database(self) -> Path:
        return self.directory / "letta-matrix.db"

    @property
    def database_url(self) -> URL:
        return URL.create("sqlite+pysqlite", database=str(self.database))

    @property
    def api_url(self) -> str:
        return self._url("/api/v1")

    @property
    def mcp_url(self) -> str:
        return f"http://127.0.0.1:{self._mcp_port}/mcp"

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self._websocket_port}/mcp"

    def agents(self) -> list[tuple[str, str, str]]:
        """Agent ids, user ids and rooms."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            query = "SELECT agent_id, user_id, room_id FROM agents ORDER BY agent_id"
            return [(str(row[0]), str(row[1]), str(row[2])) for row in connection.execute(query)]

    def rooms(self) -> list[str]:
        """The agents' rooms, in the order of the agents' creation."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            query = "SELECT room_id FROM agents WHERE room_id IS NOT NULL ORDER BY agent_id"
            return [str(row[0]) for row in connection.execute(query)]

    def configure(self, runtime: dict[str, Any], **sections: Any) -> None:
        """Write config.yaml with one runtime, and further `sections`."""
        settings = {
            **self._homeserver.letta_settings(),
            "runtimes": [runtime],
            "agents": {"room_members": [self._person]},
            "permissions": {self._person: "admin"},
            "api": {"port": self._api_port},
            "mcp": {"port": self._mcp_port, "websocket_port": self._websocket_port},
            **sections,
        }
        write_private(self.directory / "config.yaml", yaml.safe_dump(settings))

    async def make_token(self, *wishes: str) -> str:
        """A token as the options of `letta-matrix tokens create` say; without any it acts as the
        bot."""
        create = ("tokens", "create", *wishes, "-c", str(self.directory / "config.yaml"))
        argv = (sys.executable, "-m", "letta_matrix", *create)
        made = await asyncio.to_thread(
            subprocess.run, argv, cwd=ROOT, check=True, capture_output=True, text=True
        )
        return made.stdout.strip()

    async def start(self) -> None:
        """Start the process; returns when it listens."""
        await self._server.start()

    async def start_ready(self, timeout: float = 120.0) -> float:
        """Start the process; returns when all agents are set up, with the seconds that took."""
        started = time.monotonic()
        await self.start()
        await self.wait_ready(timeout)
        return time.monotonic() - started

    async def wait_ready(self, timeout: float = 120.0) -> None:
        """Wait until `/ready` says yes. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not await answers(self._http, self._url("/ready")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL; the keeper stays."""
        self._server.end(signal.SIGKILL)

    def stop(self) -> None:
        self._server.end(signal.SIGTERM)

    async def end(self) -> None:
        """Stop the process and its keeper."""
        self.stop()
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            keeper = psutil.Process(int((self.directory / _KEEPER_PID).read_text()))
            keeper.terminate()
            await asyncio.to_thread(keeper.wait, _KEEPER_GRACE)

    async def health(self) -> dict[str, Any]:
        """What `/health` says."""
        async with self._http.get(self._url("/health")) as response:
            return cast("dict[str, Any]", await response.json())

    @property
    def rss_mb(self) -> float:
        return self._process().memory_info().rss / 1e6

    @property
    def cpu_seconds(self) -> float:
        """CPU time that the process has used so far."""
        times = self._process().cpu_times()
        return times.user + times.system

    async def cpu_percent(self, seconds: float) -> float:
        """Share of a core that the process uses over the next `seconds`."""
        before, started = self.cpu_seconds, time.monotonic()
        await asyncio.sleep(seconds)
        return 100 * (self.cpu_seconds - before) / (time.monotonic() - started)

    async def wait_quiet(self, timeout: float = 120.0) -> None:
        """Wait until it has nothing left to do after its start, at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while await self.cpu_percent(_QUIET_WINDOW) > _QUIET and time.monotonic() < deadline:
            pass

    def _process(self) -> psutil.Process:
        assert self._server.process is not None
        return psutil.Process(self._server.process.pid)

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._api_port}{path}"
