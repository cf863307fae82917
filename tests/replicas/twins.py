"""Replicas of one bridge: processes on one PostgreSQL, behind one proxy."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from tests.contract.relay import Relay
from tests.crash.bridges import Bridges
from tests.postgres import PASSWORD, PostgresServer
from tests.servers import _die_with_parent, free_port
from tests.waiting import DEADLINE, eventually

LEASE = 2.0


@dataclass(eq=False)
class One:
    """One replica; `way` is its own way to the database, `home` that to the homeserver; both can
    fail."""

    directory: Path
    http: aiohttp.ClientSession
    way: Relay
    home: Relay
    ports: dict[str, int] = field(
        default_factory=lambda: {name: free_port() for name in ("appservice", "api", "mcp", "ws")}
    )
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['api']}"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def write_config(self, common: Mapping[str, Any], database: str, user: str) -> None:
        ports = self.ports
        config: dict[str, Any] = {
            **common,
            "homeserver": {
                **common["homeserver"],
                "url": f"http://127.0.0.1:{self.home.port}",
            },
            "appservice": {**common["appservice"], "port": ports["appservice"]},
            "database": {
                "url": f"postgresql://{user}@127.0.0.1:{self.way.port}/{database}",
                "password": PASSWORD,
            },
            "api": {"port": ports["api"]},
            "mcp": {"port": ports["mcp"], "websocket_port": ports["ws"]},
            "replica": {"lease": LEASE, "drain_timeout": 5, **common.get("replica", {})},
        }
        (self.directory / "config.yaml").write_text(yaml.safe_dump(config))

    def start(self) -> None:
        assert not self.is_running
        argv = [sys.executable, "-m", "letta_matrix", "run", "-c", "config.yaml"]
        with (self.directory / "bridge.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - tests spawn from one thread
            )

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, and wait until it has ended; its exit code."""
        assert self.process is not None
        if self.is_running:
            self.send(number)
        return await asyncio.to_thread(self.process.wait, DEADLINE)

    async def health(self) -> dict[str, Any]:
        """What it tells by itself, {} where it does not answer."""
        timeout = aiohttp.ClientTimeout(total=5)
        # By a connection that has not been passed on to another one.
        async with aiohttp.ClientSession(timeout=timeout) as http:
            try:
                async with http.get(f"{self.url}/health") as response:
                    return dict(await response.json())
            except (aiohttp.ClientError, TimeoutError):
                return {}

    async def told(self) -> dict[str, Any]:
        """What it tells of the replicas."""
        return dict((await self.health()).get("replica") or {})

    async def reaches(self, replica_id: str) -> bool | None:
        """Whether another one reaches the homeserver, as far as this one knows."""
        known = (await self.told()).get("replicas", [])
        found = {one["replica"]: one["reaches_homeserver"] for one in known}
        return found.get(replica_id)

    async def state(self) -> str:
        """standby, or what the one that acts says of itself."""
        return str((await self.told()).get("state", ""))

    def log(self) -> str:
        return (self.directory / "bridge.log").read_text(errors="replace")


@dataclass(repr=False)
class Twins(Bridges):
    """Several of them, with agents and a person as in crash tests."""

    members: list[One] = field(default_factory=list[One])
    postgres: PostgresServer | None = None
    _token: str = ""

    def common(self) -> dict[str, Any]:
        """What their configurations have in common."""
        appservice = self.homeserver.config.appservice
        return {
            "homeserver": {"url": self.homeserver.url, "domain": self.homeserver.server_name},
            "appservice": {
                "url": appservice.url,
                "as_token": self.homeserver.as_token,
                "hs_token": self.homeserver.hs_token,
            },
            "runtimes": [{"speech_interval": 0.5, **self.runtime}],
            "agents": {"room_members": [self.person.user_id], "poll_interval": 0.2},
            "conversations": {"edit_interval": 0.1},
            "permissions": {self.person.user_id: "admin"},
            "logging": {"level": "debug"},
        }

    async def admin_token(self) -> str:
        """A token for everything, made at the first time by the command for that."""
        if not self._token:
            argv = [sys.executable, "-m", "letta_matrix", "tokens", "create", "--scope"]
            argv.append("read,write,rooms,agents,admin")
            made = await asyncio.create_subprocess_exec(
                *argv, cwd=self.members[0].directory, stdout=asyncio.subprocess.PIPE
            )
            self._token = (await made.communicate())[0].decode().strip()
        return self._token

    async def start_all(self) -> None:
        """Start those that do not run, and wait until one acts and the others stand by."""
        for one in self.members:
            if not one.is_running:
                one.start()
        await self.settled_states()

    async def settled_states(self, ready: int | None = None) -> None:
        """Wait until one of those that run acts, is ready, and the others pass on to it."""
        wanted = sum(one.is_running for one in self.members) if ready is None else ready

        async def settled() -> bool:
            told = [await one.health() for one in self.members if one.is_running]
            states = sorted(str(one.get("replica", {}).get("state")) for one in told)
            ready = sum(bool(one.get("ready")) for one in told)
            return states == ["active", *["standby"] * (len(told) - 1)] and ready >= wanted

        await eventually(settled, what="one acts, the others stand by")

    async def be_pushed_to(self) -> None:
        """Have the homeserver try again at once what it could not push: it waits longer each
        time, and the one that acts asks it for that once a minute."""
        service = self.homeserver.config.appservice
        url = f"{self.homeserver.url}/_matrix/client/v1/appservice/{service.id}/ping"
        headers = {"Authorization": f"Bearer {self.homeserver.as_token}"}
        async with self.http.post(url, json={}, headers=headers) as response:
            told = await response.text()
        # Synapse trips over its own timer when it is pushing already.
        assert response.status == 200 or "AlreadyCa" in told, told

    async def active(self) -> One:
        """The one that acts."""
        found: list[One] = []

        async def acts() -> bool:
            found[:] = [
                one for one in self.members if one.is_running and await one.state() == "active"
            ]
            return bool(found)

        await eventually(acts, what="one acts")
        return found[0]

    async def other(self) -> One:
        """One that stands by."""
        active = await self.active()
        return next(one for one in self.members if one is not active and one.is_running)

    async def acts(self, one: One) -> None:
        async def is_active() -> bool:
            return await one.state() == "active"

        await eventually(is_active, what="the other one acts")

    async def stop(self) -> None:
        for one in self.members:
            if one.is_running:
                one.send(signal.SIGCONT)
                await one.end()

    def log(self) -> str:
        return "\n".join(one.log()[-1500:] for one in self.members)


def keeper_socket(directory: Path) -> str:
    """One keeper for all, as on one machine."""
    return str(directory / "keeper.sock")
