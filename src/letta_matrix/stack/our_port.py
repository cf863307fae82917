"""A module of the embedded Synapse, which loads it: it listens on the socket that `up` has for it.

Nobody else can listen there while Synapse starts again, and be told the tokens of its clients.
"""

import socket
from collections.abc import Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory

from letta_matrix.common.connections.inherited import inherited


class OurPort:
    """Synapse, which makes its modules before it listens, has no setting for such sockets."""

    def __init__(self, config: Mapping[str, str], api: object) -> None:
        del config, api
        listen_on_inherited(reactor)


def listen_on_inherited(reactor: Any) -> None:
    """Let `listenTCP` take the socket that this process was given for an address, if it was."""
    plain = reactor.listenTCP

    def listen(
        port: int, factory: Factory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        for given in inherited(interface, port):
            with given:
                # It is copied.
                return reactor.adoptStreamPort(given.fileno(), socket.AF_INET, factory)
        return plain(port, factory, backlog, interface)

    reactor.listenTCP = listen
