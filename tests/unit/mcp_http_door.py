"""The HTTP door of the MCP server, on tools of the tests' own, and a raw client."""

import copy
import io
import json
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from tests.servers import free_port
from tests.unit.mcp_door import Door, Text, door_on

from letta_matrix.access.authenticator import Authenticator
from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.connections.admission import Connections
from letta_matrix.doors.mcp.core import Core
from letta_matrix.doors.mcp.http import McpHttp
from letta_matrix.doors.mcp.services import Services
from letta_matrix.doors.web.server import AsgiServer
from letta_matrix.operations.toolbox.tool import Caller, Result, Tool
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database, database_url

Json = dict[str, Any]

MODERN = "2026-07-28"
OLDER = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
META: Json = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@dataclass(frozen=True)
class Answer:
    """A response; `messages` are the JSON-RPC messages in it, from JSON or from a stream."""

    status: int
    headers: Mapping[str, str]
    messages: list[Json]

    @property
    def result(self) -> Json:
        return self.messages[-1]["result"]

    @property
    def error(self) -> Json:
        return self.messages[-1]["error"]


@dataclass
class HttpDoor:
    """The HTTP door, and a client with a token."""

    door: Door
    services: Services
    http: aiohttp.ClientSession
    token: str
    port: int = field(default_factory=free_port)
    app: McpHttp = field(init=False)
    server: AsgiServer = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        """Listen, like a new process."""
        self.app = McpHttp(self.services, Core(self.services))
        self.server = AsgiServer(self.app, Connections(2_000))
        await self.server.start("127.0.0.1", self.port)

    async def close(self) -> None:
        await self.app.close()
        await self.server.close()

    def with_token(self, token: str) -> "HttpDoor":
        """The same door for somebody else."""
        theirs = copy.copy(self)
        theirs.token = token
        return theirs

    async def restart(self) -> None:
        await self.close()
        await self.open()

    async def ask(
        self, method: str = "POST", path: str = "/mcp", data: Any = None, **headers: str
    ) -> Answer:
        """Any request; header names are given with underscores."""
        sent = self.headers(**headers)
        text = data if isinstance(data, (bytes, type(None))) else json.dumps(data).encode()
        body = None if text is None else io.BytesIO(text)
        url = self.url + path
        async with self.http.request(method, url, data=body, headers=sent) as response:
            text = await response.text()
            return Answer(response.status, response.headers, _messages(text))

    def headers(self, **headers: str) -> dict[str, str]:
        sent = {"Authorization": f"Bearer {self.token}", **JSON}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return {name: value for name, value in sent.items() if value}

    async def modern(self, method: str, params: Json | None = None, **headers: str) -> Answer:
        """A request of the stateless revision."""
        params = {"_meta": META, **(params or {})}
        sent = {"MCP_Protocol_Version": MODERN, "Mcp_Method": method}
        if "name" in params:
            sent["Mcp_Name"] = params["name"]
        return await self.ask(data=rpc(method, params), **sent | headers)

    async def call(self, name: str, /, **arguments: Any) -> Answer:
        return await self.modern("tools/call", {"name": name, "arguments": arguments})

    async def begin(self, version: str = OLDER[-1], **headers: str) -> Answer:
        """The older revisions' handshake."""
        params = {
            "protocolVersion": version,
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        }
        return await self.ask(data=rpc("initialize", params), **headers)

    async def session(self, version: str = OLDER[-1]) -> "HttpSession":
        """A session that is initialized."""
        begun = await self.begin(version)
        assert begun.result["protocolVersion"] == version
        session = HttpSession(self, begun.headers["Mcp-Session-Id"], version)
        done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await session.ask(data=done)).status == 202
        return session

    def sessions(self) -> int:
        return self.app.sessions


@dataclass
class HttpSession:
    door: HttpDoor
    session_id: str
    version: str

    @property
    def own(self) -> dict[str, str]:
        return {"Mcp_Session_Id": self.session_id, "MCP_Protocol_Version": self.version}

    async def ask(self, method: str = "POST", data: Any = None, **headers: str) -> Answer:
        return await self.door.ask(method, data=data, **self.own | headers)

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[AsyncIterator[Json]]:
        """What the server says by itself, from now on until the stream ends."""
        headers = self.door.headers(**self.own)

        async def news() -> AsyncIterator[Json]:
            async for line in response.content:
                for told in _messages(line.decode()):
                    yield told

        async with self.door.http.get(f"{self.door.url}/mcp", headers=headers) as response:
            assert response.status == 200
            yield news()

    async def request(self, method: str, params: Json | None = None, **headers: str) -> Answer:
        return await self.ask(data=rpc(method, params or {}), **headers)


def rpc(method: str, params: Json, number: int = 1) -> Json:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def _messages(text: str) -> list[Json]:
    if text.startswith("{"):
        return [json.loads(text)]
    data = (line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: "))
    return [json.loads(line) for line in data if line]


async def file(_caller: Caller, params: Text) -> Result:
    data, *rest = params.text.split()
    more = {"next": int(rest[0])} if rest else {}
    return {"mxc": "mxc://a/b", "media_type": "image/png", "content_base64": data, **more}


async def steps(caller: Caller, _params: Text) -> Result:
    await caller.progress(1.0, 2.0, "half")
    return {"text": "\ud800"}


async def refuse(_caller: Caller, _params: Text) -> Result:
    raise ToolError("Not so fast.", Fault.RATE_LIMITED, retry_after=2.5)


@asynccontextmanager
async def http_door(
    directory: Path, database: Database, client: aiohttp.ClientSession, **sections: Any
) -> AsyncGenerator[HttpDoor]:
    async with door_on(directory, database, **sections) as door:
        tools = dict(door.toolbox.tools)
        for name, run in (("file", file), ("steps", steps), ("refuse", refuse)):
            tools[name] = Tool(name, name, "For tests.", Scope.READ, Text, dict, run, seconds=None)
        tools["wait"] = replace(tools["wait"], seconds=None)
        door.toolbox.tools = tools
        agents = AgentDirectory(database)
        await agents.load()
        authenticator = Authenticator(door.config, door.tokens, agents)
        services = replace(door.services, authenticator=authenticator, directory=agents)
        opened = HttpDoor(door, services, client, await door.token())
        await opened.open()
        try:
            yield opened
        finally:
            await opened.close()


@asynccontextmanager
async def lasting_door(migrated: Path, directory: Path) -> AsyncGenerator[HttpDoor]:
    """A door with a database of its own, for many tests."""
    file = shutil.copy(migrated, directory / "letta-matrix.db")
    database = Database(database_url(f"sqlite:///{file}", directory))
    await database.open()
    connector = aiohttp.TCPConnector(limit=0)
    often = {"access": {"calls_per_minute": 1_000_000}}
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http_door(directory, database, http, **often) as opened,
    ):
        yield opened
    await database.close()
