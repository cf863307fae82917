"""The WebSocket door on tools of a test's own, without a homeserver."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field
from tests.builders import agent, config_for
from tests.mcp_socket import RawClient, raw_client

from letta_matrix.access.authenticator import Authenticator
from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import TOOL_SCOPES, Scope
from letta_matrix.access.secrets import issue
from letta_matrix.common.connections.admission import Connections
from letta_matrix.config import Config
from letta_matrix.doors.mcp.core import Core
from letta_matrix.doors.mcp.kept_subscriptions import KeptSubscriptions
from letta_matrix.doors.mcp.services import Services
from letta_matrix.doors.mcp.subscriptions import Watch
from letta_matrix.doors.mcp.websocket import McpSockets
from letta_matrix.doors.web.in_flight import InFlight
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.operations.toolbox.registry import Toolbox
from letta_matrix.operations.toolbox.results import UNTRUSTED
from letta_matrix.operations.toolbox.tool import Caller, Params, Result, Tool
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.database import Database
from letta_matrix.store.meta import Meta
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.tokens import TokenStore
from letta_matrix.store.turns import TurnStore

MINE, OTHERS = "!mine:test", "!others:test"


class Room(Params):
    room_id: str
    limit: int = 10


class Page(Params):
    after: int = Field(0)


class Text(Params):
    text: str = ""


@dataclass
class FakeTools:
    """`echo` says what it is told, `wait` lasts until `go`; rooms and agents are as given.
    `said` is what `echo` was told, `read` the rooms that were asked for."""

    rooms: list[str] = field(default_factory=lambda: [MINE])
    agents: list[str] = field(default_factory=lambda: ["Ada"])
    go: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    said: list[str] = field(default_factory=list[str])
    read: list[str] = field(default_factory=list[str])

    def tools(self) -> list[Tool[Any]]:
        rows = [
            ("matrix_list_rooms", Scope.READ, Page, self.list_rooms),
            ("matrix_read_room", Scope.READ, Room, self.read_room),
            ("matrix_list_members", Scope.READ, Room, self.read_room),
            ("matrix_get_context", Scope.READ, Room, self.read_room),
            ("matrix_list_unread", Scope.READ, Page, self.list_rooms),
            ("matrix_reply", Scope.WRITE, Text, self.echo),
            ("matrix_send_message", Scope.WRITE, Text, self.echo),
            ("list_agents", Scope.AGENTS, Page, self.list_agents),
            ("echo", Scope.READ, Text, self.echo),
            ("wait", Scope.READ, Text, self.wait),
        ]
        return [
            Tool(name, name, "For tests.", scope, params, dict, run, read_only=True)
            for name, scope, params, run in rows
        ]

    async def list_rooms(self, _caller: Caller, params: Page) -> Result:
        page = self.rooms[params.after : params.after + 2]
        rooms = [{"room_id": room, "name": f"Room {room[1:3]}"} for room in page]
        more = {"next": params.after + 2} if len(self.rooms) > params.after + 2 else {}
        return {**UNTRUSTED, "rooms": rooms, **more}

    async def read_room(self, caller: Caller, params: Room) -> Result:
        self.read.append(params.room_id)
        room_id = MINE if params.room_id == "#mine:test" else params.room_id
        if room_id not in self.rooms or not caller.principal.may_act_in(room_id):
            raise ToolError(f"You are not in {params.room_id}.", Fault.FORBIDDEN)
        return {"room_id": room_id, **UNTRUSTED, "limit": params.limit, "messages": []}

    async def list_agents(self, _caller: Caller, _params: Page) -> Result:
        return {"agents": [{"name": name} for name in self.agents]}

    async def echo(self, _caller: Caller, params: Text) -> Result:
        self.said.append(params.text)
        return {"text": params.text}

    async def wait(self, _caller: Caller, _params: Text) -> Result:
        self.waiting += 1
        try:
            await self.go.wait()
        finally:
            self.waiting -= 1
        return {"text": "gone"}


@dataclass
class Door:
    """A door that listens, and the means to make tokens."""

    config: Config
    tokens: TokenStore
    toolbox: Toolbox
    fake: FakeTools
    services: Services
    sockets: McpSockets = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.sockets.port}/mcp"

    @property
    def watches(self) -> set[Watch]:
        """What watches for clients."""
        listening = (getattr(one, "__self__", None) for one in self.toolbox.event_bus._listeners)
        return {one for one in listening if isinstance(one, Watch)}

    async def renew(self, port: int = 0) -> None:
        """Listen, like a new process."""
        self.sockets = McpSockets(self.services, Core(self.services), Connections(2_000))
        await self.sockets.start("127.0.0.1", port)

    async def token(
        self,
        *scopes: Scope,
        agent_id: str = "",
        rooms: frozenset[str] | None = None,
        lifetime: float | None = None,
    ) -> str:
        granted = frozenset(scopes) or TOOL_SCOPES
        text, stored = issue(agent_id=agent_id, scopes=granted, rooms=rooms, lifetime=lifetime)
        await self.tokens.add(stored)
        return text

    async def revoke(self, token: str) -> None:
        assert await self.tokens.revoke(token.split("_")[1], time.time())

    @asynccontextmanager
    async def client(self, token: str = "") -> AsyncGenerator[RawClient]:
        """A raw client that is initialized."""
        async with raw_client(self.url, token or await self.token()) as client:
            await client.initialize()
            yield client


def health(known: bool) -> dict[str, object]:
    """What `/health` answers here."""
    return {"status": "ok", "known": known}


@asynccontextmanager
async def door_on(
    directory: Path, database: Database, *, fake_tools: bool = True, **sections: Any
) -> AsyncGenerator[Door]:
    """A door on an empty database, with agents 1 and 2."""
    config = config_for(directory, **sections)
    agents = AgentDirectory(database)
    await agents.reserve([agent(1), agent(2)])
    conversations = ConversationStore(database)
    homeserver = Homeserver(config.homeserver.url, "as-secret", Pacer(8))
    stores = (Rooms(database), conversations, TurnStore(database, conversations), Outbox(database))
    toolbox = Toolbox(config, homeserver, agents, *stores, AuditStore(database))
    fake = FakeTools()
    if fake_tools:
        toolbox.tools = {tool.name: tool for tool in fake.tools()}
    tokens = TokenStore(database)
    authenticator = Authenticator(config, tokens, agents)
    kept = KeptSubscriptions(Meta(database))
    services = Services(config, toolbox, authenticator, agents, InFlight(), kept, health)
    door = Door(config, tokens, toolbox, fake, services)
    await door.renew()
    try:
        yield door
    finally:
        await door.sockets.close()
        await homeserver.close()
