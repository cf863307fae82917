"""The keeper itself: one bridge on one side, one App Server on the other."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from letta_matrix.common.connections.known_servers import server_at
from letta_matrix.common.loopback import is_loopback
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.buffer import FrameBuffer
from letta_matrix.runtimes.keeper.upstream import Upstream

MAX_BACKLOG = 64 * 1024 * 1024
"""Bytes a bridge may leave unread before it counts as gone."""


def is_remote(url: str) -> bool:
    """Whether an App Server's address leaves this machine."""
    return not is_loopback(urlsplit(url).hostname or "")


class Target(NamedTuple):
    """Where an App Server is, what it wants to be told, and which process it has to be."""

    url: str
    token: str | None = None
    pid_file: str | None = None


@dataclass(frozen=True, slots=True)
class Guest:
    """A bridge that a door let in: what it said, and its connection. Some may end the keeper."""

    greeting: dict[str, Any]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    may_end: bool = False


class StaleEpoch(Exception):
    """A bridge of a later epoch was here."""


class Keeper:
    """Passes frames between the attached bridge and the App Server, and remembers them.

    `life` names this keeper's life, `generation` counts the upstream connections in it. `epoch` is
    the highest that a bridge has come with: of several replicas that take over from each other,
    one with a lower epoch has been asleep, and is not heard any more.
    """

    def __init__(
        self, max_bytes: int, idle: Callable[[bool], None], end: Callable[[], None]
    ) -> None:
        self.life = secrets.token_hex(8)
        self.generation = 0
        self.epoch = 0
        self._buffer = FrameBuffer(max_bytes)
        self._idle = idle
        self.end = end
        self._target: Target | None = None
        self._connections: list[Upstream] = []
        self._bridge: asyncio.StreamWriter | None = None
        self._made = 0
        self._muted: tuple[bytes, ...] = ()
        self._transient: tuple[bytes, ...] = ()
        self._single: tuple[bytes, ...] = ()

    async def attend(self, guest: Guest, target: Target, **answer: object) -> None:
        """Serve a bridge until it goes away or another takes its place; `answer` goes with the
        word that it is attached.

        Raises:
            StaleEpoch: see there.
            OSError, asyncio.IncompleteReadError: it is gone.
            ValueError, KeyError, TypeError: it speaks another language.
        """
        writer = guest.writer
        self._let_in(guest)
        try:
            await self.aim(target)
            writer.write(wire.pack_control({**self.status(), **answer, "type": "attached"}))
            # Only the bridge has more to say.
            while self._bridge is writer:
                kind, payload = await wire.read_record(guest.reader)
                if self._bridge is writer:
                    await self._handle(kind, payload, guest)
        finally:
            if self._bridge is writer:
                self._bridge = None
                self._idle(True)

    def epoch_of(self, guest: Guest) -> int:
        """The one that a bridge comes with. Raises StaleEpoch, and TypeError for none."""
        epoch = guest.greeting.get("epoch", 0)
        if not isinstance(epoch, int):
            raise TypeError("an epoch is a number")
        if epoch < self.epoch:
            raise StaleEpoch
        return epoch

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()
        if self._bridge is not None:
            self._bridge.close()

    async def _handle(self, kind: bytes, payload: bytes, guest: Guest) -> None:
        if kind == wire.CONTROL:
            message = wire.unpack_control(payload)
            if message["type"] == "replay":
                self._replay(message, guest.writer)
            elif message["type"] == "end" and guest.may_end:
                self.end()
        elif kind in (wire.SEND, wire.BROADCAST):
            await self._send(payload, everywhere=kind == wire.BROADCAST)
        elif kind == wire.ACK:
            self._buffer.acknowledge(wire.unpack_ack(payload))

    async def _send(self, payload: bytes, *, everywhere: bool) -> None:
        generation, text = wire.unpack_send(payload)
        # A new connection has no subscriptions and, unless told, no permission mode: what was
        # meant for the one before must not go out on it.
        if generation == self.generation:
            for connection in self._connections if everywhere else self._connections[:1]:
                await connection.send(text)

    def _let_in(self, guest: Guest) -> None:
        greeting, epoch = guest.greeting, self.epoch_of(guest)
        prefixes = {
            name: tuple(prefix.encode() for prefix in greeting.get(name, ()))
            for name in ("muted", "transient", "single")
        }
        if self._bridge is not None:
            self._cut_off(self._bridge, epoch)
        self.epoch, self._bridge = epoch, guest.writer
        self._muted, self._transient, self._single = prefixes.values()
        self._idle(False)

    def _cut_off(self, bridge: asyncio.StreamWriter, epoch: int) -> None:
        if epoch == self.epoch:
            bridge.write(wire.pack_control({"type": "replaced"}))
        elif bridge.transport.get_write_buffer_size():
            # It takes nothing: closing would wait for that.
            bridge.transport.abort()
        else:
            bridge.write(wire.refused("epoch", epoch=epoch))
        bridge.close()

    async def aim(self, target: Target) -> None:
        """Be connected with that App Server, from now on."""
        if self._target == target:
            return
        for connection in self._connections:
            await connection.close()
        self._target = target
        url, token, pid_file = target
        remote = is_remote(url)
        known = server_at(url, Path(pid_file) if pid_file else None, "App Server")
        self._connections = [
            Upstream(url, token, self._received, self._changed, remote, known)
            for _ in range(2 if remote else 1)
        ]

    def _replay(self, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        frames, gap = self._buffer.after(message["since"], message["contains"].encode())
        head: dict[str, object] = {"type": "replay", "id": message["id"], "count": len(frames)}
        writer.write(wire.pack_control({**head, "gap": gap, "seq": self._buffer.seq}))
        writer.writelines(wire.pack_frame(frame) for frame in frames)

    def _received(self, connection: Upstream, text: bytes) -> None:
        spare = connection is not self._connections[0] and not text.startswith(self._single)
        if spare or text.startswith(self._muted):
            return
        keep = not text.startswith(self._transient)
        frame = self._buffer.number(self.generation, text, keep=keep)
        if self._bridge is None:
            return
        self._bridge.write(wire.pack_frame(frame))
        if self._bridge.transport.get_write_buffer_size() > MAX_BACKLOG:
            self._bridge.transport.abort()

    def _changed(self, connection: Upstream) -> None:
        self._made += connection.up
        first = self._connections[0]
        up = next((one for one in self._connections if one.up), None)
        if up is not None and (connection is first or not first.up):
            self._connections.remove(up)
            self._connections.insert(0, up)
            self.generation += 1
        if self._bridge is not None:
            self._bridge.write(wire.pack_control(self.status()))

    def status(self) -> dict[str, object]:
        """How it is, and its App Server; for once it was aimed at one."""
        first = self._connections[0]
        return {
            "type": "status",
            "protocol": wire.PROTOCOL,
            "life": self.life,
            "generation": self.generation,
            "made": self._made,
            "seq": self._buffer.seq,
            "up": first.up,
            "spare": len(self._connections) > 1,
            "reason": first.reason,
            "refused": first.refused,
        }
