"""What comes from the homeserver, for whoever waits for it."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog

log = structlog.get_logger()

Event = Mapping[str, Any]
Listener = Callable[[Event], None]


class Arrivals:
    """Tells listeners of every event of the rooms that our users are in, once it is stored.

    Events of our own users are among them. After a crash one may come a second time.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def publish(self, event: Event) -> None:
        """Tell everybody who listens; a listener's fault is nobody else's."""
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception as error:
                log.error("a listener failed at an event", exc_info=error)

    @contextmanager
    def listen(self, listener: Listener) -> Generator[None]:
        """Call `listener`, which must not block, with every event that comes."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)
