"""A keeper that runs beside its App Server, on another machine perhaps; none is started here."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from letta_matrix.common.addresses import Place
from letta_matrix.common.backoff import Backoff
from letta_matrix.common.connections.unreached import why_unreached
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.line import Line
from letta_matrix.runtimes.keeper.places import Attached, Json, KeeperFault, KeeperPlace, refusal
from letta_matrix.runtimes.keeper.secret import nonce, proof, same

PATIENCE = 5.0
"""Seconds in which a keeper has to answer, and to let us in."""
_ANSWER = 64_000
"""Bytes of what a keeper says before it is known to be one."""


class RemoteKeeper(KeeperPlace):
    """At an address. Keeper and bridge show each other that they know the token, without saying
    it; `token` is asked at each try, and raises OSError where there is none."""

    pauses = Backoff(0.1, longest=2.0, growth=1.5)
    advice = "a keeper has room for one bridge at a time"

    def __init__(self, place: Place, token: Callable[[], str]) -> None:
        self.name = f"the keeper at {place}"
        self._place = place
        self._token = token

    async def attach(self, wanted: Mapping[str, object]) -> Attached | None:
        """See `KeeperPlace.attach`; the keeper has answered."""
        return await self._ask({**wanted, "type": "attach"})

    async def look(self) -> Json:
        """How the keeper and its App Server are, as `Keeper.status` tells; whoever is attached
        stays so. Raises KeeperFault."""
        attached = await self._ask({"type": "look"})
        attached.writer.close()
        return attached.answers[0]

    async def _ask(self, wanted: Mapping[str, object]) -> Attached:
        with ExitStack() as failed:
            try:
                token = self._token()
            except OSError as error:
                raise KeeperFault(f"the token for {self.name}: {error}", refused=True) from None
            try:
                async with asyncio.timeout(PATIENCE):
                    reader, writer = await self._connect()
                    failed.callback(writer.transport.abort)
                    answer = await self._introduced(token, wanted, reader, writer)
            except (asyncio.IncompleteReadError, OSError, ValueError) as error:
                raise KeeperFault(self._why(error)) from None
            failed.pop_all()
        return Attached(reader, writer, [answer])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port, tls = self._place
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        context = ssl.create_default_context() if tls else None
        transport, line = await loop.create_connection(
            lambda: Line(reader), host, port, ssl=context
        )
        return reader, asyncio.StreamWriter(transport, line, reader, loop)

    async def _introduced(
        self,
        token: str,
        wanted: Mapping[str, object],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> Json:
        hello = await _control(reader)
        theirs, ours = str(hello.get("nonce")), nonce()
        if hello.get("type") != "hello":
            raise ValueError
        if hello.get("protocol") != wire.PROTOCOL:
            raise refusal(self.name, {**hello, "why": "protocol"})
        shown = proof(token, "bridge", theirs, ours)
        greeting = {**wanted, **wire.versions(), "nonce": ours, "proof": shown}
        writer.write(wire.pack_control(greeting))
        answer = await _control(reader)
        if answer.get("type") == "refused":
            raise refusal(self.name, answer)
        if not same(answer.get("proof"), proof(token, "keeper", theirs, ours)):
            raise KeeperFault(f"{self.name} does not know our token", refused=True)
        line = writer.transport.get_protocol()
        if isinstance(line, Line):
            line.watch()
        return answer

    def _why(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"{self.name} does not answer"
        if isinstance(error, OSError):
            return f"{self.name} cannot be reached: {why_unreached(error)}"
        return f"who answers at {self._place} is no keeper of letta-matrix"


async def _control(reader: asyncio.StreamReader) -> Json:
    kind, payload = await wire.read_record(reader, _ANSWER)
    return wire.unpack_control(payload) if kind == wire.CONTROL else {}
