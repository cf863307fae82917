"""A bridge of a keeper on this machine, for tests of it. The fixtures are named in the files that
use them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from tests.fake_app_server import FakeAppServer
from tests.waiting import eventually

from letta_matrix.runtimes.keeper.client import (
    KeeperClient,
    Link,
)
from letta_matrix.runtimes.keeper.doors import LocalDoor
from letta_matrix.runtimes.keeper.local import LocalKeeper
from letta_matrix.runtimes.keeper.secret import secret_at
from letta_matrix.runtimes.keeper.server import Keeper, Target
from letta_matrix.runtimes.keeper.wire import Frame


class Counted(LocalKeeper):
    """Notes how often it tries to start a keeper."""

    tries = 0

    def _open_log(self) -> BinaryIO:
        self.tries += 1
        return super()._open_log()


class Bridge(KeeperClient):
    """A client that notes what it gets, and how often it tries to start a keeper."""

    def __init__(
        self, socket: Path, upstream: FakeAppServer, *arguments: str, epoch: int = 0
    ) -> None:
        self.frames: list[Frame] = []
        self.links: list[Link] = []
        target = Target(upstream.url, upstream.token)
        self.place = Counted(socket, target, arguments=arguments)
        super().__init__(
            self.place,
            self.frames.append,
            self.links.append,
            muted=('{"type":"noise"',),
            transient=('{"type":"answer"',),
            single=('{"type":"call"',),
            epoch=epoch,
        )

    @property
    def texts(self) -> list[str]:
        return [frame.text.decode() for frame in self.frames]


@asynccontextmanager
async def attached(
    socket: Path, upstream: FakeAppServer, *arguments: str
) -> AsyncGenerator[Bridge]:
    bridge = Bridge(socket, upstream, *arguments)
    bridge.start()
    try:
        await eventually(lambda: bridge.link.up)
        yield bridge
    finally:
        await bridge.close()


def pid_of(path: Path) -> int:
    return int(path.with_name(f"{path.name}.pid").read_text())


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeAppServer]:
    async with FakeAppServer() as server:
        yield server


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncGenerator[Path]:
    """The socket of a keeper in this process that keeps at most 100 bytes."""
    path = tmp_path / "keeper.sock"
    keeper = Keeper(100, lambda _: None, lambda: None)
    door = LocalDoor(keeper, secret_at(path))
    server = await asyncio.start_unix_server(door.serve, path)
    yield path
    server.close()
    await keeper.close()
