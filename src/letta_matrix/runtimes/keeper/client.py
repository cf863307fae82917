"""The bridge's side of the keeper: attach, send, replay; start a keeper where none answers."""

import asyncio
import contextlib
import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from letta_matrix.common import clock
from letta_matrix.common.backoff import Backoff
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.secret import secret_at
from letta_matrix.runtimes.keeper.wire import Frame

SPAWN_PAUSE = 1.0
REPLACED_PAUSE = 30.0
"""Seconds before a bridge that another one threw out tries again."""
REPLAY_TIMEOUT = 20.0
MAX_SOCKET_PATH = 107
_PAUSES = Backoff(0.05, longest=0.5, growth=1.5)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Link:
    """What the keeper said last of itself and of the App Server; `made` counts connections,
    the spare one's too."""

    epoch: str = ""
    generation: int = 0
    made: int = 0
    up: bool = False
    refused: bool = False
    reason: str = "the keeper is not attached yet"

    def same_stream(self, epoch: object, generation: object) -> bool:
        return self.up and self.epoch == epoch and self.generation == generation


@dataclass(slots=True)
class Replay:
    """Kept frames; `gap` tells that older ones had to go, `seq` where live frames go on."""

    gap: bool
    seq: int
    frames: list[Frame] = field(default_factory=list[Frame])


class KeeperGone(Exception):
    """The keeper went away while it was asked something."""


class Replaced(Exception):
    """Another bridge attached."""


class KeeperClient:
    """Keeps one attachment to the keeper at `socket`, for ever.

    `on_frame` gets each live frame in order, `on_link` each change of `link`. Frames that
    start with a `muted` prefix never come; those with a `transient` one are not kept; those
    with a `single` one are taken from the spare connection too. `pid_file` tells which process
    the App Server has to be, if that is known.
    """

    def __init__(
        self,
        socket: Path,
        url: str,
        token: str | None,
        on_frame: Callable[[Frame], None],
        on_link: Callable[[Link], None],
        *,
        muted: Sequence[str] = (),
        transient: Sequence[str] = (),
        single: Sequence[str] = (),
        arguments: Sequence[str] = (),
        pid_file: Path | None = None,
    ) -> None:
        self.link = Link()
        self.seq = 0
        self._socket = socket
        self._attach = {
            "url": url,
            "token": token,
            "muted": muted,
            "transient": transient,
            "single": single,
            "pid_file": None if pid_file is None else str(pid_file),
        }
        self._on_frame = on_frame
        self._on_link = on_link
        self._arguments = arguments
        self._writer: asyncio.StreamWriter | None = None
        self._replays: dict[int, asyncio.Future[Replay]] = {}
        self._ids = itertools.count(1)
        self._spawned_at = -SPAWN_PAUSE
        self._failure = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Detach; the keeper and what it holds stay."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def send(self, text: bytes, *, everywhere: bool = False) -> None:
        """Send a frame on the upstream connection of `link`'s generation, or nowhere; on the
        spare one too with `everywhere`."""
        self._write(wire.pack_send(self.link.generation, text, everywhere=everywhere))

    def acknowledge(self, seq: int) -> None:
        if self._writer is not None:
            self._write(wire.pack_ack(seq))

    async def replay(self, since: int, contains: str) -> Replay:
        """Kept frames after `since` that have `contains` in their text.

        Raises:
            KeeperGone: the keeper is not there, or did not answer within `REPLAY_TIMEOUT`.
        """
        number = next(self._ids)
        future = asyncio.get_running_loop().create_future()
        self._replays[number] = future
        try:
            message = {"type": "replay", "id": number, "since": since, "contains": contains}
            self._write(wire.pack_control(message))
            async with asyncio.timeout(REPLAY_TIMEOUT):
                return await future
        except TimeoutError:
            raise KeeperGone("the keeper does not answer") from None
        finally:
            self._replays.pop(number, None)

    def _write(self, record: bytes) -> None:
        if self._writer is None:
            raise KeeperGone("the keeper is not attached")
        self._writer.write(record)

    async def _run(self) -> None:
        pauses, least = iter(_PAUSES), 0.0
        while True:
            if (connection := await self._connect()) is not None:
                pauses, least = iter(_PAUSES), await self._stay(*connection)
            await asyncio.sleep(max(next(pauses), least))
            least = 0.0

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        try:
            return await asyncio.open_unix_connection(self._socket)
        except OSError as error:
            if len(str(self._socket)) > MAX_SOCKET_PATH:
                self._unlink(f"keeper_socket is longer than {MAX_SOCKET_PATH} characters")
            elif clock.now() > self._spawned_at + SPAWN_PAUSE:
                self._spawned_at = clock.now()
                await self._start_keeper(error.strerror)
            return None

    async def _start_keeper(self, reason: str | None) -> None:
        if not self._failure:
            _log.info("starting a keeper", reason=reason)
        try:
            await self._spawn()
        except OSError as error:
            failure = f"a keeper cannot be started: {error}"
            if failure != self._failure:
                _log.warning("a keeper cannot be started", reason=str(error))
                self._failure = failure
                self._unlink(failure)
        else:
            self._failure = ""

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

    async def _stay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        """Be attached until that ends; how many seconds to wait at least then."""
        self._writer = writer
        pause, reason = 0.0, "not attached to the keeper"
        try:
            attach = {"type": "attach", "secret": secret_at(self._socket), **self._attach}
            writer.write(wire.pack_control(attach))
            while True:
                kind, payload = await wire.read_record(reader)
                if kind == wire.FRAME:
                    frame = wire.unpack_frame(payload)
                    self.seq = frame.seq
                    self._on_frame(frame)
                elif kind == wire.CONTROL:
                    await self._control(wire.unpack_control(payload), reader)
        except (asyncio.IncompleteReadError, OSError, ValueError):
            pass
        except Replaced:
            # Attaching at once would only throw the newer bridge out.
            pause, reason = REPLACED_PAUSE, "another letta-matrix took the keeper over"
            _log.warning(
                "another letta-matrix took the keeper over; give each a `keeper_socket` of its own",
                socket=str(self._socket),
                next_try_in_seconds=pause,
            )
        finally:
            self._writer = None
            writer.close()
            self._unlink(reason)
        return pause

    async def _control(self, message: dict[str, Any], reader: asyncio.StreamReader) -> None:
        if message["type"] == "replay":
            await self._read_replay(message, reader)
        elif message["type"] == "replaced":
            raise Replaced
        elif message.get("protocol") != wire.PROTOCOL:
            _log.warning("ending a keeper of another version", socket=str(self._socket))
            self._write(wire.pack_control({"type": "end"}))
        else:
            self.seq = message["seq"]
            fields = ("epoch", "generation", "made", "up", "refused", "reason")
            self.link = Link(**{name: message[name] for name in fields})
            self._on_link(self.link)

    async def _read_replay(self, message: dict[str, Any], reader: asyncio.StreamReader) -> None:
        replay = Replay(message["gap"], message["seq"])
        for _ in range(message["count"]):
            _, payload = await wire.read_record(reader)
            replay.frames.append(wire.unpack_frame(payload))
        future = self._replays.get(message["id"])
        if future is not None and not future.done():
            future.set_result(replay)

    def _unlink(self, reason: str) -> None:
        self.link = Link(reason=reason)
        for future in self._replays.values():
            if not future.done():
                future.set_exception(KeeperGone(reason))
        self._on_link(self.link)
