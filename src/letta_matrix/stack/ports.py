"""The ports of an embedded stack."""

import socket
import time
from dataclasses import dataclass, fields

from letta_matrix.stack.errors import BadFlagError, StackError

_HIGHEST = 65535
_STEP = 100


@dataclass(frozen=True, slots=True)
class Ports:
    """One port per server, all on loopback."""

    synapse: int = 8008
    appservice: int = 29377
    api: int = 8004
    mcp: int = 8016
    mcp_websocket: int = 8015
    app_server: int = 4500
    demo_model: int = 8009

    @classmethod
    def with_offset(cls, offset: int) -> "Ports":
        """The usual ports, each moved by `offset`.

        Raises:
            BadFlagError: a port would leave the range 1 to 65535.
        """
        usual = cls()
        moved = {f.name: getattr(usual, f.name) + offset for f in fields(cls)}
        if max(moved.values()) > _HIGHEST or min(moved.values()) < 1:
            least, most = 1 - usual.app_server, _HIGHEST - usual.appservice
            raise BadFlagError(
                f"--port-offset {offset}: ports go from 1 to {_HIGHEST}; expected {least} to {most}"
            )
        return cls(**moved)

    def check_free(self, patience: float = 2.0) -> None:
        """Make sure that nothing listens on any of them, waiting `patience` seconds for the
        children of a killed predecessor to be gone.

        Raises:
            StackError: naming each taken port and its server.
        """
        deadline = time.monotonic() + patience
        while taken := self._taken():
            if time.monotonic() > deadline:
                named = ", ".join(f"{port} ({name})" for name, port in taken.items())
                raise StackError(
                    f"taken on this machine: port {named}; stop what listens there, or start "
                    f"with {self._way_out()}"
                )
            time.sleep(0.1)

    def _way_out(self) -> str:
        """The next larger offset with which every port is free."""
        usual = Ports()
        ours = max(0, self.synapse - usual.synapse)
        others = range(ours + _STEP, _HIGHEST - usual.appservice + 1, _STEP)
        free = (offset for offset in others if not Ports.with_offset(offset)._taken())
        return f"--port-offset {next(free, 'N')}"

    def _taken(self) -> dict[str, int]:
        names = {f.name: getattr(self, f.name) for f in fields(self)}
        return {_LABELS[name]: port for name, port in names.items() if not _is_free(port)}


_LABELS = {
    "synapse": "Synapse",
    "appservice": "appservice",
    "api": "web and API",
    "mcp": "MCP",
    "mcp_websocket": "MCP on WebSocket",
    "app_server": "App Server",
    "demo_model": "demo model",
}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
