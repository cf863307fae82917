"""Who comes to the port of a keeper and knows no token: nothing is told, nobody is kept out."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.fake_app_server import FakeAppServer
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.common.addresses import Place
from letta_matrix.runtimes.keeper import process, wire
from letta_matrix.runtimes.keeper.client import KeeperClient
from letta_matrix.runtimes.keeper.doors import PATIENCE, RemoteDoor
from letta_matrix.runtimes.keeper.remote import RemoteKeeper
from letta_matrix.runtimes.keeper.secret import nonce, proof
from letta_matrix.runtimes.keeper.server import Keeper, Target

TOKEN = "what-keeper-and-bridge-know"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def door(upstream: FakeAppServer) -> AsyncGenerator[RemoteDoor]:
    keeper, target = Keeper(1_000, lambda _: None, lambda: None), Target(upstream.url)
    await keeper.aim(target)
    yield RemoteDoor(keeper, TOKEN, target)
    await keeper.close()


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeAppServer]:
    async with FakeAppServer() as server:
        yield server


@pytest.fixture
async def port(door: RemoteDoor) -> AsyncGenerator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=1_000) as listening:
        listening.setblocking(False)
        yield door.listen([listening])
        await door.close()


@pytest.fixture
async def bridge(port: int) -> AsyncGenerator[KeeperClient]:
    """One that is attached."""
    place = RemoteKeeper(Place("127.0.0.1", port), lambda: TOKEN)
    bridge = KeeperClient(place, lambda _: None, lambda _: None, epoch=5)
    bridge.start()
    await eventually(lambda: bridge.link.up)
    yield bridge
    await bridge.close()


async def hello(port: int) -> tuple[Streams, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _, payload = await within(wire.read_record(reader))
    return (reader, writer), str(wire.unpack_control(payload)["nonce"])


GUESSES: list[dict[str, Any]] = [
    {},
    {"type": "ping"},
    {"type": "replay", "id": 1, "since": 0, "contains": "", "nonce": "n"},
    {"type": "attach", "nonce": "n", "token": TOKEN, "secret": TOKEN, "epoch": 9},
    {"type": "attach", "nonce": "n", "proof": proof("another-one", "bridge", "n", "n")},
    {"type": "attach", "nonce": "n", "proof": None, "epoch": 1 << 62},
    {"type": "attach", "nonce": 1, "proof": ""},
    {"type": "look", "nonce": "n", "proof": ["x"]},
    {"type": "end", "nonce": "n"},
]


@pytest.mark.parametrize("guess", GUESSES)
async def test_who_does_not_know_the_token_gets_nothing(
    port: int, bridge: KeeperClient, guess: dict[str, Any]
) -> None:
    before = bridge.link
    with capture_logs() as logs:
        (reader, writer), _ = await hello(port)
        writer.write(wire.pack_control({**wire.versions(), **guess}))
        said = await within(reader.read())
        writer.close()
    assert said in (b"", wire.refused("token"))
    assert TOKEN not in json.dumps(logs)
    assert bridge.link == before


async def test_a_proof_is_for_one_connection(port: int, bridge: KeeperClient) -> None:
    """What somebody has overheard is of no use to them, nor is the keeper's own proof."""
    (_, first), theirs = await hello(port)
    ours = nonce()
    overheard = {"nonce": ours, "proof": proof(TOKEN, "bridge", theirs, ours)}
    first.close()
    (reader, writer), _ = await hello(port)
    writer.write(wire.pack_control({"type": "attach", **wire.versions(), **overheard}))
    assert await within(reader.read()) == wire.refused("token")
    writer.close()
    (reader, writer), theirs = await hello(port)
    reflected = {"nonce": ours, "proof": proof(TOKEN, "keeper", theirs, ours)}
    writer.write(wire.pack_control({"type": "attach", **wire.versions(), **reflected}))
    assert await within(reader.read()) == wire.refused("token")
    writer.close()
    assert bridge.link.up


