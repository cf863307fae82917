"""Bridges of a keeper that listens over TCP, for tests of it. The fixtures are named in the files
that use them."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.fake_app_server import FakeAppServer
from tests.waiting import within

from letta_matrix.common.addresses import Place
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.client import KeeperClient, Link
from letta_matrix.runtimes.keeper.doors import RemoteDoor
from letta_matrix.runtimes.keeper.remote import RemoteKeeper
from letta_matrix.runtimes.keeper.secret import nonce, proof
from letta_matrix.runtimes.keeper.server import Keeper, Target
from letta_matrix.runtimes.keeper.wire import Frame

TOKEN = "of-a-keeper-and-its-bridges"
Json = dict[str, Any]


class Bridge(KeeperClient):
    """A client that notes what it gets."""

    def __init__(self, port: int, epoch: int = 0, token: str = TOKEN) -> None:
        self.frames: list[Frame] = []
        self.links: list[Link] = []
        place = RemoteKeeper(Place("127.0.0.1", port), lambda: token)
        super().__init__(place, self.frames.append, self.links.append, epoch=epoch)


@asynccontextmanager
async def attached(port: int, epoch: int = 0, token: str = TOKEN) -> AsyncGenerator[Bridge]:
    bridge = Bridge(port, epoch, token)
    bridge.start()
    try:
        yield bridge
    finally:
        await bridge.close()


@asynccontextmanager
async def keeping(upstream: FakeAppServer) -> AsyncGenerator[Keeper]:
    """A keeper that is aimed at the App Server, with no door yet."""
    keeper = Keeper(100_000, lambda _: None, lambda: None)
    await keeper.aim(Target(upstream.url, upstream.token))
    yield keeper
    await keeper.close()


@asynccontextmanager
async def opened(keeper: Keeper, upstream: FakeAppServer) -> AsyncGenerator[int]:
    """Its door; the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        door = RemoteDoor(keeper, TOKEN, Target(upstream.url, upstream.token))
        yield door.listen([listening])
        await door.close()


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    """A connection by hand, and the keeper's nonce on it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _, payload = await within(wire.read_record(reader))
    hello = wire.unpack_control(payload)
    assert hello["type"] == "hello"
    return reader, writer, str(hello["nonce"])


async def answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, theirs: str, message: Json
) -> Json:
    """What the keeper says to a greeting with a good proof."""
    ours = nonce()
    shown = {"nonce": ours, "proof": proof(TOKEN, "bridge", theirs, ours)}
    writer.write(wire.pack_control({**wire.versions(), **shown, **message}))
    _, payload = await within(wire.read_record(reader))
    return wire.unpack_control(payload)


async def introduced(port: int, message: Json) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bridge that is attached, and says nothing more by itself."""
    reader, writer, theirs = await connected(port)
    assert (await answer(reader, writer, theirs, message))["type"] == "attached"
    return reader, writer


async def ended(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(65_536):
            pass
    except ConnectionError:
        return


def said(bridge: KeeperClient) -> str:
    return bridge.link.reason


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeAppServer]:
    async with FakeAppServer(token="of-the-app-server") as server:
        yield server


@pytest.fixture
async def keeper(upstream: FakeAppServer) -> AsyncGenerator[Keeper]:
    async with keeping(upstream) as keeper:
        yield keeper


@pytest.fixture
async def port(keeper: Keeper, upstream: FakeAppServer) -> AsyncGenerator[int]:
    async with opened(keeper, upstream) as port:
        yield port
