"""What is examined: a configuration, and the ways from it to everything it names."""

import asyncio
import ipaddress
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import URL

from letta_matrix.access.database import url_of_database
from letta_matrix.access.route import homeserver_of
from letta_matrix.common.connections.socket_table import listeners
from letta_matrix.common.json_fields import as_list, string_of
from letta_matrix.common.lock_files import is_held
from letta_matrix.common.loopback import is_loopback
from letta_matrix.common.vitals import Trouble
from letta_matrix.config import Config
from letta_matrix.matrix.intent import Intent
from letta_matrix.stack.lock import LOCK
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.database import Database, file_of

_ROOT = 0
"""The user who may listen for anybody, as containers' proxies do."""


class Subject:
    """A bridge from outside, whether it runs or not. `report` is what answers on its port, None
    where nothing does; it is its `health` where a bridge has the database open and the port is its
    user's, and else that of a `stranger`. To be made in a running event loop, and to be closed.
    Raises ConfigError for a `ca_file` that cannot be used."""

    def __init__(
        self,
        config: Config,
        path: Path,
        environment: Mapping[str, str],
        report: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.path = path
        self.environment = environment
        # Whoever runs programs here can listen on a port that is free.
        is_ours = report is not None and self._is_ours(config.api.port)
        self.health = report if is_ours else None
        self.stranger = report is not None and not is_ours
        self.homeserver = homeserver_of(config)
        self.well_known = f"https://{_host_of(config.homeserver.domain)}"
        """Where the server's name leads."""

    async def close(self) -> None:
        await self.homeserver.close()
        if "database" in self.__dict__:
            await self.database.close()

    @property
    def bot(self) -> Intent:
        return self.homeserver.acting_as(self.config.bot_user_id)

    @property
    def database_url(self) -> URL:
        return url_of_database(self.config)

    @property
    def database_file(self) -> Path | None:
        """None where it is on a server."""
        return file_of(self.database_url)

    @cached_property
    def database(self) -> Database:
        """For reading, also beside a bridge that runs. There has to be a `database_file`, or one
        is made. Raises StoreError where its driver is not there."""
        return Database(self.database_url)

    @property
    def holds_database(self) -> bool:
        """Whether a bridge has it open; of one on a server, which several may have open, whether
        one listens here."""
        if self.database_file is None:
            return self._is_ours(self.config.api.port)
        return is_held(_lock_of(self.database_file))

    def _is_ours(self, port: int) -> bool:
        """Whether a bridge runs, and nobody else's program listens on the port."""
        file, there = self.database_file, listeners(port)
        if file is None:
            # Whoever has its configuration is the bridge, or whom it is examined as: the file may
            # be root's, as of a ConfigMap or in /etc.
            return bool(there) and there <= {self.path.stat().st_uid, os.getuid(), _ROOT}
        return self.holds_database and there <= {_lock_of(file).stat().st_uid, _ROOT}

    @property
    def is_embedded(self) -> bool:
        """Whether it is the bridge of a stack of `up`."""
        return (self.config.directory / LOCK).exists()

    @property
    def stack_runs(self) -> bool:
        return is_held(self.config.directory / LOCK)

    async def directory(self) -> AgentDirectory:
        """The agents that the bridge knows; none where there is no database. Raises StoreError."""
        file = self.database_file
        if file is not None and not await asyncio.to_thread(file.is_file):
            # Looking into it would make one.
            return AgentDirectory(self.database)
        if await self.database.revision() is None:
            return AgentDirectory(self.database)
        return await AgentDirectory(self.database).load()

    async def agents(self) -> list[Agent]:
        """The active ones. Raises StoreError."""
        return (await self.directory()).active()

    def told(self) -> list[tuple[str, Trouble]]:
        """What the running bridge says is wrong, by the names of its checks."""
        checks = as_list((self.health or {}).get("checks"))
        return [
            (
                string_of(one, "name"),
                Trouble(
                    string_of(one, "says"),
                    string_of(one, "remedy"),
                    warns=one.get("state") == "warning",
                ),
            )
            for one in checks
            if one.get("state") in ("warning", "trouble")
        ]


def _lock_of(file: Path) -> Path:
    path = file.resolve()
    return path.with_name(path.name + ".lock")


def is_here(url: str) -> bool:
    """Whether an address is one of this machine."""
    return is_loopback(urlsplit(url).hostname or "")


def is_private(url: str) -> bool:
    """Whether it is of this machine or a network behind it, as its name or number tells:
    `synapse`, as containers are called, `nas.local`, 10.0.0.2."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        name = host.rstrip(".")
        return is_here(url) or "." not in name or name.endswith(_PRIVATE_NAMES)


_PRIVATE_NAMES = (".local", ".internal", ".lan", ".home.arpa")


def _host_of(domain: str) -> str:
    """The host of a server name, without its port (spec: Well-known URI)."""
    return domain if domain.endswith("]") or ":" not in domain else domain.rpartition(":")[0]
