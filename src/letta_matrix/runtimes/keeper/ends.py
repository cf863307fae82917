"""What ends a keeper besides a signal: nobody to keep anything for."""

import asyncio


class IdleEnd:
    """Sets `ended` after `seconds` without a bridge; None: never."""

    def __init__(self, seconds: float | None, ended: asyncio.Event) -> None:
        self._seconds = seconds
        self._ended = ended
        self._timer: asyncio.TimerHandle | None = None
        self.changed(True)

    def changed(self, alone: bool) -> None:
        """A bridge has come, or left the keeper `alone`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if alone and self._seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seconds, self._ended.set)
