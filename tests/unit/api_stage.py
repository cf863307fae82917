"""The REST API over a stage, as holders of tokens see it."""

import shutil
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.builders import always
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage

from letta_matrix.access.principal import Scope
from letta_matrix.access.secrets import issue
from letta_matrix.app.doors import Doors
from letta_matrix.config import Config
from letta_matrix.doors.rest.problems import PROBLEMS, TYPES

ALL = frozenset(Scope)
HEALTH: Mapping[str, object] = {
    "status": "ok",
    "ready": True,
    "troubles": ["the runtime local is away"],
    "warnings": [],
    "checks": [
        {
            "name": "runtime local",
            "state": "trouble",
            "says": "the runtime local is away",
            "remedy": "",
            "watches": "its agents can be listed",
            "who": "Ada, Bo",
        }
    ],
    "agents_in_trouble": {"agent-1": "no room"},
    "uptime_seconds": 1.0,
    "homeserver_writes": 0,
    "homeserver_latency_ms": 1.0,
    "counters": {},
    "runtimes": {},
}


class Api:
    """The API over a stage, as holders of tokens see it."""

    def __init__(self, stage: Stage, config: Config | None = None) -> None:
        self.stage = stage
        config = config or stage.config
        doors = Doors(config, stage.parts, lambda: HEALTH, always)
        self.app = doors.rest()
        transport = httpx.ASGITransport(self.app)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    async def token(self, scopes: frozenset[Scope] = ALL, **limits: Any) -> str:
        text, stored = issue(agent_id=limits.pop("agent_id", ""), scopes=scopes, **limits)
        await self.stage.stores.tokens.add(stored)
        return text

    async def call(
        self, method: str, path: str, token: str | None = None, **options: Any
    ) -> httpx.Response:
        """A request with a token, an admin's if none is given."""
        bearer = await self.token() if token is None else token
        headers = {"Authorization": f"Bearer {bearer}", **options.pop("headers", {})}
        return await self.http.request(method, path, headers=headers, **options)


def problem(response: httpx.Response) -> tuple[int, str]:
    """Status and kind of a problem document, which it has to be."""
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert body["title"]
    assert body["type"].startswith(TYPES)
    slug = body["type"].removeprefix(TYPES)
    assert PROBLEMS[slug].status == response.status_code
    return response.status_code, slug


@asynccontextmanager
async def stage_on(
    fake: FakeHomeserver, file: Path, agents: int = 1, **sections: Any
) -> AsyncGenerator[Stage]:
    """A stage with so many agents."""
    stage = Stage(fake, file, **sections)
    await stage.open()
    for number in range(agents):
        await stage.add(number + 1)
    yield stage
    await stage.close()


@asynccontextmanager
async def lasting_stage(
    migrated: Path, directory: Path, agents: int = 1, **sections: Any
) -> AsyncGenerator[Stage]:
    """A stage with a homeserver and a database of its own, for many tests: the first request
    that an application answers takes longer than a hundred later ones."""
    fake = FakeHomeserver()
    await fake.start()
    file = Path(shutil.copy(migrated, directory / "letta-matrix.db"))
    async with stage_on(fake, file, agents, **sections) as stage:
        yield stage
    await fake.stop()


@asynccontextmanager
async def api_on(stage: Stage) -> AsyncGenerator[Api]:
    made = Api(stage)
    yield made
    await made.http.aclose()