@pytest.mark.parametrize(
    "record",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        wire.pack(wire.CONTROL, b"[" * 60_000),
        wire.pack(wire.CONTROL, b"x" * 70_000)[:20],
        wire.pack_ack(1),
        os.urandom(512),
    ],
)
async def test_what_is_no_greeting_ends_the_connection(
    port: int, bridge: KeeperClient, record: bytes
) -> None:
    (reader, writer), _ = await hello(port)
    writer.write(record)
    # Reset, where there was more that it has not read.
    with suppress(ConnectionError):
        assert await within(reader.read()) == b""
    writer.close()
    assert bridge.link.up


async def test_who_says_nothing_is_hung_up_on(port: int, door: RemoteDoor, clock: Clock) -> None:
    clock.stop()
    (reader, writer), _ = await hello(port)
    clock.advance(PATIENCE - 1)
    await settled()
    assert len(door.strangers) == 1
    # A piece now and then is no greeting either.
    writer.write(wire.pack(wire.CONTROL, b"x" * 50)[:10])
    clock.advance(1)
    assert await within(reader.read()) == b""
    await eventually(lambda: not door.strangers)
    writer.close()


async def test_a_flood_of_strangers_keeps_no_bridge_out(
    port: int, door: RemoteDoor, bridge: KeeperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door.strangers, "most", 20)
    flood = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
    await eventually(lambda: len(door.strangers) <= 20)
    # The one that was there stays, and another one gets in.
    assert bridge.link.up
    place = RemoteKeeper(Place("127.0.0.1", port), lambda: TOKEN)
    assert (await place.look())["up"]
    assert len(door.strangers) <= 20
    for _, writer in flood:
        writer.transport.abort()


async def test_a_stranger_is_told_of_once_a_minute_at_most_by_its_address(port: int) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            (reader, writer), _ = await hello(port)
            writer.write(wire.pack_control({"type": "attach", "nonce": "n", **wire.versions()}))
            await within(reader.read())
            writer.close()
    # The same in every field, so that the log says it once.
    assert len({json.dumps(log) for log in logs}) == 1
    assert logs[0] == {
        "event": "a bridge is refused",
        "peer": "127.0.0.1",
        "reason": "token",
        "log_level": "warning",
    }


@pytest.mark.parametrize(
    ("flags", "text", "mode", "told"),
    [
        (["--listen", "0.0.0.0:0"], None, 0, "--listen 0.0.0.0:0: should be HOST:PORT"),
        (["--listen", "0.0.0.0:4510"], None, 0, "wants a token: name its file by --token-file"),
        (["--listen", "127.0.0.1:4510"], None, 0, "wants a token: name its file by --token-file"),
        (["--listen", "127.0.0.1:4510"], "x" * 40, 0o644, "is not for its owner alone"),
        (["--listen", "127.0.0.1:4510"], "x" * 40, 0o620, "is not for its owner alone"),
        (["--listen", "127.0.0.1:4510"], "short", 0o600, "holds no secret of 24 characters"),
        (["--listen", "127.0.0.1:4510"], "é" * 40, 0o600, "holds no secret of 24 characters"),
        (["--listen", "tls://0.0.0.0:4510"], "x" * 40, 0o600, "TLS is spoken by a proxy"),
        (
            ["--listen", "127.0.0.1:4510", "--app-server", "http://x"],
            "x" * 40,
            0o600,
            "--app-server: should be an address such as ws://127.0.0.1:4500",
        ),
    ],
)
def test_no_keeper_listens_without_a_good_token(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    text: str | None,
    mode: int,
    told: str,
) -> None:
    before = os.umask(0o077)
    try:
        if text is not None:
            file = tmp_path / "token"
            file.write_text(text)
            file.chmod(mode)
            flags = [*flags, "--token-file", str(file)]
        assert process.main(flags) == 2
    finally:
        os.umask(before)
    said = capsys.readouterr().err
    assert told in said
    assert len(said.splitlines()) == 1
    assert "x" * 40 not in said


def test_a_token_of_the_environment_is_looked_at_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LETTA_MATRIX_KEEPER_TOKEN", "guessable")
    before = os.umask(0o077)
    try:
        assert process.main(["--listen", "127.0.0.1:4510"]) == 2
    finally:
        os.umask(before)
    said = capsys.readouterr().err
    assert "LETTA_MATRIX_KEEPER_TOKEN holds no secret of 24 characters" in said
    assert "guessable" not in said
