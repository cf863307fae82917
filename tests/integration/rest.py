"""A client of the REST API of a bridge under test."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import quote

import aiohttp
from tests.integration.bridge_world import Json, World
from yarl import URL

from letta_matrix.access.secrets import issue
from letta_matrix.toolbox.principal import Scope


@dataclass(frozen=True)
class Rest:
    """Calls `/api/v1` with a token."""

    http: aiohttp.ClientSession
    url: str
    token: str

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> tuple[int, Json]:
        """The status and the JSON answered; `body` may be bytes."""
        async with self.open(method, path, body, headers=headers, **query) as response:
            data = await response.read()
            return response.status, json.loads(data) if data else {}

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """As `call`, with the response itself. `path` is percent-encoded already."""
        sent = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        data = body
        if isinstance(body, bytes):
            data = BytesIO(body)
        elif body is not None and not isinstance(body, aiohttp.FormData):
            data, sent["Content-Type"] = json.dumps(body), "application/json"
        pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        address = URL(f"{self.url}{path}{'?' if pairs else ''}{pairs}", encoded=True)
        async with self.http.request(method, address, data=data, headers=sent) as response:
            yield response

    async def events(
        self, path: str, body: object, *, headers: Mapping[str, str] | None = None, **query: str
    ) -> list[tuple[str, Any]]:
        """Names and data of all server-sent events."""
        accept = {"Accept": "text/event-stream", **(headers or {})}
        async with self.open("POST", path, body, headers=accept, **query) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            blocks = (await response.text()).split("\n\n")
        lines = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
        return [(one["event"], json.loads(one["data"])) for one in lines if "event" in one]


async def rest_as(
    world: World, *scopes: Scope, agent_id: str = "", rooms: frozenset[str] | None = None
) -> Rest:
    """The API as the holder of a new token; with all scopes if none is given."""
    text, stored = issue(agent_id=agent_id, scopes=frozenset(scopes or Scope), rooms=rooms)
    await world.bridge._parts.stores.tokens.add(stored)
    port = world.config.api.port
    return Rest(world.person.http, f"http://127.0.0.1:{port}/api/v1", text)
