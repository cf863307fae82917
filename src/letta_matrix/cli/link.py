"""`letta-matrix link`: another sign-in link for the chat page."""

import asyncio
from pathlib import Path

from letta_matrix.cli.account import human_of
from letta_matrix.cli.faults import Failure
from letta_matrix.cli.options import DataOption, data_directory

_DEVICE = "letta-matrix-link"


def link(data: DataOption = None) -> None:
    """Print a new link that signs you in to the chat page of the embedded stack, once."""
    print(asyncio.run(_link(data_directory(data))))


async def _link(directory: Path) -> str:
    from urllib.parse import urlsplit

    import aiohttp

    from letta_matrix.common.connections.known_servers import CheckedConnector
    from letta_matrix.stack.bridge_config import known_synapse
    from letta_matrix.stack.errors import StackError
    from letta_matrix.stack.state import read_state
    from letta_matrix.stack.summary import sign_in_link
    from letta_matrix.stack.synapse import Synapse

    state = read_state(directory)
    user_id, password = human_of(state)
    homeserver: str = state["homeserver"]["url"]
    synapse = Synapse(directory / "synapse", urlsplit(homeserver).port or 80)
    connector = CheckedConnector(known_synapse(directory, homeserver))
    async with aiohttp.ClientSession(connector=connector) as http:
        try:
            token = await synapse.sign_in_once(http, user_id, password, _DEVICE)
        except StackError as error:
            raise Failure(f"no link this time: {error}") from None
    return sign_in_link(state["chat"]["url"], token)
