"""The bridge under test: one data directory, and the processes that come and go on it."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from tests.crash.person import Person, Said
from tests.servers import Homeserver, LettaServer, ServerProcess, free_port
from tests.stub_model import MODEL_ID, StubModel

from letta_matrix.conversations import notices
from letta_matrix.matrix.identifiers import user_id
from letta_matrix.stack.keeper import KeeperProcess
from letta_matrix.stack.supervisor import Command

LAUNCHER = Path(__file__).with_name("launcher.py")
PATIENCE = 40.0
"""Seconds that anything may take; the machine may be busy."""


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Poll a condition until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
        await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Room:
    """An agent's room."""

    room_id: str
    agent_id: str
    ghost: str


@dataclass
class Bridges:
    """Starts bridges on `directory`, one at a time."""

    directory: Path
    homeserver: Homeserver
    letta: LettaServer
    model: StubModel
    person: Person
    http: aiohttp.ClientSession
    port: int = field(default_factory=free_port)
    agents: list[str] = field(default_factory=list[str])
    _process: ServerProcess | None = None

    @property
    def keeper(self) -> KeeperProcess:
        return KeeperProcess(self.directory / "keeper.sock")

    @property
    def pid(self) -> int:
        """The running bridge."""
        assert self._process is not None
        assert self._process.process is not None
        return self._process.process.pid

    def write_config(self, permission_mode: str = "standard") -> None:
        appservice = self.homeserver.config.appservice
        config: dict[str, Any] = {
            "homeserver": {"url": self.homeserver.url, "domain": self.homeserver.server_name},
            "appservice": {
                "url": appservice.url,
                "port": appservice.port,
                "as_token": self.homeserver.as_token,
                "hs_token": self.homeserver.hs_token,
            },
            "runtimes": [
                {
                    "type": "app_server",
                    "url": self.letta.url,
                    "permission_mode": permission_mode,
                }
            ],
            "agents": {"room_members": [self.person.user_id], "poll_interval": 0.2},
            # Edits come early, so that there are some to die between.
            "conversations": {"edit_interval": 0.25},
            "permissions": {self.homeserver.server_name: "user"},
            "api": {"port": self.port},
            "logging": {"level": "debug"},
        }
        (self.directory / "config.yaml").write_text(yaml.safe_dump(config))

    async def start(self, *options: str) -> None:
        """Start a bridge and wait until it is ready; `options` go to the launcher."""
        self._process = self._new_process(*options)
        await self._process.start(PATIENCE)

    async def run_until_dead(self, point: str, *options: str) -> None:
        """Start a bridge that dies on its way up, and see it die."""
        self._process = self._new_process("--die-at", point, *options)
        self._process._spawn()
        await self.dead(point)

    async def dead(self, point: str) -> None:
        """Wait until the running bridge has killed itself at `point`."""
        code = await self.ended()
        assert code == -signal.SIGKILL, self.log()[-3000:]
        assert self.log().endswith(f"dying: {point}\n"), self.log()[-3000:]

    async def ended(self) -> int:
        """Wait until the running bridge has ended; its exit code."""
        assert self._process is not None
        process = self._process.process
        assert process is not None

        async def is_over() -> bool:
            return process.poll() is not None

        await until(is_over, "the bridge ends")
        self._process = None
        return process.returncode

    def kill(self) -> None:
        """SIGKILL to the running bridge."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """SIGTERM to the bridge, if one runs."""
        if self._process is not None:
            self._process.end(signal.SIGTERM)
            self._process = None

    def log(self) -> str:
        return (self.directory / "bridge.log").read_text(errors="replace")

    async def deliver(self, txn_id: str, *events: dict[str, Any]) -> None:
        """Play the homeserver that delivers a transaction."""
        url = f"{self.homeserver.config.appservice.url}/_matrix/app/v1/transactions/{txn_id}"
        headers = {"Authorization": f"Bearer {self.homeserver.hs_token}"}
        async with self.http.put(url, json={"events": events}, headers=headers) as response:
            assert response.status == 200

    async def new_room(self) -> Room:
        """A new agent and, as soon as the running bridge has made it, its room."""
        async with self.letta.app_server.control(self.http) as control:
            name = f"Agent {len(self.agents) + 1}"
            body: dict[str, Any] = {"name": name, "model": f"openai-compatible/{MODEL_ID}"}
            agent_id = str((await control.request("agent_create", body=body))["agent"]["id"])
        self.agents.append(agent_id)

        async def made() -> bool:
            return self._applied(agent_id) >= {"room_name", "space", "bot_joined", "members"}

        await until(made, "the agent has a room")
        room_id = self.rows("SELECT room_id FROM agents WHERE agent_id = ?", agent_id)[0][0]

        async def joined() -> bool:
            return room_id in await self.person.joined()

        await until(joined, "the person is in the agent's room")
        return Room(room_id, agent_id, user_id(agent_id, self.homeserver.server_name))

    async def delete_agents(self) -> None:
        """Leave nothing for the tests of others to provision."""
        async with self.letta.app_server.control(self.http) as control:
            for agent_id in self.agents:
                await control.request("agent_delete", agent_id=agent_id)

    async def settled(self, room: Room, *event_ids: str) -> None:
        """Wait until these messages' turns are done."""

        async def done() -> bool:
            turns = dict(self.turns(room))
            return all(turns.get(event_id) == "done" for event_id in event_ids)

        await until(done, "every turn is done")

    def turns(self, room: Room) -> list[tuple[str, str]]:
        """Event id and status of the room's turns, in order."""
        query = "SELECT event_id, status FROM turns WHERE room_id = ? ORDER BY seq"
        return [(str(row[0]), str(row[1])) for row in self.rows(query, room.room_id)]

    def unsettled(self, room: Room) -> list[Any]:
        """Outbox rows of the room without an event id."""
        query = "SELECT kind, part, failure FROM outbox WHERE room_id = ? AND event_id IS NULL"
        return self.rows(query, room.room_id)

    def rows(self, query: str, *values: object) -> list[Any]:
        path = f"file:{self.directory / 'letta-matrix.db'}?mode=ro"
        with closing(sqlite3.connect(path, uri=True, timeout=10)) as database:
            return database.execute(query, values).fetchall()

    async def replies(self, room: Room) -> list[Said]:
        """What the agent said, as the person sees it, but for the word that its runtime is away:
        whether it is away for long enough depends on how busy the machine is."""
        said = await self.person.said(room.room_id)
        return [
            message
            for message in said
            if message.sender == room.ghost and message.text != notices.UNAVAILABLE
        ]

    def _applied(self, agent_id: str) -> set[str]:
        found = self.rows("SELECT applied FROM agents WHERE agent_id = ?", agent_id)
        return set(json.loads(found[0][0])) if found else set()

    def _new_process(self, *options: str) -> ServerProcess:
        assert self._process is None, "one bridge at a time"
        argv = (sys.executable, str(LAUNCHER), str(self.directory / "config.yaml"), *options)
        log = self.directory / "bridge.log"
        return ServerProcess(Command("the bridge", argv, log, self.directory), self._ready)

    async def _ready(self) -> bool:
        try:
            async with self.http.get(f"http://127.0.0.1:{self.port}/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False
