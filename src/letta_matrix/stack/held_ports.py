"""Ports that `up` keeps for servers of ours, from its start to its end."""

import contextlib
import socket
from collections.abc import Mapping, Sequence

from letta_matrix.common.connections.inherited import address
from letta_matrix.common.connections.listener import bound
from letta_matrix.config import Config
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.ports import Ports


class HeldPorts:
    """Sockets that listen all the time and are handed down to each new child, so that nobody else
    can listen there, however often a child ends: who connects meanwhile waits for the next one."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self.bridge: Mapping[str, Sequence[socket.socket]] = {}
        self.demo_model: Mapping[str, Sequence[socket.socket]] = {}
        self.synapse: Mapping[str, Sequence[socket.socket]] = {}

    def take(self, config: Config, ports: Ports) -> None:
        """Listen where the bridge, Synapse and the demo model will.

        Raises:
            StackError: one is taken.
        """
        self.bridge = self._listen(config.listens)
        self.demo_model = self._listen([("127.0.0.1", ports.demo_model)])
        self.synapse = self._listen([("127.0.0.1", ports.synapse)])

    def give_back_demo_model(self) -> None:
        """There is no demo model: who asks it is to be refused, not to wait."""
        for sockets in self.demo_model.values():
            for one in sockets:
                one.close()
        self.demo_model = {}

    def close(self) -> None:
        """Give them back."""
        self._open.close()

    def _listen(self, places: Sequence[tuple[str, int]]) -> dict[str, list[socket.socket]]:
        sockets: dict[str, list[socket.socket]] = {}
        for hostname, port in places:
            where = address(hostname, port)
            try:
                sockets[where] = bound(hostname, port)
            except OSError as error:
                raise StackError(
                    f"cannot listen on {where}: {error.strerror or error}; was it taken by "
                    "another program just now?"
                ) from None
            for one in sockets[where]:
                self._open.enter_context(one)
        return sockets
