"""The REST API of a bridge, as the holder of a token sees it."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import quote

import aiohttp
from tests.integration.bridge_world import World
from yarl import URL

from letta_matrix.access.principal import Scope
from letta_matrix.access.secrets import issue
from letta_matrix.doors.rest.problems import MEDIA_TYPE

Headers = Mapping[str, str] | None


@dataclass(frozen=True)
class Answer:
    """What came back; `body` is the JSON, None where there is none."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def problem(self) -> tuple[int, str]:
        """Status and kind of a problem document, which it has to be."""
        assert self.headers["Content-Type"] == MEDIA_TYPE, self
        assert self.body["status"] == self.status, self
        return self.status, str(self.body["type"]).rpartition("/")[2]


@dataclass(frozen=True)
class Rest:
    """Calls what is below `url` with a token. Paths are percent-encoded already."""

    http: aiohttp.ClientSession
    url: str
    token: str

    @property
    def principal(self) -> str:
        """How the audit log names it."""
        return f"token:{self.token.split('_')[1]}"

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        expect: int = 200,
        headers: Headers = None,
        **query: str,
    ) -> Any:
        """The JSON of an answer with the status that is expected; `body` may be bytes."""
        answer = await self.ask(method, path, body, headers=headers, **query)
        assert answer.status == expect, (method, path, answer)
        return answer.body

    async def refused(
        self, method: str, path: str, body: object = None, *, headers: Headers = None, **query: str
    ) -> tuple[int, str]:
        """Status and kind of the problem that the answer is."""
        return (await self.ask(method, path, body, headers=headers, **query)).problem

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        headers: Headers = None,
        **query: str,
    ) -> Answer:
        """Whatever comes back; `token` is another one, "" for none."""
        bearer = self.token if token is None else token
        sent = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        sent |= headers or {}
        async with self.open(method, path, body, headers=sent, **query) as response:
            data = await response.read()
            is_json = bool(data) and "json" in response.headers.get("Content-Type", "")
            return Answer(response.status, response.headers, json.loads(data) if is_json else None)

    @asynccontextmanager
    async def open(
        self, method: str, path: str, body: object = None, *, headers: Headers = None, **query: str
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The response itself, with the token unless `headers` are given."""
        sent = {"Authorization": f"Bearer {self.token}"} if headers is None else dict(headers)
        data = body
        if isinstance(body, bytes):
            data = BytesIO(body)
        elif body is not None and not isinstance(body, aiohttp.FormData):
            data = json.dumps(body)
            sent = {"Content-Type": "application/json", **sent}
        pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        address = URL(f"{self.url}{path}{'?' if pairs else ''}{pairs}", encoded=True)
        async with self.http.request(
            method, address, data=data, headers=sent, allow_redirects=False
        ) as response:
            yield response

    @asynccontextmanager
    async def stream(
        self, path: str, body: object, *, headers: Headers = None, **query: str
    ) -> AsyncGenerator[AsyncIterator[tuple[str, Any]]]:
        """The names and data of server-sent events, as they come."""
        sent = {"Authorization": f"Bearer {self.token}", "Accept": "text/event-stream"}
        sent |= headers or {}
        async with (
            self.open("POST", path, body, headers=sent, **query) as response,
            aclosing(_events(response)) as events,
        ):
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            yield events

    async def events(
        self, path: str, body: object, *, headers: Headers = None, **query: str
    ) -> list[tuple[str, Any]]:
        """All of them, to the end."""
        async with self.stream(path, body, headers=headers, **query) as events:
            return [event async for event in events]


async def _events(response: aiohttp.ClientResponse) -> AsyncGenerator[tuple[str, Any]]:
    event: dict[str, str] = {}
    async for line in response.content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            event[name] = value
        elif "event" in event:
            yield event["event"], json.loads(event["data"])
            event = {}
        else:
            event = {}


async def rest_as(
    world: World,
    *scopes: Scope,
    agent_id: str = "",
    rooms: frozenset[str] | None = None,
    below: str = "/api/v1",
) -> Rest:
    """The API as the holder of a new token; with all scopes if none is given."""
    text, stored = issue(agent_id=agent_id, scopes=frozenset(scopes or Scope), rooms=rooms)
    await world.bridge.app.stores.tokens.add(stored)
    return Rest(world.person.http, f"http://127.0.0.1:{world.config.api.port}{below}", text)
