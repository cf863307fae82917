"""The keeper's doors: a Unix socket for the bridge of this machine, a port for those of others.

Who knows no secret gets nothing, and cannot keep out who does.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, cast

import structlog

from letta_matrix.common.connections.admission import Accepted, Connections
from letta_matrix.common.connections.listener import Listener
from letta_matrix.common.tasks import Tasks
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.line import Line
from letta_matrix.runtimes.keeper.secret import nonce, proof, same
from letta_matrix.runtimes.keeper.server import Guest, Keeper, StaleEpoch, Target

GREETING = 64_000
"""Bytes of what somebody says first, whoever it is."""
SILENCE = 20.0
"""Seconds until whoever connects has to say something."""
PATIENCE = 5.0
"""Seconds until who comes over TCP has to have said who it is."""
STRANGERS = 100
"""Connections over TCP that have not said it yet; beyond that the oldest make room."""
_GONE = (asyncio.IncompleteReadError, OSError, ValueError, KeyError, TypeError)
"""It has gone, or speaks another language."""

log = structlog.get_logger()


class _Door:
    def __init__(self) -> None:
        self._visits = Tasks()

    def arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak with somebody who has connected, until the door is closed."""
        self._visits.start(self.serve(reader, writer))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak with one bridge until it goes away or another takes its place."""
        raise NotImplementedError

    async def close(self) -> None:
        """Hang up on whoever is there."""
        await self._visits.cancel()


class LocalDoor(_Door):
    """Lets in who knows the `secret` that lies beside the socket. They say where their App Server
    is, and may end the keeper."""

    def __init__(self, keeper: Keeper, secret: str) -> None:
        super().__init__()
        self._keeper = keeper
        self._secret = secret

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """See `_Door.serve`."""
        try:
            async with asyncio.timeout(SILENCE):
                message = await _greeting(reader)
            if message["type"] == "ping":
                writer.write(wire.pack_control({"type": "pong"}))
            elif message["type"] == "attach" and same(message.get("secret"), self._secret):
                target = Target(message["url"], message["token"], message.get("pid_file"))
                await self._keeper.attend(Guest(message, reader, writer, may_end=True), target)
            elif message["type"] == "end" and same(message.get("secret"), self._secret):
                self._keeper.end()
        except StaleEpoch:
            writer.write(wire.refused("epoch", epoch=self._keeper.epoch))
        except _GONE:
            pass
        finally:
            writer.close()


class _Visitor(Accepted, Line):
    """A connection from elsewhere; until it is let in, it makes room for others."""

    def is_idle(self) -> bool:
        return True

    def is_awaited(self) -> bool:
        return False

    def let_in(self) -> None:
        self.among.leave(self)
        self._take_time()
        self.watch()

    def pause_writing(self) -> None:
        if self._look is None:
            super().pause_writing()
        else:
            # It may take long for a long stream; that it lives is known otherwise.
            Line.pause_writing(self)


class RemoteDoor(_Door):
    """Lets in who proves to know the `token`. Whoever that is gets the one App Server, `target`,
    and nothing else of this machine."""

    def __init__(self, keeper: Keeper, token: str, target: Target) -> None:
        super().__init__()
        self._keeper = keeper
        self._token = token
        self._target = target
        self.strangers = Connections(STRANGERS)
        self._listeners: list[Listener] = []

    def listen(self, sockets: Sequence[socket.socket]) -> int:
        """Let them come, from now on; the port."""
        self._listeners.append(Listener(sockets, self._visitor, self.strangers))
        return self._listeners[-1].port

    async def close(self) -> None:
        """Let nobody come any more, and hang up on whoever is there."""
        for listener in self._listeners:
            listener.close()
        await super().close()

    def _visitor(self) -> _Visitor:
        return _Visitor(asyncio.StreamReader(), self.arrived)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """See `_Door.serve`."""
        visitor, ours = cast("_Visitor", writer.transport.get_protocol()), nonce()
        writer.write(wire.pack_control({"type": "hello", "nonce": ours, **wire.versions()}))
        try:
            async with asyncio.timeout(PATIENCE):
                message = await _greeting(reader)
            if refusal := self._refusal(message, ours):
                log.warning("a bridge is refused", peer=_host_of(writer), reason=refusal)
                writer.write(wire.refused(refusal))
                return
            answer = proof(self._token, "keeper", ours, message["nonce"])
            if message["type"] == "look":
                writer.write(wire.pack_control({**self._keeper.status(), "proof": answer}))
            elif message["type"] == "attach":
                visitor.let_in()
                await self._attend(Guest(message, reader, writer), answer)
        except StaleEpoch:
            latest = self._keeper.epoch
            log.warning("an earlier bridge is refused", peer=_host_of(writer), latest=latest)
            writer.write(wire.refused("epoch", epoch=latest))
        except _GONE:
            pass
        finally:
            writer.close()

    async def _attend(self, guest: Guest, answer: str) -> None:
        peer, epoch = _host_of(guest.writer), self._keeper.epoch_of(guest)
        log.info("a bridge is attached", peer=peer, epoch=epoch)
        try:
            await self._keeper.attend(guest, self._target, proof=answer)
        finally:
            log.info("a bridge is gone", peer=peer, epoch=epoch)

    def _refusal(self, message: dict[str, Any], ours: str) -> str:
        """Why somebody comes no further, "" for nothing."""
        expected = proof(self._token, "bridge", ours, message["nonce"])
        if not same(message.get("proof"), expected):
            return "token"
        return "" if message.get("protocol") == wire.PROTOCOL else "protocol"


async def _greeting(reader: asyncio.StreamReader) -> dict[str, Any]:
    kind, payload = await wire.read_record(reader, GREETING)
    return wire.unpack_control(payload) if kind == wire.CONTROL else {}


def _host_of(writer: asyncio.StreamWriter) -> str:
    # Without its port: of one that comes again and again, a line a minute is enough.
    return str((writer.get_extra_info("peername") or ("gone",))[0])
