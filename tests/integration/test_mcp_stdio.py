"""`letta-matrix mcp` at a bridge process that is killed and comes back."""

import asyncio
import json
import secrets
import signal
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError
from tests.integration.bridge_world import DATABASE, Json, Person, lay_database, settings_on
from tests.servers import Homeserver, ServerProcess
from tests.waiting import eventually, settled

from letta_matrix.access.principal import TOOL_SCOPES
from letta_matrix.access.secrets import issue
from letta_matrix.common.json_fields import mapping
from letta_matrix.stack.supervisor import Command
from letta_matrix.store.database import Database, database_url
from letta_matrix.store.tokens import TokenStore


@dataclass
class BridgeProcess:
    """A bridge with its configuration in a folder, and a token for its MCP server."""

    file: Path
    settings: Json
    person: Person
    token: str = ""

    def __post_init__(self) -> None:
        argv = (sys.executable, "-m", "letta_matrix", "run", "-c", str(self.file))
        log = self.file.with_name("bridge.log")
        self.process = ServerProcess(Command("the bridge", argv, log, self.file.parent), self.ready)

    async def ready(self) -> bool:
        url = f"http://127.0.0.1:{self.settings['api']['port']}/ready"
        try:
            async with self.person.http.get(url) as response:
                return response.status == 200
        except OSError:
            return False

    async def make_token(self) -> None:
        """Before the bridge runs: it has its database for itself."""
        database = Database(database_url(f"sqlite:///{DATABASE}", self.file.parent))
        await database.open()
        self.token, stored = issue(agent_id="", scopes=TOOL_SCOPES)
        await TokenStore(database).add(stored)
        await database.close()

    @property
    def client(self) -> StdioServerParameters:
        url = f"ws://127.0.0.1:{self.settings['mcp']['websocket_port']}/mcp"
        return StdioServerParameters(
            command=sys.executable,
            args=["-m", "letta_matrix", "mcp", "--url", url],
            env={"LETTA_MATRIX_TOKEN": self.token},
        )


@pytest.fixture(scope="module")
async def bridge(
    homeserver: Homeserver, ann: Person, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[BridgeProcess]:
    directory = tmp_path_factory.mktemp("mcp-stdio")
    runtimes = [{"type": "memory", "agents": 1}]
    settings = settings_on(homeserver, ann, runtimes=runtimes)
    file = directory / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    await lay_database(homeserver, directory)
    running = BridgeProcess(file, settings, ann)
    await running.make_token()
    await running.process.start()
    yield running
    running.process.end(signal.SIGTERM)


async def test_a_session_goes_on_after_the_bridge_was_killed(bridge: BridgeProcess) -> None:
    async with (
        stdio_client(bridge.client) as (read, write),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        named = {"name": f"Room {secrets.token_hex(4)}", "transaction_id": secrets.token_hex(4)}
        made = await session.call_tool("matrix_create_room", named)
        room_id = str(mapping(made.structured_content)["room_id"])
        waiting = asyncio.create_task(
            session.call_tool("wait_for_message", {"room_id": room_id, "timeout_seconds": 280})
        )
        # What is asked later is answered: the bridge has the call.
        await settled(waiting)
        await session.call_tool("matrix_whoami", {})
        bridge.process.end(signal.SIGKILL)
        with pytest.raises(MCPError, match="same transaction_id"):
            await waiting
        await bridge.process.start()

        async def again() -> Json:
            try:
                called = await session.call_tool("matrix_create_room", named)
            except MCPError as error:
                # How long the bridge takes to come back is not ours to say.
                if "Try again in a moment" not in str(error):
                    raise
                return {}
            return dict(mapping(called.structured_content))

        assert (await eventually(again))["room_id"] == room_id
        (contents,) = (await session.read_resource("matrix://rooms")).contents
        # Those of all tests together are more than one answer holds.
        assert json.loads(getattr(contents, "text", ""))["rooms"]
        told = await session.call_tool("matrix_list_members", {"room_id": room_id})
        assert mapping(told.structured_content)["room_id"] == room_id
