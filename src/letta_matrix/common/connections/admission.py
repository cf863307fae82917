"""Who may connect, and who has to go for that."""

import asyncio
import errno
import itertools
from typing import Any

import structlog

from letta_matrix.common import clock

log = structlog.get_logger()

STALLED = 60.0
"""Seconds in which a client has to take what it is sent."""
_TOLD_FOR = 60.0
"""Seconds for which health tells of something."""


class Accepted(asyncio.Protocol):
    """Mixed into the protocol of a connection. It counts `among` others, and ends when the
    client does not read what it is sent; `gone` is set then."""

    among: "Connections"
    gone: asyncio.Event
    _wire: asyncio.Transport | None = None
    _stalled: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is connected; just accepted it is not yet."""
        return self._wire is not None

    def is_idle(self) -> bool:
        """Whether it is between requests, or has not sent the head of one yet."""
        raise NotImplementedError

    def is_awaited(self) -> bool:
        """Whether something else of it is waited for: the rest of a body, or, where nobody knows
        what is spoken, whatever may come after an answer."""
        raise NotImplementedError

    def is_stalled(self) -> bool:
        """Whether it does not take what it is sent."""
        return self._stalled is not None

    def hang_up(self) -> None:
        """End it now, whatever is still to be sent."""
        if self._wire is not None:
            self._wire.abort()

    def connection_made(self, transport: Any) -> None:
        self._wire = transport
        self.gone = asyncio.Event()
        # So that whatever is not sent at once is noticed, also behind the last answer.
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.let_go()
        super().connection_lost(exc)

    def let_go(self) -> None:
        """Have no more to do with what it is connected by."""
        self.among.leave(self)
        self._take_time()
        self._wire = None
        self.gone.set()

    def pause_writing(self) -> None:
        self._stalled = asyncio.get_running_loop().call_later(STALLED, self.hang_up)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._take_time()
        super().resume_writing()

    def _take_time(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class Connections:
    """The connections of some ports together, `most` of them.

    When all are in use, a new one takes the place of that which we have waited for longest:
    one that sends no request, or else `is_awaited`, or else takes no answer. So those who are
    being answered stay, and who comes gets in. Only where all are being answered, new ones have
    to wait.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._all: dict[Accepted, None] = {}
        self._told: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._all)

    @property
    def troubles(self) -> list[str]:
        """What happened in the last minute, in words."""
        now = clock.now()
        return [what for what, when in self._told.items() if now - when <= _TOLD_FOR]

    @property
    def full(self) -> bool:
        """Whether all are in use."""
        return len(self._all) >= self.most

    def has_room(self) -> bool:
        """Whether another one, who waits, may come; room is made if need be."""
        if not self.full:
            return True
        if self.make_room():
            self._tell(
                f"all {self.most} connections were in use; some that were waited for were closed "
                "for new ones"
            )
            return True
        self._tell(f"new connections wait: all {self.most} are in use")
        return False

    def make_room(self) -> bool:
        """Cut off whom we have waited for longest; whether there was one."""
        known = [one for one in self._all if one.is_open]
        idle = (one for one in known if one.is_idle())
        awaited = (one for one in known if one.is_awaited())
        stalled = (one for one in known if one.is_stalled())
        longest = next(itertools.chain(idle, awaited, stalled), None)
        if longest is None:
            return False
        self.leave(longest)
        longest.hang_up()
        return True

    def refused(self, error: OSError) -> None:
        """Tell that the system gives us no connection now."""
        short = error.errno in (errno.EMFILE, errno.ENFILE)
        reason = "there are no file descriptors left" if short else error.strerror or str(error)
        self._tell(f"new connections wait: {reason}")

    def enter(self, connection: Accepted) -> None:
        """Count one that was accepted."""
        self._all[connection] = None

    def leave(self, connection: Accepted) -> None:
        """Count it no more."""
        self._all.pop(connection, None)

    def heard(self, connection: Accepted) -> None:
        """It has sent a whole head: others are waited for longer."""
        if connection in self._all:
            self.leave(connection)
            self.enter(connection)

    def _tell(self, what: str) -> None:
        if what not in self.troubles:
            log.warning("connections are short", reason=what)
        self._told[what] = clock.now()
