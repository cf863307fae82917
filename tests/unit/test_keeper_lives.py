"""The keeper that a bridge starts: when it begins and ends, and when another takes its place."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs
from tests.fake_app_server import FakeAppServer
from tests.unit import keeper_bridge
from tests.unit.keeper_bridge import Bridge, attached, pid_of
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.cli.up.stack import Options, Stack
from letta_matrix.common import log_files
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.client import (
    REFUSED_PAUSE,
)
from letta_matrix.runtimes.keeper.local import SPAWN_PAUSE, LocalKeeper
from letta_matrix.runtimes.keeper.pid_file import KeeperProcess
from letta_matrix.runtimes.keeper.process import keep
from letta_matrix.runtimes.keeper.server import Target

upstream, socket = keeper_bridge.upstream, keeper_bridge.socket


@pytest.fixture
async def path(tmp_path: Path) -> AsyncGenerator[Path]:
    """The socket of a keeper in a process of its own, which ends with the test."""
    made = tmp_path / "run" / "k.sock"
    yield made
    with suppress(OSError):
        os.kill(pid_of(made), signal.SIGTERM)
        await eventually(lambda: not made.exists())


async def test_a_keeper_that_cannot_be_started_is_tried_again(
    path: Path, upstream: FakeAppServer, clock: Clock
) -> None:
    path.parent.write_text("in the way")
    bridge = Bridge(path, upstream)
    with capture_logs() as logs:
        bridge.start()
        await clock.until(lambda: bridge.place.tries >= 3)
    warnings = [log for log in logs if log["log_level"] == "warning"]
    assert [log["event"] for log in warnings] == ["not attached to a keeper"]
    assert bridge.link.reason.startswith("a keeper cannot be started: ")
    assert "File exists" in bridge.link.reason
    path.parent.unlink()
    clock.advance(SPAWN_PAUSE)
    await eventually(lambda: bridge.link.up)
    await bridge.close()


async def test_a_keeper_is_started_and_outlives_its_bridge(
    path: Path, upstream: FakeAppServer
) -> None:
    async with attached(path, upstream, "--idle", "60") as bridge:
        life = bridge.link.life
        pid = pid_of(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.getsid(pid) == pid
    async with attached(path, upstream) as bridge:
        assert bridge.link.life == life
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "letta_matrix.runtimes.keeper", "--socket", str(path)
    )
    assert await within(second.wait()) == 0
    os.kill(pid, signal.SIGTERM)
    await eventually(lambda: not path.with_name("k.sock.pid").exists())
    assert not path.exists()


async def test_a_keeper_to_which_no_bridge_comes_ends(path: Path) -> None:
    path.parent.mkdir()
    keeper = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "letta_matrix.runtimes.keeper"),
        *("--socket", str(path), "--idle", "0.1"),
    )
    assert await within(keeper.wait()) == 0
    assert not path.exists()


async def test_a_keeper_ends_when_it_was_long_without_a_bridge(
    tmp_path: Path, upstream: FakeAppServer, clock: Clock
) -> None:
    path = tmp_path / "k.sock"
    clock.stop()
    keeper = asyncio.create_task(keep(path, 600, 100, asyncio.Event()))
    await eventually(path.exists)
    clock.advance(599)
    async with attached(path, upstream):
        clock.advance(601)
        await settled(keeper)
    await settled(keeper)
    clock.advance(599)
    await settled(keeper)
    clock.advance(2)
    await eventually(keeper.done)


async def test_it_ends_with_a_bridge_attached(
    tmp_path: Path, upstream: FakeAppServer, clock: Clock
) -> None:
    clock.stop()
    before, ended = asyncio.all_tasks(), asyncio.Event()
    keeper = asyncio.create_task(keep(tmp_path / "k.sock", 600, 100, ended))
    await eventually((tmp_path / "k.sock").exists)
    async with attached(tmp_path / "k.sock", upstream) as bridge:
        ended.set()
        await within(keeper)
        # What is left at the end of a process is told in its log, as a fault with a stack.
        left = {repr(one.get_coro()) for one in asyncio.all_tasks() - before}
        assert not [one for one in left if "Door" in one]
        await eventually(lambda: not bridge.link.up)


async def test_its_log_stays_small(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "MOST", 1_000)
    path, ended = tmp_path / "k.sock", asyncio.Event()
    log = tmp_path / "k.sock.log"
    with log.open("a") as written:
        keeper = asyncio.create_task(keep(path, 600, 100, ended))
        print("x" * 2_000, file=written, flush=True)
        await clock.until(lambda: log.stat().st_size == 0)
        print("later", file=written, flush=True)
    assert log.read_text() == "later\n"
    assert (tmp_path / "k.sock.log.1").read_text() == "x" * 2_000 + "\n"
    ended.set()
    await within(keeper)


async def test_a_killed_keeper_is_replaced(
    path: Path, upstream: FakeAppServer, clock: Clock
) -> None:
    async with attached(path, upstream) as bridge:
        life = bridge.link.life
        os.kill(pid_of(path), signal.SIGKILL)
        clock.advance(SPAWN_PAUSE)
        await eventually(lambda: bridge.link.up and bridge.link.life != life)


async def test_a_socket_path_that_is_too_long_is_told(
    tmp_path: Path, upstream: FakeAppServer
) -> None:
    bridge = Bridge(tmp_path / ("k" * 120), upstream)
    bridge.start()
    await eventually(lambda: "longer than 107" in bridge.link.reason)
    await bridge.close()


async def test_a_keeper_of_another_version_is_replaced(
    path: Path, upstream: FakeAppServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with attached(path, upstream) as bridge:
        life = bridge.link.life
        monkeypatch.setattr("letta_matrix.runtimes.keeper.wire.PROTOCOL", 0)
        await upstream.drop()
        await eventually(lambda: not path.exists())
        monkeypatch.undo()
        clock.advance(SPAWN_PAUSE)
        await eventually(lambda: bridge.link.up and bridge.link.life != life)


async def test_a_keeper_of_replicas_that_are_no_more_is_replaced(
    path: Path, upstream: FakeAppServer, clock: Clock
) -> None:
    former = Bridge(path, upstream, epoch=7)
    former.start()
    await eventually(lambda: former.link.up)
    life = former.link.life
    await former.close()
    # From PostgreSQL back to SQLite: no epochs any more.
    bridge = Bridge(path, upstream)
    bridge.start()
    await eventually(lambda: not path.exists())
    assert "has taken over" in bridge.link.reason
    clock.advance(REFUSED_PAUSE)
    await eventually(lambda: bridge.link.up)
    assert bridge.link.life != life
    await bridge.close()


async def test_who_has_lost_its_place_ends_no_keeper(socket: Path, upstream: FakeAppServer) -> None:
    asked = asyncio.Event()

    async def sure() -> None:
        asked.set()
        await asyncio.Event().wait()

    latest, sleeper = Bridge(socket, upstream, epoch=7), Bridge(socket, upstream, epoch=6)
    sleeper._place = LocalKeeper(socket, Target(upstream.url, upstream.token), sure=sure)
    latest.start()
    await eventually(lambda: latest.link.up)
    life = latest.link.life
    sleeper.start()
    await within(asked.wait())
    await sleeper.close()
    await settled()
    assert (latest.link.up, latest.link.life) == (True, life)
    await latest.close()


@pytest.mark.parametrize(
    "record",
    [
        wire.pack_control({"type": "attached", "protocol": wire.PROTOCOL}),
        wire.pack_control({"no": "type"}),
        wire.pack_control({"type": "replay", "gap": False, "seq": 0, "count": "x", "id": 1}),
        wire.pack(wire.FRAME, b"short"),
    ],
)
async def test_a_keeper_that_talks_nonsense_is_tried_again(
    tmp_path: Path, upstream: FakeAppServer, clock: Clock, record: bytes
) -> None:
    visits = list[asyncio.StreamWriter]()

    def faulty(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append(writer)
        writer.write(record)

    server = await asyncio.start_unix_server(faulty, tmp_path / "k.sock")
    bridge = Bridge(tmp_path / "k.sock", upstream)
    bridge.start()
    await eventually(lambda: "makes no sense" in bridge.link.reason)
    await settled()
    assert len(visits) == 1
    clock.advance(REFUSED_PAUSE)
    await eventually(lambda: len(visits) == 2)
    await bridge.close()
    for writer in visits:
        writer.close()
    server.close()


async def test_a_keeper_that_hangs_is_killed_and_replaced(
    http: aiohttp.ClientSession, path: Path, upstream: FakeAppServer, tmp_path: Path, clock: Clock
) -> None:
    said = list[str]()
    stack = Stack(Options(tmp_path), tmp_path, said.append, http)
    keeper = stack._keeper = KeeperProcess(path)
    # So fast a clock has the bridge start several, of which one stays: until it is alone.
    async with attached(path, upstream, "--idle", "5") as bridge:
        hung = pid_of(path)
        assert await keeper.answers()
        assert bridge.link.up
        looking = asyncio.create_task(stack.look_after_keeper())
        os.kill(hung, signal.SIGSTOP)
        await clock.until(lambda: keeper.pid() not in (None, hung))
        await eventually(keeper.answers)
        await eventually(lambda: bridge.link.up)
        looking.cancel()
    assert said[0] == f"keeper hangs: process {hung} does not answer any more; killing it"
