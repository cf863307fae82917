"""Listening sockets that a process gets from the one that started it.

Who keeps a socket open keeps its port: nobody else can listen there while a server starts again.
"""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import cast

VARIABLE = "LETTA_MATRIX_LISTENING"
"""In the environment: descriptors by address, in JSON."""


def handed_down(sockets: Mapping[str, Sequence[socket.socket]]) -> dict[str, str]:
    """What has to be in a process's environment for it to find `sockets`, given by address."""
    if not sockets:
        return {}
    numbers = {where: [one.fileno() for one in some] for where, some in sockets.items()}
    return {VARIABLE: json.dumps(numbers)}


def address(hostname: str, port: int) -> str:
    """How a place to listen at is called."""
    return f"{hostname}:{port}"


def inherited(hostname: str, port: int) -> list[socket.socket]:
    """The sockets we were given for that; none, if there are none."""
    told = cast("dict[str, list[int]]", json.loads(os.environ.get(VARIABLE) or "{}"))
    numbers = told.get(address(hostname, port), [])
    # Copies, as servers close what they have.
    return [socket.socket(fileno=os.dup(number)) for number in numbers]
