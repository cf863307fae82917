"""A keeper beside an App Server, for bridges elsewhere."""

import asyncio
import secrets
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.servers import free_port
from tests.waiting import eventually

from letta_matrix.common.addresses import Place
from letta_matrix.common.private_files import write_private
from letta_matrix.runtimes.keeper.places import KeeperFault
from letta_matrix.runtimes.keeper.remote import RemoteKeeper


@dataclass
class KeeperBeside:
    """Where it is, and the file with its token."""

    port: int
    token_file: Path

    def settings(self, port: int = 0) -> dict[str, str]:
        """Of a runtime that it serves, perhaps by way of another port."""
        place = f"127.0.0.1:{port or self.port}"
        return {"type": "app_server", "keeper": place, "keeper_token_file": str(self.token_file)}


@asynccontextmanager
async def keeper_beside(url: str, directory: Path) -> AsyncGenerator[KeeperBeside]:
    """`letta-matrix keeper --listen` for the App Server at `url`, ready. It ends without a fault,
    and its log tells nobody its token."""
    token_file, port = directory / "keeper.token", free_port()
    write_private(token_file, secrets.token_hex(32))
    log = directory / "keeper.log"
    with log.open("wb") as written:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "letta_matrix", "keeper", "--listen", f"127.0.0.1:{port}"),
            *("--token-file", str(token_file), "--app-server", url),
            stderr=written,
        )
    place = RemoteKeeper(Place("127.0.0.1", port), token_file.read_text)

    async def reaches() -> bool:
        with suppress(KeeperFault):
            return bool((await place.look())["up"])
        return False

    try:
        await eventually(reaches, what="the keeper reaches the App Server")
        yield KeeperBeside(port, token_file)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        code = await process.wait()
    said = log.read_text()
    assert (code, "Traceback" in said, token_file.read_text() in said) == (0, False, False), said
