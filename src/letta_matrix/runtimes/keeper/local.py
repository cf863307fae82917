"""The keeper on this machine, which the bridge starts where none answers."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import structlog

from letta_matrix.common import clock
from letta_matrix.common.backoff import Backoff
from letta_matrix.common.sureness import Sure, alone
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.places import Attached, KeeperFault, KeeperPlace
from letta_matrix.runtimes.keeper.secret import secret_at
from letta_matrix.runtimes.keeper.server import Target

SPAWN_PAUSE = 1.0
MAX_SOCKET_PATH = 107
_log = structlog.get_logger()


class LocalKeeper(KeeperPlace):
    """At a Unix socket. It is told where the App Server is: `target`."""

    pauses = Backoff(0.05, longest=0.5, growth=1.5)
    advice = "give each a `keeper_socket` of its own"

    def __init__(
        self,
        socket: Path,
        target: Target,
        *,
        arguments: Sequence[str] = (),
        sure: Sure | None = None,
    ) -> None:
        self._sure = sure or alone
        self.name = f"the keeper at {socket}"
        self._socket = socket
        self._target = target
        self._arguments = arguments
        self._spawned_at = -SPAWN_PAUSE
        self._failing = False

    async def attach(self, wanted: Mapping[str, object]) -> Attached | None:
        """See `KeeperPlace.attach`."""
        try:
            return await self._say({"type": "attach", **self._target._asdict(), **wanted})
        except OSError as error:
            if len(str(self._socket)) > MAX_SOCKET_PATH:
                raise KeeperFault(
                    f"keeper_socket is longer than {MAX_SOCKET_PATH} characters"
                ) from None
            if clock.now() > self._spawned_at + SPAWN_PAUSE:
                self._spawned_at = clock.now()
                await self._start(error.strerror)
            return None

    async def end_outdated(self) -> bool:
        """See `KeeperPlace.end_outdated`."""
        await self._sure()
        try:
            said = await self._say({"type": "end"})
        except (OSError, KeeperFault):
            return False
        said.writer.close()
        return True

    async def _say(self, message: Mapping[str, object]) -> Attached:
        """Say something as who knows the keeper's secret. Raises OSError where none is there, and
        KeeperFault."""
        reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            secret = secret_at(self._socket)
        except OSError as error:
            writer.close()
            raise KeeperFault(str(error)) from None
        writer.write(wire.pack_control({**message, "secret": secret}))
        return Attached(reader, writer)

    async def _start(self, reason: str | None) -> None:
        if not self._failing:
            _log.info("starting a keeper", reason=reason)
        try:
            await self._spawn()
        except OSError as error:
            self._failing = True
            raise KeeperFault(f"a keeper cannot be started: {error}") from None
        self._failing = False

    async def _spawn(self) -> None:
        command = [sys.executable, "-m", "letta_matrix.runtimes.keeper", "--detach"]
        command += ["--socket", str(self._socket), *self._arguments]
        with self._open_log() as log:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        await process.wait()

    def _open_log(self) -> BinaryIO:
        self._socket.parent.mkdir(parents=True, exist_ok=True)
        return self._socket.with_name(self._socket.name + ".log").open("ab")
