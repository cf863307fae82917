"""A bridge on a homeserver that is not Synapse, with one agent."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fake_homeserver import Json
from tests.fake_other_homeservers import Kind, OtherHomeserver
from tests.unit.test_health import config_on
from tests.waiting import eventually

from letta_matrix.access.principal import Principal
from letta_matrix.app.bridge import Bridge
from letta_matrix.common.vitals import State, lines
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo

ADA = AgentInfo("agent-1", "Ada")
GHOST = "@agent_1:test"


@dataclass
class Place:
    """A bridge on one of them, with one agent, in whose room a person is."""

    server: OtherHomeserver
    bridge: Bridge
    runtime: MemoryRuntime
    room_id: str = ""

    async def said(self, number: int) -> list[str]:
        """What the agent has said, once that is so much."""
        server = self.server

        def own() -> list[str]:
            sent = server.messages(self.room_id)
            of_others = [str(e["content"].get("body")) for e in sent if e["sender"] != GHOST]
            return [one for one in server.bodies(self.room_id, "m.text") if one not in of_others]

        return await eventually(own, lambda told: len(told) >= number and "▍" not in str(told))

    async def call(self, tool: str, **arguments: Any) -> Any:
        """What a tool tells the agent."""
        toolbox = self.bridge.app.toolbox
        return await toolbox.call(Principal("t", ADA.agent_id), tool, arguments, door="mcp")

    def troubles(self) -> list[str]:
        return lines(self.bridge.app.vitals.checks(), State.TROUBLE)

    def warnings(self) -> list[str]:
        return lines(self.bridge.app.vitals.checks(), State.WARNING)


@asynccontextmanager
async def bridge_on(kind: Kind, database_file: Path) -> AsyncGenerator[Place]:
    """A bridge that is started."""
    server = OtherHomeserver(kind)
    await server.start()
    runtime = MemoryRuntime()
    runtime.add(ADA)
    people = {"test": "user", "@ann:test": "admin"}
    agents = {"room_members": ["@ann:test"], "poll_interval": 0.1}
    config = config_on(server, database_file, agents=agents, permissions=people)
    place = Place(server, Bridge(config, [runtime]), runtime)
    await place.bridge.start()
    server.push_to(f"http://127.0.0.1:{config.appservice.port}", "h")
    try:
        yield place
    finally:
        await place.bridge.close()
        await server.stop()


@asynccontextmanager
async def settled_on(kind: Kind, database_file: Path) -> AsyncGenerator[Place]:
    """The agent has its room, and the person is there."""
    async with bridge_on(kind, database_file) as place:

        def room() -> str:
            row = place.bridge.app.stores.directory.get(ADA.agent_id)
            return str(row.room_id or "") if row is not None else ""

        place.room_id = await eventually(room, what="the agent's room")
        await eventually(place.bridge.is_ready, what="ready")
        place.server.come(place.room_id)
        yield place


def text(body: str, **more: Any) -> Json:
    return {"msgtype": "m.text", "body": body, **more}
