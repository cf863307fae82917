"""One of several replicas: it stands by, acts, and makes way for the next."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

import structlog

from letta_matrix.app.seat import DRAINING, RUNNING, STANDBY, STARTING, Seat
from letta_matrix.app.standby import Standby
from letta_matrix.common.connections.listening import PortTakenError, check_free
from letta_matrix.common.parts import part
from letta_matrix.common.waiting import ended, first, is_set
from letta_matrix.config import Config
from letta_matrix.store.database import StoreError

log = structlog.get_logger()

_AGAIN = 2.0
"""Seconds until a replica that could not begin to act tries again."""
_STARTING = 120.0
_CLOSING = 5.0


class Acting(Protocol):
    """What acts: the bridge. It is to begin anew where it is `unsure` what is stored."""

    @property
    def unsure(self) -> asyncio.Event: ...
    async def start(self) -> None: ...
    async def drain(self, within: float) -> None: ...
    async def close(self) -> None: ...


Make = Callable[[Seat], Acting]


@part
class Replicas:
    """Runs this replica: what `make` makes acts whenever the seat is ours."""

    _config: Config
    _seat: Seat
    _make: Make

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`. Raises StoreError or PortTakenError where it cannot even stand by."""
        seat = self._seat
        check_free(self._config.listens)
        await seat.open()
        looking = asyncio.create_task(seat.run())
        try:
            while not stop.is_set():
                if await self._wait(stop):
                    await self._act(stop)
        finally:
            await ended(looking)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSING):
                    await seat.let_go()
                    await seat.close()

    async def _wait(self, stop: asyncio.Event) -> bool:
        """Stand by until the seat is ours, or `stop`; whether it is ours."""
        seat = self._seat
        seat.state = STANDBY
        if not seat.won.is_set():
            standby = Standby(self._config, seat)
            await standby.open()
            try:
                await first(seat.won.wait(), stop.wait(), standby.follow(), standby.probe())
            finally:
                await standby.close()
        return seat.won.is_set() and not stop.is_set()

    async def _act(self, stop: asyncio.Event) -> None:
        seat = self._seat
        seat.state = STARTING
        acting = self._make(seat)
        acts = False
        try:
            acts = await self._began(acting, stop)
            if acts:
                await self._until_over(acting, stop)
        except (StoreError, PortTakenError) as error:
            log.error("this replica cannot act", reason=str(error))
        finally:
            await self._leave(acting)
        if not acts:
            # Nobody is to make way again at once for who cannot act.
            seat.way.forget()
        if not stop.is_set():
            # What is made next has an epoch of its own.
            await seat.let_go(for_good=False)
            await is_set(stop, 0.0 if acts else _AGAIN)
            seat.wants = True

    async def _until_over(self, acting: Acting, stop: asyncio.Event) -> None:
        """As long as it may act, and is the one to; told to stop, or outdone, it drains."""
        seat = self._seat
        seat.state = RUNNING
        is_over = (seat.lost, stop, acting.unsure, seat.outdone)
        await first(*(one.wait() for one in is_over))
        if (stop.is_set() or seat.outdone.is_set()) and seat.holds:
            seat.state = DRAINING
            await first(acting.drain(self._config.replica.drain_timeout), seat.lost.wait())

    async def _began(self, acting: Acting, stop: asyncio.Event) -> bool:
        """Let it begin, unless another has taken over or we are to stop before it has; whether it
        acts."""
        beginning = asyncio.ensure_future(acting.start())
        await first(beginning, self._seat.lost.wait(), stop.wait(), asyncio.sleep(_STARTING))
        if beginning.cancelled():
            return False
        beginning.result()
        return True

    async def _leave(self, acting: Acting) -> None:
        """Let go of all that acts; what does not end in time is fenced."""
        closing = asyncio.ensure_future(acting.close())
        await asyncio.wait({closing}, timeout=_CLOSING)
        if not closing.done():
            log.error("a part of the bridge does not end")
            closing.cancel()
            # Its other parts end then, the ports among them: they are wanted here at once.
            await asyncio.wait({closing}, timeout=_CLOSING)
        elif (error := closing.exception()) is not None:
            log.error("a part of the bridge could not be closed", exc_info=error)
        self._seat.stand_by()
