"""What comes from the homeserver, for whoever waits for it."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

import structlog

from letta_matrix.matrix.events import RawEvent

log = structlog.get_logger()

Listener = Callable[[RawEvent], None]


class EventBus:
    """Tells listeners of every event of the rooms that our users are in, once it is stored.

    Events of our own users are among them. After a crash one may come a second time.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def publish(self, event: RawEvent) -> None:
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
