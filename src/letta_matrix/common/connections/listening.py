"""Listening on the addresses of the configuration."""

from collections.abc import Awaitable, Callable, Iterable

from letta_matrix.common.connections.listener import bound


class PortTakenError(Exception):
    """One of our ports is in use; the text names it."""


async def listen(start: Callable[[str, int], Awaitable[None]], hostname: str, port: int) -> None:
    """Start a server. Raises PortTakenError."""
    try:
        await start(hostname, port)
    except OSError as error:
        raise _taken(hostname, port, error) from None


def check_free(places: Iterable[tuple[str, int]]) -> None:
    """Look whether we may listen there, before anything is started that would be left over.
    Raises PortTakenError."""
    for hostname, port in places:
        try:
            for one in bound(hostname, port):
                one.close()
        except OSError as error:
            raise _taken(hostname, port, error) from None


def _taken(hostname: str, port: int, error: OSError) -> PortTakenError:
    return PortTakenError(
        f"cannot listen on {hostname}:{port}: {error.strerror or error}; "
        "is another letta-matrix running?"
    )
