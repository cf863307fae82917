"""What an agent's tool may connect to, but not use: the keeper's socket."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.fake_app_server import FakeAppServer, adapter_at
from tests.waiting import eventually, within

from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.secret import secret_at


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeAppServer]:
    async with FakeAppServer() as server:
        yield server


@pytest.fixture
async def adapter(tmp_path: Path, upstream: FakeAppServer) -> AsyncGenerator[AppServer]:
    """An adapter that is attached to a keeper."""
    ended = asyncio.Event()
    async with adapter_at(upstream, tmp_path / "k", ended.set) as adapter:
        await adapter.start()
        await eventually(lambda: vars(adapter)["_connection"].link.up)
        yield adapter
        assert not ended.is_set()


@pytest.mark.parametrize(
    "message",
    [
        {"type": "attach", "muted": [], "transient": [], "url": "ws://127.0.0.1:1", "token": None},
        {"type": "attach", "muted": [], "transient": [], "url": "x", "token": "", "secret": "no"},
        {"type": "replay", "id": 1, "since": 0, "contains": ""},
        {"type": "end"},
        {"type": "attach", "secret": ""},
        {},
    ],
)
async def test_who_does_not_know_the_secret_gets_nothing(
    adapter: AppServer, tmp_path: Path, message: dict[str, Any]
) -> None:
    before = vars(adapter)["_connection"].link
    reader, writer = await asyncio.open_unix_connection(tmp_path / "k")
    writer.write(wire.pack_control(message))
    writer.write_eof()
    assert await within(reader.read()) == b""
    writer.close()
    assert vars(adapter)["_connection"].link == before


@pytest.mark.parametrize(
    "record", [wire.pack(wire.CONTROL, b"[]"), b"\x0f\xff\xff\xff" + wire.CONTROL]
)
async def test_nobody_fills_its_memory_or_its_log(
    adapter: AppServer, tmp_path: Path, record: bytes
) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "k")
    writer.write(record)
    assert await within(reader.read()) == b""
    writer.close()


@pytest.mark.parametrize(("text", "mode"), [("", 0o600), ("short", 0o600), ("x" * 40, 0o644)])
def test_a_secret_that_is_none_is_refused(tmp_path: Path, text: str, mode: int) -> None:
    path = tmp_path / "k.key"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(OSError, match="remove it"):
        secret_at(tmp_path / "k")


def test_the_secret_is_the_owners(tmp_path: Path) -> None:
    socket = tmp_path / "k"
    secret = secret_at(socket)
    assert len(secret) >= 32
    assert secret_at(socket) == secret
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
