"""A bridge on the real homeserver, and its REST API as callers see it."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.bridge_world import Json, Person, Room, World, bridge_on, new_agent
from tests.servers import Homeserver

from letta_matrix.access.secrets import issue
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.toolbox.principal import Scope


@dataclass(frozen=True)
class Answer:
    """What came back; `body` is the JSON, None where there is none."""

    status: int
    headers: Any
    body: Any

    @property
    def problem(self) -> tuple[int, str]:
        """Status and kind of a problem document, which it has to be."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        assert self.body["status"] == self.status, self
        return self.status, str(self.body["type"]).rpartition("/")[2]


@dataclass
class Rest:
    """The API of a running bridge. `token` is an admin's."""

    world: World
    room: Room
    token: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.world.config.api.port}"

    async def new_token(self, *scopes: str, agent_id: str = "", rooms: Any = None) -> str:
        """A token with these scopes; with none given, all that there are."""
        wanted = frozenset(map(Scope, scopes)) or frozenset(Scope)
        limited = None if rooms is None else frozenset(rooms)
        text, stored = issue(agent_id=agent_id, scopes=wanted, rooms=limited)
        await self.world.bridge._stores.tokens.add(stored)
        return text

    async def call(
        self,
        method: str,
        path: str,
        body: Json | list[Any] | bytes | None = None,
        token: str | None = None,
        **headers: str,
    ) -> Answer:
        """A request; `token` is another one than the admin's, "" for none."""
        bearer = self.token if token is None else token
        sent = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        given: dict[str, Any] = {"data" if isinstance(body, bytes) else "json": body}
        async with self.world.person.http.request(
            method, self.url + path, headers=sent, allow_redirects=False, **given
        ) as response:
            is_json = "json" in response.headers.get("Content-Type", "")
            read = await response.json(content_type=None) if is_json else None
            return Answer(response.status, response.headers, read)


@asynccontextmanager
async def rest_on(
    homeserver: Homeserver, directory: Path, person: Person, **sections: Any
) -> AsyncGenerator[Rest]:
    """A bridge with one agent."""
    async with bridge_on(homeserver, directory, person, MemoryRuntime(), **sections) as world:
        room = await world.meet(new_agent(f"Ada {secrets.token_hex(3)}"))
        rest = Rest(world, room)
        rest.token = await rest.new_token()
        yield rest
