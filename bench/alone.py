"""Bridges with agents in memory, at a homeserver that answers at once, and nobody else."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import URL
from tests.postgres import PostgresServer

from bench.bridge import PLAIN, Bridge
from bench.program import Program
from bench.scene import Scene

_PERSON = "@person:test"
_DOMAIN, _BOT = "test", "letta"
_PATIENCE = aiohttp.ClientTimeout(total=600)
_SYNCED = {"fsync": "on", "full_page_writes": "on"}


@asynccontextmanager
async def postgres() -> AsyncGenerator[PostgresServer]:
    """A PostgreSQL server that waits for the disk, as SQLite does."""
    server = PostgresServer(dict(_SYNCED))
    try:
        await asyncio.to_thread(server.start)
        yield server
    finally:
        await asyncio.to_thread(server.remove)


@dataclass
class _Registered:
    """One of the replicas, as the instant homeserver knows it."""

    homeserver: int
    port: int
    tokens: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def letta_settings(self) -> dict[str, Any]:
        """The sections of a config.yaml that the registration decides."""
        return {
            "homeserver": {"url": f"http://127.0.0.1:{self.homeserver}", "domain": _DOMAIN},
            "appservice": {"url": self.url, "port": self.port, **self.tokens},
        }


@dataclass
class Alone:
    """The `bridges` of one database, on a `server` where there is one, and their homeserver; all
    transactions come to them by turns."""

    scene: Scene
    name: str
    server: PostgresServer | None = None
    replicas: int = 1
    program: Sequence[str] = PLAIN
    bridges: list[Bridge] = field(default_factory=list[Bridge])

    def __post_init__(self) -> None:
        scene = self.scene
        self._port = scene.ports.take()
        tokens = {name: secrets.token_hex(32) for name in ("as_token", "hs_token")}
        registered = [
            _Registered(self._port, scene.ports.take(), tokens) for _ in range(self.replicas)
        ]
        self.bridges = [
            Bridge(one, self._folder(number), scene.ports, _PERSON, scene.http, self.program)
            for number, one in enumerate(registered)
        ]
        settings = {
            "port": self._port,
            "bridges": [one.url for one in registered],
            "hs_token": tokens["hs_token"],
            "person": _PERSON,
            "bot": f"@{_BOT}:{_DOMAIN}",
            "gate": str(self._folder(0) / "gate"),
        }
        self._homeserver = Program(
            "bench.instant_homeserver", settings, self._folder(0), scene.http
        )
        self._database = None if self.server is None else self.server.create()

    @property
    def bridge(self) -> Bridge:
        """The one that is started first, and acts."""
        return self.bridges[0]

    @property
    def database(self) -> URL:
        """Where all of them keep what they know."""
        if self.server is None or self._database is None:
            return self.bridge.database_url
        return self.server.address(self._database)

    @property
    def where(self) -> tuple[str, str]:
        """What rows about it are called after the database, and the words for it."""
        return ("", "SQLite") if self.server is None else ("_postgres", "PostgreSQL")

    async def start(self, agents: int) -> None:
        """Start all of it; returns when nobody has anything left to do."""
        await self._homeserver.start()
        self.configure(agents)
        for bridge in self.bridges:
            await bridge.start_ready()
        for bridge in self.bridges:
            await bridge.wait_quiet()

    def configure(self, agents: int) -> None:
        """To be so many agents' from the next start on."""
        sections: dict[str, Any] = {}
        if self.server is not None and self._database is not None:
            sections["database"] = self.server.settings_for(self._database)
        for bridge in self.bridges:
            bridge.configure({"type": "memory", "agents": agents}, **sections)

    async def end(self) -> None:
        for bridge in self.bridges:
            await bridge.end()
        self._homeserver.stop()

    async def do(self, what: str, **told: object) -> dict[str, Any]:
        """What the instant homeserver is told, and tells (see there)."""
        url = f"http://127.0.0.1:{self._port}/{what}"
        async with self.scene.http.post(url, json=told, timeout=_PATIENCE) as response:
            response.raise_for_status()
            return dict(await response.json())

    @property
    def cpu_seconds(self) -> float:
        """CPU time that all bridges have used so far."""
        return sum(bridge.cpu_seconds for bridge in self.bridges)

    def _folder(self, number: int) -> Path:
        name = f"{self.name}-{number + 1}" if number else self.name
        return self.scene.directory / name
