"""Programs of ours that a run starts, each in a process of its own."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
from tests.servers import ServerProcess

from letta_matrix.stack.files import write_private
from letta_matrix.stack.supervisor import Command

ROOT = Path(__file__).parent.parent


async def answers(http: aiohttp.ClientSession, url: str) -> bool:
    """Whether `url` is answered with 200."""
    try:
        async with http.get(url, timeout=aiohttp.ClientTimeout(total=5)) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


class Program:
    """`python -m MODULE SETTINGS.json`, ready when its `/health` on `settings["port"]` says so."""

    def __init__(
        self,
        module: str,
        settings: dict[str, Any],
        directory: Path,
        http: aiohttp.ClientSession,
    ) -> None:
        name = module.rpartition(".")[2]
        path = directory / f"{name}.json"
        write_private(path, json.dumps(settings))
        argv = (sys.executable, "-m", module, str(path))
        command = Command(name=name, argv=argv, log=directory / f"{name}.log", cwd=ROOT)
        url = f"http://127.0.0.1:{settings['port']}/health"
        self._server = ServerProcess(command, lambda: answers(http, url))

    async def start(self) -> None:
        await self._server.start()

    def stop(self) -> None:
        self._server.end(signal.SIGTERM)
