"""A look at an App Server from beside: as the bridge would connect, without its keeper, which has
room for one bridge alone."""

import asyncio
import json

import aiohttp
from yarl import URL

from letta_matrix.common.connections.known_servers import CheckedConnector, KnownServer
from letta_matrix.common.json_fields import Json, items, mapping, parse_json, string_of
from letta_matrix.common.lenient_json import printable
from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server.connection import outage
from letta_matrix.runtimes.app_server.frames import parse
from letta_matrix.runtimes.faults import RuntimeUnavailable
from letta_matrix.runtimes.keeper.server import is_remote
from letta_matrix.runtimes.keeper.upstream import Upstream, websocket_url

MOST = 100
"""Agents that are counted one by one."""
_PATIENCE = 10.0
_REQUEST = "letta-matrix-look"


async def count_agents(config: AppServerRuntime, known: list[KnownServer]) -> int:
    """How many agents there are, `MOST` for as many or more; `known` is the server that has to be
    there. Raises CredentialsRefused, RuntimeUnavailable."""
    url, frames = websocket_url(config.url), asyncio.Queue[Json]()
    changed = asyncio.Event()

    def received(_: Upstream, text: bytes) -> None:
        if (frame := parse(text)) is not None and frame.get("request_id") == _REQUEST:
            frames.put_nowait(frame)

    token = config.token.get_secret_value() if config.token else None
    server = Upstream(url, token, received, lambda _: changed.set(), is_remote(url), known)
    try:
        async with asyncio.timeout(_PATIENCE):
            await changed.wait()
            if not server.up:
                raise outage(config, server.reason, refused=server.refused)
            asked = {"type": "agent_list", "request_id": _REQUEST, "query": {"limit": MOST}}
            await server.send(json.dumps(asked).encode())
            agents = items((await frames.get()).get("agents"))
    except TimeoutError:
        reason = "does not answer as an App Server does"
        raise RuntimeUnavailable(f"who listens at {config.shown_url} {reason}") from None
    finally:
        await server.close()
    if agents is None:
        raise RuntimeUnavailable(f"the App Server at {config.shown_url} lists no agents")
    return len(agents)


async def version_of(config: AppServerRuntime, known: list[KnownServer]) -> str:
    """What it says that it is, such as `0.34.12`; "" where it does not. `known` as above."""
    parts = URL(websocket_url(config.url))
    address = parts.with_scheme("https" if parts.scheme == "wss" else "http")
    token = config.token.get_secret_value() if config.token else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = aiohttp.ClientTimeout(total=_PATIENCE)
    try:
        async with (
            aiohttp.ClientSession(
                connector=CheckedConnector(known), headers=headers, timeout=timeout
            ) as http,
            http.get(
                address.with_path("/app-server-info", keep_query=True), allow_redirects=False
            ) as response,
        ):
            told = mapping(parse_json(await response.read()))
    except (aiohttp.ClientError, OSError, TimeoutError):
        return ""
    return printable(string_of(told, "letta_code_version")[:40])
