"""The keeper itself: one bridge on one side, one App Server on the other."""

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from letta_matrix.common.connections.known_servers import server_at
from letta_matrix.common.loopback import is_loopback
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.buffer import FrameBuffer
from letta_matrix.runtimes.keeper.upstream import Upstream

GREETING = 64_000
"""Bytes of what somebody says first, whoever it is."""
SILENCE = 20.0
"""Seconds until whoever connects has to say something."""
MAX_BACKLOG = 64 * 1024 * 1024
"""Bytes a bridge may leave unread before it counts as gone."""


def is_remote(url: str) -> bool:
    """Whether an App Server's address leaves this machine."""
    return not is_loopback(urlsplit(url).hostname or "")


class Keeper:
    """Passes frames between the attached bridge and the App Server, and remembers them.

    `epoch` names this keeper's life, `generation` counts the upstream connections in it. Who
    does not know `secret` gets nothing.
    """

    def __init__(
        self, max_bytes: int, idle: Callable[[bool], None], end: Callable[[], None], secret: str
    ) -> None:
        self._secret = secret
        self.epoch = secrets.token_hex(8)
        self.generation = 0
        self._buffer = FrameBuffer(max_bytes)
        self._idle = idle
        self._end = end
        self._target: tuple[str, str | None, str | None] | None = None
        self._connections: list[Upstream] = []
        self._bridge: asyncio.StreamWriter | None = None
        self._made = 0
        self._muted: tuple[bytes, ...] = ()
        self._transient: tuple[bytes, ...] = ()
        self._single: tuple[bytes, ...] = ()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak with one bridge until it goes away or another takes its place."""
        try:
            async with asyncio.timeout(SILENCE):
                kind, payload = await wire.read_record(reader, GREETING)
            await self._handle(kind, payload, writer)
            # Only the bridge has more to say.
            while self._bridge is writer:
                kind, payload = await wire.read_record(reader)
                await self._handle(kind, payload, writer)
        except (asyncio.IncompleteReadError, OSError, ValueError, KeyError, TypeError):
            pass  # gone, or one that speaks another language
        finally:
            writer.close()
            if self._bridge is writer:
                self._bridge = None
                self._idle(True)

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()
        if self._bridge is not None:
            self._bridge.close()

    async def _handle(self, kind: bytes, payload: bytes, writer: asyncio.StreamWriter) -> None:
        message = wire.unpack_control(payload) if kind == wire.CONTROL else {}
        control = message["type"] if kind == wire.CONTROL else ""
        if control == "attach":
            await self._attach(message, writer)
        elif control == "ping":
            writer.write(wire.pack_control({"type": "pong"}))
        elif writer is not self._bridge:
            return
        elif control == "replay":
            self._replay(message, writer)
        elif control == "end":
            self._end()
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

    async def _attach(self, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if not secrets.compare_digest(str(message.get("secret")).encode(), self._secret.encode()):
            raise ValueError("whoever connected does not know the secret")
        if self._bridge is not None and self._bridge is not writer:
            self._bridge.write(wire.pack_control({"type": "replaced"}))
            self._bridge.close()
        self._bridge = writer
        self._idle(False)
        self._muted = tuple(prefix.encode() for prefix in message["muted"])
        self._transient = tuple(prefix.encode() for prefix in message["transient"])
        self._single = tuple(prefix.encode() for prefix in message.get("single", ()))
        await self._aim(message["url"], message["token"], message.get("pid_file"))
        writer.write(wire.pack_control({**self._status(), "type": "attached"}))

    async def _aim(self, url: str, token: str | None, pid_file: str | None) -> None:
        if self._target == (url, token, pid_file):
            return
        for connection in self._connections:
            await connection.close()
        self._target = (url, token, pid_file)
        remote = is_remote(url)
        known = server_at(url, Path(pid_file) if pid_file else None, "App Server")
        self._connections = [
            Upstream(url, token, self._received, self._changed, remote=remote, known=known)
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
            self._bridge.write(wire.pack_control(self._status()))

    def _status(self) -> dict[str, object]:
        first = self._connections[0]
        return {
            "type": "status",
            "protocol": wire.PROTOCOL,
            "epoch": self.epoch,
            "generation": self.generation,
            "made": self._made,
            "seq": self._buffer.seq,
            "up": first.up,
            "reason": first.reason,
            "refused": first.refused,
        }
