"""The Python client where no bridge is."""

import socket

import pytest

from letta_matrix.client import LettaMatrix, Unreachable


async def test_where_nothing_answers_is_said() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        # Nobody listens there, and nobody else can.
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with LettaMatrix(url) as nobody:
            with pytest.raises(Unreachable, match="does not answer"):
                await nobody.health()
