"""A bridge process on the real homeserver and the real App Server."""

import asyncio
import json
import secrets
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from tests.integration.bridge_world import Json, Person, Room, lay_database, room_of, settings_on
from tests.integration.runtime_bench import Bench, Client
from tests.servers import Homeserver, LettaServer, ServerProcess
from tests.stub_model import MODEL_ID, ModelRequest, StubModel, message_text

from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.app_server.keepers import local_keeper
from letta_matrix.runtimes.keeper.pid_file import KeeperProcess
from letta_matrix.runtimes.protocol import AgentInfo
from letta_matrix.stack.supervisor import Command


@dataclass
class LettaWorld:
    """The process, what it serves, and the person (an admin) who is in every agent's room."""

    homeserver: Homeserver
    letta: LettaServer
    model: StubModel
    person: Person
    directory: Path
    settings: Json

    def __post_init__(self) -> None:
        argv = (sys.executable, "-m", "letta_matrix", "run", "-c", str(self.config_file))
        command = Command("the bridge", argv, self.directory / "bridge.log", self.directory)
        self.process = ServerProcess(command, self._is_ready)

    @property
    def config_file(self) -> Path:
        return self.directory / "config.yaml"

    async def start(self) -> None:
        """Start the bridge, and wait until it is ready."""
        self.config_file.write_text(yaml.safe_dump(self.settings))
        await self.process.start()

    def stop(self) -> None:
        self.process.end(signal.SIGTERM)

    def kill(self) -> None:
        self.process.end(signal.SIGKILL)

    async def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the bridge with a signal, and start it again."""
        self.process.end(number)
        await self.start()

    async def health(self) -> Json:
        url = f"http://127.0.0.1:{self.settings['api']['port']}/health"
        async with self.person.http.get(url) as response:
            return await response.json()

    async def make_agent(self, name: str = "") -> AgentInfo:
        """An agent of the App Server that no other test has."""
        name = name or f"Ada {secrets.token_hex(3)}"
        async with self.letta.app_server.control(self.person.http) as control:
            body: Json = {"name": name, "model": f"openai-compatible/{MODEL_ID}", "tags": []}
            made = await control.request("agent_create", body=body)
        return AgentInfo(str(made["agent"]["id"]), name)

    async def meet(self, name: str = "") -> Room:
        """A new agent's room, with the person in it."""
        return await room_of(await self.make_agent(name), self.person)

    async def run(self, *arguments: str) -> str:
        """What `letta-matrix ARGUMENTS -c config.yaml` prints."""
        argv = (*arguments, "-c", str(self.config_file))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "letta_matrix", *argv, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output
        return output.decode()

    def client(self, agent_id: str = "") -> Client:
        """Another client of the App Server, which knows nothing of Matrix."""
        settings = AppServerRuntime.model_validate({"url": self.letta.url})
        socket = self.directory / "never.sock"
        runtime = AppServer(settings, local_keeper(settings, socket))
        return Client(Bench(runtime, self.letta.url, socket, agent_id, ""))

    def asked(self, text: str) -> list[ModelRequest]:
        """The model's requests with `text` in the last thing it was told, tool rounds too."""
        return [request for request in self.model.requests if text in request.text]

    def in_view(self, text: str) -> list[str]:
        """What people had said, as the model saw it when it was asked `text`."""
        messages = self.asked(text)[-1].body["messages"]
        return [message_text(one) for one in messages if one.get("role") == "user"]

    def log(self) -> str:
        return (self.directory / "bridge.log").read_text(errors="replace")

    async def _is_ready(self) -> bool:
        url = f"http://127.0.0.1:{self.settings['api']['port']}/ready"
        try:
            async with self.person.http.get(url) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


@asynccontextmanager
async def letta_world(
    homeserver: Homeserver,
    letta: LettaServer,
    model: StubModel,
    directory: Path,
    person: Person,
    **sections: Any,
) -> AsyncGenerator[LettaWorld]:
    """A bridge, ready, to whose App Server no agents are left from earlier tests; `sections` as
    for `settings_on`. Nothing in it may have failed by the end."""
    await delete_agents(letta, person.http)
    socket = directory / "keeper.sock"
    runtime = {"type": "app_server", "url": letta.url, "keeper_socket": str(socket)}
    runtimes = [{**runtime, "speech_interval": 0.3}]
    settings = settings_on(homeserver, person, **{"runtimes": runtimes, **sections})
    world = LettaWorld(homeserver, letta, model, person, directory, settings)
    await lay_database(homeserver, directory)
    try:
        await world.start()
        yield world
    finally:
        world.stop()
        await KeeperProcess(socket).end(5)
        await delete_agents(letta, person.http)
    assert "Traceback" not in world.log(), world.log()[-5000:]


async def delete_agents(letta: LettaServer, http: aiohttp.ClientSession) -> None:
    """Leave nobody on an App Server."""
    async with letta.app_server.control(http) as control:
        listing = await control.request("agent_list", query={"limit": 1000})
        for agent in listing["agents"]:
            await control.request("agent_delete", agent_id=agent["id"])


def formatted(said: Json) -> str:
    """The HTML of a message."""
    return str(said["content"].get("formatted_body", ""))


def whole_text(request: ModelRequest) -> str:
    """All that a model request holds, as one text."""
    return json.dumps(request.body, ensure_ascii=False)
