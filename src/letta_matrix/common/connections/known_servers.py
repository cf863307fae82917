"""Servers on this machine that are known by their process, not only by their port.

Whoever runs programs here can listen on a port that is free for a moment, and would be told the
secrets of those who connect. So the process at the other end of a connection is looked at before
anything is sent.
"""

import asyncio
import ipaddress
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler

from letta_matrix.common.connections import socket_table
from letta_matrix.common.connections.socket_table import Address, Entry
from letta_matrix.common.private_files import write_private

_LOOKS = (0.001, 0.002, 0.005, 0.01, 0.02, *(0.05,) * 20, 0.1)
"""Pauses between looks whether a connection was accepted."""
_ABSENT = 1.0
"""Seconds in which a connection that was made has to be in the table."""


class NotOurServerError(aiohttp.ClientConnectionError):
    """Somebody else listens; the text says where, and who."""


class KnownServer:
    """The server at a port of 127.0.0.1 that runs in the process which `pid_file` tells.

    `trouble` says, until it is over, that somebody else listened there; `tell` is told of it once.
    """

    def __init__(
        self, name: str, port: int, pid_file: Path, tell: Callable[[str], None] | None = None
    ) -> None:
        self.port = port
        self.trouble = ""
        self._trusts = False
        self._name = name
        self._pid_file = pid_file
        self._tell = tell or _warn

    @property
    def process(self) -> str | None:
        """What tells its process from every other; "" while there is none, None where this system
        does not tell."""
        if not socket_table.is_known_here():
            return None
        told, pid = self._told()
        return told if pid is not None and socket_table.identity_of(pid) == told else ""

    async def check(self, ours: Address, theirs: Address) -> None:
        """Make sure that the connection from `ours` to `theirs` was accepted by that process;
        waits until somebody accepts it.

        Raises:
            NotOurServerError: it was not, or nobody can tell.
        """
        if not socket_table.is_known_here():
            self._trust(theirs[1])
            return
        entry = await _accepted(ours, theirs)
        if entry is None:
            raise NotOurServerError(f"the {self._name} closed the connection")
        if not await asyncio.to_thread(self._holds, entry.inode):
            self._say(
                f"port {theirs[1]} was taken by another program (uid {entry.uid}): the "
                f"{self._name} should listen there; nothing was sent to it"
            )
            raise NotOurServerError(self.trouble)
        self.trouble = ""

    def _holds(self, inode: int) -> bool:
        told, pid = self._told()
        if pid is None:
            return False
        # The identity last: the number may have come to somebody else meanwhile.
        return inode in socket_table.held_by(pid) and socket_table.identity_of(pid) == told

    def _told(self) -> tuple[str, int | None]:
        try:
            told = self._pid_file.read_text(encoding="ascii").strip()
            return told, int(told.partition(" ")[0])
        except (OSError, ValueError):
            return "", None

    def _trust(self, port: int) -> None:
        if not self._trusts:
            self._tell(
                f"this system does not tell who listens on port {port}, so other users of it could "
                f"pretend to be the {self._name}"
            )
        self._trusts = True

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self._tell(trouble)
        self.trouble = trouble


class CheckedConnector(aiohttp.TCPConnector):
    """Hands out connections to the ports of `servers` on loopback only when they lead to those."""

    def __init__(self, servers: Sequence[KnownServer] = (), **options: Any) -> None:
        super().__init__(**options)
        self._servers = {server.port: server for server in servers}

    async def _create_connection(
        self, req: Any, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        protocol = await super()._create_connection(req, traces, timeout)
        try:
            await self._check(protocol.transport)
        except BaseException:
            protocol.close()
            raise
        return protocol

    async def _check(self, transport: asyncio.BaseTransport | None) -> None:
        if transport is None:
            raise NotOurServerError("the connection was closed at once")
        ours, theirs = (transport.get_extra_info(name) for name in ("sockname", "peername"))
        server = self._servers.get(theirs[1])
        if server is None or not ipaddress.ip_address(theirs[0]).is_loopback:
            return
        if ":" in theirs[0]:
            raise NotOurServerError(f"port {theirs[1]} is known on 127.0.0.1 only")
        await server.check(ours[:2], theirs[:2])


def server_at(url: str, pid_file: Path | None, name: str) -> list[KnownServer]:
    """The server at an address, if there is a file that tells its process."""
    port = urlsplit(url).port
    return [] if pid_file is None or port is None else [KnownServer(name, port, pid_file)]


def note_process(pid_file: Path, pid: int) -> None:
    """Let `pid` be the process that `pid_file` tells. Raises OSError."""
    write_private(pid_file, f"{socket_table.identity_of(pid) or ''}\n")


async def _accepted(ours: Address, theirs: Address) -> Entry | None:
    """The other end of a connection, once it was accepted; None when it is no more."""
    absent_since = time.monotonic()
    looks = iter(_LOOKS)
    while True:
        entry = await asyncio.to_thread(socket_table.socket_between, theirs, ours)
        if entry is not None and not entry.waits:
            return entry if entry.inode else None
        now = time.monotonic()
        if entry is not None:
            absent_since = now
        elif now - absent_since > _ABSENT:
            return None
        await asyncio.sleep(next(looks, _LOOKS[-1]))


def _warn(trouble: str) -> None:
    # The keeper is small, and has no other use for it.
    import structlog

    structlog.get_logger().warning("a server is not known", reason=trouble)
