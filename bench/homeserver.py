"""The one Synapse that every competitor of a run uses."""

import secrets
import signal
import sqlite3
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from tests.servers import ServerProcess, is_ready

from bench.person import Person
from bench.ports import Ports
from letta_matrix.stack.synapse import SERVER_NAME, Synapse

FLOOR_PREFIX = "floor_"
_LETTA_PREFIXES = ("agent_", "letta_")
_SEEDED = "$seeded"
_IS_IN = "INSERT INTO current_state_events VALUES (?, ?, 'm.room.member', ?, 'join', NULL)"
_SEES = "INSERT INTO local_current_membership VALUES (?2, ?3, ?1, 'join', NULL)"
_ACCOUNT = "INSERT INTO users (name, creation_ts, appservice_id) VALUES (?, 1, ?)"


@dataclass(frozen=True, slots=True)
class Service:
    """One registered application service: where it listens, and its tokens."""

    id: str
    port: int
    bot: str
    as_token: str
    hs_token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Homeserver:
    """A Synapse in `directory` that knows letta-matrix and the echo appservice."""

    def __init__(self, directory: Path, ports: Ports, http: aiohttp.ClientSession) -> None:
        self._http = http
        port = ports.take()
        self.letta = _service("letta-matrix", "letta", ports.take())
        self.floor = _service("floor", "floor_bot", ports.take())
        files = (directory / "letta.yaml", directory / "floor.yaml")
        self.synapse = Synapse(directory / "synapse", port, files)
        self.url = self.synapse.url
        files[0].write_text(yaml.safe_dump(_registration(self.letta, *_LETTA_PREFIXES)))
        files[1].write_text(yaml.safe_dump(_registration(self.floor, FLOOR_PREFIX)))
        self._server = ServerProcess(self.synapse.command, is_ready(http, self.synapse.health_url))

    @property
    def pid(self) -> int:
        assert self._server.process is not None
        return self._server.process.pid

    async def start(self) -> None:
        self.synapse.write_files(f"@{self.letta.bot}:{SERVER_NAME}")
        # The agents of the floor are no agents of a bridge.
        with (self.synapse.directory / "homeserver.yaml").open("a") as file:
            file.write("auto_accept_invites: {enabled: true}\n")
        await self._server.start()

    def stop(self) -> None:
        self._server.end(signal.SIGTERM)

    @asynccontextmanager
    async def with_rooms(self, owners: Mapping[str, str]) -> AsyncGenerator[None]:
        """While the block runs it believes that there are these rooms, of which it has nothing
        else: each has the bot and its owner, an account of letta-matrix, in it. It is restarted at
        both ends, as it keeps in memory who is where."""
        bot = f"@{self.letta.bot}:{SERVER_NAME}"
        with self._database_of_stopped() as db:
            for owner in set(owners.values()):
                db.execute(_ACCOUNT, (owner, self.letta.id))
            for room, owner in owners.items():
                for user in (bot, owner):
                    event = f"{_SEEDED}{user}{room}"
                    db.execute(_IS_IN, (event, room, user))
                    db.execute(_SEES, (event, room, user))
        await self._server.start()
        try:
            yield
        finally:
            with self._database_of_stopped() as db:
                for table in ("current_state_events", "local_current_membership"):
                    db.execute(f"DELETE FROM {table} WHERE event_id LIKE '{_SEEDED}%'")
                db.executemany("DELETE FROM users WHERE name = ?", zip(owners.values()))
            await self._server.start()

    @contextmanager
    def _database_of_stopped(self) -> Generator[sqlite3.Connection]:
        self.stop()
        with closing(sqlite3.connect(self.synapse.directory / "homeserver.db")) as db, db:
            yield db

    async def account(self, localpart: str) -> tuple[str, str]:
        """A new account: user id and password."""
        password = secrets.token_urlsafe(12)
        await self.synapse.create_account(self._http, localpart, password, admin=False)
        return f"@{localpart}:{SERVER_NAME}", password

    async def person(self, localpart: str) -> Person:
        """A new account, logged in."""
        user_id, password = await self.account(localpart)
        token = await self.synapse.login(self._http, localpart, password, "BENCH")
        return Person(self._http, self.url, user_id, token)

    def letta_settings(self) -> dict[str, Any]:
        """The sections of a config.yaml that the registration decides."""
        service = self.letta
        return {
            "homeserver": {"url": self.url, "domain": SERVER_NAME},
            "appservice": {
                "id": service.id,
                "url": service.url,
                "port": service.port,
                "as_token": service.as_token,
                "hs_token": service.hs_token,
            },
        }


def _service(service_id: str, bot: str, port: int) -> Service:
    return Service(service_id, port, bot, secrets.token_hex(32), secrets.token_hex(32))


def _registration(service: Service, *prefixes: str) -> dict[str, object]:
    def exclusive(sigil: str) -> list[dict[str, object]]:
        return [
            {"exclusive": True, "regex": f"{sigil}{prefix}.*:{SERVER_NAME}"} for prefix in prefixes
        ]

    return {
        "id": service.id,
        "url": service.url,
        "as_token": service.as_token,
        "hs_token": service.hs_token,
        "sender_localpart": service.bot,
        "rate_limited": False,
        "receive_ephemeral": False,
        "namespaces": {"users": exclusive("@"), "aliases": exclusive("#"), "rooms": []},
    }
