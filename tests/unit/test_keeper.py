"""The keeper: what it passes on, what it remembers, when it ends."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import aiohttp
import pytest
from structlog.testing import capture_logs
from tests.fake_app_server import FakeAppServer
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.common import log_files
from letta_matrix.runtimes.keeper import wire
from letta_matrix.runtimes.keeper.buffer import FrameBuffer
from letta_matrix.runtimes.keeper.client import (
    REFUSED_PAUSE,
    REPLACED_PAUSE,
    REPLAY_TIMEOUT,
    KeeperClient,
    KeeperGone,
    Link,
)
from letta_matrix.runtimes.keeper.doors import SILENCE, LocalDoor
from letta_matrix.runtimes.keeper.local import SPAWN_PAUSE, LocalKeeper
from letta_matrix.runtimes.keeper.process import keep
from letta_matrix.runtimes.keeper.secret import secret_at
from letta_matrix.runtimes.keeper.server import Keeper, Target, is_remote
from letta_matrix.runtimes.keeper.wire import Frame
from letta_matrix.stack.keeper import KeeperProcess
from letta_matrix.stack.up import Options, Stack


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


@pytest.fixture
async def path(tmp_path: Path) -> AsyncGenerator[Path]:
    """The socket of a keeper in a process of its own, which ends with the test."""
    made = tmp_path / "run" / "k.sock"
    yield made
    with suppress(OSError):
        os.kill(pid_of(made), signal.SIGTERM)
        await eventually(lambda: not made.exists())


def pid_of(path: Path) -> int:
    return int(path.with_name(f"{path.name}.pid").read_text())


async def test_who_says_nothing_is_hung_up_on(
    socket: Path, upstream: FakeAppServer, clock: Clock
) -> None:
    reader, writer = await asyncio.open_unix_connection(socket)
    async with attached(socket, upstream) as bridge:
        clock.advance(SILENCE)
        assert await within(reader.read()) == b""
        bridge.send(b"{}")
        assert await upstream.heard(1) == ["{}"]
    writer.close()


async def test_frames_pass_both_ways_unchanged(socket: Path, upstream: FakeAppServer) -> None:
    async with attached(socket, upstream) as bridge:
        bridge.send('{"a": "ü"}'.encode())
        assert await upstream.heard(1) == ['{"a": "ü"}']
        await upstream.say('{"b":\n "ö"}', '{"c":1}')
        await eventually(lambda: len(bridge.frames) == 2)
        assert bridge.texts == ['{"b":\n "ö"}', '{"c":1}']
        assert [frame.seq for frame in bridge.frames] == [1, 2]


async def test_frames_that_came_without_a_bridge_are_replayed(
    socket: Path, upstream: FakeAppServer
) -> None:
    async with attached(socket, upstream) as bridge:
        life, seq = bridge.link.life, bridge.seq
    await upstream.say('{"n":1,"c":"x"}', '{"n":2,"c":"y"}', '{"n":3,"c":"x"}')
    await settled()
    async with attached(socket, upstream) as bridge:
        assert bridge.link.same_stream(life, 1)
        replay = await bridge.replay(seq, '"x"')
        assert [frame.text for frame in replay.frames] == [b'{"n":1,"c":"x"}', b'{"n":3,"c":"x"}']
        assert (replay.gap, replay.seq) == (False, 3)
        assert [frame.seq for frame in (await bridge.replay(2, "")).frames] == [3]
        bridge.acknowledge(2)
        assert [frame.seq for frame in (await bridge.replay(0, "")).frames] == [3]
        assert bridge.frames == []


async def test_noise_is_dropped_and_answers_are_not_kept(
    socket: Path, upstream: FakeAppServer
) -> None:
    async with attached(socket, upstream) as bridge:
        await upstream.say('{"type":"noise"}', '{"type":"answer"}', '{"type":"text"}')
        await eventually(lambda: len(bridge.frames) == 2)
        assert bridge.texts == ['{"type":"answer"}', '{"type":"text"}']
        replay = await bridge.replay(0, "")
        assert [frame.text for frame in replay.frames] == [b'{"type":"text"}']
        assert not replay.gap


async def test_the_oldest_frames_go_first_and_the_gap_is_told(
    socket: Path, upstream: FakeAppServer
) -> None:
    async with attached(socket, upstream) as bridge:
        for number in range(4):
            await upstream.say(f'{{"n":{number},"x":"{"y" * 30}"}}')
        await eventually(lambda: len(bridge.frames) == 4)
        replay = await bridge.replay(0, "")
        assert [frame.seq for frame in replay.frames] == [3, 4]
        assert replay.gap
        assert not (await bridge.replay(2, "")).gap


async def test_a_newer_bridge_takes_over(
    socket: Path, upstream: FakeAppServer, clock: Clock
) -> None:
    clock.stop()
    async with attached(socket, upstream) as old, attached(socket, upstream) as new:
        await eventually(lambda: not old.link.up)
        await upstream.say('{"n":1}')
        await eventually(lambda: new.frames)
        assert old.frames == []
        with pytest.raises(KeeperGone):
            old.send(b"{}")
        clock.advance(REPLACED_PAUSE - 1)
        await settled()
        assert new.link.up
        assert old.link.reason == "another letta-matrix took the keeper over"


async def test_a_bridge_that_was_thrown_out_comes_back(
    socket: Path, upstream: FakeAppServer, clock: Clock
) -> None:
    clock.stop()
    async with attached(socket, upstream) as old:
        with capture_logs() as logs:
            async with attached(socket, upstream):
                await eventually(lambda: not old.link.up)
            clock.advance(REPLACED_PAUSE)
            await eventually(lambda: old.link.up)
        assert [log["log_level"] for log in logs] == ["warning"]
        assert "took the keeper over" in logs[0]["event"]


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


async def test_a_broken_upstream_is_made_again(socket: Path, upstream: FakeAppServer) -> None:
    async with attached(socket, upstream) as bridge:
        await upstream.drop()
        await eventually(lambda: bridge.link.generation == 2 and bridge.link.up)
        assert [(link.up, link.generation) for link in bridge.links][-2:] == [(False, 1), (True, 2)]
        await upstream.say('{"n":1}')
        await eventually(lambda: bridge.frames)
        assert bridge.frames[0].generation == 2
        assert len({link.life for link in bridge.links}) == 1


async def test_a_token_goes_with_the_handshake(socket: Path) -> None:
    async with FakeAppServer(token="secret") as upstream, attached(socket, upstream):
        assert upstream.headers["Authorization"] == "Bearer secret"


async def test_a_wrong_token_is_told(socket: Path) -> None:
    async with FakeAppServer(token="secret") as upstream:
        bridge = Bridge(socket, upstream)
        upstream.token = "another"
        bridge.start()
        await eventually(lambda: bridge.link.refused)
        assert "HTTP 401" in bridge.link.reason
        await bridge.close()


async def test_a_page_at_the_handshake_is_about_no_token(socket: Path) -> None:
    async with FakeAppServer(token="secret", refusal="text/html") as upstream:
        bridge = Bridge(socket, upstream)
        upstream.token = "another"
        bridge.start()
        await eventually(lambda: "HTTP 401" in bridge.link.reason)
        assert not bridge.link.refused
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


def test_a_buffer_counts_bytes() -> None:
    buffer = FrameBuffer(10)
    for _ in range(3):
        buffer.number(1, b"12345", keep=True)
    assert len(buffer) == 2
    assert buffer.lost == 1
    buffer.acknowledge(3)
    assert len(buffer) == 0
    assert buffer.after(1, b"") == ([], False)


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("ws://127.0.0.1:4500", False),
        ("ws://localhost:4500/ws", False),
        ("ws://[::1]:4500", False),
        ("ws://192.0.2.7:4500", True),
        ("wss://letta.example", True),
    ],
)
def test_a_second_connection_is_for_other_machines(url: str, remote: bool) -> None:
    assert is_remote(url) is remote


async def test_a_second_connection_takes_over(
    tmp_path: Path, upstream: FakeAppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.runtimes.keeper.server.is_remote", bool)
    path = tmp_path / "keeper.sock"
    keeper = Keeper(1000, lambda _: None, lambda: None)
    door = LocalDoor(keeper, secret_at(path))
    server = await asyncio.start_unix_server(door.serve, path)
    async with attached(path, upstream) as bridge:
        await eventually(lambda: bridge.link.made == 2)
        bridge.send(b'{"to":"all"}', everywhere=True)
        bridge.send(b'{"to":"one"}')
        assert sorted(await upstream.heard(3)) == ['{"to":"all"}', '{"to":"all"}', '{"to":"one"}']
        await upstream.say('{"n":1}')
        await eventually(lambda: bridge.frames)
        await upstream.say('{"type":"call"}')
        await eventually(lambda: len(bridge.frames) == 3)
        assert bridge.texts == ['{"n":1}', '{"type":"call"}', '{"type":"call"}']
        bridge.frames.clear()
        generation = bridge.link.generation
        await upstream.senders[upstream.received.index('{"to":"one"}')].close()
        await eventually(lambda: bridge.link.generation > generation and bridge.link.up)
        await eventually(lambda: bridge.link.made == 3)
        await upstream.say('{"n":2}')
        await eventually(lambda: bridge.frames)
        await settled()
        assert bridge.texts == ['{"n":2}']
    server.close()
    await keeper.close()


async def test_nothing_goes_out_on_another_connection_than_meant(
    socket: Path, upstream: FakeAppServer
) -> None:
    async with attached(socket, upstream) as bridge:
        old = bridge.link
        await upstream.drop()
        await eventually(lambda: bridge.link.generation == 2 and bridge.link.up)
        new, bridge.link = bridge.link, old
        bridge.send(b'{"late":1}')
        bridge.link = new
        bridge.send(b'{"fresh":1}')
        assert await upstream.heard(1) == ['{"fresh":1}']


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


async def test_a_replay_that_does_not_come_is_not_waited_for(
    socket: Path, upstream: FakeAppServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say_nothing(*_: object) -> None:
        pass

    monkeypatch.setattr(Keeper, "_replay", say_nothing)
    clock.stop()
    async with attached(socket, upstream) as bridge:
        replay = asyncio.create_task(bridge.replay(0, ""))
        await settled(replay)
        clock.advance(REPLAY_TIMEOUT - 1)
        await settled(replay)
        clock.advance(2)
        with pytest.raises(KeeperGone, match="does not answer"):
            await replay


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
    assert said[0] == f"keeper hangs: process {hung} has not answered for a minute; killing it"
