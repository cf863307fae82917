"""TCP ports of loopback for the servers of one run."""

import socket

FIRST_PORT = 25000
_LAST_PORT = 25999


class Ports:
    """Hands out free ports, below those the system gives to outgoing connections."""

    def __init__(self, first: int = FIRST_PORT) -> None:
        self._next = first

    def take(self) -> int:
        """A port nobody listens on, never the same twice.

        Raises:
            RuntimeError: all of them are taken.
        """
        while self._next <= _LAST_PORT:
            port, self._next = self._next, self._next + 1
            if _is_free(port):
                return port
        raise RuntimeError(f"no free port left up to {_LAST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
