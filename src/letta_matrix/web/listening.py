"""Listening on an address of the configuration."""

from collections.abc import Awaitable, Callable


class PortTakenError(Exception):
    """One of our ports is in use; the text names it."""


async def listen(start: Callable[[str, int], Awaitable[None]], hostname: str, port: int) -> None:
    """Start a server. Raises PortTakenError."""
    try:
        await start(hostname, port)
    except OSError as error:
        raise PortTakenError(
            f"cannot listen on {hostname}:{port}: {error.strerror or error}; "
            "is another letta-matrix running?"
        ) from None
